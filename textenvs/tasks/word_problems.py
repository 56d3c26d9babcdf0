"""Arithmetic in words: a short story with numbers, one of which does not matter, and an answer that is a number.

## Description
A story says how many things somebody has and what happens to them; its question asks how many there are then. It takes
`num_steps` operations: some come (+), some go (-), groups of equal size (x), equal shares (:). One sentence, anywhere
before the question, has a number that does not matter. `textenvs/assets/word_problems.json` holds the sentences, all
written by hand, in themes within which they fit together in any order.

## Action Space
`Discrete(2048)`: a token of the shipped tokenizer, so that the shipped model can play (`--model tiny`).

## Observation Space
The prompt of at most 90 tokens (`num_steps=1`: 72, `num_steps=3`: 108), then the response of at most 6. The prompt is
the story, the question and a new line.

## Starting State
One of 8,000 problems, 2,000 held out, uniformly.

## Rewards
1 for the number in digits and nothing else, otherwise 0. The answer is at least 2, none of the numbers in the story,
and not their sum; in the default setting no answer fits more than 1 of 20 problems.

## Episode End
The end token, or the 6th token.

## Splits
`heldout` has other names, other things and other sentences than `train`; `all` is both. Numbers have the same ranges.

## References
Problems of this kind: Cobbe et al. 2021, "Training verifiers to solve math word problems" (GSM8K), arXiv:2110.14168.
The sentence that does not matter: Shi et al. 2023, "Large language models can be easily distracted by irrelevant
context", arXiv:2302.00093. No text is taken from either.

## Version History
v0: first version.
"""

from __future__ import annotations

import hashlib
import json
import struct
from functools import cache
from itertools import count
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from textenvs.task import Problem, Task, check_index, check_split, int_in, permuted
from textenvs.vocab import TokenizerVocab

ASSETS = Path(__file__).parent.parent / "assets"
NUM_PROBLEMS = {"train": 8_000, "heldout": 2_000}
#: There are at most so many groups, or shares.
MAX_FACTOR = 9


class Plan(NamedTuple):
    """Which operations a story takes: x at the start or not, so many + and -, : at the end or not."""

    groups: bool
    num_moves: int
    share: bool


PLANS = {
    1: (Plan(False, 1, False), Plan(True, 0, False), Plan(False, 0, True)),
    2: (Plan(False, 2, False), Plan(True, 1, False), Plan(False, 1, True), Plan(True, 0, True)),
    3: (Plan(False, 3, False), Plan(True, 2, False), Plan(False, 2, True), Plan(True, 1, True)),
}


class WordProblem(Task):
    """Solve a story of numbers, one of which does not matter: `Tom has 9 eggs. It is 4 days to May. ...?` -> `12`.

    Args:
        num_steps: operations that a problem takes, 1 to 3.
        max_number: largest number in a story, 20 to 1,000. The smallest is 2; groups and shares are at most 9.
        split: "train", "heldout" or "all".
    """

    reward = "exact_match"
    max_new_tokens = 6

    def __init__(self, *, num_steps: int = 2, max_number: int = 50, split: str = "train") -> None:
        self.num_steps = int_in("num_steps", num_steps, 1, 3)
        self.max_number = int_in("max_number", max_number, 20, 1_000)
        self.max_prompt_tokens = 54 + 18 * self.num_steps
        self._splits = tuple(NUM_PROBLEMS) if check_split(split) == "all" else (split,)
        self.vocab = TokenizerVocab(ASSETS / "tokenizer.json")

    def __len__(self) -> int:
        return sum(NUM_PROBLEMS[split] for split in self._splits)

    def __getitem__(self, k: int) -> Problem:
        check_index(k, len(self))
        split = self._splits[0]
        if k >= NUM_PROBLEMS[split]:
            split, k = self._splits[1], k - NUM_PROBLEMS[split]
        story, answer = self._story(split, k)
        return Problem(" ".join(story) + "\n", (str(answer),))

    def optimal_return(self) -> float:
        """The one answer scores 1."""
        return 1.0

    def _story(self, split: str, k: int) -> tuple[list[str], int]:
        """The sentences of problem k of a split, and the answer."""
        words = _words()[split]
        themes, people = words["themes"], words["people"]
        # What tells two problems apart comes from k, one to one; all else is drawn.
        sizes = (len(themes), len(people), len(PLANS[self.num_steps]), 2, 2, 4)
        number = permuted(k, prod(sizes))
        draws = Draws(f"{self.num_steps},{self.max_number},{split},{number}")
        chosen = []
        for size in sizes:
            number, choice = divmod(number, size)
            chosen.append(choice)
        theme, person, plan = themes[chosen[0]], people[chosen[1]], PLANS[self.num_steps][chosen[2]]
        signs = [draws.between(0, 1) for _ in range(plan.num_moves)]
        numbers, answer = draw_numbers(plan, signs, self.max_number, draws)

        opening = theme["groups" if plan.groups else "start"][chosen[3]]
        ending = theme["share" if plan.share else "question"][chosen[4]]
        left = {1: list(theme["more"]), 0: list(theme["less"])}  # no sentence comes twice
        moves = [left[sign].pop(draws.between(0, len(left[sign]) - 1)) for sign in signs]
        story = [opening.format(**person, **numbers.opening)]
        story += [move.format(**person, n=n) for move, n in zip(moves, numbers.moves, strict=True)]
        story.insert(draws.between(0, len(story)), theme["noise"][chosen[5]].format(n=numbers.noise))
        return [*story, ending.format(**person, k=numbers.share)], answer


