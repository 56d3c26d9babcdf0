"""Twenty questions and Wordle: transcripts written by hand, par by another program, masks by trying everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import textenvs
from textenvs.tasks.twenty_questions import PROPERTIES, TABLE, best_question
from textenvs.tasks.wordle import WORDS, _replies, feedback


def play(env: Any, turns: Sequence[str], number: int) -> tuple[list[str], float, dict[str, Any]]:
    """The replies to the turns, the return and the last info."""
    env.reset(options={"problem": number})
    total, terminated = 0.0, False
    for turn in turns:
        for token in [*env.rules.vocab.encode(turn).tolist(), env.rules.vocab.eos_id]:
            assert not terminated
            _, reward, terminated, _, info = env.step(token)
            total += reward
    assert terminated
    return info["turns"][1::2], total, info


def legal_turns(env: Any, number: int, num_turns: int) -> list[str]:
    """The ended turns of an episode of random legal tokens."""
    rng = np.random.default_rng(number)
    env.reset(options={"problem": number})
    turns, turn, terminated = [], "", False
    while not terminated and len(turns) < num_turns:
        token = int(rng.choice(np.flatnonzero(env.action_masks())))
        _, _, terminated, _, _ = env.step(token)
        if token == env.rules.vocab.eos_id:
            turns.append(turn)
            turn = ""
        else:
            turn += env.rules.vocab.decode([token])
    return turns


def spelled(task: Any, number: int) -> set[str]:
    """Every first turn that the masks allow."""
    turns, starts = set(), [""]
    while starts:
        start = starts.pop()
        for token in np.flatnonzero(task.legal(task[number], task.vocab.encode(start).tolist())):
            if token == task.vocab.eos_id:
                turns.add(start)
            else:
                starts.append(start + task.vocab.tokens[token])
    return turns


# ----------------------------------------------------------------------------------------------------- TwentyQuestions


def test_no_two_things_are_alike_and_every_property_tells_some_apart() -> None:
    assert len(set(TABLE.values())) == len(TABLE) == 48
    assert len(PROPERTIES) == 32
    counts = Counter(name for properties in TABLE.values() for name in properties)
    assert all(2 <= counts[name] < 40 for name in PROPERTIES)


def test_what_follows_from_one_answer_is_no_contradiction_of_another() -> None:
    """The table against what everybody knows of the questions, not of the things."""
    follows = {
        "insect": "animal",
        "feathers": "animal",
        "fur": "animal",
        "pet": "animal",
        "fruit": "eat",
        "baked": "eat",
    }
    follows |= {"blade": "metal", "engine": "heavy", "plug": "made", "toy": "made", "worn": "made", "wheels": "made"}
    exclusive = [
        "metal wood paper cloth animal eat drink",
        "made roots animal fruit",
        "feathers fur insect wheels plug",
    ]
    for thing, properties in TABLE.items():
        assert all(follows.get(name, name) in properties for name in properties), thing
        assert all(len(properties & set(names.split())) <= 1 for names in exclusive), thing
    assert {thing for thing in TABLE if "eat" in TABLE[thing]} == {"apple", "banana", "bread", "pizza"}


@pytest.mark.parametrize(
    ("turns", "replies", "score"),
    [
        (["?animal", "?heavy", "!dog"], ["y", "n"], 1.0),
        (["!dog"], [], 1.0),
        (["!fox"], [], 0.0),
        (["!"], [], 0.0),
        (["! dog"], [], 0.0),
        (["?flies", "", "dog", "?", "?barks", "?dog", "!dog"], ["n"] + ["-"] * 5, 1.0),
        (["?flies"] * 7 + ["!dog"], ["n"] * 7, 1 - 1 / 14),
        (["?pet"] * 19 + ["!dog"], ["y"] * 19, 1 - 13 / 14),
        (["?pet"] * 20, ["y"] * 19, 0.0),
    ],
)
def test_questions_by_hand(turns: list[str], replies: list[str], score: float) -> None:
    env: Any = gym.make("textenvs/TwentyQuestions-v0", masked=False).unwrapped
    task = env.rules.task
    number = next(k for k in range(len(task)) if (task[k].references, task[k].metadata["par"]) == (("!dog",), 7))
    seen, reward, info = play(env, turns, number)
    assert (seen, reward, info["num_turns"]) == (replies, pytest.approx(score), len(turns))
    assert info["is_success"] == (score == 1)


def test_par_is_the_longest_of_the_splitting_players_episodes() -> None:
    task = textenvs.make_task("twenty_questions")
    for k in range(0, len(task), 2000):
        prompt = task[k].prompt
        episodes = [task.demonstration(task.hide(prompt, number)) for number in range(24)]
        assert max(map(len, episodes)) == task[k].metadata["par"]
        assert all(turns[-1] == "!" + thing for turns, thing in zip(episodes, prompt[:-1].split(" "), strict=True))
    assert best_question(["dog", "fox", "bus", "book"]) == "animal"
    assert best_question(["dog", "fox"]) == "pet"


def test_question_masks_allow_questions_and_listed_names() -> None:
    env: Any = gym.make("textenvs/TwentyQuestions-v0").unwrapped
    for number in (0, 5000):
        listed = env.rules.task[number].prompt[:-1].split(" ")
        expected = {"?" + name for name in PROPERTIES} | {"!" + thing for thing in listed}
        assert spelled(env.rules.task, number) == expected
        assert set(legal_turns(env, number, 3)) <= expected
    env.reset(seed=0)
    env.step(env.rules.vocab.token_id(":"))
    assert np.flatnonzero(env.action_masks()).tolist() == [env.rules.vocab.eos_id]


@pytest.mark.parametrize("prompt", ["dog fox", "dog:", "dog dog:", "dog  fox:", "dog unicorn:", ":", ""])
def test_prompts_that_list_no_things(prompt: str) -> None:
    with pytest.raises(ValueError, match="prompt must be at least two different things"):
        textenvs.make_task("twenty_questions").problem(prompt)


# -------------------------------------------------------------------------------------------------------------- Wordle


@pytest.mark.parametrize(
    ("guess", "hidden", "reply"),
    [
        ("house", "house", "GGGGG"),
        ("mouse", "house", "-GGGG"),
        ("alert", "house", "--Y--"),
        ("noise", "house", "-G-GG"),
        ("green", "enter", "-YYGY"),
        ("sheep", "enter", "--YG-"),
        ("enter", "sheep", "Y--G-"),
        ("level", "hello", "YG--Y"),
        ("hello", "level", "-GYY-"),
        ("piece", "eight", "-GY--"),
    ],
)
def test_feedback_by_hand(guess: str, hidden: str, reply: str) -> None:
    assert feedback(guess, hidden) == reply


def test_all_replies_at_once_are_the_replies_one_by_one() -> None:
    replies, digits = _replies(), str.maketrans("-YG", "012")
    for i in range(0, len(WORDS), 9):
        for j in range(len(WORDS)):
            assert replies[i, j] == int(feedback(WORDS[i], WORDS[j]).translate(digits), 3)


@pytest.mark.parametrize(
    ("turns", "replies", "score"),
    [
        (["house"], [], 1.0),
        (["alert", "noise", "house"], ["--Y--", "-G-GG"], 1.0),
        (["alert"] * 3 + ["house"], ["--Y--"] * 3, 0.75),
        (["alert"] * 5 + ["house"], ["--Y--"] * 5, 0.25),
        (["alert"] * 6, ["--Y--"] * 5, 0.0),
        (["", "hous", "houses", "zzzzz", "=", "house"], ["?"] * 5, 0.25),
    ],
)
def test_words_by_hand(turns: list[str], replies: list[str], score: float) -> None:
    env: Any = gym.make("textenvs/Wordle-v0", split="all", masked=False).unwrapped
    task = env.rules.task
    number = next(k for k in range(len(task)) if task[k].references == ("house",))
    assert task[number].metadata["par"] == 3
    seen, reward, info = play(env, turns, number)
    assert (seen, reward, info["num_turns"]) == (replies, pytest.approx(score), len(turns))
    assert info["is_success"] == (score == 1)


def test_the_splitting_player_finds_every_word_and_fits_all_replies() -> None:
    task = textenvs.make_task("wordle", split="all")
    assert sorted(task[k].references[0] for k in range(len(task))) == sorted(set(WORDS))
    num_turns = Counter()
    for k in range(len(task)):
        hidden, turns = task[k].references[0], task.demonstration(task[k])
        assert turns[-1] == hidden
        assert len(turns) == task[k].metadata["par"] <= 6
        for i, turn in enumerate(turns):
            assert all(feedback(past, turn) == feedback(past, hidden) for past in turns[:i])
        num_turns[len(turns)] += 1
    assert num_turns.total() == len(WORDS) == 453


def test_word_masks_are_the_list() -> None:
    env: Any = gym.make("textenvs/Wordle-v0").unwrapped
    for number in range(60):
        assert set(legal_turns(env, number, 6)) <= set(WORDS)
    assert spelled(env.rules.task, 0) == set(WORDS)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("wordle", {"masked": 1}, "masked must be True or False"),
        ("twenty_questions", {"masked": 0}, "masked must be True or False"),
        ("twenty_questions", {"num_candidates": 41}, r"num_candidates must be an int in \[2, 40\]"),
        ("slot_filling", {"num_missing": 4}, r"num_missing must be an int in \[1, 3\]"),
        ("slot_filling", {"masked": 1}, "masked must be True or False"),
    ],
)
def test_settings_that_make_no_game(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        textenvs.make_task(name, **settings)
