"""Rewards that look at a response alone: its variety, length and reading level. How likely it is: `pretrained.LogProb`.

None of them says whether a response answers its prompt: add, multiply or gate them with one that does. Words are runs
of letters, digits and underscores, with apostrophes inside, in lower case; in a script without spaces, or run together,
a sentence is one word. A text of punctuation or white space alone has no words, and scores as the empty one does, but
where characters or tokens are counted. However long a text is, all of it is read.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from textenvs.rewards.base import FloatArray, ProblemLike, Responses, Reward, Scores

UNITS = ("words", "characters", "tokens")

_WORD = re.compile(r"\w+(?:['’]\w+)*")
# Those of English, with the accents of its loan words: \w has fractions and other scripts, of a syllable each.
_LETTERS = re.compile(r"[a-zß-öø-ÿ]+(?:['’][a-zß-öø-ÿ]+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s")
_VOWELS = re.compile(r"[aeiouy]+")
_SILENT_E = re.compile(r"(?:[^aeiouyl]|[aeiouy]l)e$")


class TextReward(Reward):
    """Scores each response's text by itself."""

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        values: FloatArray = np.array([self.score_text(text) for text in responses.texts], dtype=np.float64)
        return Scores(values, {self.name: values})

    @abstractmethod
    def score_text(self, text: str) -> float:
        """Score one text."""


class DistinctN(TextReward):
    """Different n-grams of words / all of them; 0 for a text without any. Range [0, 1].

    A text of fewer than n words has none, so that a single word scores 0, or 1 where n is 1.

    Args:
        n: words of an n-gram, at least 1.

    Source: Li et al. 2016, "A diversity-promoting objective function for neural conversation models", arXiv:1510.03055.

    Withstands: the empty response, punctuation alone (0), repetition. Does not withstand: a response of n different
    words, which a long text hardly reaches, or any salad of words.
    """

    value_range = (0.0, 1.0)

    def __init__(self, n: int = 2) -> None:
        self.n = _at_least_one("n", n)
        self.name = f"distinct_{n}"

    def score_text(self, text: str) -> float:
        """See `TextReward.score_text`."""
        distinct, total = _count_ngrams(text, self.n)
        return distinct / total if total else 0.0


class RepetitionN(TextReward):
    """Minus the share of n-grams of words that occurred before, seq-rep-n: a penalty. Range [-1, 0].

    0 for a text without any, which repeats nothing: one of at most n words, or of punctuation alone.

    Args:
        n: words of an n-gram, at least 1.

    Source: Welleck et al. 2020, "Neural text generation with unlikelihood training", arXiv:1908.04319.

    Withstands: a word or a phrase again and again, with whatever punctuation between. Does not withstand: the empty
    response (0); repetition without spaces, which is one word; phrases of fewer than n words with others in between.
    """

    value_range = (-1.0, 0.0)

    def __init__(self, n: int = 4) -> None:
        self.n = _at_least_one("n", n)
        self.name = f"repetition_{n}"

    def score_text(self, text: str) -> float:
        """See `TextReward.score_text`."""
        distinct, total = _count_ngrams(text, self.n)
        return (distinct - total) / total if total else 0.0


class LengthRange(Reward):
    """1.0 for a length in [low, high], else short / low or high / long: the ratio to the nearer bound. Range [0, 1].

    The empty text scores 0, and punctuation alone too where words are counted; one of 100,000 words high / 100,000.

    Args:
        low: at least 1.
        high: at least `low`; None means `low`, a target.
        unit: "words", "characters", or the env's "tokens".

    Withstands: the empty response (0), padding. Does not withstand: anything of the right length, by definition; a
    response of one word, or of the right length in spaces, where characters or tokens are counted.
    """

    name = "length_range"
    value_range = (0.0, 1.0)

    def __init__(self, low: int, high: int | None = None, *, unit: str = "words") -> None:
        self.low = _at_least_one("low", low)
        self.high = self.low if high is None else _at_least_one("high", high)
        if self.high < self.low:
            raise ValueError(f"high must be at least low, got {high} below {low}; swap them")
        if unit not in UNITS:
            raise ValueError(f"unit must be one of {', '.join(UNITS)}, got {unit!r}")
        self.unit = unit

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        if self.unit == "tokens":
            lengths = responses.lengths
        elif self.unit == "words":
            lengths = np.array([len(_WORD.findall(text)) for text in responses.texts], dtype=np.int64)
        else:
            lengths = np.array([len(text) for text in responses.texts], dtype=np.int64)
        values = np.minimum(1.0, np.minimum(lengths / self.low, self.high / np.maximum(lengths, 1)))
        return Scores(values, {self.name: values})


