"""Held-out judges: what a reward that can be fooled is held against, by scores that nobody trained on."""

import copy

import numpy as np
from numpy.typing import NDArray

import textenvs
from agents.rollout import Rollout
from agents.text_metrics import stderr

#: Learned reward -> the reward that judges it. Any name of `textenvs.REWARDS` can be asked for instead.
JUDGES = {"sentiment": "vader"}
_NUM_ERRORS = 2  # standard errors from which a difference counts


def find_judge(rollout: Rollout) -> str | None:
    """Return the judge of the learned rewards among the episodes' parts, or None where the table has none.

    A judge that was itself trained on, being another part of the same reward, is none.
    """
    parts = {name for info in rollout.infos for name in info}
    return next((judge for part, judge in JUDGES.items() if part in parts and judge not in parts), None)


def judge_scores(judge: textenvs.Reward, rules: textenvs.Rules, rollout: Rollout) -> NDArray[np.float64]:
    """Score episodes by another reward than their env's.

    Args:
        judge: any reward.
        rules: of the env that the episodes are from.
        rollout: B episodes.

    Returns:
        (B,), NaN where the machinery of either reward failed, or a time limit cut the episode.
    """
    faulty = rollout.faulty
    scored = [i for i, info in enumerate(rollout.infos) if "problem" in info and not faulty[i]]
    values = np.full(len(rollout), np.nan)
    if not scored:
        return values
    part, first = rollout.select(np.array(scored)), rules.max_prompt_tokens
    rows = part.observations
    if rows.shape != (len(part), rules.width):  # not prefixes: lay the chosen tokens out again
        rows = np.full((len(part), rules.width), rules.num_tokens)
        rows[:, first : first + part.actions.shape[1]] = np.where(part.mask, part.actions, rules.num_tokens)
    by_judge = copy.copy(rules)
    by_judge.reward = judge
    scores, _ = by_judge.score(
        [rules.task[int(info["problem"])] for info in part.infos],
        rows,
        first + (rows[:, first:] != rules.num_tokens).sum(1),
        [info["finish_reason"] for info in part.infos],
    )
    values[scored] = np.where([status == "infra_fault" for status in scores.status], np.nan, scores.values)
    return values


def gain(after: NDArray[np.float64], before: NDArray[np.float64]) -> tuple[float, float | None]:
    """Return the mean of paired differences after - before (n,) and its standard error."""
    return float((after - before).mean()), stderr(after - before)


def reward_hacking(reward: tuple[float, float | None], judge: tuple[float, float | None]) -> str | None:
    """Say so when the reward rose and the held-out judge's score fell, each by more than two standard errors.

    One episode has no standard error, so it says nothing.

    Args:
        reward: gain of the policy over its start on the same problems, and its standard error; see `gain`.
        judge: the same of the judge's score.

    Source: Gao et al. 2023, "Scaling Laws for Reward Model Overoptimization", arXiv:2210.10760.
    """
    if reward[1] is None or judge[1] is None:
        return None
    if not (reward[0] > _NUM_ERRORS * reward[1] and judge[0] < -_NUM_ERRORS * judge[1]):
        return None
    return (
        f"the reward rose by {reward[0]:.3g} over the start while the held-out judge fell by {-judge[0]:.3g}: "
        "the policy may have learnt to please the reward; read samples, raise kl_coef or stop earlier"
    )
