"""The self-checks of a run, held against their bounds. What they mean is in docs/metrics.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents.report.runs import RunRecord, as_number

MAX_START_KL_PER_TOKEN = 1e-5  # nats a decision, between the sampler's forward and the update's, in float32


@dataclass(frozen=True)
class _Check:
    """One check.

    Attributes:
        name: of the metric.
        what: is shown of it.
        bound: in words.
        reduce: what a run logged, NaN for null, to one number.
        passes: whether that number is within the bound; None for a number without one.
    """

    name: str
    what: str
    bound: str
    reduce: Callable[[list[float]], float]
    passes: Callable[[float], bool] | None


def self_checks(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Hold what every run checked of itself against its bound.

    Returns:
        One object a check that some run logged: name, what, bound (text), values (one a run; None where there is no
        number) and status: "pass", "fail", or "note" for a number without a bound.
    """
    rows = []
    for check in _checks(runs[0].config):
        logged = [[record[check.name] for record in run.metrics if check.name in record] for run in runs]
        results = [check.reduce([*map(_number, values)]) for values in logged if values]
        if results:
            values = [check.reduce([*map(_number, values)]) if values else math.nan for values in logged]
            status = "note"
            if check.passes is not None:
                status = "pass" if all(map(check.passes, results)) else "fail"
            shown = [value if math.isfinite(value) else None for value in values]
            rows.append(
                {"name": check.name, "what": check.what, "bound": check.bound, "values": shown, "status": status}
            )
    faults = _faults(runs)
    return rows if faults is None else [*rows, faults]


def _checks(config: Mapping[str, Any]) -> list[_Check]:
    from agents.selfchecks import MAX_RATIO_ERROR

    autocast, algorithm = config.get("autocast"), config.get("algorithm")
    is_fitted = isinstance(algorithm, Mapping) and algorithm.get("fit_value_bias")
    ratio = MAX_RATIO_ERROR["bfloat16" if autocast == "bfloat16" else None]
    per_token: Callable[[float], bool] | None = lambda value: value <= MAX_START_KL_PER_TOKEN  # noqa: E731
    bound = f"at most {MAX_START_KL_PER_TOKEN:g}"
    if autocast is not None:  # the sampler and the update round differently then
        per_token, bound = None, "none under autocast"
    return [
        _Check("check/ratio_error", "first ratio of an update, less 1; largest", f"at most {ratio:g}", _largest,
               lambda value: value <= ratio),
        _Check("check/start_kl_same_forward", "KL at step 0, in one forward", "exactly 0", _largest,
               lambda value: value == 0),
        _Check("check/start_kl_per_token", "KL at step 0 from the sampler's log-probs, a decision", bound, _largest,
               per_token),
        _Check("check/explained_variance", "share of the returns' variance that the critic explains, last tenth",
               "above 0" if is_fitted else "above 0; see --fit-value-bias", _last_tenth, lambda value: value > 0),
        _Check("check/silent_episodes", "episodes whose group teaches nothing, last tenth", "none: 1 if all is learnt",
               _last_tenth, None),
        _Check("check/truncated_episodes", "episodes cut by a limit outside of the task", "none: 0 for text", sum,
               None),
    ]  # fmt: skip


def _faults(runs: Sequence[RunRecord]) -> dict[str, Any] | None:
    """The share of episodes whose scoring failed."""
    from agents.selfchecks import MAX_FAULT_SHARE

    name = "check/excluded_episodes"
    shares: list[float | None] = []
    for run in runs:
        excluded = [_number(record[name]) for record in run.metrics if name in record]
        episodes = _number(run.metrics[-1].get("episodes"))
        share = sum(excluded) / episodes if excluded and episodes > 0 else math.nan
        shares.append(share if math.isfinite(share) else None)
    known = [share for share in shares if share is not None]
    if not known:
        return None
    return {
        "name": name,
        "what": "episodes whose scoring failed, share of all",
        "bound": f"at most {MAX_FAULT_SHARE:g}",
        "values": shares,
        "status": "pass" if max(known) <= MAX_FAULT_SHARE else "fail",
    }


def _number(value: Any) -> float:
    number = as_number(value)
    return math.nan if number is None else number


def _largest(values: list[float]) -> float:
    return math.nan if any(map(math.isnan, values)) else max(values)


def _last_tenth(values: list[float]) -> float:
    """Mean of the last tenth of the updates, of those that have a number."""
    part = [value for value in values[-max(1, len(values) // 10) :] if not math.isnan(value)]
    return sum(part) / len(part) if part else math.nan
