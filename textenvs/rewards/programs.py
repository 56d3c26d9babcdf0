"""Python programs against hidden cases. The program runs in a sandbox (`sandbox.py`); it is judged here, outside.

A problem's metadata: `{"entry_point": "add", "cases": [{"args": [1, 2], "expected": 3}, ...]}`, and "tolerance" where
numbers need not be exact. The sandbox is given the program, the entry point and the args; expected values stay here.
"""

from __future__ import annotations

import builtins
import keyword
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from textenvs.rewards.base import ProblemLike, Responses, Reward, Scores
from textenvs.rewards.json_checks import same_json
from textenvs.rewards.sandbox import SANDBOXES, Job, Limits, Outcome, run_programs
from textenvs.rewards.sandbox_base import MAX_DEPTH, MAX_DIGITS

#: A longer response is no program that anybody asked for.
MAX_PROGRAM_CHARS = 1 << 16


#: How the sandbox begins when it speaks of a program that gave no answer.
_SANDBOX_SAYS = ("no answer within ", "more than ", "the program ended without an answer", "the answer is not ")


class PythonProgram(Reward):
    """1.0 when the response is a Python program that passes every hidden case, else 0.0. Range [0, 1].

    The program is the response, or what stands between two lines that begin with three backticks, if it has those. It
    defines `entry_point`, whose name it must contain; the function is called once a case, in order, in one process
    that starts fresh for each response. A returned value passes when its types are the expected ones at every level
    and it is equal: 1 is not 1.0 and not True, a list is not a tuple. With a tolerance t in the metadata, numbers x and
    y are equal when |x - y| <= t * max(1, |y|), and 1 may be 1.0. The part "cases_passed" is the share of the cases.

    With `dense=True` a response scores 0 until it ends.

    Status `model_fault`: no such function, an exception, a value that is no JSON, no answer, too much or too late.
    Status `infra_fault`: the sandbox did not start, or was killed from outside; the response was not judged.
    The cause of either is a phrase of our own, or the name of one of Python's exceptions; never the program's message,
    which could spell the arguments of a hidden case.

    Withstands: objects that claim to equal everything, forged answers, reading or patching what judges (it is in
    another process, outside), leaving early, printing verdicts; the attacks of `tests/hostile_programs.py`.
    Does not withstand: cases that a wrong program passes; choose enough of them.

    Args:
        seconds: wall clock of one program for all its cases, in (0, 600].
        memory_mb: address space of one program in MiB, 64 to 65,536.
        sandbox: "auto" (the strongest that works here), "bubblewrap" or "monty".

    Raises:
        SandboxUnavailable: when the first program is to run, and no sandbox works here.
    """

    name = "python_program"
    value_range = (0.0, 1.0)

    def __init__(self, *, seconds: float = 3.0, memory_mb: int = 512, sandbox: str = "auto") -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= 600:
            raise ValueError(f"seconds must be a number in (0, 600], got {seconds!r}; the usual one is 3")
        if isinstance(memory_mb, bool) or not isinstance(memory_mb, int) or not 64 <= memory_mb <= 1 << 16:
            raise ValueError(f"memory_mb must be an int in [64, 65536], got {memory_mb!r}; the usual one is 512")
        if sandbox not in ("auto", *SANDBOXES):
            raise ValueError(f"sandbox must be 'auto' or one of {', '.join(SANDBOXES)}, got {sandbox!r}")
        self.limits, self.sandbox = Limits(float(seconds), memory_mb), sandbox

    def require(self, problem: ProblemLike) -> None:
        """See `Reward.require`."""
        _tests(problem)

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        tests = [_tests(problem) for problem in problems]
        # What has not ended is no program yet, and judging every prefix would start a sandbox a token.
        programs = [
            None if reason == "running" else program_in(text)
            for text, reason in zip(responses.texts, responses.finish_reasons, strict=True)
        ]
        # What never says the function's name cannot define it: most of what an untrained model writes needs no sandbox.
        to_run = [i for i, program in enumerate(programs) if program and tests[i].entry_point in program]
        jobs = [Job(programs[i] or "", tests[i].entry_point, tuple(args for args, _ in tests[i].cases)) for i in to_run]
        shares = np.zeros(len(tests))
        running = [reason == "running" for reason in responses.finish_reasons]
        status = ["ok" if one else "model_fault" for one in running]
        causes = [
            "" if one else "no program, or several" if program is None else f"no function {test.entry_point}"
            for one, program, test in zip(running, programs, tests, strict=True)
        ]
        for i, outcome in zip(to_run, run_programs(jobs, self.limits, self.sandbox), strict=True):
            shares[i], status[i], causes[i] = _share(tests[i], outcome), outcome.status, _cause(tests[i], outcome)
        values = (shares == 1.0).astype(np.float64)
        return Scores(values, {self.name: values, "cases_passed": shares}, tuple(status), tuple(causes))


