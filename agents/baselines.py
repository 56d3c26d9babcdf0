"""Stable-Baselines3 agents on the same env ids, as independent baselines."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

import textenvs  # noqa: F401 - registers the ids

ROUNDING = 1e-9  # a mean that equals the target counts, in whatever order it was summed
WINDOW = 128  # episodes in a mean return, as many as an update of ours samples by default


@dataclass(frozen=True)
class BaselineResult:
    """A learning curve: one entry an episode, in the order in which they ended."""

    returns: list[float]
    seconds: list[float]  # wall time since the start of training

    def episodes_to(self, target: float) -> tuple[int, float] | None:
        """Return episodes and seconds until the mean return of the last `WINDOW` episodes reached a target, or None."""
        sums = np.cumsum([0.0, *self.returns])
        means = (sums[WINDOW:] - sums[:-WINDOW]) / WINDOW
        reached = np.flatnonzero(means >= target - ROUNDING)
        return (int(reached[0]) + WINDOW, self.seconds[reached[0] + WINDOW - 1]) if reached.size else None


def train_sb3_ppo(
    env_id: str, env_kwargs: Mapping[str, Any], *, num_episodes: int, seed: int, target: float | None = None
) -> BaselineResult:
    """Train Stable-Baselines3's PPO with an MLP on one-hot prefixes.

    An MLP of [128, 128] on 32 envs, gamma 1: settings that reach .95 on the sort task (length 4, 8 symbols, dense) in
    about 5,100 episodes (8 epochs; with 4 it takes about 6,900).

    Args:
        env_id: a registered id.
        env_kwargs: its keyword arguments; the observation is set to "onehot".
        num_episodes: episodes to train for.
        seed: of env and agent.
        target: stop when the mean return of the last `WINDOW` episodes reaches this.

    Raises:
        ImportError: without stable-baselines3, with the command that installs it.
    """
    try:
        from stable_baselines3 import PPO
        from stable_baselines3.common.callbacks import BaseCallback
        from stable_baselines3.common.monitor import Monitor
        from stable_baselines3.common.vec_env import DummyVecEnv
    except ImportError as error:
        raise ImportError('the baselines need stable-baselines3; pip install "textenvs[sb3]"') from error

    started = time.perf_counter()
    result = BaselineResult([], [])

    class Recorder(BaseCallback):  # type: ignore[misc]
        """Notes every finished episode and stops after the last one."""

        def _on_step(self) -> bool:
            for info in self.locals["infos"]:
                if "episode" in info:
                    result.returns.append(float(info["episode"]["r"]))
                    result.seconds.append(time.perf_counter() - started)
            recent = result.returns[-WINDOW:]
            reached = target is not None and len(recent) == WINDOW and sum(recent) / WINDOW >= target - ROUNDING
            return len(result.returns) < num_episodes and not reached

    def make() -> gym.Env[Any, Any]:
        return Monitor(gym.make(env_id, **env_kwargs, observation="onehot"))  # type: ignore[no-any-return]

    agent = PPO(
        "MlpPolicy",
        DummyVecEnv([make] * 32),
        n_steps=32,
        batch_size=256,
        n_epochs=8,
        learning_rate=1e-3,
        gamma=1.0,
        ent_coef=0.01,
        policy_kwargs={"net_arch": [128, 128]},
        device="cpu",
        seed=seed,
    )
    agent.learn(total_timesteps=10**9, callback=Recorder())
    agent.env.close()
    return result
