"""What the tests of maths answers and of their worker share."""

from __future__ import annotations

from typing import Any

from reward_batches import responses_of

from textenvs import Problem
from textenvs.rewards.maths import MathAnswer

LIMIT = 1.0
TOWER = r"\boxed{9^{9^{9^{9}}}}"
HALVES = r"\boxed{\frac{84}{2}}"  # right, and only math-verify knows it


def judged(gold: Any, *texts: str, **options: Any) -> list[tuple[float, str]]:
    reward, problem = MathAnswer(limit_seconds=LIMIT, **options), Problem("q", (), {"answer": gold})
    reward.require(problem)
    scores = reward([problem] * len(texts), responses_of(texts))
    return list(zip(scores.values.tolist(), scores.status, strict=True))


def values(gold: Any, *texts: str, **options: Any) -> list[float]:
    return [value for value, _ in judged(gold, *texts, **options)]
