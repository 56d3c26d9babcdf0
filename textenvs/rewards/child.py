"""The process that judges what may never end: maths answers, and documents against a schema.

A program, run by `textenvs.rewards.worker` and imported by nothing: it must start without the package. It reads one
JSON list a line, the limit in seconds and then what is judged, and answers one JSON object a line: `value`, or
`refused` (the task is at fault) with the reason, or `fault` (the response is), and `cpu`, the processor seconds used so
far, which alone says that it is ready. After its libraries are loaded, an audit hook refuses every way to run text as
code, to write, to start a process or to reach a network, so that a hole in a parser is a wrong answer and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

Judge = Callable[..., Any]

#: What Python's own import of a library module needs; see `_refuse` for what is checked of them.
ALLOWED_EVENTS = frozenset(
    (
        *("import", "open", "compile", "exec", "marshal.loads", "os.listdir", "os.scandir"),
        *("sys._getframe", "object.__getattr__", "object.__setattr__", "object.__delattr__", "code.__new__"),
        *("function.__new__", "builtins.id", "gc.get_objects", "sys.unraisablehook", "cpython._PySys_ClearAuditHooks"),
    )
)

#: Modules that write code and run it, from names and counts of their own: none of it is text that they were given.
CODE_WRITERS = frozenset(("sympy.polys.monomials", "dataclasses", "collections"))

#: Pairs of equal answers, each compared in another way.
WARM_UP = (
    *((r"\frac{1}{2}", r"50\%"), ("x^2+2x+1", "(x+1)^2"), (r"\{1,2\}", "2,1"), ("(1,2)", "(1,2)"), ("x=1", "1")),
    *(("[1,2)", r"1 \le x < 2"), (r"\sqrt{12}", r"2\sqrt{3}"), (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)")),
    *((r"\sin(x)", r"\cos(x-\frac{\pi}{2})"), (r"\log_2 8", "3"), ("3+4i", "4i+3"), ("5!", "120"), ("0.5", ".5")),
)


class TaskFault(Exception):
    """The gold answer or the schema cannot be used."""


def maths() -> Judge:
    """A judge of (gold, answers): whether each of the answers, in LaTeX, equals the gold one.

    Source: math-verify 0.9. Of its three extractors this uses the LaTeX one only: the one for bare expressions calls
    SymPy's `parse_expr`, which runs its input. So does, of all things, reading a number in LaTeX (`sympy.Number(text)`
    is `sympify`), hence `parse_expr` itself is replaced by what reads plain numbers and nothing else.
    """
    math_verify = import_module("math_verify")  # 0.5 s and 70 MB
    settings = [math_verify.LatexExtractionConfig(boxed_match_priority=0)]

    def read(text: str) -> list[Any]:
        expressions = math_verify.parse(
            rf"\boxed{{{text}}}", settings, fallback_mode="no_fallback", parsing_timeout=None, raise_on_error=True
        )
        return [expression for expression in expressions if not isinstance(expression, str)]

    @lru_cache(maxsize=256)
    def read_gold(text: str) -> list[Any]:
        try:
            gold = read(text)
        except Exception as error:
            raise TaskFault(f"math-verify cannot read it ({type(error).__name__})") from None
        if not gold:
            raise TaskFault("math-verify finds no expression in it")
        return gold

    def judge(gold_text: str, answers: list[str]) -> bool:
        gold = read_gold(gold_text)
        return all(math_verify.verify(gold, read(text), timeout_seconds=None) for text in answers)

    # What these load at their first use must be there before text stops being read.
    for module in ("sympy.physics.units", "sympy.integrals.manualintegrate"):
        import_module(module)
    for gold, answer in WARM_UP:
        judge(gold, [answer])
    vars(import_module("sympy.parsing.sympy_parser"))["parse_expr"] = _plain_number
    return judge


def _plain_number(text: str, **_: Any) -> Any:
    """In place of `parse_expr`: the SymPy number that a text spells."""
    if not re.fullmatch(r"[0-9]{1,4000}|[0-9]{0,400}\.[0-9]{1,400}|[0-9]{1,400}\.", text):
        raise ValueError("only a plain number is read from text")
    sympy = import_module("sympy")
    return sympy.Integer(int(text)) if text.isdigit() else sympy.Float(text)


def schema() -> Judge:
    """A judge of (schema, document), both JSON text: whether the document conforms; no document: is the schema usable.

    Source: jsonschema-rs, JSON Schema drafts 4 to 2020-12; its linear-time regular expressions, and no way to a file
    or a network.
    """
    jsonschema_rs = import_module("jsonschema_rs")

    @lru_cache(maxsize=64)
    def validator(text: str) -> Any:
        try:
            return jsonschema_rs.validator_for(
                json.loads(text),
                pattern_options=jsonschema_rs.RegexOptions(),
                offline=True,
                validate_formats=True,
            )
        except Exception as error:
            raise TaskFault(str(error)[:300]) from None

    def judge(schema_text: str, document: str | None) -> bool:
        checked = validator(schema_text)
        if document is None:
            for probe in (
                "null",
                "true",
                "0",
                '""',
                "[]",
                "{}",
            ):  # a schema that explodes does so on the smallest values
                checked.is_valid(json.loads(probe))
            return True
        return bool(checked.is_valid(json.loads(document)))

    judge('{"type": "object", "properties": {"a": {"pattern": "^a$"}}}', '{"a": "a"}')
    return judge


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    """Audit hook (PEP 578): only reading library files and running what stands in them is allowed."""
    if event == "open":
        refused = bool((args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND))
    elif event in ("compile", "exec"):
        name = str(args[1] if event == "compile" else getattr(args[0], "co_filename", "<"))
        refused = name.startswith("<") and not name.startswith("<frozen ")
        refused = refused and sys._getframe(1).f_globals.get("__name__") not in CODE_WRITERS
    else:
        refused = event not in ALLOWED_EVENTS
    if refused:
        raise PermissionError(f"{event} is refused here")


def main(kind: str, max_memory: int) -> None:
    """Serve until the input closes."""
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    judge = {"maths": maths, "schema": schema}[kind]()
    resource.setrlimit(resource.RLIMIT_AS, (max_memory, max_memory))
    for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(limit, (0, 0))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)  # it was for what keeps this from being ready; nobody reads on
    sys.addaudithook(_refuse)
    replies.write(b'{"cpu": %f}\n' % time.process_time())
    for line in sys.stdin.buffer:
        limit_seconds, *item = json.loads(line)
        # If the parent dies meanwhile nobody kills this: the alarm's default action does, even inside of C code.
        signal.setitimer(signal.ITIMER_REAL, limit_seconds + 1)
        reply: dict[str, Any]
        try:
            reply = {"value": judge(*item)}
        except TaskFault as error:
            reply = {"refused": str(error)}
        except Exception as error:
            reply = {"fault": type(error).__name__}
        signal.setitimer(signal.ITIMER_REAL, 0)
        reply["cpu"] = time.process_time()
        replies.write(json.dumps(reply).encode() + b"\n")
        if reply.get("fault") == "MemoryError":
            return  # what the heap looks like now is anybody's guess; the next item gets a fresh process


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
