"""Streams of episodes and seeds of groups are NumPy's, and are hashed by the block."""

import numpy as np
import pytest
from numpy.random import Generator, Philox, SeedSequence
from small import string_envs

from agents import streams
from agents.policy import RandomPolicy
from agents.rollout import collect


@pytest.mark.parametrize("seed", [0, 12345, 2**32 - 1])
def test_all_numbers_of_three_blocks_are_hashed_as_numpy_does(seed):
    for number in range(600):
        assert streams.group_seed(seed, number) == SeedSequence([0, seed, number]).generate_state(1, np.uint64)[0]
        expected = Generator(Philox(SeedSequence([1, seed, number])))
        assert streams.episode_rng(seed, number).bit_generator.state["state"]["key"].tolist() == (
            expected.bit_generator.state["state"]["key"].tolist()
        )


def test_many_episodes_take_a_hash_a_block():
    streams._states.cache_clear()
    envs = string_envs(num_envs=50)
    for first in (0, 300):
        collect(envs, RandomPolicy(6), num_episodes=300, seed=9, first_episode=first)
    assert streams._states.cache_info().misses == 2 * 3
