"""Problems of a batch, looked up when somebody looks: a batch env names the lines of a table, and touches no problem.

A thousand objects lie all over the memory; to fetch each costs more than to score its response by array operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

from textenvs.rewards.base import ProblemLike
from textenvs.vocab import IntArray


class ProblemTable:
    """Problems, a line each; lines are added and never change.

    Attributes:
        problems: one a line.
        memo: what rewards keep of the lines, each under a key of its own.
    """

    def __init__(self) -> None:
        self.problems: list[Any] = []
        self.memo: dict[Any, Any] = {}


class ProblemRows(Sequence[ProblemLike]):
    """B problems: `table.problems[line]` for each of `lines` (B,)."""

    def __init__(self, table: ProblemTable, lines: IntArray) -> None:
        self.table, self.lines = table, lines

    def __len__(self) -> int:
        return len(self.lines)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, or what another process gets, is a list of the problems without the rest of the table."""
        return list, (list(self),)

    def __iter__(self) -> Iterator[Any]:
        return map(self.table.problems.__getitem__, self.lines.tolist())

    @overload
    def __getitem__(self, i: int) -> ProblemLike: ...
    @overload
    def __getitem__(self, i: slice) -> list[ProblemLike]: ...
    def __getitem__(self, i: int | slice) -> ProblemLike | list[ProblemLike]:
        return list(self)[i] if isinstance(i, slice) else self.table.problems[self.lines[i]]
