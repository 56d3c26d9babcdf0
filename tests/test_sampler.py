"""What sampling costs, by counting: forwards, tokens, draws, arrays. And that faster kernels compute the same."""

import copy
from collections import Counter

import numpy as np
import pytest
import torch
from small import ragged_envs, string_envs, tiny_lm
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.pytorch_utils import Conv1D

import agents.rollout
from agents import kernels
from agents.cache import SlotCache
from agents.kernels import Kernels
from agents.policy import Decisions
from agents.rollout import collect, episode_rng


def counted(monkeypatch, owner, name):
    """Arguments of every call of a method from now on."""
    calls, method = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **kwargs: calls.append(args) or method(*args, **kwargs))
    return calls


def test_every_token_but_the_last_is_fed_once_in_at_most_two_forwards_a_step(monkeypatch):
    """30 episodes on 5 rows: prompts of 1 to 16 tokens, replies, refills."""
    envs = ragged_envs(5)
    policy = tiny_lm(envs)
    opened, acted = counted(monkeypatch, SlotCache, "open"), counted(monkeypatch, type(policy), "act")
    forwards = []
    policy.model.base_model.register_forward_pre_hook(lambda *_: forwards.append(len(acted)))
    rollout = collect(envs, policy, num_episodes=30, seed=0)
    last = rollout.positions[np.arange(30), rollout.lengths - 1]  # the last action's token, of which nobody asks more
    before = last - (rollout.observations != 9).argmax(1)
    assert sum(int(lengths.sum()) for _, _, _, lengths in opened) == before.sum()
    assert len(forwards) == len(opened)
    assert max(Counter(forwards).values()) == 2


def test_rows_that_go_on_are_never_padded_to_a_prompt(monkeypatch):
    """One row begins with 16 tokens beside four that have one new token each."""
    envs = ragged_envs(5)
    policy = tiny_lm(envs)
    shapes = []
    policy.model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    observations = np.full((5, 25), 9)
    observations[:, 15] = 1
    rngs = [episode_rng(0, i) for i in range(5)]
    policy.act(observations, np.arange(5), None, rngs)
    observations[:4, 16], observations[4, :16] = 2, 3
    policy.act(observations, np.arange(5), None, rngs)
    assert shapes == [(5, 1), (1, 15), (5, 1)]


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_rows_that_sit_out_keep_what_they_have_and_of_few_no_key_is_copied(architecture):
    """Eight rows begin, go on, wait and begin again at random; what is read of each is what its own tokens say."""
    policy = tiny_lm(ragged_envs(8), architecture)
    nn.init.normal_(policy.value_head.weight)
    rng, rngs = np.random.default_rng(0), [episode_rng(0, i) for i in range(8)]
    observations, ends, copied = np.full((8, 25), 9), np.zeros(8, np.int64), Counter()
    for _ in range(80):
        rows = np.sort(rng.permutation(8)[: rng.integers(1, 9)])
        for row in rows.tolist():
            if not ends[row] or ends[row] == 24 or rng.random() < 0.1:
                observations[row], ends[row] = 9, 16
                observations[row, 16 - rng.integers(1, 17) : 16] = rng.integers(9)
            else:
                observations[row, ends[row]] = rng.integers(9)
                ends[row] += 1
        values = policy.act(observations, rows, None, rngs).values
        address = policy.sampler.cache.address
        if not address.begins:
            copied[len(rows)] += address.rows is not None
        for row, value in zip(rows, values, strict=True):
            tokens = torch.from_numpy(observations[row][observations[row] != 9])[None]
            hidden = policy.model.base_model(tokens).last_hidden_state[:, -1]
            np.testing.assert_allclose(value, policy.value_head(hidden).item(), atol=1e-5)
    assert set(copied) == set(range(1, 9))
    assert not any(copied[n] for n in (6, 7, 8))
    assert all(copied[n] for n in (1, 2))


def test_uniforms_are_drawn_in_blocks_and_are_the_streams_own(monkeypatch):
    calls = Counter()

    class Counting:
        def __init__(self, seed, episode):
            self.rng, self.episode = episode_rng(seed, episode), episode

        def random(self, size):
            calls[self.episode] += 1
            return self.rng.random(size)

    monkeypatch.setattr(agents.rollout, "episode_rng", Counting)
    envs = string_envs(num_envs=3, length=3)
    policy = tiny_lm(envs)
    rollout = collect(envs, policy, num_episodes=12, seed=5)
    assert calls == Counter(range(12))
    for i in range(12):
        rng, row = episode_rng(5, i), rollout.observations[i]
        for t in range(rollout.lengths[i]):
            prefix = torch.from_numpy(row[: rollout.positions[i, t]])[None]
            p = policy.model(prefix).logits[0, -1].double().softmax(-1).detach().numpy()
            assert rollout.actions[i, t] == np.searchsorted(p.cumsum(), rng.random() * p.sum(), side="right")


