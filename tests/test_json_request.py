"""JSON requests: what they ask for, masks against a search, splits."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reward_batches import responses_of
from structured import problems, scored

import textenvs
from textenvs.rewards.json_checks import JsonSchema
from textenvs.strict_json import DOCUMENT, read_json
from textenvs.tasks.structured_json import DEAD, START, SYMBOLS, TEXTS, TO_END, JsonRequest, State, _after, _to_end


@pytest.mark.parametrize(
    "options", [{}, {"num_fields": 7, "nested": True}, {"num_fields": 3}, {"num_fields": 1, "nested": True}]
)
def test_json_requests_are_what_the_page_says(options: dict[str, Any]) -> None:
    for split in ("train", "heldout"):
        task = textenvs.make_task("json_request", split=split, **options)
        for k in range(0, len(task), len(task) // 60):
            problem = task[k]
            record = problem.metadata["expected"]
            assert read_json(problem.references[0]) == record
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


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
def test_a_masked_walk_never_nests_deeper_than_the_reward_reads(opening: str) -> None:
    task, rng = JsonRequest(num_fields=7, nested=True), np.random.default_rng(0)
    ids: list[int] = []
    for symbol in itertools.cycle(opening):
        token = SYMBOLS.index(symbol)
        if not task.legal(task[0], ids)[token]:
            break
        ids.append(token)
    while not ids or ids[-1] != task.vocab.eos_id:
        ids.append(int(rng.choice(np.flatnonzero(task.legal(task[0], ids)))))
    text = task.vocab.decode(ids)
    depth = max(itertools.accumulate((c in "[{") - (c in "]}") for c in text))
    assert depth == DOCUMENT.depth if opening == "[" else depth < DOCUMENT.depth, "the others need more tokens a level"
    read_json(text)


def test_records_differ_at_every_setting() -> None:
    """The counts of the page; and no constant answer is right more often than chance allows."""
    cases: list[tuple[dict[str, Any], tuple[int, int] | None]] = [
        ({}, (3811, 917)),
        ({"num_fields": 3}, (3999, 998)),
        ({"num_fields": 1, "nested": True}, None),
    ]
    for options, counts in cases:
        found = []
        for split in ("train", "heldout"):
            task = JsonRequest(split=split, **options)
            asked = [task[k] for k in range(len(task))]
            found.append(len({problem.prompt for problem in asked}))
            ((_, most),) = Counter(problem.references[0] for problem in asked).most_common(1)
            assert most <= 0.005 * len(asked)
        assert counts is None or tuple(found) == counts
    with pytest.raises(
        ValueError, match="num_fields must be at least 2 for records that differ, got 1; or pass nested"
    ):
        JsonRequest(num_fields=1)


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
