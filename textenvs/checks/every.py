"""Clauses true of every Gymnasium env whose actions are tokens."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import gymnasium as gym
import numpy as np

from textenvs.checks.lab import SEEDS, Clause, Lab, UncheckedError, clause, digests, digests_elsewhere
from textenvs.checks.recording import Episode, difference, spell

CLAUSES: list[Clause] = []


@clause(CLAUSES, "action_space = Discrete(num_tokens), observation_space = one of gymnasium.spaces")
def spaces(lab: Lab) -> Iterator[str]:
    """Actions are Discrete from 0 and observations have a Gymnasium space."""
    action_space, observation_space = lab.env.action_space, lab.env.observation_space
    if not isinstance(action_space, gym.spaces.Discrete) or action_space.start != 0:
        yield f"action_space {action_space}"
    if not isinstance(observation_space, gym.spaces.Space):
        yield f"observation_space {observation_space!r}"


@clause(CLAUSES, "return (observation, info) from reset and 5 values from step, and accept every action of the space")
def plays(lab: Lab) -> Iterator[str]:
    """Reset and step accept every action of the space until the episode ends."""
    outermost = [lab.play(lab.env, [action], seed=SEEDS[0]) for action in (0, lab.num_tokens - 1)]
    for episode in [*lab.episodes, *outermost]:
        if episode.error:
            yield episode.error


@clause(CLAUSES, "return what observation_space says, dtype included")
def observation_in_space(lab: Lab) -> Iterator[str]:
    """Every observation is in the space: shape, bounds and dtype, at reset, at every step and at the end."""
    for step in lab.steps():
        if not _contains(lab.env.observation_space, step.observation):
            yield f"{np.asarray(step.observation).dtype} {str(step.observation)[:200]} at {step.where}"


def _contains(space: gym.Space[Any], value: Any) -> bool:
    """`value in space`, which on its own lets any dtype pass that can be cast."""
    if isinstance(space, gym.spaces.Dict):
        same_keys = isinstance(value, dict) and set(value) == set(space.spaces)
        return same_keys and all(_contains(inner, value[key]) for key, inner in space.spaces.items())
    if isinstance(space, gym.spaces.Box) and (not isinstance(value, np.ndarray) or value.dtype != space.dtype):
        return False
    return value in space


@clause(CLAUSES, "return a copy of the env's own array each time")
def observation_kept(lab: Lab) -> Iterator[str]:
    """An observation that was returned does not change later."""
    for step in lab.steps():
        if spell(step.observation) != step.spelled[0]:
            yield f"the observation of {step.where} now reads otherwise"


@clause(CLAUSES, "return copies, and keep no reference to what was returned")
def caller_may_write(lab: Lab) -> Iterator[str]:
    """What the caller does to a returned observation or info changes no later step and no later episode."""
    for seed in SEEDS[:2]:
        for _ in range(2):
            if seen := difference(lab.runs[seed], lab.run(lab.env, seed, write=True)):
                yield seen


@clause(CLAUSES, "return float(reward), and never NaN or infinity")
def reward_number(lab: Lab) -> Iterator[str]:
    """Every reward is a finite Python int or float."""
    for step in lab.steps():
        good = isinstance(step.reward, (int, float)) and not isinstance(step.reward, bool)
        if not good or not math.isfinite(step.reward):
            yield f"{type(step.reward).__name__} {step.reward!r} at {step.where}"


@clause(CLAUSES, "return bool(terminated), bool(truncated)")
def flags_bool(lab: Lab) -> Iterator[str]:
    """Terminated and truncated are Python bools."""
    for step in lab.steps():
        for flag in (step.terminated, step.truncated):
            if type(flag) is not bool:
                yield f"{type(flag).__name__} {flag!r} at {step.where}"


@clause(CLAUSES, "build a new dict at every step")
def info_fresh(lab: Lab) -> Iterator[str]:
    """Info is a dict, another one at every step, and what was returned does not change later."""
    seen: dict[int, str] = {}
    for step in lab.steps():
        if not isinstance(step.info, dict):
            yield f"{type(step.info).__name__} at {step.where}"
        if id(step.info) in seen:
            yield f"the same dict at {seen[id(step.info)]} and at {step.where}"
        seen[id(step.info)] = step.where
        if spell(step.info) != step.spelled[2]:
            yield f"the info of {step.where} now reads otherwise: {step.info!r}"[:300]


@clause(CLAUSES, "raise a flag in the end, or register the env with max_episode_steps")
def episode_ends(lab: Lab) -> Iterator[str]:
    """Every episode of random actions ends."""
    for episode in lab.episodes[: len(SEEDS) * lab.num_episodes]:
        if not episode.ended and not episode.error:
            yield f"no end in {len(episode.steps) - 1} steps"


@clause(CLAUSES, "raise gymnasium.error.ResetNeeded, or keep gym.make's OrderEnforcing")
def reset_needed(lab: Lab) -> Iterator[str]:
    """Step before the first reset raises."""
    _ = lab.spec
    env = lab.fresh()
    try:
        returned = env.step(0)
    except Exception:
        return
    yield f"step(0) returned {str(returned)[:200]}"


@clause(CLAUSES, "draw from self.np_random only, and call super().reset(seed=seed) first")
def same_seed_same_episodes(lab: Lab) -> Iterator[str]:
    """A fresh copy with the same seed and actions sees the same episodes, infos and masks included."""
    copy = lab.fresh()
    for seed in SEEDS:
        if seen := difference(lab.runs[seed], lab.run(copy, seed)):
            yield seen


@clause(CLAUSES, "start every episode from a clean state in reset()")
def reset_forgets(lab: Lab) -> Iterator[str]:
    """After a seeded reset nothing is left of what came before, a half-played episode included."""
    for seed in SEEDS:
        lab.play(lab.env, [0])
        if seen := difference(lab.runs[seed], lab.run(lab.env, seed)):
            yield seen


@clause(CLAUSES, "draw every episode from self.np_random; never seed + i, never a default seed")
def seeds_differ(lab: Lab) -> Iterator[str]:
    """Seeds give other episodes, neighbouring seeds do not share theirs, and an unseeded reset goes on drawing."""
    starts = {seed: [lab.play(lab.env, [], seed=seed if k == 0 else None) for k in range(32)] for seed in SEEDS}
    texts = {seed: [spell([step.spelled for step in e.steps]) for e in run] for seed, run in starts.items()}
    if len({text for run in texts.values() for text in run}) == 1:
        raise UncheckedError("every episode starts the same")
    for i, one in enumerate(SEEDS):
        for two in SEEDS[i + 1 :]:
            for shift in (-2, -1, 0, 1, 2):
                # The first start may differ where every later one is the same.
                a, b = texts[one][3 + shift :], texts[two][3:]
                if all(x == y for x, y in zip(a, b, strict=False)):
                    yield f"seeds {one} and {two} start the same {min(len(a), len(b))} episodes, shifted by {shift}"


@clause(CLAUSES, "draw from self.np_random, and seed no global generator")
def global_random_untouched(lab: Lab) -> Iterator[str]:
    """Neither `random` nor `numpy.random`'s global generator is drawn from or seeded."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        lab.run(lab.fresh(), SEEDS[0])
        after = random.getstate(), np.random.get_state()  # noqa: NPY002
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
    for name, x, y in zip(("random", "numpy.random"), before, after, strict=True):
        if spell(x) != spell(y):
            yield f"the state of {name} changed"


