"""What the tests of maths answers and of their worker share."""

from __future__ import annotations

import os
from pathlib import Path
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


def children() -> set[int]:
    """Process ids of this process's children, zombies included."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(stat.parent.name))
        except OSError:
            continue
    return found
