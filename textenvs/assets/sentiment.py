"""Trains and measures the classifier behind `textenvs.rewards.classifiers.SentimentReward`.

Labels are the tone that the source model was asked for. A small model often misses the tone, so training leaves out
the reviews that a second judge, the VADER lexicon, clearly contradicts. VADER never sets a label, and accuracy is
measured on held-out reviews that no judge has filtered.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textenvs.assets.clean import NEGATIVE_TONES, POSITIVE_TONES, Review
from textenvs.rewards.classifiers import ngrams

#: VADER contradicts a tone when its compound score is beyond this, on the other side.
MAX_CONTRADICTION = 0.5
#: Inverse L2 strength (halved or doubled, cross-validated accuracy moves by less than a point), and in how many
#: training reviews an n-gram must occur.
INVERSE_L2, MIN_REVIEWS = 1.6, 3


def labelled(reviews: Sequence[Review]) -> list[Review]:
    """The reviews whose tone is clearly happy or unhappy."""
    return [review for review in reviews if review.tone in POSITIVE_TONES + NEGATIVE_TONES]


def is_positive(reviews: Sequence[Review]) -> NDArray[np.bool_]:
    """(B,) whether each review was asked to be happy."""
    return np.array([review.tone in POSITIVE_TONES for review in reviews])


def train(reviews: Sequence[Review], compounds: NDArray[np.float64]) -> dict[str, Any]:
    """Fit the logistic regression.

    Args:
        reviews: B labelled training reviews.
        compounds: (B,) VADER's compound scores of them, in [-1, 1].

    Returns:
        What sentiment.json stores: the intercept and the weight of each n-gram.
    """
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    labels = is_positive(reviews)
    agreed = np.where(labels, compounds, -compounds) >= -MAX_CONTRADICTION
    features = [ngrams(review.text) for review, keep in zip(reviews, agreed, strict=True) if keep]
    counts = Counter(gram for grams, _ in features for gram in grams)
    names = sorted(gram for gram, n in counts.items() if n >= MIN_REVIEWS)
    column = {gram: i for i, gram in enumerate(names)}
    cells = [(value, i, column[g]) for i, (grams, value) in enumerate(features) for g in grams if g in column]
    values, rows, columns = zip(*cells, strict=True)
    matrix = csr_matrix((values, (rows, columns)), shape=(len(features), len(names)))
    # Balanced classes, so that 0.5 means undecided whatever the filter left of each class.
    model = LogisticRegression(C=INVERSE_L2, class_weight="balanced", max_iter=1000).fit(matrix, labels[agreed])
    weights = {gram: round(float(w), 3) for gram, w in zip(names, model.coef_[0], strict=True)}
    return {"intercept": round(float(model.intercept_[0]), 3), "weights": {g: w for g, w in weights.items() if w}}


def measure(reviews: Sequence[Review], scores: NDArray[np.float64], compounds: NDArray[np.float64]) -> dict[str, float]:
    """How well scores (B,) in [0, 1] tell the tone asked for, and how often they agree with VADER's compounds (B,)."""
    labels = is_positive(reviews)
    correct = (scores > 0.5) == labels
    clear = np.where(labels, compounds, -compounds) >= -MAX_CONTRADICTION
    decided = np.abs(compounds) >= 0.05  # VADER's own border of "neutral"
    result = {
        "num_reviews": len(reviews),
        "accuracy": correct.mean(),
        "majority": max(labels.mean(), 1 - labels.mean()),
        "accuracy_where_vader_does_not_contradict": correct[clear].mean(),
        "vader_accuracy": ((compounds > 0) == labels).mean(),
        "agreement_with_vader": ((scores > 0.5) == (compounds > 0))[decided].mean(),
    }
    return {name: round(float(value), 4) for name, value in result.items()}


def save(stored: dict[str, Any], path: Path) -> None:
    """Write the weights as JSON."""
    path.write_text(json.dumps(stored, ensure_ascii=False, indent=0, sort_keys=True) + "\n", encoding="utf-8")
