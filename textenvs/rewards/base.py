"""What a reward is: one batch of finished responses in, one `Scores` out; and the arithmetic that combines rewards.

No reward for a particular purpose lives here (see the other modules of this package).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any, Protocol, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from textenvs.vocab import IntArray, Vocab

FloatArray = NDArray[np.float64]

#: From best to worst. `model_fault`: the response itself broke the scorer, and is wrong. `infra_fault`: the scorer's
#: machinery failed; the response was not judged, its value means nothing, and the episode is excluded and counted.
STATUSES = ("ok", "model_fault", "infra_fault")


class RewardError(Exception):
    """A reward cannot work at all, or breaks its contract: the author's to mend, so that it ends the run.

    Any other exception of a reward makes an `infra_fault` of the responses for which it is raised.
    """


class RewardTypeError(RewardError, TypeError):
    """A reward returns what is no score."""


class RewardValueError(RewardError, ValueError):
    """A reward's settings turn out not to work when it is first used, such as the name of a model."""


class ProblemLike(Protocol):
    """What a reward may know of a problem (see `textenvs.task.Problem`)."""

    @property
    def prompt(self) -> str:
        """The prompt's text."""

    @property
    def references(self) -> tuple[str, ...]:
        """Correct responses; empty where the metadata carries the answer."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Whatever else the task knows of it."""


@dataclass(frozen=True)
class Responses:
    """A batch of B responses, so that a score may work on ids, on text, or on turns.

    Attributes:
        token_ids: (B, T) int64, the response's tokens without the end token; unused slots are -1.
        lengths: (B,) int64, tokens used in each row.
        finish_reasons: B strings: "eos", "stop", "length", or "running" when a dense reward scores a prefix.
        vocab: the table that spells the ids.
        turn_ends: per row, where each turn ends in its tokens; agent and reply alternate, the agent first.
    """

    token_ids: IntArray
    lengths: IntArray
    finish_reasons: Sequence[str]
    vocab: Vocab
    turn_ends: Sequence[Sequence[int]] = ()

    def __len__(self) -> int:
        return len(self.lengths)

    def row(self, i: int) -> Responses:
        """Response i as a batch of one."""
        one = slice(i, i + 1)
        return Responses(
            self.token_ids[one], self.lengths[one], self.finish_reasons[one], self.vocab, self.turn_ends[one]
        )

    @property
    def texts(self) -> list[str]:
        """B strings, decoded on first use; without the lock of `cached_property`, which costs more than one row."""
        kept: dict[str, list[str]] = self.__dict__
        if "texts" not in kept:
            kept["texts"] = self.vocab.decode_rows(self.token_ids, self.lengths)
        return kept["texts"]

    @cached_property
    def turns(self) -> list[list[str]]:
        """Per row, its turns as text: agent, reply, agent, ...; one turn where the task never replies."""
        if not self.turn_ends:
            return [[text] for text in self.texts]
        rows = zip(self.token_ids.tolist(), self.lengths.tolist(), self.turn_ends, strict=True)
        # The last turn may end with the end token, which is not among the tokens.
        return [
            [self.vocab.decode(ids[:n][a:b]) for a, b in zip((0, *ends), ends, strict=False)] for ids, n, ends in rows
        ]


@dataclass(frozen=True)
class Scores:
    """What a reward says of B responses.

    Attributes:
        values: (B,) float64, the score, higher is better.
        parts: named columns (B,) that the score is made of, for the log.
        status: B of `STATUSES`; empty means all ok.
        causes: B texts, why a row is a model_fault or an infra_fault; empty means not known.
    """

    values: FloatArray
    parts: Mapping[str, FloatArray] = field(default_factory=dict)
    status: Sequence[str] = ()
    causes: Sequence[str] = ()

    @property
    def faulty(self) -> NDArray[np.bool_]:
        """(B,) which rows are an infra_fault, found on first use."""
        kept: dict[str, NDArray[np.bool_]] = self.__dict__
        if "faulty" not in kept:
            all_ok = tuple(self.status).count("ok") == len(self.status)
            kept["faulty"] = np.zeros(len(self.values), bool) if all_ok else np.array(self.status) == "infra_fault"
        return kept["faulty"]


