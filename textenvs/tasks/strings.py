"""String tasks: read a short input, write a short output. The prompt is the input followed by `=`.

Symbols are the alphabet, `=` and the end token; the budget is `length + 1` tokens, room for the output and the end.
Score: matching positions / max(len(response), len(reference)); success is 1. All are exactly solvable, and what
uniform random tokens earn is known exactly, so that results can be normalised.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from typing import ClassVar

import numpy as np

from textenvs.rewards import as_reward
from textenvs.rewards.base import Responses
from textenvs.task import Problem, Task, check_split, permuted, split_range
from textenvs.vocab import CharVocab

#: A generated task holds at most this many problems (all of them, if there are fewer).
MAX_PROBLEMS = 10_000
#: Longer inputs would be numbers that Python does not print.
MAX_LENGTH = 1_000


class StringTask(Task):
    """What the string tasks share.

    Args:
        length: number of symbols in the longest input, 1 to 1,000.
        alphabet: distinct characters other than `=`, at least 2.
        split: "train" (the first four fifths of the problems, in a fixed shuffled order), "heldout" or "all".
    """

    reward = "position_match"

    def __init__(self, *, length: int = 4, alphabet: str = "abcdefgh", split: str = "train") -> None:
        if isinstance(length, bool) or not isinstance(length, (int, np.integer)) or not 1 <= length <= MAX_LENGTH:
            raise ValueError(f"length must be an int in [1, {MAX_LENGTH}], got {length!r}; the usual one is 4")
        if not isinstance(alphabet, str) or len(alphabet) < 2 or len(set(alphabet)) < len(alphabet) or "=" in alphabet:
            raise ValueError(f"alphabet must be at least 2 distinct characters without '=', got {alphabet!r}")
        length = int(length)
        self.length, self.alphabet, self.split = length, alphabet, check_split(split)
        self.vocab = CharVocab(alphabet + "=")
        self.max_prompt_tokens = self.max_new_tokens = length + 1
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
        """The reference response to an input."""

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, k: int) -> Problem:
        text = self.input(permuted(self._range[k], self._space))
        return Problem(text + "=", (self.solve(text),))

    def problem(self, prompt: str) -> Problem:
        """See `Task.problem`."""
        text = prompt[:-1]
        if prompt[-1:] != "=" or not text or not set(text) <= set(self.alphabet):
            raise ValueError(f"prompt must be symbols of {self.alphabet!r} and then '=', got {prompt[:80]!r}")
        return Problem(prompt, (self.solve(text),))

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

    # Probability that a uniformly random token other than the end token counts as a match.
    @property
    def _hit(self) -> float:
        return 1 / (self.vocab.num_tokens - 1)

    def random_return(self) -> float:
        """Sum over response lengths of P(length) x E[matches] / max(length, n), averaged over the references' n."""
        go_on, budget = 1 - 1 / self.vocab.num_tokens, self.max_new_tokens
        lengths = [(num, go_on**num * (1 - go_on if num < budget else 1)) for num in range(budget + 1)]
        counts = Counter(len(self[k].references[0]) for k in range(len(self)))
        expected = {n: sum(p * min(m, n) * self._hit / max(m, n) for m, p in lengths) for n in counts}
        return sum(count * expected[n] for n, count in counts.items()) / len(self)


class _AnyString(StringTask):
    """Inputs are all strings of exactly `length` symbols."""

    def num_inputs(self) -> int:
        """See `StringTask.num_inputs`."""
        return int(len(self.alphabet) ** self.length)

    def input(self, number: int) -> str:
        """The digits of `number` in base len(alphabet)."""
        symbols = []
        for _ in range(self.length):
            number, digit = divmod(number, len(self.alphabet))
            symbols.append(self.alphabet[digit])
        return "".join(symbols)


class Copy(_AnyString):
    """Write the input again: `abca=` -> `abca`."""

    def solve(self, text: str) -> str:
        """See `StringTask.solve`."""
        return text


class Reverse(_AnyString):
    """Write the input backwards: `abcd=` -> `dcba`."""

    def solve(self, text: str) -> str:
        """See `StringTask.solve`."""
        return text[::-1]


class Sort(_AnyString):
    """Write the input's symbols in the alphabet's order: `cab=` -> `abc`."""

    def solve(self, text: str) -> str:
        """See `StringTask.solve`."""
        return "".join(sorted(text, key=self.alphabet.index))


class Count(StringTask):
    """Continue the successor sequence for `length` symbols, round the alphabet: `ab=` -> `cdef`.

    The input is a run of 1 to `length` successive symbols.
    """

    def num_inputs(self) -> int:
        """See `StringTask.num_inputs`."""
        return len(self.alphabet) * self.length

    def input(self, number: int) -> str:
        """The run that starts at a symbol and has a length, one for each pair."""
        num, start = divmod(number, len(self.alphabet))
        return self._run(start, num + 1)

    def solve(self, text: str) -> str:
        """See `StringTask.solve`."""
        return self._run(self.alphabet.index(text[-1]) + 1, self.length)

    def _run(self, start: int, num: int) -> str:
        return "".join(self.alphabet[(start + i) % len(self.alphabet)] for i in range(num))


class Length(StringTask):
    """Stop after exactly as many tokens as the input has: `ccc=` -> any three symbols, then the end token.

    The input is one symbol 1 to `length` times. Score: min / max of the two lengths.
    """

    reward = "length_match"
    _hit: ClassVar[float] = 1.0  # every symbol counts

    def num_inputs(self) -> int:
        """See `StringTask.num_inputs`."""
        return len(self.alphabet) * self.length

    def input(self, number: int) -> str:
        """One symbol, repeated."""
        num, symbol = divmod(number, len(self.alphabet))
        return self.alphabet[symbol] * (num + 1)

    def solve(self, text: str) -> str:
        """See `StringTask.solve`."""
        return text
