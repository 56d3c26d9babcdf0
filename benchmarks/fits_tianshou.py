"""Every way to use the envs in Tianshou, some hundred steps each; run by fits.py in Tianshou's venv."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from counting import count
from fits import tell
from tianshou.algorithm import DQN, PPO
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainerParams, OnPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic

import textenvs  # noqa: F401 - registers the ids


def use(envs: str, settings: dict[str, Any], autoreset: str) -> tuple[list[float], list[int]]:
    """Train on 600 steps."""
    returns: list[float] = []
    lengths: list[int] = []

    def note(episode: Any) -> None:
        returns.append(episode.rew.sum())
        lengths.append(len(episode))

    if envs == "our batch":
        Collector(None, count(gym.make_vec("textenvs/Copy-v0", num_envs=4, autoreset_mode=autoreset, **settings)))
    venv = DummyVectorEnv([lambda: count(gym.make("textenvs/Copy-v0", **settings))] * 4)
    venv.seed(0)
    space, actions = venv.observation_space[0], venv.action_space[0]
    shape = (space["obs"] if "obs" in (space.keys() if hasattr(space, "keys") else ()) else space).shape
    adam = AdamOptimizerFactory(lr=1e-3)
    trainer: Any
    if envs.startswith("PPO"):
        nets = [Net(state_shape=shape, hidden_sizes=[16]) for _ in range(2)]
        actor = DiscreteActor(preprocess_net=nets[0], action_shape=actions.n, softmax_output=False)
        policy = DiscreteActorPolicy(actor=actor, action_space=actions)
        algorithm: Any = PPO(policy=policy, critic=DiscreteCritic(preprocess_net=nets[1]), optim=adam)
        trainer, collect = OnPolicyTrainerParams, {"collection_step_num_env_steps": None}
        collect |= {"collection_step_num_episodes": 50}
        if "steps" in envs:
            collect = {"collection_step_num_env_steps": 150}
    else:
        net = Net(state_shape=shape, action_shape=actions.n, hidden_sizes=[16])
        algorithm = DQN(policy=DiscreteQLearningPolicy(model=net, action_space=actions, eps_training=0.5), optim=adam)
        trainer, collect = OffPolicyTrainerParams, {"collection_step_num_env_steps": 150}
        collect |= {"update_step_num_gradient_steps_per_sample": 0.1}
    hook = None if "infos" in envs else lambda actions, steps: steps.update(info=Batch())
    hooks = {"on_episode_done_hook": note, "on_step_hook": hook}
    collector = Collector(algorithm, venv, VectorReplayBuffer(4_000, 4), **hooks)
    params = trainer(training_collector=collector, max_epochs=1, epoch_num_steps=600, show_progress=False, **collect)
    algorithm.run_training(params)
    return returns, lengths


if __name__ == "__main__":
    tell(
        use,
        [
            ("PPO", "onehot", None, "library"),
            ("PPO", "tokens", None, "library"),
            ("PPO", "onehot", "tianshou", "library"),
            ("PPO, infos stored", "onehot", None, "library"),
            ("PPO, collecting steps", "onehot", None, "library"),
            ("DQN", "onehot", None, "library"),
            ("DQN", "tokens", None, "library"),
            ("DQN", "onehot", "tianshou", "library"),
            ("DQN", "tokens", "tianshou", "library"),
            ("DQN", "onehot", "pettingzoo", "library"),
            ("our batch", "onehot", None, "NextStep"),
        ],
    )
