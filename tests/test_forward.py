"""The forward of our own: the model's numbers, on what it was made for only, in one call a step, without modules."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from small import ragged_envs, tiny_lm
from test_cache import causal_lm
from torch import nn
from transformers.activations import GELUTanh, NewGELUActivation
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention

import agents.forward
import agents.sampler
from agents import kernels
from agents.cache import SlotCache
from agents.forward import CachedAttention, find_forward, find_places, run_whole
from agents.lm import LMPolicy
from agents.lora import LoraSettings, inject_adapter
from agents.rollout import collect, episode_rng
from agents.sampler import Sampler

PAD, PROMPT_SLOTS, WIDTH = 9, 16, 25
GPT2 = ("gpt2", {"num_key_value_heads": 4})
MODELS = [
    GPT2,
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "activation_function": "gelu_pytorch_tanh", "n_inner": 24}),
    ("gpt2", {"scale_attn_weights": False, "reorder_and_upcast_attn": True, "attn_implementation": "eager"}),
    ("llama", {}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 6, "num_key_value_heads": 1}),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}, "hidden_act": "swish"}),
]


def made(architecture: str, settings: dict[str, Any]) -> Any:
    model = causal_lm(architecture, **settings).eval()
    for parameter in model.parameters():  # biases and norms, which start at 0 and 1, are numbers like others
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


@pytest.mark.parametrize(("architecture", "settings"), MODELS, ids=lambda x: None if isinstance(x, str) else str(x))
@pytest.mark.parametrize("smallest_onednn", [0, 2**20])
def test_hidden_states_are_the_models_own(architecture, settings, smallest_onednn, monkeypatch):
    """Five rows in random subsets get one token, several, or another prompt, at positions of their own."""
    monkeypatch.setattr(kernels, "_MIN_PRODUCTS", smallest_onednn)
    model, rng = made(architecture, settings), np.random.default_rng(0)
    sampler = Sampler(model, kernels.Kernels(model), 5, num_tokens=PAD, prompt_slots=PROMPT_SLOTS, max_tokens=WIDTH)
    observations, ends = np.full((5, WIDTH), PAD), np.full(5, WIDTH)
    for step in range(40):
        rows = rng.permutation(5)[: 5 if step == 0 else rng.integers(1, 6)]
        for row in rows:
            new = rng.choice([1, 1, 1, 2, 3])
            if ends[row] + new > WIDTH:
                observations[row], start, ends[row] = PAD, PROMPT_SLOTS - rng.integers(1, 17), PROMPT_SLOTS
                observations[row, start:PROMPT_SLOTS] = rng.integers(0, 9, PROMPT_SLOTS - start)
            else:
                observations[row, ends[row] : ends[row] + new] = rng.integers(0, 9, new)
                ends[row] += new
        with torch.inference_mode():
            found = sampler.feed(observations, rows)
            for row, hidden in zip(rows, found, strict=True):
                tokens = torch.from_numpy(observations[row][observations[row] != PAD])
                expected = model.base_model(tokens[None]).last_hidden_state[0, -1]
                torch.testing.assert_close(hidden, expected, atol=2e-5, rtol=2e-5)
    assert sampler.forward is not None


def evaluated(policy, rollout):
    """What `evaluate` gives, and the gradients of sums of it with weights of their own."""
    policy.zero_grad()
    scores = policy.evaluate(rollout, np.arange(len(rollout)))
    weights = torch.linspace(-1, 1, 3 * scores[0].numel()).view(3, *scores[0].shape)
    (torch.stack(scores) * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in policy.named_parameters()}
    return [score.detach() for score in scores], gradients


UPDATED = [(*model, 2**22) for model in MODELS] + [("gpt2", {}, 0), ("llama", {}, 0)]


@pytest.mark.parametrize(("architecture", "settings", "smallest"), UPDATED)
@pytest.mark.parametrize("most_run", [0, 1], ids=["all", "once"])
def test_an_updates_numbers_and_gradients_are_the_models_own(architecture, settings, smallest, most_run, monkeypatch):
    """Ragged prompts and responses, several alike; a hook makes the model run itself."""
    monkeypatch.setattr(agents.forward, "_MOST_RUN", most_run)
    for name in ("_MIN_PRODUCTS", "_MIN_PRODUCTS_WITH_GRADIENT", "_MIN_GELUS", "_MIN_GELUS_WITH_GRADIENT"):
        monkeypatch.setattr(kernels, name, smallest)
    envs = ragged_envs(4)
    policy = LMPolicy(made(architecture, settings), envs.metadata["textgen"])
    nn.init.normal_(policy.value_head.weight)
    rollout = collect(envs, policy, num_episodes=12, seed=0)
    scores, gradients = evaluated(policy, rollout)
    policy.model.base_model.register_forward_pre_hook(lambda *_: None)
    expected, expected_gradients = evaluated(policy, rollout)
    for score, other in zip(scores, expected, strict=True):
        torch.testing.assert_close(score, other, atol=2e-5, rtol=2e-5)
    for name, gradient in gradients.items():
        scale = expected_gradients[name].abs().max()
        assert scale > 0
        torch.testing.assert_close(gradient, expected_gradients[name], atol=2e-5 * float(scale), rtol=1e-4, msg=name)


@pytest.mark.parametrize("seed", range(20))
def test_every_different_beginning_has_one_place(seed):
    """Sequences of two symbols, of which many begin alike, are asked for at any of their tokens."""
    rng = np.random.default_rng(seed)
    n, w = rng.integers(1, 20), rng.integers(1, 9)
    tokens = rng.integers(0, 2, (n, w))
    kept = rng.permutation(n * w)[: rng.integers(1, n * w + 1)]
    ends = [max((place % w + 1 for place in kept if place // w == row), default=0) for row in range(n)]
    number, first = (x.numpy() for x in find_places(tokens, kept))
    needed = {(row, t): tuple(tokens[row, : t + 1]) for row in range(n) for t in range(ends[row])}
    assert len(first) == len(set(needed.values()))
    for (row, t), prefix in needed.items():
        assert needed[divmod(first[number[row * w + t]], w)] == prefix
    assert sorted(number[first]) == list(range(len(first)))
    assert number.min() >= 0
    assert number.max() < len(first)


def test_tokens_that_hardly_repeat_run_where_they_lie():
    """Two sequences of twenty: up to seven eighths of all places their different beginnings run, above all places."""
    ran = []

    def forward(ids, positions, attention):
        ran.append(len(ids))
        return attention.keep(torch.stack([ids, positions], 1))

    for shared in (3, 4, 5):
        tokens = np.arange(40).reshape(2, 20)
        tokens[1, :shared] = tokens[0, :shared]
        found = run_whole(forward, 1, tokens, kept := np.array([39, 0, 19, 21]))
        assert found.tolist() == [[tokens.flat[place], place % 20] for place in kept]
    assert ran == [40, 40, 35]


@pytest.mark.parametrize(("architecture", "before", "behind"), [("gpt2", 1, 3), ("llama", 3, 4)])
def test_an_update_runs_no_module_and_takes_what_chose_no_token_no_further_than_attention(
    architecture, before, behind, monkeypatch
):
    """Of two layers: products before attention, and those of what it gives and of the MLP."""
    envs = ragged_envs(4)
    policy = tiny_lm(envs, architecture)
    rollout = collect(envs, policy, num_episodes=12, seed=0)
    called, rows, call, product = [], [], nn.Module.__call__, agents.forward.linear
    monkeypatch.setattr(nn.Module, "__call__", lambda self, *a, **k: called.append(self) or call(self, *a, **k))
    monkeypatch.setattr(agents.forward, "linear", lambda x, *a: rows.append(len(x)) or product(x, *a))
    policy.evaluate(rollout, np.arange(12))
    assert set(called) == {policy.model.lm_head, policy.value_head}
    slots = np.arange(rollout.observations.shape[1])
    pairs = [(rollout.observations[row], rollout.positions[row, t]) for row, t in np.argwhere(rollout.mask)]
    asked = {tuple(o[(slots < slot) & (o != PAD)]) for o, slot in pairs}
    needed = {prefix[:end] for prefix in asked for end in range(1, len(prefix) + 1)}
    assert len(asked) < 0.9 * rollout.mask.sum()
    assert rows == [len(needed)] * (2 * before + behind) + [len(asked)] * behind


def hooked(model):
    model.transformer.h[1].mlp.register_forward_hook(lambda *_: None)


def pre_hooked(model):
    model.transformer.register_forward_pre_hook(lambda *_: None)


def backward_hooked(model):
    model.transformer.h[1].mlp.register_full_backward_hook(lambda *_: None)


def backward_pre_hooked(model):
    model.transformer.h[0].attn.register_full_backward_pre_hook(lambda *_: None)


def own_forward(model):
    model.transformer.h[0].attn.forward = lambda *args, **kwargs: None


def other_activation(model):
    model.transformer.h[0].mlp.act = nn.Dropout(0.0).eval()


def other_class(model):
    model.transformer.h[0].attn.__class__ = type("Mine", (GPT2Attention,), {})


def mixed_activations(model):
    assert type(model.transformer.h[0].mlp.act) is NewGELUActivation
    model.transformer.h[0].mlp.act = GELUTanh().eval()


def adapter(model):
    pytest.importorskip("peft")
    inject_adapter(model, LoraSettings(rank=1), seed=0)


def one_layer_less(model):
    del model.transformer.h[1]


def other_attention(model):
    model.config._attn_implementation = "flex_attention"


SPOILERS = [hooked, pre_hooked, own_forward, other_activation, other_class, mixed_activations, adapter, one_layer_less]
SPOILERS += [
    backward_hooked,
    backward_pre_hooked,
    other_attention,
    lambda m: m.train(),
    lambda m: m.double(),
    lambda m: m.transformer.wpe.bfloat16(),
]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_model_that_computes_something_else_runs_itself(spoil):
    model = made(*GPT2)
    assert find_forward(model) is not None
    spoil(model)
    assert find_forward(model) is None


def test_a_part_that_is_left_empty_changes_nothing():
    model = made(*GPT2)
    model.transformer.register_module("spare", None)
    model.transformer.register_parameter("unused", None)
    assert find_forward(model) is not None


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
        ("llama", {"hidden_act": "gelu"}),
        ("gpt2", {"activation_function": "relu"}),
        ("gpt2", {"add_cross_attention": True}),
        ("qwen2", {}),
        ("gpt_neox", {}),
        ("mistral", {}),
    ],
)
def test_other_settings_and_families_run_themselves(architecture, settings):
    assert find_forward(made(architecture, settings)) is None


@pytest.mark.parametrize("hook", ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"])
def test_under_a_hook_of_all_modules_the_model_runs_itself(hook):
    model = made(*GPT2)
    handle = getattr(torch.nn.modules.module, f"register_module_{hook}")(lambda *_: None)
    try:
        assert find_forward(model) is None
    finally:
        handle.remove()
    assert find_forward(model) is not None


def test_a_model_put_in_place_of_another_is_the_one_that_samples():
    envs = ragged_envs(3)
    policy = tiny_lm(envs, seed=0, init_std=0.3)
    collect(envs, policy, num_episodes=6, seed=0)
    policy.model = tiny_lm(envs, seed=1, init_std=0.3).model
    rollout = collect(envs, policy, num_episodes=6, seed=0)
    evaluated = policy.evaluate(rollout, np.arange(6))[0].detach().numpy()
    np.testing.assert_allclose(rollout.log_probs, evaluated, atol=1e-5)


def test_under_autocast_the_model_runs_itself():
    model = made(*GPT2)
    with torch.autocast("cpu", torch.bfloat16):
        assert find_forward(model) is None


def test_it_is_chosen_anew_whenever_all_rows_begin_and_reads_the_weights_as_they_are():
    envs = ragged_envs(3)
    policy, other = tiny_lm(envs, seed=0, init_std=0.3), tiny_lm(envs, seed=1, init_std=0.3)
    first = collect(envs, policy, num_episodes=6, seed=0)
    calls = []
    handle = policy.model.base_model.register_forward_pre_hook(lambda *_: calls.append(1))
    again = collect(envs, policy, num_episodes=6, seed=0)
    assert calls
    assert policy.sampler.forward is None
    handle.remove()
    policy.load_state_dict(other.state_dict())
    changed, expected = (collect(envs, p, num_episodes=6, seed=0) for p in (policy, other))
    assert policy.sampler.forward is not None
    assert np.array_equal(first.actions, again.actions)
    assert np.array_equal(changed.actions, expected.actions)
    assert not np.array_equal(changed.log_probs, first.log_probs)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_step_is_one_forward_without_modules_and_feeds_every_token_once(architecture, monkeypatch):
    """30 episodes on 5 rows: prompts of 1 to 16 tokens, replies, refills."""
    envs = ragged_envs(5)
    policy = tiny_lm(envs, architecture)
    called, fed, acted = [], [], []
    run, call, act, open_ = (
        CachedAttention.__init__,
        nn.Module.__call__,
        type(policy).act,
        agents.sampler.SlotCache.open,
    )
    monkeypatch.setattr(nn.Module, "__call__", lambda self, *a, **k: called.append(self) or call(self, *a, **k))
    monkeypatch.setattr(CachedAttention, "__init__", lambda *a: fed.append(0) or run(*a))
    monkeypatch.setattr(type(policy), "act", lambda *a, **k: acted.append(0) or act(*a, **k))
    opened = []
    monkeypatch.setattr(agents.sampler.SlotCache, "open", lambda *a: opened.append(int(a[3].sum())) or open_(*a))
    rollout = collect(envs, policy, num_episodes=30, seed=0)
    assert len(fed) == len(acted)
    assert set(called) == {policy.model.lm_head, policy.value_head}
    last = rollout.positions[np.arange(30), rollout.lengths - 1]
    assert sum(opened) == (last - (rollout.observations != PAD).argmax(1)).sum()


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_new_sampler_reads_as_many_keys_as_one_that_has_sampled(architecture, monkeypatch):
    """A run that goes on from a checkpoint starts with a new one; fewer keys would be summed in another order."""
    lengths: dict[SlotCache, list[int]] = {}

    def opened(cache: SlotCache, *args: Any, original: Any = SlotCache.open) -> Any:
        found = original(cache, *args)
        lengths.setdefault(cache, []).append(cache.address.length)
        return found

    monkeypatch.setattr(SlotCache, "open", opened)
    envs = ragged_envs(4)
    policy = tiny_lm(envs, architecture, init_std=0.3)
    new = collect(envs, policy, num_episodes=12, seed=0)
    (sampled,) = (found for found in lengths.values() if len(found) > 2)  # the check of the cache makes two steps
    num_steps = len(sampled)
    used = collect(envs, policy, num_episodes=12, seed=0)
    assert sampled[:num_steps] == sampled[num_steps:]
    assert np.array_equal(new.log_probs, used.log_probs)


def test_a_copy_made_amid_an_episode_reads_its_own_weights():
    envs = ragged_envs(3)
    policy = tiny_lm(envs, init_std=0.3)
    observations, rows = envs.reset(seed=0)[0], np.arange(3)
    actions = policy.act(observations, rows, None, [episode_rng(0, i) for i in range(3)]).actions
    assert policy.sampler.forward is not None
    observations = envs.step(actions)[0]
    other, rngs = copy.deepcopy(policy), [episode_rng(1, i) for i in range(3)]
    expected = policy.act(observations, rows, None, rngs)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
    found = other.act(observations, rows, None, rngs)
    np.testing.assert_allclose(found.log_probs, expected.log_probs, atol=1e-5)
