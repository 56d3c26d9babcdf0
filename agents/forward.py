"""A forward of GPT-2 and Llama models for sampling: their modules' own weights and numbers, none of their Python.

A small model spends most of a sampling step in Python, module by module. `find_forward` gives plain functions of
tensors for a trunk whose every part is what it was made as, and None for any other, whose own forward then runs:
adapters, replaced modules or forwards, hooks, other families, scaled rotary positions, training mode, autocast, weights
that are not float32 on the CPU. Sums are taken in another order, so results agree to float32 rounding.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import GELUTanh, NewGELUActivation, SiLUActivation
from transformers.models.gpt2 import modeling_gpt2 as gpt2
from transformers.models.llama import modeling_llama as llama
from transformers.pytorch_utils import Conv1D

from agents.cache import Address, SlotCache
from agents.kernels import HAS_ONEDNN, attend_one, linear, spread


class Attention:
    """Attention of the tokens of one forward, (M, ...) one after another, over all that their rows have seen.

    The tokens come in one or two parts: what comes before the last new tokens of some rows, and the last of all rows.
    """

    def __init__(self, cache: SlotCache, parts: Sequence[tuple[Address, Tensor]]) -> None:
        """Take what each `SlotCache.open` of a part left as its address, and the mask it gave."""
        self.layers, self.parts = cache.layers, parts
        self.bias: Tensor | None = None  # the last part's mask in the shape of its scores

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, size: int, scaling: float) -> Tensor:
        """Write keys and values (M, key heads x size) and return what the queries (M, heads x size) find, alike.

        Of the last layer only the n last tokens' outcome (n, heads x size) is of use, and returned.
        """
        found, start = [], 0
        for address, mask in self.parts:
            n, width = address.written.shape
            end = start + n * width
            q, k, v = (x[start:end].view(n, width, -1, size).transpose(1, 2) for x in (query, key, value))
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


_Kinds = dict[type, tuple[int, int]]
Forward = Callable[[Any, Tensor, Tensor, Attention], Tensor]  # of a trunk, tokens and positions (M,): the last's (n, d)


def find_forward(model: PreTrainedModel) -> Forward | None:
    """Return the function that computes what the model's trunk does as it is now, or None when it must run itself."""
    trunk: Any = model.base_model
    if type(trunk) not in _FAMILIES or not HAS_ONEDNN or torch.is_autocast_enabled("cpu"):
        return None
    forward, kinds = _FAMILIES[type(trunk)]
    modules = list(trunk.modules())
    num_layers = model.config.num_hidden_layers
    rotary = getattr(trunk, "rotary_emb", None)
    as_made = (
        Counter(map(type, modules)) in [{kind: a + b * num_layers for kind, (a, b) in x.items()} for x in kinds]
        and not any(m.training or m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in modules)
        and all(p.dtype == torch.float32 and p.device.type == "cpu" for p in trunk.parameters())
        and model.config._attn_implementation in ("sdpa", "eager")
        and (rotary is None or rotary.rope_type == "default")
    )
    return forward if as_made else None


def _gpt2(trunk: Any, tokens: Tensor, positions: Tensor, attend: Attention) -> Tensor:
    x = trunk.wte.weight[tokens] + trunk.wpe.weight[positions]
    for i, block in enumerate(trunk.h):
        attention, mlp = block.attn, block.mlp
        query, key, value = _conv1d(_layer_norm(x, block.ln_1), attention.c_attn).chunk(3, -1)
        found = attend(i, query, key, value, size=attention.head_dim, scaling=attention.scaling)
        x = _conv1d(found, attention.c_proj).add_(x[-len(found) :])
        x = _conv1d(_conv1d(_layer_norm(x, block.ln_2), mlp.c_fc, "gelu"), mlp.c_proj).add_(x)
    return _layer_norm(x, trunk.ln_f)


def _llama(trunk: Any, tokens: Tensor, positions: Tensor, attend: Attention) -> Tensor:
    x = trunk.embed_tokens.weight[tokens]
    angles = positions[:, None].float() * trunk.rotary_emb.inv_freq
    cos, sin = angles.cos().repeat(1, 2)[:, None], angles.sin()
    sin = torch.cat([-sin, sin], -1)[:, None]
    for i, block in enumerate(trunk.layers):
        attention, mlp = block.self_attn, block.mlp
        y, size = _rms_norm(x, block.input_layernorm), attention.head_dim
        query, key, value = (_linear(y, layer) for layer in (attention.q_proj, attention.k_proj, attention.v_proj))
        query, key = (_rotate(z.view(len(z), -1, size), cos, sin).view(z.shape) for z in (query, key))
        found = attend(i, query, key, value, size=size, scaling=attention.scaling)
        x = _linear(found, attention.o_proj).add_(x[-len(found) :])
        y = _rms_norm(x, block.post_attention_layernorm)
        x = _linear(_linear(y, mlp.gate_proj, "silu").mul_(_linear(y, mlp.up_proj)), mlp.down_proj).add_(x)
    return _rms_norm(x, trunk.norm)


def _linear(x: Tensor, layer: Any, activation: str | None = None) -> Tensor:
    return linear(x, layer.weight, layer.bias, activation)


def _conv1d(x: Tensor, layer: Any, activation: str | None = None) -> Tensor:
    return linear(x, layer.weight.t(), layer.bias, activation)


def _layer_norm(x: Tensor, layer: Any) -> Tensor:
    return nn.functional.layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)


def _rms_norm(x: Tensor, layer: Any) -> Tensor:
    return nn.functional.rms_norm(x, layer.weight.shape, layer.weight, layer.variance_epsilon)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the halves of x (M, heads, size) by angles whose cosines, and sines of either sign, are (M, 1, size)."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


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
#: By the class of the trunk: its function, and what modules it may have, so many once and so many in each layer.
_FAMILIES: dict[type, tuple[Forward, list[_Kinds]]] = {
    gpt2.GPT2Model: (_gpt2, [_GPT2 | {act: (0, 1)} for act in (GELUTanh, NewGELUActivation)]),
    llama.LlamaModel: (_llama, [_LLAMA | {act: (0, 1)} for act in (SiLUActivation, nn.SiLU)]),
}
