"""Text metrics: values worked out by hand, the libraries they agree with, attack strings, what they refuse."""

from __future__ import annotations

import math
import re
import sys
import time
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reward_batches import score

from textenvs import CharVocab, Problem, Rules, Task
from textenvs.rewards import libraries, references
from textenvs.rewards.metrics import ExactMatch, LengthMatch, PositionMatch
from textenvs.rewards.references import (
    Bleu,
    ChrF,
    EditSimilarity,
    PrefixMatch,
    Rouge1,
    Rouge2,
    RougeL,
    TextMetric,
    TokenF1,
)

METRICS: tuple[type[TextMetric], ...] = (PrefixMatch, EditSimilarity, TokenF1, Bleu, ChrF, Rouge1, Rouge2, RougeL)


class OneReference(Task):
    """A problem with a given reference."""

    max_prompt_tokens, max_new_tokens, reward = 2, 9, "exact_match"

    def __init__(self, reference: str) -> None:
        self.vocab = CharVocab("p=")
        self.reference = reference

    def __len__(self) -> int:
        return 1

    def __getitem__(self, k: int) -> Problem:
        return Problem("p=", (self.reference,))


CAT, REFERENCE = "the cat sat on the mat", "the cat is on the mat"


def test_prefix_by_hand() -> None:
    # Common beginning over the longer of the two: 3 of 6, 6 of 6, 6 of 8, 0, 0; "bc" stands in it, but not first.
    assert score(PrefixMatch(), ["abcxef", "abcdef", "abcdefgh", "", "bcdef"], "abcdef") == [1 / 2, 1, 6 / 8, 0, 0]
    assert score(PrefixMatch(), ["ab"], "axxx", "abc") == [2 / 3]  # 1/4 against the first


def test_edit_similarity_by_hand() -> None:
    # kitten -> sitten -> sittin -> sitting: 3 edits, 7 characters.
    assert score(EditSimilarity(), ["kitten", "sitting", ""], "sitting") == pytest.approx([4 / 7, 1, 0], abs=1e-15)
    assert score(EditSimilarity(), ["ab"], "xx", "abcd") == [1 / 2]


def test_token_f1_by_hand() -> None:
    # {cat, sat, on, mat} and {cat, is, on, mat} after normalisation: P = R = 3/4.
    assert score(TokenF1(), ["The CAT sat; on a mat!"], REFERENCE) == [3 / 4]
    # One word of the reference's two: P = 1, R = 1/2. Said three times: P = 1/3, R = 1/2, F1 = 2 * 1 / (3 + 2).
    assert score(TokenF1(), ["cat", "cat cat cat"], "the black cat") == [2 / 3, 2 / 5]
    assert score(TokenF1(), ["dog", "the", "", "..."], "cat") == [0, 0, 0, 0]
    assert score(TokenF1(), ["Paris"], "London", "Paris, France") == [2 / 3]


