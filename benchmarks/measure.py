"""What the benchmarks of speed share: two sides measured in turns, and a line of results.csv for each comparison."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TypeVar

RESULTS = Path(__file__).parent / "results.csv"
_COLUMNS = (
    *("row", "case", "unit", "ours", "peer_name", "peer", "ratio", "lowest", "highest", "repeats", "bar", "threads"),
    *("load", "date", "commit", "machine", "versions"),
)
_PACKAGES = ("gymnasium", "numpy", "torch", "transformers", "stable-baselines3", "sb3-contrib")

Pairs = list[tuple[float, float]]
A = TypeVar("A")
B = TypeVar("B")


def in_turns(ours: Callable[[], A], theirs: Callable[[], B], repeats: int) -> list[tuple[A, B]]:
    """Call both `repeats` times in turns, each going first every other time, so that neither has the quieter machine.

    Returns:
        What they returned, (ours, theirs) a turn.
    """
    pairs = []
    for turn in range(repeats):
        if turn % 2 == 0:
            one = ours()
            other = theirs()
        else:
            other = theirs()
            one = ours()
        pairs.append((one, other))
    return pairs


def record(
    row: str,
    case: str,
    pairs: Pairs,
    *,
    unit: str,
    peer: str,
    bar: float | None,
    threads: int = 1,
    versions: Mapping[str, str] | None = None,
    out: Path | None = RESULTS,
) -> float:
    """Print one comparison and append it to a CSV file.

    Args:
        row: of the table of `benchmarks/README.md`.
        case: which of the row's comparisons.
        pairs: (ours, theirs), at least one.
        unit: a rate such as "steps/s", where more is better, or "s" or "MB", where less is.
        peer: what the other side is.
        bar: the ratio to be reached, or None.
        threads: of torch, on both sides.
        versions: of packages beside the usual ones.
        out: the CSV file, or None to print only.

    Returns:
        The median over the pairs of how many times better ours is.
    """
    rate = unit.endswith("/s")
    ratios = [one / other if rate else other / one for one, other in pairs]
    ratio, ours, theirs = median(ratios), median(one for one, _ in pairs), median(other for _, other in pairs)
    verdict = "" if bar is None else f", at least {bar:g} wanted: {'reached' if ratio >= bar else 'NOT reached'}"
    print(
        f"{row} | {case}: {ours:,.4g} {unit} against {theirs:,.4g} of {peer}; ratio {ratio:.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}, {len(pairs)} turns, {threads} threads){verdict}",
        flush=True,
    )
    if out is not None:
        known = {name: version(name) for name in _PACKAGES} | dict(versions or {})
        values = [row, case, unit, f"{ours:.6g}", peer, f"{theirs:.6g}", f"{ratio:.4g}"]
        values += [f"{min(ratios):.4g}", f"{max(ratios):.4g}", str(len(pairs)), "" if bar is None else f"{bar:g}"]
        values += [
            str(threads),
            f"{os.getloadavg()[0]:.1f}",
            f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
            commit(),
            machine(),
        ]
        values.append(" ".join(f"{name}={number}" for name, number in known.items()))
        new = not out.exists()
        with out.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(_COLUMNS)
            writer.writerow(values)
    return ratio


def machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Processor, cores, memory and Python of this machine; with family and model where the name has no number."""
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = known.get("model name", platform.machine())
    if not any(map(str.isdigit, name)):  # as virtual machines say, of whatever processor
        name += f" family {known.get('cpu family')} model {known.get('model')}"
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"


def commit() -> str:
    """The commit measured, with a + where the tree differs from it by more than what benchmarks themselves write."""
    git = ["git", "-C", str(RESULTS.parent)]
    described = [*git, "describe", "--always", "--abbrev=7", "--exclude=*"]
    name = subprocess.run(described, capture_output=True, text=True, check=False).stdout.strip()
    written = (f":(exclude){pattern}" for pattern in ("*.csv", "*.png", "README.md"))
    changed = [*git, "diff", "--quiet", "HEAD", "--", ":(top)", *written]
    return name + ("+" if subprocess.run(changed, check=False).returncode else "") if name else "unknown"