class Tests(NamedTuple):
    """What a program is judged by.

    Attributes:
        entry_point: name of the function.
        cases: (args, expected) pairs.
        tolerance: of numbers; None means exact.
    """

    entry_point: str
    cases: list[tuple[list[Any], Any]]
    tolerance: float | None


def program_in(text: str) -> str | None:
    """The program that a response states, or None when it states none or several."""
    if len(text) > MAX_PROGRAM_CHARS:
        return None
    lines = text.splitlines(keepends=True)
    fences = [i for i, line in enumerate(lines) if line.startswith("```")]
    if not fences:
        return text
    return "".join(lines[fences[0] + 1 : fences[1]]) if len(fences) == 2 else None


def _cause(tests: Tests, outcome: Outcome) -> str:
    """Why an outcome is a fault, without a word that the program chose; empty when it is none."""
    if outcome.status == "infra_fault" or (not outcome.results and outcome.detail.startswith(_SANDBOX_SAYS)):
        return outcome.detail
    name, _, message = outcome.detail.partition(": ")
    if message == f"the program defines no {tests.entry_point}":
        return f"no function {tests.entry_point}"
    if outcome.status == "ok":
        return ""
    known = isinstance(kind := getattr(builtins, name, None), type) and issubclass(kind, BaseException)
    kinds = [f"returned a {kind}, which is no JSON value" for kind in ("tuple", "set", "frozenset", "bytes", "complex")]
    if known and message in (*kinds, "a returned dict has a key that is no str", "the returned number is not finite"):
        return f"{name}: {message}"
    return name if known else "an error of the program's own"


def _share(tests: Tests, outcome: Outcome) -> float:
    """Share of the cases that passed; 0 when there is no answer."""
    if not outcome.results:
        return 0.0
    passed = [
        "value" in result and same_json(result["value"], expected, tests.tolerance)
        for result, (_, expected) in zip(outcome.results, tests.cases, strict=True)
    ]
    return sum(passed) / len(passed)


def _tests(problem: ProblemLike) -> Tests:
    """The tests in a problem's metadata.

    Raises:
        ValueError: they are missing or malformed.
    """
    where = f"metadata of the problem with prompt {problem.prompt[:80]!r}"
    entry_point, cases = problem.metadata.get("entry_point"), problem.metadata.get("cases")
    if not isinstance(entry_point, str) or not entry_point.isidentifier() or keyword.iskeyword(entry_point):
        raise ValueError(f"{where}: entry_point must be the name of a function, got {entry_point!r}")
    if not isinstance(cases, (list, tuple)) or not cases:
        raise ValueError(f"{where}: cases must be a list of at least one case, got {cases!r}; without, all would pass")
    tolerance = problem.metadata.get("tolerance")
    if tolerance is not None and (type(tolerance) not in (int, float) or not 0 <= tolerance < math.inf):
        raise ValueError(f"{where}: tolerance must be a finite number of at least 0, got {tolerance!r}; leave it out")
    pairs = []
    for i, case in enumerate(cases):
        if not isinstance(case, dict) or set(case) != {"args", "expected"} or not isinstance(case["args"], list):
            raise ValueError(f"{where}: cases[{i}] must be {{'args': [...], 'expected': value}}, got {case!r:.200}")
        if not _is_json(case["args"]) or not _is_json(case["expected"]):
            raise ValueError(
                f"{where}: cases[{i}] must hold JSON values only, got {case!r:.200}; "
                "lists for tuples, texts as keys, no NaN, no infinity"
            )
        pairs.append((case["args"], case["expected"]))
    return Tests(entry_point, pairs, tolerance)


def _is_json(value: Any, depth: int = 0) -> bool:
    """Whether a value goes through the sandbox and comes back as it was."""
    kind = type(value)
    if depth > MAX_DEPTH - 4:  # the answer wraps it
        return False
    if kind is list:
        return all(_is_json(item, depth + 1) for item in value)
    if kind is dict:
        return all(type(key) is str and _is_json(item, depth + 1) for key, item in value.items())
    if kind is int:
        return bool(value.bit_length() <= 3 * MAX_DIGITS)
    return value is None or kind in (bool, str) or (kind is float and math.isfinite(value))
