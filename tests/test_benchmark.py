"""Benchmarks: jobs that are never run twice, whatever was killed; failures, mixed results and bad input by name."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import textenvs
from agents.benchmark import jobs, run_benchmark, runner, workers
from agents.benchmark.agents import NAMES, Curve, SB3Policy, find_agent
from agents.benchmark.jobs import Job, Scale, run_job, scale_of
from agents.benchmark.results import COLUMNS, bin_curve, env_slug, job_folder, read_results, slug, write_tables
from agents.benchmark.tables import cells, markdown, notes, summarise, tables
from agents.cli import main
from agents.cli_arguments import UsageError, seed_list
from agents.policy import OraclePolicy
from agents.suites import SUITES, Suite, SuiteEnv, load_suite

COPY = {"length": 2, "alphabet": "abcd", "dense": True}
TINY = Suite("tiny", (SuiteEnv("textenvs/Copy-v0", COPY), SuiteEnv("textenvs/Reverse-v0", COPY)), 256, 20.0)
ACTS = """
import os, pathlib, signal, time

HERE = pathlib.Path(__file__).parent

def first(observation):
    return 0

def broken(observation):
    raise ZeroDivisionError("a line\\nand another")

def dies_once(observation):
    marker = HERE / "died"
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 0

def dies(observation):
    os.kill(os.getpid(), signal.SIGKILL)

def slow(observation):
    time.sleep(0.003)
    return 0

def light_worker(connection, out):
    # What workers.work does, without torch: each job kills the process, or is done at once.
    from agents.benchmark.jobs import failed_row
    from agents.benchmark.results import job_folder, write_job
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        if job.agent.kind == "function":
            globals()[job.agent.name.removeprefix("acts:")](None)
        row = failed_row(job, "") | {"status": "ok", "final_return": 1.0, "episodes": 0, "score": 1.0}
        write_job(job_folder(out, job.key), row, [])
        connection.send(row)
