"""The update's gradient against the exact policy gradient, by enumeration of every sequence (V = 3, T = 3)."""

import itertools

import numpy as np
import pytest
import torch
from small import ragged_envs, tiny_lm

from agents.algorithms import Algorithm
from agents.lm import LMPolicy
from agents.returns import gae, masked_whiten
from agents.rollout import Rollout, collect
from agents.update import accumulate_gradients, make_batch, micro_batches

# No whitening, no clipping at ratio 1, no critic, no bonus: what is left of PPO is the policy gradient.
PLAIN = Algorithm(gae_lambda=1.0, value_coef=0.0, entropy_coef=0.0)
METADATA = {
    "num_tokens": 3,
    "bos_id": 0,
    "eos_id": 2,
    "stop_ids": (),
    "vocab_sha256": "",
    "has_masks": False,
    "max_prompt_tokens": 1,
    "max_new_tokens": 3,
}
SEQUENCES = np.array(list(itertools.product(range(3), repeat=3)))


def score(sequences: np.ndarray) -> np.ndarray:
    """An arbitrary score of each of the 27 sequences."""
    return np.random.default_rng(5).normal(size=27)[sequences @ [9, 3, 1]]


def tabular(seed: int = 0) -> LMPolicy:
    policy = LMPolicy.from_config(METADATA, hidden_size=16, num_layers=1, num_heads=2, init_std=0.5, seed=seed)
    torch.nn.init.normal_(policy.value_head.weight)
    return policy


def rollout_of(policy: LMPolicy, sequences: np.ndarray) -> Rollout:
    """The rollout that holds these sequences, as `collect` would have recorded them."""
    size = len(sequences)
    rewards = np.zeros((size, 3))
    rewards[:, 2] = score(sequences)
    rollout = Rollout(
        observations=np.concatenate([np.zeros((size, 1), np.int64), sequences], 1),
        actions=sequences,
        mask=np.ones((size, 3), bool),
        positions=np.tile(np.arange(1, 4), (size, 1)),
        legal=None,
        log_probs=np.zeros((size, 3), np.float32),
        values=np.zeros((size, 3), np.float32),
        rewards=rewards,
        terminated=np.ones(size, bool),
        truncated=np.zeros(size, bool),
        bootstrap_values=np.zeros(size, np.float32),
        infos=np.array([{}] * size, object),
    )
    with torch.no_grad():
        log_probs, values, _ = policy.evaluate(rollout, np.arange(size))
    rollout.log_probs[:], rollout.values[:] = log_probs, values
    return rollout


def trunk_gradient(policy: LMPolicy) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in policy.model.parameters()])


def exact_gradient(policy: LMPolicy, scores: torch.Tensor) -> torch.Tensor:
    """Gradient of sum_y p(y) R(y) by autograd through the probabilities themselves."""
    policy.zero_grad()
    rollout = rollout_of(policy, SEQUENCES)
    log_probs, _, _ = policy.evaluate(rollout, np.arange(27))
    (log_probs.sum(1).exp() * scores).sum().backward()
    return trunk_gradient(policy)


