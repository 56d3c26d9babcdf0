"""Tianshou's PPO learns to copy. `python examples/tianshou_ppo.py`."""

import argparse

import gymnasium as gym
from counting import count, report

import textenvs  # noqa: F401 - registers the ids

try:
    import torch
    from tianshou.algorithm import PPO
    from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Batch, Collector, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.trainer import OnPolicyTrainerParams
    from tianshou.utils.net.common import Net
    from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
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
    settings = {"length": 3, "alphabet": "abcd", "dense": True, "observation": "onehot"}
    envs = DummyVectorEnv([lambda: count(gym.make("textenvs/Copy-v0", **settings))] * 16)
    envs.seed(arguments.seed)  # reset(seed=...) would give every env the same one
    obs_shape, num_tokens = envs.observation_space[0].shape, envs.action_space[0].n
    actor, critic = (Net(state_shape=obs_shape, hidden_sizes=[64, 64]) for _ in range(2))
    actor = DiscreteActor(preprocess_net=actor, action_shape=num_tokens, softmax_output=False)
    policy = DiscreteActorPolicy(actor=actor, action_space=envs.action_space[0])
    critic = DiscreteCritic(preprocess_net=critic)
    algorithm = PPO(policy=policy, critic=critic, optim=AdamOptimizerFactory(lr=1e-3), gamma=1.0)
    # No infos are stored: text that comes only at an episode's end is null before, and the trainer refuses nulls.
    hooks = {"on_episode_done_hook": note, "on_step_hook": lambda actions, steps: steps.update(info=Batch())}
    collector = Collector(algorithm, envs, VectorReplayBuffer(4096, len(envs)), **hooks)
    steps = {"max_epochs": 1, "epoch_num_steps": 500 if arguments.smoke else 40_000, "verbose": False}
    steps |= {"collection_step_num_env_steps": None, "collection_step_num_episodes": 128}
    update = {"update_step_num_repetitions": 10, "batch_size": 128, "show_progress": False}
    algorithm.run_training(OnPolicyTrainerParams(training_collector=collector, **steps, **update))
    report("tianshou", returns, lengths)


if __name__ == "__main__":
    main()
