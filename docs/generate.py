"""Write the generated pages of the documentation, and the generated blocks of the others.

    python docs/generate.py            # write what is stale
    python docs/generate.py --check    # name what is stale; exit status 1 if anything is

Whole pages: envs/*.md and rewards/*.md from docstrings, stored scores, and episodes and scores computed now; command.md
from `--help`. Blocks, between `<!-- generated: NAME -->` and `<!-- end -->`: the coefficients, metrics and results of
the algorithms, lists of links, and the navigation of mkdocs.yml.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import re
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import cache, partial
from pathlib import Path

import env_pages
import reward_pages
from docstrings import code, escaped, fence, parse, slug, table

import textenvs
from agents.algorithms import _CHOICES, ALGORITHMS, Algorithm
from agents.benchmark.agents import find_agent
from agents.benchmark.jobs import Job, Scale
from agents.benchmark.results import read_results
from agents.benchmark.tables import Summary, cells, notes, summarise
from agents.suites import SUITES

DOCS = Path(__file__).parent
ROOT = DOCS.parent
TOY_SUITE = ROOT / "benchmarks/toy_suite"
BLOCK = re.compile(
    r"(?P<start>(?:<!--|#) generated: (?P<name>[\w ]+?)(?: -->)?\n).*?(?P<end>^ *(?:<!--|#) end\b)",
    re.DOTALL | re.MULTILINE,
)
INTRO = (
    "What `--help` prints, verb by verb. Errors are one sentence on standard error: exit status 2 for wrong usage, 1 "
    "for a failed run, 130 after Ctrl-C."
)
#: Columns of what `--help` prints.
WIDTH = 100


def pages() -> dict[Path, Callable[[], str]]:
    """Every file with something generated in it -> its text as it should be."""
    made: dict[Path, Callable[[], str]] = {
        DOCS / "envs/index.md": env_pages.index_page,
        DOCS / "command.md": command_page,
    }
    for entry in textenvs.ENTRIES:
        made[DOCS / f"envs/{slug(entry.id)}.md"] = partial(env_pages.env_page, entry)
    for name in reward_pages.classes():
        made[DOCS / f"rewards/{name}.md"] = partial(reward_pages.reward_page, name)
    for path in sorted([ROOT / "mkdocs.yml", *DOCS.glob("**/*.md")]):
        if path not in made and BLOCK.search(path.read_text(encoding="utf-8")):
            made[path] = partial(with_blocks, path)
    return made


def with_blocks(path: Path) -> str:
    """The text of a page with its generated blocks renewed."""

    def renew(match: re.Match[str]) -> str:
        kind, *arguments = match["name"].split()
        return f"{match['start']}{BLOCKS[kind](*arguments)}\n{match['end']}"

    return BLOCK.sub(renew, path.read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------------------------------- algorithms


def coefficients(name: str) -> str:
    """Every coefficient of a row: flag, value, range and meaning."""
    row, meaning = ALGORITHMS[name], parse(Algorithm.__doc__).args
    rows = []
    for field in fields(Algorithm):
        value, usual = getattr(row, field.name), field.default
        shown = code(str(value)) if value == usual else f"**{code(str(value))}**"
        choices = " or ".join(code(choice) for choice in _CHOICES.get(field.name, ()))
        rows.append(
            (
                code("--" + field.name.replace("_", "-")),
                shown,
                (choices + ": " if choices else "") + escaped(meaning[field.name]),
            )
        )
    return "\n" + table(("flag", name, "meaning"), rows) + "\n\nBold: other than PPO's.\n"


def metrics(name: str) -> str:
    """Every number that a run of this algorithm logs, from the tables of metrics.md."""
    row = ALGORITHMS[name]
    text = (DOCS / "metrics.md").read_text(encoding="utf-8").split("## Training\n")[1].split("\n## ")[0]
    rows = []
    for metric, definition in re.findall(r"^\| `([^`]+)` \| (.*?) \| ", text, flags=re.MULTILINE):
        whole = next(line for line in text.splitlines() if line.startswith(f"| `{metric}` |"))
        if "algorithms with a critic" in whole and row.baseline != "critic":
            continue
        if "group baselines" in whole and row.group_size == 1:
            continue
        rows.append((f"[`{metric}`](../metrics.md#training)", definition))
    return "\n" + table(("name", "definition"), rows) + "\n"


def results(name: str) -> str:
    """What the algorithm came to in the toy suite, with its settings and the command, from the committed results."""
    summary = _toy_suite()
    header, lines = cells(summary)
    line = next((line for line in lines if line[0] == name), None)
    if line is None:
        return ""
    jobs = {key: row for key, row in read_results(TOY_SUITE)[0].items() if key[0] == name}
    suite = SUITES["toy"]
    given = suite.settings.get(name, {})
    agent = find_agent(name, given)
    now = Job(suite.name, agent, suite.envs[0], Scale(None, None, ""), 0, suite.num_episodes, suite.seconds)
    settings = ", ".join(
        code(f"--{key.replace('_', '-')} {json.dumps(value).strip(chr(34))}") for key, value in given.items()
    )
    said = f"Settings of the suite: {settings or 'those of the row'}."
    if {row["settings_sha256"] for row in jobs.values()} != {now.settings_sha256}:
        said = "The suite has other settings by now than these results are of."
    parts = [
        table(header, [line]),
        *notes(summary),
        said,
        fence(f"textenvs benchmark toy --agents {name} --seeds {1 + max(key[2] for key in jobs)}", "sh"),
    ]
    return "\n" + "\n\n".join(parts) + "\n"


@cache
def _toy_suite() -> Summary:
    """The summary of our algorithms' jobs; the others change nothing about them."""
    rows, _ = read_results(TOY_SUITE)
    return summarise({key: row for key, row in rows.items() if key[0] in ALGORITHMS})