"""


@pytest.fixture
def acts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with agents of the user's own, on the path of this process and those it starts."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "acts.py").write_text(ACTS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("acts", None)


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """Run jobs in this process; gives the keys of those that were run."""
    ran: list[tuple[str, str, int]] = []

    class Inline(workers.Workers):
        def results(self) -> Iterator[tuple[Job, dict[str, Any]]]:
            for job in self.waiting:
                ran.append(job.key)
                yield job, run_job(job, job_folder(self.out, job.key))

    monkeypatch.setattr(runner, "Workers", Inline)
    monkeypatch.setattr(jobs, "NUM_EVALUATED", 32)
    return ran


def run(*arguments: str) -> int:
    """Exit status of the command."""
    try:
        main(["benchmark", *arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


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


def test_a_failed_job_is_a_row_and_stops_no_other(
    tmp_path: Path, acts: Path, inline: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"textenvs/Copy-v0{json.dumps(COPY)}", "--agents", "acts:broken,random", "--seeds", "2"]
    arguments += ["--out", str(tmp_path / "out")]
    assert run(*arguments) == 0
    shown = capsys.readouterr()
    assert "acts:broken on textenvs/Copy-v0, seed 1, failed: ZeroDivisionError: a line and another" in shown.err
    assert "2, 2 failed" in shown.out
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["agent"], row["status"]) for row in rows] == [("acts:broken", "failed")] * 2 + [("random", "ok")] * 2
    assert "Traceback" in next((tmp_path / "out").glob("jobs/acts*/*/seed_0/log.txt")).read_text()
    assert run(arguments[0], "--agents", "acts:broken", "--seeds", "1", "--out", str(tmp_path / "broken")) == 0
    del inline[:]
    assert run(*arguments) == 0
    assert not inline
    capsys.readouterr()
    assert run(*arguments, "--retry-failed", "--json") == 0
    assert [key[0] for key in inline] == ["acts:broken"] * 2
    summary = json.loads(capsys.readouterr().out)
    assert {agent["agent"]: agent["num_failed"] for agent in summary["agents"]} == {"acts:broken": 2, "random": 0}


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


def test_a_killed_worker_is_replaced_and_its_job_run_again(
    tmp_path: Path, acts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "work", import_module("acts").light_worker)
    suite = replace(TINY, envs=TINY.envs[:1])
    agents = ["acts:dies_once", "acts:dies", "random", "oracle"]
    rows, _ = run_benchmark(suite, agents, [0], tmp_path / "out", num_workers=2, quiet=True)
    said = {key[0]: (row["status"], row["error"]) for key, row in rows.items()}
    assert said["acts:dies_once"] == said["random"] == said["oracle"] == ("ok", "")
    assert said["acts:dies"][0] == "failed"
    assert "its process died 2 times, last with exit code -9" in said["acts:dies"][1]
    assert read_results(tmp_path / "out")[0] == rows
    assert not children()


@pytest.mark.slow
def test_a_worker_that_is_killed_in_earnest_is_replaced(tmp_path: Path, acts: Path) -> None:
    suite = replace(TINY, envs=TINY.envs[:1])
    rows, _ = run_benchmark(suite, ["acts:dies_once", "acts:dies", "random"], [0], tmp_path / "out", quiet=True)
    assert {key[0]: row["status"] for key, row in rows.items()} == {
        "acts:dies_once": "ok",
        "acts:dies": "failed",
        "random": "ok",
    }
    assert not children()


@pytest.mark.parametrize(
    ("number", "wanted"), [(signal.SIGKILL, -9), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_killed_benchmark_leaves_no_process_and_goes_on(
    number: int, wanted: int, tmp_path: Path, acts: Path, inline: list[Any]
) -> None:
    """Killed, or stopped by Ctrl-C, in the middle of the second job; then the rest here."""
    out = tmp_path / "out"
    arguments = [f"textenvs/Copy-v0{json.dumps(COPY)}", "--agents", "acts:slow", "--seeds", "4", "--out", str(out)]
    code = f"import sys; sys.path.insert(0, {str(acts)!r}); from agents.cli import main; main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "benchmark", *arguments], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: any(out.glob("jobs/*/*/seed_1/log.txt")))  # the second job has begun
    workers = children(process.pid)
    assert workers
    done = results(out)
    os.kill(process.pid, number)
    said = process.communicate()[1]  # ends when the last of them has closed it
    assert process.returncode == wanted
    assert ("textenvs: interrupted" in said) == (wanted == 130)
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    assert results(out) == done  # the job under way, of seconds, was not gone on with
    assert 1 <= len(done) < 4
    rows, _ = run_benchmark(load_suite(arguments[0]), ["acts:slow"], range(4), out, quiet=True)
    assert len(inline) == 4 - len(done)
    assert done.items() <= results(out).items()  # not written again
    assert len(rows) == len(results(out)) == 4


def results(out: Path) -> dict[Path, int]:
    """Every finished job with the time at which its result was written."""
    return {path: path.stat().st_mtime_ns for path in out.glob("jobs/*/*/*/result.json")}


def children(pid: int | None = None) -> list[int]:
    """Process ids of the workers that a process has."""
    path = Path(f"/proc/{pid or os.getpid()}/task")
    found = [int(child) for task in path.iterdir() for child in (task / "children").read_text().split()]
    return [child for child in found if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("suite", "said"),
    [
        ("toi", "did you mean 'toy'"),
        ("textenvs/Cpy-v0", "did you mean 'textenvs/Copy-v0'"),
        ("CartPole-v1", "envs must be text environments"),
        ('textenvs/Copy-v0{"length": 4', "must be a JSON object"),
        ('textenvs/Copy-v0{"length": 4}textenvs/Sort-v0', "must have commas"),
        ("textenvs/Copy-v0,textenvs/Copy-v0", "got one twice"),
        ('textenvs/Copy-v0{"lenght": 4}', "did you mean 'length'"),
        ("nowhere.json", "No such file"),
        ('{"envs": ["textenvs/Sot-v0"]}', "did you mean 'textenvs/Sort-v0'"),
        ('{"envs": ["textenvs/Sort-v0"], "epsiodes": 3}', "did you mean 'episodes'"),
        ('{"envs": ["textenvs/Sort-v0"], "episodes": 0}', "episodes must be an integer of at least 1, got 0"),
        ('{"envs": ["textenvs/Sort-v0"], "seconds": NaN}', "seconds must be a number above 0"),
        ('{"envs": ["textenvs/Sort-v0"], "name": "../x"}', "name must be letters"),
        ('{"envs": [7]}', 'envs must be ids, or tables with "id"'),
        ('{"envs": []}', "at least one environment"),
        ("{}", 'a list "envs"'),
        ("[", "suite file must be JSON"),
        ('{"envs": ["textenvs/Sort-v0"], "agents": {"pop": {}}}', "did you mean 'ppo'"),
        ('{"envs": ["textenvs/Sort-v0"], "agents": {"ppo": {"num_epoch": 2}}}', "did you mean 'num_epochs'"),
        ('{"envs": ["textenvs/Sort-v0"], "agents": {"ppo": {"num_epochs": 0}}}', "num_epochs must be an integer"),
        ('{"envs": ["textenvs/Sort-v0"], "agents": {"random": {"a": 1}}}', "settings must be none for 'random'"),
        ('{"envs": ["textenvs/Sort-v0"], "agents": {"ppo": 1}}', "agents must be a table of tables"),
    ],
)
def test_a_wrong_suite_is_one_sentence(
    suite: str, said: str, tmp_path: Path, inline: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    if suite[0] in "{[":
        path = tmp_path / "mine.json"
        path.write_text(suite)
        suite = str(path)
    assert run(suite, "--agents", "ppo,random", "--out", str(tmp_path / "out")) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1
    assert not inline


def test_a_suite_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'episodes = 500\nenvs = ["textenvs/Sort-v0", {id = "textenvs/Copy-v0", kwargs = {length = 3}}]\n'
        "[agents.ppo]\nnum_epochs = 2\n"
    )
    suite = load_suite(str(path))
    assert suite.name == "mine"
    assert suite.envs == (SuiteEnv("textenvs/Sort-v0"), SuiteEnv("textenvs/Copy-v0", {"length": 3}))
    assert (suite.num_episodes, suite.seconds) == (500, Suite.seconds)
    assert find_agent("ppo", suite.settings["ppo"]).settings["algorithm"]["num_epochs"] == 2
    listed = load_suite('textenvs/Copy-v0{"length": 3, "alphabet": "a{,b"}, textenvs/Sort-v0')
    assert listed.envs == (
        SuiteEnv("textenvs/Copy-v0", {"length": 3, "alphabet": "a{,b"}),
        SuiteEnv("textenvs/Sort-v0"),
    )


@pytest.mark.parametrize("name", SUITES)
def test_shipped_suites_hold_known_agents_and_environments(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    for agent, settings in suite.settings.items():
        assert agent in NAMES
        find_agent(agent, settings)
    for env in suite.envs:
        gym.make(env.env_id, **env.env_kwargs).close()
    assert name != "toy" or suite.seconds <= 45


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ("pop", "did you mean 'ppo'"),
        ("sb3-dpn", "did you mean 'sb3-dqn'"),
        ("gone.zip", "no such file"),
        ("no_such_module:act", "No module named 'no_such_module'"),
        ("acts:frist", "has no attribute 'frist'"),
        ("acts:HERE", "must be a function"),
        ("random,random", "each once"),
        (",", "at least one"),
    ],
)
def test_a_wrong_agent_is_one_sentence(
    agent: str, said: str, tmp_path: Path, acts: Path, inline: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"textenvs/Copy-v0{json.dumps(COPY)}", "--agents", agent, "--out", str(tmp_path / "out")) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1


def test_a_missing_library_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'needs stable-baselines3; pip install "textenvs\[sb3\]"'):
        find_agent("sb3-ppo", {})
    with pytest.raises(ImportError, match=r'needs sb3-contrib; pip install "textenvs\[sb3\]"'):
        find_agent("qrdqn", {})


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "3-1", "1,,2", "1e3", "²", "0-99999999999999"])
def test_seeds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--seeds must be"):
        seed_list(text)
    assert (seed_list("3"), seed_list("2-4"), seed_list("0,5"), seed_list("0-1, 7")) == (
        [0, 1, 2],
        [2, 3, 4],
        [0, 5],
        [0, 1, 7],
    )


def test_zips_are_refused_unless_trusted_and_play_as_saved(tmp_path: Path, inline: list[Any]) -> None:
    """A hostile zip runs nothing; a trusted one plays as the agent that was saved, with its masks or memory."""
    from sb3_contrib import MaskablePPO, RecurrentPPO
    from stable_baselines3 import DQN

    suite = replace(TINY, envs=(SuiteEnv("textenvs/Copy-v0", {**COPY, "observation": "onehot"}),))
    env = gym.make("textenvs/Copy-v0", **suite.envs[0].env_kwargs)
    makers: list[tuple[Any, str]] = [(DQN, "MlpPolicy"), (MaskablePPO, "MlpPolicy"), (RecurrentPPO, "MlpLstmPolicy")]
    for maker, policy in makers:
        saved = maker(policy, env, seed=3)
        path = tmp_path / f"{maker.__name__}.zip"
        saved.save(path)
        with pytest.raises(ValueError, match=r"must be trusted .* pass --allow-pickle"):
            find_agent(str(path), {})
        rows, _ = run_benchmark(suite, [str(path)], [0], tmp_path / maker.__name__, zips_trusted=True, quiet=True)
        (row,) = rows.values()
        assert (row["status"], row["error"], row["episodes"]) == ("ok", "", 0)
        assert row["final_return_greedy"] == pytest.approx(greedy_return(saved, suite.envs[0]))
    wrong = replace(suite, envs=TINY.envs[:1])
    rows, _ = run_benchmark(wrong, [str(path)], [0], tmp_path / "wrong", zips_trusted=True, quiet=True)
    assert "must have been trained on the spaces of the env" in next(iter(rows.values()))["error"]


def greedy_return(model: Any, env: SuiteEnv) -> float:
    """Mean greedy return of an SB3 agent over the held-out problems of seed 0, by a plain loop over single envs."""
    from agents.evaluate import FIRST_EPISODE
    from agents.rollout import group_seed

    single, total = gym.make(env.env_id, **env.env_kwargs, split="heldout"), 0.0
    for number in range(32):
        observation, _ = single.reset(seed=group_seed(0, FIRST_EPISODE + number))
        state, start, done = None, np.array([True]), False
        while not done:
            action, state = model.predict(observation, state=state, episode_start=start, deterministic=True)
            observation, reward, terminated, truncated, _ = single.step(int(action))
            total, done, start = total + float(reward), terminated or truncated, np.array([False])
    return total / 32


def test_a_q_learner_explores_row_by_row_when_sampled() -> None:
    from stable_baselines3 import DQN

    env = gym.make("textenvs/Copy-v0", **COPY, observation="onehot")
    policy = SB3Policy(DQN("MlpPolicy", env, seed=0).policy, 0, exploration_rate=0.5)
    observations = np.stack([env.reset(seed=0)[0]] * 400)
    rngs = [np.random.default_rng(i) for i in range(400)]
    greedy = policy.act(observations, np.arange(400), None, rngs, greedy=True).actions
    sampled = policy.act(observations, np.arange(400), None, rngs).actions
    assert len(set(greedy.tolist())) == 1
    assert 0.3 < (sampled != greedy).mean() < 0.5  # half explore, one of 6 tokens of those is the greedy one


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
