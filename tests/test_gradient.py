"""The update's gradient against exact policy gradients, by enumeration of every episode (V = 3, T = 3, ragged)."""

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from agents.algorithms import ALGORITHMS, Algorithm
from agents.lm import LMPolicy
from agents.losses import kl_estimate
from agents.rollout import Rollout
from agents.update import accumulate_gradients, make_batch

EOS, PAD = 2, 3
METADATA = {
    "num_tokens": 3,
    "bos_id": 0,
    "eos_id": EOS,
    "stop_ids": (),
    "vocab_sha256": "",
    "has_masks": False,
    "max_prompt_tokens": 1,
    "max_new_tokens": 3,
}


def finished(tokens: tuple[int, ...]) -> tuple[int, ...]:
    """An episode's tokens up to its end token, padded."""
    length = tokens.index(EOS) + 1 if EOS in tokens else 3
    return tokens[:length] + (PAD,) * (3 - length)


#: All 15 episodes: lengths 1, 2 and 3.
EPISODES = np.array(sorted({finished(tokens) for tokens in itertools.product(range(3), repeat=3)}))
#: An arbitrary reward of each token in each prefix, so that no symmetry hides a mistake: dense, as a prefix earns it.
_TABLE = np.random.default_rng(5).normal(size=64)
REWARDS = np.array([[_TABLE[np.dot([16, 4, 1][: t + 1], e[: t + 1])] for t in range(3)] for e in EPISODES]) * (
    EPISODES != PAD
)
SCORES = REWARDS.sum(1)


class Tabular(torch.nn.Module):
    """Free logits and a free value for each of the 7 prefixes: few parameters, so that all can be tested at once."""

    prefix_observations = True

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.logits = torch.nn.Parameter(torch.randn(7, 3, generator=generator))
        self.table = torch.nn.Parameter(torch.randn(7, generator=generator))

    def evaluate(self, rollout: Rollout, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        actions, mask = torch.from_numpy(rollout.actions[rows]), torch.from_numpy(rollout.mask[rows])
        first, second = actions[:, 0].clamp(max=1), actions[:, 1].clamp(max=1)
        prefixes = torch.stack([torch.zeros_like(first), 1 + first, 3 + 2 * first + second], 1)
        log_probs = torch.log_softmax(self.logits[prefixes], -1)
        chosen = log_probs.gather(-1, actions.clamp(max=2)[..., None])[..., 0]
        entropies = -(log_probs.exp() * log_probs).sum(-1)
        zero = torch.zeros(())
        return tuple(torch.where(mask, x, zero) for x in (chosen, self.table[prefixes], entropies))


def tiny(seed: int = 0, architecture: str = "gpt2") -> LMPolicy:
    settings = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "init_std": 0.5}
    policy = LMPolicy.from_config(METADATA, architecture=architecture, seed=seed, **settings)
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(seed))
    return policy


def all_episodes(policy: torch.nn.Module) -> Rollout:
    """The rollout that holds each episode once, as `collect` would have recorded it."""
    size, mask = len(EPISODES), EPISODES != PAD
    rollout = Rollout(
        observations=np.concatenate([np.zeros((size, 1), np.int64), EPISODES], 1),
        actions=np.where(mask, EPISODES, 0),
        mask=mask,
        positions=np.tile(np.arange(1, 4), (size, 1)),
        legal=None,
        log_probs=np.zeros((size, 3), np.float32),
        values=np.zeros((size, 3), np.float32),
        rewards=REWARDS.copy(),
        terminated=np.ones(size, bool),
        truncated=np.zeros(size, bool),
        bootstrap_values=np.zeros(size, np.float32),
        infos=np.array([{}] * size, object),
        episodes=np.arange(size),
    )
    with torch.no_grad():
        log_probs, values, _ = policy.evaluate(rollout, np.arange(size))
    rollout.log_probs[:], rollout.values[:] = log_probs, values
    return rollout


def probabilities(rollout: Rollout) -> np.ndarray:
    """(15,) of the episodes; they must be all there are."""
    p = np.exp(rollout.log_probs.sum(1, dtype=np.float64))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    return p / p.sum()


def gradient(policy: torch.nn.Module) -> torch.Tensor:
    """Of the policy's own parameters, not the critic's."""
    parameters = [policy.logits] if isinstance(policy, Tabular) else policy.model.parameters()
    return torch.cat([parameter.grad.flatten() for parameter in parameters]).double()


def true_gradient(policy: torch.nn.Module) -> torch.Tensor:
    """Gradient of sum_y p(y) R(y) by autograd through the probabilities themselves."""
    policy.zero_grad()
    log_probs, _, _ = policy.evaluate(all_episodes(policy), np.arange(len(EPISODES)))
    (log_probs.sum(1).exp() * torch.tensor(SCORES, dtype=torch.float32)).sum().backward()
    return gradient(policy)


