"""Clauses of TextGen's own envs on what surrounds the rows: masks, info, options, spec, rendering."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from textenvs.checks.lab import SEEDS, Clause, Lab, UncheckedError, clause, masks, spec_text
from textenvs.checks.recording import Episode, difference, spell
from textenvs.checks.textgen import MASK_KEYS

CLAUSES: list[Clause] = []
STATUSES = ("ok", "model_fault", "infra_fault")
FINAL_INFO = {"problem": int, "prompt": str, "response": str, "finish_reason": str, "is_success": bool, "status": str}
BAD_OPTIONS: tuple[dict[str, Any], ...] = (
    {"problm": 1},
    {"problem": -1},
    {"problem": 10**9},
    {"problem": 0.5},
    {"problem": True},
    {"prompt": 3},
    {"prompt": ""},
    {"prompt": "x", "problem": 0},
)


@clause(CLAUSES, "return a read-only or a fresh array")
def mask_owned(lab: Lab) -> Iterator[str]:
    """action_masks() cannot be changed from outside, and is all True where has_masks is False."""
    for seed in SEEDS[:2]:
        for step in lab.stepping(lab.env, lab.random_actions(seed), seed=seed):
            mask = masks(lab.env)
            if not lab.fact("has_masks") and not mask.all():
                yield f"{int((~mask).sum())} False at {step.where} although has_masks is False"
            if mask.flags.writeable:
                mask[:] = ~mask
                shared = spell(masks(lab.env)) != step.spelled[3]
                mask[:] = ~mask
                if shared:
                    yield f"writing into the mask of {step.where} changed the env's"


@clause(CLAUSES, "put action_masks() of the state after the step into the observation, as int8")
def mask_in_observation(lab: Lab) -> Iterator[str]:
    """The mask in a Dict observation is action_masks() of the same moment."""
    for step in lab.steps():
        if isinstance(step.observation, dict):
            seen = [step.observation[key] for key in MASK_KEYS if key in step.observation]
            if len(seen) != 1 or spell(seen[0]) != spell(np.asarray(step.mask).astype(np.int8)):
                yield f"{seen} beside {step.mask} at {step.where}"


@clause(CLAUSES, "append it; the score says that it is wrong")
def masked_token_accepted(lab: Lab) -> Iterator[str]:
    """A token that the mask forbids is appended and raises nothing."""
    if not lab.fact("has_masks"):
        return
    for episode in lab.episodes:
        for t, step in enumerate(episode.steps[:-1]):
            if episode.seed is None or step.mask.all():
                continue
            token = int(np.flatnonzero(~step.mask)[0])
            other = lab.play(lab.env, [*episode.actions[:t], token], seed=episode.seed)
            if other.error or len(other.steps) != t + 2:
                yield f"token {token} after {step.where}: {other.error or 'the episode was over'}"
            return
    raise UncheckedError("no token was ever masked")


# -------------------------------------------------------------------------------------------------------------- info


@clause(CLAUSES, "return the info that TextGenEnv documents")
def info_keys(lab: Lab) -> Iterator[str]:
    """Info has `problem` at reset, and at the end problem, prompt, response, finish_reason, is_success, status."""
    for episode in lab.episodes:
        if episode.steps and type(episode.steps[0].info.get("problem")) is not int:
            yield f"{episode.steps[0].info} at {episode.steps[0].where}"
        for step in episode.steps[1:]:
            if not (step.terminated or step.truncated) and set(step.info) & {"response", "finish_reason"}:
                yield f"{step.info} at {step.where}, before the end"
    for episode, last in lab.ends():
        for key, kind in FINAL_INFO.items():
            if type(last.info.get(key)) is not kind:
                yield f"{key} = {last.info.get(key)!r} at {last.where}"
        if last.info["problem"] != episode.steps[0].info["problem"] or last.info["status"] not in STATUSES:
            yield f"{last.info} after {episode.steps[0].info} at {last.where}"


@clause(CLAUSES, "keep arrays in the observation and behind action_masks()")
def info_small(lab: Lab) -> Iterator[str]:
    """Info holds nothing as long as the vocabulary but text."""
    for step in lab.steps():
        for key, value in step.info.items():
            is_array = isinstance(value, (np.ndarray, list, tuple, dict, set))
            is_text = isinstance(value, list) and all(isinstance(item, str) for item in value)
            if is_array and not is_text and np.size(list(value)) >= lab.num_tokens:
                yield f"{key} with {np.size(list(value))} entries at {step.where}"


@clause(CLAUSES, "take the reference out of info")
def info_hides_reference(lab: Lab) -> Iterator[str]:
    """Info never holds the reference."""
    for seed in SEEDS:
        for script in lab.demonstrate(seed):
            # A stop token may have cut the demonstration; the clause on it sees to that.
            solved = lab.play(lab.env, script, seed=seed).steps[-1].info.get("response", "")
            for step in lab.play(lab.env, lab.end_at_once(seed)[0], seed=seed).steps:
                for key, value in step.info.items():
                    if key != "prompt" and _holds(value, solved, script):
                        yield f"{key} = {str(value)[:100]} at {step.where} holds {solved!r}"


def _holds(value: Any, text: str, token_ids: list[int]) -> bool:
    """Whether a value of info holds the reference; a text of one or two characters must be all of it."""
    if isinstance(value, str):
        return bool(text) and (text == value or (len(text) > 2 and text in value))
    if isinstance(value, dict):
        return any(_holds(item, text, token_ids) for item in value.values())
    if isinstance(value, (list, tuple, np.ndarray)):
        ids = token_ids[:-1]
        return (bool(ids) and list(value)[: len(ids)] == ids) or any(_holds(v, text, token_ids) for v in value)
    return False


@clause(CLAUSES, "say what ended the episode: the last token, or the budget")
def finish_reason(lab: Lab) -> Iterator[str]:
    """finish_reason is what the last token says: `eos`, `stop`, `length` on any other, `fault` on an infra_fault."""
    names = {lab.fact("eos_id"): "eos", **dict.fromkeys(lab.fact("stop_ids"), "stop")}
    replies = any(s.action in names and not (s.terminated or s.truncated) for s in lab.steps())
    for _, last in lab.ends():
        expected = {names.get(last.action, "length")}
        if last.info.get("status") == "infra_fault":
            expected = {"fault"}
        elif replies:  # one that does not fit ends the episode too
            expected.add("length")
        if last.info.get("finish_reason") not in expected:
            yield f"{last.info.get('finish_reason')!r} after token {last.action} at {last.where}"


@clause(CLAUSES, "compare the score with one threshold")
def is_success(lab: Lab) -> Iterator[str]:
    """Every success has a higher return than every failure."""
    totals: dict[bool, list[float]] = {True: [], False: []}
    for episode, last in lab.ends():
        if last.info.get("status") in ("ok", "model_fault"):
            totals[bool(last.info["is_success"])].append(episode.total)
    for success, returns in totals.items():
        if not returns:
            raise UncheckedError(f"no episode had is_success {success}")
    if min(totals[True]) <= max(totals[False]):
        yield f"a success with {min(totals[True])}, a failure with {max(totals[False])}"


# -------------------------------------------------------------------------------------- demonstration, options, spec


@clause(CLAUSES, "check that the first reference scores at or above the threshold, and that T has room for it")
def demonstration(lab: Lab) -> Iterator[str]:
    """A demonstration is None, or token ids that end the episode at the last one, succeed and pay the same twice."""
    for seed in SEEDS:
        for script in lab.demonstrate(seed):
            if not all(type(token) is int and 0 <= token < lab.num_tokens for token in script):
                yield f"{script} for seed {seed}"
            one, two = (lab.play(lab.env, script, seed=seed) for _ in range(2))
            if one.total != two.total:
                yield f"{script}, seed {seed}, pays {one.total} and {two.total}"
            no_room = len(script) == lab.fact("max_new_tokens") and lab.fact("eos_id") not in script
            if no_room or set(script) & set(lab.fact("stop_ids")):
                continue  # the settings cut it short
            if not one.ended or len(one.steps) != len(script) + 1 or not one.steps[-1].info.get("is_success"):
                yield f"{script}, seed {seed}: {one.error or one.steps[-1].info}"


@clause(CLAUSES, "let options={'problem': k} start problem k, whatever the seed")
def problem_option(lab: Lab) -> Iterator[str]:
    """reset(options={"problem": k}) starts what the number k started before."""
    for episode in lab.episodes:
        start = episode.steps[0]
        other = lab.play(lab.env, [], options={"problem": start.info["problem"]})
        if seen := difference([Episode(None, [start])], [other]):
            yield seen


@clause(CLAUSES, "let options={'prompt': text} start from that text, as problem -1")
def prompt_option(lab: Lab) -> Iterator[str]:
    """reset(options={"prompt": text}) starts from the text's tokens, as problem -1."""
    for episode, last in lab.ends():
        other = lab.play(lab.env, [], options={"prompt": last.info["prompt"]})
        start = other.steps[0] if other.steps else None
        if start is None or (start.spelled[0], start.info.get("problem")) != (episode.steps[0].spelled[0], -1):
            yield f"{start and start.observation} {other.error} for the prompt {last.info['prompt']!r}"


