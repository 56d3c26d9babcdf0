"""Go on with increasing numbers, in small steps.

## Description
The prompt is a number from 0 to `max_start` and `=`; the response is `count` numbers with commas between them, each
larger than the one before it (the first: than the prompt's) by 1 to `max_step`.

## Action Space
`Discrete(13)`: the digits, the comma, `=`, and the end token.

## Observation Space
The prompt and the response so far; see `textenvs.env.TextGenEnv`.

## Starting State
A number, uniformly.

## Rewards
The share of right positions: min(k, count) / max(n, count). n is the number of pieces between commas (1 for an empty
response); k of them, from the first one on, are right: decimal numbers without leading zeros that are larger than the
one before by 1 to `max_step`. The first wrong one ends the counting, so repeating a number stops it, and what is
written beyond `count` lowers the score. Because steps are small, a list that does not depend on the prompt is right for
`max_step` prompts at most: 3 of 1,000 at default settings.

## Episode End
The end token, or the budget: room for `count` numbers of the largest size and the end token.

## Splits
The last fifth of the numbers, shuffled, is held out.

## References
`increasing_numbers` of RL4LMs (Ramamurthy et al., ICLR 2023), rl4lms/envs/text_generation/test_reward.py, which pays
the sorted share of the numbers wherever they start, so that one constant list always earns everything.

## Version History
v0: first version.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from textenvs.rewards.base import ProblemLike, Responses, Reward, Scores
from textenvs.string_task import StringTask
from textenvs.task import int_in

DIGITS = "0123456789"


class IncreasingNumbers(StringTask):
    """Go on with increasing numbers, in steps of 1 to `max_step`: `7=` -> `8,9,12,13,14`.

    Args:
        count: how many numbers, 1 to 100.
        max_step: largest difference of neighbours, 1 to 1,000.
        max_start: largest number in a prompt, 9 to 1,000,000.
        split: "train", "heldout" or "all".
    """

    def __init__(self, *, count: int = 5, max_step: int = 3, max_start: int = 999, split: str = "train") -> None:
        self.count, self.max_step = int_in("count", count, 1, 100), int_in("max_step", max_step, 1, 1_000)
        self.max_start = int_in("max_start", max_start, 9, 1_000_000)
        self.reward: Reward = InSteps(self.count, self.max_step)
        widest = len(str(self.max_start + self.count * self.max_step))
        super().__init__(
            symbols=DIGITS + ",",
            max_input_tokens=len(str(self.max_start)),
            max_new_tokens=self.count * (widest + 1),
            split=split,
        )

    def num_inputs(self) -> int:
        """See `StringTask.num_inputs`."""
        return self.max_start + 1

    def input(self, number: int) -> str:
        """The number itself."""
        return str(number)

    def solve(self, text: str) -> str:
        """The numbers that follow, in steps of 1."""
        number = _number(text)
        if number is None or number > self.max_start:
            raise ValueError(f"input must be a number from 0 to {self.max_start}, got {text[:80]!r}")
        return ",".join(str(number + i) for i in range(1, self.count + 1))

    def random_return(self) -> float:
        """Expected score by dynamic programming over (last right number, symbols since, right ones, tokens left)."""
        v, count = self.vocab.num_tokens, self.count

        @cache
        def lost(right: int, pieces: int, left: int) -> float:
            """The counting has ended with so many right; each further comma is one more piece."""
            now = min(right, count) / max(pieces, count)
            if left == 0 or right == 0:
                return now
            on = (v - 2) * lost(right, pieces, left - 1) + lost(right, pieces + 1, left - 1)
            return (now + on) / v

        @cache
        def alive(last: int, piece: str, right: int, left: int) -> float:
            """All pieces before are right; `piece` could still become so."""
            fits = self._follows(last, piece)
            now = min(right + fits, count) / max(right + 1, count)
            if left == 0:
                return now
            if fits:
                comma = alive(int(piece), "", right + 1, left - 1)
            else:
                comma = lost(right, right + 2, left - 1)
            on = comma + lost(right, right + 1, left - 1)  # the other symbol is `=`
            for digit in DIGITS:
                more = piece + digit
                if self._may_follow(last, more):
                    on += alive(last, more, right, left - 1)
                else:
                    on += lost(right, right + 1, left - 1)
            return (now + on) / v

        starts = [int(self[k].prompt[:-1]) for k in range(len(self))]
        return sum(alive(start, "", 0, self.max_new_tokens) for start in starts) / len(starts)

    def _follows(self, last: int, piece: str) -> bool:
        number = _number(piece)
        return number is not None and 1 <= number - last <= self.max_step

    def _may_follow(self, last: int, piece: str) -> bool:
        """Whether a right number starts with `piece`."""
        return any(str(last + step).startswith(piece) for step in range(1, self.max_step + 1))


class InSteps(Reward):
    """Share of right positions in a list of increasing numbers, min(k, count) / max(n, count). Range [0, 1].

    Withstands: repetition, padding, numbers that have nothing to do with the prompt, leading zeros, signs, spaces,
    digits of other scripts, numbers of any length. Source: RL4LMs' IncreasingNumbersinText, made
    relative to the prompt.

    Args:
        count: how many numbers are asked for.
        max_step: largest difference of neighbours.
    """

    name = "in_steps"
    value_range = (0.0, 1.0)

    def __init__(self, count: int, max_step: int) -> None:
        self._count, self._max_step = count, max_step

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        pairs = zip(problems, responses.texts, strict=True)
        values = np.array([self._score(problem.prompt[:-1], text) for problem, text in pairs])
        return Scores(values, {self.name: values})

    def _score(self, start: str, text: str) -> float:
        last, right, pieces = _number(start), 0, text.split(",")
        for piece in pieces:
            number = _number(piece)
            if last is None or number is None or not 1 <= number - last <= self._max_step:
                break
            last, right = number, right + 1
        return min(right, self._count) / max(len(pieces), self._count)


def _number(text: str) -> int | None:
    """The number that at most 12 decimal digits spell without leading zeros, or None."""
    if 1 <= len(text) <= 12 and text.isascii() and text.isdecimal() and (text == "0" or text[0] != "0"):
        return int(text)
    return None
