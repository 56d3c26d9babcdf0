"""What known policies earn in a task: the scale on which a learned return means something.

The board of dumb policies, none of which reads the problem, and what follows from it: `anchors`. Playing them all takes
seconds, so what the registered ids earn at default settings is stored: `Anchors.stored`.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from textenvs.rewards.base import RewardError
from textenvs.rules import Rules
from textenvs.task import Problem
from textenvs.vocab import IntArray, Vocab

#: At most this many problems are played, spread evenly over the split.
NUM_PROBLEMS = 200
#: Episodes of random tokens where the task cannot compute what they earn.
NUM_RANDOM = 500
#: Of the board: what needs the answer. Not a policy that anyone can run, so not among the dumb ones.
NEEDS_ANSWER = ("reference", "reference_plus_suffix")
_RANDOM_SEED = 0
_STORED = Path(__file__).parent / "assets/anchors.csv"


class Played(NamedTuple):
    """What one policy earns: its mean return, and the share of its episodes that succeed."""

    mean_return: float
    success_rate: float


@dataclass(frozen=True)
class Anchors:
    """Mean returns at default settings; None where nobody knows, or where the reward cannot work here.

    Attributes:
        random: uniformly random tokens; exact where the task can compute it, else measured over 500 episodes.
        dumb: the best of the board's policies that do not read the problem; see `board`.
        reference: the references themselves.
        optimal: the best that is possible.
        dumb_success: the highest success rate of a dumb policy, not always the one with the best return.
    """

    random: float | None = None
    dumb: float | None = None
    reference: float | None = None
    optimal: float | None = None
    dumb_success: float | None = None

    @staticmethod
    def stored(env_id: str) -> Anchors | None:
        """What `anchors` gave for an id, to 6 decimals, when `python benchmarks/board.py` last ran; None: not stored.

        Nothing is played or imported for it, so it is there also where the id's reward cannot work.
        """
        return _stored().get(env_id)


@cache
def _stored() -> dict[str, Anchors]:
    with _STORED.open(encoding="utf-8", newline="") as file:
        rows = {row.pop("id"): row for row in csv.DictReader(file)}
    return {
        env_id: Anchors(**{name: float(value) if value else None for name, value in row.items()})
        for env_id, row in rows.items()
    }


def anchors(rules: Rules, rows: Mapping[str, Played] | None = None) -> Anchors:
    """Compute the anchors of an env's rules; a reward that cannot work here leaves what it must score unknown.

    Args:
        rules: of the env.
        rows: what `board` gave for them, where it has been played already.
    """
    task = rules.task
    random, optimal = task.random_return(), task.optimal_return()
    try:
        rows = board(rules) if rows is None else rows
        random = _random_return(rules) if random is None else random
    except (RewardError, ImportError):
        return Anchors(random=random, optimal=optimal)
    dumb = [row for name, row in rows.items() if name not in NEEDS_ANSWER]
    return Anchors(
        random=random,
        dumb=max(row.mean_return for row in dumb),
        reference=rows["reference"].mean_return if "reference" in rows else None,
        optimal=optimal,
        dumb_success=max(row.success_rate for row in dumb),
    )


def board(rules: Rules, *, num_problems: int = NUM_PROBLEMS) -> dict[str, Played]:
    """Play every policy of the board on the same problems; what faults is left out.

    A policy writes its text, cut at the budget, and the end token where there is room; where the task replies, it
    writes the same again until the episode ends.

    empty: nothing. echo: the prompt. first_sentence: of the prompt. constant: the first problem's reference, or its
    prompt where it has none. repetition: the constant's first token, to the budget. With references also
    most_frequent_reference, every_option (all distinct references in a row), reference (where the
    task replies: its demonstration), and reference_plus_suffix (the reference and then another one, or itself again):
    an attack on a lenient reward.

    Args:
        rules: of the env.
        num_problems: at most so many, spread evenly over the split, at least 1.

    Raises:
        RewardError, ImportError: the reward cannot work here.
    """
    task = rules.task
    num = min(len(task), num_problems)
    problems = [task[k * len(task) // num] for k in range(num)]
    texts = _texts(rules, problems)
    turns = {text: _turn(rules, text) for text in {text for column in texts.values() for text in column}}
    columns = {name: [turns[text] for text in column] for name, column in texts.items()}
    if rules.has_replies:
        solutions = [rules.demonstration(problem) for problem in problems]
        if None not in solutions:
            columns["reference"] = [np.array(ids, dtype=np.int64) for ids in solutions if ids is not None]
    played: dict[tuple[bytes, ...], Played] = {}  # policies often write the same
    for column in columns.values():
        key = tuple(ids.tobytes() for ids in column)
        if key not in played:
            played[key] = play_turns(rules, problems, column)
    return {name: played[tuple(ids.tobytes() for ids in column)] for name, column in columns.items()}


def _texts(rules: Rules, problems: Sequence[Problem]) -> Mapping[str, Sequence[str]]:
    """What each policy writes, a text a problem."""
    num, prompts = len(problems), [problem.prompt for problem in problems]
    references = [problem.references[0] for problem in problems if problem.references]
    constant = (references or prompts)[0]
    first = rules.vocab.decode(rules.vocab.encode(constant)[:1].tolist())
    texts = {
        "empty": [""] * num,
        "echo": prompts,
        "first_sentence": [re.split(r"(?<=[.!?\n])", prompt, maxsplit=1)[0] for prompt in prompts],
        "constant": [constant] * num,
        "repetition": [first * rules.max_new_tokens] * num,
    }
    if not references:
        return texts
    counts = Counter(references)
    options = [text for text, _ in counts.most_common()]
    space = " " if _spells(rules.vocab, " ") else ""
    texts |= {
        "most_frequent_reference": options[:1] * num,
        "every_option": [space.join(options[: rules.max_new_tokens])] * num,
    }
    if len(references) == num:
        others = [next((text for text in options if text != own), own) for own in references]
        suffixed = [own + space + other for own, other in zip(references, others, strict=True)]
        texts |= {"reference": references, "reference_plus_suffix": suffixed}
    return texts


def _spells(vocab: Vocab, text: str) -> bool:
    try:
        return len(vocab.encode(text)) > 0
    except ValueError:
        return False


def _turn(rules: Rules, text: str) -> IntArray:
    """The tokens of a turn, at least one: the text, cut at the budget, and the end token where there is room."""
    ids = rules.vocab.encode(text)[: rules.max_new_tokens]
    return ids if len(ids) == rules.max_new_tokens else np.append(ids, rules.vocab.eos_id)


def play_turns(rules: Rules, problems: Sequence[Problem], turns: Sequence[IntArray]) -> Played:
    """Play B episodes, each with its tokens (n,), n at least 1, again and again until it ends; score them as one batch.

    Raises:
        RewardError, ImportError: the reward cannot work here, or failed for every episode.
    """
    rows = np.full((len(problems), rules.width), rules.num_tokens, dtype=np.int64)
    ends, reasons, turn_ends = np.empty(len(problems), dtype=np.int64), [], []
    for i, (problem, ids) in enumerate(zip(problems, turns, strict=True)):
        closed: list[int] = []
        ends[i], reason = _play(rules, problem, ids, rows[i], closed)
        reasons.append(reason)
        turn_ends.append(closed)
    scores, _ = rules.score(problems, rows, ends, reasons, turn_ends)
    values = scores.values[[status != "infra_fault" for status in scores.status]]
    if not len(values):
        raise RewardError(f"reward {rules.reward.name} failed for all {len(problems)} responses: {scores.causes[0]}")
    return Played(float(values.mean()), float((values >= rules.task.threshold).mean()))


def _play(rules: Rules, problem: Problem, ids: IntArray, row: IntArray, turn_ends: list[int]) -> tuple[int, str]:
    """Write the tokens into the row (P + T,), with the replies to them, until the episode ends; where, and why."""
    end, at = rules.max_prompt_tokens, 0
    while True:
        piece = ids[at : at + rules.width - end]
        closing = np.flatnonzero(rules.ends_turn[piece])
        num = int(closing[0]) + 1 if len(closing) else len(piece)
        row[end : end + num] = piece[:num]
        end, at = end + num, (at + num) % len(ids)
        if len(closing) or end == rules.width:
            end, reason = rules.close_turn(problem, row, end, turn_ends)
            if reason is not None:
                return end, reason


def _random_return(rules: Rules) -> float:
    rng = np.random.default_rng(_RANDOM_SEED)
    problems = [rules.task[int(k)] for k in rng.integers(len(rules.task), size=NUM_RANDOM)]
    tokens = rng.integers(rules.num_tokens, size=(NUM_RANDOM, rules.max_new_tokens))
    return play_turns(rules, problems, list(tokens)).mean_return
