"""SlotCache: a key-value cache whose rows stand at different positions, for unmodified Hugging Face causal LMs.

Transformers' own static cache counts one position for all rows. Here every row writes where its own sequence stands,
so an episode that ends frees its row at once. A row restarts by writing at position 0 again; nothing is zeroed, because
the attention mask hides every position the row has not yet written.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

_MIN_KEY_NUMBERS = 400  # positions x head size: PyTorch multiplies smaller matrices of a batch in a slow loop
_MIN_KEYS = 16  # it normalises shorter rows of scores in a slow loop too
_MAX_DIFFERENCE = 1e-4  # of the mean; float32 gives 1e-6, one token of hundreds that only one side sees 1e-3


@dataclass
class Address:
    """Where a forward writes and reads, the same in all layers."""

    rows: Tensor | None  # (n,) rows that run, or None for all of them in order
    begins: bool  # every row starts at 0: what it sees is what it writes
    written: Tensor  # (n, q) position of every key written
    length: int  # number of positions read
    index: Tensor | None = None  # (n * heads * q,) where the keys lie in a layer's storage; None until a layer asks

    def lines(self, first: Tensor) -> Tensor:
        """Return to which lines of a layer's storage keys go, whose position 0 is the line first (N, heads)."""
        if self.index is None or self.index.numel() != self.written.numel() * first.shape[1]:
            first = first if self.rows is None else first[self.rows]
            self.index = (first[..., None] + self.written[:, None]).flatten()
        return self.index


class _SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one attention layer, (N, heads, S + 1, head size) each.

    The extra slot takes what padding writes and is never read.
    """

    address: Address  # of the running forward, for its `update`

    def __init__(self, num_rows: int, num_slots: int) -> None:
        super().__init__()
        self.num_rows, self.num_slots = num_rows, num_slots

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the storage on the first write, when the layer's shapes are known. Zeros, since 0 * NaN is NaN."""
        shape = (self.num_rows, key_states.shape[1], self.num_slots)
        self.keys = key_states.new_zeros((*shape, key_states.shape[3]))
        self.values = value_states.new_zeros((*shape, value_states.shape[3]))
        self.first = torch.arange(0, shape[0] * shape[1] * shape[2], shape[2], device=self.keys.device).view(shape[:2])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Exchange at the address that `SlotCache.open` set last."""
        return self.exchange(self.address, key_states, value_states)

    def exchange(self, address: Address, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        """Write (n, heads, q, size) at an address; return everything readable, (n, heads, length, size)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        return self._exchange(address, self.keys, key_states), self._exchange(address, self.values, value_states)

    def _exchange(self, address: Address, storage: Tensor, new: Tensor) -> Tensor:
        storage.flatten(0, 2).index_copy_(0, address.lines(self.first), new.flatten(0, 2))
        if address.begins:
            return new
        readable = storage.narrow(2, 0, address.length)
        return readable if address.rows is None else readable.index_select(0, address.rows)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of keys and their offset; the explicit 4-D mask makes it a formality."""
        return self.address.length, 0

    def get_seq_length(self) -> int:
        """Return 0: rows have no common length, and positions are always passed explicitly."""
        return 0

    def get_max_length(self) -> int:
        """Return the most positions a row can hold."""
        return self.num_slots - 1


class SlotCache(Cache):  # type: ignore[misc]
    """A static cache of num_rows rows with max_tokens positions each."""

    def __init__(self, num_layers: int, num_rows: int, max_tokens: int, *, head_size: int = 64) -> None:
        """Make room; the head size decides how many positions are read at least, for speed, from the first step on."""
        self.min_length = max(_MIN_KEYS, -(-_MIN_KEY_NUMBERS // head_size))
        self.num_slots = max_tokens + 1
        super().__init__(layers=[_SlotLayer(num_rows, self.num_slots) for _ in range(num_layers)])
        self._all_rows = torch.arange(num_rows)
        # Any S of it, one after another, are a row of the mask; how far it is from the middle says what it hides.
        self._seen_hidden = torch.cat([torch.zeros(max_tokens), torch.full((max_tokens,), -torch.inf)])

    def open(self, rows: Tensor, starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Point the next forward at some rows, each continuing at its own position.

        Args:
            rows: (n,) distinct rows, in the order of the forward's batch.
            starts: (n,) position of each row's first new token; 0 restarts the row.
            lengths: (n,) number of new tokens; the batch is right-padded to the longest, q. A row with none keeps what
                it has.

        Returns:
            position_ids (n, q) and attention mask (n, 1, q, keys), to be added: token at position p sees 0..p.

        Raises:
            ValueError: when a row would pass its last position.
        """
        device, most = rows.device, self.num_slots - 1
        length, width = int((starts + lengths).max()), int(lengths.max())
        if length > most:
            raise ValueError(f"max_tokens must be at least {length} for this sequence, got {most}; raise it")
        if self._all_rows.device != device:
            self._seen_hidden, self._all_rows = self._seen_hidden.to(device), self._all_rows.to(device)
        positions = written = starts[:, None]
        if width > 1 or not int(lengths.min()):
            steps = torch.arange(width, device=device)
            real = steps < lengths[:, None]
            positions = torch.where(real, starts[:, None] + steps, 0)
            written = torch.where(real, positions, most)
        begins = width > 1 and not bool(starts.any())
        length = width if begins else min(max(length, self.min_length), most)
        some = None if torch.equal(rows, self._all_rows) else rows
        self.address = Address(some, begins, written, length)
        for layer in self.layers:
            layer.address = self.address
        return positions, self._seen_hidden.unfold(0, length, 1)[most - 1 - positions[:, None]]


@torch.no_grad()
def check_cache(model: PreTrainedModel, max_tokens: int) -> None:
    """Refuse a model that computes something else with a `SlotCache` than without, such as one with a sliding window.

    The probe is as long as an episode can be: one row is fed all tokens but the last, then the last beside a row that
    begins. Windows, recurrent states and positions of a model's own making all show in it.

    Args:
        model: a causal LM.
        max_tokens: prompt and response together, at least 2.

    Raises:
        ValueError: when the hidden states differ by more than rounding, or the model cannot run so.
    """
    device, config = model.device, model.config
    tokens = torch.arange(1, max_tokens + 1, device=device)[None] * 7 % config.vocab_size
    whole = model.base_model(
        input_ids=tokens, position_ids=torch.arange(max_tokens, device=device)[None], use_cache=False
    ).last_hidden_state[0, [0, -1]]

    def feed(rows: list[int], starts: list[int], chunk: Tensor) -> Tensor:
        lengths = torch.full((len(rows),), chunk.shape[1], device=device)
        positions, mask = cache.open(torch.tensor(rows, device=device), torch.tensor(starts, device=device), lengths)
        hidden: Tensor = model.base_model(
            input_ids=chunk, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True
        ).last_hidden_state
        return hidden[:, -1]

    cache = SlotCache(config.num_hidden_layers, 2, max_tokens)
    try:
        feed([1], [0], tokens[:, :-1])
        first, last = feed([0, 1], [0, max_tokens - 1], tokens[:, [0, -1]].T)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
    else:
        difference = (torch.stack([first, last]) - whole).abs().mean() / whole.abs().mean()
        if difference <= _MAX_DIFFERENCE:
            return
        reason = f"hidden states off by {difference:.1%}"
    raise ValueError(
        f"model must see all of an episode's {max_tokens} tokens at the positions it is given, got "
        f"{type(model).__name__}: {reason}; use a GPT-2, Llama, Qwen2 or GPT-NeoX style model, or shorter episodes"
    )
