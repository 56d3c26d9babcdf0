"""Find out by yes-or-no questions which of some things is meant, then name it.

## Description
The prompt lists `num_candidates` of 48 things, `ant ball bear ... whale:`; one of them is meant. Each turn, ended by
the end token, is a question or a name. A question is `?` and one of 23 properties, such as `?flies`, and the reply `y`
or `n`: what is true of a thing is what the table in this file lists, and plain knowledge as far as that goes. A name is
`!` and a word, and ends the episode. The reply to anything else is `-`.

## Action Space
`Discrete(32)`: the letters, space, `?`, `!`, `:`, `-`, and the end token, which ends a turn. `action_masks()` allows
questions and the listed names, letter by letter. `masked=False` allows everything.

## Observation Space
The prompt, then turns and replies; see `textenvs.env.TextGenEnv`.

## Starting State
One of 1,000 lists and one of 10 things in it, uniformly.

## Rewards
Par is what the splitting player takes at worst on that list, its last turn the name: it always asks for the property
that splits what is left most evenly. The right name as turn number n: 1 for n <= par, and
1 - (n - par) / (20 - par + 1) beyond. A wrong name, or none: 0. Naming at once is right in 1 of `num_candidates` cases.

## Episode End
A name; the twentieth turn; the end of the budget, which has room for twenty questions of average length.

## Splits
By list: a fifth of the lists is held out. A prompt of your own means what depends on nothing but the prompt.

## References
The parlour game; as a benchmark in Abdulhai et al., "LMRL Gym", arXiv:2311.18232. The table was written for this
project (Apache-2.0).

## Version History
v0: first version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from string import ascii_lowercase

import numpy as np
from numpy.typing import NDArray

from textenvs.hidden_task import Guesses, HiddenTask, running_turn
from textenvs.rewards.base import Reward
from textenvs.task import Problem, check_flag, int_in
from textenvs.vocab import CharVocab

MAX_TURNS = 20
NUM_LISTS = 1_000
#: What is true of each thing. No two are alike.
TABLE: Mapping[str, frozenset[str]] = {
    thing: frozenset(properties.split())
    for thing, properties in {
        "ant": "alive animal small",
        "apple": "alive plant food sweet round small",
        "ball": "round toy",
        "banana": "alive plant food sweet",
        "bat": "alive animal flies night fur small",
        "bear": "alive animal big fur food",
        "bed": "home big wood",
        "bee": "alive animal flies small",
        "bike": "wheels metal",
        "boat": "water big wood",
        "book": "paper",
        "bread": "food",
        "cake": "food sweet",
        "car": "wheels metal power big",
        "carrot": "alive plant food",
        "cat": "alive animal pet fur night",
        "chair": "home wood",
        "clock": "home power round",
        "coat": "worn fur",
        "cow": "alive animal big food",
        "dog": "alive animal pet fur",
        "doll": "toy",
        "drum": "music round",
        "duck": "alive animal flies water food",
        "eagle": "alive animal flies",
        "egg": "food round small",
        "flute": "music metal",
        "frog": "alive animal water small",
        "guitar": "music wood",
        "hat": "worn",
        "horse": "alive animal big pet",
        "kite": "flies toy paper",
        "knife": "home metal sharp food",
        "lamp": "home power night",
        "moon": "night round big",
        "oak": "alive plant wood big",
        "onion": "alive plant food round",
        "owl": "alive animal flies night",
        "piano": "music wood big",
        "phone": "power small",
        "plane": "flies metal power big wheels",
        "ring": "worn metal round small",
        "rose": "alive plant sharp",
        "saw": "metal wood sharp",
        "shark": "alive animal water sharp big",
        "snake": "alive animal",
        "spoon": "home metal",
        "whale": "alive animal water big",
    }.items()
}
PROPERTIES = tuple(sorted(set().union(*TABLE.values())))


class TwentyQuestions(HiddenTask):
    """Ask what is true of a hidden thing, then name it: `ant bee dog:` -> `?flies`, told `n`, `?pet`, told `y`, `!dog`.

    Args:
        num_candidates: things in a list, 2 to 40.
        masked: whether `action_masks()` allows questions and listed names only, or everything.
        split: "train", "heldout" or "all".
    """

    def __init__(self, *, num_candidates: int = 24, masked: bool = True, split: str = "train") -> None:
        self.num_candidates = int_in("num_candidates", num_candidates, 2, 40)
        self.has_masks = check_flag("masked", masked)
        self.vocab = CharVocab(ascii_lowercase + " ?!:-")
        self.reward: Reward = Guesses(MAX_TURNS)
        longest = sorted(map(len, TABLE), reverse=True)
        self.max_prompt_tokens = sum(longest[: self.num_candidates]) + self.num_candidates
        self.max_new_tokens = MAX_TURNS * 8
        super().__init__(num_prompts=NUM_LISTS, split=split)

    def prompt(self, number: int) -> str:
        """The things whose hash with the number is least, in alphabetical order."""
        return " ".join(sorted(_ranked(number)[: self.num_candidates])) + ":"

    def num_hidden(self, prompt: str) -> int:
        """See `HiddenTask.num_hidden`."""
        things = prompt[:-1].split(" ")
        if prompt[-1:] != ":" or not set(things) <= set(TABLE) or not 2 <= len(things) == len(set(things)):
            raise ValueError(
                f"prompt must be at least two different things of the table and then ':', such as 'ant bee dog:', "
                f"got {prompt[:80]!r}"
            )
        return len(things)

    def hide(self, prompt: str, number: int) -> Problem:
        """See `HiddenTask.hide`."""
        thing = prompt[:-1].split(" ")[number]
        return Problem(prompt, ("!" + thing,), {"hidden": thing, "par": _par(prompt)})

    def reply(self, problem: Problem, turns: Sequence[str]) -> str | None:
        """See `Task.reply`."""
        turn = turns[-1]
        if turn[:1] == "!" or (len(turns) + 1) // 2 >= MAX_TURNS:
            return None
        if turn[:1] != "?" or turn[1:] not in PROPERTIES:
            return "-"
        return "y" if turn[1:] in TABLE[problem.metadata["hidden"]] else "n"

    def demonstration(self, problem: Problem) -> list[str]:
        """The splitting player's questions, and the name."""
        left, turns, hidden = problem.prompt[:-1].split(" "), [], problem.metadata["hidden"]
        while len(left) > 1:
            asked = best_question(left)
            turns.append("?" + asked)
            left = [thing for thing in left if (asked in TABLE[thing]) == (asked in TABLE[hidden])]
        return [*turns, "!" + left[0]]

    def legal(self, problem: Problem, token_ids: Sequence[int]) -> NDArray[np.bool_]:
        """See `Task.legal`."""
        turn = running_turn(self, problem, token_ids)
        if not turn:
            symbols = {"?", "!"}
        else:
            choices = {"?": PROPERTIES, "!": problem.prompt[:-1].split(" ")}.get(turn[0], ())
            rest = [word[len(turn) - 1 :] for word in choices if word.startswith(turn[1:])]
            symbols = {word[:1] for word in rest} or {""}
        legal = np.zeros(self.vocab.num_tokens, dtype=bool)
        for symbol in symbols:
            legal[self.vocab.token_id(symbol) if symbol else self.vocab.eos_id] = True
        return legal

    def optimal_return(self) -> float:
        """The splitting player is within par always, and nothing scores above 1."""
        return 1.0


def best_question(things: Sequence[str]) -> str:
    """The property that splits the things most evenly, the first in the alphabet of several.

    Args:
        things: at least two.
    """
    return min(PROPERTIES, key=lambda name: abs(2 * sum(name in TABLE[thing] for thing in things) - len(things)))


@lru_cache(maxsize=NUM_LISTS)
def _ranked(number: int) -> list[str]:
    return sorted(TABLE, key=lambda thing: hashlib.sha256(f"{number} {thing}".encode()).digest())


@lru_cache(maxsize=1 << 14)
def _par(prompt: str) -> int:
    """Turns of the splitting player at worst, the name included."""

    def worst(things: list[str]) -> int:
        if len(things) == 1:
            return 1
        asked = best_question(things)
        return 1 + max(worst([t for t in things if (asked in TABLE[t]) == truth]) for truth in (True, False))

    return worst(prompt[:-1].split(" "))