@clause(CLAUSES, "raise ValueError or TypeError before anything is changed")
def bad_options_refused(lab: Lab) -> Iterator[str]:
    """Options that are unknown, of a wrong type or out of range raise, and the running episode goes on."""
    for options in BAD_OPTIONS:
        lab.env.reset(seed=SEEDS[0])
        expected = lab.runs[SEEDS[0]][0]
        for step in expected.steps[1:]:
            with suppress(ValueError, TypeError):
                lab.env.reset(options=options)
                yield f"reset(options={options}) raised nothing"
            observation, reward, terminated, truncated, info = lab.env.step(step.action)
            if (spell(observation), spell([reward, terminated, truncated]), spell(info)) != step.spelled[:3]:
                yield f"a refused reset(options={options}) changed {step.where}: {info}"


@clause(CLAUSES, "use names and plain values as kwargs, and a string as entry point")
def spec_json(lab: Lab) -> Iterator[str]:
    """The spec survives JSON, and what is made from it plays the same episodes."""
    text = spec_text(lab.spec)
    env = gym.make(EnvSpec.from_json(text), disable_env_checker=True)
    if seen := difference(lab.runs[SEEDS[0]], lab.run(env, SEEDS[0])):
        yield seen


@clause(CLAUSES, "escape control characters with textenvs.vocab.printable")
def render_ansi(lab: Lab) -> Iterator[str]:
    """render() in "ansi" mode is one printable line at every step, and rendering changes nothing."""
    env = lab.fresh(render_mode="ansi")
    for expected in lab.episodes:
        episode = Episode(expected.seed)
        if expected.seed is None or expected.error:
            continue
        for step in lab.stepping(env, expected.actions, seed=expected.seed):
            episode.steps.append(step)
            text = env.render()
            if not isinstance(text, str) or not text.isprintable():
                yield f"{text!r} at {step.where}"
        if seen := difference([expected], [episode]):
            yield seen
