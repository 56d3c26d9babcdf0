"""WordProblem: answers against a reader of the stories, splits without a shared sentence, no give-away."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from test_text_reading import MAX_TOKENS, play

import textenvs
from textenvs.tasks import word_problems
from textenvs.tasks.word_problems import ASSETS, NUM_PROBLEMS, Draws, draw_numbers

ENV = "textenvs/WordProblem-v0"
SPLITS = ("train", "heldout")
WORDS = json.loads((ASSETS / "word_problems.json").read_text())
#: Every sixteenth problem: its residues run through all themes, people and plans.
STEP = 16


@cache
def problems_of(split: str, num_steps: int = 2, max_number: int = 50) -> list[textenvs.Problem]:
    task = textenvs.make_task("word_problem", split=split, num_steps=num_steps, max_number=max_number)
    return [task[k] for k in range(0, len(task), STEP if num_steps != 2 else 1)]


def numbers(problem: textenvs.Problem) -> list[int]:
    return [int(text) for text in re.findall(r"\d+", problem.prompt)]


def share(problems: list[textenvs.Problem], guess: Any) -> float:
    """Of how many problems the guess, a function of the numbers in the story, is the answer."""
    return float(np.mean([problem.references == (str(guess(numbers(problem))),) for problem in problems]))


@cache
def patterns(split: str) -> list[tuple[str, re.Pattern[str]]]:
    """(kind, pattern) of every sentence, its slots as groups."""
    slots = {"name": r"[A-Z][a-z]+", "He": "(?:He|She)", "he": "(?:he|she)"}
    found = []
    for theme in WORDS[split]["themes"]:
        for kind, sentences in theme.items():
            for sentence in sentences:
                pattern = re.escape(sentence).replace(r"\{", "{").replace(r"\}", "}")
                pattern = re.sub(r"\{(\w+)\}", lambda m: slots.get(m[1], r"(\d+)"), pattern)
                found.append((kind, re.compile(pattern)))
    return found


def solve(prompt: str, split: str) -> tuple[int, int, int]:
    """Answer, number of operations and number of sentences that do not matter, by reading sentence by sentence."""
    rest, total, num_steps, num_noise = prompt.strip(), 0, 0, 0
    while rest:
        kind, match = next((k, m) for k, p in patterns(split) if (m := p.match(rest)))
        amounts = [int(text) for text in match.groups()]
        if kind in ("start", "groups"):
            total = int(np.prod(amounts))
        elif kind == "share":
            total, remainder = divmod(total, amounts[0])
            assert remainder == 0
        elif kind in ("more", "less"):
            total += amounts[0] if kind == "more" else -amounts[0]
        assert total >= 0
        num_steps += kind in ("groups", "more", "less", "share")
        num_noise += kind == "noise"
        rest = rest[match.end() :].lstrip()
    return total, num_steps, num_noise


def test_a_story_by_hand() -> None:
    story = "Tom has 7 bags of 8 marbles. It is 9 days to May. He loses 6 marbles. "
    story += "He puts the marbles into 5 jars, the same number in each. How many are in a jar?\n"
    assert solve(story, "train") == (10, 3, 1)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_the_answer_is_what_a_reader_computes(split: str, num_steps: int) -> None:
    for problem in problems_of(split, num_steps)[::STEP]:
        assert solve(problem.prompt, split) == (int(problem.references[0]), num_steps, 1), problem.prompt


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("num_steps", "max_number"), [(1, 1000), (2, 20), (2, 50), (2, 1000), (3, 1000)])
def test_the_answer_is_not_given_away_and_all_fits(split: str, num_steps: int, max_number: int) -> None:
    problems = problems_of(split, num_steps, max_number)
    task = textenvs.make_task("word_problem", num_steps=num_steps, max_number=max_number)
    for problem in problems[::4]:
        seen, answer = numbers(problem), int(problem.references[0])
        assert answer >= 2
        assert answer not in (*seen, sum(seen))
        assert 2 <= min(seen) <= max(seen) <= max_number
        assert len(task.vocab.encode(problem.prompt)) <= task.max_prompt_tokens
        assert len(task.vocab.encode(problem.references[0])) < task.max_new_tokens
    default = textenvs.make_task("word_problem")
    assert default.max_prompt_tokens + default.max_new_tokens <= MAX_TOKENS


@pytest.mark.parametrize("split", SPLITS)
def test_what_reads_numbers_but_no_words_seldom_answers(split: str) -> None:
    problems = problems_of(split)
    answers = Counter(problem.references[0] for problem in problems)
    assert answers.most_common(1)[0][1] / len(problems) <= 0.04
    assert share(problems, lambda n: n[-1]) == share(problems, sum) == share(problems, max) == 0
    for i in range(3):
        assert share(problems, lambda n, i=i: sum(n) - n[i]) <= 0.05  # the sum without one of them
    assert share(problems, lambda n: n[0] + n[1]) <= 0.05
    assert share(problems, lambda n: n[0] - n[1]) <= 0.05
    assert share(problems, lambda n: n[0] * n[1]) <= 0.05


def test_splits_are_disjoint_and_no_problem_comes_twice() -> None:
    prompts = {split: [problem.prompt for problem in problems_of(split)] for split in (*SPLITS, "all")}
    assert {split: len(prompts[split]) for split in SPLITS} == NUM_PROBLEMS
    assert prompts["all"] == prompts["train"] + prompts["heldout"]
    assert len(set(prompts["all"])) == 10_000
    for num_steps in (1, 3):
        task = textenvs.make_task("word_problem", num_steps=num_steps, split="heldout")
        assert len({task[k].prompt for k in range(len(task))}) == len(task)


def test_the_splits_share_no_name_no_sentence_and_no_four_words() -> None:
    sentences = {
        split: [text for theme in WORDS[split]["themes"] for texts in theme.values() for text in texts]
        for split in SPLITS
    }
    assert {split: len(texts) for split, texts in sentences.items()} == {"train": 8 * 18, "heldout": 4 * 18}
    assert all(len(set(texts)) >= 0.9 * len(texts) for texts in sentences.values())
    names = {split: {name for group in WORDS[split]["names"].values() for name in group} for split in SPLITS}
    assert not names["train"] & names["heldout"]
    assert [len(names[split]) for split in SPLITS] == [24, 12]
    runs = {
        split: {run for text in texts for run in zip(*(text.split()[i:] for i in range(4)), strict=False)}
        for split, texts in sentences.items()
    }
    assert not runs["train"] & runs["heldout"]


def test_sentences_of_a_story_are_of_one_theme_and_none_comes_twice() -> None:
    for problem in problems_of("train", 3):
        sentences = re.split(r"(?<=[.?]) ", problem.prompt.strip())
        assert len({re.sub(r"\d+", "", text) for text in sentences}) == len(sentences)


def test_the_reference_scores_one_through_the_env_and_nothing_around_it() -> None:
    problems = problems_of("train")[:400]
    answers = [problem.references[0] for problem in problems]
    ids = list(range(400))
    assert play(ENV, ids, answers).tolist() == [1.0] * 400
    for change in ("{} ", " {}", "{}.", "{}.0", "0{}", "+{}", "-{}", "{} {}", "#### {}", "1{}", "{}\n", ""):
        assert play(ENV, ids[:50], [change.format(text, text) for text in answers[:50]]).sum() == 0, change


def test_problems_do_not_depend_on_what_came_before() -> None:
    task, again = (textenvs.make_task("word_problem", split="all") for _ in range(2))
    order = [9_999, 0, 8_000, 7_999, 5]
    assert [task[k] for k in order] == [again[k] for k in reversed(order)][::-1]
    assert task[8_000] == problems_of("heldout")[0]
    assert task[0].prompt == GOLDEN


#: A change of the first problem is a new version of the id.
GOLDEN = (
    "The tea costs 34 cents. Max has 2 shelves of 48 books. At a sale he gets 38 books. "
    "How many books does Max have now?\n"
)


def test_numbers_of_every_plan_by_their_definition() -> None:
    draws = Draws("test")
    for plans in word_problems.PLANS.values():
        for plan in plans:
            for _ in range(50):
                signs = [draws.between(0, 1) for _ in range(plan.num_moves)]
                drawn, answer = draw_numbers(plan, signs, 20, draws)
                total = int(np.prod(list(drawn.opening.values())))
                for n, sign in zip(drawn.moves, signs, strict=True):
                    total += n if sign else -n
                    assert total >= 2
                assert total == answer * drawn.share
                assert (drawn.share > 1) == plan.share


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_steps": 0}, r"num_steps must be an int in \[1, 3\], got 0"),
        ({"num_steps": True}, "num_steps must be an int in"),
        ({"num_steps": 2.0}, "num_steps must be an int in"),
        ({"max_number": 19}, r"max_number must be an int in \[20, 1000\], got 19"),
        ({"split": "test"}, "split must be one of"),
    ],
)
def test_settings_that_make_no_problem(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        textenvs.make_task("word_problem", **settings)
    task = textenvs.make_task("word_problem")
    for k in (-1, 8_000):
        with pytest.raises(IndexError, match=r"\[0, 8000\)"):
            task[k]


def test_a_prompt_of_ones_own_needs_a_reference() -> None:
    env: Any = gym.make(ENV).unwrapped
    with pytest.raises(ValueError, match="must have a reference"):
        env.reset(options={"prompt": "Two and two?\n"})
