"""What a page says of a run, or of several seeds of one: curves, self-checks, episodes, evaluation, configuration."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.report.checks import self_checks
from agents.report.episodes import episodes, evaluation
from agents.report.runs import RunRecord, as_number

MAX_POINTS = 400  # of one curve; more updates are averaged, so many to a point
_X = ("update", "epoch", "episodes")
_TENTH = 0.1
_MAIN = ("return", "heldout_perplexity")  # what a reader looks for first; the second of a warm start


def run_page(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """Gather what the page of some runs shows, JSON-able.

    Args:
        runs: at least one; several are taken for seeds of one run, and what else differs between them is marked.
    """
    settings, mixed = _settings([run.config for run in runs])
    environment, mixed_environment = _settings([run.environment for run in runs])
    marks = [f"not the same in all runs: {name}" for name in (*mixed, *mixed_environment) if name != "seed"]
    marks += [f"{run.label} has not finished: {_progress(run)}" for run in runs if not run.is_finished] + [
        f"{run.label}: the last line of metrics.jsonl is cut and left out" for run in runs if run.is_cut
    ]
    checks = self_checks(runs)
    return {
        "kind": "run",
        "title": _title(runs),
        "subject": _subject(runs),
        "summary": _summary(runs, checks),
        "marks": marks,
        "seeds": [run.label for run in runs],
        "step": runs[0].step,
        "curves": curves(runs),
        "checks": checks,
        "episodes": [episode for k, run in enumerate(runs) for episode in episodes(run, k)],
        "num_episodes": sum(run.num_samples for run in runs),
        "evaluations": [evaluation(run, found) for run in runs for found in run.evaluations],
        "settings": settings,
        "environment": environment,
    }


def _title(runs: Sequence[RunRecord]) -> str:
    ids = list(dict.fromkeys(str(run.config.get("env_id", run.name)) for run in runs))
    return ", ".join(ids)


def _progress(run: RunRecord) -> str:
    done, planned = run.metrics[-1].get("episodes"), run.config.get("num_episodes")
    if isinstance(done, int) and isinstance(planned, int):
        return f"{done:,} episodes" if done == planned else f"{done:,} of {planned:,} episodes"
    return f"{len(run.metrics):,} {run.step}s"


def _subject(runs: Sequence[RunRecord]) -> str:
    """Say what was run."""
    algorithm = algorithm_name(runs[0].config.get("algorithm"))
    model = runs[0].config.get("model")
    what = f"{algorithm or 'A run'} on {_title(runs)}" + (f", model {_last_part(model)}" if model else "")
    return what + (f", {len(runs)} seeds" if len(runs) > 1 else "")


def _summary(runs: Sequence[RunRecord], checks: Sequence[Mapping[str, Any]]) -> str:
    """Say what it reached, the second half of the one sentence."""
    name = next((name for name in _MAIN if any(name in record for run in runs for record in run.metrics)), None)
    first, last = (_edge(runs, name, end) if name else [] for end in (0, 1))
    parts = []
    if first and last:
        spread = "; 95 % t interval over seeds" if len(runs) > 1 else ""
        parts.append(
            f"the mean {'return' if name == 'return' else 'held-out perplexity'} went from {_interval(first)} to "
            f"{_interval(last)} (first and last tenth of {_progress(runs[0])}{spread})"
        )
    failed = sum(check["status"] == "fail" for check in checks)
    if checks:
        verdicts = {0: "every self-check with a bound passed", 1: "one self-check failed"}
        parts.append(verdicts.get(failed, f"{failed} self-checks failed"))
    return ("; ".join(parts) or "no return was logged") + "."


def _edge(runs: Sequence[RunRecord], name: str, end: int) -> list[float]:
    """Means of a metric over each run's first or last tenth."""
    means = []
    for run in runs:
        width = max(1, int(len(run.metrics) * _TENTH))
        part = run.metrics[-width:] if end else run.metrics[:width]
        values = [value for record in part if (value := as_number(record.get(name))) is not None]
        if values:
            means.append(sum(values) / len(values))
    return means


def _interval(values: list[float]) -> str:
    mean, half = t_interval(values)
    return f"{mean:.3f}" if half is None else f"{mean:.3f} ± {half:.3f}"


