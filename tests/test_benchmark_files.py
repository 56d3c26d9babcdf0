"""Benchmarks: files and modules that anybody may have edited are refused by line and column, or shown as they are."""

from __future__ import annotations

import csv
import json
import re
import sys
import zipfile
from html import unescape
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from benchmarked import COPY, run
from markdown_it import MarkdownIt
from report_runs import benchmark_row, write_benchmark

from agents.benchmark import picture, read_results
from agents.benchmark.agents import _zip_policy, find_agent
from agents.benchmark.results import _REQUIRED, _REQUIRED_OF_OK, COLUMNS, job_folder, key_of, write_job
from agents.benchmark.tables import markdown, summarise
from agents.runlock import run_lock
from agents.train import make_envs

ROWS = [benchmark_row("ppo", "textenvs/Copy-v0", seed, 0.95) for seed in range(2)]
HUGE = "9" * 400


def refused(out: Path) -> str:
    """What the one sentence says of a file, without its beginning and end."""
    with pytest.raises(ValueError, match="must be what a benchmark wrote, got ") as caught:
        read_results(out)
    said = str(caught.value)
    assert said.endswith(("; restore it", "; delete its folder to run the job again"))
    assert said.count("\n") == 0
    assert len(said) < 400
    return said.partition(", got ")[2].rpartition("; ")[0]


@pytest.mark.parametrize(
    ("column", "text"),
    [
        *[("seed", "x"), ("seed", "1.5"), ("seed", "-3"), ("seed", "1" * 5000), ("episodes", HUGE), ("episodes", "-5")],
        *[("final_return", "nan"), ("score", "inf"), ("score", "1e308"), ("score", HUGE), ("seconds", "-1")],
        *[("threshold", "=1+1"), ("status", "OK"), ("versions", "7"), ("env_kwargs", "[]")],
    ],
)
def test_a_cell_that_nobody_wrote_is_named(column: str, text: str, tmp_path: Path) -> None:
    out = write_benchmark(tmp_path / "out", ROWS)
    with (out / "results.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    lines[1][column] = text
    with (out / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    assert refused(out) == f"{column} {text[:80]!r} in line 3"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("machine,", "engine,", "no column 'machine'"),
        (",", ";", "no column 'suite'"),
        ("a machine", "a,machine", "more or fewer cells than columns in line 2"),
        (",1,,,\n", ",1\n", "more or fewer cells than columns in line 2"),
        ("{}", "[" * 100_000, "JSON that is nested too deeply in line 2"),
        ("{}", '"{""a"": NaN}"', "NaN, which is no number in line 2"),
        ("4000,45.0", ",45.0", "no budget_episodes in line 2"),
    ],
)
def test_a_table_that_nobody_wrote_is_named(old: str, new: str, said: str, tmp_path: Path) -> None:
    out = write_benchmark(tmp_path / "out", ROWS)
    path = out / "results.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert refused(out) == said
    path.write_text("")
    assert refused(out) == "no column 'suite'"


def test_a_job_stands_in_a_table_once_and_a_spreadsheets_mark_is_no_column(tmp_path: Path) -> None:
    out = write_benchmark(tmp_path / "out", ROWS)
    path = out / "results.csv"
    rows = read_results(out)[0]
    text = path.read_text()
    path.write_text("\ufeff" + text.replace("\n", "\r\n"), newline="")
    assert read_results(out)[0] == rows
    path.write_text(text + text.splitlines()[-1] + "\n")
    assert refused(out) == "two lines of the job ppo/textenvs-Copy-v0/1"


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ("10,nan,0.5", "seconds 'nan'"),
        ("10,1,inf", "final_return 'inf'"),
        (f"{HUGE},1,0.5", f"episodes '{HUGE[:80]}'"),
        ("-5,1,0.5", "episodes '-5'"),
        ("10,1", "more or fewer cells than columns"),
    ],
)
def test_a_point_of_a_curve_that_nobody_wrote_is_named(point: str, said: str, tmp_path: Path) -> None:
    out = write_benchmark(tmp_path / "out", ROWS)
    (out / "curves.csv").write_text(f"agent,env,seed,episodes,seconds,return\nppo,textenvs-Copy-v0,0,{point}\n")
    assert refused(out) == f"{said} in line 2"
    folder = job_folder(tmp_path / "jobs", key_of(ROWS[0]))
    write_job(folder, ROWS[0], [])
    (folder / "curve.csv").write_text(f"episodes,seconds,return\n{point}\n")
    assert refused(tmp_path / "jobs") == f"{said} in line 2"


@pytest.mark.parametrize("change", [{"score": float("nan")}, {"episodes": 10**400}, {"date": 3}, {"seconds": None}])
def test_a_result_that_nobody_wrote_is_named(change: dict[str, Any], tmp_path: Path) -> None:
    folder = job_folder(tmp_path, key_of(ROWS[0]))
    write_job(folder, ROWS[0], [])
    (folder / "result.json").write_text(json.dumps(ROWS[0] | change))
    assert next(iter(change)) in refused(tmp_path) or refused(tmp_path) == "NaN, which is no number"


