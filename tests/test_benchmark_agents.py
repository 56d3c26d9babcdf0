"""Benchmarks: agents of Stable-Baselines3 play as they were saved or trained; hostile zips are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from benchmarked import COPY, TINY

from agents.benchmark import run_benchmark
from agents.benchmark.agents import SB3Policy, find_agent
from agents.suites import SuiteEnv


def test_zips_are_refused_unless_trusted_and_play_as_saved(tmp_path: Path, inline: list[Any]) -> None:
    """A hostile zip runs nothing; a trusted one plays as the agent that was saved, with its masks or memory."""
    from sb3_contrib import MaskablePPO, RecurrentPPO
    from stable_baselines3 import DQN

    suite = replace(TINY, envs=TINY.envs[:1])
    onehot = SuiteEnv("textenvs/Copy-v0", {**COPY, "observation": "onehot"})  # as it was saved, which nobody says again
    env = gym.make("textenvs/Copy-v0", **onehot.env_kwargs)
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
        assert row["final_return_greedy"] == pytest.approx(greedy_return(saved, onehot))
    saved = DQN("MlpPolicy", gym.make("textenvs/Copy-v0", **COPY), seed=3)
    saved.save(tmp_path / "tokens.zip")
    names = [str(tmp_path / "tokens.zip"), str(path), "ppo"]
    rows, _ = run_benchmark(suite, names, [0], tmp_path / "both", zips_trusted=True, quiet=True)
    assert [row["status"] for row in rows.values()] == ["ok"] * 3
    wrong = replace(suite, envs=(SuiteEnv("textenvs/Copy-v0", COPY | {"length": 1, "split": "all"}),))
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
