"""Agents of Stable-Baselines3 and sb3-contrib by name, on the same env ids, as independent baselines."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

import textenvs  # noqa: F401 - registers the ids

ROUNDING = 1e-6  # a mean that equals the target counts, in whatever order it was summed; SB3 sums in float32
WINDOW = 128  # episodes in a mean return, as many as an update of ours samples by default


@dataclass(frozen=True)
class BaselineResult:
    """A learning curve: one entry an episode, in the order in which they ended; and who learnt."""

    returns: list[float]
    seconds: list[float]  # wall time since the start of training
    agent: Any = None  # of the library; None for a curve alone

    def episodes_to(self, target: float, window: int = WINDOW) -> tuple[int, float] | None:
        """Return episodes and seconds until the mean return of the last `window` episodes reached a target, or None."""
        sums = np.cumsum([0.0, *self.returns])
        means = (sums[window:] - sums[:-window]) / window
        reached = np.flatnonzero(means >= target - ROUNDING)
        return (int(reached[0]) + window, self.seconds[reached[0] + window - 1]) if reached.size else None


@dataclass(frozen=True)
class Baseline:
    """One agent and the settings with which it works.

    Attributes:
        path: "module:class".
        num_envs: envs stepped side by side.
        settings: the class's keyword arguments, in RL Zoo's notation: "lin_0.2" falls from 0.2 to 0.
        observation: what text envs show: "tokens", with a `TokenEmbeddingExtractor`, or "onehot".
        policy: the class's name for its policy.
        normalize: observations and rewards by their running mean and deviation, as RL Zoo's `normalize`.
        num_timesteps: env steps of the whole training, over which schedules run; None: what the episodes need at most.
        exploration_steps: env steps over which a Q-learner goes from random to greedy; SB3 takes a fraction instead.
    """

    path: str
    num_envs: int
    settings: Mapping[str, Any]
    observation: str = "tokens"
    policy: str = "MlpPolicy"
    normalize: bool = False
    num_timesteps: int | None = None
    exploration_steps: int | None = None


PATHS = {
    "ppo": "stable_baselines3:PPO",
    "maskable_ppo": "sb3_contrib:MaskablePPO",
    "a2c": "stable_baselines3:A2C",
    "dqn": "stable_baselines3:DQN",
    "qrdqn": "sb3_contrib:QRDQN",
    "recurrent_ppo": "sb3_contrib:RecurrentPPO",
    "trpo": "sb3_contrib:TRPO",
    "ars": "sb3_contrib:ARS",
}

# A text env's return is not discounted. Tuned on copy and sort (length 4, 8 symbols, dense), seed 100, one setting at a
# time: about 150 runs over all agents and extractors. With seeds 100 and 101 each reaches .95 on copy, reverse and
# sort (maskable_ppo not measured there: without a grammar it is ppo).
_TEXT = {"gamma": 1.0, "learning_rate": 1e-3, "policy_kwargs": {"net_arch": [128, 128]}}
_TEXT_PPO = _TEXT | {
    "n_steps": 16,  # about three episodes a row: a fresh policy is worth more than a large batch
    "batch_size": 128,
    "n_epochs": 8,  # with 4, copy takes a third and sort two thirds more episodes
    "ent_coef": 0.01,  # as good as 0.003; with 0, one seed of two on sort takes a third more
}
_TEXT_A2C = _TEXT | {
    "n_steps": 5,  # one episode
    "ent_coef": 0.01,  # with a third of it, sort was not reached
}
_TEXT_DQN = _TEXT | {
    "learning_starts": 500,
    "batch_size": 128,
    "train_freq": 1,  # after every step of the 32 rows
    "gradient_steps": 4,  # 8 save a twentieth of the episodes and take twice the time
    "target_update_interval": 500,  # 250 is no better
    "buffer_size": 100_000,  # everything
    "exploration_final_eps": 0.01,  # what is left costs return
}
_TEXT_QRDQN = _TEXT_DQN | {
    "policy_kwargs": {"net_arch": [128, 128], "n_quantiles": 25},  # 200, the default, are slow
}
_TEXT_TRPO = _TEXT | {
    "n_steps": 16,  # as PPO
    "batch_size": 128,  # of the critic alone: the policy takes one step an update
    "target_kl": 0.03,
    "policy_kwargs": {"net_arch": [128, 128], "features_extractor_kwargs": {"twice_differentiable": True}},
}
_TEXT_ARS = {
    "policy_kwargs": {"net_arch": []},  # linear, as published; a hidden layer of 32 learns half as much in 10,000
    "n_eval_episodes": 16,  # a greedy policy on one prompt tells little of it
    "delta_std": 0.2,
    "learning_rate": 0.2,
}

#: Agents for text envs. The Q-learners explore for 2,000 steps: with dense rewards, 10,000 only delay them.
BASELINES = {
    "ppo": Baseline(PATHS["ppo"], 32, _TEXT_PPO),
    "maskable_ppo": Baseline(PATHS["maskable_ppo"], 32, _TEXT_PPO),
    "a2c": Baseline(PATHS["a2c"], 8, _TEXT_A2C),  # small batches: it takes one step a batch
    "dqn": Baseline(PATHS["dqn"], 32, _TEXT_DQN, exploration_steps=2_000),
    "qrdqn": Baseline(PATHS["qrdqn"], 32, _TEXT_QRDQN, exploration_steps=2_000),
    "recurrent_ppo": Baseline(PATHS["recurrent_ppo"], 32, _TEXT_PPO, policy="MlpLstmPolicy"),
    "trpo": Baseline(PATHS["trpo"], 32, _TEXT_TRPO),
    "ars": Baseline(PATHS["ars"], 8, _TEXT_ARS, observation="onehot"),
}

_ZOO_PPO = {
    "n_steps": 32,
    "batch_size": 256,
    "gae_lambda": 0.8,
    "gamma": 0.98,
    "n_epochs": 20,
    "ent_coef": 0.0,
    "learning_rate": "lin_0.001",
    "clip_range": "lin_0.2",
}
_ZOO_DQN = {
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1000,
    "gamma": 0.99,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_final_eps": 0.04,
    "policy_kwargs": {"net_arch": [256, 256]},
}
_ZOO_CAR_PPO = {"n_steps": 16, "gae_lambda": 0.98, "gamma": 0.99, "n_epochs": 4, "ent_coef": 0.0}
_ZOO_CAR_DQN = {
    "learning_rate": 4e-3,
    "batch_size": 128,
    "buffer_size": 10_000,
    "learning_starts": 1000,
    "gamma": 0.98,
    "target_update_interval": 600,
    "train_freq": 16,
    "gradient_steps": 8,
    "exploration_final_eps": 0.07,
    "policy_kwargs": {"net_arch": [256, 256]},
}

#: Agents for ordinary envs: the settings and budgets of RL Baselines3 Zoo.
CONTROL = {
    "CartPole-v1": {
        "ppo": Baseline(PATHS["ppo"], 8, _ZOO_PPO, num_timesteps=100_000),
        "a2c": Baseline(PATHS["a2c"], 8, {"ent_coef": 0.0}, num_timesteps=500_000),
        "dqn": Baseline(PATHS["dqn"], 1, _ZOO_DQN, num_timesteps=50_000, exploration_steps=8_000),
        "qrdqn": Baseline(
            PATHS["qrdqn"],
            1,
            _ZOO_DQN | {"policy_kwargs": {"net_arch": [256, 256], "n_quantiles": 10}},
            num_timesteps=50_000,
            exploration_steps=8_000,
        ),
    },
    "MountainCar-v0": {
        "ppo": Baseline(PATHS["ppo"], 16, _ZOO_CAR_PPO, normalize=True, num_timesteps=1_000_000),
        "a2c": Baseline(PATHS["a2c"], 16, {"ent_coef": 0.0}, normalize=True, num_timesteps=1_000_000),
        "dqn": Baseline(PATHS["dqn"], 1, _ZOO_CAR_DQN, num_timesteps=120_000, exploration_steps=24_000),
        "qrdqn": Baseline(
            PATHS["qrdqn"],
            1,
            _ZOO_CAR_DQN | {"policy_kwargs": {"net_arch": [256, 256], "n_quantiles": 25}},
            num_timesteps=120_000,
            exploration_steps=24_000,
        ),
    },
}


def train_sb3(
    name: str,
    env_id: str,
    env_kwargs: Mapping[str, Any] | None = None,
    *,
    num_episodes: int,
    seed: int,
    target: float | None = None,
    window: int = WINDOW,
    overrides: Mapping[str, Any] | None = None,
    on_episode: Callable[[float], bool] | None = None,
) -> BaselineResult:
    """Train an agent of Stable-Baselines3 or sb3-contrib; the curve is of its training episodes, exploration included.

    Args:
        name: a key of `BASELINES`.
        env_id: a text env, or an env of `CONTROL`.
        env_kwargs: its keyword arguments; `observation` replaces the agent's own choice.
        num_episodes: episodes to train for; `Baseline.num_timesteps` may end it before.
        seed: of envs and agent. SB3 seeds the global generators of `random`, numpy and torch with it.
        target: stop when the mean return of the last `window` episodes reaches this.
        window: episodes in that mean.
        overrides: settings that replace the table's, `Baseline.exploration_steps` too.
        on_episode: called with the return of each episode; ends the training by saying False.

    Raises:
        ImportError: without stable-baselines3 or sb3-contrib, with the command that installs them.
        ValueError: an unknown agent, or an env for which the tables have no settings.
    """
    started = time.perf_counter()
    baseline = _baseline(name, env_id)
    agent_class = _agent_class(baseline.path)
    settings = {**baseline.settings, **(overrides or {})}
    settings = {key: _schedule(value) for key, value in settings.items()}
    exploration_steps = settings.pop("exploration_steps", baseline.exploration_steps)
    result = BaselineResult([], [])

    def note(episode_return: float) -> bool:
        result.returns.append(episode_return)
        result.seconds.append(time.perf_counter() - started)
        recent = result.returns[-window:]
        reached = target is not None and len(recent) == window and sum(recent) / window >= target - ROUNDING
        goes_on = on_episode is None or on_episode(episode_return)
        return len(result.returns) < num_episodes and not reached and goes_on

    if env_id in CONTROL:
        envs = _control_envs(baseline, env_id, dict(env_kwargs or {}), note, settings.get("gamma", 0.99))
    else:
        envs = _text_envs(baseline, env_id, dict(env_kwargs or {}), note)
    from agents.sb3 import TokenEmbeddingExtractor, TrainingEnded

    if envs.observation_space.dtype == np.int64:
        extractor = {"features_extractor_class": TokenEmbeddingExtractor}
        settings["policy_kwargs"] = extractor | settings.get("policy_kwargs", {})
    num_timesteps = baseline.num_timesteps
    if num_timesteps is None:
        # Every row may still have an episode under way when the last one counts.
        longest = envs.get_attr("metadata")[0]["textgen"]["max_new_tokens"]
        num_timesteps = max((num_episodes + baseline.num_envs) * longest, exploration_steps or 0)
        if name == "ars":
            num_timesteps *= baseline.num_envs  # it counts every step once a row
    if exploration_steps is not None:
        settings["exploration_fraction"] = exploration_steps / num_timesteps
    agent = agent_class(baseline.policy, envs, device="cpu", seed=seed, **settings)
    with suppress(TrainingEnded):
        agent.learn(num_timesteps)
    envs.close()
    return replace(result, agent=agent)


def _baseline(name: str, env_id: str) -> Baseline:
    if name not in BASELINES:
        raise ValueError(f"name must be one of {', '.join(BASELINES)}, got {name!r}")
    if env_id not in CONTROL:
        return BASELINES[name]
    if name not in CONTROL[env_id]:
        raise ValueError(f"name must be one of {', '.join(CONTROL[env_id])} on {env_id}, got {name!r}; it has no masks")
    return CONTROL[env_id][name]


def _agent_class(path: str) -> Any:
    module, name = path.split(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        library = module.replace("_", "-")
        raise ImportError(f'this baseline needs {library}; pip install "textenvs[sb3]"') from error


def _schedule(value: Any) -> Any:
    """RL Zoo's notation: "lin_0.2" falls from 0.2 to 0 over the training."""
    if not (isinstance(value, str) and value.startswith("lin_")):
        return value
    start = float(value.removeprefix("lin_"))
    return lambda progress_remaining: start * progress_remaining


def _text_envs(baseline: Baseline, env_id: str, env_kwargs: dict[str, Any], on_episode: Callable[[float], bool]) -> Any:
    """The native batch env of a text env, monitored."""
    from agents.sb3 import EpisodeMonitor, SB3VecEnv

    env_kwargs = {"observation": baseline.observation} | env_kwargs
    try:
        envs = gym.make_vec(env_id, baseline.num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **env_kwargs)
    except TypeError as error:
        known = ", ".join(CONTROL)
        raise ValueError(f"env_id must be a text env or one of {known}, got {env_id!r} ({error})") from error
    return EpisodeMonitor(SB3VecEnv(envs), on_episode)


def _control_envs(
    baseline: Baseline, env_id: str, env_kwargs: dict[str, Any], on_episode: Callable[[float], bool], gamma: float
) -> Any:
    """SB3's own batch of an ordinary env, monitored before anything is normalised."""
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    from agents.sb3 import EpisodeMonitor

    envs = EpisodeMonitor(DummyVecEnv([lambda: gym.make(env_id, **env_kwargs)] * baseline.num_envs), on_episode)
    return VecNormalize(envs, gamma=gamma) if baseline.normalize else envs
