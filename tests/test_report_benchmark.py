"""The report of a benchmark without a browser: its statistics, failed jobs, and results of different sources."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import run
from report_pages import Reader
from report_runs import benchmark_row, write_benchmark

from agents.report.markdown import to_markdown
from agents.report.page import render
from agents.report.write import gather


def benchmark_rows(**more: Any) -> list[dict[str, Any]]:
    scores = {"ppo": 0.92, "a2c": 0.4}
    return [
        benchmark_row(name, env_id, seed, scores[name] + 0.01 * seed, **more)
        for name in scores
        for env_id in ("textenvs/Copy-v0", "textenvs/Sort-v0")
        for seed in range(4)
    ]


def test_the_page_of_a_benchmark_holds_what_its_statistics_say(tmp_path: Path) -> None:
    rows = benchmark_rows()
    rows[0].update(status="failed", error="it broke", score=None, final_return=None)
    data = gather([write_benchmark(tmp_path / "out", rows)])
    assert data["subject"] == "2 agents in 2 environments, 16 jobs; the best that learns is ppo"
    assert data["summary"].startswith("its interquartile mean score is 0.938 [")
    assert data["summary"].endswith("one job failed.")
    assert data["marks"] == []
    ppo, a2c = data["agents"]
    assert (ppo["agent"], ppo["jobs"], ppo["reached"]) == ("ppo", [8, 1], [7, 7])
    # Of seven scores the lowest and the highest are left out: 0.92, 0.93, 0.93, 0.94, 0.94, 0.95, 0.95.
    assert ppo["iqm"][0] == pytest.approx(np.mean([0.93, 0.93, 0.94, 0.94, 0.95]))
    assert ppo["iqm"][1] <= ppo["iqm"][0] <= ppo["iqm"][2]
    assert ppo["gap"][0] == pytest.approx(1 - np.mean([0.92, 0.93, 0.93, 0.94, 0.94, 0.95, 0.95]))
    assert ppo["episodes"] == 4000 - 2000 * 0.94
    assert (a2c["reached"], a2c["episodes"], a2c["seconds"]) == ([0, 8], None, None)
    assert data["failures"] == [["ppo", "textenvs/Copy-v0", "0", "it broke"]]
    (profile,) = [line["points"] for line in data["profiles"] if line["name"] == "ppo"]
    assert [point[1] for point in profile if point[0] in (0.9, 0.94, 0.96)] == [
        1.0,
        pytest.approx(2 / 7, abs=1e-4),
        0.0,
    ]
    assert [title for title, _ in data["growth"]] == ["all environments", "textenvs/Copy-v0", "textenvs/Sort-v0"]
    (name, series), _ = data["growth"][2][1]
    assert (name, [line["name"] for line in series]) == ("episodes", ["ppo", "a2c"])
    x, y, low, high = series[0]["points"][-1]
    assert (x, y) == (4000, pytest.approx(0.935 * (1 - math.exp(-10 / 3)), abs=1e-3))
    assert low <= y <= high
    page = Reader(render(data))
    assert [a["aria-sort"] for tag, a in page.tags if tag == "th" and "aria-sort" in a] == ["descending"]
    assert "| `ppo` | 0.938 [" in to_markdown(data)


def test_where_nobody_learnt_nothing_is_drawn_of_learning(tmp_path: Path) -> None:
    """As when the one agent that would learn failed everywhere, and random was measured."""
    rows = [benchmark_row("random", "textenvs/Copy-v0", seed, 0.0, episodes=0) for seed in range(2)]
    failed = {"status": "failed", "error": "it broke", "score": None, "final_return": None}
    rows += [benchmark_row("ppo", "textenvs/Copy-v0", seed, 0.0) | failed for seed in range(2)]
    data = gather([write_benchmark(tmp_path / "out", rows)])
    assert data["subject"] == "2 agents in 1 environment, 4 jobs; no agent here has learnt, and the best is random"
    assert data["growth"] == []
    assert "growth" not in {a.get("id") for _, a in Reader(render(data)).tags}
    assert [line["name"] for line in data["profiles"]] == ["random"]
    alone = gather([write_benchmark(tmp_path / "failed", rows[2:])])
    assert (alone["growth"], alone["profiles"]) == ([], [])
    assert alone["subject"] == "1 agent in 1 environment, 2 jobs; no agent has a score; the first is ppo"
    assert "profiles" not in {a.get("id") for _, a in Reader(render(alone)).tags}


def test_runs_that_did_not_get_there_count_as_later(tmp_path: Path) -> None:
    """Two of five reached the threshold: half of them never did, so nobody knows the median."""
    rows = [benchmark_row("ppo", "textenvs/Copy-v0", seed, 0.95 if seed < 2 else 0.5) for seed in range(5)]
    (agent,) = gather([write_benchmark(tmp_path / "two", rows)])["agents"]
    assert (agent["reached"], agent["episodes"], agent["seconds"]) == ([2, 5], None, None)
    rows[2] = benchmark_row("ppo", "textenvs/Copy-v0", 2, 0.91)
    (agent,) = gather([write_benchmark(tmp_path / "three", rows)])["agents"]
    (line,) = gather([write_benchmark(tmp_path / "one", rows[:1])])["profiles"]
    assert line["points"][0] == [0.0, 1.0, None, None]  # of a single run there is no interval
    assert (agent["reached"], agent["episodes"]) == ([3, 5], 4000 - 2000 * 0.91)
    # Of eight runs the interval is from the first to the last, and the last never got there.
    rows = [benchmark_row("ppo", "textenvs/Copy-v0", seed, 0.95 if seed < 6 else 0.5) for seed in range(8)]
    (result,) = gather([write_benchmark(tmp_path / "eight", rows)])["results"]
    assert result["episodes"] == [2100.0, 2100.0, None]


def test_results_of_different_sources_are_marked(tmp_path: Path) -> None:
    rows = benchmark_rows()
    rows[3].update(commit="def", date="2026-11-23 10:00")
    rows[-1].update(settings_sha256="2")
    data = gather([write_benchmark(tmp_path / "out", rows)])
    assert [mark.split(";")[0] for mark in data["marks"]] == [
        "results of different commits, versions or machines stand side by side",
        "a2c: jobs of 2 different settings",
    ]
    assert [(row["agent"], row["sources"]) for row in data["agents"]] == [("ppo", "a b"), ("a2c", "a")]
    assert [(source["letter"], source["commit"]) for source in data["sources"]] == [("a", "abc"), ("b", "def")]


def test_agents_with_fewer_jobs_are_marked(tmp_path: Path) -> None:
    data = gather([write_benchmark(tmp_path / "out", benchmark_rows()[1:])])
    assert [mark.split(":")[0] for mark in data["marks"]] == ["3 to 4 jobs an agent and environment"]


def test_an_empty_benchmark_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_benchmark(tmp_path / "empty", [])
    (tmp_path / "none" / "jobs").mkdir(parents=True)
    for name in ("empty", "none"):
        assert run("report", str(tmp_path / name)) == 2
        assert capsys.readouterr().err.endswith("; run `textenvs benchmark` first\n")
    (tmp_path / "empty" / "results.csv").write_text("agent\nppo\n")
    assert run("report", str(tmp_path / "empty")) == 2
    assert "results.csv must be what a benchmark wrote, got" in capsys.readouterr().err
