"""TorchRL's PPO learns to copy, in a `GymEnv`. `python examples/torchrl_ppo.py`."""

import argparse

import gymnasium as gym
from counting import count, report

import textenvs  # noqa: F401 - registers the ids

try:
    import torch
    from tensordict.nn import TensorDictModule
    from torchrl.collectors import Collector
    from torchrl.data import LazyTensorStorage, ReplayBuffer, SamplerWithoutReplacement
    from torchrl.envs import Compose, GymEnv, RewardSum, StepCounter, TransformedEnv
    from torchrl.modules import MLP, ProbabilisticActor, ValueOperator
    from torchrl.objectives import ClipPPOLoss
except ImportError:
    raise SystemExit("this example needs TorchRL; pip install -r examples/requirements-torchrl.txt") from None

gym.register("Counted-v0", lambda **settings: count(gym.make("textenvs/Copy-v0", **settings)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a few updates only")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    settings = {"length": 3, "alphabet": "abcd", "dense": True, "observation": "onehot"}
    env = GymEnv("Counted-v0", categorical_action_encoding=True, **settings)
    env = TransformedEnv(env, Compose(StepCounter(), RewardSum()))
    env.set_seed(arguments.seed)
    sizes = {"num_cells": [64, 64], "activation_class": torch.nn.ReLU}
    net = TensorDictModule(MLP(out_features=env.action_spec.n, **sizes), ["observation"], ["logits"])
    categorical = torch.distributions.Categorical
    actor = ProbabilisticActor(net, in_keys=["logits"], distribution_class=categorical, return_log_prob=True)
    critic = ValueOperator(MLP(out_features=1, **sizes), in_keys=["observation"])
    actor(env.reset()), critic(env.reset())  # makes the lazy layers
    loss = ClipPPOLoss(actor, critic, entropy_coeff=0.01, normalize_advantage=True)
    loss.make_value_estimator(gamma=1.0, lmbda=0.95)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
    buffer = ReplayBuffer(storage=LazyTensorStorage(512), sampler=SamplerWithoutReplacement(), batch_size=128)
    returns, lengths = [], []
    for data in Collector(env, actor, frames_per_batch=512, total_frames=1_024 if arguments.smoke else 20_480):
        done = data["next", "done"]
        returns += data["next", "episode_reward"][done].tolist()
        lengths += data["next", "step_count"][done].tolist()
        for _ in range(10):
            buffer.extend(loss.value_estimator(data).reshape(-1))
            for _, minibatch in zip(range(4), buffer, strict=False):
                optimizer.zero_grad()
                sum(value for key, value in loss(minibatch).items() if key.startswith("loss_")).backward()
                optimizer.step()
    report("torchrl", returns, lengths)


if __name__ == "__main__":
    main()