def update_gradient(policy: torch.nn.Module, rollout: Rollout, algorithm: Algorithm) -> torch.Tensor:
    """The ascent direction of one optimizer step, as a mean over episodes."""
    policy.zero_grad()
    accumulate_gradients(policy, make_batch(rollout, algorithm), np.arange(len(rollout)), algorithm)
    # The mean over tokens is the sum over tokens divided by a random number: undo it.
    scale = rollout.mask.sum() / len(rollout) if algorithm.aggregation == "token_mean" else 1
    return -gradient(policy) * scale


def draw(rollout: Rollout, rows: np.ndarray) -> Rollout:
    """The rollout of these episodes, repeats allowed, numbered in this order."""
    return replace(rollout.select(rows), episodes=np.arange(len(rows)))


#: The rows themselves, less what is no part of the policy gradient: the critic's own loss (it moves a shared trunk),
#: the entropy bonus, whitening, bootstrapping from values (lambda 1).
EXACT = {
    "reinforce": ALGORITHMS["reinforce"],
    "reinforce with a critic": replace(ALGORITHMS["reinforce"], baseline="critic", gae_lambda=1.0, value_coef=0.0),
    "a2c": replace(ALGORITHMS["a2c"], entropy_coef=0.0, value_coef=0.0),
    "ppo": replace(ALGORITHMS["ppo"], entropy_coef=0.0, value_coef=0.0, normalize="none", gae_lambda=1.0),
}
GROUPED = {
    "rloo": (replace(ALGORITHMS["rloo"], entropy_coef=0.0, group_size=4), 1.0),
    "rloo to go": (replace(ALGORITHMS["rloo"], entropy_coef=0.0, group_size=4, credit="to_go"), 1.0),
    "group mean": (replace(ALGORITHMS["rloo"], entropy_coef=0.0, group_size=4, baseline="group_mean"), 3 / 4),
}
GRPO = replace(ALGORITHMS["grpo"], entropy_coef=0.0, group_size=2, episodes_per_update=2)


