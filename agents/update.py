"""From a rollout to gradients: the numbers PPO learns from, and one optimizer step's gradient. The loop is `train`."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator, SeedSequence, default_rng
from numpy.typing import NDArray
from torch import Tensor

from agents.algorithms import Algorithm
from agents.losses import clipped_surrogate, kl_estimate, ratio_statistics, value_loss
from agents.returns import gae, masked_sum, masked_whiten
from agents.rollout import Learner, Rollout

MAX_FORWARD_TOKENS = 2**14  # slots in one forward, padding included: bounds memory, changes no gradient
_SHUFFLE_STREAM = 2  # first word of the seed; `rollout` has 0 and 1


@dataclass(frozen=True)
class Batch:
    """A rollout with what the update needs of it, (B, T) tensors."""

    rollout: Rollout
    mask: Tensor
    old_log_probs: Tensor
    advantages: Tensor  # whitened over the whole rollout
    returns: Tensor
    kl: Tensor | None  # k1 from the reference, or None without one


def make_batch(rollout: Rollout, algorithm: Algorithm, ref_log_probs: Tensor | None = None) -> Batch:
    """Compute advantages and returns of a rollout.

    The KL penalty goes into the reward of each token as detached k1: of the usual estimators the only one whose
    expected gradient is that of the KL (Tang and Munos 2025, arXiv:2506.09477). Advantages are whitened over the
    rollout, not the minibatch, so that the gradient does not depend on how the rollout is cut.

    Args:
        rollout: B episodes of at most T decisions.
        algorithm: the coefficients.
        ref_log_probs: (B, T) of the same actions under the frozen reference; None without a penalty.
    """
    mask = torch.from_numpy(rollout.mask)
    log_probs = torch.from_numpy(rollout.log_probs)
    rewards = torch.from_numpy(rollout.rewards).float()
    kl = None if ref_log_probs is None else kl_estimate(log_probs, ref_log_probs.detach(), "k1")
    if kl is not None:
        rewards = rewards - algorithm.kl_coef * kl
    advantages, returns = gae(
        rewards,
        torch.from_numpy(rollout.values),
        mask,
        torch.from_numpy(rollout.bootstrap_values),
        gamma=algorithm.gamma,
        gae_lambda=algorithm.gae_lambda,
    )
    return Batch(rollout, mask, log_probs, masked_whiten(advantages, mask), returns, kl)


def minibatches(
    num_episodes: int, num_minibatches: int, *, seed: int, update: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Cut a fresh shuffle of the episodes into minibatches whose sizes differ by at most one.

    The order is a pure function of (seed, update, epoch), so that a resumed run needs no generator state.
    """
    rng: Generator = default_rng(SeedSequence([_SHUFFLE_STREAM, seed, update, epoch]))
    return np.array_split(rng.permutation(num_episodes), min(num_minibatches, num_episodes))


def micro_batches(rollout: Rollout, rows: NDArray[np.int64], max_tokens: int) -> Iterator[NDArray[np.int64]]:
    """Cut rows, sorted by length, into parts of at most max_tokens slots each once padded to their longest."""
    # A prefix has the prompt too: the last decision's slot bounds what a forward sees.
    lengths = 1 + np.where(rollout.mask[rows], rollout.positions[rows], 0).max(1)
    rows, lengths = rows[np.argsort(lengths, kind="stable")], np.sort(lengths, kind="stable")
    start = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or (end + 1 - start) * lengths[end] > max_tokens:
            yield rows[start:end]
            start = end


@torch.no_grad()
def rollout_log_probs(policy: Learner, rollout: Rollout) -> Tensor:
    """Return a policy's log-probabilities (B, T) of a rollout's actions, in forwards of bounded size."""
    out = torch.zeros(rollout.mask.shape)
    for rows in micro_batches(rollout, np.arange(len(rollout)), MAX_FORWARD_TOKENS):
        out[rows] = policy.evaluate(rollout, rows)[0].cpu()
    return out


def accumulate_gradients(
    policy: Learner,
    batch: Batch,
    rows: NDArray[np.int64],
    algorithm: Algorithm,
    *,
    max_tokens: int = MAX_FORWARD_TOKENS,
) -> dict[str, float]:
    """Add the gradient of one optimizer step, -surrogate + value_coef * value loss - entropy_coef * entropy.

    Each term is a sum over the decisions of all rows divided by their number, whatever the cut into micro-batches.

    Args:
        policy: its parameters' `.grad` receive the gradient.
        batch: from `make_batch`.
        rows: (n,) episodes of the step.
        algorithm: the coefficients.
        max_tokens: most slots, padding included, in one forward; bounds memory only.

    Returns:
        Means over the step's decisions: loss/policy, loss/value, entropy, approx_kl, clip_fraction; and the largest
        |log ratio|.
    """
    normalizer = float(batch.mask[rows].sum())
    totals: dict[str, float] = {}
    largest = 0.0
    for part in micro_batches(batch.rollout, rows, max_tokens):
        log_probs, values, entropies = policy.evaluate(batch.rollout, part)
        mask, old_log_probs = batch.mask[part], batch.old_log_probs[part]
        surrogate = clipped_surrogate(
            log_probs,
            old_log_probs,
            batch.advantages[part],
            mask,
            clip_range=algorithm.clip_range,
            normalizer=normalizer,
        )
        critic = value_loss(values, batch.returns[part], mask, normalizer=normalizer)
        bonus = masked_sum(entropies, mask) / normalizer
        (surrogate + algorithm.value_coef * critic - algorithm.entropy_coef * bonus).backward()  # type: ignore[no-untyped-call]
        statistics = ratio_statistics(log_probs, old_log_probs, mask, clip_range=algorithm.clip_range)
        largest = max(largest, statistics.pop("max_abs_log_ratio").item())
        terms = {"loss/policy": surrogate, "loss/value": critic, "entropy": bonus}
        terms |= {name: value / normalizer for name, value in statistics.items()}
        for name, value in terms.items():
            totals[name] = totals.get(name, 0.0) + value.item()
    return totals | {"max_abs_log_ratio": largest}
