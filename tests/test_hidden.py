"""What is hidden stays hidden: who knows all of train but ignores the replies earns no more than the pages say."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

import textenvs
from textenvs.tasks.slot_filling import SLOTS

#: The largest share of problems that such a policy solves by what the page says: par of size, 1 of 84, 1 of 24.
CHANCE = {"guess_number": 8 / 200, "slot_filling": 1 / 84, "twenty_questions": 1 / 24}
#: Answers that count as solved at once: only a number may be guessed again.
TRIES = {"guess_number": 8, "slot_filling": 1, "twenty_questions": 1}


@cache
def problems(name: str, split: str) -> Sequence[textenvs.Problem]:
    task = textenvs.make_task(name, split=split)
    return [task[k] for k in range(len(task))]


@cache
def hidden_in_train(name: str) -> dict[str, list[str]]:
    known = defaultdict(list)
    for problem in problems(name, "train"):
        known[problem.prompt].append(problem.references[0])
    return known


def place(name: str, problem: textenvs.Problem, reference: str) -> str:
    """An answer as what another prompt could share: a number's offset in its range, the missing values, the thing."""
    if name == "guess_number":
        return str(int(reference) - int(problem.prompt.split("-")[0]))
    words = reference.split(" ")
    missing = problem.metadata.get("missing", [])
    return " ".join(word for slot, word in zip(SLOTS, words, strict=False) if slot in missing) or reference


def solved(name: str, split: str, orders: dict[str, Sequence[str]]) -> float:
    """Share of the problems whose place is among the first tries of their prompt's order."""
    rows = [problem for problem in problems(name, split) if problem.prompt in orders]
    return float(np.mean([place(name, p, p.references[0]) in orders[p.prompt][: TRIES[name]] for p in rows]))


@pytest.mark.parametrize("name", CHANCE)
def test_saying_what_train_hid_behind_the_same_prompt_is_chance(name: str) -> None:
    orders: dict[str, Sequence[str]] = {}
    for problem in problems(name, "train"):
        counts = Counter(place(name, problem, reference) for reference in hidden_in_train(name)[problem.prompt])
        orders.setdefault(problem.prompt, [answer for answer, _ in counts.most_common()])
    assert solved(name, "train", orders) <= CHANCE[name]


@pytest.mark.parametrize("name", CHANCE)
@pytest.mark.parametrize("num_near", [1, 6, 10_000])
def test_saying_what_similar_prompts_hid_is_chance_on_heldout(name: str, num_near: int) -> None:
    """Votes of the train prompts that share most with the held-out one: the nearest ranges, most words in common."""
    voters = {problem.prompt: problem for problem in problems(name, "train")}
    orders: dict[str, Sequence[str]] = {}
    asked = {problem.prompt: problem for problem in problems(name, "heldout")}
    for prompt, problem in itertools.islice(asked.items(), 50):

        def distance(other: str, prompt: str = prompt) -> int:
            if name == "guess_number":
                return abs(int(other.split("-")[0]) - int(prompt.split("-")[0]))
            return len(set(other[:-1].split(" ")) ^ set(prompt[:-1].split(" ")))

        votes: Counter[str] = Counter()
        for near in sorted(voters, key=distance)[:num_near]:
            if voters[near].metadata.get("missing") == problem.metadata.get("missing"):
                votes.update(place(name, voters[near], reference) for reference in hidden_in_train(name)[near])
        possible = {"!" + thing for thing in prompt[:-1].split(" ")} if name == "twenty_questions" else set(votes)
        orders[prompt] = [answer for answer, _ in votes.most_common() if answer in possible]
    num = sum(problem.prompt in orders for problem in problems(name, "heldout"))
    assert solved(name, "heldout", orders) <= CHANCE[name] + 2 * (CHANCE[name] / num) ** 0.5


@pytest.mark.parametrize("name", CHANCE)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_every_prompt_hides_equally_many_things_and_few_prompts_do_not_come_together(name: str, split: str) -> None:
    rows = problems(name, split)
    counts = Counter(problem.prompt for problem in rows)
    assert set(counts.values()) == {{"guess_number": 200, "slot_filling": 84, "twenty_questions": 24}[name]}
    assert len({(problem.prompt, problem.references) for problem in rows}) == len(rows)
    some = 2 * len(counts)
    for part in (rows[:some], rows[:: len(rows) // some]):
        assert max(Counter(problem.prompt for problem in part).values()) <= 12
        assert len({problem.prompt for problem in part}) >= len(counts) // 2


@pytest.mark.parametrize(
    ("name", "settings", "num_prompts", "num_each"),
    [
        ("guess_number", {"size": 4, "max_number": 10**9 - 1}, 10_000, 4),
        ("guess_number", {"size": 500, "max_number": 10_000}, 80, 500),
        ("guess_number", {"size": 100_000, "max_number": 10**9 - 1, "max_guesses": 17}, 20, 2000),
        ("guess_number", {"size": 200, "max_number": 210}, 11, 200),
        ("slot_filling", {"num_missing": 1}, 5714, 7),
        ("slot_filling", {"num_missing": 3}, 39, 1008),
        ("twenty_questions", {"num_candidates": 2}, 1128, 2),
        ("twenty_questions", {"num_candidates": 40}, 1000, 40),
    ],
)
def test_prompts_and_what_they_hide_fit_forty_thousand(
    name: str, settings: dict[str, Any], num_prompts: int, num_each: int
) -> None:
    tasks = [textenvs.make_task(name, split=split, **settings) for split in ("train", "heldout")]
    seen = [{(task[k].prompt, task[k].references) for k in range(len(task))} for task in tasks]
    counts = [Counter(prompt for prompt, _ in pairs) for pairs in seen]
    assert sum(map(len, counts)) == len(counts[0] | counts[1]) == num_prompts
    assert set(counts[0].values()) == set(counts[1].values()) == {num_each}
    assert sum(map(len, tasks)) == sum(map(len, seen)) == num_prompts * num_each


def test_which_things_a_prompt_hides_says_nothing_of_the_next_prompt() -> None:
    """Of 100,000 numbers each range hides 2,000: two ranges share about 2,000 ** 2 / 100,000 offsets, not most."""
    task = textenvs.make_task("guess_number", size=100_000, max_number=10**6, max_guesses=17, split="all")
    offsets = defaultdict(set)
    for k in range(len(task)):
        offsets[task[k].prompt].add(place("guess_number", task[k], task[k].references[0]))
    shared = [len(one & two) for one, two in itertools.combinations(offsets.values(), 2)]
    assert np.mean(shared) < 80


def test_every_turn_that_the_masks_allow_is_a_number() -> None:
    """All of them, one digit after the other: 0 to 999, none with a leading zero, and the reply to none is `?`."""
    task = textenvs.make_task("guess_number")
    problem, turns, starts = task[0], set(), [""]
    while starts:
        start = starts.pop()
        # After a first turn and its reply, so that what came before is no part of the turn.
        ids = [*task.vocab.encode("10"), task.vocab.eos_id, *task.vocab.encode("<" + start)]
        for token in np.flatnonzero(task.legal(problem, ids)):
            if token == task.vocab.eos_id:
                turns.add(start)
            else:
                starts.append(start + task.vocab.tokens[token])
    assert turns == {str(number) for number in range(1000)}
    assert all(task.reply(problem, [turn]) != "?" for turn in turns)
