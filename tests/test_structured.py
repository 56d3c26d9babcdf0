"""JSON requests, regular languages and Countdown: checkers against brute force, masks, splits, attacks."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from fractions import Fraction
from math import comb
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reward_batches import responses_of

import textenvs
from textenvs.rewards.json_checks import JsonSchema, loads
from textenvs.tasks.structured_countdown import combined, expression_value, multiset
from textenvs.tasks.structured_json import DEAD, START, SYMBOLS, TEXTS, TO_END, JsonRequest, State, _after, _to_end
from textenvs.tasks.structured_regular import Automaton, automaton

NAMES = {"json_request": "JsonRequest", "regular_language": "RegularLanguage", "countdown": "Countdown"}


def problems(name: str, **options: Any) -> list[textenvs.Problem]:
    task = textenvs.make_task(name, **options)
    return [task[k] for k in range(0, len(task), max(1, len(task) // 300))]


def scored(name: str, problem: textenvs.Problem, *texts: str) -> list[float]:
    reward = textenvs.as_reward(textenvs.make_task(name).reward)
    return [float(value) for value in reward([problem] * len(texts), responses_of(texts)).values]


# ------------------------------------------------------------------------------------------------------------ all


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_scores_one_through_the_env(name: str) -> None:
    env: Any = gym.make(f"textenvs/{NAMES[name]}-v0").unwrapped
    for k in range(0, len(env.rules.task), max(1, len(env.rules.task) // 60)):
        env.reset(options={"problem": k})
        for token in env.demonstration():
            assert env.action_masks()[token]
            _, reward, terminated, _, info = env.step(token)
        assert (reward, terminated, info["is_success"], info["finish_reason"]) == (1.0, True, True, "eos")


@pytest.mark.parametrize("name", NAMES)
def test_prompts_of_the_splits_are_disjoint_and_fit(name: str) -> None:
    for options in ({}, {"split": "heldout"}, {"split": "all"}):
        task = textenvs.make_task(name, **options)
        rules = textenvs.Rules(task)
        for k in range(0, len(task), len(task) // 50):
            rules.start(k)  # raises when a prompt is too long
            assert len(rules.demonstration(task[k]) or ()) < task.max_new_tokens + 1
            assert (rules.demonstration(task[k]) or [0])[-1] == task.vocab.eos_id
    heldout, train = ({problem.prompt for problem in problems(name, split=split)} for split in ("heldout", "train"))
    assert not train & heldout
    assert len(heldout) >= 290


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_padding_a_wrong_answer_never_pays(name: str, data: st.DataObject) -> None:
    task = textenvs.make_task(name)
    problem = task[data.draw(st.integers(0, len(task) - 1))]
    alphabet = "".join(task.vocab.tokens[:-1])
    text, pad = data.draw(st.text(alphabet, max_size=12)), data.draw(st.text(alphabet, min_size=1, max_size=6))
    value, padded, suffixed, prefixed = scored(
        name, problem, text, text + pad, problem.references[0] + pad, pad + problem.references[0]
    )
    assert value in (0, 1)
    if name != "json_request" or pad.strip():
        assert suffixed == 0 or expression_reaches(problem, problem.references[0] + pad)
        assert prefixed == 0 or expression_reaches(problem, pad + problem.references[0])
    if value == 0 and padded == 1:  # then it is right by itself, and the pad was what was missing
        assert scored(name, problem, text + pad) == [1]


def expression_reaches(problem: textenvs.Problem, text: str) -> bool:
    """Whether a padded Countdown expression happens to be right, such as 7+12 padded to be 3*7+12."""
    numbers = problem.metadata.get("numbers")
    return numbers is not None and expression_value(text, numbers) == problem.metadata["target"]


# ------------------------------------------------------------------------------------------------ regular language

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


# ------------------------------------------------------------------------------------------------------- countdown


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


# ---------------------------------------------------------------------------------------------------- json request


@pytest.mark.parametrize(
    "options", [{}, {"num_fields": 7, "nested": True}, {"num_fields": 1}, {"num_fields": 1, "nested": True}]
)
def test_json_requests_are_what_the_page_says(options: dict[str, Any]) -> None:
    for split in ("train", "heldout"):
        task = textenvs.make_task("json_request", split=split, **options)
        for k in range(0, len(task), len(task) // 60):
            problem = task[k]
            record = problem.metadata["expected"]
            assert loads(problem.references[0]) == record
            assert len(record) == task.num_fields + task.nested
            assert len(problem.references[0]) < task.max_new_tokens
            assert len(problem.prompt) <= task.max_prompt_tokens
            assert all(key in problem.prompt for key in record)
            ids = task.vocab.encode(problem.references[0]).tolist()
            assert all(task.legal(problem, ids[:i])[token] for i, token in enumerate([*ids, task.vocab.eos_id]))


def test_references_conform_to_their_schema_and_wrong_shapes_do_not() -> None:
    seen = problems("json_request", num_fields=7, nested=True)[:20]
    wrong = [json.dumps({**p.metadata["expected"], "age": "1"}) for p in seen]
    reward = JsonSchema()
    assert reward(seen, responses_of([p.references[0] for p in seen])).values.tolist() == [1] * len(seen)
    assert reward(seen, responses_of(wrong)).values.tolist() == [0] * len(seen)


def leaves_of(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*map(leaves_of, value.values()))
    if isinstance(value, list):
        return set().union(*map(leaves_of, value))
    return {str(value)}


def test_json_splits_share_neither_values_nor_wordings() -> None:
    words, wordings = {}, {}
    for split in ("train", "heldout"):
        seen = problems("json_request", num_fields=7, nested=True, split=split)[::4]
        words[split] = set().union(*(leaves_of(problem.metadata["expected"]) for problem in seen)) - {"True", "False"}
        shapes = set()
        for problem in seen:
            text = problem.prompt
            for word in sorted(words[split] | {"yes", "no"}, key=len, reverse=True):
                text = re.sub(rf"\b{word}\b", "_", text)
            for key in sorted({*problem.metadata["expected"], "street", "color", "door"}, key=len, reverse=True):
                text = re.sub(rf"\b{key}\b", "k", text)
            shapes |= {
                " ".join(pair) for pair in itertools.pairwise(text.split()) if not set("".join(pair)) <= set("k_+:;")
            }
        wordings[split] = shapes
    assert len(words["heldout"]) > 30
    assert not words["train"] & words["heldout"]
    assert not wordings["train"] & wordings["heldout"]
    assert not any(set(train.split()) & set(heldout.split()) for train, heldout in TEXTS.values())


def test_json_answers_right_and_wrong() -> None:
    problem = textenvs.Problem("q:", ('{"name":"ida","age":42}',), {"expected": {"name": "ida", "age": 42}})
    right = ['{"name":"ida","age":42}', '{"age":42,"name":"ida"}', '{ "name": "ida", "age": 42 }']
    wrong = [
        '{"name":"ida","age":"42"}',
        '{"name":"ida"}',
        '{"name":"ida","age":42,"age":42}',
        '[{"name":"ida","age":42}]',
    ]
    wrong += ["", "{}", '{"name":"ida","age":42}}', '{"name":"ida","age":42.0}', '{"name":"ada","name":"ida","age":42}']
    assert scored("json_request", problem, *right, *wrong) == [1] * len(right) + [0] * len(wrong)


class Budget(JsonRequest):
    """The same with another budget."""

    def __init__(self, max_new_tokens: int) -> None:
        super().__init__()
        self.max_new_tokens = max_new_tokens


@pytest.mark.parametrize("budget", [2, 3, 4, 5, 6, 7, 9, 12, 20])
def test_a_masked_walk_ends_in_json_within_any_budget(budget: int) -> None:
    task, rng, texts = Budget(budget), np.random.default_rng(budget), set()
    for _ in range(60):
        ids: list[int] = []
        while not ids or ids[-1] != task.vocab.eos_id:
            ids.append(int(rng.choice(np.flatnonzero(task.legal(task[0], ids)))))
        assert len(ids) <= budget
        json.loads(task.vocab.decode(ids))
        texts.add(task.vocab.decode(ids))
    assert len(texts) > 5


def test_the_way_to_the_end_is_the_shortest_there_is() -> None:
    """Breadth-first search from every state that 4 symbols lead to."""

    def done(state: State) -> bool:
        return not state.stack and (
            state.mode in ("end", "zero", "number") or (state.mode == "literal" and not state.literal)
        )

    def steps(states: set[State]) -> set[State]:
        return {_after(state, symbol) for state in states for symbol in '{}[]":,01-ntfrueals'} - {DEAD}

    reached = frontier = {START}
    for _ in range(4):
        frontier = steps(frontier) - reached
        reached = reached | frontier
    assert {state.mode for state in reached} | {"key"} == set(TO_END)
    for state in [*reached, State("key", "{"), State("key", "[{")]:
        distance, seen, frontier = 0, {state}, {state}
        while not any(map(done, frontier)):
            frontier = steps(frontier) - seen
            seen, distance = seen | frontier, distance + 1
        assert _to_end(state) == distance, state


TEXT = st.text("".join(set(SYMBOLS) - {'"'}), max_size=6)
SHORT: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None)
@given(value=SHORT)
def test_every_short_json_text_is_allowed_in_a_budget_that_just_fits(value: Any) -> None:
    text = json.dumps(value, separators=(",", ":"))
    task = Budget(len(text) + 1)
    ids = [*task.vocab.encode(text).tolist(), task.vocab.eos_id]
    for i, token in enumerate(ids):
        assert task.legal(task[0], ids[:i])[token], text[:i]
    tight = Budget(len(text))
    assert not all(tight.legal(tight[0], ids[:i])[token] for i, token in enumerate(ids))


@settings(max_examples=80, deadline=None)
@given(prefix=st.lists(st.sampled_from('{}[]":,0-1tf ')), extra=st.sampled_from('{}[]":,0-1tf '))
def test_after_what_is_no_json_only_the_end_is_allowed(prefix: list[str], extra: str) -> None:
    """And a symbol that is allowed can be completed: by the mask itself, to the end."""
    task = Budget(len(prefix) + 12)
    ids = task.vocab.encode("".join(prefix)).tolist()
    legal = all(task.legal(task[0], ids[:i])[token] for i, token in enumerate(ids))
    mask = task.legal(task[0], ids)
    assert mask.any()
    if not legal:
        assert np.flatnonzero(mask).tolist() == [task.vocab.eos_id]
    elif mask[SYMBOLS.index(extra)]:
        ids.append(SYMBOLS.index(extra))
        while ids[-1] != task.vocab.eos_id:
            ids.append(int(np.flatnonzero(task.legal(task[0], ids))[-1]))
        json.loads(task.vocab.decode(ids))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("json_request", {"num_fields": 8}, r"num_fields must be an int in \[1, 7\]"),
        ("json_request", {"nested": 1}, "nested must be True or False"),
        ("json_request", {"split": "dev"}, "split must be one of"),
        ("countdown", {"num_numbers": 1}, "num_numbers must be an int in"),
        ("countdown", {"max_number": 101}, "max_number must be an int in"),
        ("countdown", {"max_target": 9}, "max_target must be an int in"),
        ("countdown", {"max_number": 100, "max_target": 99}, r"max_target must be an int in \[100, 1000\], got 99"),
    ],
)
def test_settings_that_make_no_task(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        textenvs.make_task(name, **options)
