"""Advantages and masked statistics against numbers by hand and against Stable-Baselines3's buffer."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from agents.returns import explained_variance, gae, group_advantages, masked_mean, masked_whiten

ALL = torch.ones(1, 3, dtype=torch.bool)


def test_gae_by_hand():
    rewards, values = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[0.5, 1.0, 0.25]])
    advantages, returns = gae(rewards, values, ALL, torch.tensor([4.0]), gamma=0.5, gae_lambda=0.5)
    # deltas: 2 + .5*4 - .25 = 3.75; 0 + .5*.25 - 1 = -.875; 1 + .5*1 - .5 = 1; each then adds .25 of the next.
    assert torch.equal(advantages, torch.tensor([[1.015625, 0.0625, 3.75]]))
    assert torch.equal(returns, torch.tensor([[1.515625, 1.0625, 4.0]]))


def test_score_on_the_last_action_decays_with_lambda_from_there():
    rewards, zeros = torch.tensor([[0.0, 0.0, 1.0]]), torch.zeros(1, 3)
    advantages, _ = gae(rewards, zeros, ALL, torch.zeros(1), gamma=1.0, gae_lambda=0.95)
    torch.testing.assert_close(advantages, torch.tensor([[0.95**2, 0.95, 1.0]]))


def test_lambda_one_returns_are_sums_of_future_rewards():
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(5, 7, generator=generator), torch.randn(5, 7, generator=generator)
    mask = torch.arange(7) < torch.tensor([7, 1, 3, 5, 6])[:, None]
    _, returns = gae(rewards, values, mask, torch.zeros(5), gamma=1.0, gae_lambda=1.0)
    future = torch.where(mask, rewards, 0.0).flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(returns, torch.where(mask, future, 0.0))


def test_gae_equals_stable_baselines3():
    rng = np.random.default_rng(0)
    num_steps, num_envs = 6, 4
    box = spaces.Box(-1, 1, (1,))
    buffer = RolloutBuffer(num_steps, box, box, gamma=0.97, gae_lambda=0.9, n_envs=num_envs)
    rewards, values, last = (rng.normal(size=shape) for shape in ((num_steps, num_envs),) * 2 + ((num_envs,),))
    terminal = np.array([True, False, True, False])
    for t in range(num_steps):
        zeros = np.zeros((num_envs, 1))
        started = np.full(num_envs, t == 0)
        buffer.add(zeros, zeros, rewards[t], started, torch.tensor(values[t]), torch.zeros(num_envs))
    buffer.compute_returns_and_advantage(torch.tensor(last), terminal)
    mask = torch.ones(num_envs, num_steps, dtype=torch.bool)
    bootstrap = torch.tensor(np.where(terminal, 0.0, last))
    ours = gae(torch.tensor(rewards.T), torch.tensor(values.T), mask, bootstrap, gamma=0.97, gae_lambda=0.9)
    np.testing.assert_allclose(ours[0], buffer.advantages.T, atol=1e-6)
    np.testing.assert_allclose(ours[1], buffer.returns.T, atol=1e-6)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e9])
def test_masked_slots_are_skipped_wherever_they_stand_and_whatever_they_hold(poison):
    generator = torch.Generator().manual_seed(1)
    rewards, values = torch.randn(3, 4, generator=generator), torch.randn(3, 4, generator=generator)
    bootstrap = torch.tensor([0.0, 1.0, 0.0])
    plain = gae(rewards, values, torch.ones(3, 4, dtype=torch.bool), bootstrap, gamma=0.9, gae_lambda=0.8)
    mask = torch.tensor([0, 1, 1, 0, 0, 1, 1, 0], dtype=torch.bool).expand(3, -1)

    def spread(x: torch.Tensor) -> torch.Tensor:
        return torch.full((3, 8), poison).masked_scatter(mask, x)

    holed = gae(spread(rewards), spread(values), mask, bootstrap, gamma=0.9, gae_lambda=0.8)
    for before, after in zip(plain, holed, strict=True):
        assert torch.equal(after[mask].view(3, 4), before)
        assert torch.equal(after[~mask], torch.zeros(12))


def test_whitening_is_over_valid_slots_only():
    x = torch.tensor([[1.0, 2.0, 3.0, float("nan")], [6.0, float("inf"), 1e9, -1e9]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]], dtype=torch.bool)
    white = masked_whiten(x, mask)
    np.testing.assert_allclose(white[mask], (np.array([1, 2, 3, 6]) - 3) / np.sqrt(14 / 3), rtol=1e-6)
    assert torch.equal(white[~mask], torch.zeros(4))


def test_whitening_one_slot_leaves_it_and_equal_slots_become_zero():
    one = torch.tensor([[True, False]])
    assert torch.equal(masked_whiten(torch.tensor([[5.0, 7.0]]), one), torch.tensor([[5.0, 0.0]]))
    equal = masked_whiten(torch.full((3, 5), 0.1), torch.ones(3, 5, dtype=torch.bool))
    assert equal.abs().max() < 1e-6


def test_masked_mean_and_explained_variance():
    mask = torch.tensor([[True, True, False]])
    assert masked_mean(torch.tensor([[1.0, 2.0, float("nan")]]), mask) == 1.5
    assert masked_mean(torch.tensor([[1.0, 2.0, 3.0]]), torch.zeros(1, 3, dtype=torch.bool)) == 0
    returns = torch.tensor([[1.0, 3.0, float("nan")]])
    assert explained_variance(returns, returns, mask) == 1.0
    assert explained_variance(torch.tensor([[2.0, 2.0, 9.0]]), returns, mask) == 0.0
    assert explained_variance(torch.tensor([[3.0, 1.0, 9.0]]), returns, mask) == -3.0
    assert math.isnan(explained_variance(returns, torch.ones(1, 3), mask))


def test_shapes_and_kinds_are_checked():
    with pytest.raises(ValueError, match=r"rewards must have the mask's shape \(1, 3\)"):
        gae(torch.zeros(1, 2), torch.zeros(1, 3), ALL, torch.zeros(1), gamma=1.0, gae_lambda=1.0)
    with pytest.raises(ValueError, match="bootstrap_values must be"):
        gae(torch.zeros(1, 3), torch.zeros(1, 3), ALL, torch.zeros(2), gamma=1.0, gae_lambda=1.0)
    with pytest.raises(ValueError, match="mask must be bool"):
        masked_mean(torch.zeros(1, 3), torch.ones(1, 3))


def groups_of(*, leave_one_out: bool, scale: bool, credit: str = "episode", fill: float = 0.0) -> torch.Tensor:
    """Group 7 has returns 1, 2, 6; group 3 twice 5; group 9 is alone; lengths are ragged and rows are mixed."""
    mask = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 0], [1, 1], [1, 1]], dtype=torch.bool)
    rewards = torch.tensor([[0.5, 0.5], [5.0, 0], [0, 2.0], [6.0, 0], [2.0, 3.0], [1.0, 1.0]])
    groups, rewards = torch.tensor([7, 3, 7, 7, 3, 9]), rewards.masked_fill(~mask, fill)
    return group_advantages(rewards, mask, groups, credit=credit, leave_one_out=leave_one_out, scale=scale)


def test_group_advantages_closed_form():
    std = math.sqrt((2**2 + 1**2 + 3**2) / 2) + 1e-4
    mean = groups_of(leave_one_out=False, scale=False)
    torch.testing.assert_close(mean, torch.tensor([[-2.0, -2], [0, 0], [-1, -1], [3, 0], [0, 0], [0, 0]]))
    torch.testing.assert_close(groups_of(leave_one_out=True, scale=False), mean * 1.5)
    torch.testing.assert_close(groups_of(leave_one_out=False, scale=True), mean / std)


def test_group_advantages_to_go_compare_the_same_place():
    """At the second token group 7 has .5 and 2 to go and one episode that has ended; group 3 has 3 and one ended."""
    std = math.sqrt((2**2 + 1**2 + 3**2) / 2) + 1e-4
    to_go = groups_of(leave_one_out=False, scale=False, credit="to_go")
    third = 2.5 / 3
    expected = torch.tensor([[-2.0, 0.5 - third], [0, 0], [-1, 2 - third], [3, 0], [0, 1.5], [0, 0]])
    torch.testing.assert_close(to_go, expected)
    scaled = groups_of(leave_one_out=False, scale=True, credit="to_go")
    torch.testing.assert_close(scaled[[0, 2, 3]], expected[[0, 2, 3]] / std)


def test_group_advantages_ignore_masked_rewards_and_are_finite_for_constant_groups():
    for scale in (False, True):
        clean, dirty = (groups_of(leave_one_out=True, scale=scale, fill=fill) for fill in (0.0, float("nan")))
        assert torch.equal(clean, dirty)
    constant = torch.full((8, 1), 0.1)
    mask, groups = torch.ones(8, 1, dtype=torch.bool), torch.zeros(8, dtype=torch.int64)
    assert group_advantages(constant, mask, groups, credit="to_go", leave_one_out=False, scale=True).abs().max() < 1e-9
