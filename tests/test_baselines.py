"""The SB3 side: the batch env under SB3's contract, features from token ids, agents that learn, curves read rightly."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from small import Ragged
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecCheckNan, VecMonitor
from tasks_for_tests import Flaky, GuessingGame
from test_vector_env import assert_same

from agents.baselines import BASELINES, CONTROL, WINDOW, BaselineResult, _schedule, train_sb3
from agents.sb3 import SB3VecEnv, TokenEmbeddingExtractor
from textenvs import FunctionReward

COPY = {"length": 2, "alphabet": "abcd", "dense": True}
#: Ragged ends, masks, replies, an outer TimeLimit, dict observations, faults that truncate.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "ragged": ("TextGen-v0", {"task": Ragged(), "stop": ["d"]}),
    "ragged-limit": ("TextGen-v0", {"task": Ragged(), "stop": ["d"], "dense": True, "max_episode_steps": 4}),
    "turns-dict": ("TextGen-v0", {"task": GuessingGame(), "mask_keys": "pettingzoo", "observation": "onehot"}),
    "faults": ("textenvs/Copy-v0", {"reward": Flaky(), "alphabet": "ab", "length": 5, "max_episode_steps": 6}),
}


def ours(env_id: str, num_envs: int = 5, **kwargs: Any) -> SB3VecEnv:
    return SB3VecEnv(gym.make_vec(env_id, num_envs=num_envs, autoreset_mode="SameStep", **kwargs))


def dummy(env_id: str, num_envs: int = 5, **kwargs: Any) -> DummyVecEnv:
    return DummyVecEnv([lambda: gym.make(env_id, **kwargs)] * num_envs)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_adapter_equals_dummy_vec_env(name: str) -> None:
    """400 steps of random actions: observations, rewards, dones, infos, masks, reset infos; seeds and options once."""
    env_id, kwargs = SETTINGS[name]
    a, b = ours(env_id, **kwargs), dummy(env_id, **kwargs)
    assert (a.observation_space, a.action_space) == (b.observation_space, b.action_space)
    assert a.metadata["textgen"] == b.metadata["textgen"]
    rng = np.random.default_rng(0)
    cut = 0
    for t in range(400):
        if t % 100 == 0:
            seed = 7 + t if t < 300 else None  # at 300 the streams go on, without options
            if seed is not None:
                assert a.seed(seed) == b.seed(seed)
                options = [None, {"problem": 1}, [{}, {"problem": 2}, {"problem": 0}, {}, {"problem": 1}]][t // 100]
                a.set_options(options)
                b.set_options(options)
            assert_same(a.reset(), dict(b.reset()) if isinstance(b.observation_space, spaces.Dict) else b.reset(), "")
        actions = rng.integers(a.action_space.n, size=5)
        mine, theirs = a.step(actions), b.step(actions)
        for part, x, y in zip(("obs", "rewards", "dones", "infos"), mine, theirs, strict=True):
            assert_same(dict(x) if isinstance(x, dict) else x, y, f"step {t} {part}")
        assert_same(a.reset_infos, b.reset_infos, f"step {t} reset infos")
        assert_same(get_action_masks(a), get_action_masks(b), f"step {t} masks")
        assert a.env_method("demonstration") == b.env_method("demonstration")
        cut += sum(info["TimeLimit.truncated"] for info in mine[3])
    assert (cut > 0) == (name in ("ragged-limit", "faults"))
    a.close()
    b.close()


def test_attributes_and_methods_are_those_of_each_row() -> None:
    a, b = ours("TextGen-v0", task=Ragged()), dummy("TextGen-v0", task=Ragged())
    for env in (a, b):
        env.seed(3)
        env.reset()
    for name in ("render_mode", "observation_space", "action_space"):
        assert a.get_attr(name, [0, 3]) == b.get_attr(name, [0, 3])
    assert [g.bit_generator.state for g in a.get_attr("np_random")] == [
        g.bit_generator.state for g in b.get_attr("np_random")
    ]
    for indices in (None, 2, [4, 1]):
        masks = zip(a.get_attr("action_masks", indices), b.get_attr("action_masks", indices), strict=True)
        assert all((mine() == theirs()).all() for mine, theirs in masks)
        assert_same(
            a.env_method("action_masks", indices=indices), b.env_method("action_masks", indices=indices), str(indices)
        )
    for env in (a, b):
        assert is_masking_supported(env)
        assert not env.has_attr("no_such_thing")
        env.set_attr("difficulty", 3)
        assert env.get_attr("difficulty", 1) == [3]
        assert env.env_is_wrapped(Monitor) == [False] * 5
        assert env.env_is_wrapped(Monitor, [0, 1]) == [False] * 2
    with pytest.raises(ValueError, match="indices must be None or all rows"):
        a.set_attr("difficulty", 4, [1])
    with pytest.raises(ValueError, match="attr_name must be an attribute that rows share"):
        a.set_attr("action_space", None)
    with pytest.raises(AttributeError, match="env_method must be action_masks or demonstration in a batch, got 'step'"):
        a.env_method("step", 0)
    with pytest.raises(ValueError, match="autoreset_mode must be SameStep for SB3, got AutoresetMode"):
        SB3VecEnv(gym.make_vec("textenvs/Copy-v0", num_envs=2))


def test_wrappers_of_batch_envs_are_seen() -> None:
    envs = gym.make_vec("textenvs/Copy-v0", num_envs=2, autoreset_mode="SameStep")
    wrapped = SB3VecEnv(gym.wrappers.vector.RecordEpisodeStatistics(envs))
    assert wrapped.env_is_wrapped(gym.wrappers.vector.RecordEpisodeStatistics) == [True, True]
    assert wrapped.env_is_wrapped(gym.wrappers.vector.ClipReward) == [False, False]
    assert is_masking_supported(wrapped)


def test_sb3s_own_wrappers_run_on_it() -> None:
    """`VecMonitor` counts the episodes that `DummyVecEnv` of monitored envs counts; `VecCheckNan` finds nothing."""
    envs = VecMonitor(VecCheckNan(ours("textenvs/Sort-v0", dense=True), raise_exception=True))
    theirs = DummyVecEnv([lambda: Monitor(gym.make("textenvs/Sort-v0", dense=True))] * 5)
    rng, episodes = np.random.default_rng(1), 0
    for env in (envs, theirs):
        env.seed(5)
        env.reset()
    for _ in range(100):
        actions = rng.integers(envs.action_space.n, size=5)
        for mine, other in zip(envs.step(actions)[3], theirs.step(actions)[3], strict=True):
            assert ("episode" in mine) == ("episode" in other)
            if "episode" in mine:
                episodes += 1
                assert mine["episode"]["r"] == pytest.approx(other["episode"]["r"], abs=1e-6)
                assert mine["episode"]["l"] == other["episode"]["l"]
    assert episodes > 20


def test_the_extractor_tells_pad_from_tokens_and_slot_from_slot() -> None:
    torch.manual_seed(0)
    space = gym.make("textenvs/Copy-v0", **COPY).observation_space
    extractor = TokenEmbeddingExtractor(space, embedding_dim=8, num_heads=2)
    length, pad = space.shape[0], int(space.high.max())
    # Every id differs from every other in every slot, the pad included, and so does every order of two tokens.
    for slot in range(length):
        rows = torch.ones(pad + 1, length)
        rows[:, slot] = torch.arange(pad + 1.0)
        assert len(torch.unique(extractor(rows), dim=0)) == pad + 1, slot
        if slot:
            swapped = torch.ones(2, length)
            swapped[0, [0, slot]], swapped[1, [slot, 0]] = torch.tensor([2.0, 3.0]), torch.tensor([2.0, 3.0])
            features = extractor(swapped)
            assert not torch.allclose(features[0], features[1]), slot
    # The slot written last asks, whatever stands in it; the prompt alone asks from its own last slot.
    query = extractor(torch.tensor([[2.0, 3.0] + [float(pad)] * (length - 2)]))[:, 8:]
    assert torch.equal(query[0], extractor.queries.weight[1])
    features.sum().backward()
    assert all(parameter.grad is not None for parameter in extractor.parameters())
    assert extractor(rows).shape == (pad + 1, extractor.features_dim)
    for wrong in (spaces.Box(0, 1, (4,), np.float32), spaces.Box(0, 9, (2, 2), np.int64), spaces.Discrete(3)):
        with pytest.raises(ValueError, match="observation_space must be a Box"):
            TokenEmbeddingExtractor(wrong)


def test_episodes_to_a_target_are_read_from_the_running_mean() -> None:
    curve = BaselineResult([0.0] * 10 + [1.0] * 200, [float(i) for i in range(210)])
    assert curve.episodes_to(1.0) == (10 + WINDOW, 10 + WINDOW - 1)
    assert curve.episodes_to(0.5) == (WINDOW, WINDOW - 1)
    assert curve.episodes_to(1.0, window=10) == (20, 19)
    assert curve.episodes_to(1.1) is None
    # Fractions that add up to the target only but for rounding, whatever the order of the sum.
    fractions = BaselineResult([0.0] * 7 + [0.1 * (k % 3) for k in range(WINDOW + 1)], [0.0] * (WINDOW + 8))
    assert fractions.episodes_to(sum(fractions.returns[-WINDOW:]) / WINDOW) is not None
    assert BaselineResult([1.0], [0.0]).episodes_to(0.5) is None


@pytest.mark.parametrize("name", BASELINES)
def test_every_agent_learns_a_little_of_a_small_copy(name: str) -> None:
    """It runs through updates on the native batch env, improves on random, and stops on time."""
    # TRPO takes one step an update, and ARS 256 episodes for a step.
    num_episodes = {"trpo": 1200, "ars": 4000}.get(name, 600)
    result = train_sb3(name, "textenvs/Copy-v0", COPY, num_episodes=num_episodes, seed=0)
    assert len(result.returns) == num_episodes
    assert result.seconds == sorted(result.seconds)
    assert np.mean(result.returns[-150:]) > np.mean(result.returns[:150]) + 0.1


def test_training_stops_at_the_target_and_repeats_itself() -> None:
    runs = [
        train_sb3("ppo", "textenvs/Copy-v0", COPY, num_episodes=600, seed=1, target=0.3, window=20) for _ in range(2)
    ]
    assert runs[0].returns == runs[1].returns
    assert len(runs[0].returns) < 600
    assert np.mean(runs[0].returns[-20:]) >= 0.3 - 1e-6


def test_a_longer_training_begins_as_a_shorter_one() -> None:
    """So that episodes to a target do not depend on the episodes asked for; exploration counts steps."""
    stop = {"target": -1.0, "window": 250}  # after 250 episodes, whatever they return
    short, long = (train_sb3("dqn", "textenvs/Copy-v0", COPY, num_episodes=n, seed=2, **stop) for n in (300, 5000))
    assert len(short.returns) == 250
    assert long.returns == short.returns


def test_the_extractor_can_be_differentiated_twice() -> None:
    """As TRPO's Fisher products need; and says the same as the fused kernel does."""
    space = gym.make("textenvs/Copy-v0", **COPY).observation_space
    ids = torch.as_tensor(np.stack([space.sample() for _ in range(5)])).float()
    torch.manual_seed(0)
    fused = TokenEmbeddingExtractor(space)
    plain = TokenEmbeddingExtractor(space, twice_differentiable=True)
    plain.load_state_dict(fused.state_dict())
    torch.testing.assert_close(plain(ids), fused(ids))
    weight = plain.attention.in_proj_weight
    (slope,) = torch.autograd.grad((plain(ids) ** 2).sum(), weight, create_graph=True)
    (curvature,) = torch.autograd.grad((slope**2).sum(), weight)
    assert torch.isfinite(curvature).all()
    assert (curvature != 0).any()


