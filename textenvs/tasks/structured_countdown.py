"""Reach a target with given numbers and the four operations: the numbers game of the television show Countdown.

## Description
The prompt is `num_numbers` numbers, a target and `=`: `3,7,12:33=`. The response is an expression with the target as
its value, of the given numbers, `+ - * /` and parentheses: `3*7+12` is right; `3*(7+4)` uses a number that is not
given, and so does `33`. Each given number may be used once at most (twice if it is given twice), and need not be used.
Division is exact, so fractions may occur on the way. There is no sign: `-3+7` is no expression, `7-3` is.

## Action Space
`Discrete(20)`: the digits, `+-*/()`, `,`, `:`, `=`, and the end token (the last id). No masks.

## Observation Space
The prompt and the response so far; see `textenvs.env.TextGenEnv`.

## Starting State
Uniformly one of the problems. Each choice of numbers comes with up to four targets, made by combining all of them at
random; all are integers in [1, max_target], and none is among the numbers.

## Rewards
1 for an expression with the target as its exact value, else 0. Nothing for being close.

## Episode End
The end token, or the `max_new_tokens`-th token.

## Splits
A fifth of the choices of numbers is held out, with all of their targets. Where fewer than four targets are found for a
choice, one comes again, with the numbers in another order: at the default settings 4,903 of the 4,928 training problems
are distinct, with two numbers 432 of 672, and with four 7,999 of 8,000.

## References
The Countdown tasks of Gandhi et al. 2024, "Stream of Search", arXiv:2404.03683, and of TinyZero
(github.com/Jiayi-Pan/TinyZero). Different here: the response is the expression and nothing else, it is read by a parser
of this file and never evaluated as code, and not all of the numbers have to be used.

## Version History
v0: first version.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from math import comb

import numpy as np

from textenvs.rewards.base import ProblemLike, Responses, Reward, Scores
from textenvs.task import Problem, Task, int_in, permuted, split_range
from textenvs.vocab import CharVocab

#: A task holds at most so many choices of numbers, and so many targets for each.
MAX_CHOICES, TARGETS_PER_CHOICE = 2_500, 4
#: A longer response is no expression.
MAX_EXPRESSION_CHARS = 200
#: Random combinations that are tried for the targets of one choice of numbers; more while they gave none.
MAX_TRIES, MAX_TRIES_FOR_ONE = 200, 20_000

_PROMPT = re.compile(r"([0-9]{1,4}(?:,[0-9]{1,4})*):([0-9]{1,6})=")
_TOKEN = re.compile(r"([0-9]+)|([-+*/()])")


class Countdown(Task):
    """Reach the target with each number used once at most: `3,7,12:33=` -> `3*7+12`.

    Args:
        num_numbers: how many numbers are given, 2 to 6.
        max_number: largest of them, 4 to 100.
        max_target: largest target, 10 to 1,000, at least max_number.
        split: "train", "heldout" or "all".
    """

    def __init__(
        self, *, num_numbers: int = 3, max_number: int = 20, max_target: int = 99, split: str = "train"
    ) -> None:
        self.num_numbers = int_in("num_numbers", num_numbers, 2, 6)
        self.max_number = int_in("max_number", max_number, 4, 100)
        # Below the largest number some choices of numbers reach no target at all: 70 and 90 make nothing up to 10.
        self.max_target = int_in("max_target", max_target, max(10, self.max_number), 1000)
        self.vocab = CharVocab("0123456789+-*/(),:=")
        self.reward = Reaches()
        digits = len(str(self.max_number))
        self.max_prompt_tokens = self.num_numbers * (digits + 1) + len(str(self.max_target)) + 1
        # All numbers, an operation between any two, a pair of parentheses for each but the last, the end token.
        self.max_new_tokens = self.num_numbers * digits + (self.num_numbers - 1) + 2 * (self.num_numbers - 1) + 1
        self._num_choices = comb(self.max_number + self.num_numbers - 1, self.num_numbers)
        choices = split_range(min(self._num_choices, MAX_CHOICES), split)
        self._problems = [(choice, i) for choice in choices for i in range(TARGETS_PER_CHOICE)]

    def __len__(self) -> int:
        return len(self._problems)

    def __getitem__(self, k: int) -> Problem:
        choice, i = self._problems[k]
        rank = permuted(choice, self._num_choices)
        numbers = multiset(rank, self.num_numbers, self.max_number)
        rng = np.random.default_rng(np.random.SeedSequence([self.num_numbers, self.max_number, rank]))
        targets: dict[int, str] = {}
        for n in range(1, MAX_TRIES_FOR_ONE + 1):
            value, text = combined(numbers, rng)
            if value.denominator == 1 and 1 <= value <= self.max_target and value not in numbers:
                targets.setdefault(int(value), text)
            if len(targets) > i or (targets and n >= MAX_TRIES):
                break
        if not targets:
            raise ValueError(
                f"max_target must be within reach of the numbers, got {self.max_target} with {numbers}; raise it"
            )
        target, text = list(targets.items())[i % len(targets)]
        order = rng.permutation(self.num_numbers)
        return self._posed([numbers[j] for j in order], target, (text,))

    def problem(self, prompt: str) -> Problem:
        """See `Task.problem`; without a reference, as none is searched for."""
        match = _PROMPT.fullmatch(prompt)
        if match is None:
            raise ValueError(f"prompt must be numbers, a target and '=', got {prompt[:80]!r}; such as '3,7,12:33='")
        return self._posed([int(number) for number in match[1].split(",")], int(match[2]), ())

    def optimal_return(self) -> float:
        """Every target was made of its numbers."""
        return 1.0

    def _posed(self, numbers: Sequence[int], target: int, references: tuple[str, ...]) -> Problem:
        prompt = f"{','.join(map(str, numbers))}:{target}="
        return Problem(prompt, references, {"numbers": [int(number) for number in numbers], "target": target})


class Reaches(Reward):
    """1.0 for an expression of the problem's numbers with its target as value, else 0.0. Range [0, 1].

    Reads `metadata["numbers"]` and `metadata["target"]`; see `textenvs.tasks.structured_countdown` for the rules.

    Withstands: the target itself, a number that is not given or used too often, an equation, anything before or after
    the expression, division by zero, thousands of parentheses, numbers with thousands of digits.
    """

    name = "reaches"
    value_range = (0.0, 1.0)

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        values = np.zeros(len(responses))
        for i, (problem, text) in enumerate(zip(problems, responses.texts, strict=True)):
            value = expression_value(text, problem.metadata["numbers"])
            values[i] = float(value is not None and value == problem.metadata["target"])
        return Scores(values, {self.name: values})


def expression_value(text: str, numbers: Sequence[int]) -> Fraction | None:
    """The exact value of an expression that uses each number at most as often as it is given; None where it is none.

    Args:
        text: numbers, `+ - * /` and parentheses, without spaces and signs.
        numbers: what may be used.
    """
    if not 0 < len(text) <= MAX_EXPRESSION_CHARS or not text.isascii():
        return None
    tokens = [number or symbol for number, symbol in _TOKEN.findall(text)]
    if sum(map(len, tokens)) != len(text):
        return None
    used = [token for token in tokens if token.isdigit()]
    # Given numbers only, so that values stay small whatever the expression; "07" is not how 7 is spelt.
    if Counter(used) - Counter(map(str, numbers)):
        return None
    parser = _Parser(tokens)
    try:
        value = parser.sum()
    except (ValueError, ZeroDivisionError):
        return None
    return value if parser.at == len(tokens) else None


class _Parser:
    """Recursive descent: sum = product (+- product)*; product = atom (*/ atom)*; atom = number or (sum).

    An expression of 200 characters nests 100 levels at most.
    """

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.at = tokens, 0

    def _next(self, kinds: str) -> str:
        """Consume the next token if it is one of these symbols, else the empty text."""
        token = self.tokens[self.at] if self.at < len(self.tokens) else ""
        if token and token in kinds:
            self.at += 1
            return token
        return ""

    def sum(self) -> Fraction:
        value = self.product()
        while symbol := self._next("+-"):
            value = value + self.product() if symbol == "+" else value - self.product()
        return value

    def product(self) -> Fraction:
        value = self.atom()
        while symbol := self._next("*/"):
            value = value * self.atom() if symbol == "*" else value / self.atom()
        return value

    def atom(self) -> Fraction:
        if self._next("("):
            value = self.sum()
            if not self._next(")"):
                raise ValueError("a parenthesis is not closed")
            return value
        if self.at == len(self.tokens) or not self.tokens[self.at].isdigit():
            raise ValueError("a number is missing")
        self.at += 1
        return Fraction(int(self.tokens[self.at - 1]))


def multiset(rank: int, size: int, most: int) -> list[int]:
    """Multiset number `rank` in range(C(most + size - 1, size)) of `size` numbers in [1, most], ascending; one to one.

    By the combinatorial number system: a multiset is a set of size distinct numbers in [0, most + size - 1), shifted.
    """
    found = []
    for i in range(size, 0, -1):
        top = i - 1
        while comb(top + 1, i) <= rank:
            top += 1
        rank -= comb(top, i)
        found.append(top - (i - 1) + 1)
    return found[::-1]


def combined(numbers: Sequence[int], rng: np.random.Generator) -> tuple[Fraction, str]:
    """A random expression that uses all numbers once, with its value.

    Two of the parts are joined by a random operation until one is left; a difference below 1 and a quotient that is no
    integer become a sum.
    """
    parts = [(Fraction(number), str(number), 3) for number in numbers]
    while len(parts) > 1:
        i, j = int(rng.integers(len(parts))), int(rng.integers(len(parts) - 1))
        j += j >= i
        (a, left, rank_left), (b, right, rank_right) = parts[i], parts[j]
        symbol = "+-*/"[rng.integers(4)]
        if (symbol == "-" and a <= b) or (symbol == "/" and (a / b).denominator > 1):
            symbol = "+"
        rank = 1 if symbol in "+-" else 2
        left = f"({left})" if rank_left < rank else left
        right = f"({right})" if rank_right < rank or (rank_right == rank and symbol in "-/") else right
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[symbol]
        parts = [part for k, part in enumerate(parts) if k not in (i, j)] + [(value, left + symbol + right, rank)]
    return parts[0][0], parts[0][1]
