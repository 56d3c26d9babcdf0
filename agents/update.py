"""From a rollout to new weights: the numbers an algorithm learns from, and its optimizer steps. The loop is `train`."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.random import Generator, SeedSequence, default_rng
from numpy.typing import NDArray
from torch import Tensor

from agents.algorithms import Algorithm
from agents.losses import MAX_LOG_RATIO, clipped_surrogate, kl_estimate, ratio_statistics, token_weights, value_loss
from agents.replay import Replay, join, widen
from agents.returns import gae, group_advantages, masked_mean, masked_sum, masked_whiten
from agents.rollout import Learner, Rollout

MAX_FORWARD_TOKENS = 2**11  # slots in one forward, padding included: no slower than more, and far less memory
FORWARD_SLOTS = 256  # what a forward and its backward cost beside their slots: 350 at 0.1M parameters, 15 at 11M
_SHUFFLE_STREAM, _REPLAY_STREAM = 2, 3  # first word of the seed; `rollout` has 0 and 1


@dataclass(frozen=True)
class Batch:
    """A rollout with what the update needs of it, (B, T) tensors. Its last episodes may be earlier ones to imitate."""

    rollout: Rollout
    mask: Tensor
    old_log_probs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor  # the critic's targets
    ref_log_probs: Tensor | None  # None without a reference
    kl: Tensor | None  # k1 from the reference
    kl_coef: float
    num_imitated: int = 0


def make_batch(
    rollout: Rollout, algorithm: Algorithm, ref_log_probs: Tensor | None = None, *, kl_coef: float | None = None
) -> Batch:
    """Compute advantages and returns of a rollout.

    A KL penalty in the reward is detached k1, each token's at that token. Whatever the normalization, it is over the
    whole rollout, so that the gradient does not depend on how the rollout is cut.

    Args:
        rollout: B episodes of at most T decisions.
        algorithm: the row.
        ref_log_probs: (B, T) of the same actions under the frozen reference; None without a penalty.
        kl_coef: where it stands now; None for the algorithm's.
    """
    mask = torch.from_numpy(rollout.mask)
    log_probs, values = torch.from_numpy(rollout.log_probs), torch.from_numpy(rollout.values)
    rewards = torch.from_numpy(rollout.rewards).float()
    kl_coef = algorithm.kl_coef if kl_coef is None else kl_coef
    ref_log_probs = None if ref_log_probs is None else torch.where(mask, ref_log_probs.detach(), 0.0)
    kl = None if ref_log_probs is None else kl_estimate(log_probs, ref_log_probs, "k1")
    if kl is not None and algorithm.kl_penalty == "k1_reward":
        rewards = rewards - kl_coef * kl
    if algorithm.baseline in ("critic", "none"):
        critic = algorithm.baseline == "critic"
        bootstrap = torch.from_numpy(rollout.bootstrap_values)
        advantages, returns = gae(
            rewards,
            values if critic else torch.zeros_like(values),
            mask,
            bootstrap if critic else torch.zeros_like(bootstrap),
            gamma=algorithm.gamma,
            gae_lambda=algorithm.gae_lambda if critic else 1.0,
        )
    else:
        advantages = returns = group_advantages(
            rewards,
            mask,
            torch.from_numpy(rollout.episodes // algorithm.group_size),
            credit=algorithm.credit,
            leave_one_out=algorithm.baseline == "leave_one_out",
            scale=algorithm.normalize == "group",
        )
    if algorithm.normalize == "batch":
        advantages = masked_whiten(advantages, mask)
    return Batch(rollout, mask, log_probs, values, advantages, returns, ref_log_probs, kl, kl_coef)


def with_replay(batch: Batch, replay: Replay, rows: NDArray[np.int64]) -> Batch:
    """Append the chosen episodes (n,) of a replay to a batch, as episodes to imitate."""
    if replay.rollout is None or not len(rows):
        return batch
    rollout, returns = join(batch.rollout, replay.rollout.select(rows)), replay.returns[rows]
    mask, log_probs, values = (torch.from_numpy(x) for x in (rollout.mask, rollout.log_probs, rollout.values))

    def longer(x: Tensor, rest: Tensor) -> Tensor:
        return torch.cat([widen(x, mask.shape[1]), widen(rest, mask.shape[1])])

    return Batch(
        rollout,
        mask,
        log_probs,
        # Not the rollout's, once the critic's bias was fitted.
        old_values=longer(batch.old_values, values[len(batch.mask) :]),
        advantages=longer(batch.advantages, torch.zeros_like(returns)),
        returns=longer(batch.returns, returns),
        # What they are weighted with is 0, and must be finite.
        ref_log_probs=None
        if batch.ref_log_probs is None
        else longer(batch.ref_log_probs, log_probs[len(batch.mask) :]),
        kl=None,
        kl_coef=batch.kl_coef,
        num_imitated=len(rows),
    )


def optimize(
    policy: Learner,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    algorithm: Algorithm,
    *,
    seed: int,
    update: int,
    replay: Replay | None = None,
) -> list[dict[str, float]]:
    """Take the optimizer steps of one update, and remember its episodes for the imitation of later ones.

    Args:
        policy: learns.
        optimizer: of its parameters.
        batch: from `make_batch`.
        algorithm: the row.
        seed: the run's.
        update: number of the update; with the seed it fixes the shuffles.
        replay: earlier episodes; None to imitate none, as with an imitation_coef of 0.

    Returns:
        One dict a step taken: what `accumulate_gradients` returns, and grad_norm (before clipping).

    Raises:
        FloatingPointError: when a gradient is not finite (its step is then not taken), or the policy broke.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if algorithm.fit_value_bias:
        batch = fit_value_bias(policy, batch)
    steps: list[dict[str, float]] = []
    everything, plan = _plan(batch, algorithm, replay, seed=seed, update=update)
    for rows in plan:
        for parameter in parameters:  # as zero_grad does, which takes a hundredth of a small model's step
            parameter.grad = None
        step = accumulate_gradients(policy, everything, rows, algorithm)
        # The first step is from the sampling policy itself, whatever rounding says.
        if steps and algorithm.target_kl is not None and step["approx_kl"] > 1.5 * algorithm.target_kl:
            break
        norm = torch.nn.utils.clip_grad_norm_(parameters, algorithm.max_grad_norm, foreach=True).item()
        if not np.isfinite(norm):
            raise FloatingPointError(f"the gradient must be finite, got norm {norm} in step {len(steps)} of the update")
        optimizer.step()
        steps.append(step | {"grad_norm": norm})
    _check_sanity(policy, batch)
    if replay is not None and algorithm.imitation_coef > 0:
        expected = batch.old_values if algorithm.baseline == "critic" else torch.zeros_like(batch.returns)
        replay.add(batch.rollout, batch.returns, expected)
    return steps


