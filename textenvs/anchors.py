"""What known policies earn in a task: the scale on which a learned return means something.

The board of dumb policies, none of which reads the problem, and what follows from it: `anchors`. Playing them all takes
seconds, so what the registered ids earn at default settings is stored: `Anchors.stored`. Whether the references can be
given at all: `check_references`.
"""

from __future__ import annotations

import csv
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from textenvs.rewards.base import RewardError, Scores
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
    problems = [rules.task[k] for k in _spread(rules, num_problems)]
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


def check_references(rules: Rules, *, reward_threshold: float | None = None, num_problems: int = NUM_PROBLEMS) -> None:
    """Check that a task's references can be given: play each problem's demonstration, to see where the budget cuts it.

    It warns when the budget cuts some, and when those that fit score below the threshold in the mean. The end token
    needs no room: the last token of the budget ends the episode too. A problem without a demonstration says nothing.

    Args:
        rules: of the env.
        reward_threshold: of its id.
        num_problems: at most so many, drawn at random but always the same, at least 1.

    Raises:
        ValueError: the budget cuts all of them, or the vocabulary cannot spell one; names the problem.
    """
    answers: dict[int, IntArray] = {}
    num = min(len(rules.task), num_problems)
    for k in np.sort(np.random.default_rng(_RANDOM_SEED).choice(len(rules.task), num, replace=False)).tolist():
        try:
            ids = rules.demonstration(rules.task[k], whole=True)
        except ValueError as error:
            raise ValueError(f"the reference of problem {k}: {error}") from None
        if ids:
            answers[k] = np.array(ids, dtype=np.int64)
    cut = [k for k, ids in answers.items() if _is_cut(rules, rules.task[k], ids)]
    if cut:
        longest = max(cut, key=lambda k: len(answers[k]))
        num = len(answers[longest])
        cuts = (
            f"max_new_tokens must leave room for an answer, got {rules.max_new_tokens}, which cuts the reference of "
            f"{len(cut)} of {len(answers)} problems looked at (problem {longest} takes {num} tokens with the end token)"
            f"; make it at least {num}" + (", and more for the replies" if rules.has_replies else "")
        )
        if len(cut) == len(answers):
            raise ValueError(cuts)
        warnings.warn(cuts, stacklevel=2)
    whole = [k for k in answers if k not in cut]
    if reward_threshold is None or not whole:
        return
    try:
        scores = _scores(rules, [rules.task[k] for k in whole], [answers[k] for k in whole])
    except (RewardError, ImportError):  # which the env itself says
        return
    scored = {k: float(value) for k, value in zip(whole, scores.values, strict=True) if np.isfinite(value)}
    mean = sum(scored.values()) / max(len(scored), 1)
    if scored and mean < reward_threshold:
        worst = min(scored, key=scored.__getitem__)
        warnings.warn(
            f"reward_threshold must be in the references' reach, got {reward_threshold:g}, and those of "
            f"{len(scored)} problems score {mean:.6g} in the mean, problem {worst}'s {scored[worst]:.6g}; mend the "
            "references or the reward",
            stacklevel=2,
        )


def _spread(rules: Rules, num_problems: int) -> list[int]:
    """Numbers of at most so many problems, spread evenly over the split."""
    num = min(len(rules.task), num_problems)
    return [k * len(rules.task) // num for k in range(num)]


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
    scores = _scores(rules, problems, turns)
    values = scores.values[[status != "infra_fault" for status in scores.status]]
    if not len(values):
        raise RewardError(f"reward {rules.reward.name} failed for all {len(problems)} responses: {scores.causes[0]}")
    return Played(float(values.mean()), float((values >= rules.task.threshold).mean()))


def _scores(rules: Rules, problems: Sequence[Problem], turns: Sequence[IntArray]) -> Scores:
    """What `play_turns` scores, an episode each."""
    rows = np.full((len(problems), rules.width), rules.num_tokens, dtype=np.int64)
    ends, reasons, turn_ends = np.empty(len(problems), dtype=np.int64), [], []
    for i, (problem, ids) in enumerate(zip(problems, turns, strict=True)):
        closed: list[int] = []
        ends[i], reason = _play(rules, problem, ids, rows[i], closed)
        reasons.append(reason)
        turn_ends.append(closed)
    return rules.score(problems, rows, ends, reasons, turn_ends)[0]


def _is_cut(rules: Rules, problem: Problem, ids: IntArray) -> bool:
    """Whether the budget ends the episode before all tokens (n,) are written, a last end token aside."""
    closed: list[int] = []
    end, reason = _play(rules, problem, ids, np.empty(rules.width, dtype=np.int64), closed)
    bounds = [0, *closed] if closed else [0, end - rules.max_prompt_tokens]  # agent, reply, agent, ...
    num_written = sum(b - a for a, b in zip(bounds[::2], bounds[1::2], strict=False))
    return reason == "length" and num_written < len(ids) - 1


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
