"""Rewards: literal values, composition, attack strings, immutability."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import textenvs
from textenvs import CharVocab, ExactMatch, FunctionReward, LengthMatch, PositionMatch, Problem, Responses, Scores
from textenvs.rewards import as_reward

VOCAB = CharVocab("abcdefgh= ")


def responses(texts: list[str], width: int = 12) -> Responses:
    """A batch of texts spelt with VOCAB."""
    ids = np.full((len(texts), width), -1)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = VOCAB.encode(text)
    return Responses(ids, np.array([len(text) for text in texts]), ["eos"] * len(texts), VOCAB)


def score(reward: textenvs.Reward, texts: list[str], *references: str) -> list[float]:
    problems = [Problem("a=", references)] * len(texts)
    return reward(problems, responses(texts)).values.tolist()


def test_literal_values() -> None:
    texts = ["abc", "abd", "ab", "abca", "", "cba", "ba"]
    assert score(ExactMatch(), texts, "abc") == [1, 0, 0, 0, 0, 0, 0]
    assert score(PositionMatch(), texts, "abc") == [1, 2 / 3, 2 / 3, 3 / 4, 0, 1 / 3, 0]
    assert score(LengthMatch(), texts, "abc") == [1, 1, 2 / 3, 3 / 4, 0, 1, 2 / 3]


def test_the_best_of_several_references_counts() -> None:
    assert score(PositionMatch(), ["abd", "ha"], "abc", "h") == [2 / 3, 1 / 2]
    assert score(ExactMatch(), ["h"], "abc", "h") == [1]
    assert score(PositionMatch(), [""], "") == [1]


@pytest.mark.parametrize("attack", ["", " ", "a=", "abc abc", "abcabc", "aaaaaaaaaaaa", "abc=", "=abc", "a b c"])
def test_attack_strings_never_reach_the_reference(attack: str) -> None:
    assert score(ExactMatch(), [attack], "abc") == [0]
    assert score(PositionMatch(), [attack], "abc")[0] < 1


@given(
    text=st.text("abcdefgh", max_size=8),
    reference=st.text("abcdefgh", min_size=1, max_size=8),
    pad=st.text("abc", min_size=1, max_size=4),
)
def test_properties(text: str, reference: str, pad: str) -> None:
    """Range [0, 1]; the reference scores 1; padding the reference never pays; a row does not depend on the batch."""
    for reward in (ExactMatch(), PositionMatch(), LengthMatch()):
        value, identity, padded = score(reward, [text, reference, reference + pad], reference)
        assert 0 <= value <= 1
        assert identity == 1
        assert padded < 1
        assert score(reward, [text], reference) == [value]


def test_composition_and_parts() -> None:
    both = 0.75 * ExactMatch() + PositionMatch() * 0.25
    scores = both([Problem("a=", ("abc",))] * 2, responses(["abc", "abd"]))
    assert scores.values.tolist() == [1.0, 0.25 * (2 / 3)]
    assert {name: part.tolist() for name, part in scores.parts.items()} == {
        "exact_match": [1.0, 0.0],
        "position_match": [1.0, 2 / 3],
    }
    gated = LengthMatch() * PositionMatch()
    assert score(gated, ["abd", "ab"], "abc") == [2 / 3, 4 / 9]
    assert list((ExactMatch() + ExactMatch())([Problem("", ("a",))], responses(["a"])).parts) == [
        "exact_match",
        "exact_match_2",
    ]
    assert score(2 * (ExactMatch() + LengthMatch()), ["abc"], "abc") == [4.0]


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), "2", True, None])
def test_bad_weights(weight: Any) -> None:
    with pytest.raises(ValueError, match="weight must be a finite number"):
        weight * ExactMatch()


def test_only_rewards_add() -> None:
    with pytest.raises(TypeError, match="FunctionReward"):
        ExactMatch() + 1  # type: ignore[operator]


def test_the_worst_status_wins() -> None:
    class Judge(textenvs.Reward):
        name = "judge"

        def __init__(self, *status: str) -> None:
            self.status = status

        def __call__(self, problems: Any, responses: Responses) -> Scores:
            return Scores(np.zeros(3), {}, self.status)

    three, batch = [Problem("")] * 3, responses(["", "", ""])
    a, b = Judge("ok", "infra_fault", "model_fault"), Judge("ok", "ok", "ok")
    assert (a + b)(three, batch).status == ("ok", "infra_fault", "model_fault") == (b * a)(three, batch).status


def test_plain_functions_are_lifted() -> None:
    def share_of_a(problem: Problem, text: str) -> float:
        return text.count("a") / max(1, len(text))

    reward = as_reward(share_of_a)
    scores = reward([Problem("")] * 2, responses(["ab", "aa"]))
    assert scores.values.tolist() == [0.5, 1.0]
    assert list(scores.parts) == ["share_of_a"]
    assert isinstance(reward, FunctionReward)


def test_copies_are_the_same_object() -> None:
    reward = ExactMatch() + LengthMatch()
    assert copy.deepcopy(reward) is copy.copy(reward) is reward


def test_texts_decode_on_first_use_only() -> None:
    batch = responses(["abc", ""])
    assert "texts" not in vars(batch)
    assert batch.texts == ["abc", ""]
    assert batch.turns == [["abc"], [""]]


def test_a_missing_reference_is_named() -> None:
    for reward in (ExactMatch(), PositionMatch(), LengthMatch()):
        with pytest.raises(ValueError, match="'why=' must have a reference"):
            reward([Problem("why=")], responses(["a"]))
