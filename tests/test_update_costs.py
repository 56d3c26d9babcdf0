"""What an update costs, counted: forwards, slots, arrays of tokens x vocabulary, operations. Nothing is timed."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from small import PROMPTS, ragged_envs, string_envs, tiny_lm
from torch.utils._python_dispatch import TorchDispatchMode

import agents.forward
import agents.lm
import agents.manifest
import agents.versions
import textenvs
from agents.algorithms import ALGORITHMS
from agents.lm import LMPolicy
from agents.rollout import Rollout, collect
from agents.update import accumulate_gradients, make_batch, micro_batches, optimize, rollout_log_probs

NUM_EPISODES = 48


class Operations(TorchDispatchMode):
    """Notes the name of every operation, forward and backward, and its results."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.results: list[torch.Tensor] = []  # kept alive, so that no address is used twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.names.append(str(func))
        self.results += [x for x in (out if isinstance(out, tuple | list) else (out,)) if isinstance(x, torch.Tensor)]
        return out


def forwards(policy: LMPolicy) -> list[tuple[int, int]]:
    """The shapes (rows, slots) of all forwards of the trunk from now on."""
    shapes: list[tuple[int, int]] = []
    policy.model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return shapes


def read_slots(rollout: Rollout) -> np.ndarray:
    """Tokens of each episode whose hidden state somebody reads: all up to the one before its last decision's."""
    first = (rollout.observations != 9).argmax(1)
    last = np.where(rollout.mask, rollout.positions, 0).max(1)
    return np.asarray(last - first)


def test_a_forward_ends_where_the_last_hidden_state_is_read():
    envs = ragged_envs(6)
    policy = tiny_lm(envs)
    rollout = collect(envs, policy, num_episodes=NUM_EPISODES, seed=0)
    shapes, needed = forwards(policy), read_slots(rollout)
    policy.evaluate(rollout, np.arange(NUM_EPISODES))
    for row in range(4):
        policy.evaluate(rollout, np.array([row]))
    assert shapes == [(NUM_EPISODES, needed.max()), *((1, length) for length in needed[:4])]


def test_a_groups_prompt_runs_once_a_forward(monkeypatch):
    """Three groups of eight answers of four tokens to prompts of sixteen: at most 3 x 16 + 24 x 3 run, not 24 x 19."""
    envs = gym.make_vec(
        "TextGen-v0",
        24,
        autoreset_mode=AutoresetMode.DISABLED,
        prompts=["abcdefghabcdefgh", "hgfedcbahgfedcba", "aabbccddeeffgghh"],
        vocab=textenvs.CharVocab("abcdefgh"),
        reward=textenvs.FunctionReward(lambda problem, text: text.count("a")),
        max_new_tokens=4,
        split="all",
    )
    policy = tiny_lm(envs)
    rollout = collect(envs, policy, num_episodes=24, seed=0, group_size=8)
    rows, product = [], agents.forward.linear
    monkeypatch.setattr(agents.forward, "linear", lambda x, *rest: rows.append(len(x)) or product(x, *rest))
    algorithm = replace(ALGORITHMS["grpo"], group_size=8)
    accumulate_gradients(policy, make_batch(rollout, algorithm), np.arange(24), algorithm)
    assert 3 * 16 < rows[0] <= 3 * 16 + int(rollout.mask.sum() - 24)


def test_a_step_is_cut_by_length_so_that_little_is_padding(monkeypatch):
    """Prompts of 1 to 16 tokens: together more than half again are padding, cut by length a twentieth."""
    envs = ragged_envs(6)
    policy = tiny_lm(envs)
    rollout = collect(envs, policy, num_episodes=NUM_EPISODES, seed=0)
    assert len({len(prompt) for prompt in PROMPTS}) > 3
    shapes, needed = forwards(policy), read_slots(rollout)
    batch = make_batch(rollout, ALGORITHMS["ppo"])
    assert NUM_EPISODES * needed.max() > 1.5 * needed.sum()
    for forward_slots, most_slots, most_forwards in ((8, 1.05, 12), (10**6, 2.1, 1)):
        monkeypatch.setattr("agents.update.FORWARD_SLOTS", forward_slots)
        shapes.clear()
        accumulate_gradients(policy, batch, np.arange(NUM_EPISODES), ALGORITHMS["ppo"])
        assert sum(rows * slots for rows, slots in shapes) <= most_slots * needed.sum()
        assert len(shapes) <= most_forwards


