"""Regular languages: automata, masks and returns against brute force."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from structured import problems, scored

import textenvs
from textenvs.tasks.structured_regular import Automaton, automaton

EXPRESSIONS = ["a", "ab*", "(ab|c)*a", "(a|b)(ab|a)*c*", "((a|b)*c)*", "(a*b*)*", "a**", "(|a)b", "()", "(a|)(b|)(c|)"]


def words_of(expression: str, length: int, letters: str = "abc") -> list[str]:
    """By Python's own engine, from all strings."""
    pattern = re.compile(expression)
    return [word for word in map("".join, itertools.product(letters, repeat=length)) if pattern.fullmatch(word)]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_automata_by_brute_force(expression: str) -> None:
    machine = Automaton(expression)
    python = expression.replace("**", "*")
    for length in range(6):
        expected = words_of(python, length)
        assert [
            w for w in map("".join, itertools.product("abc", repeat=length)) if machine.accepts(machine.state(w))
        ] == (expected)
        assert machine.num_words(length) == len(expected)
        assert [machine.word(length, i) for i in range(len(expected))] == expected
    lengths = [n for n in range(6) if words_of(python, n)]
    assert machine.distance(machine.start) == min(lengths)


@pytest.mark.parametrize(
    "expression", ["(", ")", "a)", "(a", "*", "|*", "a+", "A", "[a]", "a" * 61, "((((", "\\1", "a.", "(?:a)"]
)
def test_what_is_no_expression(expression: str) -> None:
    with pytest.raises(ValueError, match="an expression must"):
        Automaton(expression)


def test_a_regular_language_problem_is_what_the_page_says() -> None:
    seen = problems("regular_language", split="all")
    assert len({problem.metadata["pattern"] for problem in seen}) == len(seen)
    assert len({problem.metadata["length"] for problem in seen}) >= 5
    for problem in seen[:80]:
        expression, length = problem.metadata["pattern"], problem.metadata["length"]
        words = words_of(expression, length)
        assert problem.prompt == f"{expression}{length}="
        assert problem.references[0] in words
        assert 1 <= len(words) <= 0.1 * 3**length
        assert not {letter * length for letter in "abc"} & set(words)
        attacks = ["", words[0][:-1], words[0] + words[0][-1], words[0] * 2, problem.prompt, expression, "abc()|*"]
        assert scored("regular_language", problem, *words) == [1] * len(words)
        assert scored("regular_language", problem, *attacks) == [0] * len(attacks)


def test_no_constant_solves_one_problem_in_twenty() -> None:
    """Every string of up to 8 letters, on a spread of the problems."""
    solved: Counter[str] = Counter()
    seen = problems("regular_language")
    for problem in seen:
        machine = automaton(problem.metadata["pattern"])
        length = problem.metadata["length"]
        solved.update(machine.word(length, i) for i in range(machine.num_words(length)))
    assert solved.most_common(1)[0][1] <= 0.05 * len(seen)


def test_masks_are_the_language() -> None:
    """All prefixes of up to 5 letters: allowed exactly when some word within the budget continues so."""
    task = textenvs.make_task("regular_language", max_length=5, num_factors=2)
    for problem in [task[k] for k in range(0, len(task), len(task) // 12)]:
        words = {word for n in range(6) for word in words_of(problem.metadata["pattern"], n)}
        prefixes = {word[:i] for word in words for i in range(len(word) + 1)}
        for prefix in map("".join, itertools.chain.from_iterable(itertools.product("abc", repeat=n) for n in range(6))):
            allowed = task.legal(problem, task.vocab.encode(prefix).tolist())
            found = {task.vocab.tokens[i] for i in np.flatnonzero(allowed)}
            if prefix in prefixes:
                expected = {letter for letter in "abc" if prefix + letter in prefixes}
                assert found == expected | ({"<eos>"} if prefix in words else set())
            else:
                assert found == {"<eos>"}


def test_random_return_of_a_regular_language_by_brute_force() -> None:
    """Of all strings over the letters of the right length, each with its end token; other symbols never are a word."""
    task = textenvs.make_task("regular_language", max_length=5, num_factors=2, split="heldout")
    v, total = task.vocab.num_tokens, 0.0
    for k in range(len(task)):
        length = task[k].metadata["length"]
        strings = ["".join(letters) for letters in itertools.product("abc", repeat=length)]
        total += sum(scored("regular_language", task[k], *strings)) * float(v) ** -(length + 1)
    assert total > 0
    assert task.random_return() == pytest.approx(total / len(task), rel=1e-12)


@pytest.mark.parametrize("alphabet", ["abc", "abcde"])
@pytest.mark.parametrize("num_factors", [2, 5])
def test_the_smallest_and_largest_settings_have_all_their_problems(alphabet: str, num_factors: int) -> None:
    for max_length in (5, 100):
        task = textenvs.make_task(
            "regular_language", alphabet=alphabet, num_factors=num_factors, max_length=max_length, split="all"
        )
        step = 1 if (max_length, num_factors) == (5, 2) else len(task) // 5
        for k in range(0, len(task), step):
            assert len(task[k].prompt) <= task.max_prompt_tokens
            assert len(task[k].references[0]) == task[k].metadata["length"] <= max_length


@pytest.mark.parametrize("prompt", ["(ab|c)*a6", "6=", "(ab=", "d*3=", "a*9=", "a5=", "(((((6=", "a" * 70 + "3="])
def test_prompts_that_are_no_regular_language(prompt: str) -> None:
    with pytest.raises(ValueError, match=r"prompt must|an expression must"):
        textenvs.make_task("regular_language").problem(prompt)


def test_a_regular_language_of_ones_own() -> None:
    problem = textenvs.make_task("regular_language").problem("(ab|c)*a6=")
    assert re.fullmatch("(ab|c)*a", problem.references[0])
    assert len(problem.references[0]) == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_factors": 1}, "num_factors must be an int in"),
        ({"max_length": 4}, "max_length must be an int in"),
        ({"alphabet": "aab"}, "alphabet must be 3 to 5 distinct lower-case letters"),
        ({"alphabet": "ab|"}, "alphabet must be 3 to 5 distinct lower-case letters"),
        ({"masked": 1}, "masked must be True or False"),
        ({"split": "test"}, "split must be one of"),
    ],
)
def test_regular_language_settings(options: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        textenvs.make_task("regular_language", **options)
