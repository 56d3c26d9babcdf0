"""Faster kernels for the layers of unmodified models: same weights, same function, same gradients.

On processors of other makers than its own PyTorch's matrix products (MKL) keep to 256-bit vectors. oneDNN, also in
PyTorch, takes the widest there are: 1.5 to 2.7 times as fast, from the weights as they stand. On Intel's own it is the
slower one, and not used. And attention of one token a row is two batched products; the general kernel takes up to three
times as long for it. GELU's tanh is taken from exp, which is twice as fast, and its derivative on the way. What LLaMA
is made of goes backwards in fewer passes. Sums are taken in another order, so results agree to float32 rounding.
"""

import ctypes
import math
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, PreTrainedModel
from transformers.activations import GELUTanh
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.pytorch_utils import Conv1D

_MIN_GELUS = 2**14  # likewise, activations
_MIN_GELUS_WITH_GRADIENT = 2**15
_CACHED = 2**16  # elements of the temporary arrays of `_gelu`: several operations pass them
_ATTENTION = "sdpa_or_one_token"
_FUSED = {None: ("none", ""), "gelu": ("gelu", "tanh"), "silu": ("swish", "")}  # oneDNN's names
HAS_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


def mkl_is_wide(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether PyTorch's own products take the widest vectors there are: with MKL, on processors of Intel's."""
    vendors = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.is_file() else platform.processor()
    return "GenuineIntel" in vendors and bool(torch.backends.mkl.is_available())  # type: ignore[no-untyped-call]


_NEVER = 2**62
_MIN_PRODUCTS = _NEVER if mkl_is_wide() else 2**20  # below, the call costs more than the wider vectors save
_MIN_PRODUCTS_WITH_GRADIENT = min(4 * _MIN_PRODUCTS, _NEVER)  # the same for a function of our own with its backward
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>


class Kernels:
    """Which layers of a model have a faster kernel. Settings that a layer has no kernel for run as they did."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.config = model.config
        fast = model.device.type == "cpu" and HAS_ONEDNN
        # A layer whose forward somebody has replaced does something of its own.
        self.layers = [layer for layer in model.modules() if type(layer) in _FORWARDS and "forward" not in vars(layer)]
        self.layers = self.layers if fast else []
        self.depth = 0
        self.attention = fast and self.config._attn_implementation == "sdpa"

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Use them inside; a block within another changes nothing."""
        self.depth += 1
        if self.depth == 1:
            for layer in self.layers:
                vars(layer)["forward"] = MethodType(_FORWARDS[type(layer)], layer)
            if self.attention:
                self.config._attn_implementation_internal = _ATTENTION
        try:
            yield
        finally:
            self.depth -= 1
            if self.depth == 0:
                if self.attention:
                    self.config._attn_implementation_internal = "sdpa"
                for layer in self.layers:
                    del vars(layer)["forward"]


def _linear(layer: Any, x: Tensor) -> Tensor:
    return _product(x, layer.weight, layer.bias)


def _conv1d(layer: Any, x: Tensor) -> Tensor:
    return _product(x, layer.weight.t(), layer.bias)


def _gelu(layer: Any, x: Tensor) -> Tensor:
    return gelu(x)


def gelu(x: Tensor) -> Tensor:
    """Return GELU of x (...), by tanh; of a large one by the formula of `_gelu_and_slope`."""
    # A frozen model takes the way of one that learns: where they are equal, so are their results.
    least = _MIN_GELUS_WITH_GRADIENT if torch.is_grad_enabled() else _MIN_GELUS
    if x.numel() < least or x.dtype != torch.float32:
        return nn.functional.gelu(x, approximate="tanh")
    if torch.is_grad_enabled() and x.requires_grad:
        return _Gelu.apply(x)  # type: ignore[no-untyped-call, no-any-return]
    return _gelu_and_slope(x, slope=None)


_FORWARDS: dict[type[nn.Module], Callable[[Any, Tensor], Tensor]] = {
    nn.Linear: _linear,
    Conv1D: _conv1d,
    GELUTanh: _gelu,
}


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x (..., in) times the transpose of weight (out, in), plus bias (out,)."""
    least = _MIN_PRODUCTS_WITH_GRADIENT if torch.is_grad_enabled() else _MIN_PRODUCTS
    small = x.numel() * len(weight) < least
    if small or x.dtype != torch.float32 or weight.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return nn.functional.linear(x, weight, bias)
    if torch.is_grad_enabled():
        return _Product.apply(x, weight, bias)  # type: ignore[no-untyped-call, no-any-return]
    return _onednn(x, weight, bias)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None, then: tuple[str, str] = ("none", "")) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, then[0], [], then[1])
    return out


