"""What the rows of a batch start from: problem numbers drawn ahead, and problems encoded once.

Both make many starts a few array operations, and change nothing that a row sees.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.utils import seeding

from textenvs.rewards.problem_rows import ProblemTable
from textenvs.rules import Rules
from textenvs.vocab import IntArray

#: Numbers drawn at once: the same as single ones, and an array of them takes hardly longer than one of ten.
DRAWN_AHEAD = 512


class Streams:
    """A random stream a row, and the problem numbers that it draws.

    Args:
        num_rows: N.
        num_problems: numbers are uniform in [0, num_problems).
    """

    def __init__(self, num_rows: int, num_problems: int) -> None:
        self._num_problems = num_problems
        self._generators: list[np.random.Generator | None] = [None] * num_rows
        self._states: list[Any] = [None] * num_rows  # of each generator before it drew ahead
        self._lent = np.zeros(num_rows, dtype=bool)
        #: What is drawn, one row after the other; where each row's next number is, and where its numbers end.
        self._drawn = np.zeros(num_rows * DRAWN_AHEAD, dtype=np.min_scalar_type(num_problems - 1))
        self._first = np.arange(num_rows) * DRAWN_AHEAD
        self._next, self._stop = self._first.copy(), self._first.copy()

    def seed(self, row: int, seed: int) -> None:
        """Start the row's stream anew."""
        self._generators[row] = seeding.np_random(seed)[0]
        self._next[row] = self._stop[row] = self._first[row]
        self._lent[row] = False

    def lend(self, row: int) -> np.random.Generator:
        """The row's generator for somebody who may keep it: from now on the row draws no number ahead."""
        self._lent[row] = True
        return self.generator(row)

    def generator(self, row: int) -> np.random.Generator:
        """The row's generator, made when first used, where it would stand without drawing ahead."""
        generator = self._generators[row]
        if generator is None:
            generator = self._generators[row] = seeding.np_random()[0]
        if self._next[row] < self._stop[row]:
            generator.bit_generator.state = self._states[row]
            generator.integers(self._num_problems, size=self._next[row] - self._first[row])
            self._next[row] = self._stop[row] = self._first[row]
        return generator

    def draw(self, rows: IntArray) -> IntArray:
        """(M,) the next number of each row."""
        at = self._next[rows]
        spent = at == self._stop[rows]
        if np.count_nonzero(spent):
            for row in rows[spent].tolist():
                self._draw_ahead(row)
            at[spent] = self._first[rows[spent]]
        self._next[rows] = at + 1
        return self._drawn[at].astype(np.int64)

    def _draw_ahead(self, row: int) -> None:
        generator, first = self.generator(row), self._first[row]
        if self._stop[row] == first or self._lent[row]:  # who seeds every episode needs no second number
            self._drawn[first], self._stop[row] = generator.integers(self._num_problems), first + 1
            return
        self._states[row] = generator.bit_generator.state
        self._drawn[first : first + DRAWN_AHEAD] = generator.integers(self._num_problems, size=DRAWN_AHEAD)
        self._stop[row] = first + DRAWN_AHEAD


class Starts(ProblemTable):
    """A table of starts (`Rules.start`), a line a problem in the order in which they were first asked for.

    Attributes:
        rows: (lines, P + T).
        problems: one a line.
        numbers: of the problems, one a line.
        prompts: texts, one a line.
    """

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self._rules = rules
        self._line_of = np.full(len(rules.task), -1, dtype=np.int64)
        # An eighth of the memory to gather from, as a rule: the unused slots' id is the largest.
        self.rows = np.empty((64, rules.width), dtype=np.min_scalar_type(rules.num_tokens))
        self.numbers: list[int] = []
        self.prompts: list[str] = []

    def lines(self, numbers: IntArray) -> IntArray:
        """(M,) the lines of problems (M,), numbers in [0, len(task))."""
        lines: IntArray = self._line_of[numbers]
        if len(self.prompts) < len(self._line_of) and lines.min() < 0:
            for number in np.unique(numbers[lines < 0]).tolist():
                self._add(number)
            lines = self._line_of[numbers]
        return lines

    def _add(self, number: int) -> None:
        start, line = self._rules.start(number), len(self.prompts)
        if line == len(self.rows):
            self.rows = np.concatenate([self.rows, np.empty_like(self.rows)])
        self.rows[line] = start.row
        self.problems.append(start.problem)
        self.numbers.append(number)
        self.prompts.append(start.prompt)
        self._line_of[number] = line
