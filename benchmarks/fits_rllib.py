"""Every way to use the envs in RLlib, one update each; run by fits.py in RLlib's venv."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import gymnasium as gym
import ray
from counting import count
from fits import tell
from gymnasium.vector import AutoresetMode
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.examples.rl_modules.classes.action_masking_rlm import ActionMaskingTorchRLModule
from ray.tune.registry import register_env

import textenvs  # noqa: F401 - registers the ids

returns: list[float] = []
lengths: list[int] = []


class Episodes(RLlibCallback):
    """Notes every finished episode."""

    def on_episode_end(self, *, episode: Any, prev_episode_chunks: Any = (), **kwargs: Any) -> None:
        """See `examples/rllib_ppo.py`."""
        returns.append(sum(chunk.get_return() for chunk in [*prev_episode_chunks, episode]))
        lengths.append(episode.t)


gym.register("Counted-v0", lambda **settings: count(gym.make("textenvs/Copy-v0", **settings)))
register_env("batch", lambda settings: count(gym.make_vec("textenvs/Copy-v0", **settings)))


def use(envs: str, settings: dict[str, Any], autoreset: str) -> tuple[list[float], list[int]]:
    """Three updates of PPO."""
    returns.clear()
    lengths.clear()
    single = envs == "single"
    mode = {"vector_kwargs": {"autoreset_mode": AutoresetMode(autoreset)}} if single else {"autoreset_mode": autoreset}
    module = {"module_class": ActionMaskingTorchRLModule} if settings["mask_keys"] else {}
    config = PPOConfig().environment("Counted-v0" if single else "batch", env_config=settings | mode)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=8)
    config.env_runners(gym_env_vectorize_mode="sync" if single else "vector_entry_point")
    config.rl_module(rl_module_spec=RLModuleSpec(**module, model_config=DefaultModelConfig(fcnet_hiddens=[32])))
    config.training(train_batch_size_per_learner=512, minibatch_size=256, num_epochs=1)
    algo = config.callbacks(Episodes).debugging(seed=0).build_algo()
    for _ in range(3):
        algo.train()
    algo.stop()
    return returns, lengths


if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL)
    logging.disable()
    modes = [mode.value for mode in AutoresetMode]
    kinds = ("single", "batch")
    tokens = itertools.product(kinds, ["tokens"], [None], ["NextStep"])
    others = itertools.product(kinds, ["onehot"], ["pettingzoo"], ["NextStep"])
    tell(use, [*itertools.product(kinds, ["onehot"], [None, "rllib"], modes), *tokens, *others])
    ray.shutdown()
