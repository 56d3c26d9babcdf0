"""Renew the table of speed in benchmarks/README.md from benchmarks/results.csv: `python benchmarks/table.py`.

The newest line of each (row, case) of a machine counts, and each machine has its table. Nothing is measured here, and
nothing typed: tests/test_table.py holds the README's table to the file.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from measure import RESULTS

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- made by table.py from results.csv -->", "<!-- end of what table.py made -->"
#: row -> the script that measures it, in the table's order; a row that is not here comes last.
SCRIPTS = {
    "env, one row": "env_step.py",
    "env, batch": "env_batch.py",
    "sampling": "sampling.py",
    "sampling, ragged": "sampling.py",
    "update": "update.py",
    "update against the limit": "update.py",
    "end to end": "grpo_trl.py",
    "end to end, tiny": "tiny.py",
    "memory": "memory.py",
    "start-up": "start_up.py",
}
_COLUMNS = "row | case | ours | beside it | ratio | lowest to highest | turns | wanted | reached | commit"

Line = Mapping[str, str]


def newest(path: Path = RESULTS) -> list[Line]:
    """The last line of each (machine, row, case) of a file that may be missing or empty, in the tables' order."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        last = {(line["machine"], line["row"], line["case"]): line for line in csv.DictReader(file)}
    order = list(dict.fromkeys([*SCRIPTS, *(row for _, row, _ in last)]))
    machines = list(dict.fromkeys(machine for machine, *_ in last))
    return sorted(last.values(), key=lambda line: (machines.index(line["machine"]), order.index(line["row"])))


def markdown(lines: Sequence[Line]) -> str:
    """A table of `lines` a machine, and below it where and with what they were measured."""
    if not lines:
        return "Nothing measured yet: `make bench` writes results.csv."
    made: list[str] = []
    for _, group in groupby(lines, key=lambda line: line["machine"]):
        own = list(group)
        made += [""] * bool(made) + [f"| {_COLUMNS} |", "|---" * (_COLUMNS.count("|") + 1) + "|"]
        made += ["| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(line)) + " |" for line in own]
        made += ["", *_circumstances(own)]
    return "\n".join(made)


def write(path: Path = README, results: Path = RESULTS) -> None:
    """Put the table of `results` between the two markers of `path`.

    Raises:
        ValueError: the markers do not stand there once each, in order.
    """
    splice(path, BEGIN, END, markdown(newest(results)))


def splice(path: Path, begin: str, end: str, text: str) -> None:
    """Put `text` between two markers of a file.

    Raises:
        ValueError: the markers do not stand there once each, in order.
    """
    before, first, rest = path.read_text(encoding="utf-8").partition(begin)
    _, second, after = rest.partition(end)
    if not first or not second or begin in rest or end in after:
        raise ValueError(f"{path} must hold {begin!r} and then {end!r} once each, got something else; put them back")
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def _cells(line: Line) -> list[str]:
    row, unit, bar = line["row"], line["unit"], line["bar"]
    script = SCRIPTS.get(row, "")
    measured = script and (README.parent / script).exists()
    return [
        f"[{row}]({script})" if measured else row,
        line["case"],
        f"{_number(line['ours'])} {unit}",
        f"{_number(line['peer'])} {unit} ({line['peer_name']})",
        f"**{float(line['ratio']):.3f}**",  # two digits could hide which side of what is wanted it is on
        f"{float(line['lowest']):.2f} to {float(line['highest']):.2f}",
        line["repeats"],
        bar and f"{float(bar):.3g}",
        bar and ("yes" if float(line["ratio"]) >= float(bar) else "**no**"),
        line["commit"],
    ]


def _number(text: str) -> str:
    """Three digits that count: 0.123, 12.3, 1,230,000."""
    value = float(text)
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _circumstances(lines: Sequence[Line]) -> list[str]:
    """A line for each machine, number of threads and set of versions: which rows, when, under what load."""
    groups: dict[tuple[str, str, str], list[Line]] = {}
    for line in lines:
        groups.setdefault((line["machine"], line["threads"], line["versions"]), []).append(line)
    said = []
    for (machine, threads, versions), group in groups.items():
        rows = "; ".join(dict.fromkeys(line["row"] for line in group))
        days = sorted({line["date"][:10] for line in group})
        loads = sorted(float(line["load"]) for line in group)
        said.append(
            f"- {rows}: {threads} thread{'' if threads == '1' else 's'} of {machine}; "
            f"{' to '.join(dict.fromkeys([days[0], days[-1]]))}, load average {loads[0]:g} to {loads[-1]:g}; "
            f"{_named(versions)}"
        )
    return said


def _named(versions: str) -> str:
    """`gymnasium=1.2 numpy=2.3` as `gymnasium 1.2, numpy 2.3`."""
    return ", ".join(pair.replace("=", " ") for pair in versions.split(" "))


if __name__ == "__main__":
    write()
