"""Book a trip: ask for what the request leaves open, then write the whole record.

## Description
A trip has four slots, in this order: `from` and `to` (12 cities each), `day` (`mon` to `sun`) and `at` (an hour, 0 to
23). The prompt gives some of them, `from=oslo to=? day=? at=9:`, and hides `num_missing`. Each turn, ended by the end
token, is a question or the record. A question is `?` and the name of a slot, and the reply its value. The record is
`!` and the four values with single spaces between them, and ends the episode. The reply to anything else is `-`.

    from=oslo to=? day=? at=9:   ?to   rome   ?day   fri   !oslo rome fri 9

## Action Space
`Discrete(V)`: the letters of the names and values, the digits, space, `=`, `?`, `!`, `:`, `-`, and the end token, which
ends a turn. `action_masks()` allows questions and records, letter by letter. `masked=False` allows everything.

## Observation Space
The prompt, then turns and replies; see `textenvs.env.TextGenEnv`.

## Starting State
A prompt, of 476 of the 1,056 in a fixed shuffled order, and one of 84 records that fit it (84 to 288 do; which of them,
starts at a hash of the prompt), uniformly. Other settings: see `textenvs.hidden_task.HiddenTask`.

## Rewards
The share of the missing slots that the record has right, if it has all given ones right, else 0; less 0.1 for each turn
before it that is not the first question for a missing slot; at least 0. No record: 0. Guessing a missing slot is free
and right in 1 of 7 cases at best, so success without asking, with two slots missing, is 1 in 84 at best, in train
too: so many different records each prompt hides there.

## Episode End
A record; the tenth turn; the end of the budget.

## Splits
By prompt: a fifth of the prompts is held out, 95 of 476. A prompt of your own hides values that depend on nothing but
the prompt.

## References
Slot filling in task-oriented dialogue: Budzianowski et al., "MultiWOZ", EMNLP 2018.

## Version History
v0: first version.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import prod

import numpy as np
from numpy.typing import NDArray

from textenvs.hidden_task import HiddenTask, running_turn
from textenvs.rewards.base import ProblemLike, Responses, Reward, Scores
from textenvs.task import Problem, check_flag, int_in
from textenvs.vocab import CharVocab

SLOTS: dict[str, tuple[str, ...]] = {
    "from": ("oslo", "paris", "lima", "cairo", "delhi", "quito", "accra", "hanoi", "turin", "lyon", "bern", "kyiv"),
    "to": ("rome", "tokyo", "dakar", "seoul", "milan", "nice", "porto", "riga", "sofia", "tunis", "perth", "davos"),
    "day": ("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
    "at": tuple(map(str, range(24))),
}
MAX_TURNS = 10
#: What a turn costs that is not the first question for a missing slot.
COST = 0.1


class SlotFilling(HiddenTask):
    """Ask for what is open, then book: `from=oslo to=? day=fri at=9:` -> `?to`, told `rome`, `!oslo rome fri 9`.

    Args:
        num_missing: how many of the four slots the prompt leaves open, 1 to 3.
        masked: whether `action_masks()` allows questions and records only, or everything.
        split: "train", "heldout" or "all".
    """

    def __init__(self, *, num_missing: int = 2, masked: bool = True, split: str = "train") -> None:
        self.num_missing = int_in("num_missing", num_missing, 1, len(SLOTS) - 1)
        self.has_masks = check_flag("masked", masked)
        letters = set("".join([*SLOTS, *(value for values in SLOTS.values() for value in values)]))
        self.vocab = CharVocab("".join(sorted(letters)) + " =?!:-")
        self.reward: Reward = Slots()
        longest = {slot: max(map(len, values)) for slot, values in SLOTS.items()}
        self.max_prompt_tokens = sum(len(slot) + 2 + longest[slot] for slot in SLOTS)
        # Every slot asked for, two turns more, and the record, each with the end token.
        asking = sum(len(slot) + 2 + longest[slot] for slot in SLOTS)
        self.max_new_tokens = asking + 2 * 12 + sum(longest.values()) + len(SLOTS) + 1
        #: (missing slots, number of prompts) of each choice of them.
        self._patterns = [
            (missing, prod(len(values) for slot, values in SLOTS.items() if slot not in missing))
            for missing in combinations(SLOTS, self.num_missing)
        ]
        super().__init__(
            num_prompts=sum(num for _, num in self._patterns),
            min_hidden=min(prod(len(SLOTS[slot]) for slot in missing) for missing, _ in self._patterns),
            split=split,
        )

    def prompt(self, number: int) -> str:
        """Choices of missing slots one after the other; in each, the given values as digits of what is left."""
        missing: tuple[str, ...] = ()
        for missing, num in self._patterns:  # noqa: B007 - what it stops at is what is meant
            if number < num:
                break
            number -= num
        words = []
        for slot, values in SLOTS.items():
            if slot in missing:
                words.append(f"{slot}=?")
            else:
                number, digit = divmod(number, len(values))
                words.append(f"{slot}={values[digit]}")
        return " ".join(words) + ":"

    def num_hidden(self, prompt: str) -> int:
        """See `HiddenTask.num_hidden`."""
        return prod(len(SLOTS[slot]) for slot, value in self._read(prompt).items() if value == "?")

    def _read(self, prompt: str) -> dict[str, str]:
        pairs = [word.partition("=") for word in prompt[:-1].split(" ")]
        values = {slot: value for slot, _, value in pairs}
        known = [slot for slot, value in values.items() if slot in SLOTS and value in SLOTS[slot]]
        missing = [slot for slot, value in values.items() if value == "?"]
        if (
            prompt[-1:] != ":"
            or [slot for slot, _, _ in pairs] != list(SLOTS)
            or len(missing) != self.num_missing
            or len(known) + len(missing) != len(SLOTS)
        ):
            raise ValueError(
                f"prompt must be such as 'from=oslo to=? day=? at=9:' with {self.num_missing} times '?', "
                f"got {prompt[:80]!r}"
            )
        return values

    def hide(self, prompt: str, number: int) -> Problem:
        """See `HiddenTask.hide`."""
        values = self._read(prompt)
        missing = [slot for slot, value in values.items() if value == "?"]
        for slot in missing:
            number, digit = divmod(number, len(SLOTS[slot]))
            values[slot] = SLOTS[slot][digit]
        return Problem(prompt, ("!" + " ".join(values.values()),), {"values": values, "missing": missing})

    def reply(self, problem: Problem, turns: Sequence[str]) -> str | None:
        """See `Task.reply`."""
        turn = turns[-1]
        if _record(turn) is not None or (len(turns) + 1) // 2 >= MAX_TURNS:
            return None
        return problem.metadata["values"].get(turn[1:], "-") if turn[:1] == "?" else "-"

    def demonstration(self, problem: Problem) -> list[str]:
        """A question for each missing slot, in their order, and the record."""
        return [*("?" + slot for slot in problem.metadata["missing"]), problem.references[0]]

    def legal(self, problem: Problem, token_ids: Sequence[int]) -> NDArray[np.bool_]:
        """See `Task.legal`."""
        turn = running_turn(self, problem, token_ids)
        legal = np.zeros(self.vocab.num_tokens, dtype=bool)
        for symbol in _next_symbols(turn):
            legal[self.vocab.token_id(symbol) if symbol else self.vocab.eos_id] = True
        if not legal.any():
            legal[self.vocab.eos_id] = True
        return legal

    def optimal_return(self) -> float:
        """Asking for what is missing and booking it scores 1, and nothing scores more."""
        return 1.0


def _record(turn: str) -> list[str] | None:
    """The values of a turn that is a record, right or wrong, or None."""
    values = turn[1:].split(" ", len(SLOTS)) if turn[:1] == "!" else []
    return values if len(values) == len(SLOTS) else None


def _next_symbols(turn: str) -> set[str]:
    """What may follow a turn of the game that is not finished; "" is the end token."""
    if not turn:
        return {"?", "!"}
    if turn[0] == "?":
        return _continuations(turn[1:], tuple(SLOTS), "")
    *done, word = turn[1:].split(" ")
    if turn[0] != "!" or len(done) >= len(SLOTS):
        return set()
    values = list(SLOTS.values())
    if any(value not in choices for value, choices in zip(done, values, strict=False)):
        return set()
    return _continuations(word, values[len(done)], " " if len(done) < len(SLOTS) - 1 else "")


def _continuations(word: str, choices: Sequence[str], after: str) -> set[str]:
    """The next letters of the choices that start with `word`, and `after` where it is one of them."""
    symbols = {choice[len(word)] for choice in choices if choice.startswith(word) and choice != word}
    return symbols | ({after} if word in choices else set())


class Slots(Reward):
    """Share of the missing slots right, given ones kept, less 0.1 for each needless turn. Range [0, 1].

    The record is the whole of the last turn, end token included. Withstands: a record of the given slots alone, several
    records, the right one with anything before or after it, questions without end, a turn that the budget cuts.
    """

    name = "slots"
    value_range = (0.0, 1.0)

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        values, needless = np.zeros(len(responses)), np.zeros(len(responses))
        rows = zip(problems, responses.turns, responses.finish_reasons, strict=True)
        for i, (problem, turns, reason) in enumerate(rows):
            wanted, missing = problem.metadata["values"], problem.metadata["missing"]
            asked = turns[0:-1:2]
            needless[i] = len(asked) - len({turn for turn in asked if turn[:1] == "?" and turn[1:] in missing})
            record = _record(turns[-1]) if len(turns) % 2 and reason in ("eos", "stop") else None
            right = [] if record is None else [a == b for a, b in zip(record, wanted.values(), strict=True)]
            if all(good or slot in missing for slot, good in zip(wanted, right, strict=False)) and right:
                share = sum(good for slot, good in zip(wanted, right, strict=True) if slot in missing) / len(missing)
                values[i] = max(0.0, share - COST * needless[i])
        return Scores(values, {"num_needless_turns": needless, self.name: values})