def t_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean of at least one value, and half of its 95 % Student t interval, None for one value."""
    try:
        from scipy.stats import t
    except ModuleNotFoundError as error:
        raise ImportError(f'a report needs {error.name}; pip install "textenvs[report]"') from None

    mean, n = sum(values) / len(values), len(values)
    if n < 2:
        return mean, None
    variance = sum((value - mean) ** 2 for value in values) / (n - 1)
    return mean, float(t.ppf(0.975, n - 1)) * math.sqrt(variance / n)


def algorithm_name(settings: Any) -> str | None:
    """Name the row that a run's algorithm is nearest to, by the choices that make a row; None for no algorithm."""
    from agents.algorithms import ALGORITHMS

    if not isinstance(settings, Mapping):
        return None
    if settings.get("baseline") == "critic":
        return "PPO" if settings.get("num_epochs", 1) != 1 or settings.get("num_minibatches", 1) != 1 else "A2C"
    names = [name for name, row in ALGORITHMS.items() if row.baseline == settings.get("baseline")]
    return names[0].upper() if names else None


def curves(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """Turn the metrics into curves.

    Returns:
        "x": for each run a list of [name, values]; "metrics": for each metric its name, "runs" (for each run its
        values) and, of several runs, "mean" and "half" (of the 95 % t interval) at the points that all runs have;
        "per_point": how many updates are averaged to a point.
    """
    longest = max(len(run.metrics) for run in runs)
    per_point = -(-longest // MAX_POINTS)
    names = list(dict.fromkeys(name for run in runs for record in run.metrics for name in record))
    metrics = []
    for name in (name for name in names if name not in _X):
        rows = [[_mean(record.get(name) for record in part) for part in _parts(run, per_point)] for run in runs]
        if all(value is None for row in rows for value in row):
            continue
        metric: dict[str, Any] = {"name": name, "runs": [[_short(value) for value in row] for row in rows]}
        if len(runs) > 1:
            shared = [[v for v in column if v is not None] for column in zip(*rows, strict=False)]
            band = [t_interval(column) if len(column) == len(runs) else (None, None) for column in shared]
            metric["mean"], metric["half"] = ([_short(pair[k]) for pair in band] for k in (0, 1))
        metrics.append(metric)
    metrics.sort(key=lambda metric: (metric["name"] not in _MAIN, metric["name"]))
    return {"x": [_axes(run, per_point) for run in runs], "metrics": metrics, "per_point": per_point}


def _parts(run: RunRecord, per_point: int) -> list[list[dict[str, Any]]]:
    return [run.metrics[k : k + per_point] for k in range(0, len(run.metrics), per_point)]


def _axes(run: RunRecord, per_point: int) -> list[list[Any]]:
    """Positions of a run's points by everything that can be an axis: the last of what is averaged."""
    seconds, total = [], 0.0
    for record in run.metrics:
        total += as_number(record.get("seconds")) or 0.0
        seconds.append(total)
    columns: dict[str, list[float]] = {
        name: [as_number(record.get(name)) or 0.0 for record in run.metrics] for name in _X if name in run.metrics[0]
    }
    columns["seconds"] = seconds
    columns = {name: columns[name] for name in ("episodes", run.step, "seconds") if name in columns}
    return [[name, [_short(part[-1], 6) for part in _chunks(values, per_point)]] for name, values in columns.items()]


def _chunks(values: list[float], size: int) -> list[list[float]]:
    return [values[k : k + size] for k in range(0, len(values), size)]


def _mean(values: Any) -> float | None:
    found = [number for value in values if (number := as_number(value)) is not None]
    return sum(found) / len(found) if found else None


def _short(value: float | None, digits: int = 5) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")


def _settings(objects: Sequence[Mapping[str, Any]]) -> tuple[list[list[Any]], list[str]]:
    """Flatten configurations into rows [name, values (one, or one a run where they differ)], and name those."""
    flat = [dict(_flatten(item)) for item in objects]
    names = list(dict.fromkeys(name for item in flat for name in item))
    rows: list[list[Any]] = []
    for name in names:
        values = [item.get(name, "-") for item in flat]
        rows.append([name, values[:1] if len(set(values)) == 1 else values])
    return rows, [name for name, values in rows if len(values) > 1]


def _flatten(value: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        return [pair for key, item in value.items() for pair in _flatten(item, f"{name}.{key}" if name else str(key))]
    return [(name, _last_part(value) if isinstance(value, str) else json.dumps(value))]


def _last_part(value: Any) -> str:
    """A text as it is; of an absolute path only the last name, for the rest may tell who made it."""
    text = str(value)
    return f"…/{Path(text).name}" if Path(text).is_absolute() and "\n" not in text else text
