"""bfloat16 autocast: sampler and update compute alike, near float32; what trains stays float32; runs resume in it."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small import ragged_envs, tiny_lm
from test_train import metrics_of
from torch.utils._python_dispatch import TorchDispatchMode

import agents.train
from agents.algorithms import ALGORITHMS, Algorithm
from agents.evaluate import evaluate_run
from agents.lm import LMPolicy
from agents.lora import LoraSettings
from agents.rollout import collect
from agents.selfchecks import MAX_RATIO_ERROR
from agents.train import TrainConfig, make_optimizer, train
from agents.update import make_batch, optimize

ROWS = np.arange(16)
LORA = LoraSettings(rank=2, alpha=4)
CASES = [(architecture, lora) for architecture in ("gpt2", "llama") for lora in (None, LORA)]
CONFIG = TrainConfig(
    "textenvs/Copy-v0",
    {"length": 2, "alphabet": "abcd", "dense": True},
    Algorithm(episodes_per_update=16, num_epochs=2, num_minibatches=2, kl_coef=0.1),
    model_kwargs={"hidden_size": 16, "num_heads": 2},
    num_episodes=48,
    autocast="bfloat16",
)


def policies(architecture: str, lora: LoraSettings | None) -> tuple[LMPolicy, LMPolicy]:
    """The same policy in float32 and under autocast."""
    both = tuple(tiny_lm(ragged_envs(1), architecture) for _ in range(2))
    for policy in both:
        if lora is not None:
            policy.add_lora(lora, seed=1)
            generator = torch.Generator().manual_seed(2)
            for parameter in policy.parameters():
                if parameter.requires_grad:
                    torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    both[1].use_autocast("bfloat16")
    return both  # type: ignore[return-value]


class Kinds(TorchDispatchMode):
    """Notes which types matrices are multiplied in, logits and log-probabilities included."""

    def __init__(self):
        super().__init__()
        self.products, self.normalised = set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        if name in ("aten::mm", "aten::addmm", "aten::linear", "mkldnn::_linear_pointwise"):
            self.products.add(args[1].dtype)
        if name in ("aten::_log_softmax", "aten::log_softmax", "aten::logsumexp"):
            self.normalised.add(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("architecture", "lora"), CASES)
def test_sampler_and_update_agree_and_are_near_float32(architecture, lora):
    exact, narrow = policies(architecture, lora)
    sampling, updating = Kinds(), Kinds()
    with sampling:
        rollout = collect(ragged_envs(4), narrow, num_episodes=16, seed=0)
    with updating:
        log_probs = narrow.evaluate(rollout, ROWS)[0].detach()
    for kinds in (sampling, updating):
        assert kinds.products == {torch.bfloat16, torch.float32}  # the trunk's, and the heads'
        assert kinds.normalised == {torch.float32}
    error = math.expm1((log_probs - torch.from_numpy(rollout.log_probs)).abs().max())
    assert error < MAX_RATIO_ERROR["bfloat16"] / 10
    # bfloat16 has 8 bits: 2^-9 of each activation, and 2 layers of logits below 2.
    assert 1e-4 < (log_probs - exact.evaluate(rollout, ROWS)[0]).abs().max() < 0.02


@pytest.mark.parametrize(("architecture", "lora"), CASES)
def test_what_trains_stays_float32_and_learns(architecture, lora):
    _, policy = policies(architecture, lora)
    trained = {name: p.detach().clone() for name, p in policy.named_parameters() if p.requires_grad}
    frozen = {name: p for name, p in policy.named_parameters() if not p.requires_grad}
    algorithm = dataclasses.replace(ALGORITHMS["reinforce"], episodes_per_update=16)
    optimizer = make_optimizer(policy, algorithm)
    rollout = collect(ragged_envs(4), policy, num_episodes=16, seed=0)
    optimize(policy, optimizer, make_batch(rollout, algorithm), algorithm, seed=0, update=0)
    now = dict(policy.named_parameters())
    moved = [name for name, before in trained.items() if not torch.equal(before, now[name])]
    assert len(moved) > len(trained) / 2
    for name in trained:
        assert now[name].dtype == torch.float32, name
        assert now[name].grad is None or now[name].grad.dtype == torch.float32, name
    for state in optimizer.state.values():
        assert {x.dtype for x in state.values()} == {torch.float32}
    matrices = {name for name, p in frozen.items() if p.dtype == torch.bfloat16}
    assert bool(matrices) == (lora is not None)
    assert not any("emb" in name or "wte" in name or "lm_head" in name for name in matrices)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_frozen_matrices_kept_narrow_compute_what_autocast_of_float32_does_bit_for_bit(architecture):
    exact, narrow = policies(architecture, LORA)
    exact.autocast = torch.bfloat16
    assert all(parameter.dtype == torch.float32 for parameter in exact.parameters())
    rollout = collect(ragged_envs(4), narrow, num_episodes=16, seed=0)
    for one, other in zip(exact.evaluate(rollout, ROWS), narrow.evaluate(rollout, ROWS), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("lora", [None, LORA])
def test_a_run_under_autocast_resumes_bit_for_bit_and_is_evaluated_in_it(tmp_path, monkeypatch, lora):
    config = dataclasses.replace(CONFIG, lora=lora)
    straight = train(config, tmp_path / "straight", quiet=True)
    first = metrics_of(straight)[0]
    assert first["check/start_kl_same_forward"] == 0
    assert first["check/ratio_error"] < MAX_RATIO_ERROR["bfloat16"] / 10
    calls = []

    def collect_or_stop(*args, **kwargs):
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return collect(*args, **kwargs)

    monkeypatch.setattr(agents.train, "collect", collect_or_stop)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "broken", quiet=True)
    monkeypatch.setattr(agents.train, "collect", collect)
    resumed = train(config, tmp_path / "broken", resume=True, quiet=True)
    assert metrics_of(resumed) == metrics_of(straight)
    for path in (straight / "final").glob("*.safetensors"):
        tensors, others = load_file(path), load_file(resumed / "final" / path.name)
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
        assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())
    seen = Kinds()
    with seen:
        evaluate_run(straight, num_episodes=8, seed=0)
    assert torch.bfloat16 in seen.products
    with pytest.raises(ValueError, match="autocast bfloat16 -> None"):
        train(dataclasses.replace(config, autocast=None), straight, resume=True, quiet=True)


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="autocast must be None or 'bfloat16', got 'float16'"):
        TrainConfig("textenvs/Copy-v0", autocast="float16")
    with pytest.raises(ValueError, match="autocast must be 'bfloat16', got 'fp8'"):
        tiny_lm(ragged_envs(1)).use_autocast("fp8")
    with pytest.raises(ValueError, match="autocast must be None for an mlp, got 'bfloat16'"):
        agents.train.start_policy(
            TrainConfig("CartPole-v1", model="mlp", autocast="bfloat16"), agents.train.make_envs("CartPole-v1", 1, {})
        )
