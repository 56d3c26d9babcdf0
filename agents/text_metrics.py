"""Numbers of finished episodes: outcomes, parts of the reward, diversity, means with their errors. Judges: `judge`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.rollout import Learner, Rollout
from agents.update import rollout_log_probs

_INFO_KEYS = {"problem", "prompt", "response", "finish_reason", "is_success", "status"}


def summarise(rollout: Rollout, *, reference: Learner | None = None, is_text: bool = True) -> dict[str, Any]:
    """Measure episodes; those whose scoring failed are left out and counted.

    Args:
        rollout: the episodes.
        reference: the frozen start.
        is_text: whether the actions are tokens; adds the diversity, and with a reference sample_perplexity.

    Returns:
        JSON-able, every mean with its standard error, None for one episode: mean_return and stderr; as
        `<name>_stderr`: success_rate (where the env has successes), mean_length (decisions), part/<name> over the
        episodes that have the part, and with a reference kl_per_episode (nats, k1 of the sampled tokens); num_episodes,
        excluded_episodes, distinct_1, distinct_2, distinct_3; sample_perplexity, of the responses under the reference.

    Raises:
        RuntimeError: when the scoring failed for all.
    """
    num_excluded = int(rollout.faulty.sum())
    rollout = rollout.select(~rollout.faulty)
    if not len(rollout):
        raise RuntimeError(f"scoring must work for some episode, but all {num_excluded} failed; look at the reward")
    columns = outcomes(rollout)
    result: dict[str, Any] = {"mean_return": float(rollout.returns.mean()), "stderr": stderr(rollout.returns)}
    if "success_rate" in columns:
        result |= with_stderr("success_rate", columns.pop("success_rate"))
    result |= {"num_episodes": len(rollout), "excluded_episodes": num_excluded}
    result |= with_stderr("mean_length", rollout.lengths.astype(np.float64))
    if is_text:
        result |= {f"distinct_{n}": distinct_n(rollout, n) for n in (1, 2, 3)}
    if reference is not None:
        ref_log_probs = np.where(rollout.mask, rollout_log_probs(reference, rollout).numpy(), 0.0).astype(np.float64)
        log_ratios = np.where(rollout.mask, rollout.log_probs - ref_log_probs, 0.0)
        result |= with_stderr("kl_per_episode", log_ratios.sum(1))
        if is_text:
            result["sample_perplexity"] = finite_or_none(np.exp(-ref_log_probs.sum() / rollout.mask.sum()))
    for name, values in columns.items():
        result |= with_stderr(name, values)
    return result


def outcomes(rollout: Rollout) -> dict[str, NDArray[np.float64]]:
    """Collect what the final infos say of the episodes.

    Returns:
        success_rate: 1.0 or 0.0 an episode, (B,), absent where no info has is_success; and part/<name>: a part of the
        reward (any other float of the info) over the episodes that have it, in the order of the names.
    """
    columns: dict[str, NDArray[np.float64]] = {}
    if any("is_success" in info for info in rollout.infos):
        columns["success_rate"] = np.array([float(bool(info.get("is_success"))) for info in rollout.infos])
    for name in sorted({name for info in rollout.infos for name in parts(info)}):
        # An episode that a time limit cut was never scored, so it has no parts.
        columns[f"part/{name}"] = np.array([info[name] for info in rollout.infos if name in info], np.float64)
    return columns


def parts(info: Mapping[str, Any]) -> dict[str, float]:
    """Return the named parts of the reward that a final info holds."""
    return {name: value for name, value in info.items() if isinstance(value, float) and name not in _INFO_KEYS}


def with_stderr(name: str, values: NDArray[np.float64]) -> dict[str, float | None]:
    """Return the mean of values (n,) as `name` and its standard error as `<name>_stderr`; None for a single value."""
    return {name: float(values.mean()), f"{name}_stderr": stderr(values)}


def stderr(values: NDArray[np.float64]) -> float | None:
    """Compute the standard error of the mean of values (n,), which one value alone does not have."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def distinct_n(rollout: Rollout, n: int) -> float:
    """Return different n-grams over all n-grams of chosen tokens; 0 without any. Li et al. 2016, arXiv:1510.03055."""
    if rollout.actions.shape[1] < n:
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(rollout.actions, n, axis=1)
    grams = windows[rollout.mask[:, n - 1 :]]  # decisions are contiguous: a window is valid when its last one is
    return len(np.unique(grams, axis=0)) / len(grams) if len(grams) else 0.0


def finite_or_none(value: float) -> float | None:
    """Return value, or None where it is no number: JSON has neither NaN nor infinity."""
    return float(value) if np.isfinite(value) else None


def best_of(rollout: Rollout, group_size: int) -> Rollout:
    """Keep the episode with the highest return of each group of successive episodes; the first of equals."""
    best = rollout.returns.reshape(-1, group_size).argmax(1)
    return rollout.select(np.arange(len(best)) * group_size + best)


def best_of_kl(n: int) -> float:
    """Bound the KL (nats) of best-of-n sampling from the sampled policy: log n - (n - 1) / n.

    Source: Beirami et al. 2024, arXiv:2401.01879, theorem 1.
    """
    return float(np.log(n) - (n - 1) / n)
