"""From a rollout to a gradient: `make_batch` and `accumulate_gradients` against numbers and formulas by hand.

That the gradient is the policy gradient is enumerated in test_gradient.py.
"""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from small import ragged_envs, tiny_lm

from agents.algorithms import ALGORITHMS, Algorithm
from agents.lm import LMPolicy
from agents.losses import kl_estimate
from agents.mlp import MLPPolicy
from agents.returns import gae, masked_whiten
from agents.rollout import Rollout, collect
from agents.train import make_optimizer
from agents.update import accumulate_gradients, fit_value_bias, make_batch, micro_batches, optimize


def random_lm(envs, architecture: str = "gpt2", seed: int = 0, init_std: float = 0.5) -> LMPolicy:
    """A policy whose probabilities and values differ from token to token."""
    policy = tiny_lm(envs, architecture, init_std=init_std, seed=seed)
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(seed))
    return policy


# ----------------------------------------------------------------------------------- the numbers an update learns from


def two_episodes() -> Rollout:
    """Dense rewards; the agent did not choose slot 1 of the first episode, and the second has ended before slot 2."""
    mask = np.array([[True, False, True], [True, True, False]])
    return Rollout(
        observations=np.zeros((2, 4), np.int64),
        actions=np.zeros((2, 3), np.int64),
        mask=mask,
        positions=np.tile(np.arange(1, 4), (2, 1)),
        legal=None,
        log_probs=np.array([[-1, 0, -2], [-1, -1, 0]], np.float32),
        values=np.zeros((2, 3), np.float32),
        rewards=np.array([[1.0, 0.0, 2.0], [3.0, 4.0, 0.0]]),
        terminated=np.ones(2, bool),
        truncated=np.zeros(2, bool),
        bootstrap_values=np.zeros(2, np.float32),
        infos=np.array([{}] * 2, object),
        episodes=np.arange(2),
    )


@pytest.mark.parametrize(
    ("kl_coef", "advantages"),
    [(0.7, [[3.0, 0.0, 2.7], [5.6, 2.6, 0.0]]), (None, [[3.0, 0.0, 2.1], [6.8, 3.8, 0.0]])],
)
def test_a_token_is_charged_its_k1_at_the_coefficient_as_it_stands(kl_coef, advantages):
    """k1 is 1 and -1 in the first episode, 0 and 2 in the second; None stands for the algorithm's 0.1."""
    algorithm = replace(ALGORITHMS["reinforce"], kl_coef=0.1)
    ref_log_probs = torch.tensor([[-2.0, 0.0, -1.0], [-1.0, -3.0, 0.0]])
    batch = make_batch(two_episodes(), algorithm, ref_log_probs, kl_coef=kl_coef)
    torch.testing.assert_close(batch.advantages, torch.tensor(advantages))
    assert batch.kl_coef == (kl_coef or 0.1)


@pytest.mark.parametrize(
    ("credit", "advantages"),
    [("episode", [[-2.0, 0.0, -2.0], [2.0, 2.0, 0.0]]), ("to_go", [[-2.0, 0.0, 1.0], [2.0, 1.0, 0.0]])],
)
@pytest.mark.parametrize(("baseline", "factor"), [("group_mean", 1), ("leave_one_out", 2)])
def test_a_token_answers_for_what_its_credit_says(credit, advantages, baseline, factor):
    """Returns are 3 and 7, so their mean is 5; to go, the rows are 3 2 2 and 7 4 0, their means 5 3 1."""
    algorithm = replace(ALGORITHMS["rloo"], baseline=baseline, group_size=2, credit=credit)
    batch = make_batch(two_episodes(), algorithm)
    torch.testing.assert_close(batch.advantages, factor * torch.tensor(advantages))


# --------------------------------------------------------------------------------------------------------- the gradient


