"""Seeds of groups and random streams of episodes: NumPy's own, hashed 256 numbers at once.

To hash one number takes `SeedSequence` longer than an episode's other beginnings together; in arrays it takes a fifth.
"""

from functools import lru_cache

import numpy as np
from numpy.random import Generator, Philox, SeedSequence
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

_ENV_STREAM, _POLICY_STREAM = 0, 1  # first word of every spawned seed: env and policy never share a stream
_BLOCK = 256  # numbers that are hashed at once
_POOL = 4  # words of a pool
_HASH = (0x43B0D7E5, 0x931E8875)  # what the entropy is hashed with at first, and what that is multiplied by each time
_STATE = (0x8B51F9DD, 0x58F38DED)  # the same for what comes out
_MIX = (np.uint32(0xCA01F9DD), np.uint32(0x4973F715))

_Words = NDArray[np.uint32]


def episode_rng(seed: int, episode: int) -> Generator:
    """Return the random stream of one episode's actions."""
    # NumPy takes every `ISeedSequence`, which its stubs do not say.
    return Generator(Philox(_Hashed(_state(_POLICY_STREAM, seed, episode))))  # type: ignore[arg-type]


def group_seed(seed: int, group: int) -> int:
    """Return the seed with which the env starts each episode of a group."""
    return int(_state(_ENV_STREAM, seed, group)[0])


class _Hashed(ISeedSequence):
    """A seed sequence of which the state is known."""

    def __init__(self, state: NDArray[np.uint64]) -> None:
        self.state = state

    def generate_state(self, n_words: int, dtype: object = np.uint32) -> NDArray[np.uint64]:
        """Return the two words of 64 bits that Philox asks for."""
        return self.state


def _state(stream: int, seed: int, number: int) -> NDArray[np.uint64]:
    """Return `SeedSequence([stream, seed, number]).generate_state(2, np.uint64)`."""
    if not 0 <= seed | number < 2**32:  # more than a word each
        return np.asarray(SeedSequence([stream, seed, number]).generate_state(2, np.uint64), np.uint64)
    block, i = divmod(number, _BLOCK)
    state: NDArray[np.uint64] = _states(stream, seed, block)[i]
    return state


@lru_cache(maxsize=16)
def _states(stream: int, seed: int, block: int) -> NDArray[np.uint64]:
    """Return `_state` of a block's numbers (256, 2).

    Source: O'Neill 2015, "Developing a seed_seq alternative", as numpy/random/bit_generator.pyx has it.
    """
    numbers = np.arange(block * _BLOCK, (block + 1) * _BLOCK, dtype=np.uint32)
    entropy = np.zeros((_POOL, _BLOCK), np.uint32)
    entropy[0], entropy[1], entropy[2] = stream, seed, numbers
    constants = _constants(*_HASH, _POOL * _POOL)
    pool = _hash(entropy, constants[: _POOL + 1])
    for i in range(_POOL):
        start, others = _POOL + i * (_POOL - 1), [j for j in range(_POOL) if j != i]
        mixed = _MIX[0] * pool[others] - _MIX[1] * _hash(pool[i], constants[start : start + _POOL])
        pool[others] = mixed ^ mixed >> np.uint32(16)
    words = _hash(pool, _constants(*_STATE, _POOL))
    return np.ascontiguousarray(words.T).astype("<u4").view("<u8").astype(np.uint64)


def _constants(first: int, factor: int, count: int) -> _Words:
    """Return (count + 1, 1) words, each the one before times a factor."""
    return np.array([[first * pow(factor, i, 2**32) % 2**32] for i in range(count + 1)], np.uint32)


def _hash(values: _Words, constants: _Words) -> _Words:
    """Hash values (k, B), or one row k times, with k + 1 constants: each takes two that follow each other."""
    hashed: _Words = (values ^ constants[:-1]) * constants[1:]
    return np.bitwise_xor(hashed, np.right_shift(hashed, np.uint32(16)))
