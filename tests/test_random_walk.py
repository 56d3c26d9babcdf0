"""Random walks: shortest paths against brute force, optimality by enumeration, masks that are the graph's edges."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import textenvs
from textenvs.tasks.random_walk import Optimality, draw_graph, shortest_lengths

#: b -> a, c -> b, c -> d, d -> a, d -> c, e -> c
EDGES = np.zeros((5, 5), bool)
EDGES[tuple(zip((1, 0), (2, 1), (2, 3), (3, 0), (3, 2), (4, 2), strict=True))] = True


def walk_task(**settings: Any) -> Any:
    return textenvs.make_task("random_walk", **settings)


def walks_from(edges: np.ndarray, start: int, max_nodes: int) -> list[tuple[int, ...]]:
    """Every legal walk from a start to node 0 of at most so many nodes, by trying all of them."""
    arrived, open_walks = [], [(start,)]
    while open_walks:
        walk = open_walks.pop()
        if walk[-1] == 0:
            arrived.append(walk)
        elif len(walk) < max_nodes:
            open_walks += [(*walk, int(v)) for v in np.flatnonzero(edges[walk[-1]])]
    return arrived


def test_shortest_lengths_of_a_graph_drawn_by_hand() -> None:
    assert shortest_lengths(EDGES).tolist() == [1, 2, 3, 2, 4]
    cut = EDGES.copy()
    cut[4] = False
    assert shortest_lengths(cut).tolist() == [1, 2, 3, 2, 6]


@pytest.mark.parametrize("graph_seed", range(6))
def test_shortest_paths_by_brute_force_on_all_starts(graph_seed: int) -> None:
    task = walk_task(graph_seed=graph_seed, max_length=8)
    for k in range(len(task)):
        problem, start = task[k], k + 1
        walks = walks_from(task.edges, start, 7)
        shortest = min(map(len, walks))
        assert task.shortest[start] == shortest
        reference = (problem.prompt + problem.references[0]).translate({ord(c): ord(c) - 97 for c in task.nodes})
        assert tuple(map(ord, reference)) == min(walk for walk in walks if len(walk) == shortest)


def test_the_graph_is_what_the_page_says() -> None:
    tasks = [walk_task(graph_seed=seed) for seed in range(20)]
    assert len({task.edges.tobytes() for task in tasks}) == 20
    assert (walk_task().edges == tasks[0].edges).all()
    for task in tasks:
        assert not task.edges[0].any()
        assert not task.edges.diagonal().any()
        assert task.shortest.max() < task.max_length
    density = np.mean([task.edges[1:].sum() for task in tasks]) / (20 * 20)
    assert 0.09 < density < 0.14  # 0.1, and a little more because poor graphs are drawn again


def test_optimality_by_enumeration_of_every_response() -> None:
    """All 6^4 responses of up to 4 tokens to each start, against the definition applied to the list of good walks."""
    reward, vocab = Optimality(EDGES, max_length=5), textenvs.CharVocab("abcde")
    ends = list(itertools.product(range(6), repeat=4))
    texts = sorted({vocab.decode(ids[: ids.index(5)] if 5 in ids else ids) for ids in ends})
    token_ids = np.full((len(texts), 4), -1)
    for row, text in zip(token_ids, texts, strict=True):
        row[: len(text)] = vocab.encode(text)
    lengths = np.array([len(text) for text in texts])
    responses = textenvs.Responses(token_ids, lengths, ["eos"] * len(texts), vocab)
    for start, shortest in enumerate([1, 2, 3, 2, 4]):
        if start == 0:
            continue
        good = {"".join("abcde"[node] for node in walk[1:]): len(walk) for walk in walks_from(EDGES, start, 5)}
        expected = [(5 - good[text]) / (5 - shortest) if text in good else 0.0 for text in texts]
        assert max(expected) == 1.0
        problems = [textenvs.Problem("abcde"[start])] * len(texts)
        assert reward(problems, responses).values.tolist() == expected


@pytest.mark.parametrize(
    ("response", "score"),
    [("a", 0), ("eoa", 1), ("eoaa", 0), ("eoab", 0), ("eo", 0), ("", 0), ("eoaeoa", 0), ("a" * 8, 0), ("oa", 0)],
)
def test_attacks_and_the_reference(response: str, score: float) -> None:
    env: Any = gym.make("textenvs/RandomWalk-v0").unwrapped
    env.reset(options={"prompt": "c"})
    for token in [*env.rules.vocab.encode(response), env.rules.vocab.eos_id]:
        _, reward, *_, info = env.step(token)
    assert (reward, info["optimality"], info["is_success"]) == (score, score, score == 1)


def test_masks_are_the_edges_and_the_end_token_at_the_goal() -> None:
    env: Any = gym.make("textenvs/RandomWalk-v0").unwrapped
    task = env.rules.task
    for start in range(1, 21):
        env.reset(options={"problem": start - 1})
        assert np.flatnonzero(env.action_masks()).tolist() == np.flatnonzero(task.edges[start]).tolist()
        for node in range(1, 21):  # whatever came before: only where the walk stands counts
            env.reset(options={"problem": start - 1})
            env.step(node)
            assert np.flatnonzero(env.action_masks()).tolist() == np.flatnonzero(task.edges[node]).tolist()
        env.step(0)
        assert np.flatnonzero(env.action_masks()).tolist() == [21]


@pytest.mark.parametrize(
    ("num_nodes", "max_length", "p_edge"),
    [(3, 3, 0.5), (3, 4, 0.1), (3, 10, 0.1), (8, 9, 0.1), (8, 1000, 0.2), (21, 10, 0.1), (21, 22, 0.1), (26, 100, 0.1)],
)
def test_every_start_arrives_on_every_graph(num_nodes: int, max_length: int, p_edge: float) -> None:
    """Also where walks may be longer than there are nodes; wherever a walk stands, some token is legal."""
    for graph_seed in range(20):
        task = walk_task(num_nodes=num_nodes, max_length=max_length, p_edge=p_edge, graph_seed=graph_seed)
        problems = [task[k] for k in range(len(task))]
        responses = [textenvs.Responses(*_row(task, problem.references[0])) for problem in problems]
        scores = [task.reward([problem], row).values[0] for problem, row in zip(problems, responses, strict=True)]
        assert scores == [1.0] * len(problems)
        assert all(task.legal(problems[0], [node]).any() for node in range(len(task.nodes)))


def _row(task: Any, text: str) -> tuple[np.ndarray, np.ndarray, list[str], textenvs.CharVocab]:
    ids = task.vocab.encode(text)
    return ids[None], np.array([len(ids)]), ["eos"], task.vocab


def test_the_default_graph_is_that_of_the_published_numbers() -> None:
    digest = hashlib.sha256(np.packbits(walk_task().edges).tobytes()).hexdigest()
    assert digest.startswith("bc2d63379268bf34")


def test_a_masked_walk_arrives_or_runs_out_of_tokens() -> None:
    envs = gym.make_vec("textenvs/RandomWalk-v0", num_envs=64, autoreset_mode="SameStep")
    envs.reset(seed=0)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(100):
        actions = [rng.choice(np.flatnonzero(row)) for row in envs.unwrapped.action_masks()]
        _, rewards, terminated, _, infos = envs.step(np.array(actions))
        for i in np.flatnonzero(terminated):
            final = {name: column[i] for name, column in infos["final_info"].items()}
            arrived = final["response"].endswith("a")
            seen.add((final["finish_reason"], arrived))
            assert (rewards[i] > 0) == (arrived and len(final["response"]) < 9)
    assert seen == {("eos", True), ("length", False), ("length", True)}


def test_without_masks_everything_is_legal() -> None:
    env: Any = gym.make("textenvs/RandomWalk-v0", masked=False).unwrapped
    env.reset(seed=0)
    assert env.action_masks().all()
    assert env.metadata["textgen"]["has_masks"] is False
    textenvs.check_env("textenvs/RandomWalk-v0")
    textenvs.check_env(gym.make("textenvs/RandomWalk-v0", masked=False))


def test_random_return_by_brute_force() -> None:
    task = walk_task(num_nodes=4, max_length=5, p_edge=0.5, graph_seed=3)
    rules = textenvs.Rules(task)
    sequences = np.array(list(itertools.product(range(5), repeat=4)))
    total = 0.0
    for k in range(len(task)):
        rows = np.concatenate([np.full((len(sequences), 1), k + 1), sequences], 1)
        has_end = (sequences == 4).any(1)
        ends = np.where(has_end, (sequences == 4).argmax(1) + 2, 5)
        reasons = ["eos" if end else "length" for end in has_end]
        total += rules.score([task[k]] * len(rows), rows, ends, reasons)[0].values.mean()
    assert task.random_return() == pytest.approx(total / len(task), abs=1e-15)
    assert total > 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_nodes": 27}, r"num_nodes must be an int in \[3, 26\], got 27"),
        ({"max_length": 2}, r"max_length must be an int in \[3, 1000\], got 2"),
        ({"graph_seed": -1}, "graph_seed must be an int in"),
        ({"p_edge": 0}, r"p_edge must be a number in \(0, 1\], got 0"),
        ({"p_edge": 1e-6}, "p_edge must let every start reach the goal within 9 nodes, got 1e-06"),
        ({"masked": 1}, "masked must be True or False, got 1"),
        ({"split": "heldout"}, "split must be 'train' or 'all' for random_walk"),
    ],
)
def test_settings_that_make_no_walk(settings: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        walk_task(**settings)


@pytest.mark.parametrize("prompt", ["a", "z", "bc", "", "B"])
def test_prompts_that_are_no_start(prompt: str) -> None:
    with pytest.raises(ValueError, match="prompt must be one node other than the goal"):
        walk_task().problem(prompt)


def test_draw_graph_uses_only_the_generator_it_is_given() -> None:
    one, two = (draw_graph(21, 10, 0.1, np.random.default_rng(5)) for _ in range(2))
    assert (one == two).all()