@pytest.mark.parametrize(
    ("kl_penalty", "value_clip_range"), [("k1_reward", None), ("k1_reward", 0.2), ("k2_loss", None), ("k3_loss", 0.2)]
)
def test_the_whole_loss_has_the_gradient_of_its_formula(kl_penalty, value_clip_range):
    """All coefficients count, ratios and values are off and some clipped, and the step has only some of the rows."""
    envs = ragged_envs(6)
    policy, reference = random_lm(envs), random_lm(envs, seed=1)
    rollout, rows = collect(envs, policy, num_episodes=14, seed=0), np.arange(3, 12)
    rng = np.random.default_rng(0)
    for column in (rollout.log_probs, rollout.values):
        column[:] += rng.normal(0, 0.3, column.shape).astype(np.float32)
    algorithm = Algorithm(
        clip_range=0.2, value_coef=0.7, entropy_coef=0.4, kl_coef=0.3, gamma=0.9, gae_lambda=0.8,
        kl_penalty=kl_penalty, value_clip_range=value_clip_range,
    )  # fmt: skip
    ref_log_probs = reference.evaluate(rollout, np.arange(14))[0].detach()
    batch = make_batch(rollout, algorithm, ref_log_probs, kl_coef=0.5)  # as an adaptive one that has moved
    policy.zero_grad()
    metrics = accumulate_gradients(policy, batch, rows, algorithm)
    assert 0.1 < metrics["clip_fraction"] < 0.9
    actual = [parameter.grad.clone() for parameter in policy.parameters()]

    mask, old = torch.from_numpy(rollout.mask), torch.from_numpy(rollout.log_probs)
    in_reward = kl_penalty == "k1_reward"
    rewards = torch.from_numpy(rollout.rewards).float() - 0.5 * in_reward * (old - ref_log_probs)
    bootstrap, old_values = torch.from_numpy(rollout.bootstrap_values), torch.from_numpy(rollout.values)
    advantages, returns = gae(rewards, old_values, mask, bootstrap, gamma=0.9, gae_lambda=0.8)
    here = mask[rows]
    A, R, V = (x[rows][here] for x in (masked_whiten(advantages, mask), returns, old_values))
    log_probs, values, entropies = (output[here] for output in policy.evaluate(rollout, rows))
    r = (log_probs - old[rows][here]).exp()
    surrogate = torch.minimum(r * A, r.clamp(0.8, 1.2) * A).mean()
    error = (values - R) ** 2
    if value_clip_range is not None:
        clipped = (V + (values - V).clamp(-value_clip_range, value_clip_range) - R) ** 2
        assert 0.1 < (clipped > error).float().mean() < 0.9
        error = torch.maximum(error, clipped)
    loss = -surrogate + 0.7 * (error / 2).mean() - 0.4 * entropies.mean()
    if not in_reward:
        loss = loss + 0.5 * kl_estimate(log_probs, ref_log_probs[rows][here], kl_penalty[:2]).mean()
    for one, other in zip(actual, torch.autograd.grad(loss, list(policy.parameters())), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("name", ["ppo", "rloo", "grpo"])
def test_gradients_do_not_depend_on_micro_batches(name, architecture, monkeypatch):
    """Micro-batches of 1, 2, 4 and all rows, and by tokens: within 1e-6 where the largest gradient is above 0.1."""
    envs = ragged_envs(6)
    policy, rows = random_lm(envs, architecture, init_std=0.1), np.arange(16)
    algorithm = replace(ALGORITHMS[name], kl_coef=0.1, group_size=4)
    rollout = collect(envs, policy, num_episodes=16, seed=0, group_size=algorithm.group_size)
    assert len(set(rollout.lengths)) > 4
    ref_log_probs = random_lm(envs, architecture, seed=1, init_std=0.1).evaluate(rollout, rows)[0]
    batch = make_batch(rollout, algorithm, ref_log_probs)

    def run(max_tokens: int) -> tuple[dict[str, float], list[torch.Tensor]]:
        policy.zero_grad()
        metrics = accumulate_gradients(policy, batch, rows, algorithm, max_tokens=max_tokens)
        return metrics, [p.grad.clone() for p in policy.parameters() if p.grad is not None]

    num_parts = [len(list(micro_batches(rollout, rows, max_tokens))) for max_tokens in (1, 60, 10_000)]
    assert num_parts[0] == 16 > num_parts[1] > num_parts[2] == 1
    results = [run(10_000), run(60)]
    for size in (1, 2, 4, 16):
        parts = np.array_split(rows, len(rows) // size)
        monkeypatch.setattr("agents.update.micro_batches", lambda *_, parts=parts: iter(parts))
        results.append(run(10_000))
    assert 0.1 < max(gradient.abs().max() for gradient in results[0][1]) < 2
    for metrics, gradients in results[1:]:
        assert metrics == pytest.approx(results[0][0], rel=1e-4, abs=1e-6)
        for one, other in zip(gradients, results[0][1], strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["lm", "mlp"])
def test_a_fitted_bias_puts_the_values_where_the_targets_are(kind):
    """Every value moves by the same, their mean to that of the targets; the log-probabilities stay."""
    envs = ragged_envs(6)
    policy = random_lm(envs)
    if kind == "mlp":
        envs = gym.make_vec("CartPole-v1", 4, "sync", vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED})
        policy = MLPPolicy.from_spaces(envs.single_observation_space, envs.single_action_space, seed=0)
    rollout = collect(envs, policy, num_episodes=9, seed=0)
    batch = make_batch(rollout, replace(ALGORITHMS["ppo"], value_clip_range=0.1))
    before, mask = policy.evaluate(rollout, np.arange(9)), batch.mask
    fitted = fit_value_bias(policy, batch)
    after = policy.evaluate(rollout, np.arange(9))
    torch.testing.assert_close(after[1][mask].mean(), batch.returns[mask].mean())
    torch.testing.assert_close(
        (after[1] - before[1])[mask], (batch.returns - batch.old_values)[mask].mean().expand(int(mask.sum()))
    )
    torch.testing.assert_close(after[0], before[0])
    # A value is kept near that of the critic which the steps start from.
    torch.testing.assert_close(fitted.old_values[mask], after[1][mask])


@pytest.mark.parametrize("fitted", [True, False])
def test_the_bias_is_fitted_before_the_steps_where_that_is_asked(fitted):
    envs = ragged_envs(6)
    policy = random_lm(envs)
    rollout = collect(envs, policy, num_episodes=9, seed=0)
    algorithm = replace(ALGORITHMS["ppo"], fit_value_bias=fitted, learning_rate=1e-6)
    batch = make_batch(rollout, algorithm)
    optimize(policy, make_optimizer(policy, algorithm), batch, algorithm, seed=0, update=0)
    error = (batch.returns - policy.evaluate(rollout, np.arange(9))[1].detach())[batch.mask].mean()
    assert (abs(error) < 1e-3) == fitted


def test_poison_in_every_masked_slot_changes_nothing():
    """NaN, forbidden ids and absurd numbers outside the mask: loss and gradients stay the same to the last bit."""
    envs = ragged_envs(6)
    policy, algorithm = tiny_lm(envs), Algorithm(kl_coef=0.1)
    reference = tiny_lm(envs, seed=1)
    rollout = collect(envs, policy, num_episodes=14, seed=0)
    outside = ~rollout.mask
    assert outside.sum() > 20

    def run(poisoned: bool) -> list[torch.Tensor]:
        ref_log_probs = reference.evaluate(rollout, np.arange(14))[0].detach()
        if poisoned:
            for column in (rollout.log_probs, rollout.values, rollout.rewards):
                column[outside] = np.nan
            rollout.actions[outside], rollout.positions[outside] = -(10**6), 10**6
            ref_log_probs[torch.from_numpy(outside)] = torch.nan
            assert rollout.legal is not None
            rollout.legal[outside] = False
        batch = make_batch(rollout, algorithm, ref_log_probs)
        policy.zero_grad()
        metrics = accumulate_gradients(policy, batch, np.arange(14), algorithm)
        return [torch.tensor(list(metrics.values())), *(parameter.grad.clone() for parameter in policy.parameters())]

    for clean, dirty in zip(run(False), run(True), strict=True):
        assert torch.equal(clean, dirty)


def test_kl_before_the_first_step_is_zero():
    envs = ragged_envs(6)
    policy = tiny_lm(envs)
    rollout = collect(envs, policy, num_episodes=14, seed=0)
    log_probs = policy.evaluate(rollout, np.arange(14))[0]
    ref_log_probs = policy.frozen_copy().evaluate(rollout, np.arange(14))[0]
    assert torch.equal(log_probs, ref_log_probs)
    batch = make_batch(rollout, Algorithm(), ref_log_probs)
    assert batch.kl is not None
    assert batch.kl[batch.mask].abs().max() <= 1e-5
