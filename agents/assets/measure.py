"""What is measured of a small language model: log-probabilities, samples, and how much of them is copied."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

IGNORED = -100  # in place of a token id: no token there
COPIED_WORDS = 12


def padded(sequences: Sequence[Sequence[int]]) -> Tensor:
    """Right-pad B sequences with `IGNORED`: (B, L) int64."""
    rows = torch.full((len(sequences), max(map(len, sequences))), IGNORED)
    for row, sequence in zip(rows, sequences, strict=True):
        row[: len(sequence)] = torch.tensor(sequence)
    return rows


@torch.no_grad()
def log_probs(model: PreTrainedModel, sequences: Sequence[Sequence[int]]) -> list[NDArray[np.float64]]:
    """For each sequence of L tokens, the (L - 1,) natural log-probabilities of all but its first token."""
    result: list[NDArray[np.float64]] = []
    for i in range(0, len(sequences), 64):
        rows = padded(sequences[i : i + 64])
        logits = model(rows.clamp(min=0), use_cache=False).logits[:, :-1]
        taken = logits.log_softmax(-1).gather(2, rows[:, 1:, None].clamp(min=0))[..., 0].double().numpy()
        result += [taken[j, : len(sequence) - 1] for j, sequence in enumerate(sequences[i : i + 64])]
    return result


def perplexity(token_log_probs: Iterable[NDArray[np.float64]]) -> float:
    """exp(-mean) over all tokens of all sequences, natural logarithms."""
    return float(np.exp(-np.concatenate(list(token_log_probs)).mean()))


@torch.no_grad()
def sample(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], end: int, max_tokens: int, generator: torch.Generator
) -> list[list[int]]:
    """Continue prompts at temperature 1, without the end token.

    Args:
        model: a causal LM.
        prompts: B sequences of token ids, lengths may differ.
        end: id of the end token.
        max_tokens: total length at which a sequence is cut.
        generator: the only source of randomness.

    Returns:
        B sequences, each beginning with its prompt.
    """
    rows = [list(prompt) for prompt in prompts]
    running = [i for i, row in enumerate(rows) if len(row) < max_tokens]
    while running:
        batch = padded([rows[i] for i in running])
        last = torch.tensor([len(rows[i]) - 1 for i in running])
        logits = model(batch.clamp(min=0), use_cache=False).logits[torch.arange(len(running)), last]
        drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0].tolist()
        for i, token in zip(running, drawn, strict=True):
            rows[i].append(token)
        running = [i for i in running if rows[i][-1] != end and len(rows[i]) < max_tokens]
    return [row[:-1] if row[-1] == end else row for row in rows]


def copied_share(texts: Sequence[str], training_texts: Iterable[str]) -> float:
    """Share of texts that have `COPIED_WORDS` consecutive words in common with training, punctuation aside."""
    seen = {run for text in training_texts for run in _runs(text)}
    return sum(not seen.isdisjoint(_runs(text)) for text in texts) / len(texts)


def _runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+(?:'\w+)?", text.lower())
    return {tuple(words[i : i + COPIED_WORDS]) for i in range(len(words) - COPIED_WORDS + 1)}
