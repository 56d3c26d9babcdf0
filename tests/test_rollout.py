"""collect: exactly the asked episodes, whatever the number of envs; bootstrap, faults, groups."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.random import Generator, Philox, SeedSequence
from small import Ragged, ragged_envs, string_envs, tiny_lm

import textenvs
from agents.policy import Decisions, OraclePolicy, RandomPolicy
from agents.rollout import Rollout, collect, episode_rng, group_seed


def assert_same(one: Rollout, other: Rollout, atol: float = 0.0) -> None:
    for name in ("observations", "actions", "mask", "positions", "legal", "rewards", "terminated", "truncated"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert [dict(info) for info in one.infos] == [dict(info) for info in other.infos]
    for name in ("log_probs", "values", "bootstrap_values"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=atol)


def test_result_does_not_depend_on_the_number_of_envs():
    policy = tiny_lm(ragged_envs(1))
    whole = collect(ragged_envs(1), policy, num_episodes=20, seed=7)
    assert len(whole) == 20
    assert whole.returns.std() > 0
    for num_envs in (3, 8, 32):
        assert_same(whole, collect(ragged_envs(num_envs), policy, num_episodes=20, seed=7), atol=1e-5)


def test_calls_continue_each_other_and_seeds_differ():
    envs, policy = ragged_envs(4), RandomPolicy(9)
    whole = collect(envs, policy, num_episodes=12, seed=7)
    second = collect(envs, policy, num_episodes=5, seed=7, first_episode=7)
    width = second.actions.shape[1]
    assert np.array_equal(second.actions, whole.actions[7:, :width])
    assert not np.array_equal(collect(envs, policy, num_episodes=12, seed=8).actions, whole.actions)


def test_every_episode_is_the_env_replayed_alone():
    """The scalar env, reset with the episode's seed and fed its actions, tells the same story."""
    envs = ragged_envs(4)
    rollout = collect(envs, RandomPolicy(9), num_episodes=10, seed=2)
    env = gym.make("TextGen-v0", task=Ragged(), stop=["d"])
    for i in range(10):
        observation, _ = env.reset(seed=group_seed(2, i))
        for t in range(rollout.lengths[i]):
            assert np.array_equal(rollout.legal[i, t], env.unwrapped.action_masks())
            assert observation[rollout.positions[i, t]] == 9
            observation, reward, terminated, truncated, info = env.step(rollout.actions[i, t])
            assert observation[rollout.positions[i, t]] == rollout.actions[i, t]
            assert reward == rollout.rewards[i, t]
        assert (terminated, truncated) == (rollout.terminated[i], rollout.truncated[i]) == (True, False)
        assert np.array_equal(observation, rollout.observations[i])
        assert info["response"] == rollout.infos[i]["response"]


def test_a_group_shares_its_problem_but_not_its_draws():
    rollout = collect(string_envs(num_envs=5), RandomPolicy(6), num_episodes=12, seed=0, group_size=4)
    prompts = [info["prompt"] for info in rollout.infos]
    assert all(len(set(prompts[i : i + 4])) == 1 for i in (0, 4, 8))
    assert len(set(prompts)) > 1
    assert len({tuple(row) for row in rollout.actions}) > 3


def test_bootstrap_is_the_value_of_the_last_state_when_cut_from_outside():
    envs = ragged_envs(3, max_episode_steps=4)
    policy = tiny_lm(envs)
    torch.nn.init.normal_(policy.value_head.weight)
    rollout = collect(envs, policy, num_episodes=24, seed=0)
    cut = rollout.truncated & ~rollout.terminated
    assert cut.any()
    assert rollout.terminated.any()
    assert not rollout.bootstrap_values[~cut].any()
    rows = [torch.tensor(row[row != 9])[None] for row in rollout.observations[cut]]
    hidden = torch.cat([policy.model.base_model(row).last_hidden_state[:, -1] for row in rows])
    expected = policy.value_head(hidden)[:, 0].detach()
    np.testing.assert_allclose(rollout.bootstrap_values[cut], expected, atol=1e-5)


def test_faulty_scores_are_marked():
    class Flaky(textenvs.Reward):
        name = "flaky"

        def __call__(self, problems, responses):
            values = np.array([len(text) for text in responses.texts], float) / 10
            status = tuple("infra_fault" if text.startswith("a") else "ok" for text in responses.texts)
            return textenvs.Scores(values, {}, status)

    rollout = collect(string_envs(reward=Flaky(), dense=False), RandomPolicy(6), num_episodes=30, seed=0)
    starts = np.array([info["response"].startswith("a") for info in rollout.infos])
    assert starts.any()
    assert np.array_equal(rollout.faulty, starts)


def test_oracle_and_random_policies():
    envs = string_envs("Reverse")
    assert collect(envs, OraclePolicy(envs), num_episodes=10, seed=0).returns.tolist() == [1.0] * 10
    rollout = collect(envs, RandomPolicy(6), num_episodes=300, seed=0)
    np.testing.assert_allclose(rollout.log_probs[rollout.mask], -np.log(6), rtol=1e-6)
    assert abs(np.bincount(rollout.actions[:, 0], minlength=6) - 50).max() < 30
    envs = ragged_envs(2)
    with pytest.raises(ValueError, match="demonstration"):
        collect(envs, OraclePolicy(envs), num_episodes=2, seed=0)


def test_works_on_ordinary_vector_envs():
    class Right:
        prefix_observations = False

        def act(self, observations, rows, legal, rngs, *, greedy=False):
            zeros = np.zeros(len(rows), np.float32)
            return Decisions(np.ones(len(rows), np.int64), zeros, zeros)

    envs = gym.make_vec(
        "CartPole-v1", num_envs=3, vectorization_mode="sync", vector_kwargs={"autoreset_mode": "Disabled"}
    )
    rollout = collect(envs, Right(), num_episodes=7, seed=0)
    assert len(rollout) == 7
    assert np.array_equal(rollout.returns, rollout.lengths)
    assert rollout.observations.shape == (*rollout.actions.shape, 4)


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1, 2**32, 2**63 + 5, 2**100])
@pytest.mark.parametrize("number", [0, 3, 2**32 - 1, 2**32])
def test_streams_are_those_of_a_list_of_numbers_of_any_size(seed, number):
    stream = Generator(Philox(SeedSequence([1, seed, number])))
    assert np.array_equal(episode_rng(seed, number).random(4), stream.random(4))
    assert group_seed(seed, number) == SeedSequence([0, seed, number]).generate_state(1, np.uint64)[0]


def test_streams_are_apart_and_bad_calls_refused():
    draws = {episode_rng(seed, episode).random() for seed in range(20) for episode in range(20)}
    assert len(draws) == 400
    assert len({group_seed(seed, group) for seed in range(20) for group in range(20)}) == 400
    with pytest.raises(ValueError, match="num_episodes must be at least 1"):
        collect(string_envs(), RandomPolicy(6), num_episodes=0, seed=0)
    with pytest.raises(ValueError, match="autoreset_mode must be 'Disabled'"):
        collect(gym.make_vec("textenvs/Copy-v0", num_envs=2), RandomPolicy(10), num_episodes=1, seed=0)
