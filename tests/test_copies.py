"""What is done to an env from outside: copies, threads, refusals, errors half way, arrays used again, kept streams."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode

import textenvs
from textenvs.infos import Infos

COPY = "textenvs/Copy-v0"
COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda envs: pickle.loads(pickle.dumps(envs)),
}


def end(envs: Any) -> Any:
    return np.full(envs.num_envs, envs.single_action_space.n - 1)


class UsesItsArraysAgain(textenvs.Reward):
    """The number of the call, in arrays that the next call overwrites."""

    name = "again"

    def __init__(self) -> None:
        self.array, self.calls = np.zeros(8), 0

    def __call__(self, problems: Any, responses: textenvs.Responses) -> textenvs.Scores:
        self.calls += 1
        self.array[:] = self.calls
        column = self.array[: len(responses)]
        return textenvs.Scores(column, {"again": column, "other": column[::-1]})


class FailsOnce(textenvs.Reward):
    """No number at the first call, then 0.0."""

    name = "fails_once"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, problems: Any, responses: textenvs.Responses) -> textenvs.Scores:
        self.calls += 1
        return textenvs.Scores(np.full(len(responses), np.nan if self.calls == 1 else 0.0))


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_of_a_batch_goes_on_as_the_batch_does(copied: Callable[[Any], Any]) -> None:
    envs = gym.make_vec(COPY, num_envs=3).unwrapped
    envs.reset(seed=0)
    envs.step(end(envs))
    twin, rng = copied(envs), np.random.default_rng(0)
    for _ in range(40):
        actions = rng.integers(10, size=3)
        one, other = envs.step(actions), twin.step(actions)
        for a, b in zip(one[:4], other[:4], strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_equal(dict(one[4]), dict(other[4]))


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_reward_may_copy_its_problems(copied: Callable[[Any], Any]) -> None:
    """And gets a list of them, without the env's table."""
    got: list[Any] = []

    class Copies(textenvs.Reward):
        name = "copies"

        def __call__(self, problems: Any, responses: textenvs.Responses) -> textenvs.Scores:
            got.append((copied(problems), list(problems)))
            return textenvs.Scores(np.zeros(len(responses)))

    envs = gym.make_vec(COPY, num_envs=4, reward=Copies())
    envs.reset(seed=0)
    envs.step(end(envs))
    assert [(type(one), len(one), one == other) for one, other in got] == [(list, 4, True)]


def test_a_reward_may_use_its_arrays_again() -> None:
    envs = gym.make_vec(COPY, num_envs=2, reward=UsesItsArraysAgain(), autoreset_mode="SameStep")
    envs.reset(seed=0)
    finals = [envs.step(end(envs))[-1] for _ in range(3)]
    for key in ("again", "other"):
        assert [infos["final_info"][key].tolist() for infos in finals] == [[1, 1], [2, 2], [3, 3]]


def test_infos_are_json_before_anybody_looked() -> None:
    infos = Infos()
    infos.defer(lambda infos: infos.update(a=1))
    assert json.dumps(infos) == '{"a": 1}'
    env = gym.make(COPY)
    assert type(gym.make_vec(COPY, num_envs=2).reset(seed=0)[1]) is dict
    env.reset(seed=0)
    assert type(env.step(9)[-1]) is dict


def test_every_thread_sees_all_of_an_info() -> None:
    """The second one looks while the first one is still being answered."""
    infos, answering, go, seen = Infos(), threading.Event(), threading.Event(), []

    def write(infos: dict[str, Any]) -> None:
        answering.set()
        go.wait(10)
        infos["a"] = 1

    infos.defer(write)
    first = threading.Thread(target=lambda: seen.append(dict(infos)))
    second = threading.Thread(target=lambda: seen.append(dict(infos)))
    first.start()
    answering.wait(10)
    second.start()
    second.join(0.05)
    go.set()
    first.join(10)
    second.join(10)
    assert seen == [{"a": 1}, {"a": 1}]


