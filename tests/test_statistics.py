"""The statistics of benchmarks: literal values worked by hand, and two published tables recomputed from raw data."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agents.statistics import (
    bootstrap_interval,
    censored_median,
    holm,
    iqm,
    median_interval,
    normalise,
    optimality_gap,
    paired_difference,
    paired_p_value,
    performance_profile,
    probability_of_improvement,
    survival,
)


def groups(*runs: list[float]) -> list[np.ndarray]:
    return [np.array(values) for values in runs]


def test_a_published_table_of_atari_100k() -> None:
    """DIAMOND's 5 runs of 26 games: the last rows of Table 1 of arXiv:2405.12399 (mean, IQM, optimality gap)."""
    data = json.loads((Path(__file__).parent / "fixtures" / "atari100k_diamond.json").read_text(encoding="utf-8"))
    games = data["games"].values()
    scores = [normalise(game["runs"], random=game["random"], optimal=game["human"]) for game in games]
    assert sum(map(len, scores)) == 26 * 5
    assert round(float(np.mean(scores)), 3) == 1.459
    assert round(float(iqm(scores)), 3) == 0.641
    assert round(float(optimality_gap(scores)), 3) == 0.480
    low, high = bootstrap_interval(iqm, scores)
    assert low < 0.641 < high
    assert 0.02 < high - low < 0.2


def test_a_published_survival_curve() -> None:
    """6-mercaptopurine, Freireich et al. 1963, as in every text book: weeks in remission, negative when still so."""
    weeks = [6, 6, 6, -6, 7, -9, 10, -10, -11, 13, 16, -17, -19, -20, 22, 23, -25, -32, -32, -34, -35]
    relapsed = [week > 0 for week in weeks]
    weeks = [abs(week) for week in weeks]
    times, shares = survival(weeks, relapsed)
    assert times.tolist() == [6, 7, 10, 13, 16, 22, 23]
    assert shares.round(3).tolist() == [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448]
    assert censored_median(weeks, relapsed) == 23


def test_normalised_scores() -> None:
    assert normalise([2.0, 5.0, 8.0, 11.0], random=2.0, optimal=8.0).tolist() == [0.0, 0.5, 1.0, 1.5]
    for optimal in (2.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="optimal must be above random"):
            normalise([1.0], random=2.0, optimal=optimal)


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end() -> None:
    assert iqm(groups([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0])) == (3 + 4 + 5 + 6) / 4
    assert iqm(groups([100.0, 2.0], [3.0, -100.0])) == 2.5
    assert iqm(groups([1.0, 2.0, 6.0])) == 3.0  # a quarter of three is none
    assert iqm(groups([0.0, 1.0, 2.0, 3.0], [10.0])) == 2.0  # of five one each
    assert iqm([np.array([[1.0, 2.0], [3.0, 5.0]])]).tolist() == [1.5, 4.0]


def test_the_optimality_gap_counts_no_surplus() -> None:
    assert optimality_gap(groups([0.5, 1.5], [0.75, 1.0])) == pytest.approx((0.5 + 0 + 0.25 + 0) / 4)
    assert optimality_gap(groups([0.5, 1.5]), goal=2.0) == pytest.approx((1.5 + 0.5) / 2)


def test_a_performance_profile_counts_runs_strictly_above() -> None:
    assert performance_profile(groups([0.2, 0.5], [0.9, 1.0]), [0.0, 0.2, 0.5, 0.95, 1.0]).tolist() == [
        1.0,
        0.75,
        0.5,
        0.25,
        0.0,
    ]


def test_the_probability_of_improvement_counts_ties_half_and_environments_alike() -> None:
    ours, theirs = groups([3.0, 1.0], [5.0]), groups([2.0, 1.0, 0.0], [5.0])
    # First: 3 wins of 3 by the run of 3.0; of the run of 1.0 a loss, a tie, a win. Second: one tie.
    assert probability_of_improvement(ours, theirs) == pytest.approx(((3 + 0 + 0.5 + 1) / 6 + 0.5) / 2)
    assert probability_of_improvement(theirs, ours) == pytest.approx(1 - (4.5 / 6 + 0.5) / 2)
    with pytest.raises(ValueError, match="theirs must have the 2 environments of ours, got 1"):
        probability_of_improvement(ours, theirs[:1])


