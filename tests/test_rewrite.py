"""ConstrainedRewrite and StyleTransfer: their rewards by hand, what a rule that knows no language earns, bad input."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reward_batches import responses_of

import textenvs
from textenvs import Problem
from textenvs.tasks import make_task
from textenvs.tasks.rewrite import GainOverCopy, GainOverEdits, MaxWords

SPLITS = ("train", "heldout")
REWRITE = textenvs.Rules("constrained_rewrite").reward
HOSTILE = ("", " ", "x" * 100_000, "gone " * 20_000, "\x00\x1b[2J", "\u202eevil", "日本語 العربية", "\ud800")


def problems(name: str, split: str) -> list[Problem]:
    task = make_task(name, split=split)
    return [task[k] for k in range(len(task))]


def score(reward: textenvs.Reward, problem: Problem, *texts: str) -> textenvs.Scores:
    return reward([problem] * len(texts), responses_of(texts))


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


# --- ConstrainedRewrite ----------------------------------------------------------------------------------------------

TEA = Problem(
    "Use: prefers. Avoid: likes, more. At most 6 words: My son likes tea more than juice.\n",
    ("My son prefers tea to juice.",),
    {
        "required": ["prefers"],
        "forbidden": ["likes", "more"],
        "max_words": 6,
        "source": "My son likes tea more than juice.",
    },
)


@pytest.mark.parametrize("split", SPLITS)
def test_constraints_are_about_the_pair_and_stand_in_the_prompt(split: str) -> None:
    for problem in problems("constrained_rewrite", split):
        required, forbidden = problem.metadata["required"], problem.metadata["forbidden"]
        source, limit = problem.metadata["source"], problem.metadata["max_words"]
        assert required
        assert forbidden
        assert problem.prompt == (
            f"Use: {', '.join(required)}. Avoid: {', '.join(forbidden)}. At most {limit} words: {source}\n"
        )
        assert not set(required) & set(words(source))
        assert set(forbidden) <= set(words(source))
        for reference in problem.references:
            assert set(required) <= set(words(reference)), reference
            assert not set(forbidden) & set(words(reference)), reference
        assert max(len(reference.split()) for reference in problem.references) == limit


def test_no_required_or_forbidden_word_is_in_both_splits() -> None:
    for key in ("required", "forbidden"):
        train, heldout = ({w for p in problems("constrained_rewrite", s) for w in p.metadata[key]} for s in SPLITS)
        assert len(train) >= 40
        assert len(heldout) >= 16
        assert not train & heldout


def test_mindless_edits_by_hand() -> None:
    data = {"source": "I go home now.", "required": ["x", "y"], "forbidden": ["go"], "max_words": 4}
    assert GainOverEdits().copies(Problem("p", ("r",), data)) == {
        "I go home now.",
        *("X y I home.", "I x y home.", "I home x y."),  # "now" is cut off; the second is "go" replaced, too
        *("X y home now.", "Home x y now.", "Home now x y."),  # "I" is
    }
    apart = {"source": "a B, c d?", "required": ["x", "y", "z"], "forbidden": ["a", "c"], "max_words": 9}
    assert "X B, y z d?" in GainOverEdits().copies(Problem("p", ("r",), apart))
    narrow = {"source": "a b c", "required": ["x y"], "forbidden": [], "max_words": 1}
    assert GainOverEdits().copies(Problem("p", ("r",), narrow)) == {"a b c", "X y"}


def test_the_rewrite_reward_by_hand() -> None:
    # The best mindless edit is "My son prefers tea than juice.": 3 edits of 30 characters.
    copied = 27 / 30
    texts = {
        "My son prefers tea to juice.": 1,
        "My son prefers tea to juice": (27 / 28 - copied) / (1 - copied),  # without the full stop
        "My son prefers tea to milk.": 0,  # "juice" -> "milk": 4 edits of 28, further away than the edit
        "My son prefers tea than juice": 0,
        "My son prefers tea to juice, more.": 0,  # a forbidden word, and too long
        "My son prefer tea to juice.": 0,  # the required word is missing
        "My son prefers tea to juice now.": 0,  # 7 words
        "prefers": 0,
        "": 0,
    }
    scores = score(REWRITE, TEA, *texts)
    assert scores.values.tolist() == pytest.approx(list(texts.values()), abs=1e-12)
    assert set(scores.parts) == {"words", "max_words", "gain_over_edits"}
    assert REWRITE.value_range == (0, 1)
    two = {"required": ["ab", "cd"], "forbidden": ["z"], "max_words": 3, "source": "z qqqqqq"}
    # c is 1/2, "Qqqqqq ab cd": 6 edits of 12. Then half the required words, and 7 of 8 characters.
    gain = (7 / 8 - 1 / 2) / (1 / 2)
    scores = score(REWRITE, Problem("p", ("ef ab cd",), two), "ef ab cd", "ef ab cx")
    assert scores.values.tolist() == pytest.approx([1, gain / 2], abs=1e-12)


def without_forbidden(metadata: Any) -> list[str]:
    return [word for word in metadata["source"].split() if not set(words(word)) & set(metadata["forbidden"])]


def appended(metadata: Any) -> str:
    """The source without the forbidden words, cut to the limit, and then the required ones."""
    required = metadata["required"]
    return " ".join([*without_forbidden(metadata)[: metadata["max_words"] - len(required)], *required])


def substituted(metadata: Any) -> str:
    """Required words in the places of the forbidden ones."""
    required, text = list(metadata["required"]), []
    for word in metadata["source"].split():
        if not set(words(word)) & set(metadata["forbidden"]):
            text.append(word)
        elif required:
            text.append(required.pop(0))
    return " ".join([*text, *required][: metadata["max_words"]])


def cut_in_front(metadata: Any) -> str:
    """The last words of the source that the limit allows, without the forbidden ones, after the required ones."""
    required = metadata["required"]
    return " ".join([*required, *without_forbidden(metadata)[len(required) - metadata["max_words"] :]])


def third_place(metadata: Any) -> str:
    """Like `appended`, with the required words behind the second word."""
    required = metadata["required"]
    kept = without_forbidden(metadata)[: metadata["max_words"] - len(required)]
    return " ".join([*kept[:2], *required, *kept[2:]])


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("ending", ["", "."])
@pytest.mark.parametrize(
    "policy",
    [
        lambda m: m["source"],
        lambda m: " ".join(m["required"]),
        lambda m: m["source"] + " " + " ".join(m["required"]),
        appended,
        substituted,
        cut_in_front,
        third_place,
    ],
    ids=["source", "required", "source and required", "appended", "substituted", "cut in front", "third place"],
)
def test_rules_that_know_no_language_earn_nothing(policy: Any, ending: str, split: str) -> None:
    some = problems("constrained_rewrite", split)
    values = [float(score(REWRITE, p, policy(p.metadata).rstrip(".?") + ending).values[0]) for p in some]
    assert sum(values) / len(values) <= 0.01


def test_how_near_a_mindless_edit_comes_as_the_page_says() -> None:
    similarity, gain = textenvs.as_reward("edit_similarity"), GainOverEdits()
    some = [p for split in SPLITS for p in problems("constrained_rewrite", split)]
    near = [score(similarity, p, *gain.copies(p)).values.max() for p in some]
    assert sum(near) / len(near) == pytest.approx(0.69, abs=0.005)
    assert max(near) <= 0.93
    ill = next(p for p in some if "roommate" in p.prompt and "Christmas" in p.prompt)
    assert appended(ill.metadata) == "My roommate has been became ill"
    assert score(REWRITE, ill, appended(ill.metadata)).values.tolist() == [0]
    assert score(similarity, ill, appended(ill.metadata)).values[0] == pytest.approx(0.43, abs=0.005)


def test_a_reference_that_is_a_mindless_edit_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"no reference that is a mindless edit .* got 'My son prefers tea than juice.'"
    ):
        REWRITE.require(Problem("p", ("r", "My son prefers tea than juice."), TEA.metadata))
    REWRITE.require(TEA)
    with pytest.raises(ValueError, match=r"must have metadata\['max_words'\]"):
        GainOverEdits().require(Problem("p", ("r",), {"source": "s", "forbidden": ["x"]}))
    some = Problem("p", ("r",), {"source": "", "forbidden": ["x"], "max_words": 1})
    GainOverEdits().require(some)
    assert score(GainOverEdits(), some, "r", "").values.tolist() == [1, 0]


# --- StyleTransfer ---------------------------------------------------------------------------------------------------


def test_gain_by_hand() -> None:
    problem = Problem("Formal: abcd\n", ("abxy", "zzzzzzzz"), {"source": "abcd"})
    # The source is 2 of 4 edits from the first reference: c = 1/2. One edit away: (3/4 - 1/2) / (1/2).
    texts = ["abxy", "zzzzzzzz", "abcy", "abcd", "", "qqqq", "abxyz", "abxyabxy"]
    gains = score(GainOverCopy(), problem, *texts).values
    assert gains.tolist() == pytest.approx([1, 1, 1 / 2, 0, 0, 0, (4 / 5 - 1 / 2) * 2, 0], abs=1e-12)


@pytest.mark.parametrize("split", SPLITS)
def test_both_directions_of_a_pair_are_in_one_split(split: str) -> None:
    some = problems("style_transfer", split)
    asked = {(p.metadata["style"], p.metadata["source"], p.references[0]) for p in some}
    for style, source, reference in asked:
        assert ("informal" if style == "formal" else "formal", reference, source) in asked
    for p in some:
        assert p.prompt == f"{p.metadata['style'].capitalize()}: {p.metadata['source']}\n"


def test_a_copy_is_near_a_reference_but_never_too_near() -> None:
    similarity = textenvs.as_reward("edit_similarity")
    some = [p for split in SPLITS for p in problems("style_transfer", split)]
    near = [float(score(similarity, p, p.metadata["source"]).values[0]) for p in some]
    assert max(near) <= 0.8, "the gain would hang on a few characters"
    assert sum(near) / len(near) == pytest.approx(0.56, abs=0.005)


def test_held_out_style_is_mostly_made_by_means_seen_in_training() -> None:
    train, heldout = problems("style_transfer", "train"), problems("style_transfer", "heldout")
    for style in ("formal", "informal"):
        known = {word for p in train if p.metadata["style"] == style for text in p.references for word in words(text)}
        new = [
            word
            for p in heldout
            if p.metadata["style"] == style
            for word in set(words(p.references[0])) - set(words(p.metadata["source"]))
        ]
        assert sum(word in known for word in new) / len(new) == pytest.approx(0.93, abs=0.01)


# --- both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["constrained_rewrite", "style_transfer"])
def test_hostile_responses_score_within_the_range(name: str) -> None:
    batch = responses_of([""] * len(HOSTILE))
    vars(batch)["texts"] = HOSTILE  # of which some are spelt by no vocabulary
    reward = textenvs.Rules(name).reward
    scores = reward([problems(name, "train")[0]] * len(HOSTILE), batch)
    assert ((scores.values >= 0) & (scores.values <= 0.5)).all()


PAIR = Problem("p", ("I am unable to attend.",), {"source": "I can't make it."})


@given(st.text(max_size=60))
def test_any_text_scores_within_the_range(text: str) -> None:
    for reward, problem in ((GainOverCopy(), PAIR), (REWRITE, TEA)):
        assert 0 <= score(reward, problem, text.encode("utf-8", "replace").decode()).values[0] <= 1


@pytest.mark.parametrize("limit", [None, 0, True, 2.0, "5"])
def test_a_limit_that_is_none_is_refused(limit: Any) -> None:
    with pytest.raises(ValueError, match=r"must have metadata\['max_words'\], an int of at least 1, got"):
        MaxWords().require(Problem("p", ("r",), {} if limit is None else {"max_words": limit}))
    MaxWords().require(Problem("p", ("r",), {"max_words": 1}))


@pytest.mark.parametrize(
    ("references", "metadata", "message"),
    [
        (("r",), {}, r"must have metadata\['source'\].* got None"),
        (("r",), {"source": 3}, r"must have metadata\['source'\].* got 3"),
        (("a", "r"), {"source": "r"}, "a text that is no reference, got 'r'"),
        ((), {"source": "s"}, "reference"),
    ],
)
def test_a_gain_needs_a_source_and_another_reference(references: Any, metadata: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GainOverCopy().require(Problem("p", references, metadata))