@pytest.mark.parametrize("max_tokens", [30, 60, 10_000])
@pytest.mark.parametrize("forward_slots", [0, 10, 300])
def test_no_other_cut_costs_less(max_tokens, forward_slots, monkeypatch):
    """Of all cuts of ten sorted episodes; one that is longer than allowed goes alone."""
    monkeypatch.setattr("agents.update.FORWARD_SLOTS", forward_slots)
    envs = ragged_envs(6)
    rollout = collect(envs, tiny_lm(envs), num_episodes=NUM_EPISODES, seed=0)
    rows, needed = np.arange(3, 13), read_slots(rollout)
    lengths = np.sort(needed[rows])

    def cost(parts: list[np.ndarray]) -> float:
        allowed = all(len(part) == 1 or len(part) * part.max() <= max_tokens for part in parts)
        return sum(forward_slots + len(part) * int(part.max()) for part in parts) if allowed else np.inf

    cuts = [[i for i in range(1, 10) if bits >> i & 1] for bits in range(0, 2**10, 2)]
    parts = micro_batches(rollout, rows, max_tokens)
    assert sorted(np.concatenate(parts)) == rows.tolist()
    assert cost([needed[part] for part in parts]) == min(cost(np.split(lengths, cut)) for cut in cuts)


@pytest.mark.parametrize("length", [2, 8])
def test_an_optimizer_step_is_one_forward_however_many_tokens(length):
    """And the check of sanity is one more an update, of an episode in sixteen."""
    envs = string_envs(length=length)
    policy = tiny_lm(envs)
    rollout = collect(envs, policy, num_episodes=NUM_EPISODES, seed=0)
    algorithm = replace(ALGORITHMS["ppo"], num_epochs=3, num_minibatches=4)
    optimizer, shapes = torch.optim.Adam(policy.parameters(), lr=1e-4), forwards(policy)
    steps = optimize(policy, optimizer, make_batch(rollout, algorithm), algorithm, seed=0, update=0)
    assert len(steps) == 12
    assert [rows for rows, _ in shapes] == 12 * [NUM_EPISODES // 4] + [NUM_EPISODES // 16]
    shapes.clear()
    rollout_log_probs(policy, rollout)
    assert len(shapes) == 1


def wide_lm(num_tokens: int) -> tuple[LMPolicy, Rollout]:
    """A policy over many tokens, most of which no episode of its rollout has."""
    envs = string_envs(alphabet="".join(map(chr, range(0x4E00, 0x4E00 + num_tokens - 2))))
    policy = tiny_lm(envs)
    assert policy.num_tokens == num_tokens
    return policy, collect(envs, policy, num_episodes=16, seed=0)


def wide_results(policy: LMPolicy, rollout: Rollout) -> list[torch.Tensor]:
    """Floating results of (rows, V), one a storage, of a forward and a backward; V x d is the head's own."""
    with Operations() as operations:
        batch = make_batch(rollout, ALGORITHMS["ppo"])
        accumulate_gradients(policy, batch, np.arange(len(rollout)), ALGORITHMS["ppo"])
    wide = [x for x in operations.results if x.is_floating_point() and x.ndim == 2 and x.shape[1] == policy.num_tokens]
    return list({x.untyped_storage().data_ptr(): x for x in wide if x.shape[0] != 16}.values())


def test_scoring_allocates_two_arrays_of_tokens_by_vocabulary(monkeypatch):
    """The logits and their gradient; whatever is between passes through parts."""
    monkeypatch.setattr("agents.losses._CACHED", 4 * 500)
    policy, rollout = wide_lm(500)
    num_tokens = int(rollout.mask.sum())
    sizes = sorted(x.untyped_storage().nbytes() // (4 * 500) for x in wide_results(policy, rollout))
    assert sizes[-2:] == [num_tokens, num_tokens]
    assert num_tokens > 30
    assert max(sizes[:-2]) <= 4


def test_no_array_of_tokens_by_vocabulary_is_larger_than_stated(monkeypatch):
    """Nine rows of logits are allowed: no operation of the forward or the backward makes more."""
    policy, rollout = wide_lm(500)
    monkeypatch.setattr(agents.lm, "MAX_LOGITS_BYTES", 4 * 500 * 9)
    sizes = [x.untyped_storage().nbytes() // (4 * 500) for x in wide_results(policy, rollout)]
    assert max(sizes) == 9
    assert len(sizes) > int(rollout.mask.sum()) / 9


def test_gpt2s_activation_is_one_operation(tmp_path):
    """Of a scratch model, and of one whose saved configuration names Transformers' own."""
    envs = string_envs()
    policy = tiny_lm(envs)
    policy.model.config.activation_function = "gelu_new"
    policy.save(tmp_path)
    for model in (tiny_lm(envs), LMPolicy.from_pretrained(tmp_path, envs.metadata["textgen"])):
        rollout = collect(envs, model, num_episodes=4, seed=0)
        with Operations() as operations:
            sum(x.sum() for x in model.evaluate(rollout, np.arange(4))).backward()
        count = {name: operations.names.count(name) for name in set(operations.names) if "gelu" in name}
        assert count == {"aten.gelu.default": 2, "aten.gelu_backward.default": 2}
        assert not any("tanh" in name or "pow" in name for name in operations.names)


def test_versions_are_looked_up_once_a_process(monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(agents.versions, "version", lambda package: asked.append(package) or "1")
    agents.versions.versions.cache_clear()
    try:
        first = agents.manifest.environment("cpu")
        assert agents.manifest.environment("cpu") == first
        assert len(asked) == len(set(asked)) > 3
    finally:
        agents.versions.versions.cache_clear()
