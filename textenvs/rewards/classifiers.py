"""Rewards by classifiers of texts: the shipped one, a lexicon as its held-out judge, and any scikit-learn pipeline.

They read prompt and response together, as a reader would. How the shipped one was trained: `textenvs.assets.sentiment`.
Models of Hugging Face: `pretrained`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from textenvs.rewards.base import FloatArray, ProblemLike, Responses, Reward, RewardValueError, Scores

WEIGHTS_FILE = Path(__file__).parent.parent / "assets" / "sentiment.json"
#: Characters of a text that are read; scoring time is linear up to here and constant beyond.
MAX_CHARS = 10_000
#: A text shorter than this counts as this long, so that one happy word is not a whole happy review.
MIN_LENGTH_WORDS = 16
#: Log-odds saturate here, so that praise on top of praise pays little; values stay within (0.047, 0.953).
MAX_LOG_ODDS = 3.0

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


def ngrams(text: str) -> tuple[list[str], float]:
    """The classifier's features: which words and pairs of neighbouring words occur, in lower case.

    Args:
        text: any string; only words in a-z (with one apostrophe) in the first `MAX_CHARS` characters are seen.

    Returns:
        The distinct n-grams in order of first occurrence, and the value that each of them has as a feature:
        1 / sqrt(words), repeated words counted. A repeated word adds no feature and makes all others smaller.
    """
    words = _WORD.findall(text[:MAX_CHARS].lower().replace("’", "'"))
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    return list(dict.fromkeys(words + pairs)), 1 / math.sqrt(max(len(words), MIN_LENGTH_WORDS))


class SentimentReward(Reward):
    """P(the text is a happy review), from a logistic regression on words and pairs of words. Range [0.047, 0.953].

    Args:
        weights: a file written by `textenvs.assets.sentiment`; read at the first score.

    sigmoid(m tanh(z / m)) with z = b + sum of the weights of the n-grams present / sqrt(words), m = `MAX_LOG_ODDS`.

    Withstands: a repeated praise word (24 times "great" scores below the median happy review), the empty response
    (near 0.4 on a neutral prompt), markup, control characters, texts of any length. Does not withstand: a salad of
    two dozen different praise words, which reaches the upper bound, 0.05 above the best twentieth of happy reviews.
    """

    name = "sentiment"
    value_range = (0.047, 0.953)

    def __init__(self, weights: str | Path = WEIGHTS_FILE) -> None:
        self.weights = str(weights)

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        return _scores(self.name, self.score_texts(_full_texts(problems, responses)))

    def score_texts(self, texts: Sequence[str]) -> FloatArray:
        """Score whole texts, each by itself.

        Args:
            texts: B strings.

        Returns:
            (B,) float64 in [0.047, 0.953]; a text scores the same bits in any batch.
        """
        intercept, weights = _load_weights(self.weights)
        return np.array([_probability(text, intercept, weights) for text in texts], dtype=np.float64)


class VaderReward(Reward):
    """The VADER lexicon's compound score, mapped to 0 to 1; a held-out judge of `SentimentReward`. Range [0, 1].

    Withstands: an empty response (0.5 on a neutral prompt), markup. Does not withstand: praise words, repeated or not.

    Source: Hutto and Gilbert, "VADER: a parsimonious rule-based model for sentiment analysis", ICWSM 2014.
    """

    name = "vader"
    value_range = (0.0, 1.0)

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`.

        Raises:
            ImportError: vaderSentiment is not installed.
        """
        return _scores(self.name, self.score_texts(_full_texts(problems, responses)))

    def score_texts(self, texts: Sequence[str]) -> FloatArray:
        """Score whole texts, each by itself: (B,) float64 in [0, 1].

        Raises:
            ImportError: vaderSentiment is not installed.
        """
        analyzer = _vader()
        compounds = [analyzer.polarity_scores(text[:MAX_CHARS])["compound"] for text in texts]
        return (np.array(compounds, dtype=np.float64) + 1) / 2


