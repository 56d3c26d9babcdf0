"""Rewards that measure how close a response's text comes to the problem's references: the field's text metrics.

All need at least one reference, none of them blank; how several of them count, each class says. A reference scores
exactly 1 against itself, and in most metrics not only a reference does. Rewards that are all or nothing, or that
compare tokens by their position, live in `metrics`.
"""

from __future__ import annotations

import re
import string
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np

from textenvs.rewards.base import ProblemLike, Responses, Scores
from textenvs.rewards.libraries import library
from textenvs.rewards.metrics import ReferenceReward, is_blank, references_of

#: The tokenizers of sacrebleu that need neither a download nor another package.
BLEU_TOKENIZERS = ("13a", "intl", "char", "zh", "none")

#: Tokenized texts that are kept at most.
_MAX_CACHED = 1 << 14

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


class TextMetric(ReferenceReward):
    """Scores a text against references one by one, and takes the best; or overrides `score_text` to take them all."""

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`.

        Raises:
            ImportError: the library that computes the metric is not installed.
        """
        pairs = zip(problems, responses.texts, strict=True)
        values = np.array([self.score_text(text, references_of(problem)) for problem, text in pairs], dtype=np.float64)
        return Scores(values, {self.name: values})

    def score_text(self, text: str, references: Sequence[str]) -> float:
        """Score one text, in [0, 1], against all its references."""
        return max(self.compare(text, reference) for reference in references)

    @abstractmethod
    def compare(self, text: str, reference: str) -> float:
        """Score one text, in [0, 1], against one reference."""


class PrefixMatch(TextMetric):
    """Length of the common beginning / max(len(response), len(reference)), in characters. Range [0, 1].

    The best of several references counts. 1 means equal; what comes after the first difference only lowers it.

    Withstands: the empty response (0), padding, a reference that stands later in the response. Does not withstand: a
    response that stops early, which keeps the share it has, so that a sure first half is 0.5.
    """

    name = "prefix_match"

    def compare(self, text: str, reference: str) -> float:
        """See `TextMetric.compare`."""
        pairs = enumerate(zip(text, reference, strict=False))
        common = next((i for i, (one, other) in pairs if one != other), min(len(text), len(reference)))
        return common / max(len(text), len(reference), 1)


class EditSimilarity(TextMetric):
    """1 - Levenshtein distance / max(len(response), len(reference)), in characters. Range [0, 1].

    The best of several references counts. Computed by rapidfuzz. Source: Levenshtein, "Binary codes capable of
    correcting deletions, insertions, and reversals", Soviet Physics Doklady 10, 1966.

    Withstands: the empty response (0), padding of a reference, repetition (a reference twice is 1/2). Does not
    withstand: any text of the right length in the right alphabet, which has some similarity; the reference with one
    decisive character changed.
    """

    name = "edit_similarity"

    def compare(self, text: str, reference: str) -> float:
        """See `TextMetric.compare`."""
        levenshtein = library("rapidfuzz.distance.Levenshtein", self.name)
        return float(levenshtein.normalized_similarity(text, reference))


class TokenF1(TextMetric):
    """F1 of the words that response and reference share, as SQuAD's evaluation computes it. Range [0, 1].

    Lower case, without ASCII punctuation and the articles a, an, the; 2 PR / (P + R) over the bags of words, P and R
    the shares of the response's and the reference's words that the other has; 0 without a common word. The best of
    several references counts. Source: Rajpurkar et al. 2016, "SQuAD", arXiv:1606.05250, evaluate-v1.1.py.

    Withstands: the empty response (0), repetition of a right word (its count is clipped), a reference inside a long
    text (P falls; a reference twice is 2/3). Does not withstand: the right words in any order, or with a "not" among
    them; what is dropped before words are compared, so that articles and punctuation are free, and -1.5 is 15.
    """

    name = "token_f1"

    def can_score(self, reference: str) -> bool:
        """See `ReferenceReward.can_score`."""
        return not is_blank(" ".join(_squad_words(reference)))

    def compare(self, text: str, reference: str) -> float:
        """See `TextMetric.compare`."""
        words, wanted = _squad_words(text), _squad_words(reference)
        common = (words & wanted).total()
        return 2 * common / (words.total() + wanted.total()) if common else 0.0


class Bleu(TextMetric):
    """Sentence BLEU with sacrebleu's exponential smoothing and effective order, divided by 100. Range [0, 1].

    All references count at once, as BLEU defines it: an n-gram may match in any of them, and the brevity penalty takes
    the closest length. Sources: Papineni et al., "BLEU", ACL 2002; Post, "A call for clarity in reporting BLEU scores",
    WMT 2018.

    Args:
        lowercase: whether case is ignored.
        tokenize: one of `BLEU_TOKENIZERS`; "zh" or "char" for texts without spaces.
        max_ngram_order: longest n-grams that count.

    Withstands: the empty response (0), one right word (brevity penalty), repetition (clipped counts), padding
    (precision falls). Does not withstand: a piece of a long reference that is as long as a short one, which scores 1; a
    response of common words, which smoothing keeps above 0; a "not", which it hardly sees, as nothing of meaning. With
    "13a" white space beside punctuation is free, and so is "<skipped>", which that tokenizer removes.
    """

    name = "bleu"

    def __init__(self, *, lowercase: bool = False, tokenize: str = "13a", max_ngram_order: int = 4) -> None:
        if tokenize not in BLEU_TOKENIZERS:
            known = ", ".join(BLEU_TOKENIZERS)
            raise ValueError(f"tokenize must be one of {known}, got {tokenize!r}; the others need a download")
        self.lowercase = _flag("lowercase", lowercase)
        self.tokenize = tokenize
        self.max_ngram_order = _count("max_ngram_order", max_ngram_order, at_least=1)

    def can_score(self, reference: str) -> bool:
        """See `ReferenceReward.can_score`."""
        return not is_blank(_bleu(self.lowercase, self.tokenize, self.max_ngram_order).tokenizer(reference))

    def score_text(self, text: str, references: Sequence[str]) -> float:
        """See `TextMetric.score_text`."""
        metric = _bleu(self.lowercase, self.tokenize, self.max_ngram_order)
        _forget_lines(metric.tokenizer)
        # exp(log 100) is 100.00000000000004.
        return min(1.0, float(metric.sentence_score(text, references).score) / 100)

    def compare(self, text: str, reference: str) -> float:
        """See `TextMetric.compare`."""
        return self.score_text(text, (reference,))


class ChrF(TextMetric):
    """chrF of sacrebleu divided by 100: F2 over character n-grams up to 6, white space ignored. Range [0, 1].

    The best of several references counts. Sources: Popović, "chrF", WMT 2015; "chrF++", WMT 2017.

    Args:
        word_order: longest word n-grams that count too; 2 is chrF++. A punctuation mark at a word's end is a word.
        lowercase: whether case is ignored.

    Withstands: the empty response (0), repetition of one word. Does not withstand: a reference without its spaces,
    which scores 1 unless `word_order` counts words too; padding (recall weighs four times as much as precision, so that
    a reference with as much rubbish behind it keeps 5/6), any text of the same language.
    """

    name = "chrf"

    def __init__(self, *, word_order: int = 0, lowercase: bool = False) -> None:
        self.word_order = _count("word_order", word_order, at_least=0)
        self.lowercase = _flag("lowercase", lowercase)

    def score_text(self, text: str, references: Sequence[str]) -> float:
        """See `TextMetric.score_text`; sacrebleu takes the best reference itself."""
        return min(1.0, float(_chrf(self.word_order, self.lowercase).sentence_score(text, references).score) / 100)

    def compare(self, text: str, reference: str) -> float:
        """See `TextMetric.compare`."""
        return self.score_text(text, (reference,))


class _Rouge(TextMetric):
    """F-measure of ROUGE; a subclass says which units are counted.

    Args:
        stemmer: whether words are reduced to their stems (Porter).
    """

    def __init__(self, *, stemmer: bool = False) -> None:
        self.stemmer = _flag("stemmer", stemmer)

    def can_score(self, reference: str) -> bool:
        """See `ReferenceReward.can_score`."""
        words = _cached_rouge_words(reference, self.stemmer)
        return self.count(words, words)[0] > 0

    def compare(self, text: str, reference: str) -> float:
        """See `TextMetric.compare`."""
        words, wanted = _rouge_words(text, self.stemmer), _cached_rouge_words(reference, self.stemmer)
        common, num_units, num_wanted = self.count(words, wanted)
        fmeasure = library("rouge_score.scoring", self.name).fmeasure
        return float(fmeasure(common / max(num_units, 1), common / max(num_wanted, 1)))

    @abstractmethod
    def count(self, words: Sequence[str], wanted: Sequence[str]) -> tuple[int, int, int]:
        """Units in common, units of the response, units of the reference."""


class Rouge1(_Rouge):
    """ROUGE-1: F-measure of the words shared with a reference, as rouge-score computes it. Range [0, 1].

    Words are a-z and 0-9 in lower case; other scripts do not count. The best of several references counts, as in
    rouge-score. Source: Lin, "ROUGE: a package for automatic evaluation of summaries", WAS 2004.

    Args:
        stemmer: whether words are reduced to their stems (Porter).

    Withstands: the empty response (0), repetition (clipped counts; a reference twice is 2/3), a reference inside a long
    text. Does not withstand: the right words in any order, padding by punctuation or another script, which are no
    words, or the first sentence of the source where references are taken from there.
    """

    name = "rouge1"
    order = 1

    def count(self, words: Sequence[str], wanted: Sequence[str]) -> tuple[int, int, int]:
        """See `_Rouge.count`."""
        got, target = _ngrams(words, self.order), _ngrams(wanted, self.order)
        return (got & target).total(), got.total(), target.total()


class Rouge2(Rouge1):
    """ROUGE-2: F-measure of the pairs of neighbouring words shared with a reference. Range [0, 1].

    Settings, references and source: see `Rouge1`. A reference of a single word cannot be scored.

    Withstands: what `Rouge1` does, and the right words in a wrong order. Does not withstand: right phrases in any
    order, padding that is no words, and the source's first sentence, as there.
    """

    name = "rouge2"
    order = 2


class RougeL(_Rouge):
    """ROUGE-L: F-measure of the longest common subsequence of words with a reference. Range [0, 1].

    Settings, references and source: see `Rouge1`. The subsequence's length is rapidfuzz's, which is linear where the
    table of rouge-score would be too slow for a long response; the values are the same.

    Withstands: the empty response (0), repetition (a reference twice is 2/3), a reference inside a long text. Does not
    withstand: function words in a plausible order, which share long subsequences with most references; padding that is
    no words, and the source's first sentence, as in `Rouge1`.
    """

    name = "rougeL"

    def count(self, words: Sequence[str], wanted: Sequence[str]) -> tuple[int, int, int]:
        """See `_Rouge.count`."""
        ids: dict[str, int] = {}  # rapidfuzz compares hashes, and only those of numbers cannot collide
        first, second = ([ids.setdefault(word, len(ids)) for word in side] for side in (words, wanted))
        common = library("rapidfuzz.distance.LCSseq", self.name).similarity(first, second)
        return common, len(words), len(wanted)


def _squad_words(text: str) -> Counter[str]:
    """SQuAD's normalize_answer, split into words."""
    return Counter(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _ngrams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[i:] for i in range(order)), strict=False))


def _rouge_words(text: str, stemmer: bool) -> list[str]:
    if stemmer:
        words: list[str] = _stemming_tokenizer().tokenize(text)
    else:  # the same without nltk, which takes seconds to import
        words = library("rouge_score.tokenize", "rouge").tokenize(text, None)
    return words


@lru_cache(maxsize=_MAX_CACHED)
def _cached_rouge_words(reference: str, stemmer: bool) -> list[str]:
    """A reference's words: the same few thousand references come back all the time."""
    return _rouge_words(reference, stemmer)


@cache
def _stemming_tokenizer() -> Any:
    return library("rouge_score.tokenizers", "rouge").DefaultTokenizer(use_stemmer=True)


@cache
def _bleu(lowercase: bool, tokenize: str, max_ngram_order: int) -> Any:
    bleu = library("sacrebleu.metrics", "bleu").BLEU
    # force: no advice on standard error about texts that look tokenized.
    return bleu(
        lowercase=lowercase, tokenize=tokenize, max_ngram_order=max_ngram_order, effective_order=True, force=True
    )


def _forget_lines(tokenizer: Any) -> None:
    """Empty sacrebleu's caches before they hold many lines: responses rarely come again, and may be long."""
    regexp = library("sacrebleu.tokenizers.tokenizer_re", "bleu").TokenizerRegexp
    calls: tuple[Any, ...] = (type(tokenizer).__call__, regexp.__call__)
    for cached in calls:
        if hasattr(cached, "cache_info") and cached.cache_info().currsize >= _MAX_CACHED:
            cached.cache_clear()


@cache
def _chrf(word_order: int, lowercase: bool) -> Any:
    return library("sacrebleu.metrics", "chrf").CHRF(word_order=word_order, lowercase=lowercase)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return value


def _count(name: str, value: Any, *, at_least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(f"{name} must be an int of at least {at_least}, got {value!r}")
    return value
