"""An interpolated trigram over token ids: the yardstick that a neural language model of the same data has to beat."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
START = -1  # stands before the first token, twice
NUM_BUCKETS = 10
NUM_EM_STEPS = 100


class Trigram:
    """p(c | a, b) = w0 / V + w1 f(c) + w2 f(c | b) + w3 f(c | a, b), f relative frequencies in the training text.

    The weights depend on how often the history (a, b) was seen (one set for each power of two) and are fitted by
    expectation maximisation on text of their own.

    Source: Jelinek and Mercer, "Interpolated estimation of Markov source parameters from sparse data", 1980.

    Args:
        sequences: training sequences of token ids, end token included.
        fitting: further sequences, for the weights.
        num_tokens: V.
    """

    def __init__(self, sequences: Sequence[Sequence[int]], fitting: Sequence[Sequence[int]], num_tokens: int) -> None:
        self.num_tokens = num_tokens
        self.ngrams: tuple[Counter[tuple[int, ...]], ...] = (Counter(), Counter(), Counter())
        self.histories: tuple[Counter[tuple[int, ...]], ...] = (Counter(), Counter(), Counter())
        for sequence in sequences:
            for window in _windows(sequence):
                for n in range(3):
                    self.ngrams[n][window[2 - n :]] += 1
                    self.histories[n][window[2 - n : 2]] += 1
        self.weights = np.full((NUM_BUCKETS, 4), 0.25)
        self._fit(fitting)

    def _components(self, sequence: Sequence[int]) -> tuple[FloatArray, NDArray[np.int64]]:
        """The four terms' probabilities (L, 4) and the bucket of each history (L,)."""
        windows = _windows(sequence)
        terms = np.full((len(windows), 4), 1 / self.num_tokens)
        for i, window in enumerate(windows):
            for n in range(3):
                terms[i, n + 1] = self.ngrams[n][window[2 - n :]] / max(self.histories[n][window[2 - n : 2]], 1)
        seen = np.array([self.histories[2][window[:2]] for window in windows])
        return terms, np.minimum(np.log2(seen + 1).astype(np.int64), NUM_BUCKETS - 1)

    def _fit(self, sequences: Sequence[Sequence[int]]) -> None:
        parts = [self._components(sequence) for sequence in sequences]
        terms, buckets = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
        for _ in range(NUM_EM_STEPS):
            joint = terms * self.weights[buckets]
            posterior = joint / joint.sum(axis=1, keepdims=True)
            for bucket in np.unique(buckets):
                self.weights[bucket] = posterior[buckets == bucket].mean(axis=0)

    def log_probs(self, sequence: Sequence[int]) -> FloatArray:
        """Natural log-probabilities (L,) of a sequence's tokens, each given all before it."""
        terms, buckets = self._components(sequence)
        log_probs: FloatArray = np.log((terms * self.weights[buckets]).sum(axis=1))
        return log_probs


def _windows(sequence: Sequence[int]) -> list[tuple[int, ...]]:
    padded = [START, START, *sequence]
    return list(zip(padded, padded[1:], padded[2:], strict=False))
