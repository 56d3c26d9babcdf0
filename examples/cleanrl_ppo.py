"""PPO in one file, in CleanRL's style, on the batch env: under NEXT_STEP, steps that only reset a row are left out."""

import argparse

import gymnasium as gym
from counting import count, report

import textenvs  # noqa: F401 - registers the ids

try:
    import torch
    from torch import nn
except ImportError:
    raise SystemExit('this example needs PyTorch; pip install "textenvs[agents]"') from None

NUM_ENVS, NUM_STEPS, NUM_EPOCHS, NUM_MINIBATCHES, LEARNING_RATE = 16, 32, 8, 4, 1e-3
GAMMA, GAE_LAMBDA, CLIP, ENTROPY, VALUE, MAX_NORM = 1.0, 0.95, 0.2, 0.01, 0.5, 0.5
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--smoke", action="store_true", help="a few updates only")
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()
torch.set_num_threads(1)
torch.manual_seed(arguments.seed)
kwargs = {"length": 3, "alphabet": "abcd", "dense": True, "observation": "onehot"}
envs = count(gym.make_vec("textenvs/Copy-v0", NUM_ENVS, autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP, **kwargs))
size, num_actions = envs.single_observation_space.shape[0], int(envs.single_action_space.n)
actor, critic = (nn.Sequential(nn.Linear(size, 256), nn.ReLU(), nn.Linear(256, n)) for n in (num_actions, 1))
optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters()], LEARNING_RATE, eps=1e-5)
observation, resets = torch.as_tensor(envs.reset(seed=arguments.seed)[0]), torch.zeros(NUM_ENVS, dtype=torch.bool)
paid, length, returns, lengths = torch.zeros(NUM_ENVS), torch.zeros(NUM_ENVS), [], []
for _update in range(2 if arguments.smoke else 80):
    rollout = []
    for _step in range(NUM_STEPS):
        with torch.no_grad():
            choice, value = torch.distributions.Categorical(logits=actor(observation)), critic(observation)[:, 0]
        action = choice.sample()
        after, reward, terminated, truncated = map(torch.as_tensor, envs.step(action.numpy())[:4])
        reward, done = reward.float(), terminated | truncated
        rollout.append((observation, action, choice.log_prob(action), value, reward, terminated, done, ~resets))
        paid, length = paid * ~resets + reward, (length + 1) * ~resets  # a step that only resets pays 0
        returns, lengths = returns + paid[done].tolist(), lengths + length[done].tolist()
        observation, resets = after, done  # the next step of a row that has ended only resets it
    seen, actions, log_probs, values, rewards, terminated, done, real = map(torch.stack, zip(*rollout, strict=True))
    following = torch.cat([values[1:], critic(observation).detach().T])  # of the last observation where a row ended
    deltas, advantages, advantage = rewards + GAMMA * following * ~terminated - values, torch.zeros_like(values), 0.0
    for t in reversed(range(NUM_STEPS)):
        advantages[t] = advantage = deltas[t] + GAMMA * GAE_LAMBDA * advantage * ~done[t]
    batch = [x[real] for x in (seen, actions, log_probs, advantages, advantages + values)]
    for rows in (rows for _ in range(NUM_EPOCHS) for rows in torch.randperm(len(batch[0])).chunk(NUM_MINIBATCHES)):
        obs, act, old, gain, target = (x[rows] for x in batch)
        choice, gain = torch.distributions.Categorical(logits=actor(obs)), (gain - gain.mean()) / (gain.std() + 1e-8)
        ratio = (choice.log_prob(act) - old).exp()
        surrogate = torch.minimum(ratio * gain, ratio.clamp(1 - CLIP, 1 + CLIP) * gain).mean()
        loss = VALUE * (critic(obs)[:, 0] - target).pow(2).mean() - surrogate - ENTROPY * choice.entropy().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], MAX_NORM)
        optimizer.step()
report("torch", returns, lengths)
