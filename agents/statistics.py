"""Statistics of benchmark results: pure functions of scores, each with its formula and source.

Scores of an agent are grouped by environment: a sequence of arrays, one an environment, each with one entry a run on
its last axis. Numbers of runs may differ. Leading axes, as the bootstrap adds them, are kept.

Sources: Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice" (arXiv:2108.13264), for what its
authors' rliable computes; others are named where they are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

try:
    from scipy import stats
except ImportError as error:
    raise ImportError('the statistics of benchmarks need scipy; pip install "textenvs[report]"') from error

Floats = NDArray[np.float64]
Groups = Sequence[Floats]

NUM_RESAMPLES = 2_000
CONFIDENCE = 0.95


def normalise(returns: ArrayLike, *, random: float, optimal: float) -> Floats:
    """Put returns (...) on the scale where 0 is random and 1 is optimal: (return - random) / (optimal - random).

    Raises:
        ValueError: when optimal is not above random, so that there is no such scale.
    """
    if not optimal > random:
        raise ValueError(f"optimal must be above random={random}, got {optimal}; this environment has no scores")
    return (np.asarray(returns, np.float64) - random) / (optimal - random)


def iqm(groups: Groups) -> Floats:
    """Interquartile mean: the mean of all scores but the lowest and highest quarter of them, (...).

    Of n scores floor(n / 4) are left out at each end.
    """
    pooled = np.concatenate([np.asarray(scores, np.float64) for scores in groups], axis=-1)
    return np.asarray(stats.trim_mean(pooled, 0.25, axis=-1))


def optimality_gap(groups: Groups, *, goal: float = 1.0) -> Floats:
    """How far scores fall short of the goal on average: mean of max(goal - score, 0), (...). Less is better."""
    pooled = np.concatenate([np.asarray(scores, np.float64) for scores in groups], axis=-1)
    return np.asarray(np.maximum(goal - pooled, 0.0).mean(-1))


def performance_profile(groups: Groups, thresholds: ArrayLike) -> Floats:
    """Share of runs with a score above each threshold, (..., num_thresholds)."""
    pooled = np.concatenate([np.asarray(scores, np.float64) for scores in groups], axis=-1)
    return np.asarray((pooled[..., None, :] > np.asarray(thresholds, np.float64)[:, None]).mean(-1))


def probability_of_improvement(ours: Groups, theirs: Groups) -> Floats:
    """Chance that a run of ours beats one of theirs in the same environment, averaged over environments, (...).

    In each it is U / (n * m) with the U of Mann and Whitney (1947): the share of pairs where ours is higher; a tie
    counts as half.

    Raises:
        ValueError: when both sides have different numbers of environments.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"theirs must have the {len(ours)} environments of ours, got {len(theirs)}; leave out others")
    shares = []
    for one, other in zip(ours, theirs, strict=True):
        a, b = np.asarray(one)[..., :, None], np.asarray(other)[..., None, :]
        shares.append((a > b).mean((-2, -1)) + 0.5 * (a == b).mean((-2, -1)))
    return np.asarray(np.mean(shares, axis=0))


def bootstrap_interval(
    statistic: Callable[..., ArrayLike],
    *agents: Groups,
    paired: bool = False,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """Interval of a statistic by the stratified percentile bootstrap: runs are drawn anew within each environment.

    Args:
        statistic: of as many groups as there are agents, over the last axis of each array, keeping leading ones.
        agents: the groups of each.
        paired: run i of all agents belongs together (the same seed), and is drawn for all of them at once.
        num_resamples: at least 1.
        confidence: of the interval, between 0 and 1.
        seed: of its own generator; the same seed gives the same interval.

    Returns:
        The lower and the upper end, of the statistic's shape.

    Raises:
        ValueError: an environment without runs, or pairs of different numbers of runs.
    """
    rng = np.random.default_rng(np.random.SeedSequence([num_resamples, seed]))
    resampled: list[list[Floats]] = [[] for _ in agents]
    for env in range(len(agents[0])):
        sizes = [len(groups[env]) for groups in agents]
        if 0 in sizes or (paired and len(set(sizes)) > 1):
            raise ValueError(
                f"runs must be at least one, and as many when paired, got {sizes}; leave out environment {env}"
            )
        rows = rng.integers(sizes[0], size=(num_resamples, sizes[0]))
        for number, (groups, size) in enumerate(zip(agents, sizes, strict=True)):
            if number and not paired:
                rows = rng.integers(size, size=(num_resamples, size))
            resampled[number].append(np.asarray(groups[env], np.float64)[rows])
    values = np.asarray(statistic(*resampled))
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail], axis=0)
    return np.asarray(low), np.asarray(high)


