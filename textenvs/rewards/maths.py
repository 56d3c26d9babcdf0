"""Reward for the final answer to a maths problem: finding it is done here, comparing it in a killable process."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from importlib.util import find_spec

import numpy as np

from textenvs.rewards.answers import MAX_ANSWER_CHARS, final_answers, is_one_number, plain_number
from textenvs.rewards.base import ProblemLike, Responses, Reward, Scores
from textenvs.rewards.libraries import library
from textenvs.rewards.worker import Verdict, Workers, workers

#: Characters of a response that are looked at.
MAX_CHARS = 100_000
#: More final answers than this that are spelt differently are not read at all.
MAX_ANSWERS = 4

# `x=5`, the only kind of equation that answers with what stands at its right: 41=42 does not.
_ASSIGNMENT = re.compile(r"\\?[A-Za-z]+(?:_\{?\w+\}?)?(?:\([a-z]\))?\s*=[^=]+")
# What math-verify reads otherwise than people: 1e5 as 5e, 1e-7 as e-7, nan as n*a*n, and a mixed number as nothing.
_MISREAD = re.compile(r"[-+]?\s*(?:[0-9.,]+e[-+]?[0-9]+|[0-9]+\s+[0-9]+\s*/\s*[0-9]+|nan|inf|infinity)", re.IGNORECASE)


class MathAnswer(Reward):
    r"""1.0 when the response's final answer equals the gold one, else 0.0. Range [0, 1].

    The gold answer is `metadata["answer"]` (a number, or text in LaTeX), or any of the references. `final_answers` says
    which one of the response's is final: what stands in `\boxed{}`, else the one number or formula that the last line
    ends with or consists of. Plain numbers are compared exactly, as fractions: `0.33` is not 1/3. All else is compared
    by math-verify in a process of its own, which is killed at the limit (status model_fault) whatever thread asks, and
    which cannot run text as code, write, or reach a network.

    Withstands: two different answers (boxed, or anywhere in what the last line says last), every option at once,
    equal numbers with an operator between them (4 + 4 for 4), another sign, operator or relation around the number
    (-5, 5!, x > 5 for 5), a numeral or an English word of arithmetic or denial beside it (5 million, minus 5, not 5,
    isn't 5), another number or an equation between different ones in the box, towers like 9^{9^{9^9}}, thousands of
    parentheses, code.
    Does not withstand: what stands around a box, or in earlier lines or sentences than the answer; other words that
    change it (maybe 5, 5 if x is, nicht 5) and units of any kind (5 kg for 5); a wrong left side (8 = 7). Nor, unless
    `numbers_only`: an expression that was left uncomputed, such as 3+4 for 7; 42% for 42; for a gold answer that is no
    plain number, words in the box, and six right decimals, such as 0.333333 for \frac{1}{3}.

    Source: math-verify 0.9 (github.com/huggingface/Math-Verify).

    Args:
        numbers_only: the answer must be a plain number: 7, -7, 1,000, 0.5 or 1/2.
        limit_seconds: wall time for comparing one response with one gold answer, in (0, 60], from when a process has
            received it. Before that, a free process and its start are waited for: `textenvs.rewards.worker` has those
            bounds, beyond which the status is infra_fault.
    """

    name = "math_answer"
    value_range = (0.0, 1.0)

    def __init__(self, *, numbers_only: bool = False, limit_seconds: float = 5.0) -> None:
        if not isinstance(numbers_only, bool):
            raise TypeError(f"numbers_only must be True or False, got {numbers_only!r}")
        if (
            isinstance(limit_seconds, bool)
            or not isinstance(limit_seconds, (int, float))
            or not 0 < limit_seconds <= 60
        ):
            raise ValueError(f"limit_seconds must be a number in (0, 60], got {limit_seconds!r}; the usual one is 5")
        if not numbers_only and find_spec("math_verify") is None:
            library("math_verify", self.name)  # says how to install it; where it is there, only the worker loads it
        self.numbers_only, self.limit_seconds = numbers_only, float(limit_seconds)

    @property
    def workers(self) -> Workers:
        """The processes that compare what is no plain number."""
        return workers("maths", self.limit_seconds)

    def require(self, problem: ProblemLike) -> None:
        """See `Reward.require`; a gold answer that cannot be read is refused too."""
        for gold in _gold(problem):
            if plain_number(gold) is not None:
                continue
            detail = "numbers_only takes plain numbers"
            if not self.numbers_only:
                (verdict,) = self.workers.judge([(gold, [])])
                if verdict.status == "ok":
                    continue
                detail = verdict.detail
            raise ValueError(
                f"the answer must be a number or an expression in LaTeX, got {gold[:80]!r} for the problem with prompt "
                f"{problem.prompt[:80]!r}: {detail}; write it such as 42, 1/2 or \\frac{{\\pi}}{{2}}"
            )

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        values, status, causes = np.zeros(len(responses)), ["ok"] * len(responses), [""] * len(responses)
        asked: list[tuple[int, str, list[str]]] = []
        for i, (problem, text) in enumerate(zip(problems, responses.texts, strict=True)):
            golds, answers = _gold(problem), final_answers(text[-MAX_CHARS:])
            if not answers or len(answers) > MAX_ANSWERS or max(map(len, answers)) > MAX_ANSWER_CHARS:
                continue
            quick = [_compared(gold, answers, self.numbers_only) for gold in golds]
            if True in quick:
                values[i] = 1.0
            else:
                asked += [(i, gold, answers) for gold, known in zip(golds, quick, strict=True) if known is None]
        if asked:
            verdicts = self.workers.judge([item[1:] for item in asked])
            for (i, gold, _), verdict in zip(asked, verdicts, strict=True):
                values[i], status[i] = _merged(values[i], status[i], verdict, gold)
                causes[i] = verdict.detail if status[i] == "infra_fault" else ""
        return Scores(values, {self.name: values}, status, causes)


def _compared(gold: str, answers: list[str], numbers_only: bool) -> bool | None:
    """Whether all answers equal the gold one; None when only math-verify can tell."""
    wanted = plain_number(gold)
    known: set[bool | None] = set()
    for answer in answers:
        number = plain_number(answer)
        if number is not None and wanted is not None:
            known.add(number == wanted)
            continue
        equation = "=" in answer and "=" not in gold and not _ASSIGNMENT.fullmatch(answer)
        refused = numbers_only or equation or (wanted is not None and not is_one_number(answer))
        known.add(False if refused else True if answer == gold else None)
    return False if False in known else None if None in known else True


def _merged(value: float, status: str, verdict: Verdict, gold: str) -> tuple[float, str]:
    """A response's value and status after one more gold answer's verdict: right by any is right."""
    if verdict.status == "refused":
        raise ValueError(f"the answer must be a number or an expression in LaTeX, got {gold[:80]!r}: {verdict.detail}")
    if value == 1.0 or verdict.value:
        return 1.0, "ok"
    return 0.0, max(status, verdict.status, key=("ok", "model_fault", "infra_fault").index)


def _gold(problem: ProblemLike) -> list[str]:
    """The gold answers of a problem."""
    answer = problem.metadata.get("answer")
    if answer is None:
        answers = [text.strip() for text in problem.references]
    elif isinstance(answer, str):
        answers = [answer.strip()]
    elif isinstance(answer, bool) or not isinstance(answer, (int, float)) or not abs(answer) < 10**MAX_ANSWER_CHARS:
        shown = "one of more digits" if isinstance(answer, int) and not isinstance(answer, bool) else repr(answer)
        raise ValueError(
            f"metadata['answer'] must be text or a finite number of at most {MAX_ANSWER_CHARS} digits, got {shown}; "
            "write it such as '1/2'"
        )
    else:
        answers = [str(answer) if isinstance(answer, int) else format(Decimal(repr(float(answer))), "f")]
    if not answers or not all(answers):
        raise ValueError(
            f"the problem with prompt {problem.prompt[:80]!r} must have metadata['answer'] or references, got none or "
            "an empty one; say what the right answer is"
        )
    for text in answers:
        if _MISREAD.fullmatch(text):
            raise ValueError(
                f"the answer must be a number or an expression in LaTeX, got {text[:80]!r} for the problem with prompt "
                f"{problem.prompt[:80]!r}; write it with all of its digits, such as 0.0000001 or 3/2, or as \\infty"
            )
    return answers
