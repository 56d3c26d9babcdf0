"""Every reward by name, on text that nobody foresaw: in range, finite, row by row, fast; padding never helps.

A new name in REWARDS needs an `Example` here.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reward_batches import responses_of
from sandboxed import why_not

from textenvs import Problem, Responses, Reward, Scores
from textenvs.rewards import REWARDS, as_reward
from textenvs.rewards.fluency import LengthRange, ReadingGrade


@dataclass(frozen=True)
class Example:
    """A problem that a reward can score.

    Attributes:
        references, metadata: of the problem.
        right: a response that scores exactly 1, where that is possible.
        wrong: for rewards that are all or nothing, answers that nothing before or behind them can make right.
        num_texts: how many arbitrary texts are tried; fewer where one takes a process.
        tolerance: of a row's value in another batch; 0 where nothing neural is asked.
    """

    references: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    right: str | None = None
    wrong: tuple[str, ...] = ()
    num_texts: int = 40
    tolerance: float = 0.0

    @property
    def problem(self) -> Problem:
        return Problem("Say it. ", self.references, self.metadata)


SENTENCE = Example(("The old bridge was closed on Monday.", "On Monday, the bridge shut."), right="The old bridge was "
                   "closed on Monday.")  # fmt: skip
ADD = {"entry_point": "add", "cases": [{"args": [1, 2], "expected": 3}, {"args": [2, 2], "expected": 4}]}
EXAMPLES = {
    "exact_match": Example(("abc", "b c"), right="b c", wrong=("abd", "c b", "ABC", "x")),
    "position_match": SENTENCE,
    "length_match": SENTENCE,
    "prefix_match": SENTENCE,
    "edit_similarity": SENTENCE,
    "token_f1": SENTENCE,
    "bleu": SENTENCE,
    "chrf": SENTENCE,
    "rouge1": SENTENCE,
    "rouge2": SENTENCE,
    "rougeL": SENTENCE,
    "sentiment": Example(),
    "vader": Example(),
    "regex": Example(metadata={"pattern": r"[a-c]+\d?"}, right="abc3", wrong=("abd", "3c", "a c", "A")),
    "words": Example(metadata={"required": ["bridge", "old"], "forbidden": ["new"]}, right="Old! A bridge."),
    "language": Example(metadata={"language": "de"}),
    "json": Example(right="[1]", wrong=('{"a": NaN}', '{"a": 1, "a": 1}', "[1,\x00]", "[01]")),
    "json_match": Example(metadata={"expected": {"a": 1}}, right='{"a":1}', wrong=('{"a": 2}', '{"a": true}', "[0]")),
    "json_schema": Example(
        metadata={"schema": {"type": "array", "items": {"type": "integer"}, "maxItems": 2}}, right="[1, 2]",
        wrong=('["x"]', "[1, 2, 3]", '{"a": 1}'), num_texts=10,
    ),
    "math_answer": Example(metadata={"answer": "1/2"}, right=r"\boxed{1/2}", wrong=("7", r"\boxed{1/3}"), num_texts=10),
    "python_program": Example(
        metadata=ADD, right="def add(a, b):\n    return a + b", wrong=("def add(a, b):\n    return a - b",), num_texts=5
    ),
    "log_prob": Example(num_texts=6, tolerance=1e-5),
    "distinct_2": Example(),
    "repetition_4": Example(),
    "reading_ease": Example(),
}  # fmt: skip

#: Rewards that need a setting, beside those by name: name -> (reward, example).
WITH_SETTINGS: dict[str, tuple[Reward, Example]] = {
    "length_range": (LengthRange(3, 9), Example(right="one two three")),
    "reading_grade": (ReadingGrade(8), Example()),
}
ALL = [*EXAMPLES, *WITH_SETTINGS]
#: A later definition or a boxed answer replaces what stands before it.
CORRECTABLE = ("math_answer", "python_program")
ALL_OR_NOTHING = [name for name, example in EXAMPLES.items() if example.wrong]

#: Pieces of texts that break what reads them.
PIECES = (
    *(
        "",
        " ",
        "\n",
        "\t",
        "\x00",
        "\x1b[2J",
        "\u202e",
        "\u2066",
        "\ufeff",
        "\ud800",
        "\udfff",
        "\U0010ffff",
        "e\u0301",
    ),
    *("猫", "ß", "İ", "ﬁ", "a", "the ", "not ", "good ", ".", "...", "!?", ",", "'", '"', "\\", "`", "```\n", "<eos>"),
    *("=", "{", "}", "[", "]", "null", "NaN", "-", "$", r"\boxed{", "####", "answer is ", "#", "def add(a, b):"),
)


def reward_of(name: str) -> tuple[Reward, Example]:
    if name == "python_program" and why_not():
        pytest.skip(why_not())
    return WITH_SETTINGS[name] if name in WITH_SETTINGS else (by_name(name), EXAMPLES[name])


@cache
def by_name(name: str) -> Reward:
    return as_reward(name)


def scores_of(reward: Reward, example: Example, texts: list[str], batch: slice = slice(None)) -> Scores:
    """Scores of some of the texts, whose token ids do not depend on which; never an infra fault."""
    whole = responses_of(texts, also="".join([*example.references, example.problem.prompt]))
    part = Responses(whole.token_ids[batch], whole.lengths[batch], list(whole.finish_reasons[batch]), whole.vocab)
    scores = reward([example.problem] * len(part), part)
    assert scores.values.dtype == np.float64
    assert "infra_fault" not in scores.status
    for column in (scores.values, *scores.parts.values()):
        assert column.shape == (len(part),)
        assert np.isfinite(column).all()
    low, high = reward.value_range
    assert (scores.values >= low).all()
    assert (scores.values <= high).all()
    return scores


def texts_near(example: Example) -> st.SearchStrategy[str]:
    """Any characters, surrogates too; or the pieces of right answers among those that break what reads them."""
    answers = [*example.references, *([example.right] if example.right else [])]
    pieces = [*PIECES, *answers, *(word for answer in answers for word in answer.split())]
    anything = st.text(st.characters(exclude_categories=()), max_size=40)
    return st.one_of(anything, st.lists(st.one_of(st.sampled_from(pieces), anything), max_size=12).map("".join))


def test_every_reward_by_name_has_an_example() -> None:
    assert set(EXAMPLES) == set(REWARDS)


@pytest.mark.parametrize("name", ALL)
def test_arbitrary_text_scores_in_range_and_row_by_row(name: str) -> None:
    reward, example = reward_of(name)
    reward.require(example.problem)

    @settings(max_examples=example.num_texts, deadline=None)
    @given(st.lists(texts_near(example), min_size=3, max_size=3))
    def check(texts: list[str]) -> None:
        together = scores_of(reward, example, texts)
        for i in range(3):
            alone = scores_of(reward, example, texts, slice(i, i + 1))
            for column, same in ((together.values, alone.values), *zip_parts(together, alone)):
                assert abs(column[i] - same[0]) <= example.tolerance
            assert tuple(together.status[i : i + 1]) == tuple(alone.status) or not together.status

    check()


def zip_parts(together: Scores, alone: Scores) -> list[tuple[Any, Any]]:
    assert list(together.parts) == list(alone.parts)
    return [(together.parts[name], alone.parts[name]) for name in alone.parts]


@pytest.mark.parametrize("name", [*[name for name in EXAMPLES if EXAMPLES[name].right], "length_range"])
def test_a_right_answer_scores_one(name: str) -> None:
    reward, example = reward_of(name)
    assert example.right is not None
    assert scores_of(reward, example, [example.right]).values.tolist() == [1.0]


LONG = ("a", "good ", "\ud800\u202e猫", '[{"a":', "1+(", "def add(a, b):\n", "```\n. ")


@pytest.mark.parametrize("name", ALL)
def test_a_hundred_thousand_characters_are_scored_within_a_second(name: str) -> None:
    reward, example = reward_of(name)
    scores_of(reward, example, [example.right or "warm"])
    for piece in LONG[:: 3 if name in ("python_program", "log_prob") else 1]:
        texts = [(piece * 100_000)[:100_000]]
        started = time.process_time()
        scores_of(reward, example, texts)
        assert time.process_time() - started < 1, piece


@pytest.mark.parametrize("name", ALL_OR_NOTHING)
def test_padding_a_wrong_answer_never_raises_an_exact_score(name: str) -> None:
    reward, example = reward_of(name)
    assert scores_of(reward, example, list(example.wrong)).values.tolist() == [0.0] * len(example.wrong)
    # The right answer is among the pads, but where a response may correct itself; nor may numbers around a wrong one
    # make another there.
    pads = texts_near(example if name not in CORRECTABLE else Example())
    if name in CORRECTABLE:
        pads = pads.filter(lambda pad: not any(map(str.isnumeric, pad)))

    @settings(max_examples=example.num_texts, deadline=None)
    @given(st.sampled_from(example.wrong), pads, pads)
    def check(wrong: str, before: str, behind: str) -> None:
        padded = [before + wrong, wrong + behind, before + wrong + behind]
        assert scores_of(reward, example, padded).values.tolist() == [0.0, 0.0, 0.0]

    check()


@pytest.mark.parametrize("name", ALL)
def test_ranges_are_stated(name: str) -> None:
    """In numbers and in the first line of the docstring."""
    reward, example = reward_of(name)
    low, high = reward.value_range
    assert low < high
    assert not (math.isinf(low) and math.isinf(high))
    docstring = type(reward).__doc__ or ""
    assert f"range {'(-inf' if low == -math.inf else f'[{low:g}'}, {high:g}]" in docstring.splitlines()[0].lower()
    words = " ".join(docstring.split())
    assert "Withstands: " in words
    assert "Does not withstand" in words or example.wrong