class Reward(ABC):
    """Scores a batch of responses. Immutable: copying one returns itself.

    A subclass sets `name` (its part in the log) and `value_range`, and defines `__call__`, row by row independent of
    the batch.

    Attributes:
        name: of its part in the log.
        value_range: bounds of its values.
    """

    name: str
    value_range: tuple[float, float] = (-math.inf, math.inf)

    @property
    def least(self) -> float:
        """What a response earns that no token spells: the least value, or 0 where there is none."""
        return self.value_range[0] if math.isfinite(self.value_range[0]) else 0.0

    def require(self, problem: ProblemLike) -> None:  # noqa: B027 - nothing to require is a fine answer
        """Refuse a problem that this cannot score, such as one without references.

        Raises:
            ValueError: names what is missing.
        """

    @abstractmethod
    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """Score B responses to B problems.

        Returns:
            Scores with finite values (B,).
        """

    def __add__(self, other: RewardLike) -> Reward:
        return _Sum(((1.0, self), (1.0, _reward(other))))

    def __radd__(self, other: RewardLike | float) -> Reward:
        """0 + this reward is this reward, so that `sum` adds up a list of them."""
        if isinstance(other, (int, float)) and not isinstance(other, bool) and other == 0:
            return self
        return _reward(other) + self

    def __mul__(self, other: RewardLike | float) -> Reward:
        if isinstance(other, (Reward, str)) or callable(other):
            return _Product(self, _reward(other))
        return _Sum(((_number("weight", other), self),))

    __rmul__ = __mul__

    def clip(self, low: float = -math.inf, high: float = math.inf) -> Reward:
        """This reward held within [low, high].

        Raises:
            ValueError: low is above high, or one of them is no number.
        """
        return _Clip(self, low, high)

    def threshold(self, at_least: float) -> Reward:
        """1.0 where this reward is at least `at_least`, else 0.0.

        Raises:
            ValueError: `at_least` is not a finite number.
        """
        return _Threshold(self, _number("at_least", at_least))

    def gate(self, other: RewardLike, *, at_least: float) -> Reward:
        """This reward where `other` is at least `at_least`, else 0.0; a negative reward is therefore no penalty there.

        Raises:
            ValueError: `at_least` is not a finite number, or no reward has that name.
            TypeError: `other` is neither a reward, a name nor a function.
        """
        return _Product(self, _reward(other).threshold(at_least))

    def __copy__(self) -> Reward:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Reward:
        return self


#: What is combined with a reward: another, its name, or a function of (problem, text).
RewardLike = Reward | str | Callable[[Any, str], float]


class FunctionReward(Reward):
    """A plain function of (problem, text) -> float, called once a response.

    Args:
        function: higher is better; must return a finite number.
    """

    def __init__(self, function: Callable[[Any, str], float]) -> None:
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__).strip("<>")

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        values = np.empty(len(responses))
        for i, (problem, text) in enumerate(zip(problems, responses.texts, strict=True)):
            value = self.function(problem, text)
            if type(value) is float:  # what nearly all return; the check below takes longer than many a function
                values[i] = value
                continue
            try:
                if not isinstance(value, SupportsFloat):  # float() would read a text
                    raise TypeError
                values[i] = float(value)
            except (TypeError, ValueError, OverflowError):  # such as of 10**400
                raise RewardTypeError(
                    f"reward function {self.name} must return a number, got {type(value).__name__} {_short(value)} for "
                    f"the response {text[:80]!r} to {problem.prompt[:80]!r}; return a float"
                ) from None
        return Scores(values, {self.name: values})


class _Composite(Reward):
    """Rewards combined row by row: every part of every member, and each row's worst status."""

    members: tuple[Reward, ...]

    def require(self, problem: ProblemLike) -> None:
        """See `Reward.require`."""
        for member in self.members:
            member.require(problem)

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        scored = [member(problems, responses) for member in self.members]
        with np.errstate(all="ignore"):  # the value of a faulty row may be anything
            values = self.combine([scores.values for scores in scored])
        return Scores(values, _merged_parts(scored), _worst(scored), _causes(scored))

    @abstractmethod
    def combine(self, columns: Sequence[FloatArray]) -> FloatArray:
        """Values (B,) from those of the members, each (B,).

        Rounds as the computation of `value_range` does, so that no value is an ulp outside it.
        """


