"""Problems named by the lines of a table are scored as the problems themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import textenvs
from textenvs.rewards.problem_rows import ProblemRows, ProblemTable
from textenvs.vocab import CharVocab


def make_responses(vocab: CharVocab, num: int, width: int, rng: np.random.Generator) -> textenvs.Responses:
    lengths = rng.integers(width + 1, size=num)
    ids = np.where(np.arange(width) < lengths[:, None], rng.integers(3, size=(num, width)), -1)
    return textenvs.Responses(ids, lengths, ["eos"] * num, vocab)


@pytest.mark.parametrize("name", ["position_match", "length_match", "exact_match", "edit_similarity"])
def test_rows_of_a_table_score_as_a_list_of_problems(name: str) -> None:
    """One to four references each, some longer than a response can be; the table grows between the batches."""
    rng, vocab = np.random.default_rng(0), CharVocab("abc")
    table, reward = ProblemTable(), textenvs.as_reward(name)
    for num_problems in (3, 3, 40, 200):
        while len(table.problems) < num_problems:
            texts = ("".join(rng.choice(list("abc"), rng.integers(1, 8))) for _ in range(rng.integers(1, 5)))
            table.problems.append(textenvs.Problem("a", tuple(texts)))
        lines = rng.integers(num_problems, size=50)
        responses = make_responses(vocab, 50, 5, rng)
        rows = ProblemRows(table, lines)
        assert list(rows) == [rows[i] for i in range(50)] == rows[:] == [table.problems[line] for line in lines]
        got, expected = reward(rows, responses), reward(list(rows), responses)
        np.testing.assert_array_equal(got.values, expected.values)
        assert len(set(got.values)) > 2 or name == "exact_match"


def test_references_are_encoded_once_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    vocab, rng, encoded = CharVocab("abc"), np.random.default_rng(0), []
    table, encode = ProblemTable(), vocab.encode
    table.problems.extend(textenvs.Problem("a", (f"{'ab'[i % 2]}{'abc'[i % 3]}", "c" * (i % 4 + 1))) for i in range(12))
    monkeypatch.setattr(vocab, "encode", lambda text: encoded.append(text) or encode(text))
    reward: Any = textenvs.as_reward("position_match")
    for _ in range(20):
        reward(ProblemRows(table, rng.integers(12, size=30)), make_responses(vocab, 30, 4, rng))
    assert 10 < len(encoded) <= 24


def test_a_batch_env_touches_no_problem_for_a_score_on_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    import gymnasium as gym

    envs = gym.make_vec("textenvs/Copy-v0", num_envs=16)
    envs.reset(seed=0)
    looked: list[int] = []
    end = np.full(16, envs.single_action_space.n - 1)  # type: ignore[attr-defined]
    envs.step(end)
    monkeypatch.setattr(ProblemRows, "__iter__", lambda self: looked.append(len(self)) or iter(()))
    for ends in (False, True, False, True):
        assert ("status" in envs.step(end)[-1]) is ends
    assert looked == []
