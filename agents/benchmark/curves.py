"""The curves of a benchmark as numbers: performance profiles, and how scores grow. Pictures and pages draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from agents.benchmark.results import Curve, Key, Row
from agents.benchmark.tables import scores_of
from agents.statistics import bootstrap_interval, iqm, normalise, performance_profile

_NUM_POINTS = 40  # of a curve
_NUM_RESAMPLES = 500  # for each of its points

Floats = NDArray[np.float64]
Band = tuple[Floats, Floats, Floats, Floats]  # x, y, low, high, (num_points,) each


def profile(name: str, envs: Sequence[str], rows: Mapping[Key, Row], thresholds: Floats) -> Band | None:
    """Share of an agent's runs with a score above each threshold, with its interval; None without scores."""
    groups = [np.array(list(by_seed.values())) for by_seed in scores_of(rows, name, envs).values()]
    if not groups:
        return None
    low, high = bootstrap_interval(
        lambda resampled: performance_profile(resampled, thresholds), groups, num_resamples=_NUM_RESAMPLES
    )
    return thresholds, performance_profile(groups, thresholds), low, high


def growth(
    column: int, name: str, envs: Sequence[str], rows: Mapping[Key, Row], curves: Mapping[Key, Curve]
) -> Band | None:
    """IQM of an agent's normalised training returns over episodes (column 0) or seconds (column 1); None without."""
    found: dict[str, list[Curve]] = {env: [] for env in envs}
    for key, row in rows.items():
        if key[0] == name and key[1] in found and curves.get(key) and row["score"] is not None:
            scaled = normalise([p[2] for p in curves[key]], random=row["random_return"], optimal=row["optimal_return"])
            pairs = zip(curves[key], scaled, strict=True)
            found[key[1]].append([(p[0], p[1], float(value)) for p, value in pairs])
    runs = [curve for own in found.values() for curve in own]
    if not runs:
        return None
    # From where every run has an entry to where the first of them ends: nobody is shown for longer than watched.
    first = max(max(curve[0][column] for curve in runs), 1e-3)
    last = max(min(curve[-1][column] for curve in runs), first)
    grid = np.geomspace(first, last, _NUM_POINTS)
    groups = [_at(grid, own, column) for own in found.values() if own]  # each (num_runs, num_points)

    def over_runs(resampled: Sequence[Floats]) -> Floats:
        return np.asarray(iqm([np.moveaxis(values, -2, -1) for values in resampled]))

    low, high = bootstrap_interval(over_runs, groups, num_resamples=_NUM_RESAMPLES)
    return grid, over_runs(groups), low, high


def _at(grid: Floats, curves: Sequence[Curve], column: int) -> Floats:
    return np.stack([np.interp(grid, [p[column] for p in curve], [p[2] for p in curve]) for curve in curves])
