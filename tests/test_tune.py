"""Tuning of the suite `toy`: the same trials for everybody, none run twice, and only what all have done counts."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agents.algorithms import ALGORITHMS
from agents.baselines import BASELINES

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def tune(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = import_module("tune")
    module.prepare()
    return module


def line(
    agent: str, trial: int, task: str, seed: int, settings: str, episodes: str, seconds: float = 20
) -> dict[str, str]:
    row = {
        "agent": agent,
        "trial": str(trial),
        "task": task,
        "seed": str(seed),
        "episodes": episodes,
        "seconds": "1.00",
    }
    return row | {"last_return": "0.900", "budget_seconds": f"{seconds:g}", "settings": settings}


def test_every_agent_has_a_space_and_its_trials_are_fixed(tune: ModuleType) -> None:
    ours = [agent for agent in tune.SPACES if agent in ALGORITHMS]
    theirs = [tune.baseline_name(agent) for agent in tune.SPACES if agent not in ALGORITHMS]
    assert ours == list(ALGORITHMS)
    assert sorted(theirs) == sorted(BASELINES)
    for agent, space in tune.SPACES.items():
        assert all(values for values in space.values())
        drawn = [tune.settings_of(agent, trial) for trial in range(1, 9)]
        assert drawn == [tune.settings_of(agent, trial) for trial in range(1, 9)]
        assert len({json.dumps(settings) for settings in drawn}) > 4
        assert all(settings[name] in space[name] for settings in drawn for name in space)


def test_a_job_that_has_its_line_is_not_run_again(tune: ModuleType, tmp_path: Path) -> None:
    called: list[tuple[Any, ...]] = []

    def job(agent: str, trial: int, task: str, seed: int, seconds: float) -> dict[str, str]:
        if len(called) == 5:
            raise RuntimeError
        called.append((agent, trial, task, seed))
        settings = json.dumps(tune.settings_of(agent, trial), sort_keys=True)
        return line(agent, trial, task, seed, settings, "300", seconds)

    path, agents = tmp_path / "trials.csv", ["ppo", "sb3-dqn"]
    with pytest.raises(RuntimeError):
        tune.run_all(agents, 2, [100], 20.0, path, job)
    # A trial of everybody comes before the next one of anybody.
    assert called[:4] == [(agent, 0, task, 100) for agent in agents for task in ("Copy", "Sort")]
    first = path.read_text()
    called.clear()
    tune.run_all(agents, 2, [100], 20.0, path, job)
    assert called == [("ppo", 1, "Sort", 100), ("sb3-dqn", 1, "Copy", 100), ("sb3-dqn", 1, "Sort", 100)]
    assert path.read_text().startswith(first)
    assert len(tune.read(path)) == 8
    called.clear()
    tune.run_all(["ppo"], 1, [100], 45.0, path, job)  # another budget is another job
    assert len(called) == 2
    with pytest.raises(ValueError, match=r"seeds must be at least 100, got \[3\]"):
        tune.run_all(["ppo"], 1, [3], 20.0, path, job)


def test_only_what_every_agent_has_done_is_ranked(tune: ModuleType) -> None:
    rows = [
        line("a", 0, "Copy", 100, "A0", "100"),
        line("a", 0, "Sort", 100, "A0", ""),
        line("a", 1, "Copy", 100, "A1", "400"),
        line("a", 1, "Sort", 100, "A1", "900"),
        line("a", 2, "Copy", 100, "A2", "100"),  # b has no third trial
        line("b", 0, "Copy", 100, "B0", "200"),
        line("b", 0, "Sort", 100, "B0", "800"),
        line("b", 1, "Copy", 100, "B1", "800"),
        line("b", 1, "Sort", 100, "B1", "800"),
    ]
    ranked = tune.ranking(rows, ["a", "b"])
    # Reached comes first; then the geometric mean: sqrt(400 * 900) = 600, sqrt(100 * 10,000) = 1,000.
    assert [(reached, settings) for reached, _, settings in ranked["a"]] == [(2, "A1"), (1, "A0")]
    assert [episodes for _, episodes, _ in ranked["a"]] == pytest.approx([600, 1000])
    assert [(reached, settings) for reached, _, settings in ranked["b"]] == [(2, "B0"), (2, "B1")]
    assert [episodes for _, episodes, _ in ranked["b"]] == pytest.approx([400, 800])


def test_trials_with_the_same_settings_count_once(tune: ModuleType) -> None:
    rows = [line("a", trial, "Copy", 100, "same", "100") for trial in (0, 1)]
    assert tune.ranking(rows, ["a"]) == {"a": [(1, pytest.approx(100), "same")]}


def test_the_suite_has_the_best_trial_of_each_agent(tune: ModuleType) -> None:
    ranked = tune.ranking(tune.read(tune.TRIALS), list(tune.SPACES))
    for agent, scores in ranked.items():
        best = {name: value for name, value in json.loads(scores[0][2]).items() if value != {}}
        assert dict(tune.SUITES["toy"].settings.get(agent, {})) == best, agent


@pytest.mark.parametrize("agent", ["ppo", "sb3-ppo"])
def test_a_job_ends_at_the_target_or_with_its_budget(
    tune: ModuleType, monkeypatch: pytest.MonkeyPatch, agent: str
) -> None:
    """Whatever the agent: 128 episodes when every return meets the target, all of them when none does."""
    monkeypatch.setattr(tune, "KWARGS", {"length": 2, "alphabet": "abcd", "dense": True})
    monkeypatch.setattr(tune, "TARGET", -1.0)
    assert tune.run_job(agent, 0, "Copy", 100, 60.0)["episodes"] == "128"
    monkeypatch.setattr(tune, "TARGET", 2.0)
    curve = tune.Curve(60.0, num_episodes=256)
    tune.learn(agent, "Copy", 100, tune.settings_of(agent, 0), curve)
    assert len(curve.result.returns) == 256
    row = tune.run_job(agent, 0, "Copy", 100, 0.0)
    assert (row["episodes"], row["budget_seconds"]) == ("", "0")
    assert list(row) == list(tune.COLUMNS)
