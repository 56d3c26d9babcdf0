"""Where a text says its final answer, and what a plain number is; comparing answers is done in `maths`."""

from __future__ import annotations

import re
from fractions import Fraction

#: Characters of one final answer.
MAX_ANSWER_CHARS = 1_000
#: A last line longer than this states no answer, unless in a box.
MAX_LINE_CHARS = 2_000

#: Signs that look like a minus: hyphens, figure dash, en dash, minus, small and full width; not the em dash.
_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-"))
_UNSIGNED = r"(?=\.?[0-9])(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]+)?(?:\s*/\s*[0-9]+)?"
_PLAIN = re.compile(rf"[-+]?\s*{_UNSIGNED}")

_BOXES = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)
# `>=` and `!=` are no equality, and say nothing of what the answer is.
_MARKER = re.compile(r"####|\banswer\s*(?:is\b|:)|(?<![<>!~=:/+*^-])(?<!\\not)=(?!=)", re.IGNORECASE)
_EMPHASIS = re.compile(r"(?<![A-Za-z0-9*_`])([*_`]{1,3})(?=\S)([^*_`]+)(?<=\S)\1(?![A-Za-z0-9*_`])")
_TAG = re.compile(r"</?answer>")
_DIGIT = re.compile(r"\d")
_SENTENCE_END = re.compile(r"[.!?]\s")

# As in Pandoc: no space inside of the dollars and no digit behind them, which are prices.
_MATH = r"\$(?!\s)([^$]+)(?<!\s)\$(?![0-9])|\\\((.+?)\\\)|\\\[(.+?)\\\]"
_SPAN = re.compile(_MATH)
# A sign stands at the very start, or behind a space and before its digits: `x - 5` has none.
_TOKEN = re.compile(
    rf"{_MATH}|((?:\A\s*[-+]\s*|(?<![^\s($])[-+])?(?<![\w.,)/]){_UNSIGNED})(\s*(?:\\?%|percent\b))?(?![\w/^(]|[.,][0-9])"
)
# What may stand around the one number: words, units and the signs of a sentence, but no operator and no digit.
_PROSE = re.compile(
    r"(?:[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u00ff]|(?<=[A-Za-z])(?:!|[-/](?=[A-Za-z]))|\.(?!\.)"
    r"|(?<![A-Za-z)])\(|\)(?![A-Za-z(])|\\\$|,(?!\s*\))|[\s:;'\"\u2018\u2019\u201c\u201d$\u20ac\u00a3\u00b0])*"
)
_VARIABLE = re.compile(r"(?<![\w'\u2019])[b-fi-kn-rt-zBDEGHJKM-Z](?!\w)")  # one letter, and no unit or article

