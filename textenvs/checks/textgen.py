"""Clauses of TextGen's own envs, with `metadata["textgen"]`, on the decision process: rows, rewards, ends, actions.

See `textenvs.env.TextGenEnv` for what they mean; `surroundings` holds the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import Error, ResetNeeded
from numpy.typing import NDArray

from textenvs.checks.lab import SEEDS, Clause, Lab, UncheckedError, clause
from textenvs.checks.recording import difference, spell

CLAUSES: list[Clause] = []
#: key -> whether its value holds for V tokens.
METADATA: dict[str, Callable[[Any, int], bool]] = {
    "num_tokens": lambda value, n: value == n,
    "bos_id": lambda value, n: value is None or 0 <= value < n,
    "eos_id": lambda value, n: 0 <= value < n,
    "stop_ids": lambda value, n: isinstance(value, tuple) and all(0 <= token < n for token in value),
    "vocab_sha256": lambda value, n: len(bytes.fromhex(value)) == 32,
    "has_masks": lambda value, n: isinstance(value, bool),
    "max_prompt_tokens": lambda value, n: value >= 1,
    "max_new_tokens": lambda value, n: value >= 1,
}
BAD_ACTIONS = (-1, 0.0, 1.5, math.nan, True, None, "0", np.float32(1), np.array([0]), [0])
MASK_KEYS = ("action_mask", "mask")


# ------------------------------------------------------------------------------------------ metadata and observation


@clause(CLAUSES, "take it from Rules.metadata")
def metadata(lab: Lab) -> Iterator[str]:
    """metadata["textgen"] is complete, in range, and says what the spaces say."""
    facts = lab.facts or {}
    if set(facts) != set(METADATA):
        yield f"keys {sorted(facts)} instead of {sorted(METADATA)}"
    for key, holds in METADATA.items():
        if not holds(facts[key], lab.num_tokens):
            yield f"{key} = {facts[key]!r} with {lab.env.action_space}"
    if facts["eos_id"] in facts["stop_ids"]:
        yield f"the end token {facts['eos_id']} among the stop_ids {facts['stop_ids']}"


@clause(CLAUSES, 'Box(0, V, (P + T,), int64), or Box(0, 1, ((P + T) * (V + 1),), float32) for "onehot"')
def observation_space(lab: Lab) -> Iterator[str]:
    """The observation space has P + T slots of V + 1 values, or is a Dict of that and the mask."""
    width, top = lab.fact("max_prompt_tokens") + lab.fact("max_new_tokens"), lab.num_tokens
    space = lab.env.observation_space
    if isinstance(space, gym.spaces.Dict):
        inner = dict(space.spaces)
        mask = [inner.pop(key) for key in MASK_KEYS if key in inner]
        if mask != [gym.spaces.Box(0, 1, (top,), np.int8)] or len(inner) != 1:
            yield f"{space}"
        space = next(iter(inner.values()))
    tokens = gym.spaces.Box(0, top, (width,), np.int64)
    onehot = gym.spaces.Box(0, 1, (width * (top + 1),), np.float32)
    if space not in (tokens, onehot):
        yield f"{space} instead of {tokens} or {onehot}"


def _row(lab: Lab, observation: Any) -> NDArray[np.int64]:
    """The row (P + T,) that an observation shows."""
    if isinstance(observation, dict):
        observation = next(value for key, value in observation.items() if key not in MASK_KEYS)
    width, size = lab.fact("max_prompt_tokens") + lab.fact("max_new_tokens"), lab.num_tokens + 1
    row = np.asarray(observation)
    if row.shape == (width * size,):
        row = row.reshape(width, size)
        if not (np.isin(row, (0, 1)).all() and (row.sum(axis=1) == 1).all()):
            raise ValueError("a slot of the one-hot observation does not hold exactly one 1")
        row = row.argmax(axis=1)
    if row.shape != (width,):
        raise ValueError(f"an observation of shape {row.shape} has not {width} slots")
    return row.astype(np.int64)


@clause(CLAUSES, "right-align the prompt in the first P slots and fill the others with V")
def prompt_right_aligned(lab: Lab) -> Iterator[str]:
    """At reset slots P - L to P hold the prompt's L >= 1 tokens, and every other slot holds V."""
    limit = lab.fact("max_prompt_tokens")
    for step in lab.steps():
        if step.action is None:
            row = _row(lab, step.observation)
            start = int((row[:limit] == lab.num_tokens).sum())
            used = (row >= 0) & (row < lab.num_tokens)
            if start == limit or not used[start:limit].all() or (row[:start] != lab.num_tokens).any():
                yield f"prompt slots {row[:limit]} at {step.where}"
            if (row[limit:] != lab.num_tokens).any():
                yield f"response slots {row[limit:]} at {step.where}"


