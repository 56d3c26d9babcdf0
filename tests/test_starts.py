"""What a batch starts from: numbers drawn ahead are those drawn one by one, and a problem is encoded once."""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils import seeding

import textenvs
from textenvs.starts import DRAWN_AHEAD, Starts, Streams
from textenvs.vocab import CharVocab


@pytest.mark.parametrize("num_problems", [1, 2, 10, 4096, 6553, 2**31, 2**32 + 7])
def test_numbers_drawn_ahead_are_those_drawn_one_by_one(num_problems: int) -> None:
    streams, rng = Streams(3, num_problems), np.random.default_rng(0)
    alone = [seeding.np_random(seed)[0] for seed in (5, 6, 7)]
    for row in range(3):
        streams.seed(row, 5 + row)
    for _ in range(3 * DRAWN_AHEAD):
        rows = np.flatnonzero(rng.random(3) < 0.7)
        assert streams.draw(rows).tolist() == [int(alone[row].integers(num_problems)) for row in rows]
        if rng.random() < 0.1:  # who draws from a stream in between gets what stands there
            assert streams.generator(1).random() == alone[1].random()


def test_a_new_seed_forgets_what_was_drawn_ahead() -> None:
    streams, rows = Streams(1, 1000), np.array([0])
    streams.seed(0, 5)
    first = [streams.draw(rows)[0] for _ in range(5)]
    streams.seed(0, 5)
    assert [streams.draw(rows)[0] for _ in range(5)] == first


def test_a_problem_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rules, asked = textenvs.Rules("copy"), []
    start = rules.start
    monkeypatch.setattr(rules, "start", lambda k: asked.append(k) or start(k))
    table, rng = Starts(rules), np.random.default_rng(0)
    for _ in range(20):
        numbers = rng.integers(200, size=30)
        lines = table.lines(numbers)
        for number, line in zip(numbers.tolist(), lines.tolist(), strict=True):
            expected = start(number)
            assert (table.problems[line], table.prompts[line]) == (expected.problem, expected.prompt)
            np.testing.assert_array_equal(table.rows[line], expected.row)
    assert len(asked) == len(set(asked)) > 64  # more than the table had room for at first


@pytest.mark.parametrize("number", [-1, 10**6, 0.0, True])
def test_what_is_no_problem_is_refused(number: Any) -> None:
    envs = gym.make_vec("textenvs/Copy-v0", num_envs=2)
    envs.reset(options={"problem": 3276})  # now -1 would find the last one
    with pytest.raises(ValueError, match=re.escape(f"options['problem'] must be an int in [0, 3277), got {number!r}")):
        envs.reset(options={"problem": number})


def test_prompts_of_ones_own_stand_beside_the_tasks() -> None:
    """The first reset of all, then one row goes on to a problem of the task and comes back."""
    envs = gym.make_vec("textenvs/Copy-v0", num_envs=3, autoreset_mode="Disabled")
    envs.reset(options={"prompt": "abab="})
    ids = envs.unwrapped.rules.vocab.encode("abab").tolist()
    assert envs.demonstration() == [[*ids, 9]] * 3
    end = np.full(3, 9)
    assert envs.step(end)[-1]["prompt"].tolist() == ["abab="] * 3
    middle = np.array([False, True, False])
    envs.reset(options={"reset_mask": middle, "problem": 4})
    envs.reset(options={"reset_mask": ~middle, "prompt": "hh="})
    infos = envs.step(end)[-1]
    assert infos["prompt"].tolist() == ["hh=", envs.unwrapped.rules.task[4].prompt, "hh="]
    assert infos["problem"].tolist() == [-1, 4, -1]


@pytest.mark.parametrize("symbols", ["abc", "a\0c", "aé漢\ud800"])
def test_rows_are_decoded_as_one_by_one(symbols: str) -> None:
    vocab, rng = CharVocab(symbols), np.random.default_rng(0)
    rows, lengths = rng.integers(vocab.num_tokens, size=(50, 7)), rng.integers(8, size=50)
    rows[np.arange(7) >= lengths[:, None]] = -1
    expected = [vocab.decode(ids[:n]) for ids, n in zip(rows.tolist(), lengths.tolist(), strict=True)]
    assert vocab.decode_rows(rows, lengths) == expected


def test_an_empty_batch_has_no_scores() -> None:
    rules = textenvs.Rules("copy")
    nobody = textenvs.Responses(np.empty((0, 5), np.int64), np.empty(0, np.int64), [], rules.vocab)
    assert rules.reward([], nobody).values.shape == (0,)
