"""Sampler: which tokens of a batch of token prefixes a model has seen, and the uniforms that each row draws next."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from agents.cache import Address, SlotCache
from agents.forward import CachedAttention, Forward, find_forward
from agents.kernels import Kernels

_Part = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]  # (n,) rows, first positions, numbers of tokens
_READ_PER_IDLE = 2  # positions whose copy costs a running row what a model of that width costs an idle one
_DRAWN_AHEAD = 64  # an array of draws is the same as single ones, and far faster


class Sampler:
    """N rows that a model reads as they grow."""

    def __init__(
        self,
        model: PreTrainedModel,
        kernels: Kernels,
        num_rows: int,
        *,
        num_tokens: int,
        prompt_slots: int,
        max_tokens: int,
    ) -> None:
        """Make a cache of num_rows rows.

        Args:
            model: a causal LM that passed `check_cache`.
            kernels: its kernels, which are used wherever its own forward runs.
            num_rows: N.
            num_tokens: what an unused slot of an observation holds.
            prompt_slots: P, how many slots stand before the first response slot.
            max_tokens: most tokens of a row.
        """
        self.model, self.kernels, self.pad_id, self.prompt_slots = model, kernels, num_tokens, prompt_slots
        self.device = model.device
        config = model.config
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.cache = SlotCache(config.num_hidden_layers, num_rows, max_tokens, head_size=size)
        self.fed = np.zeros(num_rows, np.int64)  # tokens of each row that the cache holds
        self.first = np.zeros(num_rows, np.int64)  # slot of each row's first token
        self.uniforms = np.zeros((num_rows, _DRAWN_AHEAD))
        self.num_used = np.full(num_rows, _DRAWN_AHEAD)
        self.forward: Forward | None = None  # None: the model runs itself

    def __getstate__(self) -> dict[str, Any]:
        """Return all but the forward, which holds weights: a copy has its own."""
        return vars(self) | {"forward": None}

    def feed(self, observations: NDArray[Any], rows: NDArray[np.int64]) -> Tensor:
        """Feed each row's tokens that the cache lacks; return the hidden state (n, d) of each row's last token.

        One forward, or two when some rows have several new tokens (a prompt, a reply) and others one: then all but the
        last tokens of those go first, without padding the others.
        """
        # One index into all slots is quicker than two.
        flat, line = observations.reshape(-1), rows * observations.shape[1]
        fresh = flat.take(line + self.prompt_slots) == self.pad_id
        starts = np.where(fresh, 0, self.fed[rows])
        begins = starts == 0
        if np.count_nonzero(begins):
            began = rows[begins]
            self.first[began] = (observations[began] != self.pad_id).argmax(1)
            self.num_used[began] = _DRAWN_AHEAD
            if len(began) == len(rows):
                self.forward = find_forward(self.model)  # which may have got an adapter or a hook since
        first = self.first[rows]
        # Most rows have one new token; only where the slot after it is filled too is there more to count.
        fed = starts + 1
        more = begins | (flat.take(line + np.minimum(first + fed, observations.shape[1] - 1)) != self.pad_id)
        if np.count_nonzero(more):
            fed[more] = (observations[rows[more]] != self.pad_id).sum(1)
        self.fed[rows] = fed
        lengths = fed - starts
        long = lengths > 1
        parts = [(rows[long], starts[long], lengths[long] - 1)] if np.count_nonzero(long) else []
        parts.append((rows, fed - 1, np.ones_like(lengths)))
        if self.forward is not None:
            num_idle = len(self.fed) - len(rows)
            if not 0 < num_idle * self.model.config.hidden_size <= _READ_PER_IDLE * len(rows) * fed.max():
                return self._own_forward(self.forward, observations, parts)
            # Keys of some rows are copied to be read; where few rows sit out, a token that nobody reads costs less.
            parts[-1] = self._with_idle(rows, fed - 1)
            return self._own_forward(self.forward, observations, parts).index_select(0, torch.from_numpy(rows))
        if long.all():
            parts = [(rows, starts, lengths)]
        hidden = [self._model_forward(observations, part) for part in parts][-1]
        return hidden[torch.arange(len(rows)), torch.from_numpy(parts[-1][2] - 1)]

    def _with_idle(self, rows: NDArray[np.int64], starts: NDArray[np.int64]) -> _Part:
        """Return the part of all rows in which these (n,) have one token and the others none."""
        begins, lengths = np.zeros_like(self.fed), np.zeros_like(self.fed)
        begins[rows], lengths[rows] = starts, 1
        return np.arange(len(begins)), begins, lengths

    def _own_forward(self, forward: Forward, observations: NDArray[Any], parts: list[_Part]) -> Tensor:
        """Feed all parts at once; return the hidden states (n, d) of the last, of one token a row."""
        opened = [self._open(observations, part) for part in parts]
        attention = CachedAttention(self.cache, [(address, mask) for _, _, mask, address in opened])
        tokens, positions = ([x.flatten() for x in xs] for xs in list(zip(*opened, strict=True))[:2])
        if len(parts) == 1:
            return forward(tokens[0], positions[0], attention)
        return forward(torch.cat(tokens), torch.cat(positions), attention)

    def _model_forward(self, observations: NDArray[Any], part: _Part) -> Tensor:
        """Feed one part to the model's own forward; return its hidden states (n, q, d)."""
        tokens, positions, mask, _ = self._open(observations, part)
        with self.kernels():
            hidden: Tensor = self.model.base_model(
                input_ids=tokens,
                position_ids=positions,
                attention_mask=mask,
                past_key_values=self.cache,
                use_cache=True,
            ).last_hidden_state
        return hidden

    def _open(self, observations: NDArray[Any], part: _Part) -> tuple[Tensor, Tensor, Tensor, Address]:
        """Make room for a part; return its tokens and positions (n, q), its mask, and where it goes."""
        rows, starts, lengths = part
        slots, width = self.first[rows] + starts, int(lengths.max())
        if width == 1:
            tokens = (observations.reshape(-1).take(rows * observations.shape[1] + slots) * lengths)[:, None]
        else:
            # The sequence is contiguous, so the tokens follow each other; what pads the shorter rows is arbitrary.
            steps = np.arange(width)
            tokens = observations[rows[:, None], (slots[:, None] + steps) % observations.shape[1]]
            tokens = np.where(steps < lengths[:, None], tokens, 0)
        to = self.device
        positions, mask = self.cache.open(*(torch.from_numpy(x).to(to) for x in part))
        return torch.from_numpy(tokens).to(to), positions, mask, self.cache.address

    def draw(self, log_probs: Tensor, rows: NDArray[np.int64], rngs: Sequence[Generator]) -> Tensor:
        """Draw an action (n,) for each row from log-probabilities (n, V), by inverse CDF."""
        used = self.num_used[rows] % _DRAWN_AHEAD
        for i in np.flatnonzero(used == 0).tolist():
            self.uniforms[rows[i]] = rngs[i].random(_DRAWN_AHEAD)
        uniforms = torch.from_numpy(self.uniforms[rows, used]).to(log_probs.device)
        self.num_used[rows] = used + 1
        cdf = log_probs.exp().cumsum(-1, dtype=torch.float64)
        # A uniform below 1 times the total stays below the total, so the token found always has p > 0.
        actions = torch.searchsorted(cdf, uniforms[:, None] * cdf[:, -1:], right=True)[:, 0]
        # Weights that are not finite have no CDF; whoever steps the env refuses their log-probability.
        return actions.clamp(max=log_probs.shape[1] - 1)
