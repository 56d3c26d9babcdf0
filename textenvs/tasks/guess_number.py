"""Guess a hidden number; each wrong guess is told whether the number is smaller or larger.

## Description
The prompt is a range of `size` successive numbers, `low-high=`, one of which is hidden. Each turn is a guess, ended by
the end token. The reply is `<` when the hidden number is smaller than the guess, `>` when it is larger, and `?` when
the turn is no number (decimal digits without leading zeros, at most as many as `max_number` has). The right number ends
the episode, and so does the `max_guesses`-th guess. Halving the range finds every number within
`par` = floor(log2(size)) + 1 guesses, and no way of asking finds all of them sooner.

## Action Space
`Discrete(16)`: the digits, `-`, `=`, `<`, `>`, `?`, and the end token, which ends a turn. `action_masks()` allows
numbers of at most as many digits as `max_number` has, `0` among them. `masked=False` allows everything.

## Observation Space
The prompt, then turns and replies; see `textenvs.env.TextGenEnv`.

## Starting State
A range, of 200 of the 800 in a fixed shuffled order, and a number in it, uniformly: each of the 200 is hidden equally
often. (Other settings: as many ranges as make 40,000 problems, at least 20 while there are so many; of more than 2,000
numbers each hides 2,000, starting at a hash of the range.)

## Rewards
With n guesses, the last of them right: 1 for n <= par, 1 - (n - par) / (max_guesses - par + 1) beyond. Not found: 0.
Guesses that do not depend on the replies find the number within par in at most par of `size` cases, 8 of 200, and earn
0.05 at most. To know what train hides does not help: every number of a range is hidden there.

## Episode End
The right number; the last guess; the end of the budget, which has room for `max_guesses` guesses of the longest kind.

## Splits
By range: a fifth of the ranges is held out, 40 of 200. A prompt of your own hides a number that depends on nothing but
the prompt.

## References
Optimal search among N ordered values by comparisons: Knuth, "The Art of Computer Programming", vol. 3, section 6.2.1.

## Version History
v0: first version.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from textenvs.hidden_task import Guesses, HiddenTask
from textenvs.rewards.base import Reward
from textenvs.task import Problem, check_flag, int_in
from textenvs.vocab import CharVocab

DIGITS = "0123456789"
#: What random tokens earn is summed up exactly for at most so many (tokens left, length of a turn, guesses).
MAX_COURSES = 1_000_000


class GuessNumber(HiddenTask):
    """Guess a hidden number by halving its range: `1-200=` -> `100`, told `>`, `150`, told `<`, ... `137`.

    Args:
        size: numbers in a range, 2 to 100,000.
        max_number: largest number of any range, at least size, at most 999,999,999.
        max_guesses: guesses until the end, at least what halving needs, at most 100.
        masked: whether `action_masks()` allows numbers only, or everything.
        split: "train", "heldout" or "all".
    """

    def __init__(
        self,
        *,
        size: int = 200,
        max_number: int = 999,
        max_guesses: int = 12,
        masked: bool = True,
        split: str = "train",
    ) -> None:
        self.size = int_in("size", size, 2, 100_000)
        self.max_number = int_in("max_number", max_number, self.size, 999_999_999)
        self.par = self.size.bit_length()
        self.max_guesses = int_in("max_guesses", max_guesses, self.par, 100)
        self.has_masks = check_flag("masked", masked)
        self.vocab = CharVocab(DIGITS + "-=<>?")
        self.reward: Reward = Guesses(self.max_guesses)
        self._width = len(str(self.max_number))
        self.max_prompt_tokens = 2 * self._width + 2
        self.max_new_tokens = self.max_guesses * (self._width + 2) - 1
        is_digit = np.array([symbol in DIGITS for symbol in self.vocab.tokens])
        is_end = np.arange(self.vocab.num_tokens) == self.vocab.eos_id
        self._zero = self.vocab.token_id("0")
        #: By the number of digits that a turn has so far, what may follow.
        self._legal: list[NDArray[np.bool_]] = [is_digit, *[is_digit | is_end] * (self._width - 1), is_end]
        for mask in self._legal:
            mask.flags.writeable = False
        super().__init__(num_prompts=self.max_number - self.size + 1, min_hidden=self.size, split=split)

    def prompt(self, number: int) -> str:
        """The range that starts at `number` + 1."""
        return f"{number + 1}-{number + self.size}="

    def num_hidden(self, prompt: str) -> int:
        """See `HiddenTask.num_hidden`."""
        read = re.fullmatch(r"([1-9]\d{0,8})-([1-9]\d{0,8})=", prompt, flags=re.ASCII)
        if read is None or int(read[2]) - int(read[1]) != self.size - 1 or int(read[2]) > self.max_number:
            raise ValueError(
                f"prompt must be a range of {self.size} numbers up to {self.max_number}, such as '1-{self.size}=', "
                f"got {prompt[:80]!r}"
            )
        return self.size

    def hide(self, prompt: str, number: int) -> Problem:
        """See `HiddenTask.hide`."""
        hidden = int(prompt.partition("-")[0]) + number
        return Problem(prompt, (str(hidden),), {"hidden": hidden, "par": self.par})

    def reply(self, problem: Problem, turns: Sequence[str]) -> str | None:
        """See `Task.reply`."""
        guess, hidden = turns[-1], problem.metadata["hidden"]
        if guess == str(hidden) or (len(turns) + 1) // 2 >= self.max_guesses:
            return None
        if not 1 <= len(guess) <= self._width or not set(guess) <= set(DIGITS) or guess != str(int(guess)):
            return "?"
        return "<" if hidden < int(guess) else ">"

    def demonstration(self, problem: Problem) -> list[str]:
        """The middle of what is left of the range, until it is right."""
        low, high = map(int, problem.prompt[:-1].split("-"))
        hidden: int = problem.metadata["hidden"]
        turns: list[int] = []
        while not turns or turns[-1] != hidden:
            guess = (low + high) // 2
            turns.append(guess)
            low, high = (low, guess - 1) if hidden < guess else (guess + 1, high)
        return [str(guess) for guess in turns]

    def legal(self, problem: Problem, token_ids: Sequence[int]) -> NDArray[np.bool_]:
        """See `Task.legal`."""
        num_digits = 0
        while num_digits < min(len(token_ids), self._width) and token_ids[-1 - num_digits] < len(DIGITS):
            num_digits += 1
        # After a zero that starts the turn, one more digit would make no number.
        return self._legal[-1 if num_digits and token_ids[-num_digits] == self._zero else num_digits]

    def optimal_return(self) -> float:
        """Halving the range finds every number within par, and nothing scores above 1."""
        return 1.0

    def random_return(self) -> float | None:
        """Sum over the courses of an episode, turn by turn, of P(right then) x score, averaged over the problems.

        None where that takes more than a second.
        """
        if self.max_new_tokens**2 * self.max_guesses > MAX_COURSES:
            return None
        v, budget, value = self.vocab.num_tokens, self.max_new_tokens, Guesses(self.max_guesses).value

        @cache
        def expected(width: int, used: int, guesses: int) -> float:
            """From the start of a turn, `guesses` before it and `used` tokens, to a number of `width` digits."""
            left = budget - used
            if left <= width or guesses == self.max_guesses:
                return 0.0
            # The number and the end token; or another turn, and the reply to it.
            total = float(v) ** -(width + 1) * value(self.par, guesses + 1)
            for num in range(left - 1):
                other = (1 - 1 / v) ** num / v - (float(v) ** -(width + 1) if num == width else 0.0)
                total += other * expected(width, used + num + 2, guesses + 1)
            return total

        return sum(expected(len(self[k].references[0]), 0, 0) for k in range(len(self))) / len(self)
