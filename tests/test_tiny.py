"""How the benchmarks of episodes and seconds count: by episode for everybody, in turns, the best of the others."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agents import baselines

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
COPY = {"length": 2, "alphabet": "abcd", "dense": True}


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    modules = {name: import_module(name) for name in ("tune", "tiny")}
    modules["tune"].prepare()
    return modules


def test_ours_is_counted_by_episode_wherever_an_update_ends(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that all returns meet is reached with episode 128, the 32nd of the third update of 48."""
    tune = scripts["tune"]
    monkeypatch.setattr(tune, "TARGET", -1.0)
    monkeypatch.setattr(tune, "KWARGS", COPY)
    settings = {"episodes_per_update": 48, "num_epochs": 1, "num_minibatches": 1}
    curve = tune.Curve(num_episodes=240)
    tune.learn("ppo", "Copy", 0, settings, curve)
    assert len(curve.result.returns) == 144
    assert curve.result.episodes_to(tune.TARGET, tune.WINDOW)[0] == 128
    short = tune.Curve(num_episodes=96)
    tune.learn("ppo", "Copy", 0, settings, short)
    assert short.result.episodes_to(tune.TARGET, tune.WINDOW) is None


def test_a_cell_counts_what_was_lost(scripts: dict[str, ModuleType]) -> None:
    lost = (math.inf, math.inf)
    assert scripts["tiny"].cell([(100.0, 1.0), (300.0, 2.0), lost]) == "2 of 3: 300, 2.0 s"
    many = [(100.0 * k, 1.0) for k in range(1, 10)] + [lost]
    assert scripts["tiny"].cell(many) == "9 of 10: 550 [200, 900], 1.0 s"  # ranks 2 and 9 of 10


def test_every_agent_meets_every_seed_and_each_begins_in_turn(scripts: dict[str, ModuleType]) -> None:
    called: list[tuple[str, int]] = []

    def agent(name: str) -> Any:
        return lambda seed: called.append((name, seed)) or (float(len(called)), float(seed))

    results = scripts["tiny"].run_in_turns({name: agent(name) for name in "abc"}, [5, 6, 7, 8])
    assert "".join(name for name, _ in called) == "abcbcacababc"
    assert [seed for _, seed in called] == [5] * 3 + [6] * 3 + [7] * 3 + [8] * 3
    assert results["a"] == [(1.0, 5.0), (6.0, 6.0), (8.0, 7.0), (10.0, 8.0)]


def test_the_best_of_the_others_is_one_for_episodes_and_one_for_seconds(scripts: dict[str, ModuleType]) -> None:
    lost = (math.inf, math.inf)
    # Or one would take the other's place in the table.
    assert scripts["tiny"].NAME not in scripts["tiny"].OTHERS
    results = {"frugal": [(1.0, 9.0), (2.0, 8.0), lost], "quick": [(7.0, 1.0), (8.0, 3.0), (9.0, 2.0)]}
    assert [scripts["tiny"].best(results, unit) for unit in (0, 1)] == ["frugal", "quick"]
    assert scripts["tiny"].best({**results, "frugal": [(1.0, 1.0), lost, lost]}, 0) == "quick"


def test_exploration_steps_can_be_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 episodes and 32 rows of at most 3 steps are 216 steps, of which 54 are a quarter."""
    found: list[dict[str, Any]] = []

    class Stop(Exception):
        pass

    def agent(*args: Any, **settings: Any) -> None:
        found.append(settings)
        raise Stop

    monkeypatch.setattr(baselines, "_agent_class", lambda path: agent)
    for overrides in ({"exploration_steps": 54}, {}):
        with pytest.raises(Stop):
            baselines.train_sb3("dqn", "textenvs/Copy-v0", COPY, num_episodes=40, seed=0, overrides=overrides)
    assert found[0]["exploration_fraction"] == 0.25
    assert found[1]["exploration_fraction"] == 1.0  # the table's 2,000 steps are then the whole training
    assert "exploration_steps" not in found[0]
