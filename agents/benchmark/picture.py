"""The picture of a benchmark: performance profiles, and how scores grow with episodes and with CPU seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import textenvs
from agents.benchmark.curves import Band, growth, profile
from agents.benchmark.results import Curve, Key, Row
from agents.benchmark.tables import Summary

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError('the picture of benchmarks needs matplotlib; pip install "textenvs[report]"') from error

#: Okabe and Ito's colours, which colour-blind readers can tell apart, the yellow darker to be seen on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#B8A800", "#000000")
_GREY = "#777777"
_STYLES = {"textenvs": "-", "stable-baselines3": "--", "sb3-contrib": "-."}


def draw(summary: Summary, rows: Mapping[Key, Row], curves: Mapping[Key, Curve], path: Path) -> None:
    """Draw all agents of a summary into a PNG file."""
    figure = Figure(figsize=(15, 5.4), layout="constrained")
    profiles, episodes, seconds = figure.subplots(1, 3)
    envs = list(summary["envs"])
    looks = _looks(summary["agents"])
    thresholds = np.linspace(0, 1, 101)
    for agent in summary["agents"]:
        name = agent["agent"]
        _line(profiles, profile(name, envs, rows, thresholds), looks[name], name)
        if agent["learns"]:
            for axes, column in ((episodes, 0), (seconds, 1)):
                _line(axes, growth(column, name, envs, rows, curves), looks[name], name)
    _label(profiles, "score threshold", "share of runs above it", "performance profile")
    _label(episodes, "training episodes", "IQM of normalised training return", "sample efficiency")
    _label(seconds, "CPU seconds of training", "IQM of normalised training return", "compute efficiency")
    for axes in (episodes, seconds):
        axes.set_xscale("log")
    # Handles and labels apart: a label of an artist would be left out where it starts with an underscore.
    figure.legend(
        profiles.lines,
        [_text(line.get_gid() or "") for line in profiles.lines],
        loc="outside right center",
        frameon=False,
        fontsize=9,
    )
    figure.suptitle(f"benchmark {_text(summary['suite'])}: 95 % bootstrap intervals, {_runs(summary)} runs each")
    figure.savefig(path, dpi=110)


def _text(name: str) -> str:
    """A name as it is, without the formulas that Matplotlib would read in it."""
    return textenvs.printable(name).replace("$", r"\$")


def _runs(summary: Summary) -> str:
    counts = sorted({env["num_runs"] for agent in summary["agents"] for env in agent["envs"].values()})
    if not counts:
        return "no"
    return f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"


def _looks(agents: Sequence[Summary]) -> dict[str, dict[str, Any]]:
    """Colours and dashes: a library has its dashes, agents of one library different colours; the floor is grey."""
    looks: dict[str, dict[str, Any]] = {}
    ordered = sorted(agents, key=lambda agent: (not agent["learns"], agent["library"] != "textenvs", agent["agent"]))
    for number, agent in enumerate(ordered):
        if agent["learns"]:
            style = _STYLES.get(agent["library"], ":")
            looks[agent["agent"]] = {"color": _COLOURS[number % len(_COLOURS)], "linestyle": style, "linewidth": 1.8}
        else:
            looks[agent["agent"]] = {"color": _GREY, "linestyle": ":", "linewidth": 1.4}
    return looks


def _line(axes: Axes, band: Band | None, look: dict[str, Any], agent: str) -> None:
    if band is None:
        return
    x, y, low, high = band
    axes.plot(x, y, gid=agent, **look)
    axes.fill_between(x, low, high, color=look["color"], alpha=0.12, linewidth=0)


def _label(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set(xlabel=x, ylabel=y, title=title, ylim=(-0.03, 1.03))
    axes.grid(alpha=0.3)
