"""What the rows of a batch start from: problem numbers drawn ahead, and problems encoded once.

Both make many starts a few array operations, and change nothing that a row sees.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.utils import seeding

from textenvs.rules import Rules
from textenvs.vocab import IntArray

#: Numbers drawn at once. An array of draws is the same as single ones, and 30 times faster.
DRAWN_AHEAD = 32


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
        self._drawn = np.zeros((num_rows, DRAWN_AHEAD), dtype=np.int64)
        self._num_used = np.full(num_rows, DRAWN_AHEAD)

    def seed(self, row: int, seed: int) -> None:
        """Start the row's stream anew."""
        self._generators[row] = seeding.np_random(seed)[0]
        self._num_used[row] = DRAWN_AHEAD

    def generator(self, row: int) -> np.random.Generator:
        """The row's generator, made when first used, where it would stand without drawing ahead."""
        generator = self._generators[row]
        if generator is None:
            generator = self._generators[row] = seeding.np_random()[0]
        if self._num_used[row] < DRAWN_AHEAD:
            generator.bit_generator.state = self._states[row]
            generator.integers(self._num_problems, size=self._num_used[row])
            self._num_used[row] = DRAWN_AHEAD
        return generator

    def draw(self, rows: IntArray) -> IntArray:
        """(M,) the next number of each row."""
        for row in rows[self._num_used[rows] == DRAWN_AHEAD].tolist():
            generator = self.generator(row)
            self._states[row] = generator.bit_generator.state
            self._drawn[row] = generator.integers(self._num_problems, size=DRAWN_AHEAD)
            self._num_used[row] = 0
        numbers: IntArray = self._drawn[rows, self._num_used[rows]]
        self._num_used[rows] += 1
        return numbers


class Starts:
    """A table of starts (`Rules.start`), a line a problem in the order in which they were first asked for.

    Attributes:
        rows: (lines, P + T).
        problems: (lines,) objects.
        prompts: (lines,) texts.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._line_of = np.full(len(rules.task), -1, dtype=np.int64)
        self._num_lines = 0
        self.rows = np.empty((64, rules.width), dtype=np.int64)
        self.problems = np.empty(64, dtype=object)
        self.prompts = np.empty(64, dtype=object)

    def lines(self, numbers: IntArray) -> IntArray:
        """(M,) the lines of problems (M,).

        Raises:
            ValueError: one is no number of a problem.
        """
        if numbers.dtype.kind not in "iu" or numbers.min() < 0 or numbers.max() >= len(self._line_of):
            for number in numbers.tolist():
                self._rules.start(number)  # raises for the first that is none
        lines: IntArray = self._line_of[numbers]
        if lines.min() < 0:
            for number in np.unique(numbers[lines < 0]).tolist():
                self._add(number)
            lines = self._line_of[numbers]
        return lines

    def _add(self, number: int) -> None:
        start, line = self._rules.start(number), self._num_lines
        if line == len(self.rows):
            self.rows, self.problems, self.prompts = (
                np.concatenate([column, np.empty_like(column)]) for column in (self.rows, self.problems, self.prompts)
            )
        self.rows[line], self.problems[line], self.prompts[line] = start.row, start.problem, start.prompt
        self._line_of[number] = line
        self._num_lines += 1
