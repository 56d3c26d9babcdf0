"""Maths answers: which one is final, and when it is right."""

from __future__ import annotations

import copy
import time
import unicodedata
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maths_answers import HALVES, LIMIT, RIGHT, WRONG, judged, values

from textenvs import Problem
from textenvs.rewards.answers import final_answers, plain_number
from textenvs.rewards.maths import MathAnswer
from textenvs.rewards.worker import Workers


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("42", ["42"]),
        ("The answer is 42.", ["42"]),
        ("3 * 14 = 42 apples", ["42"]),
        ("First 7.\nThen #### 1,000", ["1,000"]),
        ("it costs $7", ["7"]),
        ("-7", ["-7"]),
        ("10-5", []),
        ("x+42", []),
        ("41 or 42", []),
        ("1 2 3 4 5", []),
        ("42 and 42", []),
        (r"so $\frac{1}{2}$", [r"\frac{1}{2}"]),
        (r"\boxed{\frac{1}{2}} or 3", [r"\frac{1}{2}"]),
        (r"\boxed{ 5 } then \boxed{5} then \boxed{6}", ["5", "6"]),
        (r"\boxed{\boxed{5}}", [r"\boxed{5}"]),
        (r"\boxed{5", []),
        (r"\boxed{}", []),
        ("", []),
        ("no number", []),
        ("42%", [r"42\%"]),
        ("version 4.2.0", []),
        ("x" * 3000 + " 42", []),
    ],
)
def test_the_final_answer(text: str, answers: list[str]) -> None:
    assert final_answers(text) == answers


@pytest.mark.parametrize(("gold", "texts"), RIGHT)
def test_formats_that_are_paid(gold: Any, texts: tuple[str, ...]) -> None:
    assert [text for text, found in zip(texts, judged(gold, *texts), strict=True) if found != (1, "ok")] == []


@pytest.mark.parametrize("numbers_only", [False, True])
@pytest.mark.parametrize(("gold", "texts"), WRONG)
def test_what_is_never_paid(gold: Any, texts: tuple[str, ...], numbers_only: bool) -> None:
    found = judged(gold, *texts, numbers_only=numbers_only)
    assert [text for text, each in zip(texts, found, strict=True) if each != (0, "ok")] == []


@pytest.mark.parametrize(
    ("where", "harmless"),
    [
        ("{}5", " \"$'(+0:;=\u00a0\u00a3\u00b0\u2018\u2019\u201c\u201d\u20ac"),
        ("5{}", " \"$'),.:;\u00a0\u00a3\u00b0\u2018\u2019\u201c\u201d\u20ac"),
        ("5{}5", "="),  # 5=5 says 5
    ],
)
def test_every_sign_beside_a_number(where: str, harmless: str) -> None:
    """Of all punctuation, symbols, digits and other numerals of Unicode, and the two usual spaces."""
    signs = [chr(i) for i in range(0x20, 0x110000) if unicodedata.category(chr(i))[0] in "PSN" or chr(i) in " \u00a0"]
    found = values(5, *[where.format(sign) for sign in signs], numbers_only=True)
    assert "".join(sign for sign, value in zip(signs, found, strict=True) if value) == harmless


@pytest.mark.parametrize(
    "piece",
    [
        *(r"\boxed{", r"\boxed{1} ", "}", "{", "\\", r"\(", "$", "$1", "*", "**1* ", "_`", "1", "1,", "1 ", "1/", "- "),
        *("= ", "(", "answer is ", "not ", "####", ". ", "\n", " ", "x", "x = 1 ", "<answer>", "\u2013", "'", "n't "),
    ],
)
def test_the_time_is_linear(piece: str) -> None:
    """Ten times the text is not fifty times the time; 100 ms for 100,000 characters would pass anyway."""

    def seconds(num_chars: int) -> float:
        text = (piece * num_chars)[:num_chars]
        begin = time.thread_time()
        final_answers(text)
        return time.thread_time() - begin

    assert min(seconds(100_000) for _ in range(3)) < max(0.1, 50 * min(seconds(10_000) for _ in range(3)))


def test_plain_numbers() -> None:
    numbers = {"7": 7, "-7": -7, "\u22127": -7, "1,000": 1000, "0.50": Fraction(1, 2), ".5": Fraction(1, 2), "2/4": 0.5}
    assert {text: plain_number(text) for text in numbers} == numbers
    refused = ["", "-", ".", "1/0", "1e5", "1,00", "\u0661", "0x1", "1_000", "1 2", "/2", "x", "9" * 1001]
    assert [plain_number(text) for text in refused] == [None] * len(refused)


def test_what_the_docstring_says_is_not_withstood() -> None:
    answers = [r"not -\boxed{7}!", "Not:\n7", "maybe 7", "nicht 7", "7 kg", r"\boxed{3+4}", "42%", "8 = 7"]
    assert values(7, *answers[:6], answers[7]) == [1] * 7
    assert values(42, answers[6]) == [1]
    assert values(r"\sqrt{2}", r"\boxed{\sqrt{2}\text{ not}}") == [1]
    assert values(r"\frac{1}{3}", "0.333333", "0.3333") == [1, 0]


