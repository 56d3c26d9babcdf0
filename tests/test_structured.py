"""Every structured task: its reference, its splits, padding, and settings that make no task."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structured import problems, scored

import textenvs
from textenvs.tasks.structured_countdown import expression_value

NAMES = {"json_request": "JsonRequest", "regular_language": "RegularLanguage", "countdown": "Countdown"}


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
