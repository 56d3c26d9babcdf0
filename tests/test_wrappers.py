"""Whole utterances play the episodes of the token env: same rewards, infos and texts, on every id."""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env
from tasks_for_tests import GuessingGame

import textenvs
from agents.score import score_file
from textenvs.wrappers import Utterances

GAME = "GuessingGame"
IDS = [*(entry.id for entry in textenvs.ENTRIES), GAME]


def skip_without_sandbox(test: Callable[..., None]) -> Callable[..., None]:
    """Skip, with the reason, where a reward cannot work on this machine."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            test(*args, **kwargs)
        except textenvs.RewardError as error:
            pytest.skip(f"the reward cannot work here: {error}")

    return run


def make(env_id: str, **kwargs: Any) -> gym.Env[Any, Any]:
    return gym.make("TextGen-v0", task=GuessingGame(), **kwargs) if env_id == GAME else gym.make(env_id, **kwargs)


def token_turns(env: gym.Env[Any, Any], text: str) -> list[tuple[float, bool, bool, dict[str, Any], str]]:
    """Say the text in the token env, turn after turn until the end: what each turn earns, and the text after it."""
    rules, turns = env.unwrapped.rules, []
    while True:
        total = 0.0
        for token in [*rules.vocab.encode(text), rules.vocab.eos_id]:
            observation, reward, terminated, truncated, info = env.step(int(token))
            total += reward
            if terminated or truncated:
                break
        spelled = rules.vocab.decode(observation[observation != rules.num_tokens].tolist())
        turns.append((total, terminated, truncated, info, spelled))
        if terminated or truncated:
            return turns


def some_texts(rules: textenvs.Rules, problem: textenvs.Problem, rng: np.random.Generator) -> list[str]:
    def spell(num: int) -> str:
        return rules.vocab.decode(rng.integers(rules.num_tokens, size=num).tolist()).replace("�", "")

    other = rules.task[int(rng.integers(len(rules.task)))]
    texts = ["", problem.prompt, *problem.references[:1], *other.references[:1], *(spell(n) for n in (1, 2, 5, 500))]
    return [text for text in texts if text is not None]


@pytest.mark.parametrize(("env_id", "dense"), list(itertools.product(IDS, (False, True))))
@skip_without_sandbox
def test_rewards_equal_those_of_the_token_env(env_id: str, dense: bool) -> None:
    env, whole = make(env_id, dense=dense), Utterances(make(env_id, dense=dense))
    rules, rng = env.unwrapped.rules, np.random.default_rng(0)
    num_turns = 0
    for k in range(0, len(rules.task), max(1, len(rules.task) // 3)):
        for text in some_texts(rules, rules.task[k], rng):
            env.reset(options={"problem": k})
            observation, info = whole.reset(options={"problem": k})
            assert (observation, info) == (rules.start(k).prompt, {"problem": k})
            for expected in token_turns(env, text):
                observation, *rest = whole.step(text)
                assert (*rest, observation) == expected
                assert whole.observation_space.contains(observation)
                num_turns += 1
    assert num_turns >= 10


@pytest.mark.parametrize("env_id", IDS)
@skip_without_sandbox
def test_the_demonstration_in_turns_earns_what_its_tokens_earn(env_id: str) -> None:
    env, whole = make(env_id), Utterances(make(env_id))
    rules = env.unwrapped.rules
    for k in range(0, len(rules.task), max(1, len(rules.task) // 5)):
        turns = rules.task.demonstration(rules.task[k])
        if turns is None:
            pytest.skip("nobody wrote a reference")
        env.reset(options={"problem": k})
        whole.reset(options={"problem": k})
        steps = [env.step(token) for token in env.unwrapped.demonstration()]
        said = [whole.step(turn) for turn in turns]
        assert [step[2] for step in said] == [False] * (len(turns) - 1) + [True]
        assert said[-1][1:] == steps[-1][1:]
        assert said[-1][4]["is_success"]


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
@skip_without_sandbox
def test_gymnasium_checks_it(env_id: str) -> None:
    check_env(Utterances(make(env_id).unwrapped), skip_render_check=True)


def test_a_conversation_is_one_turn_a_step() -> None:
    env = Utterances(gym.make("TextGen-v0", task=GuessingGame()))
    assert env.reset(options={"problem": 2}) == ("?", {"problem": 2})
    assert env.step("1") == ("?1<", 0.0, False, False, {})
    *_, terminated, _, info = env.step("2")
    assert terminated
    assert info["turns"] == ["1", "<", "2"]
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step("2")


def test_the_name_of_the_end_token_is_text_and_ends_nothing() -> None:
    env = Utterances(gym.make("textenvs/WordProblem-v0"))
    env.reset(options={"problem": 0})
    answer = env.unwrapped.rules.task[0].references[0]
    *_, info = env.step(f"{answer}<|endoftext|>7")
    assert info["response"].startswith(f"{answer}<|")
    assert not info["is_success"]


def test_what_does_not_fit_or_comes_after_a_stop_is_not_sent() -> None:
    env = Utterances(gym.make("textenvs/Copy-v0", stop=["h"]))
    env.reset(seed=0)
    assert env.step("abcabcabc")[4]["response"] == "abcab"
    env.reset(seed=0)
    info = env.step("ahbc")[4]
    assert (info["response"], info["finish_reason"]) == ("ah", "stop")


def as_scored(env_id: str, kwargs: dict[str, Any], problem: int, turns: list[str], path: Path) -> dict[str, Any]:
    """What `textenvs score` says of the same turns."""
    response = turns if make(env_id, **kwargs).unwrapped.rules.has_replies else turns[0]
    path.write_text(json.dumps({"problem_id": problem, "response": response}), encoding="utf-8")
    (scored,) = score_file(env_id, {key: value for key, value in kwargs.items() if key != "dense"}, path)
    return dict(scored.record)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(
    ("env_id", "kwargs", "turns", "cause"),
    [
        ("textenvs/GuessNumber-v0", {}, ["I guess 50!"], "got 'I' in 'I guess 50!'"),
        ("textenvs/GuessNumber-v0", {}, ["50", "I guess 50!"], "got 'I' in 'I guess 50!'"),
        ("textenvs/GuessNumber-v0", {"reward": lambda problem, text: -1.0}, ["50", "é"], "got 'é' in 'é'"),
        ("textenvs/PythonFunction-v0", {}, ["def double(x):\n\treturn 2 * x"], r"got '\t' in "),
        ("textenvs/PythonFunction-v0", {}, ["# it’s\ndef f(x):\n    return x"], "got '’' in"),
        ("textenvs/Copy-v0", {}, ["abé"], "got 'é' in 'abé'"),
        ("textenvs/Copy-v0", {}, ["é" * 100_000], "got 'é' in 'éééé"),
        ("textenvs/Copy-v0", {"reward": textenvs.RepetitionN(2)}, ["abé"], "got 'é' in 'abé'"),
        ("TextGen-v0", {}, ["good \ud800"], "lone surrogates, got 'good "),
        ("TextGen-v0", {"reward": textenvs.SentimentReward()}, ["\ud800"], "lone surrogates, got"),
    ],
)
def test_a_turn_that_cannot_be_spelt_ends_the_episode_as_score_judges_it(
    env_id: str, kwargs: dict[str, Any], turns: list[str], cause: str, dense: bool, tmp_path: Path
) -> None:
    env = Utterances(make(env_id, dense=dense, **kwargs))
    start, info = env.reset(options={"problem": 0})
    steps = [env.step(turn) for turn in turns]
    observation, _, terminated, truncated, info = steps[-1]
    assert (terminated, truncated) == (True, False)
    assert env.observation_space.contains(observation)
    assert observation.startswith(start)
    scored = as_scored(env_id, kwargs, 0, turns, tmp_path / "a.jsonl")
    assert math.fsum(step[1] for step in steps) == pytest.approx(scored["value"], abs=1e-12)
    for key in ("status", "finish_reason", "is_success", "cause"):
        assert info[key] == scored[key]
    assert (info["status"], scored["parts"], cause in info["cause"]) == ("model_fault", {}, True)
    assert (info["problem"], info["prompt"]) == (0, start)
    assert info["response"].endswith(turns[-1])
    assert info.get("turns", turns)[::2] == turns
    with pytest.raises(ResetNeeded):
        env.step(turns[0])
    env.reset(options={"problem": 0})
    assert env.step("")[4].get("cause") is None


def test_what_is_no_text_changes_nothing() -> None:
    env = Utterances(gym.make("TextGen-v0"))
    before, _ = env.reset(seed=0)
    with pytest.raises(InvalidAction, match="action must be a text, got 5"):
        env.step(5)  # type: ignore[arg-type]
    assert env.unwrapped.text() == before


def test_only_envs_of_this_package_are_wrapped() -> None:
    with pytest.raises(TypeError, match=r"env must be a TextGenEnv, got CartPoleEnv; wrap gym.make\(an id"):
        Utterances(gym.make("CartPole-v1"))