def test_the_bootstrap_draws_runs_within_each_environment() -> None:
    # Drawn across environments the mean would vary; within constant ones it cannot.
    low, high = bootstrap_interval(lambda g: np.concatenate(g, -1).mean(-1), groups([0.0, 0.0], [1.0, 1.0]))
    assert (low, high) == (0.5, 0.5)
    # One environment of 0 and 1: the mean of two draws is 0, 1/2, 1 with 1/4, 1/2, 1/4.
    low, high = bootstrap_interval(lambda g: g[0].mean(-1), groups([0.0, 1.0]))
    assert (low, high) == (0.0, 1.0)
    low, high = bootstrap_interval(lambda g: g[0].mean(-1), groups([0.0, 1.0]), confidence=0.4)
    assert (low, high) == (0.5, 0.5)


def test_the_bootstrap_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for number in range(200):
        low, high = bootstrap_interval(lambda g: g[0].mean(-1), [rng.normal(size=40)], num_resamples=400, seed=number)
        covered += bool(low <= 0 <= high)
    assert 180 <= covered <= 198  # 190 expected, somewhat less with 40 runs


def test_the_bootstrap_is_reproducible_and_leaves_global_generators_alone() -> None:
    scores = groups(np.geomspace(1, 2, 12).tolist(), np.geomspace(1, 3, 12).tolist())
    np.random.seed(0)  # noqa: NPY002
    first, state = bootstrap_interval(iqm, scores, seed=1), np.random.get_state()[1].tolist()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    assert bootstrap_interval(iqm, scores, seed=1) == first != bootstrap_interval(iqm, scores, seed=2)
    np.random.seed(0)  # noqa: NPY002
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


def test_the_bootstrap_draws_pairs_together() -> None:
    ours, theirs = groups([1.0, 5.0, 9.0]), groups([0.0, 4.0, 8.0])
    assert bootstrap_interval(paired_difference, ours, theirs, paired=True) == (1.0, 1.0)
    low, high = bootstrap_interval(paired_difference, ours, theirs)
    assert low < 0 < high
    with pytest.raises(ValueError, match=r"as many when paired, got \[3, 2\]"):
        bootstrap_interval(paired_difference, ours, groups([0.0, 4.0]), paired=True)
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_interval(iqm, groups([]))


def test_paired_differences_and_their_p_values() -> None:
    ours, theirs = groups([1.0, 2.0], [4.0, 6.0]), groups([0.0, 0.0], [1.0, 2.0])
    assert paired_difference(ours, theirs) == ((1 + 2) / 2 + (3 + 4) / 2) / 2
    assert paired_p_value(ours, theirs) == 2 / 16  # all four have one sign: two of 2^4 ways are as far from 0
    assert paired_p_value(groups([1.0, 2.0, 0.0]), groups([0.0, 0.0, 3.0])) == 1.0  # the mean is 0
    assert paired_p_value(groups([1.0]), groups([0.0])) == 1.0
    many = groups(np.linspace(0.1, 1, 30).tolist())
    assert paired_p_value(many, [np.zeros(30)]) == paired_p_value(many, [np.zeros(30)]) == pytest.approx(2e-4)


def test_holm_adjusts_in_steps() -> None:
    # Sorted: .005 * 4, .01 * 3, .03 * 2, .04 * 1; the last is raised to the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([]).tolist() == []


def test_a_median_with_runs_that_did_not_get_there() -> None:
    assert censored_median([3.0, 1.0, 2.0], [True] * 3) == 2.0
    assert censored_median([4.0, 1.0, 2.0, 3.0], [True] * 4) == 2.5
    assert censored_median([1.0, 2.0, 9.0], [True, True, False]) == 2.0
    assert censored_median([1.0, 2.0, 9.0, 9.0], [True, True, False, False]) is None  # half, and nobody after them
    assert censored_median([1.0, 9.0, 9.0], [True, False, False]) is None
    assert censored_median([5.0], [False]) is None
    # One was given up on at 2, before the others got there: of three left, the second is the median.
    assert censored_median([2.0, 3.0, 4.0, 5.0], [False, True, True, True]) == 4.0


def test_the_interval_of_a_median_is_between_order_statistics() -> None:
    assert median_interval(range(1, 11)) == (2, 9)  # P(Bin(10, 1/2) <= 1) = 11 / 1024
    assert median_interval(range(1, 7)) == (1, 6)  # 1 / 64
    assert median_interval(range(1, 6)) == (-math.inf, math.inf)  # 1 / 32 is more than 2.5 %
    assert median_interval([*range(1, 9), math.inf, math.inf]) == (2, math.inf)
    assert median_interval(range(1, 6), confidence=0.9) == (1, 5)


def test_without_scipy_the_command_is_named() -> None:
    code = (
        "import sys; sys.modules['scipy'] = None\n"
        "try:\n    import agents.statistics\nexcept ImportError as error:\n    print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == 'the statistics of benchmarks need scipy; pip install "textenvs[report]"\n'
