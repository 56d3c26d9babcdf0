"""What a task is: a finite indexed set of problems, what is legal, what replies come back, how it is scored.

The tasks themselves live in `textenvs.tasks`, one file a family.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textenvs.rewards.base import Reward
from textenvs.vocab import Vocab

SPLITS = ("train", "heldout", "all")


@dataclass(frozen=True)
class Problem:
    """One prompt with what it takes to score a response to it.

    Attributes:
        prompt: text that the episode starts from, at least one token.
        references: correct responses, best first; may be empty.
        metadata: JSON-able extras for the reward.
    """

    prompt: str
    references: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Task(ABC):
    """A finite set of problems, `task[k]` for k in range(len(task)): a pure function of the settings and k.

    A subclass sets the attributes, defines `__len__` and `__getitem__`, and overrides what its problems need of the
    rest. Its constructor takes keyword arguments only, JSON-able, `split` among them; they become kwargs of the env.

    Attributes:
        vocab: the table that spells prompts and responses, unless the env is given another.
        reward: how a response is scored, a Reward or the name of one, unless the env is given another.
        max_prompt_tokens: P; None means the longest prompt of the task.
        max_new_tokens: T, the budget of a response, end token and replies included.
        threshold: score from which an episode counts as a success.
        has_masks: whether `legal` says anything.
    """

    vocab: Vocab
    reward: Reward | str
    max_prompt_tokens: int | None = None
    max_new_tokens: int
    threshold: float = 1.0
    has_masks: bool = False

    @abstractmethod
    def __len__(self) -> int:
        """Number of problems in the split."""

    @abstractmethod
    def __getitem__(self, k: int) -> Problem:
        """Problem number k.

        Raises:
            IndexError: k is not in range(len(self)).
        """

    def __deepcopy__(self, memo: dict[int, Any]) -> Task:
        """A task never changes, so Gymnasium's copies of a spec share it."""
        return self

    def problem(self, prompt: str) -> Problem:
        """The problem that a prompt of the user's own poses; with its references where the task can tell them.

        Raises:
            ValueError: the task cannot read such a prompt.
        """
        return Problem(prompt)

    def legal(self, problem: Problem, token_ids: Sequence[int]) -> NDArray[np.bool_] | None:
        """(V,) which tokens may follow the response so far, at least one True; None means all. See `has_masks`."""
        return None

    def reply(self, problem: Problem, turns: Sequence[str]) -> str | None:
        """What comes back when the agent ends a turn, or None when that ends the episode. Pure.

        Args:
            problem: the running problem.
            turns: agent, reply, agent, ... so far; the last one is the agent's.
        """
        return None

    def demonstration(self, problem: Problem) -> Sequence[str] | None:
        """The agent's turns in an episode that solves the problem, or None where nobody knows one.

        Each turn without the end token that ends it. Unless a task replies, this is its first reference.
        """
        return problem.references[:1] or None

    def optimal_return(self) -> float | None:
        """Mean return of the best policy over the split at default settings, or None where nobody knows it."""
        return None

    def random_return(self) -> float | None:
        """Exact mean return of uniformly random tokens over the split at default settings; None: not computable."""
        return None


def check_split(split: str) -> str:
    """`split` when it is one of `SPLITS`.

    Raises:
        ValueError: it is not.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}; most use 'train'")
    return split


def int_in(name: str, value: int, least: int, most: int) -> int:
    """A setting that is an int in [least, most].

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value <= most:
        raise ValueError(f"{name} must be an int in [{least}, {most}], got {value!r}; pick one")
    return int(value)


def split_range(num_problems: int, split: str) -> range:
    """Numbers of the problems that a split holds: the last fifth is held out.

    Raises:
        ValueError: fewer than 10 problems cannot be split.
    """
    check_split(split)
    if split == "all":
        return range(num_problems)
    if num_problems < 10:
        raise ValueError(
            f"split must be 'all' when a task has fewer than 10 problems, got {split!r} with {num_problems}; "
            "pass split='all' or settings that give more problems"
        )
    border = num_problems - num_problems // 5
    return range(border) if split == "train" else range(border, num_problems)


def check_index(k: int, size: int) -> int:
    """`k` when there is a problem of that number.

    Raises:
        IndexError: k is not in range(size).
    """
    if not 0 <= k < size:
        raise IndexError(f"k must be in [0, {size}), got {k}; ask for an existing problem")
    return k


def check_flag(name: str, value: bool) -> bool:
    """`value` when it is True or False.

    Raises:
        TypeError: it is not; the message has the setting's name.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def permuted(k: int, size: int) -> int:
    """Element k of a fixed pseudo-random permutation of range(size), for any size, without storing it.

    A four-round Feistel network on the next even number of bits, walked until it lands inside.
    Source: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002.

    Raises:
        IndexError: k is not in range(size).
    """
    check_index(k, size)
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask, num_bytes = (1 << half) - 1, (half + 7) // 8
    while True:
        left, right = k >> half, k & mask
        for i in range(4):
            digest = hashlib.shake_128(b"%d,%d,%d" % (size, i, right)).digest(num_bytes)
            left, right = right, left ^ (int.from_bytes(digest, "little") & mask)
        k = left << half | right
        if k < size:
            return k
