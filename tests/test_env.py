"""The scalar env: golden transcripts, options, refusals."""

from __future__ import annotations

import json
import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from tasks_for_tests import Flaky, GuessingGame, SpelledOut

import textenvs
from textenvs.env import TextGenEnv
from textenvs.vector_env import TextGenVectorEnv


def play(env: gym.Env[Any, Any], actions: list[int], **reset: Any) -> list[Any]:
    """Rewards, flags and the last info of an episode."""
    observation, info = env.reset(**reset)
    steps: list[Any] = [(observation.tolist(), info)]
    for action in actions:
        observation, *rest = env.step(action)
        steps.append((observation.tolist(), *rest))
    return steps


def test_golden_transcript() -> None:
    """Prompt right-aligned, tokens from slot P on, V in unused slots, reward and info only at the end."""
    env = gym.make("textenvs/Reverse-v0", length=3, alphabet="abc", max_prompt_tokens=5)
    end = {
        "problem": -1,
        "prompt": "abc=",
        "response": "cab",
        "finish_reason": "eos",
        "is_success": False,
        "status": "ok",
        "position_match": 1 / 3,
    }
    assert play(env, [2, 0, 1, 4], options={"prompt": "abc="}) == [
        ([5, 0, 1, 2, 3, 5, 5, 5, 5], {"problem": -1}),
        ([5, 0, 1, 2, 3, 2, 5, 5, 5], 0.0, False, False, {}),
        ([5, 0, 1, 2, 3, 2, 0, 5, 5], 0.0, False, False, {}),
        ([5, 0, 1, 2, 3, 2, 0, 1, 5], 0.0, False, False, {}),
        ([5, 0, 1, 2, 3, 2, 0, 1, 4], 1 / 3, True, False, end),
    ]


def test_golden_transcript_of_two_turns() -> None:
    """A finished turn is answered; the reply's tokens take budget; a reply that does not fit ends with `length`."""
    env = gym.make("TextGen-v0", task=GuessingGame())
    steps = play(env, [1, 8, 3, 8], options={"problem": 3})  # the digit is 3
    assert steps[2][:4] == ([9, 9, 4, 1, 8, 5, 9, 9, 9, 9, 9, 9], 0.0, False, False)  # 1 <eos> and the reply "<"
    assert steps[-1][1:4] == (0.0, True, False)  # exact match wants "3", the response is "1<3"
    assert steps[-1][4]["response"] == "1<3"
    right = play(env, [3, 8], options={"problem": 3})[-1]
    assert (right[1], right[2], right[4]["response"], right[4]["finish_reason"]) == (1.0, True, "3", "eos")
    full = play(env, [1, 8, 1, 8, 1], options={"problem": 0})[-1]  # two replies of two tokens fill the budget
    assert (full[2], full[3], full[4]["response"], full[4]["finish_reason"]) == (True, False, "1>!1>!1", "length")
    unanswered = play(env, [1, 1, 1, 1, 8, 1, 8], options={"problem": 0})[-1]  # the second reply does not fit
    assert (unanswered[4]["response"], unanswered[4]["finish_reason"]) == ("1111>!1", "length")


def test_rewards_see_turns() -> None:
    """`Responses.turns` alternates agent and reply; token ids keep what was chosen."""
    seen: list[Any] = []

    class Watch(textenvs.Reward):
        name = "watch"

        def __call__(self, problems: Any, responses: textenvs.Responses) -> textenvs.Scores:
            seen.append(responses.turns)
            return textenvs.Scores(np.ones(len(responses)))

    play(gym.make("TextGen-v0", task=GuessingGame(), reward=Watch()), [1, 8, 2, 8, 3, 8], options={"problem": 3})
    assert seen == [[["1", "<", "2", "<", "3"]]]


def test_dense_rewards_sum_to_the_score_and_start_from_zero() -> None:
    sparse, dense = gym.make("textenvs/Copy-v0"), gym.make("textenvs/Copy-v0", dense=True)
    actions = [0, 1, 5, 3, 9]
    prompt = {"prompt": "abcd="}
    assert [step[1] for step in play(dense, actions, options=prompt)[1:]] == [0.25, 0.25, 0.0, 0.25, 0.0]
    assert play(sparse, actions, options=prompt)[-1][1] == 0.75


def test_a_stop_token_stays_in_the_response_and_the_end_token_does_not() -> None:
    env = gym.make("textenvs/Length-v0", stop=["c"])
    assert play(env, [0, 2], options={"prompt": "aa="})[-1][4]["response"] == "ac"
    assert play(env, [0, 2], options={"prompt": "aa="})[-1][4]["finish_reason"] == "stop"
    assert env.unwrapped.metadata["textgen"]["stop_ids"] == (2,)


