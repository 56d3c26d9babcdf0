"""The reward for Python programs: literal values, bad metadata, hostile text."""

from __future__ import annotations

import json
import math
import time
from types import SimpleNamespace
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandboxed import bubblewrap

from textenvs import Problem, Scores
from textenvs.rewards import as_reward
from textenvs.rewards import programs as module
from textenvs.rewards.json_checks import same_json
from textenvs.rewards.programs import PythonProgram, program_in
from textenvs.rewards.sandbox import Outcome

__all__ = ["bubblewrap"]
CASES = [{"args": [1, 2], "expected": 3}, {"args": [-1, 1], "expected": 0}]
ADD = {"entry_point": "add", "cases": CASES}
#: Forges a line of the answer, in place of the one that is written for it.
WRITES = """import os
for fd in range(3, 9):
    try: os.write(fd, %s + b'\\n')
    except OSError: pass
def add(a, b): pass"""
RIGHT = "def add(a, b):\n    return a + b\n"


def score(texts: list[str], metadata: dict[str, Any] | None = None, **settings: Any) -> Scores:
    """Texts as they are: no vocabulary spells every hostile one."""
    problem = Problem("add=", (), metadata or ADD)
    return PythonProgram(**settings)(
        [problem] * len(texts), cast(Any, SimpleNamespace(texts=texts, finish_reasons=["eos"] * len(texts)))
    )


# ------------------------------------------------------------------------------------------------------- the reward


@pytest.mark.usefixtures("bubblewrap")
def test_literal_values() -> None:
    texts = {
        RIGHT: (1, 1, "ok"),
        f"Here it is:\n```python\n{RIGHT}```\nEnjoy.": (1, 1, "ok"),
        "def add(a, b): return 3": (0, 0.5, "ok"),
        "def add(a, b): return True + 2": (0, 0.5, "ok"),
        "def add(a, b): return float(a + b)": (0, 0, "ok"),
        "def add(a, b): return bool(a + b)": (0, 0, "ok"),
        "def add(a, b): return (a + b,)": (0, 0, "model_fault"),
        "def add(a, b): return 6 // (a + 1)": (0, 0.5, "model_fault"),
        "def subtract(a, b): return a - b": (0, 0, "model_fault"),
        f"```\n{RIGHT}```\n```\n{RIGHT}```": (0, 0, "model_fault"),
        "": (0, 0, "model_fault"),
    }
    scores = score(list(texts))
    found = zip(scores.values, scores.parts["cases_passed"], scores.status, strict=True)
    assert list(found) == list(texts.values())
    assert PythonProgram.value_range == (0.0, 1.0)
    assert isinstance(as_reward("python_program"), PythonProgram)


@pytest.mark.usefixtures("bubblewrap")
def test_a_fault_says_why_without_a_word_that_the_program_chose() -> None:
    texts = {
        RIGHT: "",
        "def add(a, b): return 0": "",
        "def add(a, b": "SyntaxError",
        "def subtract(a, b): return a": "no function add",
        "# add\ndef subtract(a, b): return a": "no function add",
        f"```\n{RIGHT}```\n```\n{RIGHT}```": "no program, or several",
        "def add(a, b):\n  while True: pass": "no answer within 0.5 s",
        "def add(a, b): return (a, b)": "TypeError: returned a tuple, which is no JSON value",
        "def add(a, b): return 1 // 0": "ZeroDivisionError",
        "def add(a, b): raise ValueError(f'hidden {a} \x1b[2J')": "ValueError",
        "def add(a, b): raise type(f'hidden {a}', (Exception,), {})": "an error of the program's own",
        "def add(a, b): return type(f'hidden {a}', (), {})()": "TypeError",
        "import os\ndef add(a, b): os._exit(3)": "the program ended without an answer, exit status 3",
        "": "no function add",
    }
    scores = score(list(texts), seconds=0.5)
    assert dict(zip(texts, scores.causes, strict=True)) == texts
    assert [status == "ok" for status in scores.status] == [not cause for cause in texts.values()]
    # Whether the child's own line has come too when the forged one is read depends on the machine.
    forged = score([WRITES % "b'hidden'"]).causes[0]
    assert forged in ("an error of the program's own", "more than an answer")