def _plan(
    batch: Batch, algorithm: Algorithm, replay: Replay | None, *, seed: int, update: int
) -> tuple[Batch, list[NDArray[np.int64]]]:
    """The episodes of each optimizer step, a minibatch and those it imitates, and the batch that they number."""
    own = [
        rows
        for epoch in range(algorithm.num_epochs)
        for rows in minibatches(len(batch.rollout), algorithm.num_minibatches, seed=seed, update=update, epoch=epoch)
    ]
    if not replay:  # None, or still empty
        return batch, own
    rng = default_rng(SeedSequence([_REPLAY_STREAM, seed, update]))
    drawn = [replay.draw(algorithm.imitated_episodes, rng) for _ in own]
    # A replay may be much larger than what an update draws from it.
    rows = np.unique(np.concatenate(drawn))
    imitated = [len(batch.rollout) + np.searchsorted(rows, draws) for draws in drawn]
    return with_replay(batch, replay, rows), [np.append(*pair) for pair in zip(own, imitated, strict=True)]


@torch.no_grad()
def fit_value_bias(policy: Learner, batch: Batch) -> Batch:
    """Move the critic's bias by the mean of target - value, the least-squares step; return the batch as it then is."""
    shift = masked_mean(batch.returns - batch.old_values, batch.mask)
    policy.value_bias.add_(shift)
    return replace(batch, old_values=batch.old_values + shift)