def test_no_more_arrays_of_rows_by_vocabulary_than_needed():
    """Logits, logits over the temperature, log-probabilities, probabilities, their sums."""
    envs = string_envs(num_envs=64)
    policy = tiny_lm(envs)
    observations = envs.reset(seed=0)[0]
    num_rows, vocabulary = 64, 6
    kept = []  # so that no memory is used twice

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.shape == (num_rows, vocabulary):
                kept.append(out)
            return out

    with Sizes():
        policy.act(observations, np.arange(64), None, [episode_rng(0, i) for i in range(64)])
    assert 3 <= len({array.data_ptr() for array in kept}) <= 5


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_kernels_compute_what_the_layers_compute_and_leave_them_as_they_were(architecture, monkeypatch):
    monkeypatch.setattr(kernels, "_MIN_PRODUCTS", 0)
    monkeypatch.setattr(kernels, "_MIN_GELUS", 0)
    envs = ragged_envs(1)
    policy = tiny_lm(envs, architecture, hidden_size=32, init_std=0.3)
    model, fast = policy.model, Kernels(policy.model)
    before = [dict(vars(module)) for module in model.modules()]
    tokens = torch.arange(12).view(2, 6) % 9
    counts = Counter()

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            counts[str(func)] += 1
            return func(*args, **(kwargs or {}))

    def run():
        cache, out = SlotCache(2, 2, 25), []
        for at in range(6):
            positions, mask = cache.open(torch.arange(2), torch.full((2,), at), torch.ones(2, dtype=torch.long))
            given = {"position_ids": positions, "attention_mask": mask, "past_key_values": cache}
            out.append(model.base_model(tokens[:, at : at + 1], **given).last_hidden_state)
        return torch.cat(out, 1)

    with torch.inference_mode():
        expected = model.base_model(tokens).last_hidden_state
        with fast(), Count():
            found = run()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    products = [x for x in fast.layers if isinstance(x, nn.Linear | Conv1D) and x is not model.lm_head]
    assert counts["mkldnn._linear_pointwise.default"] == 6 * len(products)
    assert counts["aten.baddbmm.default"] == counts["aten.bmm.default"] == 6 * 2
    assert not counts["aten.gelu.default"]
    assert not counts["aten._scaled_dot_product_flash_attention_for_cpu.default"]
    assert before == [dict(vars(module)) for module in model.modules()]
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 2), (6, 1)])
def test_attention_of_one_token_is_the_general_one(heads, key_heads):
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Module()
    layer.num_key_value_groups = heads // key_heads
    query = torch.randn(3, heads, 1, 8, generator=generator)
    key, value = torch.randn(2, 3, key_heads, 7, 8, generator=generator)
    mask = torch.zeros(3, 1, 1, 7).masked_fill(torch.arange(7) > torch.tensor([[[[0]]], [[[3]]], [[[6]]]]), -torch.inf)
    for scaling in (None, 0.7):
        expected = kernels.sdpa_attention_forward(layer, query, key, value, mask, scaling=scaling)[0]
        torch.testing.assert_close(kernels._attend(layer, query, key, value, mask, scaling=scaling)[0], expected)


def test_a_layer_with_a_forward_of_its_own_keeps_it_and_errors_leave_no_kernel():
    policy = tiny_lm(ragged_envs(1))
    policy.model.lm_head.forward = lambda hidden: hidden @ policy.model.lm_head.weight.T
    fast = Kernels(policy.model)
    assert policy.model.lm_head not in fast.layers
    with pytest.raises(KeyError), fast():
        raise KeyError
    assert not any("forward" in vars(layer) for layer in fast.layers)
    assert policy.model.config._attn_implementation == "sdpa"


def test_a_copy_of_a_policy_that_has_sampled_is_on_its_own():
    envs = ragged_envs(3)
    policy = tiny_lm(envs)
    first = collect(envs, policy, num_episodes=3, seed=0)
    other = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
    assert np.array_equal(collect(envs, other, num_episodes=3, seed=0).actions, first.actions)


def test_rows_without_an_episode_do_not_end_at_every_step(monkeypatch):
    """One long episode beside seven rows whose own have ended: they are started again once; nobody is at the end."""
    envs = string_envs(num_envs=8, length=10)
    policy = tiny_lm(envs)
    eos = envs.metadata["textgen"]["eos_id"]
    plays = lambda rows: [eos if len(rows) > 1 and row else 1 for row in rows]  # noqa: E731

    def act(self, observations, rows, legal, rngs, *, greedy=False):
        zeros = np.zeros(len(rows), np.float32)
        return Decisions(np.array(plays(rows)), zeros, zeros)

    monkeypatch.setattr(type(policy), "act", act)
    resets = counted(monkeypatch, type(envs.unwrapped), "reset")
    rollout = collect(envs, policy, num_episodes=8, seed=0)
    assert sorted(rollout.lengths) == [1] * 7 + [11]
    assert len(resets) == 2  # at the start, and when the seven end
