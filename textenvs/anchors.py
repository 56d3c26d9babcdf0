"""What known policies earn in a task: the scale on which a learned return means something."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from textenvs.rules import Rules
from textenvs.task import Problem
from textenvs.vector_env import TextGenVectorEnv
from textenvs.vocab import IntArray

#: At most this many problems are scored, spread evenly over the split.
MAX_SCORED = 500
_RANDOM_SEED = 0


@dataclass(frozen=True)
class Anchors:
    """Mean returns at default settings; None where nobody knows.

    Attributes:
        random: uniformly random tokens; exact where the task can compute it, else measured over 500 episodes.
        dumb: the best of three policies that do not read the problem: say nothing, echo the prompt, always give the
            commonest reference.
        reference: the references themselves.
        optimal: the best that is possible.
    """

    random: float
    dumb: float
    reference: float | None
    optimal: float | None


def anchors(rules: Rules) -> Anchors:
    """Compute the anchors of an env's rules."""
    task = rules.task
    num = min(len(task), MAX_SCORED)
    problems = [task[k * len(task) // num] for k in range(num)]
    references = [problem.references[0] for problem in problems if problem.references]
    dumb = [[""] * num, [problem.prompt for problem in problems]]
    dumb += [[text] * num for text, _ in Counter(references).most_common(1)]
    known = len(references) == num
    exact = task.random_return()
    return Anchors(
        random=_random_return(rules) if exact is None else exact,
        dumb=max(score_texts(rules, problems, texts) for texts in dumb),
        reference=score_texts(rules, problems, references) if known else None,
        optimal=task.optimal_return(),
    )


def score_texts(rules: Rules, problems: Sequence[Problem], texts: Sequence[str]) -> float:
    """Mean score of B texts as responses, each cut at the budget."""
    rows = np.full((len(texts), rules.width), rules.num_tokens, dtype=np.int64)
    ends = np.empty(len(texts), dtype=np.int64)
    for i, text in enumerate(texts):
        ids: IntArray = rules.vocab.encode(text)[: rules.max_new_tokens - 1]
        ids = np.append(ids, rules.vocab.eos_id)
        ends[i] = rules.max_prompt_tokens + len(ids)
        rows[i, rules.max_prompt_tokens : ends[i]] = ids
    scores, _ = rules.score(problems, rows, ends, ["eos"] * len(texts))
    return float(scores.values.mean())


def _random_return(rules: Rules) -> float:
    envs = TextGenVectorEnv(MAX_SCORED, task=rules.task, autoreset_mode="Disabled")
    envs.reset(seed=_RANDOM_SEED)
    rng, total, running = np.random.default_rng(_RANDOM_SEED), 0.0, np.ones(MAX_SCORED, dtype=bool)
    while running.any():
        _, rewards, terminated, truncated, _ = envs.step(rng.integers(rules.num_tokens, size=MAX_SCORED))
        total += float(rewards[running].sum())
        ended = terminated | truncated
        running &= ~ended
        if ended.any() and running.any():
            envs.reset(options={"reset_mask": ended})
    return total / MAX_SCORED
