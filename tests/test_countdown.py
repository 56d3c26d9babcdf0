"""Countdown: expressions against the trees they were spelt from, splits, settings."""

from __future__ import annotations

import itertools
import re
from fractions import Fraction
from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structured import problems, scored

import textenvs
from textenvs.tasks.structured_countdown import combined, expression_value, multiset


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("3*7+12", 33), ("3+7*12", 87), ("(3+7)*12", 120), ("12/(7-3)", 3), ("12-7-3", 2), ("12-(7-3)", 8), ("3", 3)),
        *(("12/7/3", Fraction(4, 7)), ("12/(7/3)", Fraction(36, 7)), ("((3))", 3), ("7/3*12", 28), ("3-7", -4)),
        *(("", None), ("3*7+12=33", None), ("33", None), ("3*3", None), ("3*7+12+3", None), ("3 * 7", None)),
        *(("-3+7", None), ("+3", None), ("3++7", None), ("3**7", None), ("3//7", None), ("(3", None), ("3)", None)),
        *(("()", None), ("3(7)", None), ("(3)(7)", None), ("3/(7-7)", None), ("03*7", None), ("3.0*7", None)),
        *(
            ("1_2", None),
            ("\u0663", None),
            ("\u00b3", None),
            ("3*7+12;", None),
            ("__import__('os')", None),
            ("3e1", None),
        ),
        *(("(" * 99 + "3" + ")" * 99, 3), ("(" * 150 + "3" + ")" * 150, None), ("9" * 100_000, None)),
        *(("37", None), ("12/3/0", None), ("3*-7", None), ("3,7", None), ("3:7", None), ("\ud800", None)),
    ],
)
def test_expressions_by_hand(text: str, value: Fraction | int | None) -> None:
    assert expression_value(text, [3, 7, 12]) == value


def test_a_number_given_twice_may_be_used_twice() -> None:
    assert [expression_value(text, [5, 5]) for text in ("5*5", "5*5*5", "5")] == [25, None, 5]


TREES: st.SearchStrategy[Any] = st.recursive(
    st.integers(0, 30), lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner), max_leaves=7
)


@given(tree=TREES)
def test_expressions_against_the_tree_they_were_spelt_from(tree: Any) -> None:
    leaves: list[int] = []

    def value(node: Any) -> Fraction:
        if isinstance(node, int):
            leaves.append(node)
            return Fraction(node)
        left, symbol, right = node
        a, b = value(left), value(right)
        return {"+": a + b, "-": a - b, "*": a * b}[symbol] if symbol != "/" else a / b

    def spelt(node: Any) -> str:
        return str(node) if isinstance(node, int) else f"({spelt(node[0])}){node[1]}({spelt(node[2])})"

    try:
        expected: Fraction | None = value(tree)
    except ZeroDivisionError:
        expected, leaves = None, [*range(31)] * 7
    text = spelt(tree)
    if len(text) <= 200:
        assert expression_value(text, leaves) == expected
        if expected is not None:
            assert expression_value(text, leaves[1:]) is None  # one number is missing


def test_multisets_one_to_one() -> None:
    for size, most in ((1, 5), (2, 4), (3, 5), (4, 6)):
        found = [tuple(multiset(rank, size, most)) for rank in range(comb(most + size - 1, size))]
        assert sorted(found) == sorted(itertools.combinations_with_replacement(range(1, most + 1), size))


@settings(max_examples=200, deadline=None)
@given(numbers=st.lists(st.integers(1, 50), min_size=2, max_size=6), seed=st.integers(0, 2**32))
def test_combined_expressions_spell_their_value_with_all_numbers(numbers: list[int], seed: int) -> None:
    value, text = combined(numbers, np.random.default_rng(seed))
    assert expression_value(text, numbers) == value
    assert sorted(map(int, re.findall("[0-9]+", text))) == sorted(numbers)


def test_countdown_splits_share_no_choice_of_numbers() -> None:
    chosen = {
        split: {tuple(sorted(p.metadata["numbers"])) for p in problems("countdown", split=split)}
        for split in ("train", "heldout")
    }
    assert not chosen["train"] & chosen["heldout"]
    sizes = [len(textenvs.make_task("countdown", split=split)) for split in ("train", "heldout", "all")]
    assert sizes == [4 * 1232, 4 * 308, 4 * 1540]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_numbers": 6, "max_number": 100, "max_target": 999},
        {"num_numbers": 2, "max_number": 4, "max_target": 10},
    ],
)
def test_countdown_problems_are_what_the_page_says(options: dict[str, int]) -> None:
    task = textenvs.make_task("countdown", split="all", **options)
    for k in range(0, len(task), max(1, len(task) // 40)):
        problem = task[k]
        numbers, target = problem.metadata["numbers"], problem.metadata["target"]
        assert problem.prompt == f"{','.join(map(str, numbers))}:{target}="
        assert target not in numbers
        assert 1 <= target <= task.max_target
        assert expression_value(problem.references[0], numbers) == target
        assert len(problem.references[0]) < task.max_new_tokens
        assert len(problem.prompt) <= task.max_prompt_tokens
        reference = problem.references[0]
        attacks = ["", str(target), reference + "=" + str(target), reference + "+0", f"({reference}", reference + ","]
        assert scored("countdown", problem, reference, f"({reference})", *attacks) == [1, 1] + [0] * len(attacks)
        assert task.problem(problem.prompt).metadata == problem.metadata


def test_every_countdown_has_a_target_where_few_combinations_reach_one() -> None:
    task = textenvs.make_task("countdown", num_numbers=6, max_number=100, max_target=100, split="all")
    assert all(task[k].references for k in range(0, len(task), 4 * 11))
    task = textenvs.make_task("countdown", num_numbers=6, max_number=10, max_target=10, split="all")
    assert all(task[k].references for k in range(0, len(task), 4 * 5))


@pytest.mark.parametrize("prompt", ["3,7:33", "3 7:33=", ":33=", "3,,7:33=", "-3,7:4=", "3,7:=", "\u0663,7:1="])
def test_prompts_that_are_no_countdown(prompt: str) -> None:
    with pytest.raises(ValueError, match="prompt must be numbers, a target and '='"):
        textenvs.make_task("countdown").problem(prompt)