def paired_difference(ours: Groups, theirs: Groups) -> Floats:
    """Mean of ours - theirs over runs with the same seed, averaged over environments, (...)."""
    return np.asarray(np.mean([(np.asarray(a) - np.asarray(b)).mean(-1) for a, b in zip(ours, theirs, strict=True)], 0))


def paired_p_value(ours: Groups, theirs: Groups, *, num_resamples: int = 9_999, seed: int = 0) -> float:
    """Two-sided p-value of the mean paired difference: how often it is as far from 0 when signs are drawn by chance.

    All 2^n ways to exchange the n pairs are tried where they are no more than num_resamples, else so many drawn ones
    (Fisher 1935; `scipy.stats.permutation_test`).
    """
    differences = np.concatenate([np.asarray(a) - np.asarray(b) for a, b in zip(ours, theirs, strict=True)])
    if len(differences) < 2:
        return 1.0  # of one pair both signs are as far from 0
    test = stats.permutation_test(
        (differences,),
        lambda values, axis: np.mean(values, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=num_resamples,
        rng=np.random.default_rng(np.random.SeedSequence([num_resamples, seed])),
    )
    return float(test.pvalue)


def holm(p_values: ArrayLike) -> Floats:
    """Adjust p-values (m,) for m comparisons: sorted, the i-th is max over j <= i of min(1, (m - j) * p_j), j from 0.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    given = np.asarray(p_values, np.float64)
    order = np.argsort(given, kind="stable")
    raised = np.maximum.accumulate(np.minimum(1.0, given[order] * np.arange(len(given), 0, -1)))
    adjusted = np.empty_like(given)
    adjusted[order] = raised
    return adjusted


def survival(values: Sequence[float], reached: Sequence[bool]) -> tuple[Floats, Floats]:
    """Estimate the share of runs that are not there yet after a time, from runs of which some ended before.

    Args:
        values: (n,) when each run got there, or how long it was watched in vain.
        reached: (n,) whether it got there.

    Returns:
        The times at which somebody got there, ascending, and the share that is not there yet right after each.

    Source: Kaplan and Meier 1958, "Nonparametric estimation from incomplete observations"; `scipy.stats.ecdf`.
    """
    times, there = np.asarray(values, np.float64), np.asarray(reached, bool)
    if not there.any():
        return np.empty(0), np.empty(0)
    curve = stats.ecdf(stats.CensoredData(uncensored=times[there], right=times[~there])).sf
    events = np.isin(curve.quantiles, times[there])
    return np.asarray(curve.quantiles[events]), np.asarray(curve.probabilities[events])


def censored_median(values: Sequence[float], reached: Sequence[bool]) -> float | None:
    """The time after which half of the runs are there, by `survival`; None when half of them were never seen there.

    Where the share is exactly 1/2 from one arrival to the next, it is the middle between both, as for complete values;
    with no next arrival there is no median.
    """
    times, shares = survival(values, reached)
    below = np.flatnonzero(shares < 0.5 + 1e-12)
    if not below.size:
        return None
    first = int(below[0])
    if abs(shares[first] - 0.5) > 1e-12:
        return float(times[first])
    return float(times[first] + times[first + 1]) / 2 if first + 1 < len(times) else None


def median_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval between order statistics that holds the true median with at least the confidence, whatever is drawn.

    The k-th lowest and k-th highest of n values, with the largest k for which P(Binomial(n, 1/2) < k) is at most half
    of 1 - confidence; without such a k (n < 6 at 95 %) everything. Infinite values, "not reached", are the latest.

    Source: Conover 1999, "Practical Nonparametric Statistics", section 3.2.
    """
    ordered, n = sorted(values), len(values)
    k = max((k for k in range(1, n // 2 + 1) if stats.binom.cdf(k - 1, n, 0.5) <= (1 - confidence) / 2), default=0)
    return (ordered[k - 1], ordered[n - k]) if k else (-math.inf, math.inf)
