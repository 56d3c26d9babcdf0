"""LMPolicy: a Hugging Face causal LM with a value head, as a policy over token-prefix observations.

It samples through a `Sampler`, feeding only what is new in each row, and it is differentiated on whole sequences,
one forward each. Both give the same log-probabilities to float32 rounding; a test holds them together.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from safetensors.torch import save_file, save_model
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from agents.checkpoint import parameter_hash
from agents.forward import find_forward, run_whole
from agents.gguf import convert_gguf
from agents.kernels import Kernels, has_kernel
from agents.lora import (
    LoraSettings,
    adapter_tensors,
    inject_adapter,
    narrow_frozen,
    read_adapter_config,
    save_adapter,
)
from agents.losses import token_scores
from agents.policy import Decisions
from agents.pretrained import (
    check_fits,
    find_file,
    load_causal_lm,
    load_tensors,
    read_fingerprint,
    weights,
    with_fused_gelu,
    without_dropout,
)
from agents.rollout import Rollout
from agents.sampler import Sampler

MAX_LOGITS_BYTES = 256 * 2**20  # no (tokens, vocabulary) array of a forward or a backward is larger
_ARCHITECTURES = ("gpt2", "llama")
_VALUE_HEAD = "value_head.safetensors"


class LMPolicy(nn.Module):
    """A causal LM that chooses tokens, and the value of every prefix from the same trunk."""

    prefix_observations = True

    def __init__(self, model: PreTrainedModel, metadata: Mapping[str, Any], *, temperature: float = 1.0) -> None:
        """Wrap a model for an env.

        Args:
            model: a causal LM whose logits are a linear map of its last hidden state.
            metadata: the env's `metadata["textgen"]`.
            temperature: divides the logits wherever probabilities are computed: sampling, update, reference.

        Raises:
            ValueError: when the model does not fit the env, or the temperature is not positive.
        """
        super().__init__()
        if not 0 < temperature < float("inf"):
            raise ValueError(
                f"temperature must be positive and finite, got {temperature}; 1 samples the model as it is"
            )
        self.model, self.temperature = model, temperature
        self.num_tokens: int = metadata["num_tokens"]
        self.vocab_sha256: str = metadata["vocab_sha256"]
        self.prompt_slots: int = metadata["max_prompt_tokens"]
        self.max_tokens: int = metadata["max_prompt_tokens"] + metadata["max_new_tokens"]
        self.value_head = nn.utils.skip_init(nn.Linear, model.config.hidden_size, 1)  # type: ignore[no-untyped-call]
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.lora: LoraSettings | None = None
        self.base_sha256 = ""  # of the trunk below an adapter
        self.autocast: torch.dtype | None = None  # what the trunk computes in, when not float32
        self.sampler: Sampler | None = None
        self.eval()
        check_fits(model, num_tokens=self.num_tokens, max_tokens=self.max_tokens)
        self.kernels = Kernels(model)

    @classmethod
    def from_config(
        cls,
        metadata: Mapping[str, Any],
        *,
        architecture: str = "gpt2",
        hidden_size: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        init_std: float = 0.1,
        seed: int,
        temperature: float = 1.0,
    ) -> "LMPolicy":
        """Make a randomly initialised LM of the env's own vocabulary size.

        Args:
            metadata: the env's `metadata["textgen"]`.
            architecture: "gpt2" (learned absolute positions) or "llama" (rotary positions).
            hidden_size: width of the trunk; a multiple of num_heads.
            num_layers: number of blocks.
            num_heads: attention heads.
            init_std: standard deviation of the initial weights; so narrow a trunk learns faster from larger ones than
            the 0.02 of wide models.
            seed: of the initial weights; the global generator is left as it was.
            temperature: see the constructor.

        Raises:
            ValueError: for an unknown architecture or a width that the heads do not divide.
        """
        if architecture not in _ARCHITECTURES:
            raise ValueError(f"architecture must be one of {_ARCHITECTURES}, got {architecture!r}; choose one of them")
        if hidden_size % num_heads:
            raise ValueError(f"hidden_size must be a multiple of num_heads={num_heads}, got {hidden_size}; change one")
        config = AutoConfig.for_model(
            architecture,
            vocab_size=metadata["num_tokens"],
            hidden_size=hidden_size,
            num_hidden_layers=num_layers,
            num_attention_heads=num_heads,
            max_position_embeddings=metadata["max_prompt_tokens"] + metadata["max_new_tokens"],
            initializer_range=init_std,
            bos_token_id=metadata["bos_id"],
            eos_token_id=metadata["eos_id"],
            **(
                {"intermediate_size": 4 * hidden_size, "num_key_value_heads": num_heads}
                if architecture == "llama"
                else {}
            ),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(with_fused_gelu(without_dropout(config)), dtype=torch.float32)
        return cls(model, metadata, temperature=temperature)

    @classmethod
    def from_pretrained(cls, name: str | Path, metadata: Mapping[str, Any], *, temperature: float = 1.0) -> "LMPolicy":
        """Load a saved policy, any causal LM in safetensors form, a LoRA adapter with its base, or a GGUF file.

        Args:
            name: a local directory, a hub id, or a .gguf file, which `gguf` converts once.
            metadata: the env's `metadata["textgen"]`.
            temperature: see the constructor.

        Raises:
            ValueError: for weights that are absent, damaged or not finite, or made for another vocabulary or base.
        """
        if str(name).endswith(".gguf"):
            name = convert_gguf(Path(name))
        adapter = find_file(name, "adapter_config.json")
        base, lora = (name, None) if adapter is None else read_adapter_config(adapter)
        policy = cls(load_causal_lm(base, metadata), metadata, temperature=temperature)
        if adapter is not None and lora is not None:
            policy.add_lora(lora, seed=0)
            policy._load_adapter(adapter.parent)
        if (head := find_file(name, _VALUE_HEAD)) is not None:
            load_tensors(head, policy.value_head.state_dict())
        return policy

    def add_lora(self, settings: LoraSettings, *, seed: int) -> None:
        """Freeze the trunk and train an adapter and the value head from now on; probabilities stay, to rounding.

        Args:
            settings: of the adapter.
            seed: of its initial weights; the global generator is left as it was.

        Raises:
            ValueError: when there is an adapter already, or target names match nothing.
        """
        if self.lora is not None:
            raise ValueError(f"policy must have no adapter yet, got one with {self.lora}; train that one")
        self.base_sha256 = parameter_hash(self.model)
        inject_adapter(self.model, settings, seed=seed)
        self.lora = settings

    def use_autocast(self, dtype: str) -> None:
        """Compute the trunk in a narrow type from now on; what trains, logits and probabilities stay float32.

        Below an adapter the frozen matrices are kept in that type: each forward would round them to the same numbers.

        Raises:
            ValueError: unless dtype is "bfloat16".
        """
        if dtype != "bfloat16":
            raise ValueError(f"autocast must be 'bfloat16', got {dtype!r}; leave it out for float32")
        self.autocast, self.sampler = torch.bfloat16, None
        narrow_frozen(self.model.base_model, self.autocast)

    def load(self, folder: Path) -> None:
        """Take over the weights that `save` wrote for a policy of the same shape.

        Raises:
            ValueError: names the tensors that are missing, unexpected, not finite or of another shape.
        """
        if self.lora is None:
            load_tensors(folder / "model.safetensors", weights(self.model))
        else:
            self._load_adapter(folder)
        load_tensors(folder / _VALUE_HEAD, self.value_head.state_dict())

    def _load_adapter(self, folder: Path) -> None:
        """Take over an adapter; one that we saved names its base by hash as well."""
        path = folder / "textenvs.json"
        if path.is_file() and (found := read_fingerprint(path, "base_sha256")) != self.base_sha256:
            raise ValueError(
                f"base model must be the one the adapter in {folder} was trained on, {found[:12]}, "
                f"got {str(self.base_sha256)[:12]} from {self.model.name_or_path}; restore it"
            )
        load_tensors(folder / "adapter_model.safetensors", adapter_tensors(self.model))

    def save(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors, or the adapter in peft's two files; the value head; textenvs.json.

        The last holds the vocabulary's fingerprint and, for an adapter, its base's.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        fingerprints = {"vocab_sha256": self.vocab_sha256}
        if self.lora is None:
            self.model.config.to_json_file(folder / "config.json", use_diff=False)
            save_model(self.model, str(folder / "model.safetensors"), metadata={"format": "pt"})
        else:
            save_adapter(self.model, self.lora, folder)
            fingerprints["base_sha256"] = self.base_sha256
        save_file(self.value_head.state_dict(), folder / _VALUE_HEAD)
        (folder / "textenvs.json").write_text(json.dumps(fingerprints) + "\n", encoding="utf-8")

    def frozen_copy(self) -> "LMPolicy":
        """Return a copy without gradients: the reference of a KL penalty.

        What does not train here is shared, not copied: beside a LoRA policy a reference costs an adapter. It is the
        adapter as it is now; the base without one would be another model after a warm start.
        """
        self.sampler = None
        frozen = {id(parameter): parameter for parameter in self.parameters() if not parameter.requires_grad}
        return copy.deepcopy(self, frozen).requires_grad_(False)

    @property
    def value_bias(self) -> Tensor:
        """The (1,) parameter that is added to every value."""
        bias: Tensor = self.value_head.bias
        return bias

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.device
        return device

    def train(self, mode: bool = True) -> "LMPolicy":
        """Stay in evaluation mode: dropout would make the updated policy differ from the one that sampled."""
        return super().train(False)

    @torch.inference_mode()
    def act(
        self,
        observations: NDArray[Any],
        rows: NDArray[np.int64],
        legal: NDArray[np.bool_] | None,
        rngs: Sequence[Generator],
        *,
        greedy: bool = False,
    ) -> Decisions:
        """Choose the next token of each row from its whole legal distribution, by inverse CDF; see `Policy.act`.

        A row whose first response slot is empty has just begun: its prompt is fed from position 0. All other rows are
        fed the tokens that came since their last turn, so they must be acted for at every step. A row draws its
        uniforms from its generator in blocks, the first when it begins.
        """
        if self.sampler is None or self.sampler.model is not self.model or len(self.sampler.fed) != len(observations):
            self.sampler = Sampler(
                self.model,
                self.kernels,
                len(observations),
                num_tokens=self.num_tokens,
                prompt_slots=self.prompt_slots,
                max_tokens=self.max_tokens,
            )
        with self._autocast():
            hidden = self.sampler.feed(observations, rows).float()
        actions, chosen = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.float32)
        size = max(1, MAX_LOGITS_BYTES // (8 * self.model.config.vocab_size))  # the CDF's float64
        for part in (slice(i, i + size) for i in range(0, len(rows), size)):
            allowed = None if legal is None else torch.from_numpy(legal[part]).to(self.device)
            log_probs = self._log_probs(hidden[part], allowed)
            drawn = log_probs.argmax(-1) if greedy else self.sampler.draw(log_probs, rows[part], rngs[part])
            actions[part] = drawn.cpu().numpy()
            chosen[part] = log_probs.gather(-1, drawn[:, None])[:, 0].cpu().numpy()
        return Decisions(actions, chosen, self._values(hidden).cpu().numpy())

    def evaluate(self, rollout: Rollout, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Compute log-probabilities, values and entropies of whole episodes, one forward for all of them.

        Args:
            rollout: episodes whose observations are final prefixes.
            rows: (n,) which of them.

        Returns:
            log_probs, values and entropies over the legal tokens, (n, T) each, 0 outside the mask.
        """
        observed, mask = rollout.observations[rows], rollout.mask[rows]
        present = observed != self.num_tokens
        first, (row, t) = present.argmax(1), np.nonzero(mask)
        # The token at a position was predicted from the hidden state before it, so that nobody reads the last token's.
        before = rollout.positions[rows][row, t] - first[row] - 1
        width = int(before.max()) + 1
        # Right-padded: with a causal mask no token sees the padding, so positions 0, 1, ... need no mask at all.
        slots = np.minimum(first[:, None] + np.arange(width), observed.shape[1] - 1)
        tokens = np.take_along_axis(observed, slots, 1)
        hidden = self._hidden(np.where(tokens == self.num_tokens, 0, tokens), row * width + before)
        actions = torch.from_numpy(rollout.actions[rows][row, t]).to(self.device)
        legal = None if rollout.legal is None else torch.from_numpy(rollout.legal[rows][row, t]).to(self.device)
        log_probs, entropies = self._score(hidden, actions, legal)
        index = (torch.from_numpy(row), torch.from_numpy(t))
        zeros = torch.zeros(mask.shape, device=self.device)
        scattered = (zeros.index_put(index, x) for x in (log_probs, self._values(hidden), entropies))
        return tuple(scattered)  # type: ignore[return-value]

    def _hidden(self, tokens: NDArray[Any], kept: NDArray[np.int64]) -> Tensor:
        """Return the hidden states (K, d) of the kept of n sequences' tokens (n, w), an index of n x w."""
        with self._autocast():
            forward = find_forward(self.model)
            if forward is not None:
                return run_whole(forward, self.model.config.num_hidden_layers, tokens, kept)
            with self.kernels():
                hidden: Tensor = self.model.base_model(
                    input_ids=torch.from_numpy(tokens).to(self.device),
                    position_ids=torch.arange(tokens.shape[1], device=self.device)[None],
                    use_cache=False,
                ).last_hidden_state
        return hidden.flatten(0, 1).index_select(0, torch.from_numpy(kept).to(self.device)).float()

    def _autocast(self) -> AbstractContextManager[None]:
        if self.autocast is None:
            return nullcontext()  # one that is not enabled takes 2 % of a small model's step
        return torch.autocast(self.device.type, self.autocast)

    def _score(self, hidden: Tensor, actions: Tensor, legal: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies (M,) from hidden states (M, d), in chunks that bound memory."""
        size = max(1, MAX_LOGITS_BYTES // (4 * self.model.config.vocab_size))

        def score(part: slice) -> tuple[Tensor, Tensor]:
            return token_scores(self._logits(hidden[part], None if legal is None else legal[part]), actions[part])

        if len(hidden) <= size:
            return score(slice(None))
        # Recomputed in the backward pass: otherwise autograd would keep every chunk.
        parts = [slice(i, i + size) for i in range(0, len(hidden), size)]
        chunks = [checkpoint(score, part, use_reentrant=False) for part in parts]
        return torch.cat([chunk[0] for chunk in chunks]), torch.cat([chunk[1] for chunk in chunks])

    def _log_probs(self, hidden: Tensor, legal: Tensor | None) -> Tensor:
        """Return normalised log-probabilities (M, V) over the env's legal tokens."""
        return torch.log_softmax(self._logits(hidden, legal), -1)

    def _logits(self, hidden: Tensor, legal: Tensor | None) -> Tensor:
        """Return logits (M, V) of the env's tokens at the policy's temperature, -inf where one is not legal."""
        # To give every layer its kernel takes longer than a small head, which has none.
        with self.kernels() if has_kernel(hidden.numel() * self.model.config.vocab_size) else nullcontext():
            logits: Tensor = self.model.get_output_embeddings()(hidden)[:, : self.num_tokens]
        if self.temperature != 1:
            logits = logits / self.temperature
        return logits if legal is None else logits.masked_fill(~legal, -torch.inf)

    def _values(self, hidden: Tensor) -> Tensor:
        values: Tensor = self.value_head(hidden)[:, 0]
        return values