@pytest.mark.usefixtures("bubblewrap")
def test_a_tolerance_is_stated_or_absent() -> None:
    exact = {"entry_point": "f", "cases": [{"args": [], "expected": 0.3}]}
    assert score(["def f(): return 0.1 + 0.2"], exact).values.tolist() == [0]
    assert score(["def f(): return 0.1 + 0.2"], exact | {"tolerance": 1e-9}).values.tolist() == [1]


@pytest.mark.usefixtures("bubblewrap")
def test_a_row_does_not_depend_on_the_batch() -> None:
    texts = [RIGHT, "def add(a, b):\n  while True: pass", RIGHT, "def add(a, b): return 0", ""]
    together = score(texts, seconds=0.5)
    assert together.values.tolist() == [1, 0, 1, 0, 0]
    for i, text in enumerate(texts):
        alone = score([text], seconds=0.5)
        assert (alone.values[0], alone.status[0]) == (together.values[i], together.status[i])


@pytest.mark.parametrize(
    ("value", "expected", "tolerance", "equal"),
    [
        *[(v, v, None, True) for v in (None, True, 0, -1, 1.5, "", "a", [], {}, [[1], {"a": [None]}])],
        *[(1, True, None, False), (True, 1, None, False), (1, 1.0, None, False), (1.0, 1, None, False)],
        *[(0, False, None, False), (None, False, None, False), ("1", 1, None, False), ([], {}, None, False)],
        *[(math.nan, math.nan, None, False), (math.nan, math.nan, 1.0, False), (math.nan, 1.0, 9.0, False)],
        *[([1, 2], [1, 2, 3], None, False), ([1, 2, 3], [1, 2], None, False), ([], [1], None, False)],
        *[([1], [True], None, False), ({"a": 1}, {"a": 1.0}, None, False), ({"a": 1}, {"a": 1, "b": 2}, None, False)],
        *[({"a": 1, "b": 2}, {"a": 1}, None, False), ({"a": 1, "b": 2}, {"b": 2, "a": 1}, None, True)],
        *[(0.0, -0.0, None, True), (1, 1.0, 0.0, True), (True, 1, 0.5, False), (1, True, 0.5, False)],
        *[(1.05, 1.0, 0.1, True), (1.15, 1.0, 0.1, False), (109.0, 100, 0.1, True), (111.0, 100, 0.1, False)],
        *[(0.05, 0.0, 0.1, True), (10**400, 1.5, 0.1, False), (10**400, 10**400, 0.1, True)],
        ([1.0, "a"], [1, "a"], 0.1, True),
    ],
)
def test_equality_is_of_types_too(value: Any, expected: Any, tolerance: float | None, equal: bool) -> None:
    assert same_json(value, expected, tolerance) is equal


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(JSON, JSON)
def test_equality_is_that_of_the_text_for_json_values(a: Any, b: Any) -> None:
    def text(value: Any) -> str:
        return json.dumps(value, sort_keys=True).replace("-0.0", "0.0")

    assert same_json(a, json.loads(json.dumps(a)))
    assert same_json(a, b) == (text(a) == text(b))


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("x = 1", "x = 1"),
        ("", ""),
        ("```\nx\n```", "x\n"),
        ("a\n```python\nx\ny\n```\nb", "x\ny\n"),
        ("x = '```'", "x = '```'"),
        ("```\nx", None),
        ("```\nx\n```\n```\ny\n```", None),
        ("x" * 70_000, None),
    ],
)
def test_which_program_a_response_states(text: str, program: str | None) -> None:
    assert program_in(text) == program


