"""Write a sentence again, under constraints or in another style.

## Description
The prompt is one line that says what to do with a sentence, and the sentence; the response is the new sentence. Both
tasks are pairs of sentences that this project wrote: hand-written frames with slots, filled in many ways. The files,
one problem a line, and what they were made from: `textenvs/assets/README.md`.

**ConstrainedRewrite** says the same in fewer or other words: `Use: despite, rain, numerous. Avoid: many, raining. At
most 7 words: Many visitors came to the concert even though it was raining.` -> `Despite the rain, numerous visitors
came to the concert.` The required words are not in the sentence, the forbidden ones are, the limit is the length of
the longest reference. 348 problems to train on, 96 held out.

**StyleTransfer** says the same formally or informally: `Formal: Sorry I'm late, the tram was packed.` -> `I apologize
for being late; the tram was very crowded.`, and the other way round. 368 problems to train on, 128 held out.

## Action Space
`Discrete(2048)`: the tokens of the shipped byte-level tokenizer, the end token (id 0) among them.

## Observation Space
The prompt and the response so far; see `textenvs.env.TextGenEnv`.

## Starting State
A problem of the split, uniformly.

## Rewards
In [0, 1]; 1 is a reference, and success. Similarity is 1 - Levenshtein distance / the longer length, in characters, to
the best reference (`edit_similarity`), which needs `pip install "textenvs[rewards]"`.

**ConstrainedRewrite**: words x max_words x `gain_over_edits`, each a part of the log. `words` is the share of the
required words, 0 with a forbidden one; `max_words` is 1 within the limit, else 0; the gain is the share of the way from
a mindless edit to a reference, (s - c) / (1 - c), at least 0, where s is the response's similarity and c that of the
best such edit, 0.69 on average. Mindless is the sentence itself, and the sentence without the forbidden words, cut to
the limit, with the required ones put in somewhere: "My roommate has been became ill" keeps every constraint, has a
similarity of 0.43, and is worth nothing.

**StyleTransfer**: `gain_over_copy`, the share of the way from the sentence to a reference, (s - c) / (1 - c), at least
0, where s is the response's similarity and c that of the sentence itself, 0.56 on average. The sentence unchanged is
worth nothing, and so is whatever is no nearer to a reference.

Neither reward knows what a sentence means: a good rewrite that no reference comes near scores low. There are 1.8
references a problem (one for the way back to informal).

## Episode End
The end token, or the `max_new_tokens`-th token: 32 in ConstrainedRewrite, 36 in StyleTransfer.

## Splits
Held out are frames of their own, filled with words of their own: no frame, no filler and no run of 8 words is in both
splits. For ConstrainedRewrite no required and no forbidden word is either: measured is whether an agent learnt to work
the words it is given into a sentence, whatever they are. For StyleTransfer the means of style are shared ("gonna" and
"will", "asap" and "as soon as possible"), because no sentence says what is formal: measured is whether they are carried
over to new sentences. Of the words that a held-out first reference has and its sentence has not, 93 % occur in
references of that style to train on.

Both ask for a model that knows English. The shipped one (1.1M parameters) learns frames by heart: after `textenvs sft
ID --model tiny --epochs 20 --patience 3` its greedy responses earn 0.96 on ConstrainedRewrite's training problems and
0.00 held out, 0.97 and 0.03 on StyleTransfer's (every third problem of train, all of heldout; seed 0).

## References
Lin et al. 2020, "CommonGen", Findings of EMNLP, for required words; Rao and Tetreault 2018, "Dear Sir or Madam, may I
introduce the GYAFC dataset", NAACL, for formal and informal pairs; Xu et al. 2016, "Optimizing statistical machine
translation for text simplification", TACL 4 (SARI), for scoring an edit against its source too.

## Version History
v0: first version.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain

import numpy as np

from textenvs.pack_task import PackTask
from textenvs.rewards.base import ProblemLike, Responses, Reward, Scores
from textenvs.rewards.checkers import Words
from textenvs.rewards.metrics import ReferenceReward, references_of
from textenvs.rewards.references import EditSimilarity


class MaxWords(Reward):
    """1.0 when the response has at most `metadata["max_words"]` words, else 0.0. Range [0, 1].

    A word is what white space separates. Withstands: padding. Does not withstand: words run together, and the empty
    response; multiply it by a reward for what the text should be.
    """

    name = "max_words"
    value_range = (0.0, 1.0)

    def require(self, problem: ProblemLike) -> None:
        """See `Reward.require`."""
        limit = problem.metadata.get("max_words")
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ValueError(
                f"the problem with prompt {problem.prompt[:80]!r} must have metadata['max_words'], an int of at least "
                f"1, got {limit!r}; give it one"
            )

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        pairs = zip(problems, responses.texts, strict=True)
        values = np.array([float(len(text.split()) <= problem.metadata["max_words"]) for problem, text in pairs])
        return Scores(values, {self.name: values})


class GainOverCopy(ReferenceReward):
    """Share of the way from the source to a reference: max(0, (s - c) / (1 - c)). Range [0, 1].

    s is the response's edit similarity to the best reference, c that of `metadata["source"]`. A reference scores 1, the
    source 0. Text editing is often scored against the source as well as the references, because a copy is near both:
    Xu et al. 2016, TACL 4.

    Withstands: a copy of the source, the source with anything added or removed that brings it no nearer, the empty
    response, a fixed answer, padding. Does not withstand: the few characters of the source that matter most exchanged,
    whatever becomes of the sense.
    """

    name = "gain_over_copy"

    def __init__(self) -> None:
        self._similarity = EditSimilarity()

    def require(self, problem: ProblemLike) -> None:
        """See `Reward.require`."""
        super().require(problem)
        source = problem.metadata.get("source")
        if not isinstance(source, str) or source in problem.references:
            raise ValueError(
                f"the problem with prompt {problem.prompt[:80]!r} must have metadata['source'], a text that is no "
                f"reference, got {source!r}; give it the sentence to be rewritten"
            )

    def copies(self, problem: ProblemLike) -> set[str]:
        """The texts that are worth nothing: here the source."""
        return {problem.metadata["source"]}

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        values = np.zeros(len(responses))
        for i, (problem, text) in enumerate(zip(problems, responses.texts, strict=True)):
            references = references_of(problem)
            copied = max(self._similarity.score_text(copy, references) for copy in self.copies(problem))
            gain = (self._similarity.score_text(text, references) - copied) / (1 - copied)
            values[i] = max(0.0, gain)
        return Scores(values, {self.name: values})


class GainOverEdits(GainOverCopy):
    """Share of the way from the best mindless edit of the source to a reference. Range [0, 1].

    max(0, (s - c) / (1 - c)) as in `GainOverCopy`, c the greatest similarity of the texts of `copies`. They are made of
    `metadata["source"]` and of what `Words` and `MaxWords` read: "required", "forbidden" and "max_words".

    Withstands: what `GainOverCopy` does, and the source without the forbidden words, cut to the limit at either end,
    with the required words together at any place, or where the forbidden ones stood. Does not withstand: an edit that
    keeps other words of the source, or has each required word where a reference has it, which earns part of the way.
    """

    name = "gain_over_edits"

    def require(self, problem: ProblemLike) -> None:
        """See `Reward.require`."""
        super().require(problem)
        for reward in (Words(), MaxWords()):
            reward.require(problem)
        if found := self.copies(problem) & set(problem.references):
            raise ValueError(
                f"the problem with prompt {problem.prompt[:80]!r} must have no reference that is a mindless edit of "
                f"metadata['source'], got {min(found)!r}; write another"
            )

    def copies(self, problem: ProblemLike) -> set[str]:
        """The source and its mindless edits, which begin with a capital and end as the source does."""
        data = problem.metadata
        required, forbidden = data.get("required", ()), data.get("forbidden", ())
        return {data["source"], *_edits(data["source"], required, forbidden, data["max_words"])}


def _edits(source: str, required: Sequence[str], forbidden: Sequence[str], max_words: int) -> Iterator[str]:
    mark = source[-1:] if source.endswith((".", "!", "?")) else ""
    pattern = "|".join(map(re.escape, forbidden)) or "(?!)"  # the latter is nowhere
    parts = [part.split() for part in re.split(rf"\b(?:{pattern})\b", source.removesuffix(mark), flags=re.IGNORECASE)]
    kept = list(chain.from_iterable(parts))
    num_kept = max(0, min(len(kept), max_words - len(" ".join(required).split())))
    gaps = list(accumulate(map(len, parts)))[:-1] or [len(kept)]
    for start in {0, len(kept) - num_kept}:
        body = kept[start : start + num_kept]
        places = [[i] * len(required) for i in range(num_kept + 1)]
        # One in the place of each forbidden word, what is left over in that of the last.
        in_gaps = [gaps[min(j, len(gaps) - 1)] for j in range(len(required))]
        for chosen in [*places, [min(max(gap - start, 0), num_kept) for gap in in_gaps]]:
            yield _with(body, required, chosen).strip(" ,;") + mark


def _with(body: Sequence[str], new: Sequence[str], places: Sequence[int]) -> str:
    """Words with others put in before those of the given numbers; the first letter is a capital."""
    found: list[str] = []
    for i in range(len(body) + 1):
        found += [word for word, place in zip(new, places, strict=True) if place == i]
        found += body[i : i + 1]
    text = " ".join(found)
    return text[:1].upper() + text[1:]


class ConstrainedRewrite(PackTask):
    """Write a sentence again with some words, without others, in few: `Use: too. Avoid: so. ...` -> `It was too heavy`.

    The prompt names words to use, words to avoid and a limit, and then the sentence; the response says the same within
    them. The required words are not in the sentence and the forbidden ones are, so that it cannot be copied, and a copy
    with the words put in somewhere is worth nothing either.

    Args:
        split: "train", "heldout" (frames and words of their own) or "all".
    """

    pack = "rewrite"
    max_new_tokens = 32

    def __init__(self, *, split: str = "train") -> None:
        super().__init__(split=split)
        self.reward = Words() * MaxWords() * GainOverEdits()


class StyleTransfer(PackTask):
    """Say it formally or informally: `Formal: Sorry I'm late` -> `I apologize for being late`.

    The prompt names the style and a sentence in the other one; the response is the sentence in that style. The sentence
    unchanged is worth nothing, and so is whatever is no nearer to a reference than it is: only what is changed, and
    changed in the right direction, earns anything.

    Args:
        split: "train", "heldout" (frames and fillers of their own) or "all".
    """

    pack = "style"
    max_new_tokens = 36

    def __init__(self, *, split: str = "train") -> None:
        super().__init__(split=split)
        self.reward = GainOverCopy()
