"""String tasks: read a short input, write a short output. The prompt is the input followed by `=`.

Symbols are the alphabet, `=` and the end token; the budget is `length + 1` tokens, room for the output and the end.
Score: matching positions / max(len(response), len(reference)); success is 1. All are exactly solvable, and what
uniform random tokens earn is known exactly, so that results can be normalised.

The last fifth of the shuffled problems is held out. At default settings that is 819 new strings in `Copy`, `Reverse`
and `Sort`; of 818 of them `Sort` has trained on the letters in another order, which have the same answer. `Count` and
`Length` have 32 problems, so 6 held out: success moves in steps of 1/6. The last letter of `Count`'s input alone
decides its answer, and the number of letters of `Length`'s; each was trained on, in other inputs. So these 6 measure
whether the rest of the input is ignored, and no more; a larger `length` or `alphabet` measures finer.
"""

from __future__ import annotations

from typing import ClassVar

from textenvs.string_task import StringTask
from textenvs.task import Problem, int_in

#: Longer inputs would be numbers that Python does not print.
MAX_LENGTH = 1_000


class LetterTask(StringTask):
    """What the string tasks share.

    Args:
        length: number of symbols in the longest input, 1 to 1,000.
        alphabet: distinct characters other than `=`, at least 2.
        split: "train" (the first four fifths of the problems, in a fixed shuffled order), "heldout" or "all".
    """

    def __init__(self, *, length: int = 4, alphabet: str = "abcdefgh", split: str = "train") -> None:
        self.length = int_in("length", length, 1, MAX_LENGTH)
        if not isinstance(alphabet, str) or len(alphabet) < 2 or len(set(alphabet)) < len(alphabet) or "=" in alphabet:
            raise ValueError(f"alphabet must be at least 2 distinct characters without '=', got {alphabet!r}")
        self.alphabet = alphabet
        super().__init__(symbols=alphabet, max_input_tokens=length, max_new_tokens=length + 1, split=split)

    def problem(self, prompt: str) -> Problem:
        """See `Task.problem`."""
        text = prompt[:-1]
        if prompt[-1:] != "=" or not text or not set(text) <= set(self.alphabet):
            raise ValueError(f"prompt must be symbols of {self.alphabet!r} and then '=', got {prompt[:80]!r}")
        return super().problem(prompt)


class _AnyString(LetterTask):
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
    """Write the input again: `abca=` -> `abca`.

    The input is any string of exactly `length` symbols, the response the same string and the end token. The simplest
    task in which every token depends on the prompt: at each step the policy must look one position further. Echoing the
    whole prompt, `abca=`, is one token too many, and still earns length / (length + 1).
    """

    def solve(self, text: str) -> str:
        """See `StringTask.solve`."""
        return text


class Reverse(_AnyString):
    """Write the input backwards: `abcd=` -> `dcba`.

    The input is any string of exactly `length` symbols. What to write next stands further back with every token: first
    the symbol just before `=`, at last the first one of the prompt. An echo is right only where the string and its
    mirror image agree.
    """

    def solve(self, text: str) -> str:
        """See `StringTask.solve`."""
        return text[::-1]


class Sort(_AnyString):
    """Write the input's symbols in the alphabet's order: `cab=` -> `abc`.

    The input is any string of exactly `length` symbols, and one that comes twice is written twice. Each token depends
    on all of the input and on what has been written already; the 24 orders of four different symbols have one answer.
    """

    def solve(self, text: str) -> str:
        """See `StringTask.solve`."""
        return "".join(sorted(text, key=self.alphabet.index))


class Count(LetterTask):
    """Continue the successor sequence for `length` symbols, round the alphabet: `ab=` -> `cdef`.

    The input is a run of 1 to `length` successive symbols, and after the last symbol of the alphabet comes the first:
    `gh=` -> `abcd`. Only the last symbol of the input matters, and every later one follows from the one before it.
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


class Length(LetterTask):
    """Stop after exactly as many tokens as the input has: `ccc=` -> any three symbols, then the end token.

    The input is one symbol 1 to `length` times. What the response consists of does not matter, only when it stops: the
    end token is the whole difficulty. Score: min / max of the two lengths.
    """

    reward = "length_match"
    hit: ClassVar[float | None] = 1.0  # every symbol counts

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
