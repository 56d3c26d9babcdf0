"""Write a word of a regular language, of a given length. The language is in the prompt, as a regular expression.

## Description
The prompt is a regular expression over a few letters, a length n and `=`: `(ab|c)*a6=`. The response must be a word of
the expression's language with exactly n letters: `abcaba` would do, `abcabc` does not match, `aba` is too short. The
expressions are products of `num_factors` factors: a letter, a choice of two words, or the repetition of either; n is
chosen such that a word exists, that at most a tenth of all strings of n letters are one, and that none is one letter
repeated: otherwise `bbbbbbbb` alone would solve a tenth of the problems.

## Action Space
`Discrete(V)`: the letters, `()|*`, the digits, `=`, and the end token (the last id). `action_masks()` allows the
letters after which the response can still become a word of the language within the budget, and the end token when it
is one. So a masked response can be wrong by its length only. After a token that the mask forbids it allows the end
token. `masked=False` allows everything.

## Observation Space
The prompt and the response so far; see `textenvs.env.TextGenEnv`.

## Starting State
Uniformly one of at most 2,000 problems, no expression twice.

## Rewards
1 for a word of the language of length n, else 0. Any such word will do; the reference is drawn uniformly from them.

## Episode End
The end token, or the `max_length + 1`-th token.

## Splits
A fifth of the expressions is held out.

## References
Expressions become automata by the construction of Glushkov 1961, "The abstract theory of automata"; words are counted
and drawn by dynamic programming over the states that subsets of positions are.

## Version History
v0: first version.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from textenvs.rewards.base import ProblemLike, Responses, Reward, Scores
from textenvs.task import Problem, Task, check_flag, int_in, permuted, split_range
from textenvs.vocab import CharVocab

MAX_PROBLEMS = 2_000
#: One problem in a prompt's language has at most this share of all strings of its length.
MAX_DENSITY = 0.1
#: Longest expression that is read; automata have at most this many positions.
MAX_EXPRESSION = 60

_PROMPT = re.compile(r"([a-z()|*]+)([0-9]{1,3})=")


class RegularLanguage(Task):
    """Write a word of the language with so many letters: `a(bc)*(ca)*5=` -> `abcca`.

    Args:
        num_factors: factors of the expression, 2 to 5.
        alphabet: 3 to 5 distinct lower-case letters.
        max_length: longest word that is asked for, 5 to 100.
        masked: whether `action_masks()` follows the language, or allows everything.
        split: "train", "heldout" or "all".
    """

    def __init__(
        self,
        *,
        num_factors: int = 3,
        alphabet: str = "abc",
        max_length: int = 8,
        masked: bool = True,
        split: str = "train",
    ) -> None:
        self.num_factors = int_in("num_factors", num_factors, 2, 5)
        self.max_length = int_in("max_length", max_length, 5, 100)
        if (
            not isinstance(alphabet, str)
            or not re.fullmatch("[a-z]{3,5}", alphabet)
            or len(set(alphabet)) < len(alphabet)
        ):
            raise ValueError(f"alphabet must be 3 to 5 distinct lower-case letters, got {alphabet!r}; such as 'abc'")
        self.alphabet, self.has_masks = alphabet, check_flag("masked", masked)
        self.vocab = CharVocab(alphabet + "()|*0123456789=")
        self.max_new_tokens = self.max_length + 1
        self.reward = InLanguage()
        self._factors = _factors(alphabet)
        self.max_prompt_tokens = max(map(len, self._factors)) * self.num_factors + len(str(self.max_length)) + 1
        # Problem number p owns every num_problems-th expression, and is the first of them that will do.
        self._space = len(self._factors) ** self.num_factors
        self._num_problems = min(MAX_PROBLEMS, self._space // 20)
        self._range = split_range(self._num_problems, split)

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, k: int) -> Problem:
        for number in range(self._range[k], self._space, self._num_problems):
            salt = permuted(number, self._space)
            expression = self._expression(salt)
            for i in range(self.max_length - 1):
                length = 2 + (salt + i) % (self.max_length - 1)
                if self._asks(expression, length):
                    return self._posed(expression, length, salt)
        raise AssertionError(f"problem {k} owns no expression that will do")  # a test looks at the smallest settings

    def problem(self, prompt: str) -> Problem:
        """See `Task.problem`; the reference is drawn as for the task's own problems."""
        match = _PROMPT.fullmatch(prompt)
        if match is None or not set(match[1]) <= set(self.alphabet + "()|*") or int(match[2]) > self.max_length:
            raise ValueError(
                f"prompt must be a regular expression over {self.alphabet!r}, a length of at most {self.max_length} "
                f"and '=', got {prompt[:80]!r}; such as '(ab|c)*a6='"
            )
        expression, length = match[1], int(match[2])
        if automaton(expression).num_words(length) == 0:
            raise ValueError(f"prompt must ask for a word that exists, got {prompt!r}; ask for another length")
        return self._posed(expression, length, 0)

    def legal(self, problem: Problem, token_ids: Sequence[int]) -> NDArray[np.bool_]:
        """See `Task.legal`."""
        legal = np.zeros(self.vocab.num_tokens, dtype=bool)
        machine = automaton(problem.metadata["pattern"])
        state = machine.state(self.vocab.decode(token_ids)) if self.vocab.eos_id not in token_ids else 0
        if state:
            room = self.max_new_tokens - len(token_ids) - 2  # after this letter, with a place for the end token
            for i, letter in enumerate(self.alphabet):
                after = machine.step(state, letter)
                legal[i] = bool(after) and machine.distance(after) <= room
        legal[self.vocab.eos_id] = machine.accepts(state) or not legal.any()
        return legal

    def optimal_return(self) -> float:
        """Every problem has a word."""
        return 1.0

    def random_return(self) -> float:
        """Mean over the problems of (words of length n) / V^(n + 1): each word, and then the end token."""
        v, total = float(self.vocab.num_tokens), 0.0
        for k in range(len(self)):
            metadata = self[k].metadata
            length = metadata["length"]
            total += automaton(metadata["pattern"]).num_words(length) / v ** (length + 1)
        return total / len(self)

    def _asks(self, expression: str, length: int) -> bool:
        """Whether such words exist, are few, and are no repetition of one letter, which would solve many problems."""
        machine = automaton(expression)
        return 1 <= machine.num_words(length) <= MAX_DENSITY * len(self.alphabet) ** length and not any(
            machine.accepts(machine.state(letter * length)) for letter in self.alphabet
        )

    def _expression(self, number: int) -> str:
        """The digits of `number` in base len(factors), as factors."""
        factors = []
        for _ in range(self.num_factors):
            number, digit = divmod(number, len(self._factors))
            factors.append(self._factors[digit])
        return "".join(factors)

    def _posed(self, expression: str, length: int, salt: int) -> Problem:
        machine = automaton(expression)
        num_words = machine.num_words(length)
        reference = machine.word(length, permuted(salt % num_words, num_words))
        return Problem(f"{expression}{length}=", (reference,), {"pattern": expression, "length": length})


