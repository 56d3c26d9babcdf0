"""Tasks and rewards that exercise the corners: grammar, several turns, faults, prefixes that score differently."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from textenvs import CharVocab, Problem, Responses, Reward, Scores, Task


class GuessingGame(Task):
    """Guess a digit in two turns: each turn ends with the end token and is answered, until right or told the digit."""

    reward = "exact_match"
    max_prompt_tokens = 3
    max_new_tokens = 9
    has_masks = True

    def __init__(self) -> None:
        self.vocab = CharVocab("0123?<>!")

    def __len__(self) -> int:
        return 8

    def __getitem__(self, k: int) -> Problem:
        if not 0 <= k < 8:
            raise IndexError(k)
        return Problem("?" * (k // 4 + 1), (str(k % 4),))

    def legal(self, problem: Problem, token_ids: Sequence[int]) -> np.ndarray:
        legal = np.ones(9, dtype=bool)
        legal[4:8] = False  # the game's own symbols are not the player's
        legal[8] = len(token_ids) > 0
        return legal

    def reply(self, problem: Problem, turns: Sequence[str]) -> str | None:
        guess = turns[-1]
        if guess == problem.references[0] or len(turns) >= 5:
            return None
        return "<" if guess < problem.references[0] else ">!"


class SpelledOut(Task):
    """Spell a digit."""

    reward = "exact_match"
    max_new_tokens = 6
    words: Sequence[str] = ("one", "two", "three", "four", "five")

    def __init__(self, *, split: str = "train") -> None:
        self.vocab = CharVocab("12345efhinortuvw")
        self.numbers = {"train": (1, 2, 3), "heldout": (4, 5)}[split]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, k: int) -> Problem:
        return Problem(str(self.numbers[k]), (self.words[self.numbers[k] - 1],))


class Flaky(Reward):
    """Share of the response that is one symbol; the machinery fails when the response starts with another."""

    name = "flaky"

    def __call__(self, problems: Sequence[Problem], responses: Responses) -> Scores:
        values = np.array([text.count("a") / max(len(text), 1) for text in responses.texts])
        status = ["infra_fault" if text[:1] == "b" else "ok" for text in responses.texts]
        values[[word != "ok" for word in status]] = np.nan
        return Scores(values, {"share": np.nan_to_num(values), "length": responses.lengths.astype(float)}, status)
