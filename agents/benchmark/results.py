"""What a benchmark leaves on disk: one result.json and curve.csv a job, and results.csv and curves.csv of all.

docs/benchmark.md defines every column. A result.json is written whole or not at all, and its presence means that the
job is done. results.csv and curves.csv are written anew from all jobs after each one; alone, without jobs/, they are
enough to go on from.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from agents.suites import SuiteEnv
from agents.versions import versions

#: Of results.csv, in this order.
COLUMNS = (
    *("suite", "agent", "library", "env_id", "env_kwargs", "seed", "status", "error"),
    *("budget_episodes", "budget_seconds", "episodes", "seconds", "wall_seconds"),
    *("final_return", "final_return_greedy", "random_return", "optimal_return", "score"),
    *("threshold", "episodes_to_threshold", "seconds_to_threshold"),
    *("threads", "commit", "versions", "date", "machine"),
    *("settings_sha256", "optimal_from", "split", "num_evaluated"),
)
CURVE_COLUMNS = ("episodes", "seconds", "return")
CURVES_COLUMNS = ("agent", "env", "seed", *CURVE_COLUMNS)
NUM_BINS = 50  # at most so many rows a curve.csv
_INTEGERS = ("seed", "budget_episodes", "episodes", "episodes_to_threshold", "threads", "num_evaluated")
_NUMBERS = (
    *("budget_seconds", "seconds", "wall_seconds", "final_return", "final_return_greedy", "random_return"),
    *("optimal_return", "score", "threshold", "seconds_to_threshold"),
)
_OBJECTS = ("env_kwargs", "versions")
_REQUIRED = (
    *("suite", "agent", "env_id", "env_kwargs", "seed", "status", "settings_sha256"),
    *("budget_episodes", "budget_seconds"),
)
_REQUIRED_OF_OK = ("final_return", "final_return_greedy", "episodes", "seconds")
_LARGEST = 1e100  # of a number: sums of much larger ones are infinite
_ROOT = Path(__file__).parents[2]

T = TypeVar("T")
Row = dict[str, Any]
Curve = list[tuple[int, float, float]]
Key = tuple[str, str, int]  # agent, slug of the env, seed


def slug(text: str, kwargs: Mapping[str, Any] | None = None) -> str:
    """A folder's name for an agent or env: letters, digits, '.', '_' and '-'; what that leaves out goes into a hash."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:60] or "x"
    hashed = ("" if readable == text else text) + (canonical(kwargs) if kwargs else "")
    return f"{readable}-{hashlib.sha256(hashed.encode()).hexdigest()[:8]}" if hashed else readable


def env_slug(env: SuiteEnv) -> str:
    """The folder's name of an env with its keyword arguments."""
    return slug(re.sub("^textenvs/", "textenvs-", env.env_id), env.env_kwargs)


def canonical(value: Any) -> str:
    """JSON text that is the same for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=repr)


def fingerprint(value: Any) -> str:
    """Twelve digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:12]


def key_of(row: Mapping[str, Any]) -> Key:
    """Which job a row is of."""
    return str(row["agent"]), env_slug(SuiteEnv(row["env_id"], row["env_kwargs"])), int(row["seed"])


def job_folder(out: Path, key: Key) -> Path:
    """Where a job's own files are."""
    return out / "jobs" / slug(key[0]) / key[1] / f"seed_{key[2]}"


def write_text(path: Path, text: str) -> None:
    """Make or replace a file so that its name never stands for half of it, also after a power cut."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_job(folder: Path, row: Row, curve: Curve) -> None:
    """Write a job's curve.csv and then, as the last thing, its result.json."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "curve.csv", _csv_text(CURVE_COLUMNS, ((e, f"{s:.3f}", f"{r:.4f}") for e, s, r in curve)))
    write_text(folder / "result.json", json.dumps(row, indent=1, allow_nan=False) + "\n")


def bin_curve(returns: Sequence[float], seconds: Sequence[float], num_bins: int = NUM_BINS) -> Curve:
    """Mean returns over consecutive bins of episodes, with the episodes and seconds at the end of each bin."""
    edges = np.unique(np.linspace(0, len(returns), min(num_bins, len(returns)) + 1).round().astype(int))
    return [(int(end), float(seconds[end - 1]), float(np.mean(returns[start:end]))) for start, end in pairwise(edges)]


def read_results(out: Path) -> tuple[dict[Key, Row], dict[Key, Curve]]:
    """Read all that is done in a directory: every result.json, and the rows of results.csv that have none.

    Raises:
        ValueError: names a file that is not what a benchmark wrote.
    """
    rows, curves = _read_tables(out)
    for path in sorted((out / "jobs").glob("*/*/*/result.json")):
        try:
            row = _from_json(path.read_text(encoding="utf-8"))
            _check_row(row)
            row = dict.fromkeys(COLUMNS) | row
            key = key_of(row)
            if job_folder(out, key) != path.parent:
                raise ValueError(f"it is of the job {'/'.join(map(str, key))}")
            curve = read_curve(path.parent)
        except (ValueError, TypeError, KeyError, OSError, csv.Error, RecursionError) as error:
            raise ValueError(
                f"{path} must be what a benchmark wrote, got {_said(error)}; delete its folder to run the job again"
            ) from None
        rows[key], curves[key] = row, curve
    return rows, curves


