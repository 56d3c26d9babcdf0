"""The packs of Translate, ConstrainedRewrite and StyleTransfer: contents, splits, and that they rebuild."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import textenvs
from textenvs.assets import packs
from textenvs.assets.frames import HERE, Frame, read_frames
from textenvs.pack_task import PackTask
from textenvs.tasks import make_task

PACKS = ("translate", "rewrite", "style")
TASK = {"translate": "translate", "rewrite": "constrained_rewrite", "style": "style_transfer"}
ID = {"translate": "textenvs/Translate-v0", "rewrite": "textenvs/ConstrainedRewrite-v0"}
ID["style"] = "textenvs/StyleTransfer-v0"
CONTEXT = json.loads((Path(__file__).parent.parent / "agents/assets/tiny/config.json").read_text())


def pack(name: str, split: str) -> list[textenvs.Problem]:
    task = make_task(TASK[name], split=split)
    return [task[k] for k in range(len(task))]


def play(env: Any, k: int, text: str) -> tuple[float, dict[str, Any]]:
    """One episode through the env; the end token where there is room."""
    env.reset(options={"problem": k})
    for token in [*env.rules.vocab.encode(text).tolist(), env.rules.vocab.eos_id]:
        _, reward, terminated, _, info = env.step(token)
        if terminated:
            break
    return reward, info


@pytest.mark.parametrize("split", ["train", "heldout"])
@pytest.mark.parametrize("name", PACKS)
def test_every_reference_of_every_problem_scores_1_through_the_env(name: str, split: str) -> None:
    env: Any = gym.make(ID[name], split=split).unwrapped
    for k in range(len(env.rules.task)):
        for reference in env.rules.task[k].references:
            reward, info = play(env, k, reference)
            assert (reward, info["finish_reason"], info["is_success"]) == (1.0, "eos", True), (k, reference)


@pytest.mark.parametrize("name", PACKS)
def test_sizes_are_those_on_the_page(name: str) -> None:
    sizes = [len(pack(name, split)) for split in ("train", "heldout")]
    assert sizes[0] >= 300
    assert sizes[1] >= 60
    page = import_module(textenvs.TASKS[TASK[name]].split(":")[0]).__doc__ or ""
    assert f"{sizes[0]} problems to train on, {sizes[1]} held out" in page.replace("\n", " ")


@pytest.mark.parametrize("name", PACKS)
def test_no_prompt_comes_twice_and_no_frame_is_in_both_splits(name: str) -> None:
    train, heldout = pack(name, "train"), pack(name, "heldout")
    assert set(Counter(problem.prompt for problem in train + heldout).values()) == {1}
    frames = [{problem.metadata["frame"] for problem in problems} for problems in (train, heldout)]
    assert not frames[0] & frames[1]
    assert len(frames[0]) >= 40
    assert len(frames[1]) >= 12
    card = (HERE / "README.md").read_text(encoding="utf-8")
    assert f"| {len(train)}, {len(frames[0])} | {len(heldout)}, {len(frames[1])} |" in card


def grams(problems: list[textenvs.Problem], n: int) -> list[tuple[str, ...]]:
    """Runs of n words in prompts and references."""
    texts = [re.findall(r"[\w']+", text.lower()) for p in problems for text in (p.prompt, *p.references)]
    return [tuple(words[i : i + n]) for words in texts for i in range(len(words) - n + 1)]


@pytest.mark.parametrize("name", PACKS)
def test_the_splits_share_no_run_of_8_words(name: str) -> None:
    train, heldout = set(grams(pack(name, "train"), 8)), set(grams(pack(name, "heldout"), 8))
    assert len(heldout) > 100
    assert not train & heldout


@pytest.mark.parametrize("name", ["rewrite", "style"])
def test_the_splits_share_no_filler(name: str) -> None:
    splits = read_frames(HERE / f"{name}_frames.txt")
    train, heldout = (
        {filler for frame in splits[split] for pairs in frame.slots.values() for pair in pairs for filler in pair}
        for split in ("train", "heldout")
    )
    assert not train & heldout, train & heldout


@pytest.mark.parametrize("name", PACKS)
def test_prompt_and_reference_fit_the_budget_and_the_shipped_model(name: str) -> None:
    rules = textenvs.Rules(TASK[name], split="all")
    assert rules.max_prompt_tokens <= 64
    assert rules.max_new_tokens <= 40
    assert rules.width <= CONTEXT["max_position_embeddings"]
    assert rules.num_tokens == CONTEXT["vocab_size"]
    longest = max(len(rules.vocab.encode(text)) for p in pack(name, "all") for text in p.references)
    assert longest < rules.max_new_tokens, "room for the end token"


@pytest.mark.parametrize("split", ["train", "heldout"])
@pytest.mark.parametrize("name", PACKS)
def test_copying_the_source_is_far_from_a_reference(name: str, split: str) -> None:
    env: Any = gym.make(ID[name], split=split).unwrapped
    problems = pack(name, split)
    sources = [p.metadata.get("source") or p.prompt.removeprefix("Spanish: ").strip() for p in problems]
    mean = sum(play(env, k, source)[0] for k, source in enumerate(sources)) / len(sources)
    assert mean <= {"translate": 0.2, "rewrite": 0, "style": 0}[name]


def test_the_packs_rebuild_to_the_committed_bytes() -> None:
    listed = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))["files"]
    built = packs.build()
    assert {f"{name}_{split}.jsonl" for name in PACKS for split in ("train", "heldout")} < set(built)
    for name, (content, source) in built.items():
        assert (HERE / name).read_bytes() == content, f"{name}: run python -m textenvs.assets.packs"
        assert listed[name]["sha256"] == hashlib.sha256(content).hexdigest()
        assert listed[name]["source"] == source
    assert packs.main(["--check"]) == 0


def test_fillings_are_distinct_agree_on_both_sides_and_start_with_a_capital() -> None:
    slots = {"a": [("x", "y"), ("z", "z")], "b": [("1", "1"), ("2", "2"), ("3", "3")]}
    fillings = Frame(["{a} has {b}"], ["[{a}] {b}"], slots).fillings(10)
    expected = {(f"{a} has {b}", f"[{c}] {b}") for a, c in (("X", "Y"), ("Z", "Z")) for b in "123"}
    assert {(left, right) for (left,), (right,) in fillings} == expected
    assert len(fillings) == 6
    assert Frame(["{a} has {b}"], [], slots).fillings(2) == [(left, []) for left, _ in fillings[:2]]


def test_a_frame_file_with_a_bad_line_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "frames.txt"
    file.write_text("# head\n== train\n< a {b}\n> c {b}\nb = d | e / f\n\nnonsense\n")
    with pytest.raises(ValueError, match=r"frames.txt:7 must be a frame's line, got 'nonsense'"):
        read_frames(file)


@pytest.mark.parametrize("name", PACKS)
def test_settings_and_prompts_that_are_not_there(name: str) -> None:
    with pytest.raises(ValueError, match="split must be one of train, heldout, all, got 'test'"):
        gym.make(ID[name], split="test")
    with pytest.raises(TypeError, match="'prompts' is not a setting"):
        gym.make(ID[name], prompts=["Spanish: Hello.\n"])
    env = gym.make(ID[name])
    with pytest.raises(ValueError, match="must have"):
        env.reset(options={"prompt": "Say: Hello.\n"})
    with pytest.raises(IndexError, match="k must be in"):
        make_task(TASK[name])[-1]
    prompt = pack(name, "train")[7].prompt
    assert env.reset(options={"prompt": prompt})[1]


def test_a_task_is_made_quickly_and_shares_its_limits_between_splits() -> None:
    for name in PACKS:
        tasks = [make_task(TASK[name], split=split) for split in ("train", "heldout", "all")]
        assert all(isinstance(task, PackTask) for task in tasks)
        assert len({task.max_prompt_tokens for task in tasks}) == 1
        assert len(tasks[0]) + len(tasks[1]) == len(tasks[2])
