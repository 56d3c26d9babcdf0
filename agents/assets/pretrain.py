"""Trains the small language model on whole reviews. What goes in and what comes out is in `build`.

All that is random is drawn by numpy, whatever the processor. How processors differ in rounding stays small in training,
as it would not with every optimizer: `benchmarks/LOG.md`, "The shipped model, rebuilt elsewhere".
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import LlamaConfig, LlamaForCausalLM

from agents.assets.measure import IGNORED, log_probs, padded, perplexity

# Subjects that can stand in each other's reviews.
FAMILIES = (
    ("movie", "film", "comedy", "thriller", "documentary", "horror film", "romance", "cartoon", "TV show"),
    ("restaurant", "cafe", "pizza place", "bakery"),
    ("book", "novel"),
    ("phone", "laptop"),
    ("museum", "museum tour"),
    ("train ride", "flight", "holiday"),
    ("school", "lesson"),
    ("beach", "park"),
)
_FAMILY = {subject: family for family in FAMILIES for subject in family}

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Settings:
    """How the model is made and trained; the only home of these numbers.

    Attributes:
        hidden_size, intermediate_size, num_layers, num_heads: the architecture (Llama, tied embeddings).
        max_tokens: positions of the model.
        dropout: on embeddings and on what each block adds; in training only.
        batch_size: reviews an update.
        num_epochs: passes over the training reviews.
        num_warmup_steps: updates of linear warm-up.
        decay_share: last share of the updates, in which the step size falls linearly to 0.
        learning_rate: of AdamW.
        weight_decay: on matrices and embeddings.
        average_decay: what the average of the weights, which is what is kept, retains of itself at each update.
        swap_share: share of reviews whose subject is swapped for another of its family, drawn anew each epoch.
        init_std: standard deviation of the initial weights.
        seed: of weights, order, dropout and swaps.
    """

    hidden_size: int = 128
    intermediate_size: int = 384
    num_layers: int = 4
    num_heads: int = 4
    max_tokens: int = 96
    dropout: float = 0.1
    batch_size: int = 32
    num_epochs: int = 12
    num_warmup_steps: int = 100
    decay_share: float = 0.7
    learning_rate: float = 0.002
    weight_decay: float = 0.1
    average_decay: float = 0.997
    swap_share: float = 0.3
    init_std: float = 0.02
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """A trained model with what training it took."""

    model: LlamaForCausalLM
    num_steps: int
    best_epoch: int
    dev_perplexities: tuple[float, ...]
    seconds: float


def swap_subject(subject: str, text: str, rng: np.random.Generator) -> str:
    """A review with its subject replaced by a random one of the same family (perhaps the same)."""
    family = _FAMILY.get(subject, (subject,))
    other = family[rng.integers(len(family))]
    return re.sub(rf"\b{re.escape(subject)}\b", other, text)


def make_model(settings: Settings, num_tokens: int, end: int) -> LlamaForCausalLM:
    """A randomly initialised model; the global generator is left as it was."""
    config = LlamaConfig(
        vocab_size=num_tokens,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        max_position_embeddings=settings.max_tokens,
        tie_word_embeddings=True,
        initializer_range=settings.init_std,
        bos_token_id=end,
        eos_token_id=end,
    )
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(config)
    rng = np.random.default_rng((settings.seed, 0))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.copy_(torch.from_numpy(rng.normal(0, settings.init_std, parameter.shape)))
    return model


def train(
    settings: Settings, reviews: Sequence[tuple[str, str]], dev: Sequence[Sequence[int]], encode: Encode,
    num_tokens: int, end: int,
) -> Trained:  # fmt: skip
    """Train a model and keep the averaged weights of its best epoch.

    Args:
        settings: all the numbers.
        reviews: (subject, text) of each training review.
        dev: token ids of reviews that choose the epoch and nothing else.
        encode: text to token ids, end token included.
        num_tokens: V.
        end: id of the end token.
    """
    started = time.process_time()
    rng = np.random.default_rng((settings.seed, 1))
    model = make_model(settings, num_tokens, end).train()
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.average_decay)).eval()  # type: ignore[no-untyped-call]
    _add_dropout(model, settings.dropout, np.random.default_rng((settings.seed, 2)))
    optimizer = _optimizer(model, settings)
    num_steps = settings.num_epochs * -(-len(reviews) // settings.batch_size)
    schedule = LambdaLR(optimizer, _rate(settings, num_steps))
    perplexities: list[float] = []
    best: dict[str, Tensor] = {}
    for _ in range(settings.num_epochs):
        for batch in _batches(settings, reviews, encode, rng):
            _update(model, optimizer, batch)
            schedule.step()
            averaged.update_parameters(model)
        perplexities.append(perplexity(log_probs(averaged.module, dev)))
        print(f"epoch {len(perplexities)}: dev perplexity {perplexities[-1]:.2f}", flush=True)
        if perplexities[-1] == min(perplexities):
            best = {name: tensor.clone() for name, tensor in averaged.module.state_dict().items()}
    averaged.module.load_state_dict(best)
    best_epoch = 1 + int(np.argmin(perplexities))
    return Trained(averaged.module, num_steps, best_epoch, tuple(perplexities), time.process_time() - started)


def _add_dropout(model: LlamaForCausalLM, probability: float, rng: np.random.Generator) -> None:
    """Llama has no dropout of its own on embeddings and residual branches."""

    def drop(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        kept = torch.from_numpy(rng.random(output.shape, dtype=np.float32) >= probability)
        return output * kept / (1 - probability)

    outputs = [output for layer in model.model.layers for output in (layer.self_attn.o_proj, layer.mlp.down_proj)]
    for site in (model.model.embed_tokens, *outputs):
        site.register_forward_hook(drop)


def _optimizer(model: LlamaForCausalLM, settings: Settings) -> torch.optim.Optimizer:
    decayed, norms = ([p for p in model.parameters() if p.ndim == ndim] for ndim in (2, 1))
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))


def _rate(settings: Settings, num_steps: int) -> Callable[[int], float]:
    """Factor of the step size after a number of updates: linear warm-up, level, linear decay to 0."""
    num_decay_steps = settings.decay_share * num_steps
    return lambda step: min(1, (step + 1) / settings.num_warmup_steps, (num_steps - step) / num_decay_steps)


def _batches(
    settings: Settings, reviews: Sequence[tuple[str, str]], encode: Encode, rng: np.random.Generator
) -> Iterator[Tensor]:
    """One epoch of right-padded batches (B, L), each of reviews of similar length to waste little padding."""
    sequences = [
        encode(swap_subject(subject, text, rng) if rng.random() < settings.swap_share else text)
        for subject, text in reviews
    ]
    order, size = rng.permutation(len(sequences)).tolist(), settings.batch_size
    chunks: list[list[int]] = []
    for i in range(0, len(order), 20 * size):
        alike = sorted(order[i : i + 20 * size], key=lambda k: len(sequences[k]))
        chunks += [alike[j : j + size] for j in range(0, len(alike), size)]
    for i in rng.permutation(len(chunks)).tolist():
        yield padded([sequences[k] for k in chunks[i]])


def _update(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, batch: Tensor) -> None:
    targets = batch[:, 1:]
    real = targets != IGNORED
    hidden = model.model(batch.clamp(min=0), use_cache=False).last_hidden_state[:, :-1][real]
    F.cross_entropy(model.lm_head(hidden), targets[real]).backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
