"""REINFORCE by hand: fifteen lines of torch, rewards to go against their running mean, sixteen episodes an update."""

import argparse

import gymnasium as gym
from counting import count, report

import textenvs  # noqa: F401 - registers the ids

try:
    import torch
    from torch import nn
except ImportError:
    raise SystemExit('this example needs PyTorch; pip install "textenvs[agents]"') from None


def reinforce(env, policy, optimizer, num_episodes, baseline=0.0):
    for episode in range(1, num_episodes + 1):
        (observation, _), log_probs, rewards, done = env.reset(), [], [], False
        while not done:
            log_p = policy(torch.as_tensor(observation)).log_softmax(-1)
            action = log_p.exp().multinomial(1).item()
            observation, reward, terminated, truncated, _ = env.step(action)
            log_probs, rewards, done = [*log_probs, log_p[action]], [*rewards, reward], terminated or truncated
        to_go = torch.tensor(rewards).flip(0).cumsum(0).flip(0)
        (torch.stack(log_probs) * (baseline - to_go)).sum().backward()
        baseline += 0.01 * (to_go.mean().item() - baseline)
        if episode % 16 == 0:
            optimizer.step()
            optimizer.zero_grad()
        yield sum(rewards), len(rewards)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="some episodes only")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    env = count(gym.make("textenvs/Copy-v0", length=3, alphabet="abcd", dense=True, observation="onehot"))
    size, num_actions = env.observation_space.shape[0], int(env.action_space.n)
    policy = nn.Sequential(nn.Linear(size, 256), nn.ReLU(), nn.Linear(256, num_actions))
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    env.reset(seed=arguments.seed)  # the resets that follow go on from it
    episodes = list(reinforce(env, policy, optimizer, 160 if arguments.smoke else 30_000))
    report("torch", *zip(*episodes, strict=True))


if __name__ == "__main__":
    main()