def has_kernel(num_products: int) -> bool:
    """Whether a product of so many multiplications is large enough for a kernel."""
    return num_products >= _MIN_PRODUCTS


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None = None) -> Tensor:
    """Return the activation, "gelu" (by tanh) or "silu", of x (..., in) times weight (out, in) transposed, plus bias.

    For float32 on the CPU; without gradients oneDNN computes the activation in the same pass.
    """
    if torch.is_grad_enabled():
        y = _product(x, weight, bias)
        if activation == "gelu":
            return gelu(y)
        return nn.functional.silu(y) if activation else y
    if has_kernel(x.numel() * weight.shape[0]):
        return _onednn(x, weight, bias, _FUSED[activation])
    y = nn.functional.linear(x, weight, bias)
    if activation == "gelu":
        return nn.functional.gelu(y, approximate="tanh")
    return nn.functional.silu(y) if activation else y


def _turned(x: Tensor) -> Tensor:
    """Return the transpose (n, m) of x (m, n), in the order of its memory.

    To shuffle the channels of an image of one pixel is to transpose, in wide vectors: copying takes up to four times
    as long.
    """
    m, n = x.shape
    image = x.contiguous().as_strided((1, m * n, 1, 1), (m * n, 1, m * n, m * n))
    return torch.channel_shuffle(image, m).view(n, m)


class _Product(torch.autograd.Function):
    """Saves what the gradients asked for need and no more: below an adapter, no activations of the frozen weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x_needs, weight_needs, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if weight_needs else None, weight if x_needs else None)
        ctx.transposed = weight.t().is_contiguous()
        return _onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        flat = gradient.flatten(0, -2)
        weight_gradient = None
        if x is not None:
            x = x.flatten(0, -2)
            # As the weight lies in memory: another order would be copied.
            weight_gradient = _onednn(_turned(x), flat.t()).t() if ctx.transposed else _onednn(_turned(flat), x.t())
        return (
            None if weight is None else _onednn(gradient, weight.t()),
            weight_gradient,
            flat.sum(0) if ctx.needs_input_grad[2] else None,
        )


class _Gelu(torch.autograd.Function):
    """Saves its derivative instead of its input: as much memory, and the backward is one product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        slope = torch.empty(x.shape)
        ctx.save_for_backward(slope)
        return _gelu_and_slope(x, slope)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        slope: Tensor = ctx.saved_tensors[0]
        return slope * gradient


@torch.no_grad()
def _gelu_and_slope(x: Tensor, slope: Tensor | None) -> Tensor:
    """Return x s(v), and write s(v) + x s(v) (1 - s(v)) v' into slope: v = a x + b x^3, 2 s(v) - 1 = tanh(v / 2).

    Source: Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2: a = sqrt(8 / pi), b = 0.044715 a.
    """
    out = torch.empty(x.shape)
    a = torch.tensor(math.sqrt(8 / math.pi))
    b = 0.044715 * a.item()
    parts = [torch.split(y.view(-1), _CACHED) for y in (x.contiguous(), out, out if slope is None else slope)]
    for part, y, s in zip(*parts, strict=True):
        torch.addcmul(a, part, part, value=b, out=s).mul_(part).sigmoid_()
        torch.mul(part, s, out=y)
        if slope is not None:
            bend = torch.ops.aten.sigmoid_backward(part, s)
            s.addcmul_(bend, torch.addcmul(a, part, part, value=3 * b))
    return out


class _RMSNorm(torch.autograd.Function):
    """Zhang and Sennrich 2019, arXiv:1910.07467: n = x / rms(x), times the weight; saves n, not what it is made of."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = x.pow(2).mean(-1, keepdim=True).add_(eps).rsqrt_()
        normal = x * scale
        ctx.save_for_backward(normal, scale, weight)
        return normal * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        normal, scale, weight = ctx.saved_tensors
        products = gradient * normal
        along = torch.mv(products, weight).div_(-len(weight))[:, None]
        return (
            (gradient * weight).addcmul_(normal, along).mul_(scale) if ctx.needs_input_grad[0] else None,
            products.sum(0) if ctx.needs_input_grad[1] else None,
            None,
        )


class _Rotation(torch.autograd.Function):
    """Saves the angles only: a turn's gradient is turned back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return x.roll(x.shape[-1] // 2, -1).mul_(sin).add_(x * cos)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        half = gradient.shape[-1] // 2
        turned = gradient * cos
        turned[..., :half].addcmul_(gradient[..., half:], sin[..., half:])
        turned[..., half:].addcmul_(gradient[..., :half], sin[..., :half])
        return turned, None, None