@pytest.mark.parametrize("name", ["ppo", "ars"])
def test_whoever_watches_sees_every_episode_and_ends_the_training(name: str) -> None:
    """ARS plays its episodes outside of SB3's callbacks and heeds none of them."""
    seen: list[float] = []
    result = train_sb3(
        name,
        "textenvs/Copy-v0",
        COPY,
        num_episodes=500,
        seed=0,
        on_episode=lambda value: seen.append(value) is None and len(seen) < 37,
    )
    assert len(seen) == 37
    assert seen == result.returns


def test_ars_gets_all_the_episodes_asked_for() -> None:
    """Though its clock of steps runs faster than the env's."""
    assert len(train_sb3("ars", "textenvs/Copy-v0", COPY, num_episodes=900, seed=0).returns) == 900


def test_schedules_fall_to_zero() -> None:
    schedule = _schedule("lin_0.2")
    assert [schedule(1.0), schedule(0.5), schedule(0.0)] == [0.2, 0.1, 0.0]
    assert _schedule(0.2) == 0.2


def test_a_masked_agent_takes_legal_tokens_only() -> None:
    task, texts = Ragged(), []
    task.reward = FunctionReward(lambda problem, text: float(texts.append(text) is None))
    for name, legal in (("maskable_ppo", True), ("ppo", False)):
        texts.clear()
        train_sb3(name, "TextGen-v0", {"task": task, "stop": ["d"]}, num_episodes=40, seed=0)
        assert len(texts) >= 40
        assert legal == all("e" not in text for text in texts)


