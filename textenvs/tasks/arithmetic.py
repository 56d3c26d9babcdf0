"""Arithmetic on short strings: add two numbers, tell odd from even, count a letter.

## Description
The prompt is a question that ends with `=`, the response its answer in decimal digits. `Addition`: the sum of two
numbers of at most `num_digits` digits. `Parity`: whether the number of ones among `length` bits is odd. `CharCount`:
how often the letter before the colon occurs in the `length` letters after it.

## Action Space
`Discrete(V)`: the digits, the symbols of the question, `=`, and the end token.

## Observation Space
The prompt and the response so far; see `textenvs.env.TextGenEnv`.

## Starting State
Questions of a fixed shuffled order, uniformly. In `CharCount` every count from 0 to 3/4 of the length (rounded down)
is equally frequent: in plain random text nearly all counts would be alike, and one constant answer would do.

## Rewards
`Addition`: matching positions / max(len(response), len(reference)). The others: 1 for the reference, else 0.

What does not read the question scores little: the commonest sum of two-digit numbers is right in 1 of 100 cases (with
`num_digits=1`: 1 of 10), the best constant count of the default 40 letters in 1 of 31. `Parity` has two answers: a
constant one is right in 1 of 2, and that is chance.

## Episode End
The end token, or the budget: room for the longest answer and the end token.

## Splits
The last fifth of the shuffled questions is held out; `12+7=` and `7+12=` are always in the same split. In `Parity` a
held-out question is a new order of symbols that were trained on in another order, which has the same answer (50 of the
51; in `CharCount` 5 of 2,000): to see that order does not matter is the task.

## References
Addition: Lee et al., "Teaching Arithmetic to Small Transformers", ICLR 2024. Parity: Hahn, "Theoretical Limitations of
Self-Attention in Neural Sequence Models", TACL 2020.

## Version History
v0: first version.
"""

from __future__ import annotations

from math import comb

from textenvs.string_task import StringTask
from textenvs.task import int_in, permuted

DIGITS = "0123456789"