@clause(CLAUSES, "write the action into the first unused slot and change no other but those of a reply")
def token_appended(lab: Lab) -> Iterator[str]:
    """A step puts its token into the first unused slot, a reply right after it, and changes nothing else."""
    limit, unused = lab.fact("max_prompt_tokens"), lab.num_tokens
    for episode in lab.episodes:
        end, before = limit, None
        for step in episode.steps:
            row = _row(lab, step.observation)
            if before is not None:
                expected = before.copy()
                expected[end] = step.action
                end += 1
                if num_replied := int((row[end:] != unused).sum()):
                    if step.action not in (lab.fact("eos_id"), *lab.fact("stop_ids")):
                        yield f"tokens nobody chose: {row[limit:]} at {step.where}"
                    expected[end : end + num_replied] = row[end : end + num_replied]
                    end += num_replied
                if not np.array_equal(row, expected):
                    yield f"{row} instead of {expected} at {step.where}"
            before = row


# ------------------------------------------------------------------------------------------------- reward and the end


@clause(CLAUSES, "return float(score)")
def reward_float(lab: Lab) -> Iterator[str]:
    """Every reward is exactly a Python float."""
    for step in lab.steps():
        if type(step.reward) is not float:
            yield f"{type(step.reward).__name__} {step.reward!r} at {step.where}"


@clause(CLAUSES, "pay the score at the end only, or make the env with dense=True")
def paid_at_the_end(lab: Lab) -> Iterator[str]:
    """Without dense=True the reward is 0 until the end."""
    if not lab.is_dense:
        for step in lab.steps():
            if step.reward != 0 and not (step.terminated or step.truncated):
                yield f"reward {step.reward!r} at {step.where}"


@clause(CLAUSES, "pay differences between successive scores that start from 0")
def dense_same_return(lab: Lab) -> Iterator[str]:
    """Dense and sparse rewards sum to the same return, in the same episodes."""
    twin = lab.fresh(dense=not lab.is_dense)
    for episode in [run[0] for run in lab.runs.values()] + lab.episodes[len(SEEDS) * lab.num_episodes :]:
        if not episode.error and episode.steps[-1].info.get("status") in ("ok", "model_fault"):
            other = lab.play(twin, episode.actions, seed=episode.seed)
            if abs(other.total - episode.total) > 1e-9:
                sparse, dense = (other, episode) if lab.is_dense else (episode, other)
                yield f"sparse {sparse.total} and dense {dense.total} for {episode.actions}, {episode.steps[0].where}"


def _ends(lab: Lab, scripts: list[list[int]], reason: str, *, seed: int, env: Any = None) -> Iterator[str]:
    """Play scripts whose last action must end the episode for that reason, or be answered by a reply."""
    for script in scripts:
        episode = lab.play(env or lab.env, script, seed=seed)
        last = episode.steps[-1]
        row = _row(lab, last.observation)
        replied = int((row[lab.fact("max_prompt_tokens") :] != lab.num_tokens).sum()) > len(script)
        if episode.error or len(episode.steps) != len(script) + 1:
            yield f"the episode stopped at {last.where} of {script} {episode.error}"
        elif not episode.ended and not (replied and reason != "length"):
            yield f"no end after {script}, seed {seed}"
        elif episode.ended and not replied and last.info.get("finish_reason") not in (reason, "fault"):
            yield f"finish_reason {last.info.get('finish_reason')!r} after {script}, seed {seed}"