@clause(CLAUSES, "keep state on the instance, set in reset(); no class attributes, no module globals")
def instances_independent(lab: Lab) -> Iterator[str]:
    """Two copies stepped in turn see what each sees alone."""
    episodes = Episode(), Episode()
    envs = lab.fresh(), lab.fresh()
    streams = [lab.stepping(env, lab.random_actions(seed), seed=seed) for env, seed in zip(envs, SEEDS, strict=False)]
    for steps in zip_longest(*streams):
        for episode, step in zip(episodes, steps, strict=True):
            if step is not None:
                episode.steps.append(step)
    for episode, seed in zip(episodes, SEEDS, strict=False):
        if seen := difference([episode], lab.runs[seed][:1]):
            yield seen


@clause(CLAUSES, "let nothing depend on set order, hash(), time, paths or the process")
def same_in_another_process(lab: Lab) -> Iterator[str]:
    """A fresh interpreter with another PYTHONHASHSEED, given the spec as JSON, sees the same episodes."""
    for seed, here, there in zip(SEEDS, digests(lab, lab.fresh()), digests_elsewhere(lab), strict=True):
        if here != there:
            yield f"other episodes from seed {seed}"


@clause(CLAUSES, "action_masks() -> bool array (num_tokens,), True where a token may come next")
def mask_valid(lab: Lab) -> Iterator[str]:
    """action_masks(), where there is one, is a bool array (V,) with at least one True, always."""
    for step in lab.steps():
        mask = step.mask
        if mask is None and lab.facts is None:
            return
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (lab.num_tokens,):
            yield f"{str(mask)[:200]} at {step.where}"
        elif not mask.any():
            yield f"no True at {step.where}"


@clause(CLAUSES, "let close() be called again")
def close_twice(lab: Lab) -> Iterator[str]:
    """Closing twice raises nothing, with or without an episode running."""
    env = lab.fresh()
    env.reset(seed=0)
    env.close()
    env.close()
    yield from ()
