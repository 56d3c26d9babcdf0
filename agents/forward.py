"""A forward of GPT-2 and Llama models: their modules' own weights and numbers, none of their Python.

A small model spends most of a step in Python, module by module. `find_forward` gives plain functions of
tensors for a trunk whose every part is what it was made as, and None for any other, whose own forward then runs:
adapters, replaced modules or forwards, hooks, other families, scaled rotary positions, training mode, autocast, weights
that are not float32 on the CPU. Of whole sequences, a beginning that several share runs once (a group's prompt, what
many answers begin with), and padding does not run. Sums are taken in another order, so results agree to float32
rounding.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules import module as all_modules
from transformers import PreTrainedModel
from transformers.activations import GELUTanh, NewGELUActivation, SiLUActivation
from transformers.models.gpt2 import modeling_gpt2 as gpt2
from transformers.models.llama import modeling_llama as llama
from transformers.pytorch_utils import Conv1D

from agents.cache import Address, SlotCache
from agents.kernels import HAS_ONEDNN, attend_one, gated_silu, linear, rms_norm, rotate, spread


class Attention(Protocol):
    """Attention of the tokens of one forward, (M, ...) one after another."""

    def keep(self, x: Tensor) -> Tensor:
        """Return those of tokens (M, ...) that are of use behind the last layer's attention."""
        ...

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, size: int, scaling: float) -> Tensor:
        """Return what queries (M, heads x size) find among keys and values (M, key heads x size), in layer's turn.

        Like the queries; of the last layer, of the kept tokens only.
        """
        ...


class CausalAttention:
    """Attention of n whole sequences of w tokens each: every token sees itself and what is before it.

    Key heads are shared out to as many heads each.
    """

    def __init__(self, num_layers: int, shape: tuple[int, ...], kept: Tensor, places: "Places | None" = None) -> None:
        """Take what of it runs.

        Args:
            num_layers: of the trunk.
            shape: (n, w).
            kept: (K,) which of the tokens that run are of use at the end.
            places: where those tokens stand; None when all n x w run, one after another.
        """
        self.last, self.shape, self.kept, self.places = num_layers - 1, shape, kept, places

    def keep(self, x: Tensor) -> Tensor:
        """See `Attention`."""
        return x.index_select(0, self.kept)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, size: int, scaling: float) -> Tensor:
        """See `Attention`."""
        there = [query, key, value]
        if self.places:
            there = [x.index_select(0, self.places.number) for x in there]
        q, k, v = (x.view(*self.shape, -1, size).transpose(1, 2) for x in there)
        found = nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, enable_gqa=q.shape[1] > k.shape[1]
        )
        found = found.transpose(1, 2).reshape(-1, query.shape[1])
        if self.places:
            return found.index_select(0, self.places.first if layer < self.last else self.places.first[self.kept])
        return found if layer < self.last else self.keep(found)


class CachedAttention:
    """Attention of one or a few new tokens a row over all that the rows have seen.

    The tokens come in one or two parts: what comes before the last new tokens of some rows, and the last of all rows.
    """

    def __init__(self, cache: SlotCache, parts: Sequence[tuple[Address, Tensor]]) -> None:
        """Take what each `SlotCache.open` of a part left as its address, and the mask it gave."""
        self.layers, self.parts = cache.layers, parts
        self.bias: Tensor | None = None  # the last part's mask in the shape of its scores

    def keep(self, x: Tensor) -> Tensor:
        """See `Attention`."""
        return x[-len(self.parts[-1][0].written) :]  # one token a row

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, size: int, scaling: float) -> Tensor:
        """Write the keys and values, and see `Attention`."""
        found, start = [], 0
        for address, mask in self.parts:
            n, width = address.written.shape
            end = start + n * width
            own = (x if end - start == len(x) else x[start:end] for x in (query, key, value))
            # One token lies as its heads do; a view less to make.
            q, k, v = (
                x.view(n, -1, 1, size) if width == 1 else x.view(n, width, -1, size).transpose(1, 2) for x in own
            )
            keys, values = self.layers[layer].exchange(address, k, v)
            start = end
            if width == 1 and end == len(query):
                self.bias = spread(mask, q, keys) if self.bias is None else self.bias
                found.append(attend_one(q, keys, values, self.bias, scaling).view(n, -1))
            elif layer < len(self.layers) - 1:
                out = nn.functional.scaled_dot_product_attention(
                    q, keys, values, mask, scale=scaling, enable_gqa=q.shape[1] > keys.shape[1]
                )
                found.append(out.transpose(1, 2).reshape(n * width, -1))
        return found[0] if len(found) == 1 else torch.cat(found)


