"""Games of many turns: transcripts written by hand, replies to any text, what is hidden, and demonstrations."""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium as gym
import numpy as np
from tasks_for_tests import GuessingGame

import textenvs
from agents.policy import OraclePolicy
from agents.responses import as_rollout, demonstrations
from agents.rollout import collect


class Searching(GuessingGame):
    """Shown by trying the digits in turn, as the replies ask for."""

    def demonstration(self, problem: textenvs.Problem) -> Sequence[str]:
        return [str(digit) for digit in range(int(problem.references[0]) + 1)][-2:]


def test_a_demonstration_of_several_turns_is_played_and_laid_out_with_its_replies() -> None:
    rules = textenvs.Rules(Searching())
    assert rules.demonstration(rules.task[2]) == [1, 8, 2, 8]
    envs = gym.make_vec("TextGen-v0", num_envs=3, task=rules.task, autoreset_mode="Disabled")
    played = collect(envs, OraclePolicy(envs), num_episodes=8, seed=0)
    assert {info["response"] for info in played.infos} <= {"0", "0<1", "1<2", "2<3"}
    assert len({info["response"] for info in played.infos}) > 2
    laid_out = as_rollout(demonstrations(rules, 8), has_masks=True)
    two = laid_out.observations[2, 3:]
    assert two.tolist() == [1, 8, 5, 2, 8, 9, 9, 9, 9], "the reply stands between the turns"
    assert laid_out.positions[2, :4].tolist() == [3, 4, 6, 7]
    assert np.array_equal(laid_out.mask[2], [True] * 4)


def test_the_board_plays_the_demonstration_where_the_task_replies() -> None:
    class Wrong(Searching):
        def demonstration(self, problem: textenvs.Problem) -> Sequence[str]:
            return ["3", "3"]

    assert textenvs.board(textenvs.Rules(Searching()))["reference"].mean_return < 1  # exact match of the whole text
    assert textenvs.board(textenvs.Rules(Wrong()))["reference"].mean_return == 0.25