def update_gradient(
    policy: LMPolicy, rollout: Rollout, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> torch.Tensor:
    """The ascent direction of one optimizer step, as a sum over its decisions."""
    monkeypatch.setattr("agents.update.masked_whiten", lambda advantages, mask: advantages)
    policy.zero_grad()
    accumulate_gradients(policy, make_batch(rollout, PLAIN), rows, PLAIN)
    return -trunk_gradient(policy) * 3 * len(rows)


def test_update_averaged_over_all_sequences_is_the_exact_gradient(monkeypatch):
    """The critic is arbitrary here: a baseline must not move the expectation."""
    policy = tabular()
    exact = exact_gradient(policy, torch.tensor(score(SEQUENCES), dtype=torch.float32))
    rollout = rollout_of(policy, SEQUENCES)
    probabilities = np.exp(rollout.log_probs.sum(1))
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    total = sum(p * update_gradient(policy, rollout, np.array([i]), monkeypatch) for i, p in enumerate(probabilities))
    assert exact.abs().max() > 0.05
    torch.testing.assert_close(total, exact, atol=2e-6, rtol=1e-4)


def test_update_on_samples_is_unbiased(monkeypatch):
    policy = tabular()
    exact = exact_gradient(policy, torch.tensor(score(SEQUENCES), dtype=torch.float32))
    rollout = rollout_of(policy, SEQUENCES)
    each = torch.stack([update_gradient(policy, rollout, np.array([i]), monkeypatch) for i in range(27)]).double()
    probabilities = np.exp(rollout.log_probs.sum(1, dtype=np.float64))
    counts = torch.tensor(np.random.default_rng(0).multinomial(20_000, probabilities / probabilities.sum()))
    mean = (counts[:, None] * each).sum(0) / 20_000
    variance = (counts[:, None] * (each - mean) ** 2).sum(0) / 20_000
    moving = variance > 1e-12
    z = (mean - exact).abs()[moving] / (variance[moving] / 20_000).sqrt()
    assert moving.sum() > 1000
    assert z.max() < 5


def test_kl_penalty_has_the_gradient_of_the_kl(monkeypatch):
    """With no score, ascent of the penalised reward is exact descent of beta * KL(pi || ref)."""
    beta, policy, reference = 0.7, tabular(0), tabular(1).frozen_copy()
    monkeypatch.setattr("agents.update.masked_whiten", lambda advantages, mask: advantages)
    rollout = rollout_of(policy, SEQUENCES)
    rollout.rewards[:] = 0
    ref_log_probs = reference.evaluate(rollout, np.arange(27))[0]
    policy.zero_grad()
    log_probs = policy.evaluate(rollout, np.arange(27))[0].sum(1)
    (-beta * (log_probs.exp() * (log_probs - ref_log_probs.sum(1))).sum()).backward()
    exact = trunk_gradient(policy)
    algorithm = Algorithm(gae_lambda=1.0, value_coef=0.0, entropy_coef=0.0, kl_coef=beta)
    batch = make_batch(rollout, algorithm, ref_log_probs)
    total = torch.zeros_like(exact)
    for i, p in enumerate(np.exp(rollout.log_probs.sum(1))):
        policy.zero_grad()
        accumulate_gradients(policy, batch, np.array([i]), algorithm)
        total -= 3 * p * trunk_gradient(policy)
    torch.testing.assert_close(total, exact, atol=1e-5, rtol=1e-4)


def test_the_whole_loss_has_the_gradient_of_its_formula():
    """All coefficients count, ratios are off 1 and some clipped, and the step has only some of the rollout's rows."""
    envs = ragged_envs(6)
    policy, reference = tiny_lm(envs, init_std=0.5), tiny_lm(envs, init_std=0.5, seed=1)
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(0))
    rollout, rows = collect(envs, policy, num_episodes=14, seed=0), np.arange(3, 12)
    rollout.log_probs[:] += np.random.default_rng(0).normal(0, 0.3, rollout.log_probs.shape).astype(np.float32)
    algorithm = Algorithm(clip_range=0.2, value_coef=0.7, entropy_coef=0.4, kl_coef=0.3, gamma=0.9, gae_lambda=0.8)
    ref_log_probs = reference.evaluate(rollout, np.arange(14))[0].detach()
    policy.zero_grad()
    metrics = accumulate_gradients(policy, make_batch(rollout, algorithm, ref_log_probs), rows, algorithm)
    assert 0.1 < metrics["clip_fraction"] < 0.9
    actual = [parameter.grad.clone() for parameter in policy.parameters()]

    mask, old = torch.from_numpy(rollout.mask), torch.from_numpy(rollout.log_probs)
    rewards = torch.from_numpy(rollout.rewards).float() - 0.3 * (old - ref_log_probs)
    bootstrap = torch.from_numpy(rollout.bootstrap_values)
    advantages, returns = gae(rewards, torch.from_numpy(rollout.values), mask, bootstrap, gamma=0.9, gae_lambda=0.8)
    here = mask[rows]
    A, R = masked_whiten(advantages, mask)[rows][here], returns[rows][here]
    log_probs, values, entropies = (output[here] for output in policy.evaluate(rollout, rows))
    r = (log_probs - old[rows][here]).exp()
    surrogate = torch.minimum(r * A, r.clamp(0.8, 1.2) * A).mean()
    loss = -surrogate + 0.7 * ((values - R) ** 2 / 2).mean() - 0.4 * entropies.mean()
    for one, other in zip(actual, torch.autograd.grad(loss, list(policy.parameters())), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_gradients_do_not_depend_on_micro_batches(architecture):
    envs = ragged_envs(6)
    policy, algorithm = tiny_lm(envs, architecture), Algorithm()
    batch = make_batch(collect(envs, policy, num_episodes=14, seed=0), algorithm)
    rows = np.arange(14)
    results = []
    for max_tokens in (1, 60, 10_000):
        policy.zero_grad()
        metrics = accumulate_gradients(policy, batch, rows, algorithm, max_tokens=max_tokens)
        results.append((metrics, [parameter.grad.clone() for parameter in policy.parameters()]))
    num_parts = [len(list(micro_batches(batch.rollout, rows, max_tokens))) for max_tokens in (1, 60, 10_000)]
    assert num_parts[0] == 14 > num_parts[1] > num_parts[2] == 1
    for metrics, gradients in results[1:]:
        assert metrics == pytest.approx(results[0][0], rel=1e-4, abs=1e-6)
        for one, other in zip(gradients, results[0][1], strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


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
