"""What a page says of a benchmark: scores, comparisons, profiles, growth, failures, and what the numbers come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.benchmark.curves import Band, growth, profile
from agents.benchmark.results import Curve, Key, Row, canonical, read_results
from agents.benchmark.tables import TOO_NARROW, Summary, scored_problems, summarise, training_scores
from agents.report.runs import as_number
from agents.statistics import censored_median

_ALL = "all environments"
_AXES = (("episodes", 0), ("seconds", 1))
_NUM_THRESHOLDS = 201


def benchmark_page(out: Path) -> dict[str, Any]:
    """Gather what the page of a benchmark shows, JSON-able.

    Args:
        out: the benchmark's directory, finished or not.

    Raises:
        ValueError: when it holds no job, or a file that is not what a benchmark writes.
    """
    rows, curves = read_results(out)
    if not rows:
        raise ValueError(f"path must hold a benchmark with at least one job, got {out}; run `textenvs benchmark` first")
    summary = summarise(rows)
    names = _env_names(summary)
    return {
        "kind": "benchmark",
        "title": f"Benchmark {summary['suite']}",
        "subject": _subject(summary, len(rows)),
        "summary": _summary(summary),
        "marks": _marks(summary, rows),
        "agents": [_agent(agent, rows) for agent in summary["agents"]],
        "results": [_result(agent, env, names) for agent in summary["agents"] for env in agent["envs"]],
        "against": summary["against"],
        "comparisons": [_comparison(entry) for entry in summary["comparisons"]],
        "profiles": _profiles(summary, rows),
        "growth": _growth(summary, rows, curves, names),
        "failures": [
            [row["agent"], names[key[1]], str(row["seed"]), str(row["error"] or "no reason noted")]
            for key, row in sorted(rows.items())
            if row["status"] != "ok"
        ],
        "sources": [_source(letter, source) for letter, source in summary["sources"].items()],
        "scored_problems": scored_problems(summary),
        "too_narrow": TOO_NARROW,
        "budget": f"{_plain(summary['budget_episodes'])} episodes or {_plain(summary['budget_seconds'])} s of CPU time",
    }


def _subject(summary: Summary, num_jobs: int) -> str:
    """Say what was run, and whose score the second half of the sentence gives: a name stands in this half only."""
    sizes = {"agent": len(summary["agents"]), "environment": len(summary["envs"]), "job": num_jobs}
    agents, envs, jobs = (f"{size} {name}" + "s" * (size != 1) for name, size in sizes.items())
    (best,) = (agent for agent in summary["agents"] if agent["agent"] == summary["against"])
    scored = "no agent here has learnt, and the best" if best["iqm"] is not None else "no agent has a score; the first"
    return f"{agents} in {envs}, {jobs}; {'the best that learns' if best['learns'] else scored} is {summary['against']}"


def _summary(summary: Summary) -> str:
    """Say what was reached, the second half of the one sentence."""
    best = next(agent for agent in summary["agents"] if agent["agent"] == summary["against"])
    said = "it has no score yet"
    if best["iqm"] is not None:
        low, high = best["iqm_interval"] or (None, None)
        spread = "" if low is None else f" [{low:.3f}, {high:.3f}]"
        said = f"its interquartile mean score is {best['iqm']:.3f}{spread}, where 0 is random and 1 is optimal"
    failed = sum(agent["num_failed"] for agent in summary["agents"])
    return said + (f"; {failed} jobs failed." if failed > 1 else "; one job failed." if failed else "; no job failed.")


def _marks(summary: Summary, rows: Mapping[Key, Row]) -> list[str]:
    """Say what must be known before numbers are compared."""
    marks = training_scores(summary)
    if len(summary["sources"]) > 1:
        marks.append(
            "results of different commits, versions or machines stand side by side; the column “from” tells them apart"
        )
    sizes = Counter(key[:2] for key in rows).values()
    if min(sizes) < max(sizes):
        marks.append(
            f"{min(sizes)} to {max(sizes)} jobs an agent and environment: scores are pooled, so more jobs weigh more"
        )
    for agent in summary["agents"]:
        if agent["num_settings"] > 1:
            marks.append(f"{agent['agent']}: jobs of {agent['num_settings']} different settings")
        if not agent["is_complete"]:
            marks.append(f"{agent['agent']}: no score in some environments, so its mean is over fewer")
    return marks


def _env_names(summary: Summary) -> dict[str, str]:
    """What each environment is called: its id, with its settings where an id stands for several."""
    ids = [env["id"] for env in summary["envs"].values()]
    return {
        name: env["id"] if ids.count(env["id"]) == 1 else f"{env['id']} {canonical(env['kwargs'])}"
        for name, env in summary["envs"].items()
    }


def _agent(agent: Summary, rows: Mapping[Key, Row]) -> dict[str, Any]:
    own = [row for key, row in rows.items() if key[0] == agent["agent"] and row["status"] == "ok"]
    counted = [row for row in own if row["episodes"]]
    reached = [row["episodes_to_threshold"] is not None for row in counted]
    medians = {}
    for unit in ("episodes", "seconds"):
        # A run that did not get there was watched for all that it trained.
        values = [
            row[f"{unit}_to_threshold"] if there else row[unit] for row, there in zip(counted, reached, strict=True)
        ]
        is_known = bool(values) and all(as_number(value) is not None for value in values)
        medians[unit] = as_number(censored_median(values, reached)) if is_known else None
    return {
        "agent": agent["agent"],
        "library": agent["library"] or "–",
        "iqm": _interval(agent["iqm"], agent["iqm_interval"]),
        "gap": _interval(agent["optimality_gap"], agent["optimality_gap_interval"]),
        "reached": [sum(reached), len(reached)],
        "episodes": medians["episodes"],
        "seconds": medians["seconds"],
        "jobs": [agent["num_jobs"], agent["num_failed"]],
        "sources": " ".join(agent["sources"]),
    }


def _result(agent: Summary, env: str, names: Mapping[str, str]) -> dict[str, Any]:
    found = agent["envs"][env]
    return {
        "agent": agent["agent"],
        "env": names[env],
        "runs": found["num_runs"],
        "sampled": as_number(found["mean_return"]),
        "greedy": as_number(found["mean_return_greedy"]),
        "reached": found["num_reached"],
        "episodes": _interval(found["median_episodes"], found["median_episodes_interval"]),
        "seconds": _interval(found["median_seconds"], found["median_seconds_interval"]),
    }


def _comparison(entry: Summary) -> dict[str, Any]:
    return {
        "agent": entry["agent"],
        "chance": _interval(entry["probability_of_improvement"], entry["probability_interval"]),
        "difference": _interval(entry["paired_difference"], entry["difference_interval"]),
        "p": as_number(entry["p_value_holm"]),
        "pairs": entry["num_pairs"],
    }


def _interval(value: Any, ends: Sequence[Any] | None) -> list[float | None]:
    low, high = ends or (None, None)
    return [as_number(value), as_number(low), as_number(high)]


def _source(letter: str, source: Mapping[str, Any]) -> dict[str, str]:
    versions = ", ".join(f"{name} {number}" for name, number in (source["versions"] or {}).items())
    return {
        "letter": letter,
        "commit": str(source["commit"] or "unknown"),
        "machine": str(source["machine"] or "unknown"),
        "versions": versions or "unknown",
    }


def _profiles(summary: Summary, rows: Mapping[Key, Row]) -> list[dict[str, Any]]:
    thresholds = np.linspace(0, 1, _NUM_THRESHOLDS).round(3)
    bands = [
        (agent["agent"], profile(agent["agent"], list(summary["envs"]), rows, thresholds))
        for agent in summary["agents"]
    ]
    return _series(bands)


def _growth(
    summary: Summary, rows: Mapping[Key, Row], curves: Mapping[Key, Curve], names: Mapping[str, str]
) -> list[list[Any]]:
    """Lay out [name of the environments, [[axis, series], ...]]: all together first, where somebody learnt."""
    groups = [(_ALL, list(names))] if len(names) > 1 else []
    groups += [(names[env], [env]) for env in names]
    learners = [agent["agent"] for agent in summary["agents"] if agent["learns"]]
    laid_out = [
        [
            title,
            [[axis, _series([(name, growth(k, name, envs, rows, curves)) for name in learners])] for axis, k in _AXES],
        ]
        for title, envs in groups
    ]
    return [[title, axes] for title, axes in laid_out if any(series for _, series in axes)]


def _series(bands: Sequence[tuple[str, Band | None]]) -> list[dict[str, Any]]:
    """Lines as the page draws them: points of x, y, low, high; single runs have no interval, and so no ends of one."""
    lines = []
    for name, band in bands:
        if band is not None:
            ends = [None, None] if np.array_equal(band[2], band[3]) else [2, 3]
            points = [[_short(v) for v in point] for point in zip(*band, strict=True)]
            lines.append({"name": name, "points": [[*p[:2], *(k and p[k] for k in ends)] for p in points]})
    return lines


def _short(value: float) -> float | None:
    return as_number(float(f"{value:.5g}"))


def _plain(value: Any) -> str:
    return "unlimited" if value is None else f"{value:,g}" if value < 1e6 else f"{value:,.0f}"
