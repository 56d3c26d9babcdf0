"""Rewards that compare a response with the problem's references: all of it, or token by token. Text: `references`."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

import numpy as np

from textenvs.rewards.base import FloatArray, ProblemLike, Responses, Reward, Scores
from textenvs.rewards.problem_rows import ProblemRows
from textenvs.vocab import IntArray, Vocab

#: Unicode's categories of controls, of characters without width such as U+200B, and of spaces.
_BLANK = ("Cc", "Cf", "Zs", "Zl", "Zp")


class ReferenceReward(Reward):
    """Compares a response with the problem's references; a problem has at least one, and none is blank.

    A text is blank when it is empty, or nothing but spaces, line breaks, controls and characters without width: nobody
    means that a response which shows nothing is right. Where the tokens are compared and not the text, any symbol may
    be meant, and only the empty text is blank.

    Attributes:
        compares_tokens: whether the tokens are compared.
    """

    value_range = (0.0, 1.0)
    compares_tokens: ClassVar[bool] = False

    def require(self, problem: ProblemLike) -> None:
        """See `Reward.require`."""
        references = references_of(problem)
        for reference in references:
            if not reference or (not self.compares_tokens and is_blank(reference)):
                raise ValueError(
                    f"the problem with prompt {problem.prompt[:80]!r} must have no blank reference, got "
                    f"{reference[:80]!r}; a response that shows nothing would be right: remove it, or write a reward "
                    "that means it"
                )
        if not any(self.can_score(reference) for reference in references):
            raise ValueError(
                f"the problem with prompt {problem.prompt[:80]!r} must have a reference that {self.name} can score, "
                f"got {references[0][:80]!r}, which has nothing that it counts; take another reward"
            )

    def can_score(self, reference: str) -> bool:
        """Whether some response scores 1 against a reference that is not blank."""
        return True


class ExactMatch(ReferenceReward):
    """1.0 when the response's text equals one of the references, else 0.0. Range [0, 1].

    Withstands: the empty response, a reference with anything before or after it, every option at once. Does not
    withstand: guessing, where the references are few.
    """

    name = "exact_match"

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        pairs = zip(problems, responses.texts, strict=True)
        values = np.array([float(text in references_of(problem)) for problem, text in pairs])
        return Scores(values, {self.name: values})


class PositionMatch(ReferenceReward):
    """Matching positions / max(len(response), len(reference)), in tokens; the best reference counts. Range [0, 1].

    Withstands: the empty response (0), padding, repetition, echo of the prompt. Does not withstand: a constant response
    of the right length, which is right wherever its token stands.
    """

    name = "position_match"
    compares_tokens = True

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        owners, references, lengths = _reference_rows(problems, responses)
        matches = np.add.reduce(_of(owners, responses.token_ids) == references, axis=1)
        values = _best_share(matches, owners, lengths, responses)
        return Scores(values, {self.name: values})


class LengthMatch(ReferenceReward):
    """min / max of the response's and the reference's length, in tokens; the best reference counts. Range [0, 1].

    Withstands: the empty response (0), padding. Does not withstand: anything else of the right length, by definition:
    what the tokens are does not matter, only their number.
    """

    name = "length_match"
    compares_tokens = True

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        owners, _, lengths = _reference_rows(problems, responses)
        values = _best_share(np.minimum(_of(owners, responses.lengths), lengths), owners, lengths, responses)
        return Scores(values, {self.name: values})


@lru_cache(maxsize=1 << 16)
def _encoded(vocab: Vocab, references: tuple[str, ...], width: int) -> tuple[IntArray, IntArray]:
    """References as rows (R, width) with -2 where unused, and their lengths (R,): the same few thousand come back."""
    encoded = [vocab.encode(text) for text in references]
    rows = np.full((len(encoded), width), -2, dtype=np.int64)
    for row, ids in zip(rows, encoded, strict=True):
        row[: len(ids)] = ids[:width]
    return rows, np.array([len(ids) for ids in encoded], dtype=np.int64)


def _reference_rows(problems: Sequence[ProblemLike], responses: Responses) -> tuple[IntArray, IntArray, IntArray]:
    """All references, one a row: whose it is (R,), its ids (R, T) with -2 where unused, its length (R,)."""
    vocab, width = responses.vocab, responses.token_ids.shape[1]
    if isinstance(problems, ProblemRows):
        memo, key = problems.table.memo, (_EncodedReferences, vocab, width)
        if key not in memo:
            memo[key] = _EncodedReferences(vocab, width)
        table: _EncodedReferences = memo[key]
        return table.of(problems)
    if len(problems) == 1:
        rows, lengths = _encoded(vocab, references_of(problems[0]), width)
        return np.zeros(len(rows), dtype=np.int64), rows, lengths
    nothing = np.empty((0, width), dtype=np.int64), np.empty(0, dtype=np.int64)  # an empty batch has neither
    encoded = [_encoded(vocab, references_of(problem), width) for problem in problems]
    ids, counts = zip(nothing, *encoded, strict=True)
    owners = np.repeat(np.arange(len(encoded)), [len(rows) for rows in ids[1:]])
    return owners, np.concatenate(ids), np.concatenate(counts)


class _EncodedReferences:
    """The references of a table of problems, encoded when their problem first comes."""

    def __init__(self, vocab: Vocab, width: int) -> None:
        self._vocab, self._width, self._num_rows = vocab, width, 0
        self._firsts: IntArray = np.empty(0, dtype=np.int64)  # (lines,) row of a problem's first reference, or -1
        self._counts: IntArray = np.empty(0, dtype=np.int64)  # (lines,) number of its references
        self._ids: IntArray = np.empty((64, width), dtype=np.int64)
        self._lengths: IntArray = np.empty(64, dtype=np.int64)

    def of(self, problems: ProblemRows) -> tuple[IntArray, IntArray, IntArray]:
        """See `_reference_rows`."""
        lines, num_new = problems.lines, len(problems.table.problems) - len(self._firsts)
        if num_new:
            self._firsts, self._counts = (np.append(x, np.full(num_new, -1)) for x in (self._firsts, self._counts))
        for line in np.unique(lines[self._firsts[lines] < 0]).tolist():
            self._add(line, references_of(problems.table.problems[line]))
        firsts, counts = self._firsts[lines], self._counts[lines]
        owners = np.arange(len(lines)).repeat(counts)
        if len(owners) > len(lines):
            firsts = firsts.repeat(counts) + np.arange(len(owners)) - (counts.cumsum() - counts).repeat(counts)
        return owners, self._ids.take(firsts, 0), self._lengths[firsts]

    def _add(self, line: int, references: tuple[str, ...]) -> None:
        ids, lengths = _encoded(self._vocab, references, self._width)
        rows = slice(self._num_rows, self._num_rows + len(ids))
        while rows.stop > len(self._ids):
            self._ids, self._lengths = (np.concatenate([x, np.empty_like(x)]) for x in (self._ids, self._lengths))
        self._ids[rows], self._lengths[rows] = ids, lengths
        self._firsts[line], self._counts[line], self._num_rows = rows.start, len(ids), rows.stop


def _of(owners: IntArray, column: IntArray) -> IntArray:
    """What stands in a column (B, ...) for each owner (R,), who are sorted and all there; as it is when R = B."""
    return column if len(owners) == len(column) else column[owners]


def _best_share(matches: IntArray, owners: IntArray, lengths: IntArray, responses: Responses) -> FloatArray:
    """(B,) the best of each response's matches / max(len(response), len(reference)); 0 where both are empty."""
    share: FloatArray = matches / np.maximum(np.maximum(_of(owners, responses.lengths), lengths), 1)
    if len(owners) == len(responses):
        return share
    values = np.zeros(len(responses))
    np.maximum.at(values, owners, share)
    return values


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: it is empty, or only spaces, line breaks, controls, characters without width."""
    return all(unicodedata.category(character) in _BLANK for character in text)


def references_of(problem: ProblemLike) -> tuple[str, ...]:
    """The problem's references.

    Raises:
        ValueError: it has none.
    """
    if not problem.references:
        raise ValueError(
            f"the problem with prompt {problem.prompt[:80]!r} must have a reference to be compared with, got none; "
            "give references with the prompt, or a reward that needs none"
        )
    return problem.references