_DENIALS = r"not|never|cannot|neither|nor|or|wrong|incorrect|false|untrue|invalid|impossible|[a-z]+n['\u2019]t"
_NUMERALS = (
    r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|[a-z]+teen|(?:twen|thir|for|fif|six|seven|eigh"
    r"|nine)ty|hundred|thousand|million|[bt]rillion|dozen|half|third|fourth|fifth|sixth|eighth|tenth|quarter|double"
    r"|triple)s?|zero|halves|once|twice"
)
_ARITHMETIC = (
    r"plus|minus|negative|times|divided|multiplied|(?<!left )over|under|above|below|squared|cubed|roots?|sqrt|power"
    r"|exponent|factorial|log|ln|sin|cos|tan|mod|modulo|than|least|most|almost|nearly|about|around|approximately"
    r"|roughly|except|without|unless|but|instead|unlike|exceeds|no|base|reciprocal|inverse|opposite"
    r"|(?:square|cube)(?= of)"
)
_DENIED = re.compile(rf"(?<![\\A-Za-z])(?:{_DENIALS})(?![A-Za-z])", re.IGNORECASE)
_CHANGED = re.compile(rf"(?<![\\A-Za-z])(?:{_DENIALS}|{_NUMERALS}|{_ARITHMETIC})(?![A-Za-z])", re.IGNORECASE)
_JOINED = re.compile(r",(?![0-9])|[;|\u2228]|\\(?:lor|vee|quad|qquad)\b|\b(?:and|but)\b", re.IGNORECASE)
# In a box: a list, a set, an interval, a subscript, a prime, two signs, or dots.
_SEVERAL = re.compile(r"(?<!\\),(?!\}?[0-9]{3}(?![0-9]))|[;_'\[\]]|\\[{}]|\\(?:pm|mp|[lc]?dots|prime|quad|qquad)\b")


def final_answers(text: str) -> list[str]:
    r"""The final answers of a text, as it spells them: one is as it should be, none or several different are wrong.

    What stands in `\boxed{}` counts, wherever it is, and nothing else if there is any. Without one it is the last line,
    behind its last `####`, `answer is`, `answer:` or `=`: one `$...$`, `\(...\)`, `\[...\]` or number in all, even if
    another is equal to it, among words and units, without an operator, a relation, a numeral or a word that changes or
    denies it. A sentence with two answers has none: `x = 5, y = 6`, but `x = 2 + 3 = 5` is one. Emphasis (`**5**`,
    `_5_`), quotes and parentheses around the answer are not of it.

    Args:
        text: a response; time is linear in its length.
    """
    text = text.translate(_DASHES)
    boxed = list(dict.fromkeys(_boxed(text)))
    if boxed or "\\boxed" in text:
        return [answer for answer in boxed if answer]
    line = text.rstrip().rpartition("\n")[2]
    if len(line) > MAX_LINE_CHARS:
        return []
    line = _EMPHASIS.sub(r"\2", _TAG.sub(" ", line))
    rest = _behind_the_last_marker(line)
    tokens = [] if rest is None else list(_TOKEN.finditer(rest))
    if rest is None or len(tokens) != 1:
        return []
    (token,) = tokens
    around = f"{rest[: token.start()]}\n{rest[token.end() :]}"
    span = token[1] or token[2] or token[3] or ""
    if not _PROSE.fullmatch(around) or _VARIABLE.search(around) or _CHANGED.search(around):
        return []
    return [span.strip() or token[4].strip() + (r"\%" if token[5] else "")]


def _behind_the_last_marker(line: str) -> str | None:
    """What the line says last; None where that is one of several answers, or denied."""
    markers = list(_MARKER.finditer(line))
    if not markers:
        return line
    last, start = markers[-1].start(), markers[-1].end()
    sentence = max([0, *(match.end() for match in _SENTENCE_END.finditer(line, 0, last))])
    markers = [marker for marker in markers if marker.start() >= sentence]
    stated = [marker for marker in markers if marker[0] != "="]
    if _DENIED.search(line, sentence, last) or (stated and _DIGIT.search(line, stated[0].end(), stated[-1].start())):
        return None
    chain = line[stated[-1].end() if stated else markers[0].end() : last]
    if _JOINED.search(chain) or (_DIGIT.search(chain) and _VARIABLE.search(chain)):
        return None
    for span in _SPAN.finditer(line):
        if span.start() < start < span.end():
            return span[0][: 1 if span[1] else 2] + line[start:].lstrip()
    return line[start:]


def is_one_number(answer: str) -> bool:
    """Whether nothing in a LaTeX answer makes another number, or several, of it; what that number is, is not asked."""
    return answer.isascii() and not _CHANGED.search(answer) and not _SEVERAL.search(answer.rpartition("=")[2])


def plain_number(text: str) -> Fraction | None:
    """The value of 7, -7, 1,000, 0.5, .5 or 1/2; None for everything else."""
    text = text.strip().translate(_DASHES)
    if len(text) > MAX_ANSWER_CHARS or not _PLAIN.fullmatch(text):
        return None
    numerator, _, denominator = "".join(text.replace(",", "").split()).partition("/")
    try:
        return Fraction(numerator) / Fraction(denominator or "1")
    except ZeroDivisionError:
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
