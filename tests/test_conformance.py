"""Three checkers on every id: Gymnasium's, Stable-Baselines3's and ours; warnings are errors."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_env_gymnasium

from textenvs import ENTRIES, check_env

IDS = [entry.id for entry in ENTRIES]
MASK_KEYS = [None, "pettingzoo", "rllib", "tianshou"]
#: Every format of one id with a small vocabulary, a large one, masks, and replies; the code of formats knows no task,
#: so of all other ids the formats that most people use.
IN_EVERY_FORMAT = ("textenvs/Copy-v0", "TextGen-v0", "textenvs/RandomWalk-v0", "textenvs/GuessNumber-v0")
FORMATS = [
    (env_id, observation, mask_keys)
    for env_id in IDS
    for observation in ("tokens", "onehot")
    for mask_keys in MASK_KEYS
    if env_id in IN_EVERY_FORMAT or (observation == "tokens" and mask_keys in (None, "pettingzoo"))
]


@pytest.mark.parametrize(("env_id", "observation", "mask_keys"), FORMATS)
@pytest.mark.parametrize("checker", ["gymnasium", "sb3", "textenvs"])
def test_checkers_pass(
    checker: str, env_id: str, observation: str, mask_keys: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    env = gym.make(env_id, observation=observation, mask_keys=mask_keys)
    if checker == "gymnasium":
        check_env_gymnasium(env.unwrapped)
    elif checker == "sb3":
        with warnings.catch_warnings():
            # Importing SB3 pulls in libraries that warn of their own future; the check itself must not warn.
            warnings.simplefilter("ignore")
            from stable_baselines3.common.env_checker import check_env as check_env_sb3
        check_env_sb3(env.unwrapped)
    else:
        check_env(env, num_episodes=4)
        assert not caplog.records, "every clause runs on every id"


def test_a_onehot_observation_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match=r"observation='onehot' must be at most .* use observation='tokens'"):
        gym.make("TextGen-v0", observation="onehot", max_new_tokens=1000)


@pytest.mark.parametrize("env_id", IDS)
def test_dense_and_stop_keep_the_contract(env_id: str) -> None:
    check_env(gym.make(env_id, dense=True, stop=[0]), num_episodes=4, other_process=False)


@pytest.mark.parametrize(
    "options",
    [{"problem": 10**9}, {"problem": 0.5}, {"problem": True}, {"prompt": ""}, {"problem": 0, "prompt": "ab="}],
    ids=str,
)
def test_a_refused_reset_leaves_the_running_episode_as_it_was(options: dict[str, Any]) -> None:
    env = gym.make("textenvs/Copy-v0")
    _, start = env.reset(seed=0)
    with pytest.raises((ValueError, TypeError)):
        env.reset(options=options)
    info = env.step(env.action_space.n - 1)[4]
    assert info["problem"] == start["problem"]
    batch = gym.make_vec("textenvs/Copy-v0", num_envs=2)
    _, start = batch.reset(seed=0)
    with pytest.raises((ValueError, TypeError)):
        batch.reset(options=options)
    infos = batch.step(np.full(2, env.action_space.n - 1))[4]
    np.testing.assert_array_equal(infos["problem"], start["problem"])


@pytest.mark.parametrize("env_id", ["textenvs/Copy-v0", "TextGen-v0"])
@pytest.mark.filterwarnings("ignore:.*render_mode='rgb_array'.*")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_stable_baselines3_takes_an_id(env_id: str) -> None:
    """SB3 asks for pixels first and must be told no in the way that it understands."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    assert make_vec_env(env_id, 2).num_envs == 2
    PPO("MlpPolicy", env_id, n_steps=8, batch_size=8, device="cpu").learn(8)
