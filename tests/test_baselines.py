"""The Stable-Baselines3 baseline learns; its curve is read correctly."""

import pytest

from agents.baselines import WINDOW, BaselineResult, train_sb3_ppo


def test_episodes_to_a_target_are_read_from_the_running_mean():
    curve = BaselineResult([0.0] * 10 + [1.0] * 200, [float(i) for i in range(210)])
    assert curve.episodes_to(1.0) == (10 + WINDOW, 10 + WINDOW - 1)
    assert curve.episodes_to(0.5) == (WINDOW, WINDOW - 1)
    assert curve.episodes_to(1.1) is None
    # Fractions that add up to the target only but for rounding, whatever the order of the sum.
    fractions = BaselineResult([0.0] * 7 + [0.1 * (k % 3) for k in range(WINDOW + 1)], [0.0] * (WINDOW + 8))
    assert fractions.episodes_to(sum(fractions.returns[-WINDOW:]) / WINDOW) is not None
    assert BaselineResult([1.0], [0.0]).episodes_to(0.5) is None


def test_it_runs_and_stops_on_time():
    result = train_sb3_ppo(
        "textenvs/Copy-v0", {"length": 2, "alphabet": "abcd", "dense": True}, num_episodes=200, seed=0
    )
    assert 200 <= len(result.returns) < 240
    assert result.seconds == sorted(result.seconds)


@pytest.mark.slow
def test_it_sorts_within_about_six_thousand_episodes():
    kwargs = {"length": 4, "alphabet": "abcdefgh", "dense": True}
    reached = train_sb3_ppo("textenvs/Sort-v0", kwargs, num_episodes=8000, seed=0, target=0.95).episodes_to(0.95)
    assert reached is not None
    assert reached[0] <= 6000
