"""Benchmarks: suites, agents and seeds as asked for; what cannot be had is one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from benchmarked import COPY, run

from agents.benchmark.agents import NAMES, find_agent
from agents.cli_arguments import UsageError, seed_list
from agents.suites import SUITES, Suite, SuiteEnv, load_suite


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
        ("nowhere.json", "nowhere.json must be a file that exists, got none; name another"),
        ('{"envs": ["textenvs/Sot-v0"]}', "did you mean 'textenvs/Sort-v0'"),
        ('{"envs": ["textenvs/Sort-v0"], "epsiodes": 3}', "did you mean 'episodes'"),
        ('{"envs": ["textenvs/Sort-v0"], "episodes": 0}', "episodes must be an integer from 1 to 1,000,000,000, got 0"),
        (f'{{"envs": ["textenvs/Sort-v0"], "seconds": {"9" * 400}}}', "at most 1,000,000,000, got 999"),
        ('{"envs": "\udcff"}', "mine.json: 'utf-8' codec can't decode"),
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
        path.write_bytes(suite.encode("utf-8", "surrogateescape"))
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
