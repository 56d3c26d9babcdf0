"""What the clauses look at: recorded episodes of an env, and fresh copies to play more on. No clause lives here."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from textenvs.checks.recording import Episode, Step, scribble, spell

#: Seeds that are played: 0 because `if seed:` forgets it, neighbours because they must share nothing.
SEEDS = (0, 1, 2, 2**31 - 1)
#: An episode longer than this is cut and said not to end, unless the env is registered with a longer limit.
MAX_STEPS = 10_000


class UncheckedError(Exception):
    """A clause cannot be run on this env; the message says why."""


@dataclass(frozen=True)
class Clause:
    """One thing that an env promises.

    Attributes:
        name: what `ContractError.clauses` lists.
        demand: one sentence, what must hold.
        remedy: what to do when it does not.
        find: yields what was seen against it; nothing when it holds. Raises UncheckedError where it cannot be run.
    """

    name: str
    demand: str
    remedy: str
    find: Callable[[Lab], Iterator[str]]


def clause(table: list[Clause], remedy: str) -> Callable[[Callable[[Lab], Iterator[str]]], None]:
    """Put a function into a table of clauses; its name and docstring are the clause's name and demand."""

    def add(find: Callable[[Lab], Iterator[str]]) -> None:
        table.append(Clause(find.__name__, str(find.__doc__), remedy, find))

    return add


def masks(env: gym.Env[Any, Any]) -> Any:
    """`action_masks()` of the env, through its wrappers, or None where it has none."""
    return env.get_wrapper_attr("action_masks")() if env.has_wrapper_attr("action_masks") else None


