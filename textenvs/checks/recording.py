"""What is recorded of an episode, and how two recordings are compared: exactly, types included."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np

PARTS = ("observation", "reward and flags", "info", "mask")


@dataclass
class Step:
    """What a reset or a step returned. `spelled` holds `PARTS` as they read at that moment."""

    where: str
    action: Any
    observation: Any
    reward: Any
    terminated: Any
    truncated: Any
    info: Any
    mask: Any
    spelled: tuple[str, ...]


@dataclass
class Episode:
    """A reset and the steps after it, up to the end, the last action, or the error that stopped it."""

    seed: int | None = None
    steps: list[Step] = field(default_factory=list)
    error: str = ""

    @property
    def ended(self) -> bool:
        """Whether a flag was raised."""
        return bool(len(self.steps) > 1 and (self.steps[-1].terminated or self.steps[-1].truncated))

    @property
    def actions(self) -> list[int]:
        """What was done after the reset."""
        return [step.action for step in self.steps[1:]]

    @property
    def total(self) -> float:
        """The return."""
        return float(sum(step.reward for step in self.steps[1:]))


def spell(value: Any) -> str:
    """Exact text of a value, types and dtypes included: two values are the same when their texts are."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"{value.dtype}{value.shape} {hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()}"
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{spell(key)}: {spell(item)}" for key, item in value.items())) + "}"
    if isinstance(value, (list, tuple, np.ndarray)):
        return type(value).__name__ + "[" + ", ".join(spell(item) for item in value) + "]"
    if isinstance(value, (set, frozenset)):
        return "set{" + ", ".join(sorted(spell(item) for item in value)) + "}"
    if value is None or isinstance(value, (str, bytes, int, float, np.generic)):
        return f"{type(value).__name__} {value!r}"
    return type(value).__qualname__


def difference(a: Sequence[Episode], b: Sequence[Episode]) -> str | None:
    """Where two lists of episodes first differ, or None where they do not."""
    for first, second in zip_longest(a, b):
        if first is None or second is None:
            return f"{len(a)} against {len(b)} episodes"
        for one, two in zip_longest(first.steps, second.steps):
            if one is None or two is None:
                return f"{(one or two).where}: one episode goes on, the other does not {first.error or second.error}"
            for part, x, y in zip(PARTS, one.spelled, two.spelled, strict=True):
                if x != y:
                    return f"{one.where}: another {part}, {x[:200]} against {y[:200]}"
        if first.error != second.error:
            return first.error or second.error
    return None


def scribble(value: Any) -> None:
    """Overwrite whatever in `value` can be written, as a caller who owns it may."""
    if isinstance(value, np.ndarray) and value.flags.writeable:
        value[...] = 1
    elif isinstance(value, dict):
        for item in value.values():
            scribble(item)
        value.clear()
