"""The picture of a benchmark: performance profiles, and how scores grow with episodes and with CPU seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from agents.benchmark_results import Curve, Key, Row
from agents.benchmark_tables import Summary, scores_of
from agents.statistics import bootstrap_interval, iqm, normalise, performance_profile

#: Okabe and Ito's colours, which colour-blind readers can tell apart, the yellow darker to be seen on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#B8A800", "#000000")
_GREY = "#777777"
_STYLES = {"textenvs": "-", "stable-baselines3": "--", "sb3-contrib": "-."}
_NUM_POINTS = 40  # of a curve
_NUM_RESAMPLES = 500  # for each of its points


def draw(summary: Summary, rows: Mapping[Key, Row], curves: Mapping[Key, Curve], path: Path) -> None:
    """Draw all agents of a summary into a PNG file."""
    figure = Figure(figsize=(15, 5.4), layout="constrained")
    profile, episodes, seconds = figure.subplots(1, 3)
    envs = list(summary["envs"])
    looks = _looks(summary["agents"])
    thresholds = np.linspace(0, 1, 101)
    for agent in summary["agents"]:
        name = agent["agent"]
        groups = [np.array(list(by_seed.values())) for by_seed in scores_of(rows, name, envs).values()]
        if not groups:
            continue
        low, high = bootstrap_interval(
            lambda resampled: performance_profile(resampled, thresholds), groups, num_resamples=_NUM_RESAMPLES
        )
        _line(profile, thresholds, performance_profile(groups, thresholds), low, high, looks[name], name)
        if agent["learns"]:
            for axes, column in ((episodes, 0), (seconds, 1)):
                _growth(axes, column, name, envs, rows, curves, looks[name])
    _label(profile, "score threshold", "share of runs above it", "performance profile")
    _label(episodes, "training episodes", "IQM of normalised training return", "sample efficiency")
    _label(seconds, "CPU seconds of training", "IQM of normalised training return", "compute efficiency")
    for axes in (episodes, seconds):
        axes.set_xscale("log")
    figure.legend(*profile.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9)
    figure.suptitle(f"benchmark {summary['suite']}: medians and 95 % bootstrap intervals over {_runs(summary)} runs")
    figure.savefig(path, dpi=110)


def _runs(summary: Summary) -> str:
    counts = sorted({env["num_runs"] for agent in summary["agents"] for env in agent["envs"].values()})
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _looks(agents: Sequence[Summary]) -> dict[str, dict[str, Any]]:
    """Colours and dashes: a library has its dashes, agents of one library different colours; the floor is grey."""
    looks: dict[str, dict[str, Any]] = {}
    for number, agent in enumerate(sorted(agents, key=lambda agent: (agent["library"], agent["agent"]))):
        if agent["learns"]:
            style = _STYLES.get(agent["library"], ":")
            looks[agent["agent"]] = {"color": _COLOURS[number % len(_COLOURS)], "linestyle": style, "linewidth": 1.8}
        else:
            looks[agent["agent"]] = {"color": _GREY, "linestyle": ":", "linewidth": 1.4}
    return looks


def _growth(
    axes: Axes,
    column: int,
    name: str,
    envs: Sequence[str],
    rows: Mapping[Key, Row],
    curves: Mapping[Key, Curve],
    look: dict[str, Any],
) -> None:
    """IQM of the normalised training returns over episodes (column 0) or seconds (column 1)."""
    found: dict[str, list[Curve]] = {env: [] for env in envs}
    for key, row in rows.items():
        if key[0] == name and curves.get(key) and row["score"] is not None:
            scaled = normalise([p[2] for p in curves[key]], random=row["random_return"], optimal=row["optimal_return"])
            pairs = zip(curves[key], scaled, strict=True)
            found[key[1]].append([(p[0], p[1], float(value)) for p, value in pairs])
    runs = [curve for own in found.values() for curve in own]
    if not runs:
        return
    # From where every run has an entry to where the first of them ends: nobody is shown for longer than watched.
    first = max(max(curve[0][column] for curve in runs), 1e-3)
    last = max(min(curve[-1][column] for curve in runs), first)
    grid = np.geomspace(first, last, _NUM_POINTS)
    groups = [_at(grid, own, column) for own in found.values() if own]  # each (num_runs, num_points)

    def over_runs(resampled: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.asarray(iqm([np.moveaxis(values, -2, -1) for values in resampled]))

    low, high = bootstrap_interval(over_runs, groups, num_resamples=_NUM_RESAMPLES)
    _line(axes, grid, over_runs(groups), low, high, look, name)


def _at(grid: NDArray[np.float64], curves: Sequence[Curve], column: int) -> NDArray[np.float64]:
    return np.stack([np.interp(grid, [p[column] for p in curve], [p[2] for p in curve]) for curve in curves])


def _line(
    axes: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    look: dict[str, Any],
    label: str,
) -> None:
    axes.plot(x, y, label=label, **look)
    axes.fill_between(x, low, high, color=look["color"], alpha=0.12, linewidth=0)


def _label(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set(xlabel=x, ylabel=y, title=title, ylim=(-0.03, 1.03))
    axes.grid(alpha=0.3)