class Places(NamedTuple):
    """Where M different beginnings of sequences stand among n x w tokens."""

    number: Tensor  # (n x w,) of the beginning that ends at each; any where nobody needs one
    first: Tensor  # (M,) one place of each


def find_places(tokens: NDArray[Any], kept: NDArray[np.int64]) -> Places:
    """Number the different beginnings of sequences: of two that are equal, a causal trunk makes the same.

    Args:
        tokens: (n, w) ids.
        kept: (K,) at which of n x w tokens hidden states are asked for; nobody needs those behind a sequence's last.
    """
    n, w = tokens.shape
    needed = np.zeros(n * w, bool)
    needed[kept] = True
    needed = np.logical_or.accumulate(needed.reshape(n, w)[:, ::-1], 1)[:, ::-1]
    tokens = np.where(needed, tokens, -1)
    order = np.lexsort(tokens.T[::-1])  # as in a dictionary, where equal beginnings follow each other
    tokens = tokens[order]
    new = tokens >= 0
    new[1:] &= np.logical_or.accumulate(tokens[1:] != tokens[:-1], 1)
    row, t = np.nonzero(new)
    number = np.zeros((n, w), np.int64)
    number[row, t] = np.arange(len(row))
    number[order] = np.maximum.accumulate(number, 0)
    return Places(torch.from_numpy(number.ravel()), torch.from_numpy(order[row] * w + t))


def run_whole(forward: "Forward", num_layers: int, tokens: NDArray[Any], kept: NDArray[np.int64]) -> Tensor:
    """Return the hidden states (K, d) of the kept of n sequences' tokens (n, w), an index of n x w.

    Beginnings that sequences share run once, and padding does not run, where that makes up for finding its way back.
    """
    places, ids = find_places(tokens, kept), torch.from_numpy(tokens).flatten()
    positions, here = torch.arange(tokens.shape[1]).repeat(len(tokens)), torch.from_numpy(kept)
    if len(places.first) > _MOST_RUN * len(ids):
        return forward(ids, positions, CausalAttention(num_layers, tokens.shape, here))
    ends, again = torch.unique(places.number[here], return_inverse=True)
    attention = CausalAttention(num_layers, tokens.shape, ends, places)
    return forward(ids[places.first], positions[places.first], attention).index_select(0, again)


# Of all places: above, taking the rows of four arrays a layer costs as much as it saves, 0.95 at width 384, 0.85 at 64.
_MOST_RUN = 0.875
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_Kinds = dict[type, tuple[int, int]]
_Map = Callable[[Tensor], Tensor]  # of the last axis, by a layer
Forward = Callable[[Tensor, Tensor, Attention], Tensor]  # tokens and positions (M,): hidden states of those kept


def find_forward(model: PreTrainedModel) -> Forward | None:
    """Return the function that computes what the model's trunk does as it is now, or None when it must run itself.

    It holds the weights: looking for them in the modules takes a small model longer than some of its products.
    """
    trunk: Any = model.base_model
    if type(trunk) not in _FAMILIES or not HAS_ONEDNN or torch.is_autocast_enabled("cpu"):
        return None
    if any(getattr(all_modules, f"_global{hooks}") for hooks in _HOOKS):
        return None
    make, kinds = _FAMILIES[type(trunk)]
    num_layers = model.config.num_hidden_layers
    rotary = getattr(trunk, "rotary_emb", None)
    modules, parameters = [trunk], []
    for module in modules:  # which grow meanwhile: one pass instead of those of `modules` and `parameters`
        state = vars(module)
        if state["training"] or "forward" in state or any(map(state.get, _HOOKS)):
            return None
        modules += [child for child in state["_modules"].values() if child is not None]
        parameters += state["_parameters"].values()
    as_made = (
        Counter(map(type, modules)) in [{kind: a + b * num_layers for kind, (a, b) in x.items()} for x in kinds]
        and all(p is None or (p.dtype == torch.float32 and p.is_cpu) for p in parameters)
        and model.config._attn_implementation in ("sdpa", "eager")
        and (rotary is None or rotary.rope_type == "default")
    )
    return make(trunk) if as_made else None


def _gpt2(trunk: Any) -> Forward:
    words, places, last_norm = trunk.wte.weight, trunk.wpe.weight, _layer_norm(trunk.ln_f)
    layers = []
    for block in trunk.h:
        attention, mlp = block.attn, block.mlp
        norms, up = (_layer_norm(block.ln_1), _layer_norm(block.ln_2)), _conv1d(mlp.c_fc, "gelu")
        maps = (_conv1d(attention.c_attn), _conv1d(attention.c_proj), up, _conv1d(mlp.c_proj))
        layers.append((norms, maps, attention.head_dim, attention.scaling))

    def forward(tokens: Tensor, positions: Tensor, attend: Attention) -> Tensor:
        x = torch.embedding(words, tokens).add_(torch.embedding(places, positions))
        for i, ((norm_1, norm_2), (into, out, up, down), size, scaling) in enumerate(layers):
            query, key, value = _split(into(norm_1(x)))
            found = attend(i, query, key, value, size=size, scaling=scaling)
            x = out(found).add_(x if i < len(layers) - 1 else attend.keep(x))
            x = down(up(norm_2(x))).add_(x)
        return last_norm(x)

    return forward


