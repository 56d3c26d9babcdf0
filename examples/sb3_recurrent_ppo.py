"""sb3-contrib's RecurrentPPO learns to copy. `python examples/sb3_recurrent_ppo.py`."""

import argparse

import gymnasium as gym
from counting import count, report

import textenvs  # noqa: F401 - registers the ids

try:
    import torch
    from sb3_contrib import RecurrentPPO
    from stable_baselines3.common.env_util import make_vec_env
except ImportError:
    raise SystemExit('this example needs sb3-contrib; pip install "textenvs[sb3]"') from None


def make_env():
    return count(gym.make("textenvs/Copy-v0", length=3, alphabet="abcd", dense=True, observation="onehot"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a few updates only")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = RecurrentPPO(
        "MlpLstmPolicy",
        make_vec_env(make_env, n_envs=16, seed=arguments.seed),
        policy_kwargs={"lstm_hidden_size": 64, "net_arch": [64]},
        learning_rate=1e-3,
        n_steps=32,
        batch_size=128,
        gamma=1.0,
        ent_coef=0.01,
        stats_window_size=100_000,  # every episode
        seed=arguments.seed,
        device="cpu",
    )
    model.learn(1_000 if arguments.smoke else 40_000)
    episodes = model.ep_info_buffer
    report("sb3-contrib", [episode["r"] for episode in episodes], [episode["l"] for episode in episodes])


if __name__ == "__main__":
    main()