def test_a_look_that_is_interrupted_leaves_all_to_the_next() -> None:
    infos, looks = Infos(a=0), []

    def write(infos: dict[str, Any]) -> None:
        infos["a"] = 1
        looks.append(1)
        if len(looks) == 1:
            raise KeyboardInterrupt

    infos.defer(write)
    with pytest.raises(KeyboardInterrupt):
        len(infos)
    assert infos == {"a": 1}
    assert len(looks) == 2


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_a_step_that_fails_half_way_ends_all_episodes(mode: str) -> None:
    """What comes next is a reset; no row has grown into the next one's."""
    envs = gym.make_vec(COPY, num_envs=3, reward=FailsOnce(), max_new_tokens=2, autoreset_mode=mode)
    twin = gym.make_vec(COPY, num_envs=3, reward=FailsOnce(), max_new_tokens=2, autoreset_mode=mode)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="finite"):
        envs.step(end(envs))
    for _ in range(3):
        with pytest.raises(ResetNeeded, match="call reset"):
            envs.step(np.zeros(3, int))
    mask = np.array([False, True, False])
    envs.reset(options={"reset_mask": mask, "problem": 5})
    if mode == "Disabled":
        with pytest.raises(ResetNeeded, match=r"\[0, 2\]"):
            envs.step(np.zeros(3, int))
    else:
        assert envs.step(np.zeros(3, int))[0][1, -2:].tolist() == [0, 10]
    np.testing.assert_array_equal(envs.reset(seed=7)[0], twin.reset(seed=7)[0])


def test_a_step_of_one_row_that_fails_half_way_ends_its_episode() -> None:
    env = gym.make(COPY, reward=FailsOnce())
    env.reset(seed=0)
    with pytest.raises(ValueError, match="finite"):
        env.step(9)
    with pytest.raises(ResetNeeded):
        env.step(0)


def test_a_refused_reset_keeps_prompts_of_ones_own() -> None:
    envs = gym.make_vec(COPY, num_envs=2)
    envs.reset(options={"prompt": "abab="})
    with pytest.raises(ValueError, match="problem"):
        envs.reset(options={"problem": 10**7})
    assert envs.step(end(envs))[-1]["prompt"].tolist() == ["abab="] * 2


def test_the_number_of_rows_may_be_a_small_int_of_numpy() -> None:
    envs = gym.make_vec(COPY, num_envs=np.int8(20))  # type: ignore[arg-type]
    assert envs.reset(seed=0)[0].shape[0] == 20
    assert envs.step(end(envs))[1].shape == (20,)


def test_a_kept_stream_stands_where_the_scalar_envs_does() -> None:
    """Whoever keeps a generator and draws from it between the steps shares it with the env."""
    own = gym.make_vec(COPY, num_envs=2, autoreset_mode="SameStep")
    sync: Any = gym.make_vec(
        COPY, num_envs=2, vectorization_mode="sync", vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP}
    )
    drawn = []
    for envs in (own, sync):
        envs.reset(seed=0)
        for _ in range(3):
            envs.step(end(own))
        kept = own.np_random if envs is own else [env.unwrapped.np_random for env in sync.envs]
        numbers = []
        for _ in range(5):
            numbers += [int(stream.integers(1000)) for stream in kept]  # type: ignore[union-attr]
            numbers += envs.step(end(own))[-1]["problem"].tolist()
        drawn.append(numbers)
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("wrap", ["tensor(True)", "tensor([1])", "tensor(1)"])
def test_what_is_no_int_of_python_or_numpy_is_no_action(wrap: str) -> None:
    torch = pytest.importorskip("torch")
    value = {"tensor(True)": True, "tensor([1])": [1], "tensor(1)": 1}[wrap]
    env = gym.make(COPY)
    env.reset(seed=0)
    with pytest.raises(InvalidAction, match="got tensor"):
        env.step(torch.tensor(value))
