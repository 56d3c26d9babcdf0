"""Every way to use the envs in Stable-Baselines3, 1,024 steps each; run by fits.py. fits_sb3_contrib.py shares it.

What SB3 saw is what its own loop has in hand when it stores a step, not what a monitor inside the envs wrote.
"""

from __future__ import annotations

import functools
from typing import Any

import gymnasium as gym
from counting import count
from fits import tell
from gymnasium.vector import AutoresetMode
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

import textenvs  # noqa: F401 - registers the ids
from agents.sb3 import SB3VecEnv

NUM_ENVS = 8


class Episodes(BaseCallback):
    """Adds up every row's rewards and steps."""

    def __init__(self) -> None:
        super().__init__()
        self.returns: list[float] = []
        self.lengths: list[int] = []
        self.running = [(0.0, 0)] * NUM_ENVS

    def _on_step(self) -> bool:
        for i, (reward, done) in enumerate(zip(self.locals["rewards"], self.locals["dones"], strict=True)):
            paid, length = self.running[i][0] + float(reward), self.running[i][1] + 1
            if done:
                self.returns.append(paid)
                self.lengths.append(length)
            self.running[i] = (0.0, 0) if done else (paid, length)
        return True


def learn(agent: Any, policy: str, envs: Any, **settings: Any) -> tuple[list[float], list[int]]:
    """The episodes that an agent saw end in 1,024 steps."""
    seen = Episodes()
    agent(policy, envs, seed=0, device="cpu", **settings).learn(1_024, callback=seen)
    return seen.returns, seen.lengths


def make(envs: str, settings: dict[str, Any], autoreset: str) -> Any:
    """Single envs in SB3's `DummyVecEnv`, or our batch, in `SB3VecEnv` unless it is "bare"."""
    if "single" in envs:
        return make_vec_env(lambda: count(gym.make("textenvs/Copy-v0", **settings)), n_envs=NUM_ENVS, seed=0)
    batch = count(gym.make_vec("textenvs/Copy-v0", num_envs=NUM_ENVS, autoreset_mode=autoreset, **settings))
    return batch if "bare" in envs else SB3VecEnv(batch)


def use(envs: str, settings: dict[str, Any], autoreset: str) -> tuple[list[float], list[int]]:
    """1,024 steps of PPO, or of DQN where `envs` says so."""
    agent = functools.partial(PPO, n_steps=64) if "DQN" not in envs else functools.partial(DQN, learning_starts=100)
    return learn(agent, "MlpPolicy", make(envs, settings, autoreset))


if __name__ == "__main__":
    modes = [mode.value for mode in AutoresetMode]
    tell(
        use,
        [
            ("single", "onehot", None, "library"),
            ("single", "tokens", None, "library"),
            ("single", "onehot", "pettingzoo", "library"),
            ("single, DQN", "onehot", None, "library"),
            *(("batch", "onehot", None, mode) for mode in modes),
            ("batch", "tokens", None, "SameStep"),
            ("batch, DQN", "onehot", None, "SameStep"),
            *(("bare batch", "onehot", None, mode) for mode in modes),
        ],
    )
