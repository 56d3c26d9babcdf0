"""Answers made to hang, crash or fool a checker: scored as wrong, in time, from any thread, and no harm is left.

The whole table: `python benchmarks/pathological.py`.
"""

from __future__ import annotations

from itertools import cycle

import pytest
from pathological_answers import CONTEXTS, HONEST, Answer, pathological, rewards, tried

from textenvs.rewards.base import Reward

LIMIT = 1.0
ANSWERS = pathological()


def check(answer: Answer, reward: Reward, context: str) -> None:
    outcome = tried(answer, reward, context)
    assert outcome.value == 0
    assert outcome.status in ("ok", "model_fault")
    assert outcome.seconds < LIMIT + 0.5
    honest = tried(HONEST[answer.reward], reward, context)
    assert (honest.value, honest.status) == (1, "ok")


def test_there_are_300_of_them() -> None:
    assert len({(a.reward, str(a.metadata), a.response) for a in ANSWERS}) == len(ANSWERS) >= 300
    assert len({a.mechanism for a in ANSWERS}) >= 20


@pytest.mark.parametrize("reward", HONEST)
def test_honest_answers_pass(reward: str) -> None:
    for context in CONTEXTS:
        outcome = tried(HONEST[reward], rewards(LIMIT)[reward], context)
        assert (outcome.value, outcome.status) == (1, "ok")


def test_some_of_each_kind() -> None:
    """Every 25th, so that most mechanisms are among them, each in another context."""
    checkers = rewards(LIMIT)
    for answer, context in zip(ANSWERS[::25], cycle(CONTEXTS), strict=False):
        check(answer, checkers[answer.reward], context)


@pytest.mark.slow
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("part", range(8))
def test_all_of_them(context: str, part: int) -> None:
    checkers = rewards(LIMIT)
    for name, honest in HONEST.items():  # a process's start is not the answer's time
        tried(honest, checkers[name], context)
    for answer in ANSWERS[part::8]:
        check(answer, checkers[answer.reward], context)
    for name in ("math_answer", "json_schema"):
        checkers[name].workers.close()  # type: ignore[attr-defined]
