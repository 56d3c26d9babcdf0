"""Envs that each break one clause that is true of every env."""

from __future__ import annotations

import os
import random
import time
from typing import Any, ClassVar

import numpy as np
from broken_envs import Changed, breaks
from gymnasium import spaces


@breaks("spaces")
class CountsFromOne(Changed):
    """Actions are 1 to V."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.action_space = spaces.Discrete(self.action_space.n, start=1)

    def step(self, action: Any) -> Any:
        return super().step(action - 1)


@breaks("plays")
class SpaceTooLarge(Changed):
    """The pad id counts as an action of the space, and the step refuses it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.action_space = spaces.Discrete(self.action_space.n + 1)


@breaks("plays")
class OldStep(Changed):
    """Step returns four values, as before Gymnasium 0.26."""

    def after(self, action: Any, values: Any) -> Any:
        return values[0], values[1], values[2] or values[3], values[4]


@breaks("observation_in_space")
class Int32Observation(Changed):
    """`observation in space` is True, since int32 casts to int64; buffers of the space's dtype disagree."""

    def after(self, action: Any, values: Any) -> Any:
        return values[0].astype(np.int32), *values[1:]


@breaks("observation_in_space")
class FinalObservationOutside(Changed):
    """Only the last observation is outside the space."""

    def after(self, action: Any, values: Any) -> Any:
        if values[2]:
            values[0][:] = -1
        return values


@breaks("observation_kept")
class OneBuffer(Changed):
    """All steps write into the same array."""

    def after(self, action: Any, values: Any) -> Any:
        if not hasattr(self, "buffer"):
            self.buffer = values[0]
        self.buffer[:] = values[0]
        return self.buffer, *values[1:]


@breaks("observation_kept")
class LiveRow(Changed):
    """The observation is the env's own row."""

    def after(self, action: Any, values: Any) -> Any:
        return self._row, *values[1:]


@breaks("caller_may_write")
class CachedStart(Changed):
    """The first observation of a problem is cached, and handed out uncopied."""

    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        self.cache = getattr(self, "cache", {})
        return self.cache.setdefault(info["problem"], observation), info


@breaks("reward_number")
class Float32Reward(Changed):
    def after(self, action: Any, values: Any) -> Any:
        return values[0], np.float32(values[1]), *values[2:]


@breaks("reward_number")
class NanReward(Changed):
    """The mean over an empty response."""

    def after(self, action: Any, values: Any) -> Any:
        return values[0], float("nan") if values[4].get("response") == "" else values[1], *values[2:]


@breaks("flags_bool")
class NumpyFlags(Changed):
    def after(self, action: Any, values: Any) -> Any:
        return *values[:2], np.bool_(values[2]), values[3], values[4]


@breaks("info_fresh")
class OneInfo(Changed):
    """One dict for all steps."""

    def after(self, action: Any, values: Any) -> Any:
        self.info = getattr(self, "info", {})
        self.info.clear()
        self.info.update(values[4])
        return *values[:4], self.info


@breaks("episode_ends")
class RestartsItself(Changed):
    """Autoreset inside the env: no flag is ever seen."""

    def after(self, action: Any, values: Any) -> Any:
        if values[2]:
            return self.reset()[0], values[1], False, False, {}
        return values


@breaks("reset_needed")
class StepsUnasked(Changed):
    """Step without reset starts an episode of its own."""

    def step(self, action: Any) -> Any:
        if self._problem is None:
            self.reset()
        return super().step(action)


class Drawing(Changed):
    """A good env that draws problems in its own way."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if not options:
            problem = self.draw(seed) % len(self.rules.task)
            return super().reset(seed=seed, options={"problem": problem})
        return super().reset(seed=seed, options=options)

    def draw(self, seed: int | None) -> int:
        raise NotImplementedError


@breaks("global_random_untouched")
class GlobalNumpy(Drawing):
    """Problems come from numpy's global generator, seeded by the env."""

    def draw(self, seed: int | None) -> int:
        if seed is not None:
            np.random.seed(seed)  # noqa: NPY002
        return int(np.random.randint(1 << 30))  # noqa: NPY002


@breaks("global_random_untouched")
class GlobalPython(Drawing):
    def draw(self, seed: int | None) -> int:
        if seed is not None:
            random.seed(seed)
        return random.getrandbits(30)


@breaks("same_seed_same_episodes")
class SeedForgotten(Changed):
    """The seed is accepted and not passed on."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(options=options)


@breaks("same_seed_same_episodes")
class SeedZeroForgotten(Changed):
    """`if seed:`, which is false for 0."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed or None, options=options)


@breaks("same_seed_same_episodes")
class Clocked(Drawing):
    def draw(self, seed: int | None) -> int:
        return time.perf_counter_ns()


@breaks("seeds_differ")
class AlwaysSeedSeven(Changed):
    """A fixed seed: all seeds see the same episodes."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=None if seed is None else 7, options=options)


@breaks("seeds_differ")
class SeedPlusEpisode(Drawing):
    """Episode i of seed s is drawn from seed s + i: neighbours share all but one."""

    def draw(self, seed: int | None) -> int:
        self.next_seed = seed if seed is not None else getattr(self, "next_seed", 0) + 1
        return int(np.random.default_rng(self.next_seed).integers(1 << 30))


@breaks("seeds_differ")
class DefaultSeed(Changed):
    """A reset without a seed uses seed 0: the same problem for ever."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed or 0, options=options)


@breaks("reset_forgets", dense=True)
class ScoreNotCleared(Changed):
    """The dense score of an unfinished episode is subtracted from the next."""

    def reset(self, **kwargs: Any) -> Any:
        score = getattr(self, "_score", 0.0)
        values = super().reset(**kwargs)
        self._score = score
        return values


@breaks("instances_independent")
class ClassState(Changed):
    """The number of the slot to write lives on the class."""

    shared: ClassVar[dict[str, int]] = {}

    def reset(self, **kwargs: Any) -> Any:
        values = super().reset(**kwargs)
        self.shared["end"] = self._end
        return values

    def step(self, action: Any) -> Any:
        self._end = self.shared["end"]
        values = super().step(action)
        self.shared["end"] = self._end
        return values


@breaks("same_in_another_process")
class SetOrder(Drawing):
    """Problems are numbered in the order of a set of strings."""

    def draw(self, seed: int | None) -> int:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        order = list({str(k) for k in range(40)})
        return int(order[self.rng.integers(40)])


@breaks("same_in_another_process")
class ProcessId(Drawing):
    def draw(self, seed: int | None) -> int:
        if seed is not None:
            self.rng = np.random.default_rng([seed, os.getpid()])
        return int(self.rng.integers(1 << 30))


@breaks("mask_valid")
class NothingLegal(Changed):
    def action_masks(self) -> Any:
        return super().action_masks() & self._running


@breaks("mask_valid")
class IntegerMask(Changed):
    def action_masks(self) -> Any:
        return super().action_masks().astype(np.int8)


@breaks("mask_valid")
class ShortMask(Changed):
    """The end token was not counted."""

    def action_masks(self) -> Any:
        return super().action_masks()[:-1]


@breaks("close_twice")
class ClosesOnce(Changed):
    def close(self) -> None:
        del self.rules