def test_bleu_by_hand() -> None:
    # 1- to 4-grams 5/6, 3/5, 1/4, and none of 3, which smoothing makes 1/(2 * 3); equal lengths, no penalty.
    assert score(Bleu(), [CAT], REFERENCE) == pytest.approx([(5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** 0.25], rel=1e-12)
    # Two words, all right: both precisions 1 and no longer n-grams; brevity penalty exp(1 - 6/2).
    assert score(Bleu(), ["the cat"], CAT) == pytest.approx([math.exp(-2)], rel=1e-12)
    # 1- and 2-grams of "a a a a": 1 of 4 (clipped), 0 of 3 -> 1/6, 0 of 2 -> 1/8, 0 of 1 -> 1/8; no penalty.
    assert score(Bleu(), ["a a a a"], "a b c") == pytest.approx([(1 / 4 * 1 / 6 * 1 / 8 * 1 / 8) ** 0.25], rel=1e-12)
    # "a" matches in the first and "b" in the second, "a b" in none: sqrt(1 * 1/2); one alone gives 1/2.
    assert score(Bleu(), ["a b"], "a c", "d b") == pytest.approx([math.sqrt(1 / 2)], rel=1e-12)
    assert score(Bleu(), ["A b"], "a B") == [0]
    assert score(Bleu(lowercase=True), ["A b"], "a B") == [1]
    assert score(Bleu(max_ngram_order=1), [CAT], REFERENCE) == pytest.approx([5 / 6], rel=1e-12)
    assert score(Bleu(tokenize="char", max_ngram_order=1), ["猫在"], "猫是") == pytest.approx([1 / 2], rel=1e-12)


def test_chrf_by_hand() -> None:
    # Characters: P = 2/2, R = 2/3; pairs: P = 1/1, R = 1/2; longer n-grams the response has none of.
    # Means 1 and 7/12; F2 = 5 * 1 * 7/12 / (4 * 1 + 7/12) = 7/11.
    assert score(ChrF(), ["ab", "a b"], "abc") == pytest.approx([7 / 11, 7 / 11], rel=1e-12)
    assert score(ChrF(), ["abc"], "xyz", "abc") == [1]
    # chrF++ adds words, 0 of 1 in common: means P = 2/3, R = (2/3 + 1/2 + 0)/3 = 7/18; F2 = 5 P R / (4 P + R) = 70/165.
    assert score(ChrF(word_order=1), ["ab"], "abc") == pytest.approx([70 / 165], rel=1e-12)
    assert score(ChrF(lowercase=True), ["ABC"], "abc") == [1]


def test_what_the_docstrings_say_is_not_withstood() -> None:
    assert score(ChrF(), ["Thecatsat."], "The cat sat.") == [1]
    assert score(ChrF(word_order=2), ["Thecatsat."], "The cat sat.")[0] < 0.9
    padding = " ... \u043a\u043e\u0442" * 50
    for metric in (Rouge1(), Rouge2(), RougeL()):
        assert score(metric, ["the cat sat" + padding], "the cat sat") == [1]


def test_what_bleu_and_token_f1_do_not_see() -> None:
    """As their docstrings say: a piece as long as another reference, a sign, a decimal point, what is no word."""
    assert score(Bleu(), ["the old"], "the old bridge was closed", "It shut.")[0] > 0.6  # one token short of three
    assert score(Bleu(), ["a"], "a b c d e", "x") == [1]
    assert score(Bleu(), ["the cat.<skipped>", "the  cat ."], "the cat.") == [1, 1]
    assert score(TokenF1(), ["-1.5 a the!"], "15") == [1]


def test_a_reference_said_twice_keeps_what_the_docstrings_say() -> None:
    for metric in (TokenF1(), Rouge1(), RougeL()):
        assert score(metric, [f"{CAT} {CAT}"], CAT) == pytest.approx([2 / 3], rel=1e-12)
    for metric in (EditSimilarity(), PrefixMatch()):
        assert score(metric, [CAT + CAT], CAT) == [1 / 2]
    letters, digits = "".join(map(chr, range(0x4E00, 0x4E80))), "0123456789abcdef" * 8
    assert score(ChrF(), [letters + digits], letters) == pytest.approx([5 / 6], abs=0.005)


def test_rouge_by_hand() -> None:
    assert score(Rouge1(), [CAT], REFERENCE) == pytest.approx([5 / 6], rel=1e-12)  # all but "sat" of 6 words
    assert score(Rouge2(), [CAT], REFERENCE) == pytest.approx([3 / 5], rel=1e-12)  # the cat, on the, the mat of 5 pairs
    assert score(RougeL(), [CAT], REFERENCE) == pytest.approx([5 / 6], rel=1e-12)  # the cat .. on the mat
    # Backwards: all the words, no pair, and the longest common subsequence is "the on the" or "the cat the": 3 of 6.
    backwards = " ".join(reversed(CAT.split()))
    assert [score(rouge(), [backwards], CAT)[0] for rouge in (Rouge1, Rouge2, RougeL)] == [1, 0, 1 / 2]
    # P = 2/2, R = 2/4: F = 2/3.
    assert score(Rouge1(), ["one, TWO"], "one two three four") == pytest.approx([2 / 3], rel=1e-12)
    assert score(Rouge1(), ["running"], "runs") == [0]
    assert score(Rouge1(stemmer=True), ["running"], "runs") == [1]
    assert score(RougeL(), ["b"], "a a a", "a b") == pytest.approx([2 / 3], rel=1e-12)


WORDS = st.lists(
    st.sampled_from(["the", "cat", "sat", "on", "mat,", "is", "3.5", "a-b", "Über", "猫", "&amp;", "."]), max_size=12
).map(" ".join)


@given(text=WORDS, first=WORDS, second=WORDS)
def test_the_libraries_say_the_same(text: str, first: str, second: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu import sentence_bleu, sentence_chrf

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    by_rouge = scorer.score_multi([first, second], text)
    for rouge in (Rouge1, Rouge2, RougeL):
        assert rouge().score_text(text, (first, second)) == by_rouge[rouge.name].fmeasure
    assert Bleu().score_text(text, (first, second)) == min(1, sentence_bleu(text, [first, second]).score / 100)
    assert ChrF().score_text(text, (first, second)) == sentence_chrf(text, [first, second]).score / 100


@given(
    text=st.text("abc", max_size=6), pad=st.text("abc", max_size=6), reference=st.text("abc", min_size=1, max_size=6)
)
def test_padding_never_raises_a_prefix_match(text: str, pad: str, reference: str) -> None:
    """Unless it is the reference's own continuation."""
    assume(not reference.startswith(text))
    plain, behind, equal = score(PrefixMatch(), [text, text + pad, reference + pad], reference)
    assert behind <= plain
    assert (equal == 1) == (pad == "")


def test_bleu_does_not_keep_every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
    from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp

    monkeypatch.setattr(references, "_MAX_CACHED", 16)
    for i in range(100):
        Bleu().score_text(f"line {i}", ("line",))
        assert Tokenizer13a.__call__.cache_info().currsize <= 18
        assert TokenizerRegexp.__call__.cache_info().currsize <= 18
    assert Bleu(tokenize="none").score_text("a b", ("a b",)) == 1


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_reference_scores_exactly_one(metric: type[TextMetric]) -> None:
    for wanted in ("yes sir", "To be, or not to be: that is the question.", "3.14 is pi & more", "x y z", " one  two "):
        assert score(metric(), [wanted], wanted) == [1]
        assert score(metric(), [wanted], "something else", wanted) == [1]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_attack_strings_stay_below_the_reference(metric: type[TextMetric]) -> None:
    """Half the score at most for what answers nothing; a reference with as much rubbish as it is long below 1."""
    wanted = "The old bridge was closed on Monday after engineers found a crack in one of its arches."
    options = ["It opened again.", wanted, "Nobody was hurt.", "The mayor resigned on Tuesday over the affair."]
    nothing = ["", " ", "\n\n", "the " * 500, "bridge " * 20, "a", "." * 85, "Closed: " + "x" * 85, "Summarize:"]
    assert max(score(metric(), nothing, wanted)) <= 0.5
    assert score(metric(), [""], wanted) == [0]
    padded = score(metric(), [wanted + " " + "zq " * 28, " ".join(options), (wanted + " ") * 3], wanted)
    assert max(padded) < (0.9 if metric is ChrF else 0.75)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
@pytest.mark.parametrize("unit", ["a ", "the cat sat on the mat. ", "&amp;.,1-"])
def test_long_responses_are_scored_fast(metric: type[TextMetric], unit: str) -> None:
    text, wanted = (unit * 100_000)[:100_000], " ".join(["the cat sat on the mat, and the dog did not."] * 20)
    score(metric(), ["warm"], wanted)
    started = time.process_time()
    [value] = score(metric(), [text], wanted)
    assert time.process_time() - started < 1
    assert 0 <= value < 0.5


def test_problems_that_cannot_be_scored_are_refused() -> None:
    rewards = [metric() for metric in METRICS] + [ExactMatch(), PositionMatch(), LengthMatch()]
    for reward in rewards:
        reward.require(Problem("why=", ("two words", "b b")))
        with pytest.raises(ValueError, match="'why=' must have a reference"):
            reward.require(Problem("why="))
    for reward, wanted in [
        (TokenF1(), "The!"), (TokenF1(), "-\u200b"), (Bleu(), "<skipped>"), (Bleu(), "-\n\ufeff"), (Rouge1(), "猫"),
        (RougeL(), "?"), (Rouge2(), "one"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=f"that {reward.name} can score"):
            reward.require(Problem("why=", (wanted,)))
        reward.require(Problem("why=", (wanted, "two words")))


@pytest.mark.parametrize(
    "blank", ["", " ", "\n", "\t \r\n", "\u200b", "\ufeff\u2060", "\xa0\u3000", "\u2028", "\x00\x1b"]
)
def test_a_blank_reference_is_refused_where_texts_are_compared(blank: str) -> None:
    """The error names the prompt, the reference and the remedy; where tokens are compared, any symbol may be meant."""
    message = re.escape(f"'why=' must have no blank reference, got {blank!r}; ") + ".*: remove it, or write a reward"
    for reward in [metric() for metric in METRICS] + [ExactMatch()]:
        with pytest.raises(ValueError, match=message):
            reward.require(Problem("why=", ("two words", blank)))
    for reward in (PositionMatch(), LengthMatch()):
        if blank:
            reward.require(Problem("why=", (blank,)))
        else:
            with pytest.raises(ValueError, match=message):
                reward.require(Problem("why=", (blank,)))
    with pytest.raises(ValueError, match=r"problem 0: .* must have no blank reference"):
        Rules(OneReference(blank))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                [" ", "-\n", "<skipped>", "&amp;", "\u200b", ".", "3.5", "a", "the", "猫", "\ud800", "\x1c"]
            ),
            st.text(st.characters(exclude_categories=()), max_size=4),
        ),
        max_size=6,
    ).map("".join)
)
def test_a_reference_that_is_taken_scores_one_and_what_shows_nothing_less(reference: str) -> None:
    for reward in (*(metric() for metric in METRICS), ChrF(word_order=2), Bleu(tokenize="char", max_ngram_order=9)):
        try:
            reward.require(Problem("why=", (reference,)))
        except ValueError:
            continue
        assert reward.score_text(reference, (reference,)) == 1
        assert reward.score_text("", (reference,)) == 0
        assert max(reward.score_text(text, (reference,)) for text in (" ", "\n\n", "\u200b")) < 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bleu(tokenize="spm"), r"tokenize must be one of 13a, .* got 'spm'; the others need a download"),
        (lambda: Bleu(max_ngram_order=0), "max_ngram_order must be an int of at least 1, got 0"),
        (lambda: Bleu(lowercase=1), "lowercase must be True or False, got 1"),
        (lambda: ChrF(word_order=-1), "word_order must be an int of at least 0, got -1"),
        (lambda: Rouge1(stemmer="yes"), "stemmer must be True or False, got 'yes'"),
    ],
)
def test_settings_are_checked(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("metric", "module"),
    [(EditSimilarity, "rapidfuzz"), (Bleu, "sacrebleu"), (ChrF, "sacrebleu"), (Rouge1, "rouge_score")],
)
def test_a_missing_library_names_the_extra(
    metric: type[TextMetric], module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    for cached in (references._bleu, references._chrf, references._stemming_tokenizer, references._cached_rouge_words):
        cached.cache_clear()
    with pytest.raises(ImportError, match=rf'needs {module}; run: pip install "textenvs\[rewards\]"'):
        score(metric(), ["a b"], "a b")


def test_a_library_is_named_by_its_package() -> None:
    with pytest.raises(ImportError, match=r'the reward "x" needs no_such; run: pip install "textenvs\[sandbox\]"'):
        libraries.library("no_such.module", "x", "sandbox")
