"""Translate a short English sentence into Spanish.

## Description
The prompt is `Spanish: `, an English sentence and a line break; the response is the Spanish sentence. `Spanish: My
sister likes the red hats.` -> `A mi hermana le gustan los sombreros rojos.` The sentences are composed from frames and
a lexicon of about 140 words that this project wrote, with articles, genders, agreement, verb forms, contractions,
the personal "a", the order of adjectives and "ser" and "estar" as Spanish has them. Where Spanish leaves a choice that
English does not make ("my teacher": "mi profesor", "mi profesora", "mi maestro", "mi maestra"; "is reading": "está
leyendo", "lee"; "I": left out or "yo", "we": left out, "nosotros" or "nosotras"), every combination is a reference: up
to 16, 2.6 on average. A synonym outside the lexicon ("chico" for "niño") or another order of the words counts as wrong,
however good. 767 problems to train on, 144 held out. The files, one problem a line, and how they were made:
`textenvs/assets/README.md`.

## Action Space
`Discrete(2048)`: the tokens of the shipped byte-level tokenizer, the end token (id 0) among them. An accented letter is
two tokens.

## Observation Space
The prompt and the response so far; see `textenvs.env.TextGenEnv`.

## Starting State
A problem of the split, uniformly.

## Rewards
chrF++ in [0, 1] against the best reference: character n-grams up to 6, words and pairs of words, recall weighs more
(`ChrF(word_order=2)`). 1 is a reference, and success; only how much white space stands between words, at the ends and
before the full stop is free, and whether an accented letter is one character or two (both sides are put into Unicode's
normal form C). On average a reference scores 0.78 without its spaces, 0.82 written twice, 0.93 in small
letters. It needs `pip install "textenvs[rewards]"`. Any Spanish earns something: see the board of dumb policies in
`textenvs list`.

## Episode End
The end token, or the `max_new_tokens`-th token: 40.

## Splits
Shared is the language: every word of a held-out prompt and of its first reference occurs in sentences to train on. New
are the frames (18 beside 65; "The man who works in the park is tired" where training knows "I know the man who works in
the park" and "The man is tired") and the combinations: a quarter of the pairs of verb and object and of adjective and
noun are in held-out sentences only. Measured is compositional generalisation, not vocabulary, and a small model is far
from it: after `textenvs sft textenvs/Translate-v0 --model tiny --epochs 20 --patience 3` the greedy responses of the
shipped one (1.1M parameters) earn 0.94 in training (every seventh problem; 86 % are references) and 0.33 held out (none
is; seed 0).

## References
Popović 2017, "chrF++: words helping character n-grams", WMT; Lake and Baroni 2018, "Generalization without
systematicity" (SCAN), ICML, and Kim and Linzen 2020, "COGS", EMNLP, for splits by composition; the English-to-German
environment of RL4LMs (Ramamurthy et al. 2023, arXiv:2210.01241) for the task.

## Version History
v0: first version.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from textenvs.pack_task import PackTask
from textenvs.rewards.references import ChrF


class ComposedChrF(ChrF):
    """`ChrF` of texts in Unicode's normal form C: "n" with a combining tilde is an "ñ". Range [0, 1].

    Args, source, what it withstands and what not: see `ChrF`.
    """

    def score_text(self, text: str, references: Sequence[str]) -> float:
        """See `TextMetric.score_text`."""
        return super().score_text(_composed(text), [_composed(reference) for reference in references])


class Translate(PackTask):
    """Say it in Spanish: `Spanish: The girls are tired` -> `Las niñas están cansadas`.

    Args:
        split: "train", "heldout" (known words in new combinations and frames) or "all".
    """

    pack = "translate"
    reward = ComposedChrF(word_order=2)
    max_new_tokens = 40


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