def metadata(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**ADD, **changes}.items() if value != "absent"}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (metadata(entry_point="absent"), "entry_point must be the name of a function, got None"),
        (metadata(entry_point="a b"), "entry_point must be"),
        (metadata(entry_point="def"), "entry_point must be"),
        (metadata(entry_point="f()"), "entry_point must be"),
        (metadata(entry_point=3), "entry_point must be"),
        (metadata(cases="absent"), "at least one case, got None"),
        (metadata(cases=[]), "at least one case, got \\[\\]; without, all would pass"),
        (metadata(cases={"args": []}), "cases must be a list"),
        (metadata(cases=[3]), r"cases\[0\] must be \{'args'"),
        (metadata(cases=[*CASES, {"args": [1]}]), r"cases\[2\] must be"),
        (metadata(cases=[{"args": 1, "expected": 1}]), r"cases\[0\] must be"),
        (metadata(cases=[{"args": [], "expected": 1, "kwargs": {}}]), r"cases\[0\] must be"),
        (metadata(cases=[{"args": [], "expected": (1, 2)}]), "JSON values only.*lists for tuples"),
        (metadata(cases=[{"args": [math.nan], "expected": 1}]), "JSON values only"),
        (metadata(cases=[{"args": [], "expected": {1: 2}}]), "JSON values only"),
        (metadata(cases=[{"args": [], "expected": np.float64(1)}]), "JSON values only"),
        (metadata(tolerance=-1), "tolerance must be a finite number"),
        (metadata(tolerance=True), "tolerance must be"),
        (metadata(tolerance=math.inf), "tolerance must be"),
    ],
)
def test_malformed_tests_are_refused(bad: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PythonProgram().require(Problem("add=", (), bad))
    with pytest.raises(ValueError, match="the problem with prompt 'add='"):
        score([""], bad)


def test_a_nest_deeper_than_any_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(100):
        nested = [nested]
    with pytest.raises(ValueError, match="JSON values only"):
        PythonProgram().require(Problem("f=", (), {"entry_point": "f", "cases": [{"args": [], "expected": nested}]}))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seconds": 0}, "seconds must be"),
        ({"seconds": True}, "seconds must be"),
        ({"seconds": math.nan}, "seconds must be"),
        ({"memory_mb": 1}, "memory_mb must be"),
        ({"sandbox": "none"}, "sandbox must be 'auto' or one of bubblewrap, monty"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PythonProgram(**settings)


def test_hostile_text_without_the_name_needs_no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "run_programs", lambda jobs, *rest: pytest.fail("started") if jobs else [])
    texts = ["", " ", "x" * 100_000, "\0\x1b[31m", "\ud800", "\u202e\u2066", "שלום 你好", "add" * 40_000]
    start = time.perf_counter()
    scores = score(texts)
    assert time.perf_counter() - start < 1
    assert scores.values.tolist() == [0] * len(texts)
    assert set(scores.status) == {"model_fault"}


@pytest.mark.usefixtures("bubblewrap")
def test_hostile_text_with_the_name_is_wrong_and_quick() -> None:
    texts = [
        "add",
        "add\0",
        "add\ud800",
        "\u202eadd",
        "add" + "(" * 60_000,
        "add = " + "-" * 60_000 + "1",
        "add" * 20_000,
    ]
    start = time.perf_counter()
    scores = score(texts)
    assert time.perf_counter() - start < len(texts)
    assert set(zip(scores.values, scores.status, strict=True)) == {(0.0, "model_fault")}


def test_what_has_not_ended_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "run_programs", lambda jobs, *rest: pytest.fail("started") if jobs else [])
    responses = SimpleNamespace(texts=[RIGHT], finish_reasons=["running"])
    scores = PythonProgram()([Problem("add=", (), ADD)], cast(Any, responses))
    assert (scores.values.tolist(), list(scores.status)) == ([0.0], ["ok"])


def test_a_dead_sandbox_is_counted_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(jobs: Any, *rest: Any) -> list[Outcome]:
        return [Outcome("infra_fault", detail="killed from outside") for _ in jobs]

    monkeypatch.setattr(module, "run_programs", dead)
    env = gym.make("textenvs/PythonFunction-v0")
    env.reset(seed=0)
    *tokens, last = env.unwrapped.demonstration()  # type: ignore[attr-defined]
    for token in tokens:
        env.step(token)
    with pytest.warns(UserWarning, match="killed from outside"):
        _, reward, terminated, truncated, info = env.step(last)
    assert (reward, terminated, truncated, info["status"]) == (0.0, False, True, "infra_fault")


def test_expected_values_stay_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Any] = []
    monkeypatch.setattr(module, "run_programs", lambda new, *rest: jobs.extend(new) or [Outcome("ok")] * len(new))
    score([RIGHT], {"entry_point": "add", "cases": [{"args": [1], "expected": "the secret"}]})
    assert jobs[0].inputs == ([1],)
    assert "secret" not in repr(jobs)


@pytest.mark.usefixtures("bubblewrap")
def test_prompts_of_ones_own_are_scored_by_their_metadata(tmp_path: Any) -> None:
    row = {"prompt": "add", "references": [RIGHT], "metadata": ADD}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    env = gym.make("TextGen-v0", prompts=str(tmp_path / "mine.jsonl"), reward="python_program")
    env.reset(seed=0)
    for token in env.unwrapped.demonstration():  # type: ignore[attr-defined]
        _, reward, *_ = env.step(token)
    assert reward == 1.0
