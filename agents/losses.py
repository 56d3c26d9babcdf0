"""Losses: pure functions of (B, T) tensors. Advantages live in `returns`; coefficients live in `algorithms`.

Every loss is a sum over the mask divided by a normalizer that the caller passes in: the count of the whole optimizer
step. Cutting a step into micro-batches therefore never changes its gradient.
"""

import torch
from torch import Tensor

from agents.returns import masked_sum

MAX_LOG_RATIO = 20.0  # exp(20) is 5e8: far beyond any ratio that still carries a gradient, far below float32's overflow


def _log_ratio(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor) -> Tensor:
    """Return log pi - log pi_old (B, T), 0 outside the mask."""
    zero = torch.zeros((), dtype=log_probs.dtype)
    return (torch.where(mask, log_probs, zero) - torch.where(mask, old_log_probs, zero)).clamp(
        -MAX_LOG_RATIO, MAX_LOG_RATIO
    )


def clipped_surrogate(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, *, clip_range: float, normalizer: float
) -> Tensor:
    """Compute -sum min(r A, clip(r, 1 - c, 1 + c) A) / normalizer with r = pi / pi_old.

    Args:
        log_probs: (B, T) under the policy that learns; gradients flow through these only.
        old_log_probs: (B, T) under the policy that sampled.
        advantages: (B, T).
        mask: (B, T) bool.
        clip_range: c > 0.
        normalizer: divisor of the sum, the same for all micro-batches of an optimizer step.

    Returns:
        A scalar.

    Source: Schulman et al. 2017, arXiv:1707.06347, equation 7.
    """
    ratio = _log_ratio(log_probs, old_log_probs.detach(), mask).exp()
    advantages = torch.where(mask, advantages.detach(), torch.zeros((), dtype=advantages.dtype))
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -masked_sum(torch.minimum(ratio * advantages, clipped * advantages), mask) / normalizer


def value_loss(values: Tensor, returns: Tensor, mask: Tensor, *, normalizer: float) -> Tensor:
    """Compute sum 0.5 (V - R)^2 / normalizer over values, returns and mask (B, T); a scalar.

    Unclipped: clipping the value loss did not help in Andrychowicz et al. 2021, arXiv:2006.05990, section 3.2.
    """
    zero = torch.zeros((), dtype=values.dtype)
    error = torch.where(mask, values, zero) - torch.where(mask, returns.detach(), zero)
    return 0.5 * masked_sum(error**2, mask) / normalizer


def entropy(log_probs: Tensor) -> Tensor:
    """Compute H = -sum p log p in nats over the last axis of normalised log_probs (..., V), skipping -inf (p = 0)."""
    finite = log_probs.masked_fill(log_probs == -torch.inf, 0.0)
    return -(log_probs.exp() * finite).sum(-1)


def kl_estimate(log_probs: Tensor, ref_log_probs: Tensor, estimator: str) -> Tensor:
    """Estimate KL(pi || ref) per sampled token, d = log pi - log ref: k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d.

    k1 and k3 are unbiased, k3 is never negative. As a penalty only detached k1 in the reward has the exact gradient.

    Args:
        log_probs: (B, T) of tokens sampled from pi.
        ref_log_probs: (B, T) of the same tokens under the reference.
        estimator: "k1", "k2" or "k3".

    Returns:
        (B, T), in nats.

    Raises:
        ValueError: for another estimator.

    Source: Schulman 2020, joschu.net/blog/kl-approx.html; gradients: Tang and Munos 2025, arXiv:2506.09477.
    """
    difference = log_probs - ref_log_probs
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return difference**2 / 2
    if estimator == "k3":
        return torch.expm1(-difference) + difference
    raise ValueError(f"estimator must be 'k1', 'k2' or 'k3', got {estimator!r}; choose one of them")


@torch.no_grad()
def ratio_statistics(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor, *, clip_range: float) -> dict[str, Tensor]:
    """Sum over the mask (B, T) k3 of KL(pi_old || pi) and the clipped slots; find the largest |log ratio|."""
    log_ratio = _log_ratio(log_probs, old_log_probs, mask)
    clipped = (log_ratio.exp() - 1).abs() > clip_range
    return {
        "approx_kl": masked_sum(torch.expm1(log_ratio) - log_ratio, mask),
        "clip_fraction": masked_sum(clipped.to(log_probs.dtype), mask),
        "max_abs_log_ratio": log_ratio.abs().max(),
    }