class SklearnReward(Reward):
    """What a scikit-learn classifier says of the text: P(label), range [0, 1], or its decision value, (-inf, inf).

    Args:
        classifier: fitted, such as a pipeline with a vectorizer in front; takes a list of B strings. It is used as it
            is, and never copied or saved.
        label: one of its `classes_`.
        output: "probability" (`predict_proba`) or "decision" (`decision_function`: log-odds of a logistic regression,
            signed distance of a support vector machine; of two classes the first one's is the second one's negative).
        with_prompt: whether the text is prompt + response, as a reader would see it, or the response alone.

    A row depends on the others only if the classifier's rounding does, as that of dense features may, by 1e-15.

    Withstands: what the classifier does. Does not withstand: whatever it was not trained on; hold it against a judge
    that nobody trained on (`textenvs evaluate --judge`).

    Raises:
        ValueError: no such label, not fitted, or the classifier has no such output.
    """

    def __init__(self, classifier: Any, *, label: Any, output: str = "probability", with_prompt: bool = True) -> None:
        methods = {"probability": "predict_proba", "decision": "decision_function"}
        if output not in methods:
            raise ValueError(f"output must be 'probability' or 'decision', got {output!r}")
        labels = np.asarray(getattr(classifier, "classes_", ())).tolist()
        if not labels:
            raise ValueError(f"classifier must be fitted and have classes_, got {type(classifier).__name__}; fit it")
        if label not in labels:
            raise ValueError(
                f"label must be one of the classifier's, got {label!r}; known: {', '.join(map(repr, labels))}"
            )
        if not hasattr(classifier, methods[output]):
            other = next(name for name in methods if name != output)
            raise ValueError(
                f"output must be one that {type(classifier).__name__} has, got {output!r}, which needs "
                f"{methods[output]}; pass output={other!r}"
            )
        self.label, self.output, self.with_prompt = label, output, with_prompt
        self.name = str(label)
        self.value_range = (0.0, 1.0) if output == "probability" else (-math.inf, math.inf)
        self._score = getattr(classifier, methods[output])
        self._column, self._num_labels = labels.index(label), len(labels)

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        texts = _full_texts(problems, responses) if self.with_prompt else responses.texts
        return _scores(self.name, self.score_texts(texts))

    def score_texts(self, texts: Sequence[str]) -> FloatArray:
        """Score whole texts: (B,) float64."""
        scores = np.asarray(self._score(list(texts)), dtype=np.float64)
        if scores.ndim == 1:  # the decision between two classes is a single column, the second one's
            return scores if self._column == 1 else -scores
        if scores.shape[1] != self._num_labels:
            raise RewardValueError(
                f"output must have a column a label, got {scores.shape[1]} for {self._num_labels} labels; make the "
                "classifier with decision_function_shape='ovr'"
            )
        return np.ascontiguousarray(scores[:, self._column])


def _full_texts(problems: Sequence[ProblemLike], responses: Responses) -> list[str]:
    return [problem.prompt + text for problem, text in zip(problems, responses.texts, strict=True)]


def _scores(name: str, values: FloatArray) -> Scores:
    return Scores(values, {name: values})


def _probability(text: str, intercept: float, weights: dict[str, float]) -> float:
    grams, value = ngrams(text)
    log_odds = intercept + value * math.fsum(weights.get(gram, 0.0) for gram in grams)
    return 1 / (1 + math.exp(-MAX_LOG_ODDS * math.tanh(log_odds / MAX_LOG_ODDS)))


@cache
def _load_weights(path: str) -> tuple[float, dict[str, float]]:
    stored = json.loads(Path(path).read_text(encoding="utf-8"))
    return float(stored["intercept"]), stored["weights"]


@cache
def _vader() -> Any:
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError as error:
        raise ImportError('the reward "vader" needs vaderSentiment; run: pip install "textenvs[rewards]"') from error
    return SentimentIntensityAnalyzer()