def _read_tables(out: Path) -> tuple[dict[Key, Row], dict[Key, Curve]]:
    rows: dict[Key, Row] = {}
    curves: dict[Key, Curve] = {}
    path = out / "results.csv"
    try:
        for row in _read_csv(path, COLUMNS, _parse) if path.exists() else ():
            key = key_of(row)
            if key in rows:
                raise ValueError(f"two lines of the job {'/'.join(map(str, key))}")
            rows[key] = row
        path = out / "curves.csv"
        for key, point in _read_csv(path, CURVES_COLUMNS, _parse_curves) if path.exists() else ():
            curves.setdefault(key, []).append(point)
    except (ValueError, TypeError, KeyError, OSError, csv.Error, RecursionError) as error:
        raise ValueError(f"{path} must be what a benchmark wrote, got {_said(error)}; restore it") from None
    return rows, curves


def read_curve(folder: Path) -> Curve:
    """Read the curve.csv of a job's folder.

    Raises:
        ValueError, OSError, csv.Error: it is not what `write_job` wrote.
    """
    return list(_read_csv(folder / "curve.csv", CURVE_COLUMNS, _parse_point))


def write_tables(out: Path, rows: Mapping[Key, Row], curves: Mapping[Key, Curve]) -> None:
    """Write results.csv and curves.csv anew, sorted by agent, env and seed."""
    lines = ([_cell(rows[key].get(name)) for name in COLUMNS] for key in sorted(rows))
    write_text(out / "results.csv", _csv_text(COLUMNS, lines))
    points = ((*key, e, f"{s:.3f}", f"{r:.4f}") for key in sorted(curves) if key in rows for e, s, r in curves[key])
    write_text(out / "curves.csv", _csv_text(CURVES_COLUMNS, points))


def environment() -> dict[str, Any]:
    """What results may depend on besides the settings: commit, versions, machine."""
    return {"commit": _commit(), "versions": versions(), "machine": _machine()}


def _check_row(row: Any) -> None:
    if not isinstance(row, dict):
        raise ValueError("no JSON object")
    for name in _REQUIRED:
        if row.get(name) is None:
            raise ValueError(f"no {name}")
    if row["status"] not in ("ok", "failed"):
        raise ValueError(f"status {row['status']!r}")
    for name in COLUMNS:
        value = row.get(name)
        if value is not None and not _fits(name, value):
            raise ValueError(f"{name} {str(value)[:80]!r}")
    for name in _REQUIRED_OF_OK if row["status"] == "ok" else ():
        if row.get(name) is None:
            raise ValueError(f"no {name}")


def _fits(name: str, value: Any) -> bool:
    """Whether a value can stand in a column; counts and durations are at least 0."""
    if name in _OBJECTS:
        return isinstance(value, dict)
    if name not in (*_INTEGERS, *_NUMBERS):
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, int if name in _INTEGERS else (int, float)):
        return False
    return abs(value) < _LARGEST and (value >= 0 or (name in _NUMBERS and "seconds" not in name))


def _from_json(text: str) -> Any:
    """Read JSON; NaN and infinities, which nothing here writes, are none."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name}, which is no number")

    return json.loads(text, parse_constant=refuse)


def _read_csv(path: Path, columns: Sequence[str], parse: Callable[[Mapping[str, str]], T]) -> Iterator[T]:
    """What each line of a table says; a line that cannot be read is named. A spreadsheet's byte order mark is none."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"no column {missing[0]!r}")
        for line in reader:
            try:
                if None in line or None in line.values():
                    raise ValueError("more or fewer cells than columns")
                yield parse(line)
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise ValueError(f"{_said(error)} in line {reader.line_num}") from None


def _parse(line: Mapping[str, str]) -> Row:
    """The row of a line of results.csv."""
    row: Row = {}
    for name in COLUMNS:
        text = line[name]
        if text == "" and name != "error":
            row[name] = None
        elif name in (*_INTEGERS, *_NUMBERS):
            row[name] = _number(name, text)
        else:
            row[name] = _from_json(text) if name in _OBJECTS else text
    _check_row(row)
    return row


def _parse_point(line: Mapping[str, str]) -> tuple[int, float, float]:
    """The point of a line of curve.csv."""
    episodes, seconds = _number("episodes", line["episodes"]), _number("seconds", line["seconds"])
    return int(episodes), seconds, _number("final_return", line["return"])


def _parse_curves(line: Mapping[str, str]) -> tuple[Key, tuple[int, float, float]]:
    return (line["agent"], line["env"], int(_number("seed", line["seed"]))), _parse_point(line)


def _number(name: str, text: str) -> float:
    """The number that stands in a column: an int where it must be one."""
    try:
        value = (int if name in _INTEGERS else float)(text if len(text) < 100 else "")
    except ValueError:
        value = math.nan
    if not _fits(name, value):
        raise ValueError(f"{name} {text[:80]!r}")
    return value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(round(value, 6))
    return canonical(value) if isinstance(value, dict) else str(value)


def _csv_text(columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(lines)
    return text.getvalue()


def _said(error: Exception) -> str:
    """What a file was wrong in; the interpreter's words for a text that is nested too deeply say nothing of it."""
    if isinstance(error, RecursionError):
        return "JSON that is nested too deeply"
    return f"a {type(error).__name__} on {error}" if isinstance(error, KeyError | TypeError) else str(error)


@functools.cache
def _commit() -> str:
    """The commit of this source tree, with a + where the sources differ from it; empty outside a checkout."""
    git = ("git", "-C", str(_ROOT))
    sources = ("--", "agents", "textenvs")
    try:
        asked = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, timeout=10)
        changed = subprocess.run([*git, "status", "--porcelain", *sources], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.strip() + ("+" if changed.stdout.strip() else "") if asked.returncode == 0 else ""


@functools.cache
def _machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"
