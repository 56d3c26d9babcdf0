"""Every way to use the envs in TorchRL, some hundred steps each; run by fits.py in TorchRL's venv."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium as gym
import torch
from counting import count
from fits import tell
from gymnasium.vector import AutoresetMode
from tensordict.nn import TensorDictModule
from torchrl.collectors import Collector
from torchrl.envs import ActionMask, DTypeCastTransform, GymEnv, GymWrapper, RewardSum, StepCounter, TransformedEnv
from torchrl.modules import MLP, MaskedCategorical, ProbabilisticActor

import textenvs  # noqa: F401 - registers the ids

gym.register("Counted-v0", lambda **settings: count(gym.make("textenvs/Copy-v0", **settings)))


def use(envs: str, settings: dict[str, Any], autoreset: str) -> tuple[list[float], list[int]]:
    """Collect 1,024 steps by an untrained network."""
    if envs == "batch":
        made = count(gym.make_vec("textenvs/Copy-v0", num_envs=8, autoreset_mode=autoreset, **settings))
        env = GymWrapper(made, categorical_action_encoding=True)
    else:
        env = GymEnv("Counted-v0", categorical_action_encoding=True, **settings)
    env = TransformedEnv(env)
    if settings["mask_keys"]:
        env.append_transform(DTypeCastTransform(torch.int8, torch.bool, in_keys=["action_mask"]))
        env.append_transform(ActionMask())
    env.append_transform(StepCounter())
    env.append_transform(RewardSum())
    env.set_seed(0)
    key = "observation" if "observation" in env.observation_spec else "observations"
    keys = {"logits": "logits"} | ({"mask": "action_mask"} if settings["mask_keys"] else {})
    choose = MaskedCategorical if settings["mask_keys"] else torch.distributions.Categorical
    net = TensorDictModule(MLP(out_features=env.action_spec.n, num_cells=[16]), [key], ["logits"])
    actor = ProbabilisticActor(net, in_keys=keys, distribution_class=choose)
    actor(env.reset())
    returns: list[float] = []
    lengths: list[int] = []
    for data in Collector(env, actor, frames_per_batch=256, total_frames=1_024):
        done = data["next", "done"]
        returns += data["next", "episode_reward"][done].tolist()
        lengths += data["next", "step_count"][done].tolist()
    return returns, lengths


if __name__ == "__main__":
    modes = [mode.value for mode in AutoresetMode]
    single = itertools.product(["single"], ["onehot"], [None, "pettingzoo", "rllib"], ["library"])
    batch = itertools.product(["batch"], ["onehot"], [None, "pettingzoo"], modes)
    tell(use, [*single, *batch, ("single", "tokens", None, "library"), ("batch", "tokens", None, "Disabled")])