def test_a_scorer_that_fails_truncates_with_reward_zero() -> None:
    env = gym.make("textenvs/Copy-v0", reward=Flaky(), alphabet="ab")
    _, reward, terminated, truncated, info = play(env, [1, 3], seed=0)[-1]
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert (info["status"], info["finish_reason"], info["is_success"]) == ("infra_fault", "fault", False)


def test_the_last_token_of_the_budget_terminates() -> None:
    env = gym.make("textenvs/Copy-v0", max_new_tokens=2)
    steps = play(env, [0, 0], options={"prompt": "aaaa="})
    assert steps[-1][1:4] == (0.5, True, False)
    assert steps[-1][4]["finish_reason"] == "length"
    assert env.unwrapped.demonstration() == [0, 0]


@pytest.mark.parametrize("action", [10, -1, 1.0, None, "a", True, np.array([1]), np.float64(1)])
def test_bad_actions_are_refused_and_change_nothing(action: Any) -> None:
    env = gym.make("textenvs/Copy-v0").unwrapped
    env.reset(seed=0)
    with pytest.raises(InvalidAction, match=r"\[0, 10\)"):
        env.step(action)
    twin = gym.make("textenvs/Copy-v0").unwrapped
    twin.reset(seed=0)
    np.testing.assert_array_equal(env.step(np.int64(3))[0], twin.step(np.array(3))[0])


def test_step_needs_a_running_episode() -> None:
    env = gym.make("textenvs/Copy-v0").unwrapped
    for call in (lambda: env.step(0), env.demonstration):
        with pytest.raises(ResetNeeded, match="reset"):
            call()
    env.reset(seed=0)
    env.step(9)
    with pytest.raises(ResetNeeded, match="reset"):
        env.step(0)