class _GatedSilu(torch.autograd.Function):
    """Saves its two derivatives instead of its two inputs, and takes them while those are in the cache."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        out, by_up, by_gate = torch.empty_like(up), torch.empty_like(up), torch.empty_like(up)
        parts = [torch.split(x.view(-1), _CACHED) for x in (gate, up, out, by_up, by_gate)]
        for g, u, y, silu, slope in zip(*parts, strict=True):
            torch.ops.aten.silu.out(g, out=silu)
            torch.mul(silu, u, out=y)
            torch.ops.aten.silu_backward.grad_input(u, g, grad_input=slope)
        ctx.save_for_backward(by_gate, by_up)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        by_gate, by_up = ctx.saved_tensors
        return gradient * by_gate, gradient * by_up


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x (M, d) over the root of the mean of its squares plus eps, times weight (d,).

    Outside inference mode it is, to the last bit, what transformers' modules make of it; so are the next two.
    """
    if torch.is_inference_mode_enabled():
        return nn.functional.rms_norm(x, weight.shape, weight, eps)
    return _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call, no-any-return]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the halves of x (M, heads, size) by angles whose cosines, and sines of either sign, are (M, 1, size)."""
    if torch.is_inference_mode_enabled():
        return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)
    return _Rotation.apply(x, cos, sin)  # type: ignore[no-untyped-call, no-any-return]


def gated_silu(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) times up, (M, d) each."""
    if not torch.is_grad_enabled():
        return nn.functional.silu(gate) * up
    return _GatedSilu.apply(gate, up)  # type: ignore[no-untyped-call, no-any-return]


def keep_freed_memory() -> None:
    """Let this process keep up to a GB of what it frees for its next arrays, instead of giving it back at once.

    The system clears every page that it hands out. An update frees activations and gradients and soon asks for as much
    again: 7 to 12 % of its time at 11M parameters went there. Without glibc nothing happens.

    Source: mallopt(3).
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_M_TRIM_THRESHOLD, 2**30)
        # Whoever sets one sets both: glibc then adapts neither. Larger arrays are few, and given back.
        library.mallopt(_M_MMAP_THRESHOLD, 2**25)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' "sdpa" does; see `transformers.AttentionInterface`.

    Args:
        module: the attention layer.
        query: (n, heads, q, size).
        key: (n, key heads, keys, size), heads a multiple of key heads.
        value: (n, key heads, keys, value size).
        attention_mask: (n, 1, q, keys) float to be added to the scores.
        dropout: share of the weights to drop.
        scaling: of the scores; None for 1 / sqrt(size).
        kwargs: what only some models pass.

    Returns:
        (n, q, heads, value size), and None for the weights.
    """
    own = any(kwargs.get(name) is not None for name in ("softcap", "position_bias", "s_aux", "cache"))
    mask = attention_mask
    if (
        (query.shape[2] > 1 or mask is None or mask.shape[1] > 1 or dropout or own)
        or not query.dtype == key.dtype == mask.dtype == torch.float32
        or torch.is_autocast_enabled("cpu")
    ):
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return found
    bias = spread(mask, query, key)
    return attend_one(query, key, value, bias, query.shape[3] ** -0.5 if scaling is None else scaling), None


def spread(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Return a mask (n, 1, 1, keys) in the shape of the scores of `attend_one`."""
    n, heads = query.shape[:2]
    return mask.expand(n, heads, 1, -1).reshape(n * key.shape[1], heads // key.shape[1], -1)


def attend_one(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scaling: float) -> Tensor:
    """Return the attention (n, 1, heads, value size) of one token a row: see `_attend`, and `spread` for the bias."""
    pairs, share, _ = bias.shape
    key, value = key.flatten(0, 1), value.flatten(0, 1)
    scores = torch.baddbmm(bias, query.reshape(pairs, share, -1), key.transpose(1, 2), alpha=scaling)
    return torch.bmm(scores.softmax(-1), value).view(query.shape[0], 1, -1, value.shape[2])


AttentionInterface.register(_ATTENTION, _attend)
