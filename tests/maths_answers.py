"""What the tests of maths answers and of their worker share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from reward_batches import responses_of

from textenvs import Problem
from textenvs.rewards.maths import MathAnswer

LIMIT = 1.0
TOWER = r"\boxed{9^{9^{9^{9}}}}"
HALVES = r"\boxed{\frac{84}{2}}"  # right, and only math-verify knows it

# One row, one rule.
# fmt: off
#: A gold answer and what is right: every format that is paid.
RIGHT: tuple[tuple[Any, tuple[str, ...]], ...] = (
    # Bare, emphasised, quoted, in parentheses, in math, in a box.
    (5, ("5", "5.", "**5**", "_5_", "***5***", "`5`", "(5)", '"5"', "$5$", "$$5$$", r"\(5\)", r"\[5\]", r"\boxed{5}",
         "= 5")),
    # Behind a marker.
    (5, ("#### 5", "Answer: 5", "**Answer:** 5", "**Answer: 5**", "The answer is **5**.", "<answer>5</answer>",
         "x = 5")),
    (5, ("$x = 5$", r"\[x = 5\]", "The answer is: $5$.", r"The final answer is $\boxed{5}$.", "The answer is x = 5.")),
    # Only the last marker counts, and chains are one answer.
    (5, ("2 + 3 = 5", "x = 2 + 3 = 5", "2 * $2 + $1 = $5", "$2 + 3 = 5$", "2 + 3 = 5, so the answer is 5",
         "x = 4. Now x = 5.")),
    # A denial in another sentence.
    (5, ("It is not 4. The answer is 5.", "The answer is 5. I hope it is correct.")),
    # Among words and units; prices; percent signs.
    (5, ("So he has 5 apples left.", "She has 5 apples!", "$5", "\\$5.00", "5 km/h", "5 \u00b0C",
         "5 dollars per hour", "5 %", "5%")),
    (5, ("5 apples are left over.", "(5 apples)", r"\boxed{5\text{ apples}}", r"\boxed{5^\circ}", "5 percent")),
    # Numbers: signs, thousands, decimals, fractions.
    (5, ("+5", "05", "5.00", "10/2", "10 / 2")),
    (1, ("1.0",)),
    (-5, ("-5", "= - 5", "\u22125", "The answer is \u20135", "\uff0d5", "(-5)", "x=-5", "$-5$", "\\boxed{\u20135}",
         r"\boxed{- 5}")),
    (1234, ("1234", "1,234", "$1,234", "1,234.00", "$1{,}234$")),
    ("1/2", ("1/2", "1 / 2", "0.5", ".5", r"$\frac{1}{2}$", r"$x = \frac{1}{2}$", r"\(x = \frac{1}{2}\)", "50%")),
    # Floats stand for all of their digits.
    (1e-7, ("0.0000001", "1/10000000")),
    (1e22, ("1" + "0" * 22,)),
)

#: A gold answer and what is wrong, with `numbers_only` too.
WRONG: tuple[tuple[Any, tuple[str, ...]], ...] = (
    # More than one number, equal ones too.
    (4, ("The answer is 4 + 4", "4 - 4", "4 and 4", "4, 4", "$4$ + $4$", "The answer is 4. So 4.", "$4$ $4$", "4 4")),
    (5, ("5 \u00d7 5", "5\u00b75", "5:5", "5-6", "4\u20136", "4 to 6", "between 4 and 6", "5; 6", "5 or 6", "5,6",
         "5 1/2", "5/5/1")),
    # Two answers in a sentence.
    (6, ("cost = 5, gain = 6", "cost = 5 and gain = 6", "cost = 5; gain = 6")),
    (6, ("x = 5 or x = 6", "x = 5, x = 6", "x = 5 and x = 6", "x = 5; x = 6", "$x=5$ or $x=6$", "x = 5 x = 6",
         "x=5,x=6", "$x=5$, $x=6$", "5 = x or x = 6")),
    (6, ("answer: 5 answer: 6", "#### 5 #### 6", "x = 5, x = 4 + 2 = 6", "Either x = 5 or it = 6",
         r"x = 5 \lor x = 6")),
    # Signs, operators and relations around the number.
    (5, ("= - 5", "\u20135", "\uff0d5", "-(5)", "-$5", "\u20145", "\u00b15", "--5", "+-5", "~5", "\u22485", "<5",
         "5+", "5 -", "5*", "*5")),
    (5, ("x > 5", "x >= 5", "x != 5", "x \u2260 5", "x \u2265 5", r"x \ne 5", r"x \not= 5", "x == 5", "x \u2208 5",
         "10 | 5", "\u00ac5")),
    (5, ("\u221a5", "5!", "5 !", "5?", "5^2", "5**2", "5\u00b2", "5\u00bd", "5\u2044x", "|5|", "\u230a5\u230b",
         "5e0", "5...", "5\u2026", "5/0")),
    (-5, ("x - 5", "x -5", "x\u20135", "10-5", "10 -5", "- -5", "minus 5", "negative 5")),
    # Lists, intervals, functions, variables, other digits.
    (5, ("[5]", "{5}", "(5,)", "(5, x)", "area(5)", "sqrt(5)", "5(x)", "5x", "5 x", "x 5", "5\u03c0", "a_5", "5_a",
         "\uff15", "\u0665", "5\u200b")),
    (5, ("$-$5", "$5$$^2$", r"5 \times 2", r"\sqrt{5}", r"$\sqrt{5}$", "$5!$", "$x > 5$", r"$x \ne 5$", r"2\(5\)",
         r"\(5\)^2")),
    # Words: denials, arithmetic, numerals.
    (5, ("not 5", "NOT 5", "isn't 5", "isn\u2019t 5", "5 is wrong", "no, 5", "It is false that x = 5",
         "the answer isn't: 5")),
    (5, ("minus 5", "two times 5", "5 plus two", "5 squared", "square root of 5", "at least 5", "more than 5",
         "5 or so", "about 5")),
    (5, ("5 is impossible", "unless 5", "5 in base six", "the reciprocal of 5", "the square of 5", "5 K", "NEITHER 5")),
    (5, ("5 million", "5 to six", "5 and a half", "five 5", "5 hundred", "5 thirds", "5 dozen")),
    # Thousands and decimals are English; no mixed numbers, no one-sign fractions.
    (1234, ("1.234", "12,34", "1 234", "1'234", "1.234,0", "0,1234")),
    ("1.234", ("1,234",)),
    (500, ("0,500",)),
    ("3/2", ("1 1/2", "1\u00bd", "1-1/2")),
    ("1/2", ("1 1/2", "\u00bd")),
    # In a box.
    (5, (r"\boxed{5", r"\boxed 5", r"\boxed{5}\boxed{6}", r"\boxed{5,5}", r"\boxed{\{5,5\}}", r"\boxed{[5]}",
         r"\boxed{5_6}")),
    (5, (r"\boxed{5\text{ not}}", r"\boxed{5\text{ or more}}", r"\boxed{5\text{ million}}", r"\boxed{5\pm 0}",
         r"\boxed{x>5}")),
    (5, ("\\boxed{\u20135}", "\\boxed{\u221a5}", r"\boxed{5!}", r"\boxed{5'}", r"\boxed{5\ldots}", r"\boxed{5?}",
         r"\boxed{\ne 5}")),
    (1e-7, ("e-7", r"\boxed{e-7}")),
)
# fmt: on


def judged(gold: Any, *texts: str, **options: Any) -> list[tuple[float, str]]:
    reward, problem = MathAnswer(limit_seconds=LIMIT, **options), Problem("q", (), {"answer": gold})
    reward.require(problem)
    scores = reward([problem] * len(texts), responses_of(texts))
    return list(zip(scores.values.tolist(), scores.status, strict=True))


def values(gold: Any, *texts: str, **options: Any) -> list[float]:
    return [value for value, _ in judged(gold, *texts, **options)]


def children() -> set[int]:
    """Process ids of this process's children, zombies included."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(stat.parent.name))
        except OSError:
            continue
    return found