def _llama(trunk: Any) -> Forward:
    words, frequencies, last_norm = trunk.embed_tokens.weight, trunk.rotary_emb.inv_freq, _rms_norm(trunk.norm)
    layers = []
    for block in trunk.layers:
        attention, mlp = block.self_attn, block.mlp
        norms = (_rms_norm(block.input_layernorm), _rms_norm(block.post_attention_layernorm))
        maps = [_linear(x) for x in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)]
        ups = (_gated(mlp.gate_proj, mlp.up_proj), _linear(mlp.down_proj))
        layers.append((norms, maps, ups, attention.head_dim, attention.scaling))

    def forward(tokens: Tensor, positions: Tensor, attend: Attention) -> Tensor:
        x = torch.embedding(words, tokens)
        angles = positions[:, None].float() * frequencies
        cos, sin = angles.cos().repeat(1, 2)[:, None], angles.sin()
        sin = torch.cat([-sin, sin], -1)[:, None]
        for i, ((norm_1, norm_2), (*into, out), (up, down), size, scaling) in enumerate(layers):
            y = norm_1(x)
            query, key, value = (linear(y) for linear in into)
            query, key = (rotate(z.view(len(z), -1, size), cos, sin).view(z.shape) for z in (query, key))
            found = attend(i, query, key, value, size=size, scaling=scaling)
            x = out(found).add_(x if i < len(layers) - 1 else attend.keep(x))
            x = down(up(norm_2(x))).add_(x)
        return last_norm(x)

    return forward


def _linear(layer: Any, activation: str | None = None) -> _Map:
    weight, bias = layer.weight, layer.bias
    return lambda x: linear(x, weight, bias, activation)


def _conv1d(layer: Any, activation: str | None = None) -> _Map:
    weight, bias = layer.weight.t(), layer.bias
    return lambda x: linear(x, weight, bias, activation)


def _split(x: Tensor) -> Sequence[Tensor]:
    """Return the three (M, d) in x (M, 3 d): for sampling in a piece each, by one copy; gradients would copy again."""
    if torch.is_inference_mode_enabled():
        return x.view(len(x), 3, -1).transpose(0, 1).contiguous().unbind()
    return x.chunk(3, -1)


def _gated(gate: Any, up: Any) -> _Map:
    silu, plain, other = _linear(gate, "silu"), _linear(gate), _linear(up)
    return lambda x: silu(x) * other(x) if torch.is_inference_mode_enabled() else gated_silu(plain(x), other(x))


def _layer_norm(layer: Any) -> _Map:
    shape, weight, bias, eps = layer.normalized_shape, layer.weight, layer.bias, layer.eps
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)


def _rms_norm(layer: Any) -> _Map:
    weight, eps = layer.weight, layer.variance_epsilon
    return lambda x: rms_norm(x, weight, eps)


_GPT2: _Kinds = {gpt2.GPT2Model: (1, 0), nn.Embedding: (2, 0), nn.ModuleList: (1, 0), nn.Dropout: (1, 3)}
_GPT2 |= {
    gpt2.GPT2Block: (0, 1),
    gpt2.GPT2Attention: (0, 1),
    gpt2.GPT2MLP: (0, 1),
    nn.LayerNorm: (1, 2),
    Conv1D: (0, 4),
}
_LLAMA: _Kinds = {llama.LlamaModel: (1, 0), nn.Embedding: (1, 0), nn.ModuleList: (1, 0)}
_LLAMA |= {llama.LlamaDecoderLayer: (0, 1), llama.LlamaAttention: (0, 1), llama.LlamaMLP: (0, 1), nn.Linear: (0, 7)}
_LLAMA |= {llama.LlamaRMSNorm: (1, 2), llama.LlamaRotaryEmbedding: (1, 0)}
#: By the class of the trunk: who makes its function, and what modules it may have: so many once, so many in each layer.
_FAMILIES: dict[type, tuple[Callable[[Any], Forward], list[_Kinds]]] = {
    gpt2.GPT2Model: (_gpt2, [_GPT2 | {act: (0, 1)} for act in (GELUTanh, NewGELUActivation)]),
    llama.LlamaModel: (_llama, [_LLAMA | {act: (0, 1)} for act in (SiLUActivation, nn.SiLU)]),
}
