"""A reward that raises costs the episodes it raises for, never their neighbours, and says why; some errors end it."""

from __future__ import annotations

import itertools
import json
import re
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from tasks_for_tests import GuessingGame

import textenvs
from agents.algorithms import Algorithm
from agents.checkpoint import latest_checkpoint
from agents.train import TrainConfig, train
from textenvs.rewards.base import RewardError
from textenvs.scoring import keep_first


def touchy(problem: Any, text: str) -> float:
    if "a" in text[:1]:
        raise KeyError("no a")
    return len(text) / 4


def at(line: str) -> str:
    """Where a line of this file is, as a cause ends."""
    return f" at {__file__}:{Path(__file__).read_text(encoding='utf-8').splitlines().index(line) + 1}"


NO_A = "KeyError: 'no a'" + at('        raise KeyError("no a")')


def quietly(make: Any, **kwargs: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(**kwargs)


def test_a_reward_that_raises_makes_a_fault_with_its_cause_and_warns_once() -> None:
    env = gym.make("textenvs/Copy-v0", reward=touchy, length=2, alphabet="abcd")
    for k in range(3):
        env.reset(seed=k)
        env.step(0)
        if k:
            *_, reward, terminated, truncated, info = env.step(5)
        else:
            with pytest.warns(UserWarning, match=re.escape(f"reward touchy failed: {NO_A}; the episode is an infra_f")):
                *_, reward, terminated, truncated, info = env.step(5)
        assert (reward, terminated, truncated) == (0.0, False, True)
        assert (info["status"], info["finish_reason"], info["cause"]) == ("infra_fault", "fault", NO_A)
        assert "touchy" not in info  # a part of what was not judged
    env.reset(seed=0)
    env.step(1)
    *_, reward, terminated, truncated, info = env.step(5)
    assert (reward, terminated, truncated, info["touchy"]) == (0.25, True, False, 0.25)
    assert "cause" not in info


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("dense", [False, True])
def test_a_batch_with_faults_is_its_scalar_envs(mode: AutoresetMode, dense: bool) -> None:
    kwargs: dict[str, Any] = {"length": 3, "alphabet": "abc", "reward": touchy, "dense": dense}
    batch = gym.make_vec("textenvs/Copy-v0", num_envs=8, autoreset_mode=mode, **kwargs)
    scalars = SyncVectorEnv([lambda: gym.make("textenvs/Copy-v0", **kwargs)] * 8, autoreset_mode=mode)
    rng, num_faults = np.random.default_rng(0), 0
    pairs = [(batch.reset(seed=5), scalars.reset(seed=5))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(40):
            actions = rng.integers(batch.single_action_space.n, size=8)
            pairs.append((batch.step(actions), scalars.step(actions)))
            ended = pairs[-1][0][2] | pairs[-1][0][3]
            num_faults += int(pairs[-1][0][3].sum())
            if mode is AutoresetMode.DISABLED and ended.any():
                pairs.append(tuple(envs.reset(options={"reset_mask": ended}) for envs in (batch, scalars)))
    for ours, theirs in pairs:
        for a, b in zip(ours[:-1], theirs[:-1], strict=True):
            np.testing.assert_array_equal(a, b)
        same(ours[-1], theirs[-1])
    assert num_faults > 10


class Fates(textenvs.Reward):
    """The first letter of a response is its fate: `a` breaks the scorer, `b` is the response's own fault."""

    name = "fates"

    def __call__(self, problems: Any, responses: textenvs.Responses) -> textenvs.Scores:
        fates = {"a": ("infra_fault", "died"), "b": ("model_fault", "bad")}
        status, causes = zip(*(fates.get(text[:1], ("ok", "")) for text in responses.texts), strict=True)
        return textenvs.Scores(np.zeros(len(status)), status=status, causes=causes)


def test_the_cause_of_a_model_fault_stays_with_its_row() -> None:
    rules = textenvs.Rules("copy", length=1, alphabet="abc", split="all", reward=Fates())
    responses = textenvs.Responses(np.array([[1], [0], [2]]), np.ones(3, dtype=np.int64), ["eos"] * 3, rules.vocab)
    scores = quietly(rules.judge, problems=[rules.task[0]] * 3, responses=responses)
    assert scores.causes == ("bad", "died", "")
    envs = gym.make_vec("textenvs/Copy-v0", num_envs=4, length=1, alphabet="abc", split="all", reward=Fates())
    envs.reset(seed=0)
    envs.step(np.array([1, 0, 2, 0]))
    infos = quietly(envs.step, actions=np.full(4, 4))[-1]
    assert infos["status"].tolist() == ["model_fault", "infra_fault", "ok", "infra_fault"]
    assert infos["cause"].tolist() == [None, "died", None, "died"]


class Bad(Fates):
    """The response's fault, whatever it is."""

    def __call__(self, problems: Any, responses: textenvs.Responses) -> textenvs.Scores:
        num = len(responses)
        return textenvs.Scores(np.zeros(num), status=("model_fault",) * num, causes=("worse",) * num)


def test_of_two_causes_the_worse_statuss_counts() -> None:
    rules = textenvs.Rules("copy", length=1, alphabet="abc", split="all", reward=Bad() + Fates())
    responses = textenvs.Responses(np.array([[1], [0], [2]]), np.ones(3, dtype=np.int64), ["eos"] * 3, rules.vocab)
    scores = quietly(rules.judge, problems=[rules.task[0]] * 3, responses=responses)
    assert scores.causes == ("worse", "died", "worse")


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        if isinstance(value, dict):
            same(value, theirs[key])
        else:
            for a, b in zip(value, theirs[key], strict=True):
                np.testing.assert_array_equal(a, b)


def test_only_the_rows_that_raise_are_lost() -> None:
    rules = textenvs.Rules("copy", length=4, alphabet="ab", reward=touchy)
    rows = np.full((3, rules.width), rules.num_tokens)
    for row, ids in zip(rows, ([1], [0, 1], [1, 0, 1]), strict=True):
        row[rules.max_prompt_tokens :][: len(ids)] = ids
    ends = rules.max_prompt_tokens + np.array([1, 2, 3])
    scores, _ = quietly(rules.score, problems=[rules.task[0]] * 3, rows=rows, ends=ends, reasons=["length"] * 3)
    assert scores.values.tolist() == [0.25, 0.0, 0.75]
    assert scores.status == ("ok", "infra_fault", "ok")
    assert scores.causes == ("", NO_A, "")


def misread(problem: Any, text: str) -> float:
    return float(json.loads("{" + text))


def test_the_cause_names_the_users_line_not_the_librarys() -> None:
    rules = textenvs.Rules(SmallCopy(), reward=misread)
    row = np.full((1, rules.width), rules.num_tokens)
    scores, _ = quietly(rules.score, problems=[rules.task[0]], rows=row, ends=np.array([1]), reasons=["length"])
    assert scores.causes[0].startswith("JSONDecodeError: ")
    assert scores.causes[0].endswith(at('    return float(json.loads("{" + text))'))


def test_a_reward_of_ours_that_raises_has_no_place_of_the_users() -> None:
    rules = textenvs.Rules(SmallCopy(), reward="edit_similarity")
    without = [textenvs.Problem("a")]  # a reference, which `require` refuses before any episode
    row = np.full((1, rules.width), rules.num_tokens)
    scores, _ = quietly(rules.score, problems=without, rows=row, ends=np.array([1]), reasons=["length"])
    assert scores.status == ("infra_fault",)
    assert " at " not in scores.causes[0]


@pytest.mark.parametrize("error", [RewardError("no sandbox; install it"), ImportError('pip install "textenvs[x]"')])
def test_what_the_author_must_mend_ends_the_run(error: Exception) -> None:
    def broken(problem: Any, text: str) -> float:
        raise error

    env = gym.make("textenvs/Copy-v0", reward=broken)
    env.reset(seed=0)
    with pytest.raises(type(error), match="install"):
        env.step(9)


def test_a_task_that_replies_says_what_the_turns_were() -> None:
    game = GuessingGame()
    env, batch = gym.make("TextGen-v0", task=game), gym.make_vec("TextGen-v0", task=game, num_envs=2)
    env.reset(options={"problem": 2})
    batch.reset(options={"problem": 2})
    for token in (1, 8, 2, 8):
        *_, info = env.step(token)
        *_, infos = batch.step(np.array([token, token]))
    assert info["turns"] == ["1", "<", "2"] == infos["turns"][1]
    assert info["response"] == "1<2"


def test_a_problem_that_cannot_be_scored_is_refused_when_the_env_is_made(tmp_path: Any) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "good day", "references": ["x"]}\n{"prompt": "bad day"}\n')
    with pytest.raises(ValueError, match=r"problem 1: .*'bad day' must have a reference .* got none; give references"):
        gym.make("TextGen-v0", prompts=str(path), reward="exact_match")

    class Pool(GuessingGame):
        def __getitem__(self, k: int) -> textenvs.Problem:
            return textenvs.Problem("?")

    with pytest.raises(ValueError, match=r"problem 0: .* must have a reference"):
        gym.make("TextGen-v0", task=Pool())


def test_a_prompt_of_the_tasks_own_finds_its_references() -> None:
    env = gym.make("TextGen-v0", task=GuessingGame())
    env.reset(options={"prompt": "??"})
    assert env.unwrapped.demonstration() == [0, 8]
    with pytest.raises(ValueError, match=r"options\['prompt'\]: .*'\?\?\?' must have a reference"):
        env.reset(options={"prompt": "???"})


def run(run_dir: Path, share: float, *, num_episodes: int) -> None:
    """Train where the reward fails for the first share of every 100 scores."""
    number = itertools.count()

    def failing(problem: Any, text: str) -> float:
        if next(number) % 100 < 100 * share:
            raise ConnectionError("the judge is gone")
        return 0.0

    config = TrainConfig(
        "TextGen-v0",
        {"task": SmallCopy(), "reward": failing},
        Algorithm(episodes_per_update=25, num_epochs=1, num_minibatches=1),
        model_kwargs={"hidden_size": 8, "num_heads": 1},
        num_episodes=num_episodes,
        num_envs=1,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(config, run_dir, quiet=True)


class SmallCopy(textenvs.Task):
    reward = "exact_match"
    max_prompt_tokens, max_new_tokens = 1, 2

    def __init__(self) -> None:
        self.vocab = textenvs.CharVocab("ab")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, k: int) -> textenvs.Problem:
        return textenvs.Problem("ab"[k], ("ab"[k],))


def test_training_stops_with_the_cause_when_scoring_fails_too_often(tmp_path: Path) -> None:
    run(tmp_path / "two", 0.02, num_episodes=100)
    state = json.loads((latest_checkpoint(tmp_path / "two" / "checkpoints") / "state.json").read_text())
    assert state["faults"] == 2, "a resumed run goes on counting"
    why = r"for at most 2% of the episodes, but failed for 6 of 125, such as the response '.*': ConnectionError: the"
    with pytest.raises(RuntimeError, match=why):
        run(tmp_path / "three", 0.03, num_episodes=200)  # 3 of 25 are too few to judge, the next updates have none


def test_training_stops_when_scoring_fails_for_all_of_an_update(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"failed for all 25 episodes of an update, .*is gone at .*; mend the"):
        run(tmp_path / "all", 1.0, num_episodes=50)


def test_a_reward_may_use_its_scores_again() -> None:
    """Which of them are faulty is remembered, and not beyond the call."""

    class Reused(textenvs.Reward):
        name = "reused"

        def __init__(self) -> None:
            self.scores = textenvs.Scores(np.zeros(1), status=["ok"])

        def __call__(self, problems: Any, responses: textenvs.Responses) -> textenvs.Scores:
            assert len(self.scores.faulty) == 1  # of what they were
            fault = responses.texts == ["a"]
            self.scores.status[0] = "infra_fault" if fault else "ok"  # type: ignore[index]
            self.scores.values[0] = np.nan if fault else 1.0
            return self.scores

    env: Any = gym.make("textenvs/Copy-v0", length=1, alphabet="ab", split="all", reward=Reused()).unwrapped
    words = []
    for text in ("a", "b", "a"):
        env.reset(seed=0)
        env.step(env.rules.vocab.encode(text)[0])
        words.append(env.step(env.rules.vocab.eos_id)[4]["status"])
    assert words == ["infra_fault", "ok", "infra_fault"]


def test_slots_behind_the_first_are_minus_one() -> None:
    rng = np.random.default_rng(0)
    for num_slots in (1, 7, 300):
        slots, lengths = rng.integers(0, 99, (50, num_slots)), rng.integers(0, num_slots + 1, 50)
        lengths[:2] = 0, num_slots
        expected = [
            [*row[:n], *[-1] * (num_slots - n)] for row, n in zip(slots.tolist(), lengths.tolist(), strict=True)
        ]
        before = slots.copy()
        kept = keep_first(lengths, slots)
        assert kept.tolist() == expected
        kept[:] = 5
        assert keep_first(lengths, slots).tolist() == expected
        assert np.array_equal(slots, before)
