"""Losses: pure functions of (B, T) tensors. Advantages live in `returns`; coefficients live in `algorithms`.

Every loss is a sum over the mask, weighted by `token_weights` of the whole optimizer step, which the caller passes in.
Cutting a step into micro-batches therefore never changes its gradient.
"""

from typing import Any

import torch
from torch import Tensor

from agents.returns import masked_sum

MAX_LOG_RATIO = 20.0  # exp(20) is 5e8: far beyond any ratio that still carries a gradient, far below float32's overflow
_LOG_OF_ZERO = -1e4  # exp of it is 0 in float32 and float64, and a product with it is finite
_CACHED = 2**18  # elements of the temporary arrays of `token_scores`, 1 MB


def _log_ratio(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor) -> Tensor:
    """Return log pi - log pi_old (B, T), 0 outside the mask."""
    zero = torch.zeros((), dtype=log_probs.dtype)
    return (torch.where(mask, log_probs, zero) - torch.where(mask, old_log_probs, zero)).clamp(
        -MAX_LOG_RATIO, MAX_LOG_RATIO
    )


def token_weights(mask: Tensor, aggregation: str) -> Tensor:
    """Compute what each token of an optimizer step counts for in its loss.

    Args:
        mask: (B, T) bool, of all episodes of the step.
        aggregation: "token_mean": 1 / number of tokens. "sequence_mean": 1 / (episodes * length of the token's).
            "sequence_sum": 1 / episodes, the only one whose sum is an unbiased policy gradient for every B.

    Returns:
        (B, T), 0 outside the mask.
    """
    lengths = mask.sum(1, keepdim=True)
    divisor = {
        "token_mean": lengths.sum(),
        "sequence_mean": lengths * len(mask),
        "sequence_sum": torch.tensor(len(mask)),
    }
    return mask / divisor[aggregation].clamp(min=1)


def clipped_surrogate(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, weights: Tensor, *, clip_range: float
) -> Tensor:
    """Compute -sum w min(r A, clip(r, 1 - c, 1 + c) A) with r = pi / pi_old. At r = 1 it has the policy gradient.

    Args:
        log_probs: (B, T) under the policy that learns; gradients flow through these only.
        old_log_probs: (B, T) under the policy that sampled.
        advantages: (B, T).
        mask: (B, T) bool.
        weights: (B, T), w, from `token_weights`.
        clip_range: c > 0.

    Returns:
        A scalar.

    Source: Schulman et al. 2017, arXiv:1707.06347, equation 7.
    """
    ratio = _log_ratio(log_probs, old_log_probs.detach(), mask).exp()
    advantages = torch.where(mask, advantages.detach(), torch.zeros((), dtype=advantages.dtype))
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -masked_sum(torch.minimum(ratio * advantages, clipped * advantages) * weights, mask)


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, weights: Tensor, *, clip_range: float | None
) -> Tensor:
    """Compute sum w 0.5 (V - R)^2; clipped, the larger of that and the same of V kept within c of the sampled value.

    Args:
        values: (B, T) of the critic that learns.
        old_values: (B, T) of the critic that sampled.
        returns: (B, T) targets.
        mask: (B, T) bool.
        weights: (B, T), w, from `token_weights`.
        clip_range: c > 0 in units of reward, or None for the plain loss.

    Returns:
        A scalar.

    Source: OpenAI baselines' ppo2; Huang et al. 2022, "The 37 implementation details of PPO", detail 9.
    """
    zero = torch.zeros((), dtype=values.dtype)
    values, old_values, returns = (torch.where(mask, x, zero) for x in (values, old_values.detach(), returns.detach()))
    error = (values - returns) ** 2
    if clip_range is not None:
        clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
        error = torch.maximum(error, (clipped - returns) ** 2)
    return 0.5 * masked_sum(error * weights, mask)


class _TokenScores(torch.autograd.Function):
    """See `token_scores`. Of the logits' size it keeps them alone; the backward pass makes their gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        chosen, entropies = logits.new_empty(len(logits)), logits.new_empty(len(logits))
        for part in _row_slices(logits):
            log_probs = torch.log_softmax(logits[part], -1)
            chosen[part] = log_probs.gather(-1, actions[part, None])[:, 0]
            entropies[part] = log_probs.exp().mul_(log_probs.clamp_(min=_LOG_OF_ZERO)).sum(-1).neg_()
        ctx.save_for_backward(logits, actions, entropies)
        return chosen, entropies

    @staticmethod
    def backward(ctx: Any, chosen_grad: Tensor, entropy_grad: Tensor) -> tuple[Tensor, None]:
        logits, actions, entropies = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        for part in _row_slices(logits):
            # d log p_a / d x_j = [j = a] - p_j, and d H / d x_j = -p_j (log p_j + H).
            log_probs = torch.log_softmax(logits[part], -1)
            torch.exp(log_probs, out=gradient[part])
            weight, at = chosen_grad[part, None], entropy_grad[part, None]
            log_probs.clamp_(min=_LOG_OF_ZERO).add_(entropies[part, None]).mul_(at).add_(weight)
            gradient[part].mul_(log_probs.neg_()).scatter_add_(-1, actions[part, None], weight)
        return gradient, None


def _row_slices(x: Tensor) -> list[slice]:
    """Slices of the rows of (M, V) that stay in the processor's cache while several operations pass them."""
    size = max(1, _CACHED // x.shape[1])
    return [slice(i, i + size) for i in range(0, len(x), size)]


def token_scores(logits: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Compute log softmax(x)_a and the entropy H = -sum p log p in nats of each row, where p = 0 adds 0.

    Of the size of its input it allocates one array, in the backward pass.

    Args:
        logits: (M, V), x, -inf where a token is forbidden; gradients flow through these.
        actions: (M,) of int64, a.

    Returns:
        log-probabilities and entropies, (M,) each.
    """
    scores: tuple[Tensor, Tensor] = _TokenScores.apply(logits, actions)  # type: ignore[no-untyped-call]
    return scores


def kl_estimate(log_probs: Tensor, ref_log_probs: Tensor, estimator: str) -> Tensor:
    """Estimate KL(pi || ref) per sampled token, d = log pi - log ref: k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d.

    k1 and k3 are unbiased, k3 is never negative. As a penalty only detached k1 in the reward has the exact gradient: as
    a loss, k1 has the expected gradient 0, k2 that of each token's own KL, and k3 that of KL(ref || pi) of each token.

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


def adapted_kl_coef(kl_coef: float, kl: float, *, num_episodes: int, target: float, horizon: float) -> float:
    """Move a KL coefficient towards where the KL meets its target.

    Args:
        kl_coef: the coefficient now.
        kl: nats an episode, summed over its tokens, the mean over episodes.
        num_episodes: that were sampled since the last change.
        target: of kl, above 0.
        horizon: episodes; the relative error, cut to 0.2 either way, counts for num_episodes / horizon.

    Source: Ziegler et al. 2019, arXiv:1909.08593, section 2.2.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * num_episodes / horizon)


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
