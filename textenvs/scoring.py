"""One batch of responses through a reward: what it may return, and what becomes of one that raises."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from textenvs.rewards.base import STATUSES, FloatArray, ProblemLike, Responses, Reward, RewardError, Scores
from textenvs.vocab import IntArray

#: Keys of the final info that a reward's parts may not take.
INFO_KEYS = (
    *("problem", "prompt", "response", "turns", "finish_reason", "is_success", "status", "cause"),
    *("final_obs", "final_info"),
)

#: The cause of a fault that the reward reports without one.
UNKNOWN_CAUSE = "the reward did not say why"

#: What lists of texts nearly always are; to ask whether something is an `Iterable` takes longer than to score a row.
_LISTS = (tuple, list)

#: Code that is not the user's: this package, what is installed, and Python itself.
_INSTALLED = (sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
_NOT_THEIRS = ("<frozen ", *(f"{folder}{os.sep}" for folder in (Path(__file__).parent, *_INSTALLED)))


@lru_cache
def _unused(num_slots: int) -> IntArray:
    """(T + 1, T): line n has n times 0, then -1; a view of 2 T numbers."""
    return sliding_window_view(np.repeat([0, -1], num_slots), num_slots)[::-1]


def keep_first(lengths: IntArray, slots: IntArray) -> IntArray:
    """The first `lengths` (B,) of slots (B, T), each in [0, T], and -1 in the others: a new array (B, T)."""
    return slots | _unused(slots.shape[1])[lengths]  # x | -1 is -1; half the time of `where`


def score_batch(reward: Reward, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
    """Score B responses; one that the reward raises for is an `infra_fault` and the others keep their scores.

    Returns:
        Scores with float64 values (B,), 0 where faulty; B statuses; B causes, "" where not faulty; parts (B,), NaN
        where the reward gave none.

    Raises:
        RewardError, ImportError: the reward cannot work at all.
        ValueError, TypeError: it did not return B finite values.
    """
    try:
        scores = reward(problems, responses)
    except (RewardError, ImportError):
        raise
    except Exception as error:  # of the user's own code or of its libraries: anything may come
        if len(responses) == 1:
            cause = f"{type(error).__name__}: {error}{_place(error)}"
            return Scores(np.zeros(1), {}, ("infra_fault",), (cause,))
        # Which rows it was is not known, and a row's score never depends on the others.
        return _joined([score_batch(reward, [problems[i]], responses.row(i)) for i in range(len(responses))])
    return _checked(scores, problems, reward.name)


def _place(error: Exception) -> str:
    """Where the user's own code was when it raised, as " at file:line"; "" where none of it was running."""
    frames = ((frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__))
    places = [f" at {file}:{line}" for file, line in frames if not file.startswith(_NOT_THEIRS)]
    return places[-1] if places else ""


def _joined(rows: Sequence[Scores]) -> Scores:
    """The scores of B single rows as one batch."""
    names = dict.fromkeys(name for row in rows for name in row.parts)
    missing: FloatArray = np.full(1, np.nan)
    return Scores(
        np.concatenate([row.values for row in rows]),
        {name: np.concatenate([row.parts.get(name, missing) for row in rows]) for name in names},
        tuple(row.status[0] for row in rows),
        tuple(row.causes[0] for row in rows),
    )


def _checked(scores: Any, problems: Sequence[ProblemLike], name: str) -> Scores:
    """The scores, once they are B finite float64 values with a known status each."""
    if not isinstance(scores, Scores):
        raise TypeError(f"reward {name} must return Scores, got {type(scores).__name__}; see textenvs.Scores")
    if not (type(scores.status) in _LISTS and type(scores.causes) in _LISTS and type(scores.parts) is dict):
        _check_columns(scores, name)
    values = scores.values
    if type(values) is not np.ndarray:
        values = _array(values, f"reward {name} must return numbers")
    if values.shape != (len(problems),) or values.dtype.kind not in "biuf":
        raise ValueError(
            f"reward {name} must return {len(problems)} numbers, one a response, got shape {values.shape} "
            f"of {values.dtype}"
        )
    values = values.astype(np.float64)
    status = tuple(scores.status) or ("ok",) * len(problems)
    if len(status) != len(problems) or (scores.status and any(word not in STATUSES for word in status)):
        raise ValueError(f"reward {name} must give each response a status of {', '.join(STATUSES)}, got {status!r}")
    causes = tuple(scores.causes) or ("",) * len(problems)
    if len(causes) != len(problems):
        raise ValueError(f"reward {name} must give {len(problems)} causes, one a response, or none, got {len(causes)}")
    faulty: Any = False
    if scores.status:
        faulty = Scores(values, status=status).faulty  # of these, not of what the reward's own once were
        values[faulty] = 0.0
        unsaid = {"ok": "", "model_fault": "", "infra_fault": UNKNOWN_CAUSE}
        causes = tuple(
            "" if word == "ok" else cause or unsaid[word] for word, cause in zip(status, causes, strict=True)
        )
    elif scores.causes:
        causes = ("",) * len(problems)
    if np.count_nonzero(np.isfinite(values)) < len(values):
        bad = np.flatnonzero(~np.isfinite(values))[0]
        raise ValueError(
            f"reward {name} must be finite, got {values[bad]} for the problem with prompt "
            f"{problems[bad].prompt[:80]!r}; return a number, or the status 'infra_fault' when it cannot be scored"
        )
    parts: dict[str, FloatArray] = {}
    for part, numbers in scores.parts.items():
        if not isinstance(part, str) or part in INFO_KEYS or part.startswith("_"):
            raise ValueError(f"reward {name} must not name a part {part!r}: info uses such names; rename the part")
        if numbers is scores.values and not scores.status:  # as of most rewards, and checked
            parts[part] = values
            continue
        # A copy: the reward may use its array again, and infos are made later.
        parts[part] = column = _array(numbers, f"reward {name} must give its part {part!r} numbers", np.float64).copy()
        if column.shape != values.shape or np.count_nonzero(np.isfinite(column) | faulty) < len(column):
            raise ValueError(
                f"reward {name} must give its part {part!r} {len(problems)} finite values, one a response, got {column}"
            )
    return Scores(values, parts, status, causes)


def _check_columns(scores: Scores, name: str) -> None:
    """Refuse columns of another kind than `Scores` says."""
    for field, given in (("status", scores.status), ("causes", scores.causes), ("parts", scores.parts)):
        if (
            isinstance(given, str)
            or not isinstance(given, Iterable)
            or isinstance(given, Mapping) != (field == "parts")
        ):
            kind = "a mapping of columns" if field == "parts" else "a list of texts"
            raise TypeError(
                f"reward {name} must give {field} as {kind}, got {given!r:.80}; leave it out where there is none"
            )


def _array(given: Any, must: str, dtype: Any = None) -> NDArray[Any]:
    """What a reward gives for numbers, as an array."""
    try:
        return np.asarray(given, dtype=dtype)
    except (TypeError, ValueError) as error:  # ragged, or no numbers at all
        raise ValueError(f"{must}, one a response, got {given!r:.80}: {error}") from None
