"""Faster products and activations: the same numbers and gradients, where they are large enough."""

import resource
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from small import string_envs, tiny_lm
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig
from transformers.activations import GELUTanh
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm, apply_rotary_pos_emb
from transformers.pytorch_utils import Conv1D

from agents import kernels
from agents.lora import LoraSettings
from agents.rollout import collect

ROWS, INPUTS, OUTPUTS = 3 * 64, 192, 256


class Products(TorchDispatchMode):
    """Counts multiplications by who does them."""

    def __init__(self):
        super().__init__()
        self.torch, self.onednn = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        if name in ("aten::mm", "aten::addmm"):
            a, b = args[-2:]
            self.torch += a.shape[0] * a.shape[1] * b.shape[1]
        if name == "mkldnn::_linear_pointwise":
            self.onednn += args[0].numel() * args[1].shape[0]
        return func(*args, **(kwargs or {}))


class Operations(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func._schema.name] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def on_any_processor(monkeypatch):
    """Test the products of oneDNN where they would not be used, too."""
    monkeypatch.setattr(kernels, "_MIN_PRODUCTS", 2**20)
    monkeypatch.setattr(kernels, "_MIN_PRODUCTS_WITH_GRADIENT", 2**22)


@pytest.mark.parametrize(("vendor", "wide"), [("GenuineIntel", True), ("AuthenticAMD", False)])
def test_mkl_is_wide_on_processors_of_its_makers_only(vendor, wide, tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t: avx512f\n")
    assert kernels.mkl_is_wide(cpuinfo) == (wide and torch.backends.mkl.is_available())
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert not kernels.mkl_is_wide(cpuinfo)
    monkeypatch.setattr("platform.processor", lambda: "")
    assert not kernels.mkl_is_wide(tmp_path / "missing")


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("kind", ["linear", "no bias", "conv1d", "transposed gradient"])
def test_values_and_gradients_are_torchs_to_rounding(kind):
    assert ROWS * INPUTS * OUTPUTS >= kernels._MIN_PRODUCTS_WITH_GRADIENT
    plain = Conv1D(OUTPUTS, INPUTS) if kind == "conv1d" else nn.Linear(INPUTS, OUTPUTS, bias=kind != "no bias")
    fast = type(plain)(OUTPUTS, INPUTS) if kind == "conv1d" else nn.Linear(INPUTS, OUTPUTS, bias=kind != "no bias")
    fast.load_state_dict(plain.state_dict())
    gradient = draw(OUTPUTS, 64, 3).permute(2, 1, 0) if kind == "transposed gradient" else draw(3, 64, OUTPUTS)
    found = []
    for module in (plain.double(), fast):
        dtype = next(module.parameters()).dtype
        x = draw(3, 64, INPUTS).to(dtype).requires_grad_()
        y = module(x) if module is plain else kernels._FORWARDS[type(module)](module, x)
        y.backward(gradient.to(dtype))
        found.append([y, x.grad, *(parameter.grad for parameter in module.parameters())])
    for exact, other in zip(*found, strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(other, exact.float(), rtol=1e-5, atol=1e-5 * exact.abs().max().item())


def test_only_large_float32_products_go_to_onednn():
    weight = draw(OUTPUTS, INPUTS)
    x = draw(ROWS, INPUTS)
    cases = {
        "large": (x, weight, True),
        "small": (x[:8], weight, False),
        "float64": (x.double(), weight.double(), False),
        "bfloat16": (x.bfloat16(), weight.bfloat16(), False),
    }
    for name, (x, weight, expected) in cases.items():
        with Products() as products:
            kernels._product(x, weight, None)
        assert bool(products.onednn) == expected, name
    with Products() as products, torch.autocast("cpu", torch.bfloat16):
        assert kernels._product(draw(ROWS, INPUTS), draw(OUTPUTS, INPUTS), None).dtype == torch.bfloat16
    assert not products.onednn


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("lora", [False, True])
def test_the_products_of_an_update_go_to_onednn_and_none_for_frozen_weights(architecture, lora):
    envs = string_envs(length=12, num_envs=32)
    policy = tiny_lm(envs, architecture, hidden_size=128, num_heads=2, num_layers=1)
    if lora:
        policy.add_lora(LoraSettings(rank=2), seed=0)
    rollout = collect(envs, policy, num_episodes=32, seed=0)
    with Products() as forward:
        log_probs = policy.evaluate(rollout, np.arange(32))[0]
    with Products() as backward:
        log_probs.sum().backward()
    assert forward.torch < 0.15 * forward.onednn  # the heads' narrow ones and the adapters'
    # Twice the forward's: for the inputs and for the weights; once below an adapter, and none for the first inputs.
    assert backward.onednn <= (1.0 if lora else 2.0) * forward.onednn
    assert backward.onednn >= (0.4 if lora else 1.6) * forward.onednn
    assert all((p.grad is not None) == p.requires_grad for p in policy.model.parameters())


def test_the_gradient_of_a_transposed_weight_is_not_copied():
    """Conv1D keeps (inputs, outputs): its gradient comes in that order, or autograd would copy the whole of it."""
    copied = []

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func._schema.name in ("aten::copy_", "aten::clone"):
                copied.append(args[0].numel())
            return func(*args, **(kwargs or {}))

    for module in (Conv1D(OUTPUTS, INPUTS), nn.Linear(INPUTS, OUTPUTS)):
        x = draw(5, 64, INPUTS).requires_grad_()
        y = kernels._FORWARDS[type(module)](module, x)
        with Copies():
            y.sum().backward()
        assert module.weight.grad is not None
        assert INPUTS * OUTPUTS not in copied


@pytest.mark.parametrize("shape", [(3, 2**15 + 7), (5, 2**13, 1), (40, 3, 1000)], ids=str)
def test_gelu_and_its_gradient_are_torchs_to_rounding(shape):
    x = 4 * draw(*shape)
    x.view(-1)[:9] = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 12.0, -12.0, -40.0, 1e6, -1e6])
    gradient, layer = draw(*shape), GELUTanh()
    exact = x.double().requires_grad_()
    expected = layer(exact)
    expected.backward(gradient.double())
    for given in (x, x.transpose(0, 1).contiguous().transpose(0, 1)):
        ours = given.clone().requires_grad_()
        with Operations() as operations:
            found = kernels._gelu(layer, ours)
            found.backward(gradient)
            with torch.no_grad():
                torch.testing.assert_close(kernels._gelu(layer, given), found, rtol=0, atol=0)
        assert "aten::gelu" not in operations.counts
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours.grad.double(), exact.grad, rtol=1e-5, atol=1e-6 * gradient.abs().max().item())


