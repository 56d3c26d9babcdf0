"""From paths to a report: finds out what they hold, and writes it down."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents.report.markdown import to_markdown
from agents.report.page import render
from agents.report.run_data import run_page
from agents.report.runs import read_run


def gather(paths: Sequence[Path]) -> dict[str, Any]:
    """Read what a report of some paths shows.

    Args:
        paths: one run directory; several, or one directory of several, for seeds of a run; or a benchmark's directory.

    Returns:
        The data of the page.

    Raises:
        ValueError: for no path, or one that holds none of these.
    """
    if not paths:
        raise ValueError("path must be a run's or a benchmark's directory, got none; name one")
    for path in paths:
        if not path.is_dir():
            what = "which is no directory" if path.exists() else "which does not exist"
            raise ValueError(f"path must be a run's or a benchmark's directory, got {path}, {what}; name another")
    if len(paths) == 1 and ((paths[0] / "results.csv").is_file() or (paths[0] / "jobs").is_dir()):
        from agents.report.benchmark_data import benchmark_page

        return benchmark_page(paths[0])
    if len(paths) == 1:
        below = sorted(child.parent for child in paths[0].glob("*/metrics.jsonl"))
        paths = below if below and not (paths[0] / "metrics.jsonl").is_file() else paths
    return run_page([read_run(path, num_runs=len(paths)) for path in paths])


def write_report(paths: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page of some paths.

    Args:
        paths: see `gather`.
        out: the file; None for report.html in the one path.

    Returns:
        The file.

    Raises:
        ValueError: see `gather`; or when several paths come without out.
        OSError: when the file cannot be written.
        ImportError: without jinja2.
    """
    from agents.checkpoint import write_file

    if out is None and len(paths) > 1:
        raise ValueError("out must be given for several paths, got None; name the file with --out report.html")
    html = render(gather(paths))
    out = paths[0] / "report.html" if out is None else out
    write_file(out, html)
    return out


def markdown_report(paths: Sequence[Path]) -> str:
    """Summarise some paths for a pull request; see `gather`."""
    return to_markdown(gather(paths))