def test_plain_answers_need_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workers, "judge", lambda *_: pytest.fail("asked the worker"))
    assert values(42, "42", "the answer is 42", r"\boxed{42.0}", "84/2", "41", "41 or 42", r"\boxed{41=42}") == [
        *(1, 1, 1, 1, 0, 0, 0)
    ]
    assert values("1/3", "1/3", "0.33", "0.333333") == [1, 0, 0]
    assert values(7, "3+4", r"\boxed{3+4}", r"\boxed{7}", numbers_only=True) == [0, 0, 1]


def test_what_only_math_verify_knows() -> None:
    right = [
        HALVES,
        r"\boxed{x=42}",
        r"$42$",
        r"\boxed{6 \cdot 7}",
        r"\boxed{42\text{ apples}}",
        r"\boxed{1/2}\boxed{42}",
    ]
    assert values(42, *right) == [1, 1, 1, 1, 1, 0]
    assert values(r"\frac{1}{2}", r"\boxed{0.5}", r"\boxed{\dfrac12}", "1/2", r"\boxed{50\%}", "0.4") == [1, 1, 1, 1, 0]
    assert values("x+1", r"\boxed{1+x}", r"\boxed{x+2}", r"\boxed{y+1}") == [1, 0, 0]
    assert values(r"\{1,2\}", r"\boxed{\{2,1\}}", r"\boxed{\{1\}}", r"\boxed{\{1,2,3\}}") == [1, 0, 0]
    assert values(r"\frac{\sqrt{3}}{3}", r"\boxed{\frac{1}{\sqrt{3}}}", r"\boxed{\sqrt{3}}") == [1, 0]


@pytest.mark.parametrize(
    "attack",
    [
        *(
            "41, 42",
            "41 or 42",
            r"\boxed{42}\boxed{41}",
            r"\boxed{41,42}",
            r"\boxed{42\text{ or }41}",
            r"\boxed{41 42}",
        ),
        *(r"\boxed{\{41,42\}}", r"\boxed{[41,43]}", r"\boxed{41<x<43}", r"\boxed{41=42}", r"\boxed{x^2=1764}"),
        *(r"\boxed{41;42}", r"\boxed{42 \lor x}", r"\boxed{x}", r"\boxed{\infty}", r"\boxed{nan}", r"\boxed{}", ""),
        *(r"\boxed{42 apples 41}", r"\boxed{42, \text{not }41}", "What is 6*7?", r"\boxed{41\vee42}"),
        *(r"\boxed{40\ldots 44}", r"\boxed{42\ne 41}", r"\boxed{\pm 42}"),
    ],
)
def test_attacks_on_a_number(attack: str) -> None:
    assert values(42, attack) == [0]


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_gets_a_score(text: str) -> None:
    (found,) = judged(42, text)
    assert found[0] in (0, 1)
    if "42" not in text and not any(c.isdigit() for c in text):
        assert found == (0, "ok")


@pytest.mark.parametrize(
    ("metadata", "references", "words"),
    [
        ({}, (), "must have metadata\\['answer'\\] or references"),
        ({"answer": ""}, (), "or an empty one"),
        ({"answer": True}, (), "must be text or a finite number of at most 1000 digits, got True; write it"),
        ({"answer": float("nan")}, (), "must be text or a finite number of at most 1000 digits, got nan; write it"),
        ({"answer": -float("inf")}, (), "a finite number of at most 1000 digits, got -inf; write it"),
        ({"answer": 10**5000}, (), "at most 1000 digits, got one of more digits; write it"),
        ({"answer": "1e-7"}, (), "got '1e-7' .*; write it with all of its digits"),
        ({}, ("-2.5E3",), "got '-2.5E3' .*; write it with all of its digits"),
        ({"answer": "NaN"}, (), "got 'NaN' .*; write it"),
        ({"answer": "1 1/2"}, (), "got '1 1/2' .*; write it .* such as 0.0000001 or 3/2"),
        ({"answer": "\\frac{"}, (), "an expression in LaTeX, got '.*frac"),
        ({}, ("\ud800",), "an expression in LaTeX"),
    ],
)
def test_a_problem_without_a_usable_answer(metadata: dict[str, Any], references: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MathAnswer(limit_seconds=LIMIT).require(Problem("q", references, metadata))


def test_numbers_only_wants_a_number_for_gold() -> None:
    with pytest.raises(ValueError, match="numbers_only takes plain numbers"):
        MathAnswer(numbers_only=True).require(Problem("q", ("x+1",)))


def test_copies_share_their_processes() -> None:
    reward = MathAnswer(limit_seconds=LIMIT)
    assert copy.deepcopy(reward).workers is MathAnswer(limit_seconds=LIMIT).workers is reward.workers


@pytest.mark.parametrize("limit", [0, -1, 61, True, "5", float("nan")])
def test_limits_that_are_none(limit: Any) -> None:
    with pytest.raises(ValueError, match=r"limit_seconds must be a number in \(0, 60\]"):
        MathAnswer(limit_seconds=limit)
