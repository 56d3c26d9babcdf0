"""Read a short text, then say in one sentence what happened, or answer a question about it.

## Description
Every text was written for this project, one by one: news, notices, letters, tales and facts, of three sentences.
The files, one problem a line: `textenvs/assets/README.md`.

**Summarize**: the prompt is `Sum up: `, a text and a line break; the response is one sentence. `Sum up: It rained all
through the first day of the fair. Few people came to the stalls. On Sunday the sun was out, and everything was sold by
noon.` -> `The fair was empty in the rain but sold out on Sunday.` What matters stands late in the text and is said in
other words: no reference is a piece of its source. Two references each; 304 problems to train on, 66 held out.

**QuestionAnswering**: the prompt is a passage, a line break, a question and a line break; the response is the answer in
a few words. `David is a nurse and his wife Clara drives a bus. Their son wants to be a pilot. Only the dog has no job.`
`Who wants to be a pilot?` -> `their son`. Three questions a passage, so that the passage does not tell the answer. 9 of
10 first references stand in the passage, the others follow from it ("12" from nine good, two broken and one green egg).
Up to eight references each, 2.4 on average: a place or a time with and without its preposition, where the noun alone
says it ("the dog's ear", but not "the farm" for "behind the farm"), a number in words and in digits, other short ways
to say the same. 306 problems to train on, 72 held out.

## Action Space
`Discrete(2048)`: the tokens of the shipped byte-level tokenizer, the end token (id 0) among them.

## Observation Space
The prompt and the response so far; see `textenvs.env.TextGenEnv`. With its prompt a response has at most 96 tokens, as
many as the shipped model reads (`--model tiny`).

## Starting State
A problem of the split, uniformly.

## Rewards
In [0, 1], the best reference counts.

**Summarize**: ROUGE-L, the F-measure of the longest common subsequence of words (`rougeL`, of the extra `rewards`).
A reference scores 1; without the other one it would score 0.25 on average. The text's first sentence scores 0.29, the
whole text 0.27, the best of its sentences, which only the references tell, 0.37. Success is 1, the words of a reference
and no others; no lower bar would be fair. From 0.5 on, only 2 % of the references succeed by the other one (0.56 at
most), but each does that is written twice, or with the text behind it: 0.76 and 0.75 on average as the budget cuts
them, 0.96 at most; of the texts' first sentences 0.025 would. So compare mean returns. The reward sees words in order
and no meaning: a good summary in still other words is worth little, and punctuation and other scripts are no words, and
free.

**QuestionAnswering**: F1 of the words, without case, punctuation and articles (`token_f1`); success is 1. The whole
passage scores 0.15, and its first or last one to four words answer at most 3 of 100 questions.

## Episode End
The end token, or the `max_new_tokens`-th token: 30 in Summarize, 12 in QuestionAnswering.

## Splits
Texts of their own: no name and no run of 6 words of a held-out text is in one to train on; held-out texts are a little
longer and have rarer words. Measured is reading, as far as the vocabulary carries.

## References
Lin 2004, "ROUGE: a package for automatic evaluation of summaries", WAS; Rajpurkar et al. 2016, "SQuAD",
arXiv:1606.05250, for questions on passages and their score. Grusky et al. 2018, "Newsroom", NAACL, for how far copying
a text's beginning goes where references are taken from there.

## Version History
v0: first version.
"""

from __future__ import annotations

from textenvs.pack_task import PackTask


class Summarize(PackTask):
    """Say in one sentence what a short text says: `Sum up: Nora planted beans. Rabbits ...` -> `Rabbits ate the beans`.

    Three sentences of news, notices, letters, tales or facts; the response is one sentence that says what happened.
    What matters stands late in the text and is said in other words by the references, so that copying the text's first
    sentence, which does well where summaries are taken from beginnings, earns little.

    Args:
        split: "train", "heldout" (other texts, names and words) or "all".
    """

    pack = "summarize"
    reward = "rougeL"
    max_new_tokens = 30


class QuestionAnswering(PackTask):
    """Answer a question about a short passage: `Emma keeps three cats. ... Where is the grey one?` -> `under the bed`.

    A passage of three sentences and one of three questions about it; the response is the answer in a few words. Most
    answers are words of the passage, but which of them only the question tells. Words count, not letters: articles,
    case and punctuation are free.

    Args:
        split: "train", "heldout" (other passages, names and words) or "all".
    """

    pack = "qa"
    reward = "token_f1"
    max_new_tokens = 12
