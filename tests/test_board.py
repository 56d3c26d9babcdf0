"""What policies that do not read the problem may earn: a row an id, a new id needs one. See benchmarks/board.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from tasks_for_tests import GuessingGame

import textenvs
from textenvs.anchors import NEEDS_ANSWER


class Exact(NamedTuple):
    """Success is all that counts: the most that a dumb policy, or the reference with a suffix, may have of it."""

    success: float = 0.05
    why: str = ""


class Graded(NamedTuple):
    """Partial credit counts: the least that the reference must earn above the best dumb policy."""

    margin: float = 0.3


CEILINGS: dict[str, Exact | Graded] = {
    "textenvs/Copy-v0": Exact(),
    "textenvs/Reverse-v0": Exact(),
    "textenvs/Sort-v0": Exact(),
    "textenvs/Count-v0": Exact(0.16, "chance: 8 possible responses, 26 problems"),
    "textenvs/Length-v0": Exact(0.26, "chance: 4 possible lengths"),
    "textenvs/Addition-v0": Exact(),
    "textenvs/Parity-v0": Exact(0.52, "chance: binary"),
    "textenvs/CharCount-v0": Exact(),
    "textenvs/Brackets-v0": Exact(),
    "textenvs/Dates-v0": Exact(),
    "textenvs/IncreasingNumbers-v0": Exact(),
    "textenvs/GuessNumber-v0": Exact(),
    "textenvs/SlotFilling-v0": Exact(),
    "textenvs/TwentyQuestions-v0": Exact(),
    "textenvs/Wordle-v0": Exact(),
    "textenvs/Translate-v0": Graded(),
    "textenvs/ConstrainedRewrite-v0": Graded(),
    "textenvs/StyleTransfer-v0": Graded(),
    "textenvs/Summarize-v0": Graded(),
    "textenvs/QuestionAnswering-v0": Graded(),
    "textenvs/PythonFunction-v0": Exact(),
    "textenvs/WordProblem-v0": Exact(),
    "textenvs/JsonRequest-v0": Exact(),
    "textenvs/RegularLanguage-v0": Exact(),
    "textenvs/Countdown-v0": Exact(),
    "textenvs/RandomWalk-v0": Exact(0.2, "chance: 4 of 20 starts are one edge from the goal"),
    "textenvs/ReasoningGym-v0": Exact(),
    "textenvs/Dataset-v0": Exact(),
}
#: Scored by taste, without a reference to compare with: at most this mean return.
NO_REFERENCE = {"TextGen-v0": 0.5}


@pytest.mark.parametrize("entry", textenvs.ENTRIES, ids=lambda entry: entry.id)
def test_dumb_policies_stay_below_the_ceiling(entry: textenvs.Entry) -> None:
    try:
        rows = textenvs.board(textenvs.Rules(**entry.kwargs))
    except (textenvs.RewardError, ImportError) as error:
        pytest.skip(f"the reward cannot work here: {error}")
    dumb = {name: row for name, row in rows.items() if name not in NEEDS_ANSWER}
    if entry.id in NO_REFERENCE:
        assert "reference" not in rows
        assert max(row.mean_return for row in dumb.values()) <= NO_REFERENCE[entry.id]
        return
    assert entry.id in CEILINGS, "a new id states its ceiling here"
    ceiling = CEILINGS[entry.id]
    assert rows["reference"].success_rate == 1
    if isinstance(ceiling, Exact):
        assert ceiling.why or ceiling.success <= 0.05, "more than 0.05 needs a reason"
        assert max(row.success_rate for row in dumb.values()) <= ceiling.success
        assert rows["reference_plus_suffix"].success_rate <= 0.05
    else:
        assert rows["reference"].mean_return - max(row.mean_return for row in dumb.values()) >= ceiling.margin


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