class Lab:
    """An env under examination.

    Args:
        env_or_id: a scalar Gymnasium env, or the id of one.
        num_episodes: random episodes for each of `SEEDS`.

    Attributes:
        env: the env itself; `fresh` gives others like it.
        facts: its `metadata["textgen"]`, or None for anybody else's env.
    """

    def __init__(self, env_or_id: gym.Env[Any, Any] | str, num_episodes: int) -> None:
        if isinstance(env_or_id, str):
            env_or_id = gym.make(env_or_id, disable_env_checker=True)
        if not isinstance(env_or_id, gym.Env):
            raise TypeError(f"env_or_id must be a gymnasium.Env or an id, got {env_or_id!r}; of a batch check one env")
        self.env, self.num_episodes = env_or_id, num_episodes
        facts = env_or_id.metadata.get("textgen")
        self.facts: dict[str, Any] | None = facts if facts is None or isinstance(facts, dict) else {}

    # ------------------------------------------------------------------------------------------------------ facts

    @property
    def num_tokens(self) -> int:
        """V."""
        if not isinstance(self.env.action_space, gym.spaces.Discrete):
            raise UncheckedError("the action space is not Discrete")
        return int(self.env.action_space.n)

    def fact(self, key: str) -> Any:
        """One entry of `metadata["textgen"]`."""
        if key not in (self.facts or {}):
            raise UncheckedError(f"metadata['textgen'] has no {key!r}")
        return self.facts[key]  # type: ignore[index]

    @cached_property
    def spec(self) -> EnvSpec:
        """What the env was made from, and can be made from again."""
        if self.env.spec is None:
            raise UncheckedError("the env has no spec: register it and make it with gym.make")
        try:
            gym.make(copy.deepcopy(self.env.spec), disable_env_checker=True)
        except Exception as error:
            raise UncheckedError(f"env.spec does not make the env again: {error}") from None
        return self.env.spec

    @property
    def time_limit(self) -> float:
        """Steps after which a TimeLimit cuts."""
        return (self.env.spec and self.env.spec.max_episode_steps) or math.inf

    @property
    def max_steps(self) -> int:
        """Steps after which we cut: a TimeLimit's, or one more than TextGen's budget."""
        return int(min(self.time_limit, (self.facts or {}).get("max_new_tokens", MAX_STEPS - 1) + 1))

    @property
    def is_dense(self) -> bool:
        """Whether the env was made with dense=True."""
        return bool(self.spec.kwargs.get("dense", False))

    def fresh(self, **kwargs: Any) -> gym.Env[Any, Any]:
        """Another env like this one: from its spec, perhaps with other kwargs, or, without a spec, a deep copy."""
        try:
            return gym.make(copy.deepcopy(self.spec), disable_env_checker=True, **kwargs)
        except UncheckedError:
            if kwargs:
                raise
            return copy.deepcopy(self.env)

    # --------------------------------------------------------------------------------------------------- episodes

    def random_actions(self, seed: int, k: int = 0) -> Iterator[int]:
        """Uniform tokens for episode k after a seed; one in eight is the end token, where there is one."""
        rng = np.random.default_rng([seed, k])
        eos = (self.facts or {}).get("eos_id")
        while True:
            token = int(rng.integers(self.num_tokens))
            yield eos if eos is not None and rng.random() < 1 / 8 else token

    def stepping(
        self,
        env: gym.Env[Any, Any],
        actions: Iterable[Any],
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,
        write: bool = False,
    ) -> Iterator[Step]:
        """Reset, then one step an action until the end; `write` scribbles over everything that was returned."""
        returned = env.reset(seed=seed, options=options)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise TypeError(f"reset() must return (observation, info), got {spell(returned)[:200]}")
        values: tuple[Any, ...] = (returned[0], 0.0, False, False, returned[1])
        action: Any = None
        for t, following in zip(range(self.max_steps + 1), chain(actions, [None]), strict=False):
            mask = masks(env)
            observation, reward, terminated, truncated, info = values
            spelled = (spell(observation), spell([reward, terminated, truncated]), spell(info), spell(mask))
            where = f"step {t} of seed {seed}" if t else f"reset of seed {seed}"
            mask = mask.copy() if isinstance(mask, np.ndarray) else mask
            yield Step(where, action, observation, reward, terminated, truncated, info, mask, spelled)
            if write:
                scribble(observation)
                scribble(info)
            if (t and (terminated or truncated)) or following is None:
                return
            action = following
            values = env.step(action)
            if not isinstance(values, tuple) or len(values) != 5:
                raise TypeError(f"step() must return 5 values, got {spell(values)[:200]}")

    def play(self, env: gym.Env[Any, Any], actions: Iterable[Any], **kwargs: Any) -> Episode:
        """One episode of `stepping`, an exception recorded as its error."""
        episode = Episode(kwargs.get("seed"))
        try:
            for step in self.stepping(env, actions, **kwargs):
                episode.steps.append(step)
        except UncheckedError:
            raise
        except Exception as error:
            seen = f"after action {episode.steps[-1].action}" if episode.steps else "at reset"
            episode.error = f"{type(error).__name__} {seen}: {error}"
        return episode

    def run(self, env: gym.Env[Any, Any], seed: int, *, write: bool = False) -> list[Episode]:
        """Random episodes, the first seeded and the others going on from it."""
        seeds = [seed] + [None] * (self.num_episodes - 1)
        return [self.play(env, self.random_actions(seed, k), seed=s, write=write) for k, s in enumerate(seeds)]

    @cached_property
    def runs(self) -> dict[int, list[Episode]]:
        """What every clause compares with: the env's own random episodes for each of `SEEDS`."""
        return {seed: self.run(self.env, seed) for seed in SEEDS}

    @cached_property
    def episodes(self) -> list[Episode]:
        """All of `runs`, and for ours: the end token at once, the whole budget, each stop token, the demonstration."""
        episodes = [episode for run in self.runs.values() for episode in run]
        for script in (self.end_at_once, self.fill_budget, self.stop_at_once, self.demonstrate):
            # What a broken env cannot play is the business of the clause on it.
            with suppress(Exception):
                episodes += [self.play(self.env, actions, seed=seed) for seed in SEEDS for actions in script(seed)]
        return episodes

    def end_at_once(self, seed: int) -> list[list[int]]:
        """Scripts: the end token."""
        return [[self.fact("eos_id")]]

    def fill_budget(self, seed: int) -> list[list[int]]:
        """Scripts: as many tokens as the budget has, none of which ends anything."""
        ending = {self.fact("eos_id"), *self.fact("stop_ids")}
        quiet = [token for token in range(self.num_tokens) if token not in ending][:1]
        if not quiet:
            raise UncheckedError("every token ends the episode")
        return [quiet * self.fact("max_new_tokens")]

    def stop_at_once(self, seed: int) -> list[list[int]]:
        """Scripts: each stop token."""
        return [[token] for token in self.fact("stop_ids")]

    def demonstrate(self, seed: int) -> list[list[int]]:
        """Scripts: the demonstration of the problem that the seed draws, if there is one and a TimeLimit has room."""
        self.env.reset(seed=seed)
        actions = self.env.get_wrapper_attr("demonstration")()
        return [] if actions is None or len(actions) > self.time_limit else [list(actions)]

    def steps(self) -> Iterator[Step]:
        """All steps of `episodes`, resets included."""
        if not any(episode.steps for episode in self.episodes):
            raise UncheckedError("no episode could be played")
        for episode in self.episodes:
            yield from episode.steps

    def ends(self) -> Iterator[tuple[Episode, Step]]:
        """Episodes that ended by themselves, not cut by a TimeLimit, with their last step."""
        for episode in self.episodes:
            if episode.ended and (len(episode.steps) <= self.time_limit or episode.steps[-1].terminated):
                yield episode, episode.steps[-1]


# ------------------------------------------------------------------------------------------------- another process


def spec_text(spec: EnvSpec) -> str:
    """The spec as JSON."""
    try:
        return spec.to_json()
    except Exception as error:
        raise UncheckedError(f"env.spec is not JSON-able: {error}") from None


def digests(lab: Lab, env: gym.Env[Any, Any]) -> list[str]:
    """One hash of everything seen in each seed's episodes."""
    seen = [[(*[step.spelled for step in e.steps], e.error) for e in lab.run(env, seed)] for seed in SEEDS]
    return [hashlib.sha256(repr(run).encode()).hexdigest() for run in seen]


def digests_elsewhere(lab: Lab) -> list[str]:
    """The same from a fresh interpreter with another hash seed."""
    job = json.dumps([spec_text(lab.spec), lab.num_episodes])
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    hash_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environ = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-W", "ignore", "-c", "from textenvs.checks import lab; lab.answer()"]
    result = subprocess.run(command, input=job, env=environ, capture_output=True, text=True, timeout=600, check=False)
    if result.returncode:
        raise RuntimeError(f"the other process failed: {result.stderr.strip().splitlines()[-1:]}")
    answer: list[str] = json.loads(result.stdout.splitlines()[-1])
    return answer


def answer() -> None:
    """The other process: read the job, print the digests."""
    spec, num_episodes = json.loads(sys.stdin.read())
    env = gym.make(EnvSpec.from_json(spec), disable_env_checker=True)
    print(json.dumps(digests(Lab(env, num_episodes), env)))