def test_only_large_float32_activations_have_a_gelu_of_ours():
    large = 2 * kernels._MIN_GELUS_WITH_GRADIENT
    for x, expected in ((draw(large), False), (draw(64), True), (draw(large).double(), True)):
        for differentiated in (False, True):
            with Operations() as operations:
                assert kernels._gelu(GELUTanh(), x.clone().requires_grad_(differentiated)).dtype == x.dtype
            assert operations.counts["aten::gelu"] == expected


def test_an_update_of_gpt2_has_no_slower_gelu():
    envs = string_envs(length=12, num_envs=32)
    policy = tiny_lm(envs, "gpt2", hidden_size=128, num_heads=2, num_layers=1)
    rollout = collect(envs, policy, num_episodes=32, seed=0)
    with Operations() as operations:
        policy.evaluate(rollout, np.arange(32))[0].sum().backward()
    assert not {"aten::gelu", "aten::gelu_backward"} & set(operations.counts)


def angles(size):
    """Cosines and sines (ROWS, size) as transformers make them, for positions of their own."""
    half = torch.outer(torch.arange(ROWS).float(), torch.linspace(0.01, 1, size // 2))
    return torch.cat([half, half], -1).cos(), torch.cat([half, half], -1).sin()


def signed(sin):
    """Sines as `rotate` takes them."""
    half = sin.shape[-1] // 2
    return torch.cat([-sin[..., :half], sin[..., half:]], -1)


@pytest.mark.parametrize("grad", [True, False])
def test_what_llama_is_made_of_is_its_modules_to_the_last_bit(grad):
    x = 3 * torch.randn(ROWS, INPUTS, generator=torch.Generator().manual_seed(0))
    norm, (cos, sin) = LlamaRMSNorm(INPUTS, eps=1e-3), angles(16)
    mlp = LlamaMLP(LlamaConfig(hidden_size=INPUTS, intermediate_size=OUTPUTS))
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
    heads = x.view(1, ROWS, -1, 16)
    with torch.set_grad_enabled(grad):
        x = x.requires_grad_(grad)
        assert torch.equal(kernels.rms_norm(x, norm.weight, 1e-3), norm(x))
        gated = kernels.gated_silu(mlp.gate_proj(x), mlp.up_proj(x))
        assert torch.equal(mlp.down_proj(gated), mlp(x))
        turned = kernels.rotate(heads[0], cos[:, None], signed(sin)[:, None])
        expected, _ = apply_rotary_pos_emb(heads, heads, cos[None], sin[None], unsqueeze_dim=2)
        assert torch.equal(turned, expected[0])


def test_the_gradients_of_what_llama_is_made_of(monkeypatch):
    """In parts of 7 elements, the last of which is shorter."""
    monkeypatch.setattr(kernels, "_CACHED", 7)
    generator = torch.Generator().manual_seed(0)
    x, y, weight = (
        torch.randn(*shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in ((5, 8), (5, 8), (8,))
    )
    assert torch.autograd.gradcheck(lambda x, weight: kernels.rms_norm(x, weight, 1e-2), (x, weight))
    assert torch.autograd.gradcheck(lambda x: kernels.rms_norm(x, weight.detach(), 1e-2), (x,))
    assert torch.autograd.gradcheck(lambda weight: kernels.rms_norm(x.detach(), weight, 1e-2), (weight,))
    assert torch.autograd.gradcheck(kernels.gated_silu, (x, y))
    cos, sin = (part[:5, None].double() for part in angles(4))
    assert torch.autograd.gradcheck(lambda x: kernels.rotate(x.view(5, 2, 4), cos, signed(sin)), (x,))


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_memory_is_kept_for_the_next_arrays():
    kernels.keep_freed_memory()
    faults = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        arrays = [np.ones(2**19) for _ in range(32)]  # 128 MB, 32,768 pages
        del arrays
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert faults[-1] < 1000
