"""Batches of arbitrary texts for the tests of rewards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import textenvs
from textenvs import CharVocab, Problem, Responses


def responses_of(texts: Sequence[str], *, also: str = "", finish_reason: str = "eos") -> Responses:
    """Texts spelt one character a token, by a vocabulary of their characters and those of `also`."""
    vocab = CharVocab("".join(sorted({*"".join(texts), *also, " "})))
    ids = np.full((len(texts), max(map(len, texts), default=0) + 1), -1)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = vocab.encode(text)
    return Responses(ids, np.array([len(text) for text in texts]), [finish_reason] * len(texts), vocab)


def score(reward: textenvs.Reward, texts: Sequence[str], *references: str, prompt: str = "p ") -> list[float]:
    """Values of texts as responses to one problem."""
    problem = Problem(prompt, references)
    batch = responses_of(texts, also=prompt + "".join(references))
    scores = reward([problem] * len(texts), batch)
    assert scores.values.dtype == np.float64
    assert all(column.shape == scores.values.shape for column in scores.parts.values())
    return [float(value) for value in scores.values]
