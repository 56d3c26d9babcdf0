"""MLPPolicy in the same loop, on ordinary envs whose right answer is known."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small import string_envs
from test_train import metrics_of, stop_and_resume

from agents.algorithms import Algorithm
from agents.checkpoint import parameter_hash
from agents.mlp import MLPPolicy
from agents.rollout import collect
from agents.train import TrainConfig, make_envs, start_policy, train
from agents.update import accumulate_gradients, make_batch

LIMIT = 8
CARTPOLE = TrainConfig(
    "CartPole-v1",
    algorithm=Algorithm(episodes_per_update=8, gamma=0.99, num_epochs=2, num_minibatches=2),
    model="mlp",
    num_episodes=32,
    num_envs=8,
)


class Steady(gym.Env):
    """One state, reward 1 at every step; by itself it never ends, or it ends after `LIMIT` steps."""

    observation_space, action_space = gym.spaces.Box(0, 1, (1,), np.float32), gym.spaces.Discrete(2)

    def __init__(self, ends: bool = False) -> None:
        self.ends = ends

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.num_steps = 0
        return np.ones(1, np.float32), {}

    def step(self, action):
        self.num_steps += 1
        return np.ones(1, np.float32), 1.0, self.ends and self.num_steps == LIMIT, False, {}


@pytest.fixture(autouse=True)
def steady_ids():
    gym.register("Steady-v0", Steady, max_episode_steps=LIMIT)
    gym.register("Ends-v0", Steady, kwargs={"ends": True})
    yield
    del gym.registry["Steady-v0"], gym.registry["Ends-v0"]


def mlp(envs, seed=0) -> MLPPolicy:
    return MLPPolicy.from_spaces(envs.single_observation_space, envs.single_action_space, seed=seed)


@pytest.mark.parametrize(("env_id", "low", "high"), [("Steady-v0", 45, 55), ("Ends-v0", 3, 8)])
def test_truncation_bootstraps_and_termination_does_not(tmp_path, env_id, low, high):
    """A cut stream of ones is worth 1 / (1 - .98) = 50, not the at most 7.5 of eight steps that really end."""
    algorithm = Algorithm(
        episodes_per_update=2, gamma=0.98, num_epochs=10, num_minibatches=1, value_coef=1.0, learning_rate=0.03,
        max_grad_norm=100.0,
    )  # fmt: skip
    config = TrainConfig(env_id, algorithm=algorithm, model="mlp", num_episodes=160, num_envs=2, checkpoint_every=80)
    train(config, tmp_path / "run", quiet=True)
    policy = start_policy(config, make_envs(env_id, 1, {}))
    policy.load(tmp_path / "run" / "final")
    value = policy.critic(torch.ones(1, 1)).item()
    assert low < value < high


def test_sampler_and_update_agree_and_masks_hold():
    envs = string_envs(observation="onehot")
    policy = mlp(envs)
    torch.nn.init.normal_(policy.actor[-1].weight, generator=torch.Generator().manual_seed(0))
    rollout = collect(envs, policy, num_episodes=30, seed=0)
    log_probs, values, entropies = policy.evaluate(rollout, np.arange(30))
    np.testing.assert_allclose(log_probs.detach(), rollout.log_probs, atol=1e-6)
    np.testing.assert_allclose(values.detach(), rollout.values, atol=1e-6)
    assert (entropies.detach().numpy()[~rollout.mask] == 0).all()
    legal = np.zeros((8, 6), bool)
    legal[:, [1, 4]] = True
    rngs = [np.random.default_rng(i) for i in range(8)]
    decisions = mlp(envs).act(envs.reset(seed=0)[0], np.arange(8), legal, rngs)
    assert set(decisions.actions) == {1, 4}


def test_gradients_do_not_depend_on_micro_batches():
    envs = make_envs("CartPole-v1", 4, {})
    policy, algorithm = mlp(envs), CARTPOLE.algorithm
    batch = make_batch(collect(envs, policy, num_episodes=8, seed=0), algorithm)
    gradients = []
    for max_tokens in (1, 64, 10_000):
        policy.zero_grad()
        accumulate_gradients(policy, batch, np.arange(8), algorithm, max_tokens=max_tokens)
        gradients.append([parameter.grad.clone() for parameter in policy.parameters()])
    for other in gradients[1:]:
        for one, two in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-4)


def test_resume_is_exact_and_a_second_run_equal(tmp_path, monkeypatch):
    straight = train(CARTPOLE, tmp_path / "straight", quiet=True)
    resumed = stop_and_resume(tmp_path / "resumed", CARTPOLE, monkeypatch)
    assert metrics_of(straight) == metrics_of(resumed)
    one, two = (load_file(run / "final" / "model.safetensors") for run in (straight, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_seeds_give_other_weights_and_leave_the_global_generator_alone():
    envs = make_envs("CartPole-v1", 1, {})
    before = torch.get_rng_state()
    assert parameter_hash(mlp(envs, 0)) == parameter_hash(mlp(envs, 0)) != parameter_hash(mlp(envs, 1))
    assert torch.equal(before, torch.get_rng_state())


def test_spaces_it_cannot_read_and_weights_that_do_not_fit_are_refused(tmp_path):
    envs = make_envs("CartPole-v1", 1, {})
    with pytest.raises(ValueError, match=r"observation_space must be a Box of one axis of floats, got Discrete\(16\)"):
        MLPPolicy.from_spaces(gym.spaces.Discrete(16), gym.spaces.Discrete(2), seed=0)
    with pytest.raises(ValueError, match="action_space must be Discrete"):
        MLPPolicy.from_spaces(envs.single_observation_space, gym.spaces.Box(0, 1, (1,)), seed=0)
    policy = mlp(envs)
    policy.save(tmp_path)
    smaller = MLPPolicy.from_spaces(envs.single_observation_space, gym.spaces.Discrete(2), hidden_sizes=(8,), seed=0)
    with pytest.raises(ValueError, match="weights must fit the env and hidden_sizes"):
        smaller.load(tmp_path)
    weights = {name: tensor * torch.nan for name, tensor in policy.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="weights must be finite"):
        policy.load(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_it_balances_the_pole(tmp_path, seed):
    algorithm = Algorithm(
        episodes_per_update=16, num_epochs=10, num_minibatches=8, gamma=0.98, gae_lambda=0.8, value_coef=0.5,
        entropy_coef=0.0, max_grad_norm=0.5,
    )  # fmt: skip
    config = dataclasses.replace(CARTPOLE, algorithm=algorithm, num_episodes=640, num_envs=16, seed=seed)
    train(config, tmp_path / "run", quiet=True)
    envs = make_envs("CartPole-v1", 20, {})
    policy = start_policy(config, envs)
    policy.load(tmp_path / "run" / "final")
    assert collect(envs, policy, num_episodes=100, seed=1, greedy=True).returns.mean() >= 475