def test_info_never_holds_the_reference() -> None:
    env = gym.make("textenvs/Sort-v0")
    for step in play(env, [0, 9], options={"prompt": "hgfe="}):
        assert "efgh" not in json.dumps(step[-1])


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"observation": "text"}, "'tokens' or 'onehot', got 'text'"),
        ({"mask_keys": "sb3"}, "pettingzoo, rllib, tianshou, got 'sb3'"),
        ({"max_new_tokens": 0}, "max_new_tokens must be an int of at least 1, got 0"),
        ({"max_prompt_tokens": 2.5}, "max_prompt_tokens must be an int of at least 1, got 2.5"),
        ({"max_new_tokens": 10**9}, "max_prompt_tokens and max_new_tokens must be at most 1,048,576 together, got"),
        ({"max_prompt_tokens": 10**30}, "max_prompt_tokens and max_new_tokens must be at most 1,048,576 together, got"),
        ({"task": "revers"}, "did you mean 'reverse'"),
        ({"reward": "exactmatch"}, "did you mean 'exact_match'"),
        ({"stop": ["ab"]}, "single token"),
        ({"stop": [99]}, r"\[0, 10\), got 99"),
        ({"split": "test"}, "train, heldout, all, got 'test'"),
        ({"length": 0}, r"length must be an int in \[1, 1000\], got 0"),
        ({"alphabet": "aab"}, "distinct characters"),
        ({"length": 1, "alphabet": "ab"}, "fewer than 10 problems"),
        ({"length": 5000}, "got 5000"),
        ({"mask_keys": ["rllib"]}, "mask_keys must be"),
        ({"stop": [True]}, "got True"),
    ],
)
def test_bad_arguments_name_the_value_and_the_remedy(kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TextGenEnv(**{"task": "copy", **kwargs})


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"task": "copy", "lenght": 3}, "did you mean 'length'"),
        ({"task": "copy", "max_tokens": 3}, "did you mean 'max_new_tokens'"),
        ({"task": GuessingGame(), "length": 3}, "length must be given to the Task itself"),
        ({"task": GuessingGame(), "dens": True}, "'dens' is not a setting of the env .*; did you mean 'dense'"),
        ({"task": GuessingGame(), "length": 3, "max_tokens": 3}, "did you mean 'max_new_tokens'"),
        ({"task": textenvs.make_task("brackets"), "masked": True}, "masked must be given to the Task itself"),
        ({"task": 3}, "a name, a Task or a class of one, got 3"),
        ({"task": textenvs.CharVocab}, "a Task or a class of one"),
        ({"task": GuessingGame, "length": 3}, "'length' is not a setting of task 'GuessingGame'"),
        ({"task": SpelledOut, "splt": "all"}, "did you mean 'split'"),
        ({"task": "copy", "reward": 3}, "a name, a function or a Reward"),
        ({"task": "copy", "reward": textenvs.ExactMatch}, "pass an instance"),
        ({"task": "copy", "vocab": 3}, "a path or a Vocab"),
        ({"task": "copy", "render_mode": "rgb_array"}, "there are no pixels"),
        ({"task": "copy", "stop": "ab"}, "stop must be a list"),
        ({"task": "copy", "dense": "false"}, "dense must be True or False"),
        ({"prompts": 5}, "prompts must be a list"),
        ({"task": "copy", "prompts": ["a"]}, "'prompts' is not a setting of task 'copy'"),
    ],
)
def test_arguments_of_the_wrong_type(kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        TextGenEnv(**kwargs)


def test_a_class_of_a_task_gets_the_settings() -> None:
    """As a name does: a class of one's own is all that an id needs for its splits."""
    assert TextGenEnv(task=GuessingGame).rules.num_problems == 8
    for split, size in (("train", 3), ("heldout", 2)):
        env = TextGenEnv(task=SpelledOut, split=split, dense=True)
        assert (env.rules.num_problems, env.rules.dense) == (size, True)
    envs = TextGenVectorEnv(2, task=SpelledOut, split="heldout")
    assert envs.rules.task[0].prompt == "4"


@pytest.mark.filterwarnings("ignore:.*render_mode='pixels'.*")
@pytest.mark.parametrize("mode", [5, True, [1], "pixels"])
def test_what_is_no_render_mode(mode: Any) -> None:
    words = re.escape(f"got {mode!r}")
    with pytest.raises(ValueError, match="render_mode must be None.* 'ansi'.* 'human', " + words):
        gym.make("textenvs/Copy-v0", render_mode=mode)
    with pytest.raises(ValueError, match="render_mode must be None.* 'ansi'.* 'human', " + words):
        TextGenEnv(task="copy", render_mode=mode)
    with pytest.raises(ValueError, match="render_mode must be None in a batch, " + words):
        gym.make_vec("textenvs/Copy-v0", num_envs=2, render_mode=mode)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"problem": 99999}, ValueError, r"\[0, 3277\), got 99999"),
        ({"problem": -1}, ValueError, "got -1"),
        ({"prompt": "abcdefg="}, ValueError, "1 to 5 tokens, got 8"),
        ({"prompt": ""}, ValueError, "and then '='"),
        ({"prompt": "xyz="}, ValueError, "abcdefgh"),
        ({"prompt": 3}, TypeError, "must be a string"),
        ({"prompts": "a="}, ValueError, "'prompts'"),
    ],
)
def test_bad_reset_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    env = gym.make("textenvs/Copy-v0").unwrapped
    with pytest.raises(error, match=words):
        env.reset(options=options)


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (np.array([np.nan]), ValueError, "finite, got nan.*'abcd='.*infra_fault"),
        (np.array([1.0, 2.0]), ValueError, r"1 numbers, one a response, got shape \(2,\)"),
        (np.array(["1"]), ValueError, "numbers"),
        (np.array([np.inf]), ValueError, "finite, got inf"),
        (None, ValueError, "1 numbers, one a response, got shape"),
        ([[1], [2, 3]], ValueError, r"reward broken must return numbers, one a response, got \[\[1\], \[2, 3\]\]: "),
    ],
)
def test_a_reward_that_breaks_its_promise_is_named(value: Any, error: type[Exception], words: str) -> None:
    class Broken(textenvs.Reward):
        name = "broken"

        def __call__(self, problems: Any, responses: Any) -> textenvs.Scores:
            return textenvs.Scores(value)

    env = gym.make("textenvs/Copy-v0", reward=Broken())
    env.reset(options={"prompt": "abcd="})
    with pytest.raises(error, match=words):
        env.step(9)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"_hidden": np.zeros(1)}, "must not name a part '_hidden'"),
        ({"status": np.zeros(1)}, "must not name a part 'status'"),
        ({"pair": np.zeros(2)}, "'pair' 1 finite values"),
        ({"nothing": np.array([np.nan])}, "'nothing' 1 finite values"),
        ({"word": ["good"]}, "reward broken must give its part 'word' numbers, one a response, got .'good'."),
        ({5: np.zeros(1)}, "must not name a part 5"),
        ([np.zeros(1)], "reward broken must give parts as a mapping of columns, got"),
    ],
)
def test_parts_are_checked_too(parts: Any, words: str) -> None:
    class Broken(textenvs.Reward):
        name = "broken"

        def __call__(self, problems: Any, responses: Any) -> textenvs.Scores:
            return textenvs.Scores(np.zeros(1), parts)

    env = gym.make("textenvs/Copy-v0", reward=Broken())
    env.reset(options={"prompt": "abcd="})
    with pytest.raises((ValueError, TypeError), match=words):
        env.step(9)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"status": "ok"}, "reward broken must give status as a list of texts, got 'ok'; leave it out"),
        ({"status": None}, "reward broken must give status as a list of texts, got None"),
        ({"status": [["ok"]]}, "must give each response a status of ok, model_fault, infra_fault"),
        ({"causes": None}, "reward broken must give causes as a list of texts, got None"),
    ],
)
def test_statuses_are_checked_too(kwargs: Any, words: str) -> None:
    class Broken(textenvs.Reward):
        name = "broken"

        def __call__(self, problems: Any, responses: Any) -> textenvs.Scores:
            return textenvs.Scores(np.zeros(1), {}, **kwargs)

    env = gym.make("textenvs/Copy-v0", reward=Broken())
    env.reset(options={"prompt": "abcd="})
    with pytest.raises((ValueError, TypeError), match=words):
        env.step(9)


