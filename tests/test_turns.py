"""Games of many turns: transcripts written by hand, replies to any text, what is hidden, and demonstrations."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks_for_tests import GuessingGame

import textenvs
from agents.policy import OraclePolicy
from agents.responses import as_rollout, demonstrations
from agents.rollout import collect
from textenvs.anchors import play_turns
from textenvs.tasks.slot_filling import SLOTS


class Searching(GuessingGame):
    """Shown by trying the digits in turn, as the replies ask for."""

    def demonstration(self, problem: textenvs.Problem) -> Sequence[str]:
        return [str(digit) for digit in range(int(problem.references[0]) + 1)][-2:]


def test_a_demonstration_of_several_turns_is_played_and_laid_out_with_its_replies() -> None:
    rules = textenvs.Rules(Searching())
    assert rules.demonstration(rules.task[2]) == [1, 8, 2, 8]
    envs = gym.make_vec("TextGen-v0", num_envs=3, task=rules.task, autoreset_mode="Disabled")
    played = collect(envs, OraclePolicy(envs), num_episodes=8, seed=0)
    assert {info["response"] for info in played.infos} <= {"0", "0<1", "1<2", "2<3"}
    assert len({info["response"] for info in played.infos}) > 2
    laid_out = as_rollout(demonstrations(rules, 8), has_masks=True)
    two = laid_out.observations[2, 3:]
    assert two.tolist() == [1, 8, 5, 2, 8, 9, 9, 9, 9], "the reply stands between the turns"
    assert laid_out.positions[2, :4].tolist() == [3, 4, 6, 7]
    assert np.array_equal(laid_out.mask[2], [True] * 4)


def test_the_board_plays_the_demonstration_where_the_task_replies() -> None:
    class Wrong(Searching):
        def demonstration(self, problem: textenvs.Problem) -> Sequence[str]:
            return ["3", "3"]

    assert textenvs.board(textenvs.Rules(Searching()))["reference"].mean_return < 1  # exact match of the whole text
    assert textenvs.board(textenvs.Rules(Wrong()))["reference"].mean_return == 0.25


# ------------------------------------------------------------------------------------------------- what all games share

GAMES = {
    "guess_number": "textenvs/GuessNumber-v0",
    "slot_filling": "textenvs/SlotFilling-v0",
    "twenty_questions": "textenvs/TwentyQuestions-v0",
    "wordle": "textenvs/Wordle-v0",
}
TASKS = [textenvs.make_task(name) for name in GAMES]
#: Turns that nobody should write.
HOSTILE = [
    *(
        "",
        "9" * 100_000,
        "-1",
        "1e3",
        "0x10",
        "٣",
        "²",
        "\ud800",
        "\x00\x1b[2J",
        "\u202e12",
        "１２",
        " 12",
        "1\n",
        "1_0",
    ),
    *("?" * 50_000, "!" * 50_000, "! " * 50_000, "<>" * 10_000, "?from", "!a b c d", "?\ud800", "!\x00"),
]


def play(env: Any, turns: Sequence[str], **options: Any) -> tuple[list[str], float, dict[str, Any]]:
    """The replies to the turns, the last reward and the last info."""
    env.reset(options=options)
    rules, total = env.rules, 0.0
    for turn in turns:
        for token in [*rules.vocab.encode(turn).tolist(), rules.vocab.eos_id]:
            _, reward, terminated, _, info = env.step(token)
            total += reward
    assert terminated
    return info["turns"][1::2], total, info


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_the_demonstration_scores_one_within_the_masks(name: str, split: str) -> None:
    env: Any = gym.make(GAMES[name], split=split).unwrapped
    for k in range(0, len(env.rules.task), max(1, len(env.rules.task) // 60)):
        env.reset(options={"problem": k})
        script = env.demonstration()
        for i, token in enumerate(script):
            assert env.action_masks()[token]
            _, reward, terminated, _, info = env.step(token)
            assert terminated == (i == len(script) - 1)
        assert (reward, info["is_success"], info["finish_reason"]) == (1.0, True, "eos")


@pytest.mark.parametrize("name", GAMES)
def test_splits_are_disjoint(name: str) -> None:
    tasks = {split: textenvs.make_task(name, split=split) for split in ("train", "heldout")}
    seen = {split: [(task[k].prompt, task[k].references) for k in range(len(task))] for split, task in tasks.items()}
    both = seen["train"] + seen["heldout"]
    assert len(set(both)) == len(both) == len(textenvs.make_task(name, split="all"))
    assert len(seen["train"]) >= 300
    assert len(seen["heldout"]) >= 60
    if name != "wordle":
        assert not {prompt for prompt, _ in seen["train"]} & {prompt for prompt, _ in seen["heldout"]}


@pytest.mark.parametrize("name", GAMES)
def test_nothing_hidden_is_shown(name: str) -> None:
    """Problems with one prompt look alike until a reply tells them apart: observations, masks, infos."""
    env: Any = gym.make(GAMES[name]).unwrapped
    task = env.rules.task
    prompt = task[0].prompt
    twins = [k for k in range(len(task)) if task[k].prompt == prompt][:6]
    assert len(twins) >= 3
    first_turn = env.rules.demonstration(task[0])
    first_turn = first_turn[: first_turn.index(env.rules.vocab.eos_id)]
    views = []
    for k in twins:
        observation, info = env.reset(options={"problem": k})
        view = [observation.tolist(), env.action_masks().tolist()]
        for token in first_turn:
            observation, reward, terminated, _, info = env.step(token)
            view += [observation.tolist(), env.action_masks().tolist(), reward, terminated, dict(info)]
        views.append(view)
    assert all(view == views[0] for view in views)
    assert env.reset(options={"problem": twins[0]})[1] == {"problem": twins[0]}


@pytest.mark.parametrize("name", GAMES)
def test_a_turn_that_the_budget_cut_is_no_answer(name: str) -> None:
    """Found by the board: padded guesses left room for just the right one at the end of the budget."""
    env: Any = gym.make(GAMES[name]).unwrapped
    task = env.rules.task
    answer = task.vocab.encode(task[0].references[0]).tolist()
    junk = task.vocab.encode("-").tolist()
    num = task.max_new_tokens - len(answer) - 1
    num -= len(task.vocab.encode(task.reply(task[0], ["-" * num])))
    for ending, score in ([], 0.0), ([task.vocab.eos_id], 1.0):
        env.reset(options={"problem": 0})
        for token in [*junk * (num - len(ending)), task.vocab.eos_id, *answer, *ending]:
            _, reward, terminated, _, info = env.step(token)
        assert (terminated, info["turns"][-1]) == (True, task[0].references[0])
        assert (reward == 0.0) == (score == 0.0)


@pytest.mark.parametrize("name", GAMES)
def test_replies_to_any_text(name: str) -> None:
    task = textenvs.make_task(name)
    problem, started = task[0], time.perf_counter()
    for turn in HOSTILE:
        reply = task.reply(problem, [turn])
        assert reply is None or len(task.vocab.encode(reply)) > 0
        task.reply(problem, [turn, "?"] * 50 + [turn])
    assert time.perf_counter() - started < 1


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.text(), min_size=1, max_size=5), k=st.integers(0, 500))
def test_replies_to_any_turns(texts: list[str], k: int) -> None:
    for task in TASKS:
        turns = list(itertools.chain(*((text, "?") for text in texts)))[:-1]
        problem = task[k % len(task)]
        reply = task.reply(problem, turns)
        assert reply == task.reply(problem, turns)
        assert reply is None or len(task.vocab.encode(reply)) > 0


@pytest.mark.parametrize("name", GAMES)
def test_random_games_end_and_seldom_pay(name: str) -> None:
    """Legal random play of many games at once, and play against the masks: the same spread of scores in [0, 1]."""
    envs = gym.make_vec(GAMES[name], num_envs=100, autoreset_mode="SameStep")
    task = envs.unwrapped.rules.task
    envs.reset(seed=0)
    rng, returns = np.random.default_rng(0), []
    while len(returns) < 300:
        masks = envs.unwrapped.action_masks() if len(returns) < 150 else np.ones((100, task.vocab.num_tokens), bool)
        draws = np.where(masks, rng.random(masks.shape), -1.0)
        _, rewards, terminated, _, _ = envs.step(draws.argmax(1))
        returns += rewards[terminated].tolist()
    assert 0 <= min(returns) <= max(returns) <= 1
    assert np.mean(returns) <= 0.2


@pytest.mark.parametrize("name", GAMES)
def test_a_prompt_hides_the_same_every_time(name: str) -> None:
    task = textenvs.make_task(name)
    prompt = task[3].prompt
    assert task.problem(prompt) == textenvs.make_task(name, split="heldout").problem(prompt)
    with pytest.raises(ValueError, match="prompt must be"):
        task.problem("nothing of this kind")


# --------------------------------------------------------------------------------------------------------- GuessNumber


@pytest.mark.parametrize(
    ("turns", "replies", "score"),
    [
        (["100", "150", "125", "137"], [">", "<", ">"], 1.0),
        (["137"], [], 1.0),
        (["200", "1"] * 3 + ["136", "137"], ["<", ">"] * 3 + [">"], 1.0),
        (["200", "1"] * 3 + ["136", "138", "137"], ["<", ">"] * 3 + [">", "<"], 1 - 1 / 5),
        (["200"] * 11 + ["137"], ["<"] * 11, 1 - 4 / 5),
        (["200"] * 12, ["<"] * 11, 0.0),
        (["1"] * 12, [">"] * 11, 0.0),
        (["007", "137"], ["?"], 1.0),
        (["", "0137", "137=", "137<137", "-137", "137"], ["?"] * 5, 1.0),
        (["999", "0", "137"], ["<", ">"], 1.0),
    ],
)
def test_number_games_by_hand(turns: list[str], replies: list[str], score: float) -> None:
    env: Any = gym.make("textenvs/GuessNumber-v0", max_number=209, split="all", masked=False).unwrapped
    task = env.rules.task
    number = next(k for k in range(len(task)) if (task[k].prompt, task[k].references) == ("1-200=", ("137",)))
    seen, reward, info = play(env, turns, problem=number)
    assert (seen, reward, info["guesses"]) == (replies, pytest.approx(score), pytest.approx(score))
    assert info["num_turns"] == len(turns)
    assert info["is_success"] == (score == 1)


def test_halving_is_what_comparisons_need() -> None:
    """The least worst case over all strategies, by trying every first guess of every size."""
    need = [0]
    for size in range(1, 130):
        need.append(1 + min(max(need[i], need[size - 1 - i]) for i in range(size)))
    for size in (2, 3, 4, 7, 8, 15, 16, 100, 127, 128):
        task = textenvs.make_task("guess_number", size=size, max_number=1000)
        assert task.par == need[size]
        turns = [len(task.demonstration(task.hide(task.prompt(5), number))) for number in range(size)]
        assert max(turns) == task.par


def test_number_games_earn_at_random_what_enumeration_says() -> None:
    """All 8^5 token sequences of two guesses at one of two numbers, over a vocabulary of eight."""
    task = textenvs.make_task("guess_number", size=2, max_number=2, max_guesses=2, masked=False, split="all")
    task.vocab = textenvs.CharVocab("12-=<>?")
    rules = textenvs.Rules(task)
    assert rules.max_new_tokens == 5
    sequences = [np.array(ids) for ids in itertools.product(range(8), repeat=5)]
    played = play_turns(rules, [task.hide("1-2=", 1)] * len(sequences), sequences)
    assert played.mean_return == pytest.approx(task.random_return(), rel=1e-12)


def test_what_random_guesses_earn_in_a_very_long_game_is_not_summed_up() -> None:
    assert textenvs.make_task("guess_number", max_guesses=20).random_return() is not None
    assert textenvs.make_task("guess_number", size=2, max_number=10**6, max_guesses=100).random_return() is None


def test_number_masks() -> None:
    env: Any = gym.make("textenvs/GuessNumber-v0").unwrapped
    env.reset(seed=0)
    digits, end = list(range(10)), env.rules.vocab.eos_id
    steps = [(1, [*digits, end]), (0, [*digits, end]), (0, [end]), (end, digits), (5, [*digits, end]), (end, digits)]
    for token, legal in [*steps, (0, [end]), (end, digits)]:
        env.step(token)
        assert np.flatnonzero(env.action_masks()).tolist() == legal
    env.step(env.rules.vocab.token_id("<"))
    assert np.flatnonzero(env.action_masks()).tolist() == digits


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 1}, "size must be an int in"),
        ({"max_number": 100}, "max_number must be an int in"),
        ({"max_guesses": 7}, r"max_guesses must be an int in \[8, 100\]"),
        ({"max_number": 205}, "split must be 'all'"),
        ({"masked": None}, "masked must be True or False"),
    ],
)
def test_settings_that_make_no_number_game(settings: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        textenvs.make_task("guess_number", **settings)


# --------------------------------------------------------------------------------------------------------- SlotFilling

TRIP = "from=oslo to=? day=? at=9:"


@pytest.mark.parametrize(
    ("turns", "replies", "score"),
    [
        (["?to", "?day", "!oslo rome fri 9"], ["rome", "fri"], 1.0),
        (["?day", "?to", "!oslo rome fri 9"], ["fri", "rome"], 1.0),
        (["!oslo rome fri 9"], [], 1.0),
        (["?to", "!oslo rome mon 9"], ["rome"], 0.5),
        (["?to", "?day", "!oslo nice sun 9"], ["rome", "fri"], 0.0),
        (["?to", "?day", "!lima rome fri 9"], ["rome", "fri"], 0.0),
        (["?from", "?to", "?day", "!oslo rome fri 9"], ["oslo", "rome", "fri"], 0.9),
        (["?to", "?to", "?day", "!oslo rome fri 9"], ["rome", "rome", "fri"], 0.9),
        (["", "to", "?", "?when", "!rome", "?to", "?day", "!oslo rome fri 9"], ["-"] * 5 + ["rome", "fri"], 0.5),
        (["?day", "!oslo rome fri 9 "], ["fri", "-"], None),
        (["!" * 4, "! ! ! ", "!oslo rome fri 9"], ["-"], None),
        (["! rome fri 9"], [], 0.0),
        (["?to"] * 10, ["rome"] * 9, 0.0),
        ([""] * 10, ["-"] * 9, 0.0),
    ],
)
def test_trips_by_hand(turns: list[str], replies: list[str], score: float | None) -> None:
    env: Any = gym.make("textenvs/SlotFilling-v0", split="all", masked=False).unwrapped
    task = env.rules.task
    problem = next(
        task.hide(TRIP, i)
        for i in range(task.num_hidden(TRIP))
        if task.hide(TRIP, i).references[0].endswith("rome fri 9")
    )
    env.rules.task.hide = lambda prompt, number: problem
    if score is None:  # goes on: a record has exactly four values
        assert [task.reply(problem, [turn]) for turn in turns[: len(replies)]] == replies
        return
    seen, reward, info = play(env, turns, prompt=TRIP)
    assert (seen, reward, info["slots"]) == (replies, pytest.approx(score), pytest.approx(score))
    assert info["is_success"] == (score == 1)


def test_trip_masks_allow_questions_and_records() -> None:
    """Legal random play writes nothing else, and every question and record is legal."""
    env: Any = gym.make("textenvs/SlotFilling-v0").unwrapped
    task, rng, seen = env.rules.task, np.random.default_rng(0), set()
    for seed in range(40):
        env.reset(seed=seed)
        terminated = False
        while not terminated:
            token = int(rng.choice(np.flatnonzero(env.action_masks())))
            _, _, terminated, _, info = env.step(token)
        for turn in info["turns"][0:-1:2] + info["turns"][-1:] * (info["finish_reason"] == "eos"):
            seen.add(turn[:1])
            if turn[0] == "?":
                assert turn[1:] in SLOTS
            else:
                assert all(word in words for word, words in zip(turn[1:].split(" "), SLOTS.values(), strict=True))
        for reply in info["turns"][1:-1:2]:
            assert reply in task.vocab.decode(range(task.vocab.num_tokens)) or reply.isalnum()
    assert seen == {"?", "!"}
    env.reset(seed=0)
    env.step(task.vocab.token_id("="))
    assert np.flatnonzero(env.action_masks()).tolist() == [task.vocab.eos_id]


def test_every_trip_comes_once() -> None:
    task = textenvs.make_task("slot_filling", num_missing=1, split="all")
    prompts = [task.prompt(number) for number in range(task._num_prompts)]
    assert len(set(prompts)) == len(prompts) == 12 * 12 * 7 + 12 * 12 * 24 + 2 * 12 * 7 * 24
    hidden = [task.hide(prompts[0], number).references[0] for number in range(task.num_hidden(prompts[0]))]
    assert len(set(hidden)) == len(hidden)


@pytest.mark.parametrize(
    "prompt",
    [
        "from=oslo to=? day=? at=9",
        "from=oslo to=? day=fri at=9:",
        "from=rome to=? day=? at=9:",
        "to=? day=? at=9:",
        ":",
        "",
    ],
)
def test_prompts_that_are_no_trip(prompt: str) -> None:
    with pytest.raises(ValueError, match="prompt must be such as"):
        textenvs.make_task("slot_filling").problem(prompt)
