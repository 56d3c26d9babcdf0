"""The one strict reader of JSON that somebody else wrote: a model's response, a program's answer, a line of a file."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)


@dataclass(frozen=True)
class JsonLimits:
    r"""How much JSON is read.

    Attributes:
        num_bytes: of the text as UTF-8.
        depth: containers inside of containers.
        values: objects, lists and their members in all.
        digits: characters of a number; reading an integer costs quadratic time.
        surrogates: whether a text in it may hold half of a character, spelt `\ud800`.
    """

    num_bytes: int = 256 * 1024
    depth: int = 64
    values: int = 50_000
    digits: int = 1_000
    surrogates: bool = False


#: Of a response.
DOCUMENT = JsonLimits()
#: Of a line in a file: a long text, or a problem with its hidden tests. Half a character may be in a saved response.
JSON_LINE = JsonLimits(num_bytes=16 << 20, depth=128, values=1 << 20, digits=4_000, surrogates=True)


def read_json(text: str, limits: JsonLimits = DOCUMENT) -> Any:
    """The value of a JSON text (RFC 8259), by the strict reading of everything that it leaves open.

    Refused beside what is no JSON: duplicate keys, NaN and Infinity, a number beyond double precision (1e999), lone
    surrogates, and what is beyond the limits.

    Args:
        text: the whole of it.
        limits: those of a response, unless others are given.

    Raises:
        ValueError: says what is wrong and where: as line and column where it is no JSON, else as a JSON pointer
            (RFC 6901) such as '/cases/0/args'.
    """
    _check_size(text, limits)
    if text.count("[") + text.count("{") > limits.depth or text.count(",") > limits.values // 2:
        _check_shape(text, limits)  # before the recursive parser sees it
    refused: list[_Refused] = []

    def refuse(why: str) -> _Refused:
        refused.append(_Refused(why))
        return refused[-1]

    def members(pairs: list[tuple[str, Any]]) -> Any:
        value = dict(pairs)
        if len(value) == len(pairs):
            return value
        ((key, count),) = Counter(key for key, _ in pairs).most_common(1)
        return refuse(f"a JSON object must have each key once, got {key[:80]!r} {count} times")

    def number(kind: Callable[[str], float]) -> Callable[[str], Any]:
        def read(digits: str) -> Any:
            if len(digits) > limits.digits:
                return refuse(f"a JSON number must have at most {limits.digits:,} digits, got {len(digits):,}")
            value = kind(digits)
            return refuse(f"a JSON number must be finite, got {digits[:20]}") if value in _INFINITIES else value

        return read

    def constant(name: str) -> _Refused:
        return refuse(f"a JSON number must be finite, got {name}")

    try:
        value = json.loads(
            text, object_pairs_hook=members, parse_constant=constant, parse_float=number(float), parse_int=number(int)
        )
    except RecursionError:  # of a caller that is near Python's own limit
        raise ValueError("a JSON text must have fewer levels") from None
    if refused or (not limits.surrogates and "\\u" in text and not _is_unicode(json.dumps(value, ensure_ascii=False))):
        why, path = _fault(value, limits) or ("", "")
        raise ValueError(f"{why}, at {path!r:.200}" if path else why)
    return value


_INFINITIES = (math.inf, -math.inf)


@dataclass(frozen=True)
class _Refused:
    """Stands in a value, while it is read, for what is not allowed there."""

    why: str


def _check_size(text: str, limits: JsonLimits) -> None:
    try:
        num_bytes = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        raise ValueError(
            f"a JSON text must be valid Unicode, got a lone surrogate as character {error.start + 1}"
        ) from None
    if num_bytes > limits.num_bytes:
        raise ValueError(f"a JSON text must be at most {limits.num_bytes:,} bytes, got {num_bytes:,}")


def _check_shape(text: str, limits: JsonLimits) -> None:
    """Depth and number of values of a text, from its punctuation; linear, and right wherever it is JSON."""
    depth = num_values = 0
    for match in _TOKENS.finditer(text):
        token = match.group()
        if token in "[{":
            depth += 1
        elif token in "]}":
            depth -= 1
        num_values += token in "[{,"
        if depth > limits.depth:
            raise ValueError(
                f"a JSON text must have at most {limits.depth} levels, got more, at character {match.start() + 1}"
            )
    if num_values >= limits.values:
        raise ValueError(f"a JSON text must have at most {limits.values:,} values, got more")


def _fault(value: Any, limits: JsonLimits) -> tuple[str, str] | None:
    """The first thing in a value that is not allowed, and the JSON pointer to it."""
    if isinstance(value, _Refused):
        return value.why, ""
    if isinstance(value, str) and not limits.surrogates and not _is_unicode(value):
        return "a JSON text must be valid Unicode, got an escaped lone surrogate", ""
    members = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    for step, item in members:
        if (found := _fault(step, limits) or _fault(item, limits)) is not None:
            return found[0], "/" + str(step)[:80].replace("~", "~0").replace("/", "~1") + found[1]
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
