"""Tianshou's DQN with its action masks learns to copy. `python examples/tianshou_masked_dqn.py`."""

import argparse

import gymnasium as gym
import numpy as np
from counting import count, report

import textenvs  # noqa: F401 - registers the ids

try:
    import torch
    from tianshou.algorithm import DQN
    from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Batch, Collector, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.trainer import OffPolicyTrainerParams
    from tianshou.utils.net.common import Net
except ImportError:
    raise SystemExit("this example needs Tianshou; pip install -r examples/requirements-tianshou.txt") from None

returns, lengths = [], []


def note(episode):
    returns.append(episode.rew.sum())
    lengths.append(len(episode))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a few updates only")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    np.random.seed(arguments.seed)  # noqa: NPY002 - Tianshou explores with the global generator
    settings = {"length": 3, "alphabet": "abcd", "dense": True, "observation": "onehot", "mask_keys": "tianshou"}
    envs = DummyVectorEnv([lambda: count(gym.make("textenvs/Copy-v0", **settings))] * 16)
    envs.seed(arguments.seed)  # reset(seed=...) would give every env the same one
    obs_shape, num_tokens = envs.observation_space[0]["obs"].shape, envs.action_space[0].n
    net = Net(state_shape=obs_shape, action_shape=num_tokens, hidden_sizes=[128, 128])
    policy = DiscreteQLearningPolicy(model=net, action_space=envs.action_space[0])
    algorithm = DQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-3), gamma=1.0, target_update_freq=100)
    # No infos are stored: text that comes only at an episode's end is null before, and the trainer refuses nulls.
    hooks = {"on_episode_done_hook": note, "on_step_hook": lambda actions, steps: steps.update(info=Batch())}
    collector = Collector(algorithm, envs, VectorReplayBuffer(20_000, len(envs)), **hooks)
    num_steps = 500 if arguments.smoke else 12_000
    steps = {"max_epochs": 1, "epoch_num_steps": num_steps, "collection_step_num_env_steps": 64}
    steps |= {"training_fn": lambda epoch, step: policy.set_eps_training(max(0.02, 1 - 2 * step / num_steps))}
    update = {"update_step_num_gradient_steps_per_sample": 0.25, "batch_size": 128, "show_progress": False}
    algorithm.run_training(OffPolicyTrainerParams(training_collector=collector, **steps, **update))
    report("tianshou", returns, lengths)


if __name__ == "__main__":
    main()
