"""The same summary as Markdown, for a pull request. What models and files say stands in code spans, never as markup."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from agents.report.page import number
from agents.report.records import visible

MAX_SPAN = 300  # characters of one text
NUM_EPISODES = 3  # of each end


def span(text: Any) -> str:
    """Put a text into a code span that it cannot leave, neither there nor in a table."""
    shown = str(visible(str(text)))
    shown = shown if len(shown) <= MAX_SPAN else f"{shown[:MAX_SPAN]}…"
    if not shown:
        return "` `"
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    # A row is split at every bar that no backslash precedes, before spans are read; a backslash there would be shown.
    shown = shown.replace("|", "¦")
    return f"{fence} {shown} {fence}" if "`" in shown else f"{fence}{shown}{fence}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out a table of cells that are Markdown already."""
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def to_markdown(data: Mapping[str, Any]) -> str:
    """Summarise what a page shows.

    Args:
        data: from `run_data.run_page` or `benchmark_data.benchmark_page`.

    Returns:
        GitHub's Markdown.
    """
    lines = [f"### {span(data['title'])}", "", f"{span(data['subject'])}: {data['summary']}", ""]
    lines += [f"- **Read this first:** {span(mark)}" for mark in data["marks"]] + [""] * bool(data["marks"])
    lines += _benchmark(data) if data["kind"] == "benchmark" else _run(data)
    return "\n".join(lines).rstrip() + "\n"


def _run(data: Mapping[str, Any]) -> list[str]:
    lines = []
    if data["checks"]:
        verdicts = {"pass": "✓", "fail": "✗ **fail**", "note": "–"}
        rows = [
            [check["what"], *(number(value) for value in check["values"]), check["bound"], verdicts[check["status"]]]
            for check in data["checks"]
        ]
        lines += table(["self-check", *map(span, data["seeds"]), "bound", ""], rows)
    rows = [
        [
            span(evaluation["run"]),
            span(row["by"]),
            *map(_plus_minus, [*row["cells"], row["gain"]]),
            ", ".join(span(evaluation[key]) for key in ("split", "env") if evaluation[key]) or "unknown",
        ]
        for evaluation in data["evaluations"]
        for row in evaluation["main"]
    ]
    if rows:
        lines += table(["run", "scored by", *data["evaluations"][0]["columns"], "gain", "problems"], rows)
    for evaluation in data["evaluations"]:
        lines += [f"- **Warning:** {span(warning)}" for warning in evaluation["warnings"]]
    episodes = data["episodes"]
    updates = sorted({episode["update"] for episode in episodes if episode["update"] is not None})
    for title, update in [("Before", updates[0]), ("After", updates[-1])] if updates else []:
        some = [episode for episode in episodes if episode["update"] == update][:NUM_EPISODES]
        lines += [f"{title} ({data['step']} {number(update)}), unselected:", ""]
        for e in some:
            lines.append(f"- {number(e['return'])}: {span(e['prompt'] or '')} → {span(e['response'] or '')}")
        lines.append("")
    return lines


def _plus_minus(cell: Sequence[float | None]) -> str:
    value, error = cell
    return number(value) if error is None else f"{number(value)} ± {number(error)}"


def _benchmark(data: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            span(row["agent"]),
            _with_interval(row["iqm"]),
            _with_interval(row["gap"]),
            f"{row['reached'][0]} of {row['reached'][1]}" if row["reached"][1] else "–",
            number(row["episodes"], 0),
            number(row["seconds"], 1),
            span(row["sources"]),
        ]
        for row in data["agents"]
    ]
    heads = ["agent", "IQM [95 %]", "optimality gap [95 %]", "reached", "episodes to threshold", "seconds to threshold"]
    lines = table([*heads, "from"], rows)
    lines += [f"- **Failed:** {' '.join(map(span, failure))}" for failure in data["failures"]]
    for source in data["sources"]:
        told = ", ".join(span(source[name]) for name in ("commit", "machine", "versions"))
        lines.append(f"- {span(source['letter'])}: {told}")
    return lines


def _with_interval(cell: Sequence[float | None]) -> str:
    value, low, high = cell
    return number(value) if low is None or high is None else f"{number(value)} [{number(low)}, {number(high)}]"
