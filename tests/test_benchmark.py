"""Benchmarks: jobs that are never run twice, budgets and scores that compare, failures, and results that are mixed."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarked import COPY, TINY, run

import textenvs
from agents.benchmark import jobs, run_benchmark
from agents.benchmark.agents import Curve, find_agent
from agents.benchmark.jobs import Job, Scale, run_job, scale_of
from agents.benchmark.results import COLUMNS, bin_curve, env_slug, read_results, slug, write_tables
from agents.benchmark.tables import cells, markdown, notes, summarise, tables
from agents.policy import OraclePolicy
from agents.report import benchmark_data
from agents.suites import SuiteEnv, load_suite


def test_a_finished_job_is_never_run_again(tmp_path: Path, acts: Path, inline: list[Any]) -> None:
    agents = ["random", "acts:first"]
    rows, _ = run_benchmark(TINY, agents, [0, 1], tmp_path / "out", quiet=True)
    assert len(inline) == len(rows) == 8
    assert all(row["status"] == "ok" for row in rows.values())
    again, _ = run_benchmark(TINY, agents, [0, 1], tmp_path / "out", quiet=True)
    assert again == rows
    run_benchmark(TINY, [*agents, "oracle"], [1, 2], tmp_path / "out", quiet=True)
    assert len(inline) == 8 + 2 * 2 + 2 * 2  # a new seed of both, and two of the new agent
    assert len(set(inline)) == len(inline)
    noted = json.loads((tmp_path / "out" / "suite.json").read_text())
    assert (noted["agents"], noted["seeds"]) == (["random", "acts:first", "oracle"], [0, 1, 2])


def test_the_two_tables_alone_are_enough_to_go_on(tmp_path: Path, inline: list[Any]) -> None:
    """As in a repository that holds results.csv and curves.csv, but no jobs/."""
    settings = replace(TINY, num_episodes=64)
    rows, curves = run_benchmark(settings, ["random", "ppo"], [0], tmp_path / "out", quiet=True)
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("results.csv", "curves.csv", "suite.json"):
        (moved / name).write_bytes((tmp_path / "out" / name).read_bytes())
    del inline[:]
    read, read_curves = run_benchmark(settings, ["random", "ppo"], [0, 1], moved, quiet=True)
    assert {key[2] for key in inline} == {1}
    assert len(inline) == 4
    for key, row in rows.items():
        found = read[key]
        assert set(found) == set(COLUMNS)
        for name, value in row.items():
            assert found[name] == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value), name
        assert len(read_curves.get(key, [])) == len(curves[key])
    before = (moved / "results.csv").read_bytes()
    write_tables(moved, *read_results(moved))
    assert (moved / "results.csv").read_bytes() == before


def test_other_settings_make_a_result_stale(tmp_path: Path, inline: list[Any]) -> None:
    short = replace(TINY, num_episodes=64, settings={"ppo": {"num_epochs": 1}})
    run_benchmark(short, ["random", "ppo"], [0], tmp_path / "out", quiet=True)
    del inline[:]
    other = replace(short, settings={"ppo": {"num_epochs": 2}})
    with pytest.warns(UserWarning, match="2 finished jobs had other settings than ppo has now: run again"):
        rows, _ = run_benchmark(other, ["random", "ppo"], [0], tmp_path / "out", quiet=True)
    assert {key[0] for key in inline} == {"ppo"}
    assert len(rows) == 4
    with pytest.raises(
        ValueError, match=r"budget_episodes must be that of the benchmark in .*out, 64, got 65; name an"
    ):
        run_benchmark(replace(other, num_episodes=65), ["ppo"], [0], tmp_path / "out", quiet=True)


def test_an_option_that_is_off_is_no_setting() -> None:
    """So that a new one makes no finished job stale; switched on it does."""
    off, on = (find_agent("ppo", {"fit_value_bias": value}).settings["algorithm"] for value in (False, True))
    assert off == find_agent("ppo", {}).settings["algorithm"]
    assert on == off | {"fit_value_bias": True}
    imitating = find_agent("ppo", {"imitation_coef": 0.5}).settings["algorithm"]
    assert imitating == off | {"imitation_coef": 0.5, "imitated_episodes": 32}
    assert find_agent("ppo", {"imitated_episodes": 8}).settings["algorithm"] == off
    assert find_agent("ppo", {"learning_starts": 0}).settings["algorithm"] == off
    assert find_agent("ppo", {"learning_starts": 64}).settings["algorithm"] == off | {"learning_starts": 64}


def test_a_failed_job_is_a_row_and_stops_no_other(
    tmp_path: Path, acts: Path, inline: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"textenvs/Copy-v0{json.dumps(COPY)}", "--agents", "acts:broken,random", "--seeds", "2"]
    arguments += ["--out", str(tmp_path / "out")]
    assert run(*arguments) == 1
    shown = capsys.readouterr()
    assert "acts:broken on textenvs/Copy-v0, seed 1, failed: ZeroDivisionError: a line and another" in shown.err
    assert "textenvs: 2 of 4 jobs failed" in shown.err
    assert shown.err.endswith("the same command with --retry-failed runs them again\n")
    assert "2, 2 failed" in shown.out
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["agent"], row["status"]) for row in rows] == [("acts:broken", "failed")] * 2 + [("random", "ok")] * 2
    assert "Traceback" in next((tmp_path / "out").glob("jobs/acts*/*/seed_0/log.txt")).read_text()
    assert run(arguments[0], "--agents", "acts:broken", "--seeds", "1", "--out", str(tmp_path / "broken")) == 1
    del inline[:]
    assert run(*arguments) == 1
    assert not inline
    capsys.readouterr()
    assert run(*arguments, "--retry-failed", "--json") == 1
    assert [key[0] for key in inline] == ["acts:broken"] * 2
    summary = json.loads(capsys.readouterr().out)
    assert {agent["agent"]: agent["num_failed"] for agent in summary["agents"]} == {"acts:broken": 2, "random": 0}


def test_each_job_is_a_whole_line_where_there_is_no_terminal(
    tmp_path: Path, inline: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    env = SuiteEnv("textenvs/Copy-v0", COPY | {"max_new_tokens": 3})
    run_benchmark(replace(TINY, envs=(env,)), ["oracle"], [0], tmp_path / "out")
    rows, _ = run_benchmark(replace(TINY, envs=(env,)), ["oracle"], [0, 1], tmp_path / "out")
    title = 'textenvs/Copy-v0{"alphabet":"abcd","dense":true,"length":2,"max_new_tokens":3}'
    said = [f"{k + 1}/{k + 1} oracle {title} seed {k}: final return 1.000\n" for k in range(2)]
    assert capsys.readouterr().err == "".join(said)
    assert len(rows) == 2


def test_lists_of_ids_do_not_share_a_directory(tmp_path: Path, inline: list[Any]) -> None:
    lists = ["textenvs/Copy-v0", "textenvs/Copy-v0,textenvs/Sort-v0", 'textenvs/Copy-v0{"length":3}']
    names = [load_suite(ids).name for ids in lists]
    assert len(set(names)) == 3
    assert [name.rpartition("-")[0] for name in names] == ["Copy", "Copy-Sort", "Copy"]
    assert load_suite(lists[0]).name == names[0]
    run_benchmark(replace(TINY, envs=TINY.envs[:1]), ["random"], [0], tmp_path / "out", quiet=True)
    said = r"envs must be that of .*out, textenvs-Copy-v0-\w{8}, got textenvs-Reverse-v0-\w{8}; name another --out"
    with pytest.raises(ValueError, match=said):
        run_benchmark(replace(TINY, envs=TINY.envs[1:]), ["random"], [0], tmp_path / "out", quiet=True)


def test_seeds_are_paired_and_scores_are_between_random_and_optimal(
    tmp_path: Path, acts: Path, inline: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same seed gives every agent the same held-out problems, another seed others."""
    from agents import rollout

    problems: list[list[int]] = []
    returns: list[float] = []
    collect = rollout.collect

    def watched(*arguments: Any, **settings: Any) -> Any:
        result = collect(*arguments, **settings)
        problems.append([int(info["problem"]) for info in result.infos])
        returns.append(float(result.returns.mean()))
        return result

    monkeypatch.setattr(rollout, "collect", watched)
    suite = replace(TINY, envs=TINY.envs[:1])
    rows, _ = run_benchmark(suite, ["oracle", "acts:first"], [0, 1], tmp_path / "out", quiet=True)
    assert problems[0] == problems[1] == problems[2] == problems[3]  # sampled and greedy of both
    assert problems[4] == problems[7] != problems[0]
    assert rows["oracle", env_slug(suite.envs[0]), 0]["score"] == 1.0
    row = rows["acts:first", env_slug(suite.envs[0]), 0]
    assert row["final_return"] == row["final_return_greedy"] == pytest.approx(returns[2])
    assert row["score"] == pytest.approx((row["final_return"] - row["random_return"]) / (1 - row["random_return"]))
    assert row["split"] == "heldout"


