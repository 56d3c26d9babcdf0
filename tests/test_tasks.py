"""Every task with a reference is solved by it; the string tasks know exactly what chance earns."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import textenvs
from textenvs.rewards import as_reward
from textenvs.task import permuted, split_range

STRINGS = ["copy", "reverse", "sort", "count", "length"]
SOLVED = {
    "copy": [("abca=", "abca")],
    "reverse": [("abcd=", "dcba")],
    "sort": [("hcab=", "abch")],
    "count": [("ab=", "cdef"), ("h=", "abcd"), ("efgh=", "abcd")],
    "length": [("ccc=", "ccc")],
}


@pytest.mark.parametrize("name", STRINGS)
def test_worked_examples(name: str) -> None:
    task = textenvs.make_task(name)
    assert [(prompt, task.problem(prompt).references[0]) for prompt, _ in SOLVED[name]] == SOLVED[name]


@pytest.mark.parametrize("name", STRINGS)
def test_the_reference_scores_one_through_the_env(name: str) -> None:
    env = gym.make_vec(f"textenvs/{name.title()}-v0", num_envs=1)
    for k in range(20):
        env.reset(options={"problem": k})
        reward = sum(float(env.step(np.array([token]))[1][0]) for token in env.unwrapped.demonstration()[0])
        assert reward == 1.0


@pytest.mark.parametrize("name", STRINGS)
def test_splits_are_disjoint_and_cover_everything(name: str) -> None:
    tasks = {
        split: textenvs.make_task(name, split=split, length=3, alphabet="abcd") for split in ("train", "heldout", "all")
    }
    prompts = {split: [task[k].prompt for k in range(len(task))] for split, task in tasks.items()}
    assert len(set(prompts["all"])) == len(prompts["all"]) == tasks["all"].num_inputs()
    assert sorted(prompts["train"] + prompts["heldout"]) == sorted(prompts["all"])
    assert len(prompts["heldout"]) == len(prompts["all"]) // 5


def test_a_large_space_holds_10000_problems() -> None:
    task = textenvs.make_task("copy", length=40, split="all")
    assert len(task) == 10_000
    assert len({task[k].prompt for k in range(len(task))}) == 10_000


@pytest.mark.parametrize("name", STRINGS)
def test_random_return_and_optimum_by_brute_force(name: str) -> None:
    """All V^T token sequences of a small task, each with its probability, scored one by one through the env's rules."""
    task = textenvs.make_task(name, length=2, alphabet="abc", split="all")
    v, eos = task.vocab.num_tokens, task.vocab.eos_id
    expected, best = 0.0, 0.0
    for k in range(len(task)):
        outcomes: dict[tuple[int, ...], float] = {}
        for tokens in itertools.product(range(v), repeat=task.max_new_tokens):
            cut = tokens[: tokens.index(eos)] if eos in tokens else tokens
            outcomes[cut] = outcomes.get(cut, 0.0) + v**-task.max_new_tokens
        rows = np.full((len(outcomes), task.max_new_tokens), -1)
        for row, cut in zip(rows, outcomes, strict=True):
            row[: len(cut)] = cut
        lengths = np.array([len(cut) for cut in outcomes])
        responses = textenvs.Responses(rows, lengths, ["eos"] * len(rows), task.vocab)
        values = as_reward(task.reward)([task[k]] * len(rows), responses).values
        expected += float(values @ np.array(list(outcomes.values()))) / len(task)
        best += float(values.max()) / len(task)
    assert task.random_return() == pytest.approx(expected, abs=1e-12)
    assert task.optimal_return() == 1.0
    assert best == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", STRINGS)
def test_random_return_agrees_with_played_episodes(name: str) -> None:
    env_id = f"textenvs/{name.title()}-v0"
    envs = gym.make_vec(env_id, num_envs=200, autoreset_mode="SameStep")
    envs.reset(seed=0)
    rng, returns = np.random.default_rng(0), []
    while len(returns) < 20_000:
        _, rewards, terminated, _, _ = envs.step(rng.integers(envs.single_action_space.n, size=200))
        returns += rewards[terminated].tolist()
    expected = textenvs.make_task(name).random_return()
    assert abs(np.mean(returns) - expected) < 4 * np.std(returns) / len(returns) ** 0.5


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 3000))
def test_permuted_is_a_permutation(size: int) -> None:
    assert sorted(permuted(k, size) for k in range(size)) == list(range(size))


def test_permuted_reaches_any_size_and_refuses_what_is_outside() -> None:
    huge = 8**500
    values = {permuted(k, huge) for k in range(50)}
    assert len(values) == 50
    assert max(values) > huge // 2
    for k in (-1, 5):
        with pytest.raises(IndexError, match=r"\[0, 5\)"):
            permuted(k, 5)


def test_too_few_to_split() -> None:
    assert list(split_range(9, "all")) == list(range(9))
    assert (len(split_range(10, "train")), len(split_range(10, "heldout"))) == (8, 2)
    with pytest.raises(ValueError, match="split='all'"):
        split_range(9, "train")


@pytest.mark.parametrize(("prompt", "words"), [("ab", "'='"), ("=", "'='"), ("aZ=", "abcdefgh"), ("a=b=", "abcdefgh")])
def test_a_prompt_the_task_cannot_read(prompt: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        textenvs.make_task("copy").problem(prompt)


def test_neighbouring_seeds_share_nothing() -> None:
    """The problems of seeds s and s + 1 agree no more often than chance."""
    env: Any = gym.make("textenvs/Copy-v0").unwrapped
    draws = {}
    for seed in (0, 1, 2):
        draws[seed] = [env.reset(seed=seed)[1]["problem"]] + [env.reset()[1]["problem"] for _ in range(300)]
    for a, b in itertools.combinations(draws.values(), 2):
        for shift in (0, 1):
            same = sum(x == y for x, y in zip(a[shift:], b, strict=False))
            assert same <= 3  # 301 draws from 3,277 problems: expected 0.09


@pytest.mark.parametrize("separator", ["\u2028", "\x0b", "\x0c", "\x1c", "\x85"])
def test_a_prompt_file_has_a_prompt_a_line_and_breaks_at_line_feeds_only(separator: str, tmp_path: Path) -> None:
    prompts = [f"One{separator}and on", "two"]
    (tmp_path / "a.txt").write_text("\r\n".join(prompts), encoding="utf-8", newline="")
    rows = [json.dumps({"prompt": prompt}, ensure_ascii=False) for prompt in prompts]
    (tmp_path / "a.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8", newline="")
    for name in ("a.txt", "a.jsonl"):
        task = textenvs.Rules(prompts=str(tmp_path / name)).task
        assert [task[k].prompt for k in range(len(task))] == prompts
