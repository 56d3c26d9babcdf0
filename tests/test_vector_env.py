"""The batch env equals a SyncVectorEnv of scalar envs, bit for bit, and both equal the same episodes played alone."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode
from tasks_for_tests import Flaky, GuessingGame

import textenvs

MODES = list(AutoresetMode)
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "copy": ("textenvs/Copy-v0", {}),
    "sort-dense": ("textenvs/Sort-v0", {"dense": True, "length": 3, "alphabet": "abc"}),
    "count-rllib": ("textenvs/Count-v0", {"mask_keys": "rllib", "observation": "onehot"}),
    "length-stop": ("textenvs/Length-v0", {"stop": ["a", 1], "mask_keys": "pettingzoo", "dense": True}),
    "turns": ("TextGen-v0", {"task": GuessingGame(), "mask_keys": "tianshou"}),
    "turns-dense": ("TextGen-v0", {"task": GuessingGame(), "dense": True}),
    "faults": ("textenvs/Copy-v0", {"reward": Flaky(), "alphabet": "ab", "length": 5}),
    "faults-dense": ("textenvs/Copy-v0", {"reward": Flaky(), "alphabet": "ab", "length": 5, "dense": True}),
    "dense-from-one": ("textenvs/Copy-v0", {"reward": lambda problem, text: 1.0 + len(text), "dense": True}),
    "time-limit": ("textenvs/Copy-v0", {"max_episode_steps": 3}),
}


def assert_same(a: Any, b: Any, where: str) -> None:
    """Equal to the bit, with equal types, in arrays, dicts and object arrays."""
    if isinstance(a, dict):
        assert isinstance(b, dict), where
        assert sorted(a) == sorted(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, np.ndarray) and a.dtype != object:
        assert a.dtype == b.dtype, f"{where}: {a.dtype} {b.dtype}"
        np.testing.assert_array_equal(a, b, err_msg=where, strict=True)
    elif isinstance(a, (np.ndarray, list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert type(a) is type(b), f"{where}: {type(a)} {type(b)}"
        assert a == b, where


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("name", SETTINGS)
def test_batch_equals_sync(name: str, mode: AutoresetMode) -> None:
    """1,000 steps of random actions: observations, rewards, flags, infos, masks, final_obs."""
    env_id, kwargs = SETTINGS[name]
    batch = gym.make_vec(env_id, num_envs=5, autoreset_mode=mode, **kwargs)
    sync = gym.make_vec(env_id, num_envs=5, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **kwargs)
    assert batch.single_observation_space == sync.single_observation_space
    assert batch.action_space == sync.action_space
    rng = np.random.default_rng(0)
    assert_same(batch.reset(seed=11), sync.reset(seed=11), "reset")
    for t in range(1000):
        actions = rng.integers(batch.single_action_space.n, size=5)
        ours, theirs = batch.step(actions), sync.step(actions)
        for part, a, b in zip(("obs", "reward", "terminated", "truncated", "info"), ours, theirs, strict=True):
            assert_same(a, b, f"step {t} {part}")
        assert_same(batch.action_masks(), np.stack(sync.call("action_masks")), f"step {t} masks")
        assert_same(batch.demonstration(), list(sync.call("demonstration")), f"step {t} demonstration")
        ended = ours[2] | ours[3]
        if mode == AutoresetMode.DISABLED and ended.any():
            seeds = [int(rng.integers(1000)) if rng.random() < 0.3 else None for _ in range(5)]
            options = {"problem": int(rng.integers(3))} if rng.random() < 0.3 else {}
            assert_same(
                batch.reset(seed=seeds, options={"reset_mask": ended, **options}),
                sync.reset(seed=seeds, options={"reset_mask": ended.copy(), **options}),
                f"reset after {t}",
            )
    batch.close()
    sync.close()


REPLAY = """
import sys, json, hashlib
import numpy as np, gymnasium as gym, textenvs
env_id, kwargs, seed, episodes = json.load(sys.stdin)
env = gym.make(env_id, **kwargs)
for k, episode in enumerate(episodes):
    digest = hashlib.sha256(env.reset(seed=seed if k == 0 else None)[0].tobytes())
    for action in episode:
        step = env.step(action)
        digest.update(step[0].tobytes())
        digest.update(json.dumps(step[1:], sort_keys=True).encode())
    print(digest.hexdigest(), step[2] or step[3])