def test_a_result_without_what_it_need_not_have_is_shown_without_it(tmp_path: Path) -> None:
    row = {name: value for name, value in ROWS[0].items() if name in (*_REQUIRED, *_REQUIRED_OF_OK)}
    write_job(job_folder(tmp_path, key_of(row)), row, [])
    rows, _ = read_results(tmp_path)
    assert list(rows[key_of(row)]) == list(COLUMNS)
    assert markdown(summarise(rows)).startswith("| agent |")


def test_names_are_shown_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No escape reaches the terminal, a formula of Matplotlib is text, and no agent is missing in the legend."""
    names = ["_mine:act", "a$\\frac{$b", "=1+1", "\x1b[31mred", "a\nb"]
    rows = [benchmark_row(name, "textenvs/Copy-v0", seed, 0.5, commit=name) for name in names for seed in range(2)]
    found, curves = read_results(write_benchmark(tmp_path / "out", rows))
    assert {key[0] for key in found} == set(names)
    summary = summarise(found)
    text = markdown(summary)
    assert "\x1b" not in text
    assert [line.split("|")[1].strip() for line in text.splitlines()[2:7]] == [
        "\\x1b[31mred" if name == names[3] else "a\\nb" if name == names[4] else name
        for name in (agent["agent"] for agent in summary["agents"])
    ]
    figures: list[Any] = []
    savefig = picture.Figure.savefig
    monkeypatch.setattr(picture.Figure, "savefig", lambda *a, **k: figures.append(a[0]) or savefig(*a, **k))
    picture.draw(summary, found, curves, tmp_path / "a.png")
    (legend,) = figures[0].legends
    assert len(legend.get_texts()) == len(names)
    assert not any("\x1b" in entry.get_text() for entry in legend.get_texts())


NAMES = [
    "<img src=x>",
    "[a](http://x)",
    "![a](http://x)",
    "*a*b*",
    "`a`",
    "a|b",
    "\\<b>\\[a](b)",
    "<http://x>",
    "&lt;b&gt;",
]
NAMES += [
    "[1](http://x)",
    "![1](http://x)",
    "\\[1](x)",
    "_a_",
    "mine:_agent_",
    "mine:__init__",
    "~~a~~",
    "_a_:b",
    "[a]",
]


@pytest.mark.parametrize("name", NAMES)
def test_markdown_shows_a_name_as_text(name: str, tmp_path: Path) -> None:
    """In the table, and beside it: a row of two commits, of which one is the name, has a note."""
    rows = [benchmark_row(name, "textenvs/Copy-v0", seed, 0.5, commit=[name, "b"][seed]) for seed in range(2)]
    summary = summarise(read_results(write_benchmark(tmp_path / "out", rows))[0])
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown(summary))
    assert {tag.split()[0] for tag in re.findall("<(/?[^>]+)>", html)} <= {
        f"{end}{tag}" for end in ("", "/") for tag in ("table", "thead", "tbody", "tr", "th", "td", "p")
    }
    cell = html.partition("<tbody>")[2].partition("<td>")[2].partition("</td>")[0]
    assert unescape(cell) == name
    assert f"commit {name};" in unescape(html)


def test_without_matplotlib_the_picture_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "agents.benchmark.picture")
    with pytest.raises(ImportError, match=r'needs matplotlib; pip install "textenvs\[report\]"'):
        import_module("agents.benchmark.picture")


def test_a_benchmark_against_nobody_does_not_begin(
    tmp_path: Path, inline: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"textenvs/Copy-v0{json.dumps(COPY)}", "--agents", "random,oracle", "--against", "randmo"]
    assert run(*arguments, "--out", str(tmp_path / "out")) == 2
    assert "--against must be one of the agents, got 'randmo'; did you mean 'random'?" in capsys.readouterr().err
    assert not inline
    assert not (tmp_path / "out").exists()
    assert run(*arguments[:3], "--seeds", "2", "--out", str(tmp_path / "out")) == 0
    assert run(*arguments, "--out", str(tmp_path / "out")) == 2
    assert capsys.readouterr().err.endswith("known: oracle, random\n")


def test_a_directory_that_another_process_writes_is_named_by_its_flag(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^--out must be a directory, got"), run_lock(tmp_path / "file", "--out"):
        pass
    said = r"^--out must have one writer.* another --out$"
    with run_lock(tmp_path / "out"), pytest.raises(ValueError, match=said), run_lock(tmp_path / "out", "--out"):
        pass


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def (:", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_sentence(source: str, said: str, acts: Path) -> None:
    (acts / "broken_module.py").write_text(source)
    with pytest.raises(ValueError, match=f"agent 'broken_module:act' must be in a module .*, got {said}.*; mend it"):
        find_agent("broken_module:act", {})


@pytest.mark.parametrize("members", [None, {}, {"data": "{}", "_stable_baselines3_version": "2"}])
def test_a_zip_of_something_else_is_one_sentence(members: dict[str, str] | None, tmp_path: Path) -> None:
    path = tmp_path / "other.zip"
    path.write_bytes(b"none")
    if members is not None:
        with zipfile.ZipFile(path, "w") as file:
            for name, text in members.items():
                file.writestr(name, text)
    agent = find_agent(str(path), {}, zips_trusted=True)
    with pytest.raises(ValueError, match=r"other.zip must be what an SB3 agent's save\(\) wrote, got .*; save"):
        _zip_policy(path, agent.settings["sha256"], make_envs("textenvs/Copy-v0", 1, COPY), 0)