class Draws:
    """Integers from a hash of a key, so that no version of a random generator changes a problem.

    Args:
        key: equal keys draw the same.
    """

    def __init__(self, key: str) -> None:
        self._blocks = (hashlib.shake_128(f"{key},{i}".encode()).digest(256) for i in count())
        self._rest: list[int] = []

    def between(self, least: int, most: int) -> int:
        """An integer in [least, most], uniform up to 1 in 2^32 / (most - least)."""
        if not self._rest:
            self._rest = list(struct.unpack("<64I", next(self._blocks)))
        return least + self._rest.pop() % (most - least + 1)


class Numbers(NamedTuple):
    """What stands in the slots of a story."""

    opening: dict[str, int]  # a, or a groups of b
    moves: list[int]
    noise: int
    share: int  # 1 where nothing is shared


def draw_numbers(plan: Plan, signs: list[int], max_number: int, draws: Draws) -> tuple[Numbers, int]:
    """Numbers for a plan, drawn until nothing becomes less than 2, shares come out even and the answer is no give-away.

    Args:
        plan: of the story.
        signs: for each move, 1 when some come and 0 when some go.
        max_number: largest number.
        draws: source of the numbers.

    Returns:
        The numbers, and the answer: at least 2, none of the numbers, and not their sum.
    """
    while True:
        a, b = draws.between(2, MAX_FACTOR), draws.between(2, max_number)
        opening = {"a": a, "b": b} if plan.groups else {"a": draws.between(2, max_number)}
        total, moves = prod(opening.values()), []
        for sign in signs:
            if not sign and total < 4:
                break  # not enough for 2 to go and 2 to stay
            moves.append(draws.between(2, max_number if sign else min(max_number, total - 2)))
            total += moves[-1] if sign else -moves[-1]
        shares = [k for k in range(2, MAX_FACTOR + 1) if total % k == 0 and total // k >= 2] if plan.share else [1]
        if len(moves) < len(signs) or not shares:
            continue
        share, noise = shares[draws.between(0, len(shares) - 1)], draws.between(2, max_number)
        answer = total // share
        shown = [*opening.values(), *moves, noise, *([share] if plan.share else [])]
        # Small answers would be common, and one of them a good guess: the smaller, the less often it is kept.
        if answer not in (*shown, sum(shown)) and draws.between(0, 29) < answer:
            return Numbers(opening, moves, noise, share), answer


@cache
def _words() -> dict[str, Any]:
    """Split -> its themes, and its people as what stands in the slots {name}, {He} and {he}."""
    words: dict[str, Any] = json.loads((ASSETS / "word_problems.json").read_text(encoding="utf-8"))
    for split in words.values():
        split["people"] = [
            {"name": name, "he": pronoun, "He": pronoun.capitalize()}
            for pronoun, names in split["names"].items()
            for name in names
        ]
    return words