@torch.no_grad()
def _check_sanity(policy: Learner, batch: Batch) -> None:
    """Refuse weights that are finite and broken, before they are saved: one episode in sixteen, at most eight, tell."""
    rows = np.arange(max(1, min(len(batch.rollout) // 16, 8)))
    mask = batch.mask[rows]
    log_probs, values, _ = policy.evaluate(batch.rollout, rows)
    moved = (log_probs - batch.old_log_probs[rows])[mask].abs().mean().item()
    if not moved < MAX_LOG_RATIO or not torch.isfinite(values[mask] ** 2).all():
        raise FloatingPointError(
            f"log-probabilities must move by less than {MAX_LOG_RATIO:.0f} nats a token in an update and values be "
            f"finite, got {moved:.3g} and values of up to {values[mask].abs().max().item():.3g}"
        )


def minibatches(
    num_episodes: int, num_minibatches: int, *, seed: int, update: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Cut a fresh shuffle of the episodes into minibatches whose sizes differ by at most one.

    The order is a pure function of (seed, update, epoch), so that a resumed run needs no generator state.
    """
    rng: Generator = default_rng(SeedSequence([_SHUFFLE_STREAM, seed, update, epoch]))
    return np.array_split(rng.permutation(num_episodes), min(num_minibatches, num_episodes))


def micro_batches(rollout: Rollout, rows: NDArray[np.int64], max_tokens: int) -> list[NDArray[np.int64]]:
    """Cut rows, sorted by length, where padding and forwards cost least: fewer slots, at `FORWARD_SLOTS` a forward.

    Args:
        rollout: holds the episodes.
        rows: (n,) which of them to cut.
        max_tokens: most slots of a part of two rows or more, each padded to the longest.
    """
    # A prefix has the prompt too: a forward ends before the token of the last decision.
    last = np.where(rollout.mask[rows], rollout.positions[rows], 0).max(1)
    lengths = np.maximum(rollout.lengths[rows], last - (0 if rollout.starts is None else rollout.starts[rows]))
    order = np.argsort(lengths, kind="stable")
    rows, lengths = rows[order], lengths[order]
    if len(rows) * int(lengths[-1]) <= min(max_tokens, int(lengths.sum()) + FORWARD_SLOTS):
        return [rows]
    least, cut = np.zeros(len(rows) + 1, np.int64), np.zeros(len(rows) + 1, np.int64)
    for end in range(1, len(rows) + 1):
        longest = lengths[end - 1]
        starts = np.arange(max(0, min(end - 1, end - max_tokens // longest)), end)
        slots = least[starts] + FORWARD_SLOTS + (end - starts) * longest
        cut[end] = starts[slots.argmin()]
        least[end] = slots.min()
    parts: list[NDArray[np.int64]] = []
    end = len(rows)
    while end:
        parts.insert(0, rows[cut[end] : end])
        end = int(cut[end])
    return parts


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
    """Add one optimizer step's gradient: -surrogate + value_coef * critic - entropy_coef * entropy + kl_coef * KL.

    The critic's term is there with a critic only, the KL's when the penalty acts in the loss. Episodes to imitate enter
    none of these, but imitation_coef * -(R - V)+ log pi, V being 0 without a critic. All are weighted by the row's
    aggregation over the whole step, each kind of episode by itself, however it is cut into micro-batches.

    Args:
        policy: its parameters' `.grad` receive the gradient.
        batch: from `make_batch`.
        rows: (n,) episodes of the step.
        algorithm: the row.
        max_tokens: most slots, padding included, in one forward; bounds memory only.

    Returns:
        loss/policy, loss/value, loss/kl and loss/imitation as they enter the gradient, before their coefficients;
        entropy, approx_kl (from the sampling policy) and clip_fraction, means over the step's tokens but those it
        imitates; and the largest |log ratio|.
    """
    weights = torch.zeros(batch.mask.shape)
    own = rows < len(batch.mask) - batch.num_imitated
    for kind in (rows[own], rows[~own]) if batch.num_imitated else (rows,):
        weights[kind] = token_weights(batch.mask[kind], algorithm.aggregation)
    num_tokens = float(batch.mask[rows[own]].sum())
    totals: dict[str, float] = {}
    largest = 0.0
    for part in micro_batches(batch.rollout, rows, max_tokens):
        log_probs, values, entropies = policy.evaluate(batch.rollout, part)
        old, weight = batch.old_log_probs[part], weights[part]
        mask, imitated = _kinds(batch, part)
        advantages, clip_range = batch.advantages[part], algorithm.clip_range
        terms = {"loss/policy": clipped_surrogate(log_probs, old, advantages, mask, weight, clip_range=clip_range)}
        loss = terms["loss/policy"] - algorithm.entropy_coef * masked_sum(entropies * weight, mask)
        if algorithm.baseline == "critic":
            terms["loss/value"] = value_loss(
                values, batch.old_values[part], batch.returns[part], mask, weight, clip_range=algorithm.value_clip_range
            )
            loss = loss + algorithm.value_coef * terms["loss/value"]
        if batch.ref_log_probs is not None and algorithm.kl_penalty != "k1_reward":
            reference = batch.ref_log_probs[part]
            # Nowhere else: 0 times the infinite exp of an imitated token that has become unlikely is NaN, backwards.
            counted = torch.where(mask, log_probs, reference)
            kl = kl_estimate(counted, reference, algorithm.kl_penalty.removesuffix("_loss"))
            terms["loss/kl"] = masked_sum(kl * weight, mask)
            loss = loss + batch.kl_coef * terms["loss/kl"]
        if batch.num_imitated:
            expected = values.detach() if algorithm.baseline == "critic" else 0.0
            gains = (batch.returns[part] - expected).clamp(min=0)
            terms["loss/imitation"] = -masked_sum(gains * log_probs * weight, imitated)
            loss = loss + algorithm.imitation_coef * terms["loss/imitation"]
        loss.backward()  # type: ignore[no-untyped-call]
        statistics = ratio_statistics(log_probs, old, mask, clip_range=clip_range)
        largest = max(largest, statistics.pop("max_abs_log_ratio").item())
        terms["entropy"] = masked_sum(entropies, mask) / num_tokens
        terms |= {name: value / num_tokens for name, value in statistics.items()}
        for name, value in terms.items():
            totals[name] = totals.get(name, 0.0) + value.item()
    return totals | {"max_abs_log_ratio": largest}


def _kinds(batch: Batch, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """The masks (n, T) of what is learnt from as sampled, and of what is imitated."""
    mask = batch.mask[rows]
    if not batch.num_imitated:
        return mask, mask
    imitated = torch.from_numpy(rows >= len(batch.mask) - batch.num_imitated)[:, None]
    return mask & ~imitated, mask & imitated
