"""What the benchmarks share that train: jobs side by side, each a line of a table."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any


def run_jobs(
    job: Callable[..., dict[str, Any]], arguments: Sequence[tuple[Any, ...]], num_processes: int, out: Path
) -> list[dict[str, Any]]:
    """Run `job(*arguments[i])` for each i, and write what they return to a CSV file, a row each.

    Args:
        job: a function of a module, which each process imports.
        arguments: of each job.
        num_processes: that run at once.
        out: the file; its columns are the first row's keys.

    Returns:
        The rows, in the order of `arguments`.
    """
    with ProcessPoolExecutor(num_processes) as pool:
        rows = list(pool.map(job, *zip(*arguments, strict=True)))
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return rows