def test_other_observations_and_settings_replace_the_tables() -> None:
    settings = {"n_steps": 8, "batch_size": 64, "n_epochs": 1, "learning_rate": "lin_0.001"}
    onehot = COPY | {"observation": "onehot"}
    assert len(train_sb3("ppo", "textenvs/Copy-v0", onehot, num_episodes=30, seed=0, overrides=settings).returns) == 30
    extractor = {"policy_kwargs": {"features_extractor_kwargs": {"embedding_dim": 30}}}
    with pytest.raises(ValueError, match="embedding_dim must be a multiple of num_heads=4, got 30"):
        train_sb3("ppo", "textenvs/Copy-v0", COPY, num_episodes=30, seed=0, overrides=extractor)
    with pytest.raises(TypeError, match="no_such_setting"):
        train_sb3("ppo", "textenvs/Copy-v0", onehot, num_episodes=30, seed=0, overrides={"no_such_setting": 1})


@pytest.mark.parametrize("env_id", CONTROL)
def test_ordinary_envs_run_with_their_own_settings(env_id: str) -> None:
    result = train_sb3("ppo", env_id, num_episodes=9 if env_id == "CartPole-v1" else 1, seed=0)
    lengths = [abs(value) for value in result.returns]  # a reward of 1 or -1 a step, not a normalised one
    assert all(length == int(length) and 8 <= length <= 500 for length in lengths)


