"""Regular expressions, words, language; and that no source file runs a text."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reward_batches import responses_of

import textenvs
from textenvs import Problem
from textenvs.rewards import REWARDS, as_reward
from textenvs.rewards.checkers import Language, Regex, Words
from textenvs.rewards.maths import MathAnswer

ROOT = Path(__file__).parent.parent
MINE = ["regex", "words", "language", "json", "json_match", "json_schema", "math_answer"]
METADATA = {"pattern": "(a+)+b", "required": ["red"], "forbidden": ["cat"], "language": "de", "expected": {"a": 1}}
METADATA |= {"schema": {"type": "object"}, "answer": r"\frac{1}{2}"}


def scored(reward: Any, metadata: dict[str, Any], *texts: str) -> list[float]:
    problem = Problem("q", (), metadata)
    reward.require(problem)
    scores = reward([problem] * len(texts), responses_of(texts))
    assert set(scores.status) <= {"ok", "model_fault"}
    return [float(value) for value in scores.values]


def test_regex_by_hand() -> None:
    assert scored(Regex(), {"pattern": "a+b"}, "aab", "aabx", "xaab", "", "aab\n", "aa\nb") == [1, 0, 0, 0, 0, 0]
    assert scored(Regex(mode="search"), {"pattern": "a+b"}, "aab", "aabx", "xaab", "ba", "") == [1, 1, 1, 0, 0]
    assert scored(Regex(mode="search"), {"pattern": "b$"}, "ab", "b\nc", "ab\n") == [1, 0, 0]
    assert scored(Regex(pattern=r"\d{4}-\d{2}-\d{2}"), {}, "2024-02-30", "\u0661234-01-01", "24-1-1") == [1, 0, 0]
    assert scored(Regex(pattern="\u00e9{2}"), {}, "\u00e9\u00e9", "\u00e9") == [1, 0]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(?=a)b", "look-around needs backtracking"),
        ("(?<!a)b", "look-around needs backtracking"),
        (r"(a)\1", "back-reference needs backtracking"),
        ("(?P<x>a)(?P=x)", "back-reference needs backtracking"),
        ("(?:a{1000}){1000}", "repetition may count to 1,000"),
        ("a{1001}", "repetition may count to 1,000"),
        ("(a", "missing \\)"),
        ("\ud800", "surrogates"),
        ("a" * 10_001, "at most 10,000 characters"),
        (3, "at most 10,000 characters, got '3'"),
    ],
)
def test_patterns_that_re2_refuses(pattern: Any, words: str) -> None:
    for build in (lambda: Regex(pattern=pattern), lambda: Regex().require(Problem("q", (), {"pattern": pattern}))):
        with pytest.raises(ValueError, match=f"pattern must be .*{words}"):
            build()


def test_no_pattern_and_no_mode() -> None:
    with pytest.raises(ValueError, match=r"must have metadata\['pattern'\]"):
        Regex().require(Problem("q"))
    with pytest.raises(ValueError, match="mode must be 'fullmatch' or 'search', got 'match'"):
        Regex(mode="match")


def test_words_by_hand() -> None:
    words = {"required": ["Stra\u00dfe", "New York"], "forbidden": ["cat"]}
    texts = {
        "STRASSE in new-york": 1,
        "strasse york new": 0.5,
        "a Cat strasse new york": 0,
        "catalog strasse new york": 1,
    }
    texts |= {"": 0, "strasse strasse": 0.5, "strassenbahn new york": 0.5, "new  york,\nstrasse": 1}
    assert scored(Words(), words, *texts) == list(texts.values())
    assert scored(Words(forbidden=["cat"]), {}, "a dog", "a CAT", "") == [1, 0, 1]
    assert scored(Words(required=["caf\u00e9"]), {}, "cafe\u0301", "cafe") == [1, 0]
    assert scored(Words(required=["one", "two", "three"]), {}, "one two", "three") == [2 / 3, 1 / 3]


@pytest.mark.parametrize(
    "text",
    [
        *("_raining_", "__raining", "rai\u200bning", "rai\u00adning", "\u2060raining", "RAI\ufeffNING"),
        *("rai\ufe0fning", "ra\u034fin\u3164ing"),
    ],
)
def test_a_forbidden_word_is_found_behind_marks_that_hardly_show(text: str) -> None:
    assert scored(Words(forbidden=["raining"]), {}, text) == [0]
    assert scored(Words(required=["raining"]), {}, text) == [1]


def test_words_keep_their_combining_marks() -> None:
    hindi, thai = "\u0939\u093f\u0928\u094d\u0926\u0940", "\u0e17\u0e35\u0e48"
    for word, part in ((hindi, "\u0939"), (hindi, "\u0926\u0940"), (thai, "\u0e17"), ("q\u0307", "q")):
        assert scored(Words(required=[word]), {}, word, f"x {word}, y", part) == [1, 1, 0]
        assert scored(Words(forbidden=[part]), {}, word, part) == [1, 0]
    joined, plain = "\u0915\u094d\u200d\u0937", "\u0915\u094d\u0937"
    assert scored(Words(required=[joined]), {}, plain, joined) == [1, 1], "what is dropped is dropped on both sides"
    with pytest.raises(ValueError, match="at least one letter or digit"):
        Words(required=["_"])
    with pytest.raises(ValueError, match="at least one letter or digit"):
        Words(required=["\u0301"])


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({}, "must have metadata\\['required'\\] or"),
        ({"required": "cat"}, "must be a list of words"),
        ({"required": ["..."]}, "at least one letter or digit"),
        ({"required": [3]}, "at least one letter or digit"),
        ({"required": ["Cat"], "forbidden": ["cAT"]}, "must be required or forbidden, got both"),
    ],
)
def test_words_that_make_no_sense(metadata: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Words().require(Problem("q", (), metadata))


def test_language() -> None:
    german, english = (
        "Das ist ein sch\u00f6ner Tag und wir gehen spazieren.",
        "This is a nice day and we go for a walk.",
    )
    values = scored(Language(), {"language": "de"}, german, english, "der", "", "1234567890 " * 9, german * 500)
    assert values[0] > 0.9
    assert values[1] < 0.1
    assert values[2:5] == [0, 0, 0]
    assert values[5] > 0.9
    assert scored(Language(language="en"), {}, english)[0] > 0.9
    assert scored(Language("en"), {}, english)[0] > 0.9
    for name, hint in (("ES", "did you mean 'es'"), ("Spanish", "did you mean 'es'"), ("qq", "known")):
        with pytest.raises(ValueError, match=f"got '{name}'; {hint}"):
            Language(name)
    for metadata, words in (
        ({}, "got None"),
        ({"language": "german"}, "got 'german'; did you mean 'de'. known: .*de,"),
    ):
        with pytest.raises(ValueError, match=f"language must be a code that py3langid knows, {words}"):
            Language().require(Problem("q", (), metadata))
    for letters in (0, True, 1.5):
        with pytest.raises(ValueError, match="min_letters must be an int of at least 1"):
            Language(min_letters=letters)  # type: ignore[arg-type]


HOSTILE = [
    *("", " ", "\x00\x01\x1b[31m", "\ud800", "\udfff\ud800" * 50, "\u202e\u2066abc\u2069", "\u0434\u0430" * 40),
    *(
        "\u4e2d\u6587" * 40,
        "a" * 100_000,
        "{" * 100_000,
        "9" * 100_000,
        "\\boxed{" * 14_000,
        "\\(" * 50_000,
        "$" * 100_000,
    ),
    *("\u00df" * 100_000, "\\boxed{1}" * 11_000, "1 " * 50_000, "\u0130" * 1000, "\u0301" * 100_000, '"' * 99_999),
]


@pytest.mark.parametrize("name", MINE)
def test_hostile_responses_cost_little_and_earn_nothing(name: str) -> None:
    reward, problem = as_reward(name), Problem("q", (), METADATA)
    reward.require(problem)
    low, high = reward.value_range
    for text in HOSTILE:
        batch = responses_of([text])
        assert batch.texts == [text]
        start = time.monotonic()
        scores = reward([problem], batch)
        assert time.monotonic() - start < 1
        assert low <= scores.values[0] <= high
        assert set(scores.status) <= {"ok", "model_fault"}
        assert scores.values[0] < 0.1 or (name, text[:1]) == ("json", "9"), (name, text[:10])


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_is_in_range(text: str) -> None:
    for name in MINE:
        assert 0 <= scored(as_reward(name), METADATA, text)[0] <= 1


@pytest.mark.parametrize("name", MINE)
def test_rewards_are_named_and_honest(name: str) -> None:
    reward = as_reward(name)
    page = type(reward).__doc__ or ""
    assert reward.name == name
    assert "Range [0, 1]" in page.splitlines()[0]
    assert "Withstands:" in page
    assert REWARDS[name].endswith(type(reward).__name__)


@pytest.mark.parametrize(
    ("build", "module"),
    [(Regex, "re2"), (Language, "py3langid"), (MathAnswer, "math_verify")],
    ids=lambda x: str(x)[-20:],
)
def test_a_missing_library_names_the_command(build: Any, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from textenvs.rewards import maths

    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(maths, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "textenvs\[rewards\]"'):
        build()


@pytest.mark.parametrize("path", sorted((ROOT / "textenvs").glob("**/*.py")), ids=lambda path: path.stem)
def test_no_source_runs_a_text(path: Path) -> None:
    """Nothing that evaluates strings is called, SymPy's readers included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            assert name not in ("sympify", "parse_expr", "literal_eval", "parse_latex", "lambdify"), node.lineno
            assert getattr(node.func, "id", "") not in ("eval", "exec"), node.lineno


def test_all_rewards_are_listed_before_they_are_loaded() -> None:
    assert set(textenvs.__all__) <= set(dir(textenvs))
    code = "import textenvs; assert 'JsonSchema' in dir(textenvs); assert 'JsonSchema' not in vars(textenvs)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