def algorithm_table() -> str:
    """The five rows side by side, where they differ."""
    names = [
        field.name for field in fields(Algorithm) if len({getattr(row, field.name) for row in ALGORITHMS.values()}) > 1
    ]
    rows = [
        [f"[`{name}`]({name}.md)", *(code(str(getattr(row, key))) for key in names)] for name, row in ALGORITHMS.items()
    ]
    return "\n" + table(("", *(code(name) for name in names)), rows) + "\n"


# ---------------------------------------------------------------------------------------------- command, navigation


def command_page() -> str:
    """What every verb's `--help` prints."""
    from agents.cli import VERBS

    parts = ["<!-- Written by docs/generate.py: change agents/cli.py, then run it. -->", "# The command", INTRO]
    for verb in VERBS:
        parts += [f"## textenvs {verb}", fence(help_text(verb))]
    return "\n\n".join(parts) + "\n"


def help_text(verb: str) -> str:
    """What `textenvs VERB --help` prints, without colours and trailing spaces."""
    from agents.cli import main

    printed = io.StringIO()
    known = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDTH)
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([verb, "--help"])
    finally:
        if known is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = known
    plain = re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue())
    return "\n".join(line.rstrip() for line in plain.strip().splitlines())


def nav_envs() -> str:
    """The environments' pages in mkdocs.yml, by family."""
    lines = []
    for family in dict.fromkeys(entry.family for entry in textenvs.ENTRIES):
        lines.append(f"      - {family.capitalize()}:")
        of_family = [entry for entry in textenvs.ENTRIES if entry.family == family]
        lines += [
            f"          - {entry.id.split('/')[-1].removesuffix('-v0')}: envs/{slug(entry.id)}.md"
            for entry in of_family
        ]
    return "\n".join(lines)


def nav_rewards() -> str:
    """The rewards' pages in mkdocs.yml."""
    return "\n".join(f"      - {name}: rewards/{name}.md" for name in reward_pages.classes())


