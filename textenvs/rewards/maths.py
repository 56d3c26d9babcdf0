"""Reward for the final answer to a maths problem: finding it is done here, comparing it in a killable process."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from importlib.util import find_spec

import numpy as np

from textenvs.rewards.base import ProblemLike, Responses, Reward, Scores
from textenvs.rewards.libraries import library
from textenvs.rewards.worker import Verdict, Workers, workers

#: Characters of a response that are looked at, and of one final answer.
MAX_CHARS, MAX_ANSWER_CHARS = 100_000, 1_000
#: More final answers than this that are spelt differently are not read at all.
MAX_ANSWERS = 4
#: A last line longer than this states no answer, unless in a box.
MAX_LINE_CHARS = 2_000

_PLAIN = re.compile(r"[-+\u2212]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]+)?(?:\s*/\s*[0-9]+)?")
_BOXES = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)
_MARKER = re.compile(r"####|\banswer\s*(?:is\b|:)|=", re.IGNORECASE)
# `x=5`, the only kind of equation that answers with what stands at its right: 41=42 does not.
_ASSIGNMENT = re.compile(r"\\?[A-Za-z]+(?:_\{?\w+\}?)?(?:\([a-z]\))?\s*=[^=]+")
_INLINE = re.compile(r"\$([^$]+)\$|\\\((.+?)\\\)")
# A number that is no part of a word or of a larger expression.
_NUMBER = re.compile(
    r"(?<![\w.,+\-*/^({\\\u2212])([-+\u2212]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:/[0-9]+)?%?)"
    r"(?![\w^*/+({\\])(?!\.[0-9])"
)


class MathAnswer(Reward):
    r"""1.0 when the response's final answer equals the gold one, else 0.0. Range [0, 1].

    The gold answer is `metadata["answer"]` (a number, or text in LaTeX), or any of the references. The final answer is
    what stands in `\boxed{}`; without one, in the last line, after its last `####`, `answer is`, `answer:` or `=`, the
    only `$...$` or the only number. Plain numbers are compared exactly, as fractions: `0.33` is not 1/3. All else is
    compared by math-verify in a process apart, which is killed at the limit (status model_fault) whatever thread asks,
    and which cannot run text as code, write, or reach a network.

    Withstands: two different answers (boxed, or behind the last marker of the last line), every option at once, another
    number or an equation between different ones in the box, towers like 9^{9^{9^9}}, thousands of parentheses, code.
    Does not withstand: a "not" before the answer. Nor, unless `numbers_only`: an expression that was left uncomputed,
    such as 3+4 for 7; 42% for 42; units, subscripts and words behind it in the box; six right decimals of a gold answer
    that is no plain number, such as 0.333333 for \frac{1}{3}.

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


def final_answers(text: str) -> list[str]:
    r"""The different final answers of a text, as it spells them: one is as it should be, none or several are wrong.

    Args:
        text: a response; time is linear in its length.
    """
    boxed = list(dict.fromkeys(_boxed(text)))
    if boxed or "\\boxed" in text:
        return [answer for answer in boxed if answer]
    line = text.rstrip().rpartition("\n")[2]
    if len(line) > MAX_LINE_CHARS:
        return []
    *_, start = [0, *(match.end() for match in _MARKER.finditer(line))]
    rest = line[start:]
    spans = [first or second for first, second in _INLINE.findall(rest)]
    if spans:
        return list(dict.fromkeys(span.strip() for span in spans))
    numbers = [match.group(1) for match in _NUMBER.finditer(rest)]
    if any(c.isdigit() for c in _NUMBER.sub("", rest)):
        return []  # a number in a larger expression: what would the answer be?
    return list(dict.fromkeys(number.replace("%", r"\%") for number in numbers))


def plain_number(text: str) -> Fraction | None:
    """The value of 7, -7, 1,000, 0.5, .5 or 1/2; None for everything else."""
    text = text.strip()
    if len(text) > MAX_ANSWER_CHARS or not text or not _PLAIN.fullmatch(text) or not any(c.isdigit() for c in text):
        return None
    numerator, _, denominator = text.replace(",", "").replace("\u2212", "-").partition("/")
    try:
        return Fraction(numerator.strip()) / Fraction(denominator.strip() or "1")
    except (ValueError, ZeroDivisionError):
        return None


def _boxed(text: str) -> list[str]:
    r"""What stands in each outermost well-formed \boxed{...}, stripped."""
    found: list[str] = []
    open_braces: list[int | None] = []  # where a box's content starts, None for another brace
    num_boxes = 0
    for match in _BOXES.finditer(text):
        token = match.group()
        if token.startswith("\\boxed"):
            open_braces.append(match.end())
            num_boxes += 1
        elif token == "{":
            open_braces.append(None)
        elif token == "}" and open_braces:
            start = open_braces.pop()
            if start is not None:
                num_boxes -= 1
                if num_boxes == 0:
                    found.append(text[start : match.start()].strip())
    return found


def _compared(gold: str, answers: list[str], numbers_only: bool) -> bool | None:
    """Whether all answers equal the gold one; None when only math-verify can tell."""
    wanted = plain_number(gold)
    known: set[bool | None] = set()
    for answer in answers:
        number = plain_number(answer)
        if number is not None and wanted is not None:
            known.add(number == wanted)
        elif numbers_only or ("=" in answer and "=" not in gold and not _ASSIGNMENT.fullmatch(answer)):
            known.add(False)
        else:
            known.add(True if answer == gold.strip() else None)
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
        answers = list(problem.references)
    elif isinstance(answer, bool) or not isinstance(answer, (str, int, float)):
        raise ValueError(f"metadata['answer'] must be a number or text, got {answer!r}; write it such as '1/2'")
    else:
        answers = [str(answer)]
    if not answers or not all(text.strip() for text in answers):
        raise ValueError(
            f"the problem with prompt {problem.prompt[:80]!r} must have metadata['answer'] or references, got none or "
            "an empty one; say what the right answer is"
        )
    return answers