"""


@pytest.mark.parametrize("name", ["copy", "sort-dense"])
def test_batch_equals_episodes_replayed_alone_in_a_fresh_process(name: str) -> None:
    """Row 2 of a batch of 5, taken down and replayed by a scalar env elsewhere, gives the same hashes."""
    env_id, kwargs = SETTINGS[name]
    envs = gym.make_vec(env_id, num_envs=5, autoreset_mode="SameStep", **kwargs)
    rng, row = np.random.default_rng(1), 2
    observation, _ = envs.reset(seed=40)
    digest, hashes, actions, episode = hashlib.sha256(observation[row].tobytes()), [], [], []
    while len(hashes) < 60:
        action = rng.integers(envs.single_action_space.n, size=5)
        episode.append(int(action[row]))
        observation, rewards, terminated, truncated, infos = envs.step(action)
        done = bool(terminated[row] | truncated[row])
        final = infos["final_info"] if done else {}
        info = {k: v[row] for k, v in final.items() if not k.startswith("_")}
        info = {k: v.item() if isinstance(v, np.generic) else v for k, v in info.items()}
        seen = infos["final_obs"][row] if done else observation[row]
        digest.update(seen.tobytes())
        step = (float(rewards[row]), bool(terminated[row]), bool(truncated[row]), info)
        digest.update(json.dumps(step, sort_keys=True).encode())
        if done:
            hashes.append(f"{digest.hexdigest()} True")
            actions.append(episode)
            digest, episode = hashlib.sha256(observation[row].tobytes()), []
    job = json.dumps([env_id, kwargs, 40 + row, actions])
    result = subprocess.run([sys.executable, "-c", REPLAY], input=job, capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:-1] == hashes


def test_a_row_does_not_depend_on_the_others() -> None:
    """Row 0 of 1, 2 and 7 rows sees the same episodes."""
    traces = []
    for num_envs in (1, 2, 7):
        envs = gym.make_vec("textenvs/Copy-v0", num_envs=num_envs)
        rng, trace = np.random.default_rng(5), [envs.reset(seed=3)[0][0]]
        for _ in range(200):
            actions = np.full(num_envs, rng.integers(10))
            trace.append(envs.step(actions)[0][0])
        traces.append(np.array(trace))
    np.testing.assert_array_equal(traces[0], traces[1])
    np.testing.assert_array_equal(traces[0], traces[2])


def test_observations_are_fresh_arrays() -> None:
    envs = gym.make_vec("textenvs/Copy-v0", num_envs=3)
    first, _ = envs.reset(seed=0)
    kept = first.copy()
    second = envs.step(np.zeros(3, dtype=int))[0]
    np.testing.assert_array_equal(first, kept)
    second[:] = -1
    assert envs.observation_space.contains(envs.step(np.zeros(3, dtype=int))[0])


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        ([0, 1], "actions must be 3 ints"),
        ([0.0, 1.0, 2.0], "float64"),
        ([0, 1, 10], r"\[0, 10\), got 10"),
        ([0, -1, 3], "got -1"),
        (None, "actions must be 3 ints"),
    ],
)
def test_bad_actions_are_refused_and_change_nothing(actions: Any, words: str) -> None:
    envs = gym.make_vec("textenvs/Copy-v0", num_envs=3)
    envs.reset(seed=0)
    with pytest.raises(InvalidAction, match=words):
        envs.step(actions)
    twin = gym.make_vec("textenvs/Copy-v0", num_envs=3)
    twin.reset(seed=0)
    assert_same(envs.step(np.array([1, 2, 3])), twin.step(np.array([1, 2, 3])), "step")


def test_step_needs_reset() -> None:
    envs = gym.make_vec("textenvs/Copy-v0", num_envs=2, autoreset_mode="Disabled")
    with pytest.raises(ResetNeeded, match="call reset"):
        envs.step(np.zeros(2, dtype=int))
    envs.reset(seed=0)
    envs.step(np.array([9, 0]))
    with pytest.raises(ResetNeeded, match=r"rows \[0\] have ended"):
        envs.step(np.zeros(2, dtype=int))


@pytest.mark.parametrize(
    ("mask", "error"),
    [([True, False], TypeError), (np.array([1, 0]), TypeError), (np.zeros(2, bool), ValueError)],
)
def test_bad_reset_masks_are_refused(mask: Any, error: type[Exception]) -> None:
    envs = gym.make_vec("textenvs/Copy-v0", num_envs=2, autoreset_mode="Disabled")
    with pytest.raises(error, match="reset_mask"):
        envs.reset(options={"reset_mask": mask})


def test_problems_can_be_picked_row_by_row() -> None:
    envs = gym.make_vec("textenvs/Copy-v0", num_envs=3)
    _, infos = envs.reset(options={"problem": np.array([4, 2, 9])})
    assert infos["problem"].tolist() == [4, 2, 9]
    alone = gym.make("textenvs/Copy-v0")
    for row, k in enumerate([4, 2, 9]):
        np.testing.assert_array_equal(
            envs.reset(options={"problem": np.array([4, 2, 9])})[0][row], alone.reset(options={"problem": k})[0]
        )
    with pytest.raises(ValueError, match="seed must be an int or 3"):
        envs.reset(seed=[1, 2])
    with pytest.raises(ValueError, match="'problm'"):
        envs.reset(options={"problm": 1})


def test_the_reward_sees_one_batch_a_step_and_only_what_ended() -> None:
    """A guard on cost: one reward call a step however many rows end, none when none ends."""
    calls: list[int] = []

    class Counting(textenvs.Reward):
        name = "counting"

        def __call__(self, problems: Any, responses: textenvs.Responses) -> textenvs.Scores:
            calls.append(len(responses))
            return textenvs.Scores(np.zeros(len(responses)))

    envs = gym.make_vec("textenvs/Copy-v0", num_envs=64, reward=Counting(), autoreset_mode="SameStep")
    envs.reset(seed=0)
    for _ in range(3):
        envs.step(np.zeros(64, dtype=int))
    assert calls == []
    envs.step(np.full(64, 9))
    assert calls == [64]