def nav_plug_in() -> str:
    """The guides for other libraries in mkdocs.yml, by their titles."""
    return "\n".join(f"      - {title}: plug_in/{path.name}" for title, path in _guides())


def _guides() -> list[tuple[str, Path]]:
    """Title and file of each guide."""
    found = [path for path in DOCS.glob("plug_in/*.md") if path.stem != "index"]
    return sorted((re.findall(r"^# (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)[0], path) for path in found)


def examples(*names: str) -> str:
    """Links to the runnable files of a guide, each with the row of the record that `make interop` keeps."""
    rows = [row for row in _interop() if row["example"] in names]
    header = ("example", "observation", "mask", "autoreset", "episodes", "mean return", "seconds")
    cells = [
        [
            code(f"examples/{row['example']}.py"),
            *(row[key] for key in header[1:4]),
            f"{int(row['episodes']):,}",
            f"{float(row['mean_return']):.3f}",
            f"{float(row['seconds']):.0f}",
        ]
        for row in rows
    ]
    files = "\n\n".join(f'```{{.python}}\n--8<-- "examples/{row["example"]}.py"\n```' for row in rows)
    return f"\n{table(header, cells)}\n\n{files}\n" if rows else ""


def interop() -> str:
    """What each library saw of the envs and what they counted, from the record that `make interop` keeps."""
    rows = []
    for row in _interop():
        agree = all(_close(row[f"{what}_env"], row[f"{what}_library"]) for what in ("episodes", "steps", "return"))
        cells = [
            f"{row['library']} {row['version']}",
            code(row["example"]),
            row["observation"],
            row["mask"],
            row["autoreset"],
        ]
        rows.append([*cells, f"{int(row['episodes']):,}", f"{float(row['mean_return']):.3f}", "yes" if agree else "no"])
    header = (
        "library",
        "example",
        "observation",
        "mask",
        "autoreset",
        "episodes",
        "mean return",
        "counts agree",
    )
    return f"\n{table(header, rows)}\n"


def _close(ours: str, theirs: str) -> bool:
    """Equal up to the rounding of a library that sums in float32."""
    return math.isclose(float(ours), float(theirs), rel_tol=1e-6)


def screenshots() -> str:
    """The pictures in screenshots/, by name."""
    pictures = sorted((DOCS / "screenshots").glob("*.png"))
    return "\n" + "\n\n".join(f"![{path.stem.replace('-', ', ')}](screenshots/{path.name})" for path in pictures) + "\n"


def _interop() -> list[dict[str, str]]:
    with (DOCS / "interop.csv").open(encoding="utf-8", newline="") as file:
        return sorted(csv.DictReader(file), key=lambda row: row["example"])


BLOCKS: dict[str, Callable[..., str]] = {
    "coefficients": coefficients,
    "metrics": metrics,
    "results": results,
    "algorithms": algorithm_table,
    "reward_links": lambda: "\n" + reward_pages.links() + "\n",
    "nav_envs": nav_envs,
    "nav_rewards": nav_rewards,
    "nav_plug_in": nav_plug_in,
    "examples": examples,
    "interop": interop,
    "screenshots": screenshots,
}


def main() -> None:
    """Write the stale pages, or name them."""
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        raise SystemExit(f"generate.py takes --check or nothing, got {' '.join(sys.argv[1:])}")
    made = pages()
    stale = []
    for path, make in made.items():
        text = make()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
            if not check:
                path.write_text(text, encoding="utf-8")
    extra = [path for folder in ("envs", "rewards") for path in DOCS.glob(f"{folder}/*.md") if path not in made]
    for path in stale:
        print("stale" if check else "written", path.relative_to(ROOT))
    for path in extra:
        print("of nothing that exists:", path.relative_to(ROOT))
    if extra or (check and stale):
        raise SystemExit("run python docs/generate.py")


if __name__ == "__main__":
    main()