class Addition(StringTask):
    """Add two numbers: `12+7=` -> `19`.

    Two numbers of at most `num_digits` digits; the response is their sum, the largest digit first. A carry makes a
    digit depend on all those to its right, which are written later. Every digit at its place counts.

    Args:
        num_digits: of the longer summand at most, 1 to 100.
        split: "train", "heldout" or "all".
    """

    def __init__(self, *, num_digits: int = 2, split: str = "train") -> None:
        self.num_digits = n = int_in("num_digits", num_digits, 1, 100)
        super().__init__(symbols=DIGITS + "+", max_input_tokens=2 * n + 1, max_new_tokens=n + 2, split=split)

    def num_inputs(self) -> int:
        """See `StringTask.num_inputs`."""
        return int(10 ** (2 * self.num_digits))

    def input(self, number: int) -> str:
        """Numbers 2i and 2i + 1 are two numbers in either order, or two doubles: 10^2n / 2 such pairs."""
        num, (pair, which) = 10**self.num_digits, divmod(number, 2)
        # Half of a num x num table, folded over: right of the diagonal as it is, left of it turned by 180 degrees.
        left, right = divmod(pair, num)
        if right < left or (right == left and which):
            left, right = num - 1 - left, num - 1 - right
        if right != left and (left + right) % 2 == which:
            left, right = right, left
        return f"{left}+{right}"

    def shuffled(self, number: int) -> int:
        """Successive problems are a sum in either order: in one split, whose sizes are even."""
        return 2 * permuted(number // 2, self._space // 2) + number % 2

    def solve(self, text: str) -> str:
        """See `StringTask.solve`."""
        left, plus, right = text.partition("+")
        if not plus or not self._is_summand(left) or not self._is_summand(right):
            raise ValueError(
                f"input must be two numbers of 1 to {self.num_digits} digits with '+' between them, got {text[:80]!r}"
            )
        return str(int(left) + int(right))

    def _is_summand(self, text: str) -> bool:
        return 1 <= len(text) <= self.num_digits and set(text) <= set(DIGITS)


class Parity(StringTask):
    """Say whether the number of ones is odd: `0110=` -> `0`, `0111=` -> `1`.

    The prompt is `length` bits; the response one digit. Every bit turns the answer round, so that no part of the prompt
    says anything about it, and whoever has not found the rule is right in half of the cases: a hard case for learning
    from rewards, and a good control.

    Args:
        length: number of bits, 4 to 1,000.
        split: "train", "heldout" or "all".
    """

    reward = "exact_match"

    def __init__(self, *, length: int = 8, split: str = "train") -> None:
        self.length = int_in("length", length, 4, 1_000)
        super().__init__(symbols="01", max_input_tokens=self.length, max_new_tokens=2, split=split)

    def num_inputs(self) -> int:
        """See `StringTask.num_inputs`."""
        return int(2**self.length)

    def input(self, number: int) -> str:
        """`number` in binary."""
        return f"{number:0{self.length}b}"

    def solve(self, text: str) -> str:
        """See `StringTask.solve`."""
        if not text or not set(text) <= {"0", "1"}:
            raise ValueError(f"input must be zeros and ones, got {text[:80]!r}")
        return str(text.count("1") % 2)


class CharCount(StringTask):
    """Count a letter: `b:abcb=` -> `2`.

    How often does the letter before the colon occur in the `length` letters after it? The response is the number, in
    decimal digits, and only the right one counts. All counts from 0 to 3/4 of the length are equally frequent, so that
    always saying the same is right in 1 of 31 cases at default settings.

    Args:
        length: number of letters, 4 to 200.
        alphabet: distinct characters other than digits, `:` and `=`, at least 2.
        split: "train", "heldout" or "all".
    """

    reward = "exact_match"

    def __init__(self, *, length: int = 40, alphabet: str = "abcdefgh", split: str = "train") -> None:
        self.length = int_in("length", length, 4, 200)
        if (
            not isinstance(alphabet, str)
            or len(alphabet) < 2
            or len(set(alphabet + DIGITS + ":=")) < len(alphabet) + 12
        ):
            raise ValueError(f"alphabet must be at least 2 distinct characters, no digit, ':' or '=', got {alphabet!r}")
        self.alphabet = alphabet
        self.max_count = 3 * self.length // 4
        #: Texts with each count of the asked letter, 0 to max_count.
        self._num_texts = [
            comb(self.length, count) * (len(alphabet) - 1) ** (self.length - count)
            for count in range(self.max_count + 1)
        ]
        super().__init__(
            symbols=DIGITS + alphabet + ":",
            max_input_tokens=self.length + 2,
            max_new_tokens=len(str(self.max_count)) + 1,
            split=split,
        )

    def num_inputs(self) -> int:
        """As many of each letter and count as the rarest count has."""
        return int(len(self.alphabet) * len(self._num_texts) * min(self._num_texts))

    def shuffled(self, number: int) -> int:
        """Successive problems have successive counts, so that all are equally common in any part of them."""
        rank, count = divmod(number, len(self._num_texts))
        return permuted(rank, self._space // len(self._num_texts)) * len(self._num_texts) + count

    def input(self, number: int) -> str:
        """A letter, a count, and one of the texts with that count."""
        number, count = divmod(number, len(self._num_texts))
        number, which = divmod(number, len(self.alphabet))
        letter = self.alphabet[which]
        return f"{letter}:{self._text(letter, count, permuted(number, self._num_texts[count]))}"

    def _text(self, letter: str, count: int, number: int) -> str:
        """Text number `number` of those with `count` times the letter: where it stands, then what stands elsewhere."""
        others = self.alphabet.replace(letter, "")
        subset, rest = divmod(number, len(others) ** (self.length - count))
        symbols = []
        for left in range(self.length, 0, -1):
            # Of the subsets of size `count` of the `left` places left, comb(left - 1, count - 1) have the first one.
            with_first = comb(left - 1, count - 1) if count else 0
            if subset < with_first:
                symbols.append(letter)
                count -= 1
            else:
                subset -= with_first
                rest, digit = divmod(rest, len(others))
                symbols.append(others[digit])
        return "".join(symbols)

    def solve(self, text: str) -> str:
        """See `StringTask.solve`."""
        letter, letters = text[:1], text[2:]
        if text[1:2] != ":" or not letters or not set(letter + letters) <= set(self.alphabet):
            raise ValueError(
                f"input must be a letter of {self.alphabet!r}, ':' and some of its letters, got {text[:80]!r}"
            )
        return str(letters.count(letter))
