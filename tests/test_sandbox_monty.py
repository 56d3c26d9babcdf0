"""Tier B: whose fault it is when Monty cannot run a program."""

from __future__ import annotations

from typing import Any

import pytest

from textenvs.rewards.sandbox import SANDBOXES, Job, Limits, Outcome, run_programs

ADD = "def f(a, b):\n    return a + b\n"
QUICK = Limits(seconds=1.0)


def test_no_program_chooses_an_infra_fault_in_monty() -> None:
    """What it cannot do is wrong as well: a policy would write it wherever it expects a zero."""
    pytest.importorskip("pydantic_monty")
    programs = (
        *("def f(a, b): return (a, b)", "def f(a, b): return 1 / 0", "def f(a, b:", "def f(a, b):\n  while True: pass"),
        *("def f(a, b): yield a", "class A(int): pass\ndef f(a, b): return 3", "del f", "\0", "def f(a, b): return x"),
        *("def f(a, b): raise NotImplementedError", "def f(a, b): raise NotImplementedError('not supported')"),
        *("def f(a, b): return a.x", "def f(a, b): return vars(a)", "def f(a, b): raise ValueError('not supported')"),
        *("import ctypes\ndef f(a, b): return 3", "import sqlite3", "import a_module_of_nobody", "raise SystemExit(3)"),
        *("def f(a, b): return f(a, b)", "def f(a, b): return sorted([9 ** 9 ** 7])", "x = " + "(" * 60_000),
    )
    outcomes = run_programs([Job(program, "f", ([1, 2],)) for program in (ADD, *programs)], QUICK, "monty")
    assert [outcome.status for outcome in outcomes] == ["ok"] + ["model_fault"] * len(programs), outcomes


@pytest.mark.parametrize(("fails_at", "status"), [("0", "infra_fault"), (ADD, "model_fault")])
def test_monty_is_at_fault_until_it_has_run_something(
    monkeypatch: pytest.MonkeyPatch, fails_at: str, status: str
) -> None:
    monty = pytest.importorskip("pydantic_monty")

    class Crash(Exception):
        def exception(self) -> Exception:
            return RuntimeError("the worker died")

    class Pool:
        def __init__(self, **settings: Any) -> None: ...
        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *args: object) -> None: ...
        def checkout(self, limits: dict[str, Any]) -> Pool:
            return self

        def feed_run(self, code: str, **settings: Any) -> None:
            if code == fails_at:
                raise Crash

    monkeypatch.setattr(monty, "Monty", Pool)
    monkeypatch.setattr(monty, "MontyError", Crash)
    outcome = SANDBOXES["monty"](Job(ADD, "f", ([1, 2],)), QUICK)
    assert outcome == Outcome(status, detail="RuntimeError: the worker died")
