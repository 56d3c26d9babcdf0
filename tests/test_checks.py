"""check_env names the clause that a broken env breaks, and leaves good envs in peace, ours and other people's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import broken_anywhere
import broken_textgen
import gymnasium as gym
import numpy as np
import pytest
from broken_envs import BROKEN
from gymnasium import spaces
from tasks_for_tests import GuessingGame

import textenvs
from textenvs import ContractError, check_env
from textenvs.checks import EVERY, OURS, examine
from textenvs.env import TextGenEnv

#: Clauses whose subject is the spec; they cannot be run without one.
NEED_SPEC = {
    "reset_needed",
    "same_in_another_process",
    "paid_at_the_end",
    "dense_same_return",
    "stop_tokens_end",
    "spec_json",
    "render_ansi",
}


@pytest.fixture(scope="module")
def board() -> Iterator[dict[str, tuple[str, ...]]]:
    """Broken env -> clauses named, printed at the end (pytest -s)."""
    named: dict[str, tuple[str, ...]] = {}
    yield named
    for name, clauses in named.items():
        others = ", ".join(clause for clause in clauses if clause != BROKEN[name][0])
        print(f"\n{name:24}{BROKEN[name][0]:26}{others and 'and ' + others}", end="")


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_env_is_named(name: str, board: dict[str, tuple[str, ...]]) -> None:
    clause, kwargs = BROKEN[name]
    env = gym.make(f"broken/{name}-v0", disable_env_checker=True, **kwargs)
    with pytest.raises(ContractError) as caught:
        check_env(env, other_process=clause == "same_in_another_process")
    board[name] = caught.value.clauses
    assert clause in caught.value.clauses, str(caught.value)
    demand = next(c.demand for c in EVERY + OURS if c.name == clause)
    assert f"{clause}: {demand} Seen: " in str(caught.value)
    assert "Remedy: " in caught.value.report.broken[clause]


def test_every_clause_has_an_env_that_breaks_it() -> None:
    names = [clause.name for clause in EVERY + OURS]
    assert len(set(names)) == len(names)
    assert {clause for clause, _ in BROKEN.values()} == set(names)


@pytest.mark.parametrize("name", BROKEN)
def test_without_a_spec_a_broken_env_is_named_or_the_clause_is_unchecked(name: str) -> None:
    clause, kwargs = BROKEN[name]
    defaults = {} if "task" in kwargs else {"task": "copy", "length": 3, "alphabet": "abcd"}
    made = vars(broken_anywhere) | vars(broken_textgen)
    report = examine(made[name](**defaults, **kwargs))
    assert clause in (report.unchecked if clause in NEED_SPEC else report.broken)


class FaultyMachinery(textenvs.Reward):
    """Exact match, whose machinery fails on half of what does not match."""

    name = "faulty"

    def __call__(self, problems: Any, responses: textenvs.Responses) -> textenvs.Scores:
        values = textenvs.ExactMatch()(problems, responses).values
        failed = (values == 0) & (responses.lengths % 2 == 1)
        return textenvs.Scores(values, status=["infra_fault" if fault else "ok" for fault in failed])


GOOD: dict[str, dict[str, Any]] = {
    "stop": {"task": "length", "stop": ["a", 2], "dense": True},
    "several-turns": {"task": GuessingGame(), "mask_keys": "rllib", "observation": "onehot"},
    "several-turns-dense": {"task": GuessingGame(), "dense": True, "stop": ["0"]},
    "faults": {"task": "copy", "alphabet": "ab", "reward": FaultyMachinery()},
    "faults-dense": {"task": "copy", "alphabet": "ab", "reward": FaultyMachinery(), "dense": True},
    "one-problem": {"task": "copy", "length": 1, "alphabet": "ab", "split": "all"},
    "control-characters": {"task": "reverse", "alphabet": "\n\x1b\u202e"},
    "one-token-budget": {"task": "copy", "max_new_tokens": 1, "reward": lambda problem, text: 0.0},
    "time-limit": {"task": "copy", "max_episode_steps": 3},
}


@pytest.mark.parametrize("name", GOOD)
def test_good_envs_of_every_kind_pass(name: str) -> None:
    check_env(gym.make("TextGen-v0", **GOOD[name]))


@pytest.mark.parametrize("name", ["FrozenLake", "Taxi", "CliffWalking"])
def test_other_peoples_envs_pass(name: str) -> None:
    newest = max((spec for spec in gym.registry.values() if spec.name == name), key=lambda spec: spec.version or 0)
    report = examine(gym.make(newest.id, max_episode_steps=50), num_episodes=3)
    assert not report.broken
    assert set(report.kept) | set(report.unchecked) == {clause.name for clause in EVERY}


class Parity(gym.Env[Any, Any]):
    """Somebody's token env in a few lines: say `odd` or `even`."""

    observation_space = spaces.Box(0, 9, (1,), np.int64)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.digit = int(self.np_random.integers(10))
        return np.array([self.digit]), {}

    def step(self, action: Any) -> Any:
        return np.array([self.digit]), float(action == self.digit % 2), True, False, {}


def test_without_a_spec_what_could_not_run_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="textenvs"):
        check_env(Parity())
    assert sorted(record.args[1] for record in caplog.records) == ["reset_needed", "same_in_another_process"]
    assert "the env has no spec: register it and make it with gym.make" in caplog.text


def test_a_wrapper_is_checked_with_the_env_it_wraps() -> None:
    class Float32(gym.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            observation, reward, *rest = super().step(action)
            return observation, np.float32(reward), *rest

    with pytest.raises(ContractError) as caught:
        check_env(Float32(gym.make("textenvs/Copy-v0")))
    assert caught.value.clauses == ("reward_number", "reward_float")
    assert set(caught.value.unchecked) == NEED_SPEC


def test_an_error_inside_a_clause_is_that_clause_broken() -> None:
    """And the others still run."""

    class Unrenderable(TextGenEnv):
        def action_masks(self) -> Any:
            return None

        def close(self) -> None:
            raise OSError("no such display")

    report = examine(Unrenderable(task="copy"))
    assert {"mask_valid", "close_twice", "mask_owned"} == set(report.broken)
    assert "OSError: no such display" in report.broken["close_twice"]


def test_actions_that_are_no_tokens_break_one_clause_and_leave_the_others_unchecked() -> None:
    report = examine("MountainCarContinuous-v0")
    assert list(report.broken) == ["spaces"]
    assert report.unchecked["reward_number"] == "the action space is not Discrete"


@pytest.mark.parametrize("what", [None, TextGenEnv, 3])
def test_what_is_no_env_is_refused(what: Any) -> None:
    with pytest.raises(TypeError, match=r"env_or_id must be a gymnasium.Env or an id, got"):
        check_env(what)


def test_a_batch_and_a_bad_count_are_refused() -> None:
    with pytest.raises(TypeError, match="of a batch check one env"):
        check_env(gym.make_vec("textenvs/Copy-v0", num_envs=2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_episodes must be an int of at least 1, got 0"):
        check_env("textenvs/Copy-v0", num_episodes=0)


def test_the_check_leaves_global_generators_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    textenvs.check_env("textenvs/Copy-v0", num_episodes=1, other_process=False)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
