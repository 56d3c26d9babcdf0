"""Find out by yes-or-no questions which of some things is meant, then name it.

## Description
The prompt lists `num_candidates` of 48 things, `apple ball bear ... whale:`; one of them is meant. Each turn, ended by
the end token, is a question or a name. A question is `?` and one of 32 properties, such as `?flies`, and the reply `y`
or `n`, by the table in this file. A name is `!` and a word, and ends the episode. The reply to anything else is `-`.

Is it: an `animal` (insects are); an `insect`; `made` by people; `heavy`, too much for one person to lift; `metal`,
`wood`, `paper` or `cloth`, mostly; `round`, like a ball or a coin; a `fruit`; `sweet`; `baked`; a `toy`; a musical
`instrument`; `cutlery`; a source of `light`; a common `pet`; `worn`? Does it have: `feathers`; `fur`; `roots`;
`wheels`; an `engine`; a `blade`; a `plug` for the socket? Do people `eat` it, `drink` it, `read` it, or `write` with
it? And: `flies`; `stings`; `water`, whether it lives or travels there.

## Action Space
`Discrete(32)`: the letters, space, `?`, `!`, `:`, `-`, and the end token, which ends a turn. `action_masks()` allows
questions and the listed names, letter by letter. `masked=False` allows everything.

## Observation Space
The prompt, then turns and replies; see `textenvs.env.TextGenEnv`.

## Starting State
One of 1,666 lists, the first of a fixed shuffled order of all, and one of the 24 things in it, uniformly. (Other
settings: as many lists as make 40,000 problems.)

## Rewards
Par is what the splitting player takes at worst on that list, its last turn the name: it always asks for the property
that splits what is left most evenly. The right name as turn number n: 1 for n <= par, and
1 - (n - par) / (20 - par + 1) beyond. A wrong name, or none: 0. Naming at once is right in 1 of `num_candidates` cases,
1 of 24 (0.042), in train too: every thing of a list is meant equally often.

## Episode End
A name; the twentieth turn; the end of the budget, which has room for twenty questions of average length.

## Splits
By list: a fifth of the lists is held out, 333 of 1,666. A prompt of your own means what depends on nothing but the
prompt.

## References
The parlour game; as a benchmark in Abdulhai et al., "LMRL Gym", arXiv:2311.18232. The table was written for this
project (Apache-2.0).

## Version History
v0: first version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import comb
from string import ascii_lowercase

import numpy as np
from numpy.typing import NDArray

from textenvs.hidden_task import Guesses, HiddenTask, running_turn
from textenvs.rewards.base import Reward
from textenvs.task import Problem, check_flag, int_in
from textenvs.vocab import CharVocab

MAX_TURNS = 20
#: What is true of each thing. No two are alike.
TABLE: Mapping[str, frozenset[str]] = {
    thing: frozenset(properties.split())
    for thing, properties in {
        "apple": "eat fruit sweet round",
        "ball": "made toy round",
        "banana": "eat fruit sweet",
        "bear": "animal fur heavy",
        "beer": "made drink",
        "bike": "made wheels metal",
        "book": "made paper read",
        "bread": "made eat baked",
        "bus": "made wheels engine metal heavy",
        "butterfly": "animal insect flies",
        "candle": "made light",
        "chalk": "made write",
        "coin": "made metal round",
        "cola": "made drink sweet",
        "curtain": "made cloth",
        "dog": "animal fur pet",
        "doll": "made toy",
        "eagle": "animal feathers flies",
        "email": "made read",
        "envelope": "made paper",
        "firefly": "animal insect flies light",
        "fork": "made metal cutlery",
        "fox": "animal fur",
        "fridge": "made metal heavy plug",
        "goldfish": "animal water pet",
        "jellyfish": "animal water stings",
        "key": "made metal",
        "knife": "made metal blade cutlery",
        "oak": "roots wood heavy",
        "parrot": "animal feathers flies pet",
        "pencil": "made wood write",
        "penguin": "animal feathers water",
        "pizza": "made eat baked round",
        "plane": "made flies wheels engine metal heavy",
        "ring": "made worn metal round",
        "saw": "made metal blade",
        "scorpion": "animal stings",
        "shirt": "made worn cloth",
        "ship": "made water engine metal heavy",
        "spider": "animal",
        "sun": "light round heavy",
        "swan": "animal feathers flies water",
        "toaster": "made metal plug",
        "trumpet": "made metal instrument",
        "tulip": "roots",
        "violin": "made wood instrument",
        "wasp": "animal insect flies stings",
        "whale": "animal water heavy",
    }.items()
}
PROPERTIES = tuple(sorted(set().union(*TABLE.values())))


class TwentyQuestions(HiddenTask):
    """Ask what is true of a hidden thing, then name it: `bus dog fox:` -> `?made`, told `n`, `?pet`, told `y`, `!dog`.

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
        num_lists = comb(len(TABLE), self.num_candidates)
        super().__init__(num_prompts=num_lists, min_hidden=self.num_candidates, split=split)

    def prompt(self, number: int) -> str:
        """List number `number` of all that there are, each in alphabetical order."""
        things, listed = sorted(TABLE), list[str]()
        while len(listed) < self.num_candidates:
            thing = things.pop(0)
            # Of the lists that go on from what is listed, so many have this thing.
            with_it = comb(len(things), self.num_candidates - len(listed) - 1)
            if number < with_it:
                listed.append(thing)
            else:
                number -= with_it
        return " ".join(listed) + ":"

    def num_hidden(self, prompt: str) -> int:
        """See `HiddenTask.num_hidden`."""
        things = prompt[:-1].split(" ")
        if prompt[-1:] != ":" or not set(things) <= set(TABLE) or not 2 <= len(things) == len(set(things)):
            raise ValueError(
                f"prompt must be at least two different things of the table and then ':', such as 'bus dog fox:', "
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


@lru_cache(maxsize=1 << 14)
def _par(prompt: str) -> int:
    """Turns of the splitting player at worst, the name included."""

    def worst(things: list[str]) -> int:
        if len(things) == 1:
            return 1
        asked = best_question(things)
        return 1 + max(worst([t for t in things if (asked in TABLE[t]) == truth]) for truth in (True, False))

    return worst(prompt[:-1].split(" "))