class _Sum(_Composite):
    """Weighted sum; the parts keep their own unweighted values."""

    name = "sum"

    def __init__(self, terms: tuple[tuple[float, Reward], ...]) -> None:
        # 0.5 * (a + b) and (a + b) + c stay one flat sum, so that every part is a reward the user named.
        self.terms: tuple[tuple[float, Reward], ...] = tuple(
            (weight * inner, reward)
            for weight, term in terms
            for inner, reward in (term.terms if isinstance(term, _Sum) else ((1.0, term),))
        )
        self.members = tuple(reward for _, reward in self.terms)
        low = high = 0.0
        for weight, reward in self.terms:
            bounds = sorted(_times(weight, bound) for bound in reward.value_range)
            low, high = low + bounds[0], high + bounds[1]
        self.value_range = (low, high)

    def combine(self, columns: Sequence[FloatArray]) -> FloatArray:
        """See `_Composite.combine`."""
        values = np.zeros_like(columns[0])
        for (weight, _), column in zip(self.terms, columns, strict=True):
            values += weight * column
        return values


class _Product(_Composite):
    """Product of two rewards."""

    name = "product"

    def __init__(self, *factors: Reward) -> None:
        self.members = factors
        one, other = (factor.value_range for factor in factors)
        corners = [_times(a, b) for a in one for b in other]
        self.value_range = (min(corners), max(corners))

    def combine(self, columns: Sequence[FloatArray]) -> FloatArray:
        """See `_Composite.combine`."""
        return columns[0] * columns[1]


class _Clip(_Composite):
    """A reward held within bounds."""

    name = "clip"

    def __init__(self, reward: Reward, low: float, high: float) -> None:
        if not low <= high:
            raise ValueError(f"clip must have low <= high, got {low!r} and {high!r}; swap them")
        self.members = (reward,)
        self.low, self.high = float(low), float(high)
        below, above = reward.value_range
        self.value_range = (min(max(below, self.low), self.high), min(max(above, self.low), self.high))

    def combine(self, columns: Sequence[FloatArray]) -> FloatArray:
        """See `_Composite.combine`."""
        return np.clip(columns[0], self.low, self.high)


class _Threshold(_Composite):
    """Whether a reward reaches a bound."""

    name = "threshold"
    value_range = (0.0, 1.0)

    def __init__(self, reward: Reward, at_least: float) -> None:
        self.members = (reward,)
        self.at_least = at_least

    def combine(self, columns: Sequence[FloatArray]) -> FloatArray:
        """See `_Composite.combine`."""
        return (columns[0] >= self.at_least).astype(np.float64)


def _merged_parts(scored: Sequence[Scores]) -> dict[str, FloatArray]:
    """All parts; a name that comes again gets a number: exact_match, exact_match_2."""
    parts: dict[str, FloatArray] = {}
    for scores in scored:
        for name, values in scores.parts.items():
            key, n = name, 2
            while key in parts:
                key, n = f"{name}_{n}", n + 1
            parts[key] = values
    return parts


def _worst(scored: Sequence[Scores]) -> tuple[str, ...]:
    """Each row's worst status."""
    columns = [scores.status for scores in scored if scores.status]
    return tuple(max(row, key=STATUSES.index) for row in zip(*columns, strict=True))


def _causes(scored: Sequence[Scores]) -> tuple[str, ...]:
    """Each row's cause of its worst status."""
    columns = [zip(scores.status, scores.causes, strict=True) for scores in scored if scores.status and scores.causes]
    rows = zip(*columns, strict=True)
    return tuple(max(row, key=lambda said: (STATUSES.index(said[0]), bool(said[1])))[1] for row in rows)


def _short(value: Any) -> str:
    """The beginning of a value; an int of thousands of digits has no text."""
    try:
        return f"{value!r:.80}"
    except ValueError:
        return "of thousands of digits"


def _times(one: float, other: float) -> float:
    """The product of two bounds: 0 times an infinite one is 0, for the values below it are all finite."""
    return one * other if one and other else 0.0


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not np.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}; rewards are combined with numbers or Rewards")
    return float(value)


def _reward(value: Any) -> Reward:
    """A reward as given, by name, or lifted from a function."""
    if not isinstance(value, (Reward, str)) and not callable(value):
        raise TypeError(f"a reward is combined with a Reward, its name or a function, got {value!r:.80}; pass one")
    lifted: Reward = import_module("textenvs.rewards").as_reward(value)  # which imports this module
    return lifted