def test_the_budget_ends_ours_and_theirs_alike(tmp_path: Path, inline: list[Any]) -> None:
    suite = replace(TINY, envs=TINY.envs[:1], num_episodes=150, settings={"ppo": {"episodes_per_update": 64}})
    rows, curves = run_benchmark(suite, ["ppo", "sb3-a2c"], [0], tmp_path / "out", quiet=True)
    assert [row["episodes"] for row in rows.values()] == [150, 150]
    assert all(row["seconds"] > 0 and row["wall_seconds"] > 0 and row["threads"] == 1 for row in rows.values())
    assert all(len(curve) == 50 and curve[-1][0] == 150 for curve in curves.values())
    short = replace(suite, seconds=1e-6)
    rows, _ = run_benchmark(short, ["ppo", "sb3-a2c"], [0], tmp_path / "short", quiet=True)
    assert [row["episodes"] for row in rows.values()] == [64, 1]  # an update of ours, an episode of theirs


def test_a_threshold_is_counted_by_episode(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """128 episodes of return 1 from the 101st on: reached with the 228th, whose CPU time counts."""

    def pretend(agent: Any, env_id: str, kwargs: Any, seed: int, curve: Curve) -> Any:
        curve.note([0.0] * 100)
        curve.seconds[:] = [1.0] * 100
        curve.note([1.0] * 200)
        curve.seconds[100:] = [2.0 + i for i in range(200)]
        return TwoFaced

    monkeypatch.setattr(jobs, "trained", pretend)
    job = Job("s", find_agent("ppo", {}), TINY.envs[0], Scale(0.0, 1.0, "optimal"), 0, 10**6, 10**6)
    row = run_job(job, tmp_path / "job")
    assert (row["threshold"], row["episodes_to_threshold"], row["seconds_to_threshold"]) == (0.95, 222, 123.0)
    assert row["final_return_greedy"] == 1.0 > row["final_return"] == row["score"]
    row = run_job(replace(job, scale=Scale(0.0, 2.0, "range")), tmp_path / "other")
    assert (row["episodes_to_threshold"], row["seconds_to_threshold"]) == (None, None)
    assert row["optimal_from"] == "range"


class TwoFaced(OraclePolicy):
    """Writes the reference when greedy, and the first symbol again and again when sampled."""

    def act(self, *arguments: Any, greedy: bool = False) -> Any:
        decisions = super().act(*arguments, greedy=greedy)
        return decisions if greedy else replace(decisions, actions=np.zeros_like(decisions.actions))


def test_a_corrupt_result_is_named(tmp_path: Path, inline: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"textenvs/Copy-v0{json.dumps(COPY)}", "--agents", "random", "--seeds", "1", "--out", str(tmp_path)]
    assert run(*arguments) == 0
    path = next(tmp_path.glob("jobs/*/*/*/result.json"))
    good = path.read_text()
    wrongs = ["{", "[]", good.replace('"ok"', '"OK"'), good.replace('"seed": 0', '"seed": 7'), "[" * 100_000]
    wrongs += [good.replace('"seed": 0', '"seed": "0"'), good.replace('"final_return"', '"final"')]
    for wrong in wrongs:
        path.write_text(wrong)
        capsys.readouterr()
        assert run(*arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"textenvs: {path} must be what a benchmark wrote, got ")
        assert said.endswith("; delete its folder to run the job again\n")
    path.write_text(good)
    (tmp_path / "results.csv").write_text("suite,agent\na,b\n")
    assert run(*arguments) == 2
    assert f"{tmp_path}/results.csv must be what a benchmark wrote" in capsys.readouterr().err


def test_scores_on_training_problems_say_so(tmp_path: Path, inline: list[Any]) -> None:
    """As of a task of one's own, whose problems are all of one split."""
    rows, _ = run_benchmark(TINY, ["random"], [0], tmp_path / "out", quiet=True)
    assert summarise(rows)["without_heldout"] == []
    key, other, *_ = rows
    summary = summarise({**rows, key: rows[key] | {"split": "train"}})
    env_id = rows[key]["env_id"]
    said = f"{env_id} has no held-out problems: its scores are of the problems that were trained on"
    assert said in notes(summary)
    assert said in markdown(summary)
    assert "sampled policy on held-out problems." in notes(summarise(rows))[0]
    assert "sampled policy on held-out problems, where there are any." in notes(summary)[0]
    alone = summarise({key: rows[key] | {"split": "train"}, other: rows[other] | {"status": "failed", "split": None}})
    assert "sampled policy on training problems." in notes(alone)[0]
    # One id with and without held-out problems.
    same = {k: row | {"env_id": env_id, "split": "train" if k == key else "heldout"} for k, row in rows.items()}
    assert "sampled policy on held-out problems, where there are any." in notes(summarise(same))[0]
    assert benchmark_data._marks(summary, rows) == [said]


def test_mixed_commits_are_marked(tmp_path: Path, inline: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    suite = replace(TINY, envs=TINY.envs[:1])
    known = jobs.environment()
    for seed, commit in enumerate(("aaaaaaa", "bbbbbbb")):
        monkeypatch.setattr(jobs, "environment", lambda commit=commit: known | {"commit": commit})
        rows, _ = run_benchmark(suite, ["random", "oracle"][: 2 - seed], [seed], tmp_path / "out", quiet=True)
        summary = summarise(rows)
        assert summary["is_mixed"] == (seed == 1)
        assert (cells(summary)[0][-1] == "from") == (seed == 1)
    sources = {agent["agent"]: agent["sources"] for agent in summary["agents"]}
    assert sources == {"random": ["a", "b"], "oracle": ["a"]}
    said = "\n".join(notes(summary))
    assert "MIXED" in said
    assert "a: commit aaaaaaa" in said
    assert "b: commit bbbbbbb" in said
    assert "| random | 2 |" in markdown(summary)
    assert len(tables(summary)) >= 4


def test_bins_are_consecutive_means() -> None:
    assert bin_curve([0.0, 1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0, 5.0], 2) == [(2, 2.0, 0.5), (5, 5.0, 3.0)]
    assert bin_curve([1.0], [2.0]) == [(1, 2.0, 1.0)]
    assert bin_curve([], []) == []
    assert len(bin_curve([0.0] * 1000, [0.0] * 1000)) == 50


def test_folders_of_different_jobs_differ() -> None:
    names = ["ppo", "a/b.zip", "a-b.zip", "../b.zip", "m:act", "m-act", "A" * 300, "A" * 301]
    assert len({slug(name) for name in names}) == len(names)
    assert all("/" not in slug(name) and len(slug(name)) < 80 for name in names)
    assert slug("ppo") == "ppo"
    assert env_slug(SuiteEnv("textenvs/Copy-v0")) == "textenvs-Copy-v0"
    assert env_slug(SuiteEnv("textenvs/Copy-v0", {"length": 2})) != env_slug(
        SuiteEnv("textenvs/Copy-v0", {"length": 3})
    )


def test_the_scale_is_exact_where_it_can_be() -> None:
    assert scale_of(SuiteEnv("textenvs/Copy-v0", COPY)) == Scale(
        pytest.approx(textenvs.anchors(textenvs.Rules(task="copy", **COPY)).random), 1.0, "optimal"
    )
    assert scale_of(SuiteEnv("TextGen-v0")).optimal_from == "range"
    assert Scale(0.5, 1.5, "optimal").threshold == 1.45
    assert Scale(0.5, 0.5, "optimal").threshold is None
    assert Scale(0.5, 0.5, "optimal").score(0.7) is None
    assert Scale(0.0, 2.0, "optimal").score(0.5) == 0.25


def test_a_column_has_the_short_name_of_its_environment(tmp_path: Path, inline: list[Any]) -> None:
    rows, _ = run_benchmark(TINY, ["random"], [0], tmp_path / "out", quiet=True)
    assert cells(summarise(rows))[0][4:] == ["Copy", "Reverse"]
    own = {key: row | {"env_id": row["env_id"].replace("textenvs/", "mine:")} for key, row in rows.items()}
    assert cells(summarise(own))[0][4:] == ["Copy", "Reverse"]
    alike = {key: row | {"env_id": "mine:Copy-v0"} for key, row in rows.items()}
    assert cells(summarise(alike))[0][4:] == [key[1] for key in rows]


def test_a_job_that_nobody_asked_for_again_fails_no_command(
    tmp_path: Path, acts: Path, inline: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"textenvs/Copy-v0{json.dumps(COPY)}", "--out", str(tmp_path / "out"), "--seeds", "1"]
    assert run(*arguments, "--agents", "acts:broken,random") == 1
    assert "textenvs: 1 of 2 jobs failed" in capsys.readouterr().err
    assert run(*arguments, "--agents", "random") == 0
    assert "acts:broken on textenvs/Copy-v0, seed 0, failed" in capsys.readouterr().err


def test_a_list_of_ids_from_before_lists_had_names_goes_on(tmp_path: Path, inline: list[Any]) -> None:
    suite = load_suite(f"textenvs/Copy-v0{json.dumps(COPY)}")
    run_benchmark(suite, ["random"], [0], tmp_path / "out", quiet=True)
    path = tmp_path / "out" / "suite.json"
    path.write_text(path.read_text().replace(suite.name, "own"), encoding="utf-8")
    rows, _ = run_benchmark(suite, ["random"], [0, 1], tmp_path / "out", quiet=True)
    assert [key[2] for key in inline] == [0, 1]
    assert len(rows) == 2


def test_a_hostile_directory_says_nothing_to_the_terminal(
    tmp_path: Path, inline: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out, env = tmp_path / "out", f"textenvs/Copy-v0{json.dumps(COPY)}"
    run_benchmark(load_suite(env), ["random"], [0], out, quiet=True)
    path = out / "suite.json"
    noted = json.loads(path.read_text())
    noted["envs"][0] |= {"slug": "\x1b]0;pwned\x07\x1b[2J", "id": "other"}
    path.write_text(json.dumps(noted), encoding="utf-8")
    assert run(env, "--agents", "random", "--seeds", "1", "--out", str(out)) == 2
    said = capsys.readouterr().err
    assert r"\x1b]0;pwned\x07" in said
    assert "\x1b" not in said
