"""What generated tasks on short strings share: the prompt is an input followed by `=`, spelt character by character.

The tasks themselves live in `textenvs.tasks`, one file a family.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from typing import ClassVar

import numpy as np

from textenvs.rewards import as_reward
from textenvs.rewards.base import Responses, Reward
from textenvs.task import Problem, Task, permuted, split_range
from textenvs.vocab import CharVocab

#: A generated task holds at most this many problems (all of them, if there are fewer).
MAX_PROBLEMS = 10_000


class StringTask(Task):
    """Inputs are numbered, one to one; the problems are the first 10,000 of them in a fixed shuffled order.

    Args:
        symbols: distinct characters other than `=`; the vocabulary is these, `=` and the end token.
        max_input_tokens: of the longest input.
        max_new_tokens: budget of a response, end token included.
        split: "train" (the first four fifths of the problems), "heldout" or "all".
    """

    reward: Reward | str = "position_match"
    #: P(a random token that does not end the response counts as a match), or None for 1 / (V - 1).
    hit: ClassVar[float | None] = None

    def __init__(self, *, symbols: str, max_input_tokens: int, max_new_tokens: int, split: str) -> None:
        self.vocab = CharVocab(symbols + "=")
        self.max_prompt_tokens, self.max_new_tokens = max_input_tokens + 1, max_new_tokens
        self._space = self.num_inputs()
        self._range = split_range(min(self._space, MAX_PROBLEMS), split)

    @abstractmethod
    def num_inputs(self) -> int:
        """How many inputs there are."""

    @abstractmethod
    def input(self, number: int) -> str:
        """Input number `number` in [0, num_inputs()), one to one."""

    @abstractmethod
    def solve(self, text: str) -> str:
        """The reference response to an input.

        Raises:
            ValueError: `text` is no input; names what one looks like.
        """

    def shuffled(self, number: int) -> int:
        """Which input is problem `number` of all: a permutation of range(num_inputs())."""
        return permuted(number, self._space)

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, k: int) -> Problem:
        text = self.input(self.shuffled(self._range[k]))
        return Problem(text + "=", (self.solve(text),))

    def problem(self, prompt: str) -> Problem:
        """See `Task.problem`."""
        if prompt[-1:] != "=":
            raise ValueError(f"prompt must be an input and then '=', got {prompt[:80]!r}")
        return Problem(prompt, (self.solve(prompt[:-1]),))

    def optimal_return(self) -> float:
        """Mean score of the references themselves: scores end at 1, so where this is 1 nothing beats it."""
        problems = [self[k] for k in range(len(self))]
        references = [self.vocab.encode(problem.references[0]) for problem in problems]
        lengths = np.array([len(ids) for ids in references])
        token_ids = np.full((len(problems), self.max_new_tokens), -1, dtype=np.int64)
        for row, ids in zip(token_ids, references, strict=True):
            row[: len(ids)] = ids
        responses = Responses(token_ids, lengths, ["eos"] * len(problems), self.vocab)
        return float(as_reward(self.reward)(problems, responses).values.mean())

    def random_return(self) -> float:
        """Mean of `random_score` over the references' lengths."""
        counts = Counter(len(self[k].references[0]) for k in range(len(self)))
        return sum(count * self.random_score(length) for length, count in counts.items()) / len(self)

    def random_score(self, length: int) -> float:
        """What uniformly random tokens earn where the reference has `length` tokens.

        Exact match: P(those tokens and then the end). Otherwise the sum over response lengths m of
        P(m) x E[matches] / max(m, length).
        """
        v, budget = self.vocab.num_tokens, self.max_new_tokens
        if self.reward == "exact_match":
            return float(v) ** -min(length + 1, budget)
        hit = 1 / (v - 1) if self.hit is None else self.hit
        p_length = [(1 - 1 / v) ** m * (1 / v if m < budget else 1) for m in range(budget + 1)]
        return sum(p * min(m, length) * hit / max(m, length) for m, p in enumerate(p_length))