class InLanguage(Reward):
    """1.0 for a word of the problem's language of the problem's length, else 0.0. Range [0, 1].

    Reads `metadata["pattern"]` and `metadata["length"]`, with an automaton of its own: no library reads the pattern.

    Withstands: the empty response, words that are too short or too long, a word with anything before or after it.
    """

    name = "in_language"
    value_range = (0.0, 1.0)

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        values = np.zeros(len(responses))
        for i, (problem, text) in enumerate(zip(problems, responses.texts, strict=True)):
            if len(text) == problem.metadata["length"]:
                machine = automaton(problem.metadata["pattern"])
                values[i] = float(machine.accepts(machine.state(text)))
        return Scores(values, {self.name: values})


class Automaton:
    """The Glushkov automaton of a regular expression: a state is the set of positions read last, as bits.

    Bit 0 is the start; bit p, for p from 1, is the expression's p-th letter. 0 is the state of no word.

    Args:
        expression: lower-case letters, `|`, `*` and parentheses.

    Raises:
        ValueError: it is no such expression, or too long.
    """

    def __init__(self, expression: str) -> None:
        if len(expression) > MAX_EXPRESSION:
            raise ValueError(f"an expression must have at most {MAX_EXPRESSION} characters, got {len(expression)}")
        self._text, self._at = expression, 0
        self._letters: list[str] = [""]
        self._follow: list[int] = [0]
        nullable, first, last = self._choice()
        if self._at < len(expression):
            raise ValueError(f"an expression must close what it opens, got {expression!r}; see character {self._at}")
        self._follow[0], self._final = first, last | nullable
        self.start = 1
        self._of_letter = {
            c: sum(1 << p for p, d in enumerate(self._letters) if d == c) for c in set(self._letters[1:])
        }
        self._steps: dict[tuple[int, str], int] = {}
        self._counts: dict[tuple[int, int], int] = {}
        self._distances: dict[int, int] = {}

    # Recursive descent; each part returns (can be empty, positions it begins with, positions it ends with).
    def _choice(self) -> tuple[bool, int, int]:
        nullable, first, last = self._product()
        while self._peek() == "|":
            self._at += 1
            other = self._product()
            nullable, first, last = nullable or other[0], first | other[1], last | other[2]
        return nullable, first, last

    def _product(self) -> tuple[bool, int, int]:
        nullable, first, last = True, 0, 0
        while self._peek() not in ("", "|", ")"):
            other = self._factor()
            self._link(last, other[1])
            first |= other[1] if nullable else 0
            last = other[2] | (last if other[0] else 0)
            nullable = nullable and other[0]
        return nullable, first, last

    def _factor(self) -> tuple[bool, int, int]:
        symbol = self._peek()
        self._at += 1
        if symbol == "(":
            part = self._choice()
            if self._peek() != ")":
                raise ValueError(f"an expression must close what it opens, got {self._text!r}; add ')'")
            self._at += 1
        elif "a" <= symbol <= "z":
            self._letters.append(symbol)
            self._follow.append(0)
            bit = 1 << (len(self._letters) - 1)
            part = (False, bit, bit)
        else:
            raise ValueError(f"an expression must be made of letters, '|', '*' and '()', got {self._text!r}")
        while self._peek() == "*":
            self._at += 1
            self._link(part[2], part[1])
            part = (True, part[1], part[2])
        return part

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _link(self, last: int, first: int) -> None:
        for p in _bits(last):
            self._follow[p] |= first

    def step(self, state: int, letter: str) -> int:
        """The state after one more letter."""
        key = (state, letter)
        if key not in self._steps:
            after = 0
            for p in _bits(state):
                after |= self._follow[p]
            self._steps[key] = after & self._of_letter.get(letter, 0)
        return self._steps[key]

    def state(self, text: str) -> int:
        """The state after a text."""
        state = self.start
        for letter in text:
            state = self.step(state, letter)
        return state

    def accepts(self, state: int) -> bool:
        """Whether what was read is a word of the language."""
        return bool(state & self._final)

    def num_words(self, length: int, state: int = 1) -> int:
        """How many texts of so many letters lead from a state to a word."""
        if state == 0 or length == 0:
            return int(self.accepts(state))
        key = (state, length)
        if key not in self._counts:
            self._counts[key] = sum(self.num_words(length - 1, self.step(state, c)) for c in self._of_letter)
        return self._counts[key]

    def word(self, length: int, number: int) -> str:
        """Word number `number` in [0, num_words(length)) of that length, in alphabetical order."""
        state, text = self.start, ""
        for left in range(length - 1, -1, -1):
            for letter in sorted(self._of_letter):
                after = self.step(state, letter)
                ways = self.num_words(left, after)
                if number < ways:
                    state, text = after, text + letter
                    break
                number -= ways
        return text

    def distance(self, state: int) -> int:
        """Fewest letters from a state that is not 0 to a word; there always is a way."""
        if state not in self._distances:
            length = 0
            while self.num_words(length, state) == 0:
                length += 1
            self._distances[state] = length
        return self._distances[state]


@lru_cache(maxsize=1 << 12)
def automaton(expression: str) -> Automaton:
    """The automaton of an expression."""
    return Automaton(expression)


def _bits(number: int) -> list[int]:
    return [p for p in range(number.bit_length()) if number >> p & 1]


def _factors(alphabet: str) -> list[str]:
    """A letter; a choice of a word of one or two letters and a letter; repetitions of a word, and of such a choice."""
    words = [*alphabet, *(a + b for a in alphabet for b in alphabet)]
    choices = [f"({word}|{letter})" for word in words for letter in alphabet if word != letter]
    repeated = [f"{word}*" if len(word) == 1 else f"({word})*" for word in words]
    return [*alphabet, *choices, *repeated, *(f"{choice}*" for choice in choices)]
