"""More than 300 responses that make checkers hang, crash or give in, each of them wrong; and how one is tried."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from reward_batches import responses_of

from textenvs import Problem
from textenvs.rewards import as_reward
from textenvs.rewards.base import Reward
from textenvs.rewards.json_checks import JsonSchema
from textenvs.rewards.maths import MathAnswer


class Answer(NamedTuple):
    """One response, what it attacks, and the problem that it is a wrong response to."""

    mechanism: str
    reward: str
    metadata: dict[str, Any]
    response: str

    @property
    def problem(self) -> Problem:
        return Problem("q", (), self.metadata)


class Outcome(NamedTuple):
    """What came of one response."""

    value: float
    status: str
    seconds: float


def _in_main(call: Callable[[], Any]) -> Any:
    return call()


def _in_thread(call: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def _in_asyncio(call: Callable[[], Any]) -> Any:
    async def main() -> Any:
        return await asyncio.to_thread(call)

    return asyncio.run(main())


#: Where a checker may be called from.
CONTEXTS = {"main": _in_main, "thread": _in_thread, "asyncio": _in_asyncio}


def rewards(limit_seconds: float) -> dict[str, Reward]:
    """The rewards under attack; those that take a limit have this one."""
    made: dict[str, Reward] = {name: as_reward(name) for name in ("regex", "json", "json_match")}
    return made | {
        "math_answer": MathAnswer(limit_seconds=limit_seconds),
        "json_schema": JsonSchema(limit_seconds=limit_seconds),
    }


def tried(answer: Answer, reward: Reward, context: str) -> Outcome:
    """Score one response in a context."""
    batch = responses_of([answer.response])
    assert batch.texts == [answer.response]
    start = time.monotonic()
    scores = CONTEXTS[context](lambda: reward([answer.problem], batch))
    seconds = time.monotonic() - start
    return Outcome(float(scores.values[0]), (*scores.status, "ok")[0], seconds)


#: For each reward, a right response that only the full checker recognises.
HONEST = {
    "math_answer": Answer("honest", "math_answer", {"answer": "42"}, r"\boxed{\frac{84}{2}}"),
    "regex": Answer("honest", "regex", {"pattern": "(a+)+b"}, "aaab"),
    "json": Answer("honest", "json", {}, '{"a": [1]}'),
    "json_match": Answer("honest", "json_match", {"expected": {"a": 1}}, '{"a": 1}'),
    "json_schema": Answer("honest", "json_schema", {"schema": {"type": "object"}}, '{"a": 1}'),
}


def pathological() -> list[Answer]:
    """All of them, always in the same order."""
    return [*_maths(), *_regex(), *_json()]


def _nest(open_: str, inner: str, close: str, depth: int) -> str:
    return open_ * depth + inner + close * depth


def _maths() -> Iterator[Answer]:
    boxed: dict[str, list[str]] = {
        "towers": [
            *(f"{b}^{{{b}^{{{b}^{{{b}}}}}}}" for b in range(4, 10)),
            *(
                "10^{10^{10}}",
                "2^{2^{2^{2^{2^{2}}}}}",
                "9^{99^{999}}",
                "x^{9^{9^{9}}}",
                "-9^{9^{9^{9}}}",
                "0.1^{9^{9^{9}}}",
            ),
            *(
                r"\sqrt{9^{9^{9}}}",
                r"\frac{1}{9^{9^{9^{9}}}}",
                r"\log(9^{9^{9^{9}}})",
                r"9^{9^{9^{9}}}-9^{9^{9^{9}}}+42",
            ),
        ],
        "factorials": [
            *(f"{10**k - 1}!" for k in (4, 6, 8, 10, 50)),
            *(
                "((9!)!)!",
                r"\binom{10^9}{5\cdot 10^8}",
                r"\frac{99999999!}{99999998!}",
                r"\binom{99999999}{3}!",
                "(10^{20})!",
            ),
        ],
        "nesting": [
            *(_nest("(", "1", ")", depth) for depth in (60, 150, 450, 3000)),
            *(_nest(r"\left(", "1", r"\right)", depth) for depth in (30, 60)),
            *(_nest(r"\sqrt{", "2", "}", depth) for depth in (20, 60, 120)),
            *(_nest(r"\frac{1}{1+", "x", "}", depth) for depth in (10, 40, 80)),
            *(_nest("-(", "1", ")", 200), _nest("|", "x", "|", 200), _nest("{", "1", "}", 490), "(" * 900, "{" * 400),
        ],
        "length": [
            *(
                "1+" * 495 + "1",
                "x" * 990,
                "+".join(f"x^{{{i}}}" for i in range(120)),
                "1," * 499,
                "1 " * 490,
                "=1" * 400,
            ),
            *(
                "9" * 990,
                "0." + "3" * 900,
                "1/" * 400 + "1",
                r"\%" * 400,
                r"\cdot 2" * 120,
                r"\text{" * 120,
                "and " * 240,
            ),
            *(r"\frac" * 190, "!" * 990, "^" * 990, "_" * 990, "\\" * 990, "&" * 990, r"\, " * 300, "-" * 500 + "1"),
        ],
        "algebra": [
            *("(x+1)^{1000}-(1+x)^{1000}+1", "(a+b+c+d+e+f)^{60}", "x^{100000}-1", "x^5-x+1=0", "x^{x^{x^{x}}}"),
            *(r"\sqrt{x+\sqrt{x+\sqrt{x+\sqrt{x+1}}}}", r"\frac{x^{500}-1}{x-1}", "(x^2+y^2)^{50}-(y^2+x^2)^{50}+x"),
            *("x^{17}+y^{13}+z^{11}=w", r"\sin^{40}x+\cos^{40}x", r"\prod_{i=1}^{40}(x-i)", r"(1+\sqrt{2})^{5000}"),
        ],
        "calculus": [
            *(r"\int_0^1 x^{x^{x}}dx", r"\int e^{e^{x^2}}\sin(x^3)dx", r"\int_0^\infty \frac{\sin(x^3)}{x^2+x+1}dx"),
            *(
                r"\sum_{i=1}^{10^{9}} i^{i}",
                r"\sum_{n=1}^\infty \frac{1}{n^3+n+1}",
                r"\prod_{i=1}^{10^7} i",
                r"\int\int\int x^{y^z}",
            ),
            *(
                r"\lim_{x\to\infty}(1+\frac{1}{x})^{x^2}",
                r"\lim_{n\to\infty}\frac{n!}{n^n}",
                r"\frac{d^{50}}{dx^{50}}\tan x",
            ),
        ],
        "functions": [
            *(_nest(r"\sin(", "x", ")", depth) for depth in (20, 100)),
            *(
                r"\tan(10^{100})",
                r"\lfloor \pi^{100000} \rfloor",
                r"\sin(10^{10^6})",
                r"\gcd(2^{10000},3^{9000})",
                r"e^{10^{10}}",
            ),
            *(
                r"\log_{2}(3^{10^7})",
                r"\arctan(\arctan(9^{9^9}))",
                r"\zeta(10^6)",
                r"10^{10^8} \bmod 7",
                r"\cosh(10^9)",
            ),
        ],
        "sets and matrices": [
            r"\{" + ",".join(map(str, range(230))) + r"\}",
            r"\begin{pmatrix}" + r"\\".join("&".join("x" * 12) for _ in range(12)) + r"\end{pmatrix}",
            r"\det\begin{pmatrix}"
            + r"\\".join("&".join(f"x_{i}" for i in range(6)) for _ in range(6))
            + r"\end{pmatrix}",
            r"\begin{pmatrix}1&2\\3&4\end{pmatrix}^{10^{6}}",
            r"\cup".join(f"({i},{i + 1})" for i in range(100)),
            "<".join("abcdefghijklmnopqrstuvwxyz" * 4),
        ],
        "code": [
            *(
                "__import__('os').system('id')",
                r"\text{__import__('os')}",
                "eval('1')",
                "().__class__.__mro__",
                "lambda x: x",
            ),
            *(
                r"\operatorname{exec}(1)",
                "open('/etc/passwd')",
                "exit()",
                "sys.exit(0)",
                "{{7*7}}",
                "${7*7}",
                "1; print(42)",
            ),
        ],
        "characters": [
            "\x00",
            "\ud800",
            "\u202e24",
            "\u0664\u0662",
            "\u2074\u00b2",
            "4\u200b2",
            "\x1b[31m42",
            "\u0434\u0432\u0430",
        ],
    }
    for mechanism, answers in boxed.items():
        for answer in answers:
            yield Answer(f"maths: {mechanism}", "math_answer", {"answer": "42"}, rf"\boxed{{{answer}}}")
    for text in (
        r"\boxed{" * 14_000,
        r"\boxed{1}" * 11_000,
        r"\(" * 50_000,
        "$" * 100_000,
        "1 " * 50_000,
        "9" * 100_000,
    ):
        yield Answer("maths: without an end", "math_answer", {"answer": "42"}, text)


def _regex() -> Iterator[Answer]:
    patterns = {
        "(a+)+": "a",
        "(a|a)*b": "a",
        "(a|aa)+": "a",
        "(.*a){20}b": "a",
        r"(\w+\s?)*": "a",
        "(x+x+)+y": "x",
        "([a-zA-Z]+)*[0-9]": "aB",
        "((a+)+)+": "a",
        "(a?){30}a{30}": "a",
        "(.*)*=.*": "a",
        r"(\d+)*x": "1",
        "a.*b.*c.*d.*e.*f": "abcde",
        r"([^,]*,)*[^,]*;": ",",
        r"([a-z0-9]+[.-]?)+@([a-z0-9]+[.-]?)+\.[a-z]{2,}": "a.",
        r"(?s)(.|\s)*z": " ",
        r"\s+x": " ",
        "(?i)(e|E|\u00e9)*x": "eE",
    }
    for pattern, unit in patterns.items():
        for length in (30, 1_000, 30_000, 100_000):
            response = unit * (length // len(unit))
            yield Answer("regex: backtracking", "regex", {"pattern": pattern}, response[: length - 1] + "!")
    for text in ("\ud800", "\x00" * 1000, "\u0301" * 50_000, "a" * 100_001, "\n" * 50_000):
        yield Answer("regex: characters", "regex", {"pattern": "(a+)+b"}, text)


def _json() -> Iterator[Answer]:
    tree = {"anyOf": [{"type": "integer"}, *[{"type": "array", "items": {"$ref": "#"}}] * 2]}
    one = {"oneOf": [{"type": "integer"}, *[{"type": "array", "items": {"$ref": "#"}}] * 2]}
    for depth in (65, 1_000, 20_000, 120_000):
        for open_, close in (("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")):
            text = _nest(open_, "1", close, depth)
            yield Answer("json: depth", "json", {}, text)
            yield Answer("json: depth", "json", {}, open_ * depth)
    numbers = [
        "1e999",
        "-1e999",
        "1" * 5_000,
        "1." + "0" * 5_000,
        "NaN",
        "[Infinity]",
        "1e-",
        "0x10",
        "1_0",
        "+1",
        "01",
    ]
    for text in numbers:
        yield Answer("json: numbers", "json", {}, text)
    for expected, text in (
        (1, "true"),
        (1, "1.0"),
        (True, "1"),
        (0, "-0.0"),
        (1e308, "1e309"),
        (None, "NaN"),
        (0, "1e-400"),
    ):
        yield Answer("json: numbers", "json_match", {"expected": expected}, text)
    for text in (
        '{"a":2,"a":1}',
        '{"a":1,"\\u0061":1}',
        '{"a":1}{"a":1}',
        '{"a":1,}',
        '{"a":1}//',
        "```{}```",
        '{"__proto__":1}',
    ):
        yield Answer("json: duplicates and padding", "json_match", {"expected": {"a": 1}}, text)
    strings = [
        '"\\ud800"',
        '"\ud800"',
        '"\x00"',
        "\ufeff1",
        '"' + "\\" * 99_999,
        '"' + "\\u0000" * 50_000 + '"',
        '"' * 99_999,
    ]
    strings += ["\u202e1", "\u0661", "'a'", '"\\x41"', '"' + "a" * 300_000 + '"', "\x1b[2J", "1" + " " * 99_999 + "2"]
    for text in strings:
        yield Answer("json: strings", "json", {}, text)
    sizes = [
        "[" + "1," * 60_000 + "1]",
        "[" + "[]," * 50_000 + "[]]",
        "{" + ",".join(f'"{i}":1' for i in range(30_000)) + "}",
    ]
    for text in (*sizes, "[" + ",".join(["0.1"] * 51_000) + "]", "[" * 60 + "1," * 51_000 + "1" + "]" * 60):
        yield Answer("json: size", "json", {}, text)
    for size in (100, 1_000, 5_000, 12_000):
        for item in ({"a": 1}, [1, [2]], "x" * 5, 1.5):
            values = [[item, i] if isinstance(item, list) else {"k": item, "i": i} for i in range(size)]
            yield Answer(
                "schema: uniqueItems",
                "json_schema",
                {"schema": {"uniqueItems": True}},
                json.dumps([*values, values[0]]),
            )
    for pattern in ("^(a+)+$", "^(a|a)*b", "^([a-z]+)*[0-9]$", "^(.*a){20}$", r"^(\w+\s?)*$"):
        for size in (40, 5_000, 200_000):
            text = json.dumps("a" * size + "!")
            yield Answer("schema: pattern", "json_schema", {"schema": {"pattern": pattern}}, text)
        keyed = json.dumps({"a" * 2_000 + f"!{i}": 1 for i in range(20)})
        schema = {"patternProperties": {pattern: {}}, "additionalProperties": False}
        yield Answer("schema: patternProperties", "json_schema", {"schema": schema}, keyed)
    for depth in (10, 20, 40, 60):
        for schema in (tree, one):
            yield Answer("schema: recursion", "json_schema", {"schema": schema}, _nest("[", '"x"', "]", depth))
    wide = {"items": {"anyOf": [{"const": i} for i in range(2_000)]}}
    many = json.dumps(list(range(2_000, 14_000)))
    schemas: list[tuple[dict[str, Any], str]] = [
        (wide, many),
        (wide, json.dumps([1_999] * 40_000 + [-1])),
        ({"items": {"anyOf": [{"const": {"a": i}} for i in range(1_000)]}}, json.dumps([{"a": 999}] * 24_000 + [0])),
        ({"items": {"enum": list(range(5_000))}}, many),
        ({"contains": {"const": -1}}, many),
        ({"unevaluatedItems": False, "anyOf": [{"prefixItems": [{}] * 50}] * 50}, many),
        (
            {"unevaluatedProperties": False, "anyOf": [{"properties": {"a": {}}}] * 50},
            json.dumps({str(i): 1 for i in range(9_000)}),
        ),
        ({"propertyNames": {"maxLength": 3}}, json.dumps({"k" * 30 + str(i): 1 for i in range(5_000)})),
        ({"multipleOf": 0.01}, "1e-320"),
        ({"multipleOf": 7}, "1" * 999),
        ({"maximum": 10}, "9" * 999),
        ({"minLength": 10**6}, json.dumps("\u0301" * 80_000)),
        ({"not": {"not": {"not": {}}}}, many),
        ({"dependentSchemas": {"a": {"required": ["b"]}}}, '{"a": 1}'),
    ]
    for schema, text in schemas:
        yield Answer("schema: wide", "json_schema", {"schema": schema}, text)