def test_turns_are_spelt_by_a_tokenizer_as_by_characters() -> None:
    """The end token closes the last turn without being one of its tokens: a tokenizer has nothing to decode there."""
    seen: list[Any] = []

    class Echo(textenvs.Task):
        reward, max_new_tokens, max_prompt_tokens = "exact_match", 12, 4

        def __init__(self) -> None:
            self.vocab = textenvs.make_task("continuation").vocab

        def __len__(self) -> int:
            return 1

        def __getitem__(self, k: int) -> textenvs.Problem:
            return textenvs.Problem("The food")

        def reply(self, problem: textenvs.Problem, turns: Any) -> str | None:
            return " was good" if len(turns) == 1 else None

    def watch(problem: textenvs.Problem, text: str) -> float:
        return 1.0

    class Watch(textenvs.FunctionReward):
        def __call__(self, problems: Any, responses: textenvs.Responses) -> textenvs.Scores:
            seen.append(responses.turns)
            return super().__call__(problems, responses)

    task = Echo()
    eos, yes = task.vocab.eos_id, task.vocab.encode(" yes").tolist()
    play(gym.make("TextGen-v0", task=task, reward=Watch(watch)), [*yes, eos, *yes, eos], seed=0)
    assert seen == [[[" yes", " was good", " yes"]]]


def test_an_empty_task_is_named() -> None:
    class Empty(GuessingGame):
        def __len__(self) -> int:
            return 0

    with pytest.raises(ValueError, match="at least one problem, got none in Empty"):
        TextGenEnv(task=Empty())


def test_a_function_that_returns_no_number_is_named() -> None:
    forgetful = gym.make("textenvs/Copy-v0", reward=lambda problem, text: None)
    with pytest.raises(TypeError, match="must return a number, got NoneType None"):
        play(forgetful, [9], options={"prompt": "abcd="})
    env = gym.make("textenvs/Copy-v0", reward=lambda problem, text: "good")
    env.reset(options={"prompt": "abcd="})
    with pytest.raises(TypeError, match="must return a number, got str 'good' for the response 'a'"):
        play(env, [0, 9], options={"prompt": "abcd="})


def test_render() -> None:
    env = gym.make("textenvs/Copy-v0", render_mode="ansi")
    env.reset(options={"prompt": "abcd="})
    assert env.render() == "abcd= >  (0/5)"
    env.step(0)
    env.step(9)
    assert env.render() == "abcd= > a (2/5) [eos, score 0.250]"


def test_human_mode_prints_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    play(gym.make("textenvs/Copy-v0", render_mode="human"), [0], options={"prompt": "ab="})
    assert capsys.readouterr().out.splitlines() == ["ab= >  (0/5)", "ab= > a (1/5)"]


def test_a_masked_token_is_appended() -> None:
    env = gym.make("TextGen-v0", task=GuessingGame())
    env.reset(options={"problem": 0})
    masks = env.unwrapped.action_masks()
    assert masks.dtype == bool
    assert masks.tolist() == [True] * 4 + [False] * 5
    assert env.step(7)[0].tolist()[3] == 7


def test_specs_are_json() -> None:
    for entry in textenvs.ENTRIES:
        spec = gym.spec(entry.id)
        assert type(spec).from_json(spec.to_json()) == spec


def test_every_split_has_the_same_spaces() -> None:
    for env_id in ("TextGen-v0", "textenvs/Sort-v0"):
        spaces = [gym.make(env_id, split=split).observation_space for split in ("train", "heldout", "all")]
        assert spaces[0] == spaces[1] == spaces[2]