class ReadingEase(TextReward):
    """Flesch reading ease of an English text / 100, held within 0 and 1: 1 is very easy. Range [0, 1].

    206.835 - 1.015 words / sentences - 84.6 syllables / words; 0 for a text without words, such as "!!!", "42" or one
    in another script. One word scores 1 with one syllable, 0.37 with two, else 0; one endless sentence 0. Syllables are
    counted by `num_syllables`, words and sentences by `text_counts`. Source: Flesch, "A new readability yardstick",
    Journal of Applied Psychology 32, 1948.

    Withstands: the empty response (0), digits, punctuation and other signs alone. Does not withstand: one word of one
    syllable, "a" 100,000 times too; nonsense in short words and sentences, beside any amount of what is no word.
    """

    name = "reading_ease"
    value_range = (0.0, 1.0)

    def score_text(self, text: str) -> float:
        """See `TextReward.score_text`."""
        words, sentences, syllables = text_counts(text)
        if not words:
            return 0.0
        return min(1.0, max(0.0, (206.835 - 1.015 * words / sentences - 84.6 * syllables / words) / 100))


class ReadingGrade(TextReward):
    """1 / (1 + |g - target|), g the Flesch-Kincaid grade of an English text. Range [0, 1].

    g = 0.39 words / sentences + 11.8 syllables / words - 15.59, US school years; 0 for a text without words, such as
    "!!!", "42" or one in another script. One word of one syllable has the grade -3.4, of two 8.4; an endless sentence
    has one far above any target. Counted as for `ReadingEase`. Source: Kincaid et al., "Derivation of new readability
    formulas", 1975.

    Args:
        target: the grade that scores 1.

    Withstands: the empty response (0), digits, punctuation and other signs alone. Does not withstand: nonsense of the
    right length; one word of the right number of syllables.
    """

    name = "reading_grade"
    value_range = (0.0, 1.0)

    def __init__(self, target: float) -> None:
        if isinstance(target, bool) or not isinstance(target, (int, float)):
            raise ValueError(f"target must be a finite number, got {target!r}; 8 is plain English")
        try:
            self.target = float(target)
        except OverflowError:  # an int beyond all floats
            self.target = math.inf if target > 0 else -math.inf
        if not math.isfinite(self.target):
            raise ValueError(f"target must be a finite number, got {self.target!r}; 8 is plain English")

    def score_text(self, text: str) -> float:
        """See `TextReward.score_text`."""
        words, sentences, syllables = text_counts(text)
        if not words:
            return 0.0
        return 1 / (1 + abs(0.39 * words / sentences + 11.8 * syllables / words - 15.59 - self.target))


def text_counts(text: str) -> tuple[int, int, int]:
    """Words, sentences (what stands between ., ! or ? with a space behind, and has a word), and the words' syllables.

    A word is a run of the letters of English, accented or not, with apostrophes inside; other scripts have none.
    """
    text = text.lower()
    words = _LETTERS.findall(text)
    sentences = sum(1 for part in _SENTENCE_END.split(text) if _LETTERS.search(part))
    return len(words), sentences, sum(map(num_syllables, words))


def num_syllables(word: str) -> int:
    """Syllables of an English word in lower case: its runs of a, e, i, o, u, y, at least one.

    A final e after another letter than a vowel is silent, unless it ends a consonant and "le": ta-ble, but whale.
    """
    runs = len(_VOWELS.findall(word))
    return max(1, runs - (1 if _SILENT_E.search(word) else 0))


def _count_ngrams(text: str, n: int) -> tuple[int, int]:
    """How many different n-grams of words, and how many in all."""
    words = _WORD.findall(text.lower())
    return len(set(zip(*(words[i:] for i in range(n)), strict=False))), max(0, len(words) - n + 1)


def _at_least_one(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an int of at least 1, got {value!r}")
    return value
