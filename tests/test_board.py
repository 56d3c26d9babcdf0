"""What policies that do not read the problem may earn on every id, and that the stored anchors are what they earn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from tasks_for_tests import GuessingGame

import textenvs
from textenvs.anchors import NEEDS_ANSWER, Played, _stored

IDS = tuple(entry.id for entry in textenvs.ENTRIES)


#: The most that a dumb policy, or the reference with a suffix, may solve; the least that the reference earns above one.
SUCCESS, MARGIN = 0.05, 0.3
#: So few responses are possible that a dumb policy solves more. Their rewards must give partial credit, by test.
GRADED = {
    "textenvs/Count-v0": "8 responses for 26 problems",
    "textenvs/Length-v0": "4 lengths",
    "textenvs/RandomWalk-v0": "4 of 20 starts are one edge from the goal",
}
#: Two answers: chance solves half of them, and 0.02 is for one being commoner.
BINARY = {"textenvs/Parity-v0": 0.52}
#: An echo is the answer and an `=`: 0.8 of the partial credit, no success.
NO_MARGIN = {"textenvs/Copy-v0"}
#: Scored by taste, without a reference to compare with: at most this mean return.
NO_REFERENCE = {"TextGen-v0": 0.5}


@cache
def play(env_id: str) -> tuple[textenvs.Rules, dict[str, Played]]:
    """The rules of an id and its board, or a skip where its reward cannot work."""
    entry = next(entry for entry in textenvs.ENTRIES if entry.id == env_id)
    try:
        rules = textenvs.Rules(**entry.kwargs)
        return rules, textenvs.board(rules)
    except (textenvs.RewardError, ImportError) as error:
        pytest.skip(f"the reward cannot work here: {error}")


def gives_partial_credit(task: textenvs.Task | str) -> bool:
    """Whether some of 1,000 episodes of random legal tokens earn something, but less than a success."""
    envs = textenvs.TextGenVectorEnv(100, task=task)
    envs.reset(seed=0)
    rng, returns = np.random.default_rng(0), list[float]()
    while len(returns) < 1000:
        legal = envs.action_masks()
        actions = np.where(legal, rng.random(legal.shape), -1.0).argmax(axis=1)
        _, rewards, terminated, _, _ = envs.step(actions)
        returns += rewards[terminated].tolist()
    return any(0 < value < envs.rules.task.threshold for value in returns)


@pytest.mark.parametrize("env_id", IDS)
def test_dumb_policies_stay_below_the_ceiling(env_id: str) -> None:
    rules, rows = play(env_id)
    dumb = {name: row for name, row in rows.items() if name not in NEEDS_ANSWER}
    best, success = max(row.mean_return for row in dumb.values()), max(row.success_rate for row in dumb.values())
    if env_id in NO_REFERENCE:
        assert "reference" not in rows
        assert best <= NO_REFERENCE[env_id]
        return
    assert rows["reference"].success_rate == 1
    if env_id in GRADED:
        assert success > SUCCESS, "no longer an exception"
        assert gives_partial_credit(rules.task)
    elif env_id in BINARY:
        assert len({rules.task[k].references for k in range(len(rules.task))}) == 2
        assert success <= BINARY[env_id]
    else:
        assert success <= SUCCESS
    assert rows["reference_plus_suffix"].success_rate <= SUCCESS
    if env_id not in NO_MARGIN:
        assert rows["reference"].mean_return - best >= MARGIN


def test_no_id_is_an_exception_to_both_bars() -> None:
    assert not NO_MARGIN & (GRADED.keys() | BINARY.keys())


def test_partial_credit_is_seen() -> None:
    assert gives_partial_credit("copy")
    assert not gives_partial_credit("parity")  # right or wrong


@pytest.mark.parametrize("env_id", IDS)
def test_the_stored_anchors_are_what_is_measured(env_id: str) -> None:
    stored = textenvs.Anchors.stored(env_id)
    assert stored is not None, f"run python benchmarks/board.py {env_id}"
    measured = textenvs.anchors(*play(env_id))
    assert vars(stored) == pytest.approx(vars(measured), abs=1e-6), f"run python benchmarks/board.py {env_id}"


def test_no_anchors_are_stored_but_those_of_the_ids() -> None:
    assert tuple(_stored()) == IDS
    assert textenvs.Anchors.stored("Mine-v0") is None


class Options(textenvs.Task):
    """Yes or no, on a response that must contain the answer: everything at once wins, and so does a suffix."""

    max_prompt_tokens, max_new_tokens = 4, 8
    reward = textenvs.as_reward(lambda problem, text: float(problem.references[0] in text))

    def __init__(self) -> None:
        self.vocab = textenvs.CharVocab("ynx.")

    def __len__(self) -> int:
        return 9

    def __getitem__(self, k: int) -> textenvs.Problem:
        return textenvs.Problem("x.x", ("yy" if k % 3 else "n",))


def test_the_board_by_hand() -> None:
    rows = textenvs.board(textenvs.Rules(Options()))
    assert {name: row.success_rate for name, row in rows.items()} == {
        "empty": 0.0,
        "echo": 0.0,
        "first_sentence": 0.0,
        "constant": pytest.approx(3 / 9),  # "n"
        "repetition": pytest.approx(3 / 9),  # "nnnnnnnn"
        "most_frequent_reference": pytest.approx(6 / 9),  # "yy"
        "every_option": 1.0,  # "yyn"
        "reference": 1.0,
        "reference_plus_suffix": 1.0,
    }
    known = textenvs.anchors(textenvs.Rules(Options()))
    assert (known.dumb, known.dumb_success, known.reference, known.optimal) == (1.0, 1.0, 1.0, None)


def test_the_policies_write_what_they_say() -> None:
    """Seen through a reward that keeps the texts: the first sentence, the budget, the order of the options."""
    seen: list[str] = []

    def keep(problem: textenvs.Problem, text: str) -> float:
        seen.append(text)
        return 0.0

    textenvs.board(textenvs.Rules(Options(), reward=keep), num_problems=1)
    # What several policies write is played once: "n" is the constant, the commonest, every option and the reference.
    assert seen == ["", "x.x", "x.", "n", "nnnnnnnn", "nn"]


def test_where_the_task_replies_a_turn_is_repeated_until_the_end() -> None:
    class Seen(textenvs.ExactMatch):
        turns: Sequence[Sequence[str]] = ()

        def __call__(self, problems: Sequence[textenvs.Problem], responses: textenvs.Responses) -> textenvs.Scores:
            Seen.turns = responses.turns
            return super().__call__(problems, responses)

    rows = textenvs.board(textenvs.Rules(GuessingGame(), reward=Seen()))
    assert Seen.turns[1] == ["10", ">!", "10"], "the next reply does not fit the budget"
    assert rows["reference"].mean_return == 1.0
    assert rows["constant"].mean_return == 0.25  # "0", right at once for every fourth problem


def test_random_tokens_agree_with_played_episodes() -> None:
    kwargs = {"task": GuessingGame(), "reward": lambda problem, text: len(text) / 8}
    envs = textenvs.TextGenVectorEnv(64, **kwargs, autoreset_mode="Disabled")
    envs.reset(seed=0)
    rng, returns = np.random.default_rng(0), []
    while len(returns) < 2000:
        *_, rewards, terminated, _, _ = envs.step(rng.integers(9, size=64))
        returns += rewards[terminated].tolist()
        if terminated.any():
            envs.reset(options={"reset_mask": terminated})
    error = np.std(returns) * np.sqrt(1 / 500 + 1 / len(returns))
    assert textenvs.anchors(textenvs.Rules(**kwargs)).random == pytest.approx(np.mean(returns), abs=4 * error)


def test_a_reward_that_cannot_work_here_leaves_its_anchors_unknown() -> None:
    def broken(problem: textenvs.Problem, text: str) -> float:
        raise textenvs.RewardError("no sandbox")

    known = textenvs.anchors(textenvs.Rules("copy", reward=broken))
    assert (known.dumb, known.reference, known.dumb_success) == (None, None, None)
    assert known.random is not None  # the task computes it