def z_scores(algorithm: Algorithm, expected: torch.Tensor, num_samples: int = 20_000) -> torch.Tensor:
    """|mean - expected| in standard errors, for each logit, over 20,000 sampled episodes in 200 updates."""
    policy = Tabular(0)
    rollout = all_episodes(policy)
    rows = np.random.default_rng(0).choice(len(EPISODES), size=(200, num_samples // 200), p=probabilities(rollout))
    each = torch.stack([update_gradient(policy, draw(rollout, part), algorithm) for part in rows])
    standard_error = each.std(0) / 200**0.5
    assert (standard_error > 1e-5).all()  # every logit is put to the test
    return (each.mean(0) - expected).abs() / standard_error


@pytest.mark.parametrize("make", [Tabular, tiny, partial(tiny, architecture="llama")], ids=["tabular", "gpt2", "llama"])
@pytest.mark.parametrize("name", EXACT)
def test_expectation_over_all_episodes_is_the_true_gradient(name, make):
    """The critic is arbitrary here: a baseline must not move the expectation."""
    policy = make(0)
    rollout, exact = all_episodes(policy), true_gradient(policy)
    total = torch.zeros_like(exact)
    for i, p in enumerate(probabilities(rollout)):
        total += p * update_gradient(policy, draw(rollout, np.array([i])), EXACT[name])
    assert exact.abs().max() > 0.05
    torch.testing.assert_close(total, exact, atol=4e-6, rtol=1e-4)


@pytest.mark.parametrize("name", EXACT)
def test_gradient_on_samples_is_unbiased(name):
    assert z_scores(EXACT[name], true_gradient(Tabular(0))).max() < 4


@pytest.mark.parametrize("name", GROUPED)
def test_group_baselines_scale_the_true_gradient(name):
    """Leaving the episode out is exact; the mean of all K scales by (K - 1) / K, and is told apart from exact."""
    algorithm, factor = GROUPED[name]
    exact = true_gradient(Tabular(0))
    assert z_scores(algorithm, factor * exact).max() < 4
    assert z_scores(algorithm, (1.75 - factor) * exact).max() > 6


def expectation_over_groups(algorithm: Algorithm) -> torch.Tensor:
    """The update's gradient averaged over all ordered pairs of episodes."""
    policy = Tabular(0)
    rollout = all_episodes(policy)
    p, total = probabilities(rollout), torch.zeros(21, dtype=torch.float64)
    for i, j in itertools.combinations_with_replacement(range(len(EPISODES)), 2):
        total += (p[i] * p[j] * (1 + (i != j))) * update_gradient(policy, draw(rollout, np.array([i, j])), algorithm)
    return total


@pytest.mark.parametrize("aggregation", ["sequence_mean", "sequence_sum"])
@pytest.mark.parametrize("normalize", ["group", "none"])
def test_grpo_has_the_expectation_of_its_formula(normalize, aggregation):
    """Its formula enumerated by hand over all pairs; samples agree; the standard deviation moves it off the truth."""
    algorithm = replace(GRPO, normalize=normalize, aggregation=aggregation)
    policy = Tabular(0)
    rollout = all_episodes(policy)
    p, lengths = probabilities(rollout), rollout.lengths
    by_hand = torch.zeros(15)
    for i, j in itertools.product(range(15), repeat=2):
        deviation = abs(SCORES[i] - SCORES[j]) / 2**0.5 + 1e-4 if normalize == "group" else 1
        weight = 1 / lengths[i] if aggregation == "sequence_mean" else 1
        by_hand[i] += p[i] * p[j] * weight * (SCORES[i] - (SCORES[i] + SCORES[j]) / 2) / deviation
    policy.zero_grad()
    (by_hand * policy.evaluate(rollout, np.arange(15))[0].sum(1)).sum().backward()
    expected = gradient(policy)
    torch.testing.assert_close(expectation_over_groups(algorithm), expected, atol=4e-6, rtol=1e-4)
    assert z_scores(algorithm, expected).max() < 4
    cosine = torch.nn.functional.cosine_similarity(expected, true_gradient(Tabular(0)), dim=0)
    assert (cosine > 0.999999) == (normalize == "none" and aggregation == "sequence_sum")


def test_kl_penalty_in_the_reward_has_the_gradient_of_the_kl():
    """With no score, ascent of the penalised reward is exact descent of beta * KL(pi || ref)."""
    beta, policy, reference = 0.7, tiny(0), tiny(1).frozen_copy()
    rollout = all_episodes(policy)
    rollout.rewards[:] = 0
    ref_log_probs = reference.evaluate(rollout, np.arange(15))[0]
    policy.zero_grad()
    log_probs = policy.evaluate(rollout, np.arange(15))[0].sum(1)
    (-beta * (log_probs.exp() * (log_probs - ref_log_probs.sum(1))).sum()).backward()
    exact = gradient(policy)
    algorithm = replace(EXACT["a2c"], kl_coef=beta)
    batch = make_batch(rollout, algorithm, ref_log_probs)
    total = torch.zeros_like(exact)
    for i, p in enumerate(probabilities(rollout)):
        policy.zero_grad()
        accumulate_gradients(policy, batch, np.array([i]), algorithm)
        total -= p * gradient(policy)
    torch.testing.assert_close(total, exact, atol=1e-5, rtol=1e-4)


def kl_gradients() -> dict[str, torch.Tensor]:
    """Expected descent direction of each KL penalty, and of KL(pi || ref), for two tabular policies."""
    policy, reference = Tabular(0), Tabular(1)
    rollout = all_episodes(policy)
    rollout.rewards[:] = 0
    ref_log_probs = reference.evaluate(rollout, np.arange(15))[0].detach()
    policy.zero_grad()
    log_probs = policy.evaluate(rollout, np.arange(15))[0].sum(1)
    (log_probs.exp() * (log_probs - ref_log_probs.sum(1))).sum().backward()
    gradients = {"true": gradient(policy)}
    for name in ("k1_reward", "k2_loss", "k3_loss"):
        algorithm = replace(ALGORITHMS["reinforce"], kl_coef=1.0, kl_penalty=name)
        batch = make_batch(rollout, algorithm, ref_log_probs)
        gradients[name] = torch.zeros(21, dtype=torch.float64)
        for i, p in enumerate(probabilities(rollout)):
            policy.zero_grad()
            accumulate_gradients(policy, batch, np.array([i]), algorithm)
            gradients[name] += p * gradient(policy)
    return gradients


def test_kl_in_the_loss_is_biased_as_its_docs_say():
    """k2 descends each token's own KL(pi || ref), k3 each token's KL(ref || pi); neither the KL of the episode."""
    gradients = kl_gradients()
    torch.testing.assert_close(gradients["k1_reward"], gradients["true"], atol=1e-5, rtol=1e-4)
    policy, reference = Tabular(0), Tabular(1)
    rollout = all_episodes(policy)
    reach = np.zeros(7)  # probability that each prefix is met
    for p, (first, second, _), length in zip(probabilities(rollout), rollout.actions, rollout.lengths, strict=True):
        for prefix in (0, 1 + first, 3 + 2 * first + second)[:length]:
            reach[prefix] += p
    log_p = torch.log_softmax(policy.logits, -1)
    log_q = torch.log_softmax(reference.logits, -1).detach()
    forward, backward = (log_p.exp() * (log_p - log_q)).sum(-1), (log_q.exp() * (log_q - log_p)).sum(-1)
    for name, kl in (("k2_loss", forward), ("k3_loss", backward)):
        (own,) = torch.autograd.grad((torch.tensor(reach) * kl).sum(), policy.logits, retain_graph=True)
        torch.testing.assert_close(gradients[name], own.flatten().double(), atol=1e-5, rtol=1e-4)
        cosine = torch.nn.functional.cosine_similarity(gradients[name], gradients["true"], dim=0)
        assert 0.3 < cosine < 0.99


def test_k1_as_a_loss_would_have_no_gradient():
    policy = Tabular(0)
    rollout = all_episodes(policy)
    log_probs = policy.evaluate(rollout, np.arange(15))[0]
    k1 = kl_estimate(log_probs, Tabular(1).evaluate(rollout, np.arange(15))[0].detach(), "k1")
    (torch.tensor(probabilities(rollout)) * k1.sum(1)).sum().backward()
    assert policy.logits.grad.abs().max() < 1e-6