@clause(CLAUSES, "end the episode, or let the task reply, at the end token")
def end_token_ends(lab: Lab) -> Iterator[str]:
    """The end token ends the episode as `eos`, unless the task replies."""
    for seed in SEEDS:
        yield from _ends(lab, lab.end_at_once(seed), "eos", seed=seed)


@clause(CLAUSES, "treat each of stop= as the end token")
def stop_tokens_end(lab: Lab) -> Iterator[str]:
    """Each stop token ends the episode as `stop`, unless the task replies; stop=[token] makes it one."""
    for seed in SEEDS[:2]:
        yield from _ends(lab, lab.stop_at_once(seed), "stop", seed=seed)
    token = lab.fill_budget(0)[0][0]
    env = lab.fresh(stop=[token])
    if env.metadata["textgen"]["stop_ids"] != (token,):
        yield f"stop_ids {env.metadata['textgen']['stop_ids']} of an env made with stop=[{token}]"
    if lab.fact("max_new_tokens") > 1:
        yield from _ends(lab, [[token]], "stop", seed=0, env=env)


@clause(CLAUSES, "end at the T-th token, neither earlier nor later")
def budget_ends(lab: Lab) -> Iterator[str]:
    """The T-th token ends the episode as `length`, and no token before it that is not an end or stop token."""
    if lab.max_steps < lab.fact("max_new_tokens"):
        raise UncheckedError("a TimeLimit cuts the episode before the budget")
    for seed in SEEDS:
        yield from _ends(lab, lab.fill_budget(seed), "length", seed=seed)


@clause(CLAUSES, "terminated=True at every end of the episode's own; truncated only for infra_fault, reward 0")
def ends_terminate(lab: Lab) -> Iterator[str]:
    """An end is terminated and not truncated, the budget's too, except when the scorer's machinery failed."""
    for episode, last in lab.ends():
        fault = last.info.get("status") == "infra_fault"
        cut = last.truncated and len(episode.steps) > lab.time_limit
        if last.terminated == fault or last.truncated not in (fault, cut):
            yield f"terminated={last.terminated}, truncated={last.truncated} at {last.where}, {last.info}"
        if fault and last.reward != 0:
            yield f"reward {last.reward} with an infra_fault at {last.where}"


@clause(CLAUSES, "raise gymnasium.error.ResetNeeded once the episode has ended")
def step_after_end_refused(lab: Lab) -> Iterator[str]:
    """Step after the end raises ResetNeeded, each time."""
    for episode, _ in list(lab.ends())[:: lab.num_episodes]:
        if episode.seed is not None:
            lab.play(lab.env, episode.actions, seed=episode.seed)
            for action in (0, lab.fact("eos_id")):
                with suppress(ResetNeeded):
                    yield f"step({action}) after the end returned {str(lab.env.step(action))[:200]}"


# ---------------------------------------------------------------------------------------------------------- actions


@clause(CLAUSES, "raise gymnasium.error.InvalidAction before anything is changed")
def bad_actions_refused(lab: Lab) -> Iterator[str]:
    """Actions out of range or of a wrong type raise a Gymnasium error and change nothing."""
    for seed in SEEDS[:2]:
        expected = lab.runs[seed][0]
        lab.env.reset(seed=seed)
        for step in expected.steps[1:]:
            for action in (*BAD_ACTIONS, lab.num_tokens, 2**40):
                with suppress(Error):
                    yield f"step({action!r}) returned {str(lab.env.step(action))[:200]}"
            observation, *scalars, _ = lab.env.step(step.action)
            if (spell(observation), spell(scalars)) != step.spelled[:2]:
                yield f"refused actions changed what {step.where} returns"


@clause(CLAUSES, "accept numpy integers and 0-d integer arrays as they come from policies")
def numpy_actions(lab: Lab) -> Iterator[str]:
    """NumPy integers of any width do what Python ints do."""
    for kind in (np.int64, np.int32, lambda action: np.array(action)):
        for seed in SEEDS[:2]:
            expected = lab.runs[seed][0]
            if seen := difference([expected], [lab.play(lab.env, map(kind, expected.actions), seed=seed)]):
                yield seen
