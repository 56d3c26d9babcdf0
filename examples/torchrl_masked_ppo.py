"""TorchRL's PPO with action masks, on our native batch. `python examples/torchrl_masked_ppo.py`."""

import argparse

import gymnasium as gym
from counting import count, report

import textenvs  # noqa: F401 - registers the ids

try:
    import torch
    from tensordict.nn import TensorDictModule
    from torchrl.collectors import Collector
    from torchrl.data import LazyTensorStorage, ReplayBuffer, SamplerWithoutReplacement
    from torchrl.envs import ActionMask, Compose, DTypeCastTransform, GymWrapper, RewardSum, StepCounter, TransformedEnv
    from torchrl.modules import MLP, MaskedCategorical, ProbabilisticActor, ValueOperator
    from torchrl.objectives import ClipPPOLoss
except ImportError:
    raise SystemExit("this example needs TorchRL; pip install -r examples/requirements-torchrl.txt") from None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a few updates only")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    settings = {"length": 3, "alphabet": "abcd", "dense": True, "observation": "onehot", "mask_keys": "pettingzoo"}
    envs = count(gym.make_vec("textenvs/Copy-v0", num_envs=16, autoreset_mode="Disabled", **settings))
    env = GymWrapper(envs, categorical_action_encoding=True)
    bools = DTypeCastTransform(torch.int8, torch.bool, in_keys=["action_mask"])  # MaskedCategorical takes no others
    env = TransformedEnv(env, Compose(bools, ActionMask(), StepCounter(), RewardSum()))
    env.set_seed(arguments.seed)
    sizes = {"num_cells": [64, 64], "activation_class": torch.nn.ReLU}
    net = TensorDictModule(MLP(out_features=env.action_spec.n, **sizes), ["observation"], ["logits"])
    keys = {"logits": "logits", "mask": "action_mask"}
    actor = ProbabilisticActor(net, in_keys=keys, distribution_class=MaskedCategorical, return_log_prob=True)
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