def test_unknown_names_say_what_is_known() -> None:
    with pytest.raises(
        ValueError, match="name must be one of ppo, maskable_ppo, a2c, dqn, qrdqn, recurrent_ppo, trpo, ars, got 'sac'"
    ):
        train_sb3("sac", "textenvs/Copy-v0", num_episodes=1, seed=0)
    with pytest.raises(ValueError, match="name must be one of ppo, a2c, dqn, qrdqn on CartPole-v1, got 'maskable_ppo'"):
        train_sb3("maskable_ppo", "CartPole-v1", num_episodes=1, seed=0)
    with pytest.raises(ValueError, match="env_id must be a text env or one of CartPole-v1, MountainCar-v0, got 'Acro"):
        train_sb3("ppo", "Acrobot-v1", num_episodes=1, seed=0)


@pytest.mark.parametrize(
    ("missing", "name", "library"),
    [("stable_baselines3", "ppo", "stable-baselines3"), ("sb3_contrib", "qrdqn", "sb3-contrib")],
)
def test_a_missing_library_names_its_command(
    monkeypatch: pytest.MonkeyPatch, missing: str, name: str, library: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf'this baseline needs {library}; pip install "textenvs\[sb3\]"'):
        train_sb3(name, "textenvs/Copy-v0", COPY, num_episodes=1, seed=0)
    if missing == "stable_baselines3":
        monkeypatch.delitem(sys.modules, "agents.sb3")
        for module in [module for module in sys.modules if module.startswith("stable_baselines3.")]:
            monkeypatch.delitem(sys.modules, module)
        with pytest.raises(ImportError, match=r'pip install "textenvs\[sb3\]"'):
            importlib.import_module("agents.sb3")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "task", "num_episodes"),
    [
        ("ppo", "Copy", 4000),
        ("ppo", "Sort", 8000),
        ("a2c", "Reverse", 8000),
        ("dqn", "Copy", 2000),
        ("dqn", "Sort", 3000),
        ("qrdqn", "Reverse", 3000),
        ("maskable_ppo", "Copy", 4000),
    ],
)
def test_agents_reach_what_they_are_known_for(name: str, task: str, num_episodes: int) -> None:
    """About twice the episodes of the tuning seeds, on another seed."""
    kwargs = {"length": 4, "alphabet": "abcdefgh", "dense": True}
    result = train_sb3(name, f"textenvs/{task}-v0", kwargs, num_episodes=num_episodes, seed=0, target=0.95)
    assert result.episodes_to(0.95) is not None


@pytest.mark.slow
def test_sb3_ppo_balances_the_pole() -> None:
    result = train_sb3("ppo", "CartPole-v1", num_episodes=2000, seed=0, target=475.0, window=100)
    assert result.episodes_to(475.0, window=100) is not None
