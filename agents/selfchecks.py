"""What a run checks of itself while it learns, and what it logs of an update. docs/metrics.md defines the numbers."""

import math
import warnings

import numpy as np
import torch

from agents.algorithms import Algorithm
from agents.returns import explained_variance, masked_mean, masked_sum
from agents.rollout import Learner, Rollout
from agents.update import Batch, rollout_log_probs

# The sampler and the update may differ by rounding only. bfloat16's numbers stand 0.4 % apart: of the 384 ratios of an
# iteration of SmolLM2-135M the largest was off by 0.08 to 0.18 in 13 iterations.
MAX_RATIO_ERROR = {None: 1e-4, "bfloat16": 0.3}
MAX_FAULT_SHARE = 0.02  # of a run's episodes; more say that scoring is broken and the rest no fair sample
MIN_FAULT_EPISODES = 64  # before which that share is not judged
MIN_SILENT_EPISODES, SILENT_EPISODES = 64, 256  # of equal return: too few to judge, and enough to tell


def check_faults(everything: Rollout, num_faults: int, num_episodes: int) -> None:
    """End the run, with the cause, when scoring fails for all of an update or for too many of its episodes so far."""
    faulty = np.flatnonzero(everything.faulty)
    all_failed = len(faulty) == len(everything)
    too_many = num_episodes >= MIN_FAULT_EPISODES and num_faults > MAX_FAULT_SHARE * num_episodes
    if all_failed or (len(faulty) and too_many):
        first = everything.infos[faulty[0]]
        which = f"all {len(everything)} episodes of an update" if all_failed else f"{num_faults} of {num_episodes}"
        raise RuntimeError(
            f"scoring must fail for at most {MAX_FAULT_SHARE:.0%} of the episodes, but failed for {which}, such as the "
            f"response {first.get('response')!r}: {first.get('cause')}; mend the reward and resume"
        )


def tell_silence(num_episodes: int, num_before: int, num_done: int, value: float) -> None:
    """Say what helps a text run all of whose returns so far are the same: once, in the update that makes it enough."""
    enough = min(num_episodes, SILENT_EPISODES)
    if enough >= MIN_SILENT_EPISODES and num_before < enough <= num_done:
        warnings.warn(
            f"all {num_done} episodes so far returned {value:.3f}: no update can tell better from worse, and the "
            "weights, a warm start's too, only drift; unless that is the best there is, grade the reward ("
            """--env-kwargs '{"reward": "edit_similarity", "dense": true}') or imitate first (`textenvs sft`)""",
            stacklevel=3,
        )


def summarise(
    everything: Rollout,
    batch: Batch,
    steps: list[dict[str, float]],
    algorithm: Algorithm,
    *,
    autocast: str | None = None,
) -> dict[str, float]:
    """Turn one update into what is logged: means over its episodes and optimizer steps, and the self-checks."""
    rollout = batch.rollout
    # Before the first step the policy is the one that sampled, so every ratio must be 1.
    ratio_error = math.expm1(steps[0]["max_abs_log_ratio"])
    bound = MAX_RATIO_ERROR[autocast]
    if not ratio_error <= bound:
        warnings.warn(f"the first ratio must be within {bound} of 1, got 1 + {ratio_error:.2g}", stacklevel=2)
    metrics = {
        "return": float(rollout.returns.mean()),
        "length": float(rollout.lengths.mean()),
        **{name: float(np.mean([step[name] for step in steps])) for name in steps[0] if name != "max_abs_log_ratio"},
        "optimizer_steps": float(len(steps)),
        "check/ratio_error": ratio_error,
        "check/excluded_episodes": float(len(everything) - len(rollout)),
        "check/truncated_episodes": float((rollout.truncated & ~rollout.terminated).sum()),
    }
    if algorithm.baseline != "critic" and metrics["check/truncated_episodes"]:
        warnings.warn(
            f"baseline {algorithm.baseline!r} takes an episode that was cut from outside for one that ended; "
            "'critic' continues it",
            stacklevel=2,
        )
    if batch.kl is not None:
        metrics["kl_per_episode"] = float(masked_sum(batch.kl, batch.mask) / len(rollout))
        metrics["kl_coef"] = batch.kl_coef
    if algorithm.baseline == "critic":
        values = torch.from_numpy(rollout.values)
        metrics["check/explained_variance"] = explained_variance(values, batch.returns, batch.mask)
    if algorithm.baseline in ("leave_one_out", "group_mean"):
        silent = (batch.advantages.abs() < 1e-9) | ~batch.mask
        metrics["check/silent_episodes"] = float(silent.all(1).float().mean())
    return metrics


def start_checks(policy: Learner, reference: Learner, rollout: Rollout) -> dict[str, float]:
    """Check that the policy is its reference before the first step: exactly in one forward, to rounding as sampled."""
    mask, ref_log_probs = torch.from_numpy(rollout.mask), rollout_log_probs(reference, rollout)
    same_forward = (rollout_log_probs(policy, rollout) - ref_log_probs).abs()
    sampled = (torch.from_numpy(rollout.log_probs) - ref_log_probs).abs()
    return {
        "check/start_kl_same_forward": masked_sum(same_forward, mask).item(),
        "check/start_kl_per_token": masked_mean(sampled, mask).item(),
    }
