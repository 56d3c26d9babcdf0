"""Rewards for JSON: strictly valid, equal to a value, conforming to a schema."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import numpy as np

from textenvs.rewards.base import ProblemLike, Responses, Reward, Scores
from textenvs.rewards.checkers import BACK_REFERENCE, LOOK_AROUND
from textenvs.rewards.libraries import library
from textenvs.rewards.worker import Workers, workers
from textenvs.strict_json import read_json

#: Limits of a schema: UTF-8 bytes, subschemas once every $ref is followed, wall time to compile and try it.
MAX_SCHEMA_BYTES, MAX_SUBSCHEMAS, SCHEMA_SECONDS = 64 * 1024, 100_000, 0.8


def same_json(value: Any, expected: Any, tolerance: float | None = None) -> bool:
    """Whether two JSON values are equal with equal types at every level: 1 is not 1.0 and not true, NaN equals nothing.

    Args:
        value: of the response.
        expected: what it should be; the order of keys is free.
        tolerance: numbers x and y are equal when |x - y| <= tolerance * max(1, |y|), whatever their type; None: exact.
    """
    numbers = (int, float)
    if tolerance is not None and type(value) in numbers and type(expected) in numbers:
        try:
            return bool(abs(value - expected) <= tolerance * max(1.0, abs(expected)))
        except OverflowError:  # an int beyond every float
            return bool(value == expected)
    if type(value) is not type(expected):
        return False
    if isinstance(expected, list):
        pairs = zip(value, expected, strict=False)
        return len(value) == len(expected) and all(same_json(a, b, tolerance) for a, b in pairs)
    if isinstance(expected, dict):
        return value.keys() == expected.keys() and all(same_json(value[k], expected[k], tolerance) for k in expected)
    return bool(value == expected)


class ValidJson(Reward):
    """1.0 when the whole response is strictly valid JSON (see `read_json`), else 0.0. Range [0, 1].

    Withstands: JSON with anything before or after it, duplicate keys, NaN, 1e999, deep or huge documents.
    Does not withstand: `0`, `[]` or any other JSON, whatever was asked; use `JsonSchema` or `JsonMatch` for that.
    """

    name = "json"
    value_range = (0.0, 1.0)

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        values = np.zeros(len(responses))
        for i, text in enumerate(responses.texts):
            try:
                read_json(text)
            except ValueError:
                continue
            values[i] = 1.0
        return Scores(values, {self.name: values})


class JsonMatch(Reward):
    """1.0 when the response is JSON of exactly the expected value, else 0.0. Range [0, 1].

    The value is `metadata["expected"]`, or what one of the references spells. Key order and white space are free; types
    are not: true is not 1, 1 is not 1.0, "1" is not 1. Numbers are compared as Python reads them: -0 is 0, and 1e-400,
    which is below double precision, is 0.0.

    Withstands: what `ValidJson` withstands, the value with anything before, after or inside it, several values.
    """

    name = "json_match"
    value_range = (0.0, 1.0)

    def require(self, problem: ProblemLike) -> None:
        """See `Reward.require`."""
        _expected(problem)

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        values = np.zeros(len(responses))
        for i, (problem, text) in enumerate(zip(problems, responses.texts, strict=True)):
            expected = _expected(problem)
            try:
                value = read_json(text)
            except ValueError:
                continue
            values[i] = float(any(same_json(value, one) for one in expected))
        return Scores(values, {self.name: values})


class JsonSchema(Reward):
    """1.0 when the response is strictly valid JSON and conforms to the schema, else 0.0. Range [0, 1].

    The schema is the argument, or `metadata["schema"]`: JSON Schema, drafts 4 to 2020-12. It is looked at when the task
    is built: one that is invalid, refers to a file or a network, or explodes is refused. Documents are judged in a
    process that is killed at the limit (status model_fault).

    `format` is checked, in every draft, where the library knows its name ("date", "email", "uuid", ...). An unknown
    keyword is an annotation, as JSON Schema has it, unless it looks like a misspelt one: `tpye` is refused, `x-tpye` is
    not.

    Withstands: what `ValidJson` withstands, documents made to be slow (thousands of objects under uniqueItems).
    Does not withstand: the smallest document that the schema allows; `{}` where it requires nothing; any text where a
    format's name is not known.

    Source: jsonschema-rs; its regular expressions are the linear-time kind, without back-references and look-around.

    Args:
        schema: a JSON Schema (an object or a bool) for all problems; None takes `metadata["schema"]`.
        limit_seconds: wall time for one response, in (0, 60].
    """

    name = "json_schema"
    value_range = (0.0, 1.0)

    def __init__(self, *, schema: Any = None, limit_seconds: float = 2.0) -> None:
        if (
            isinstance(limit_seconds, bool)
            or not isinstance(limit_seconds, (int, float))
            or not 0 < limit_seconds <= 60
        ):
            raise ValueError(f"limit_seconds must be a number in (0, 60], got {limit_seconds!r}; the usual one is 2")
        library("jsonschema_rs", self.name)
        self.limit_seconds, self._schema = float(limit_seconds), schema
        if schema is not None:
            self._check(schema)

    @property
    def workers(self) -> Workers:
        """The processes that validate."""
        return workers("schema", self.limit_seconds)

    def require(self, problem: ProblemLike) -> None:
        """See `Reward.require`."""
        if self._schema is None:
            self._check(self._schema_of(problem))

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        values, status, causes = np.zeros(len(responses)), ["ok"] * len(responses), [""] * len(responses)
        rows, items = [], []
        for i, (problem, text) in enumerate(zip(problems, responses.texts, strict=True)):
            schema = _schema_text(self._schema_of(problem))
            try:
                read_json(text)
            except ValueError:
                continue
            rows.append(i)
            items.append((schema, text))
        if items:
            verdicts = self.workers.judge(items)
            for i, verdict in zip(rows, verdicts, strict=True):
                if verdict.status == "refused":
                    raise ValueError(f"schema must be a usable JSON Schema, got one that is not: {verdict.detail}")
                values[i], status[i], causes[i] = float(verdict.value or 0.0), verdict.status, verdict.detail
        return Scores(values, {self.name: values}, status, causes)

    def _schema_of(self, problem: ProblemLike) -> Any:
        schema = problem.metadata.get("schema") if self._schema is None else self._schema
        if schema is None:
            raise ValueError(
                f"the problem with prompt {problem.prompt[:80]!r} must have metadata['schema'], got none; "
                "give it one, or one to JsonSchema(schema=...)"
            )
        return schema

    def _check(self, schema: Any) -> None:
        text = _schema_text(schema)
        _check_keywords(schema)
        if (size := num_subschemas(json.loads(text))) > MAX_SUBSCHEMAS:
            raise ValueError(
                f"schema must have at most {MAX_SUBSCHEMAS:,} subschemas once every $ref is followed, got {size:,}; "
                "it explodes: let fewer subschemas refer to the same one"
            )
        (verdict,) = self.workers.judge([(text, None)], SCHEMA_SECONDS)
        if verdict.status != "ok":
            detail = verdict.detail.splitlines()[0]
            headline = "a valid JSON Schema"
            if 'is not a "regex"' in detail:
                look = re.search(r"\(\?<?[=!]", detail)
                back = re.search(r"\\[1-9]|\\k<|\(\?P=", detail)
                detail += f"; {LOOK_AROUND if look else BACK_REFERENCE if back else 'see docs.rs/regex'}"
            elif re.search("etriev|exist|meta-schema", detail):
                headline = "a JSON Schema that refers to nothing outside of itself"
            raise ValueError(f"schema must be {headline}, got {str(schema)[:80]!r}: {detail}")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MAPS_OF_SCHEMAS = _words("properties patternProperties $defs definitions dependentSchemas dependencies")
_SCHEMAS = _words(
    "allOf anyOf oneOf prefixItems items additionalItems not if then else contains propertyNames additionalProperties "
    "unevaluatedItems unevaluatedProperties contentSchema"
)
_OTHER_KEYWORDS = _words(
    "$schema $id id $ref $anchor $dynamicRef $dynamicAnchor $recursiveRef $recursiveAnchor $vocabulary $comment type "
    "enum const multipleOf maximum exclusiveMaximum minimum exclusiveMinimum maxLength minLength pattern maxItems "
    "minItems uniqueItems maxContains minContains maxProperties minProperties required dependentRequired format "
    "contentEncoding contentMediaType title description default deprecated readOnly writeOnly examples"
)
#: Keywords of drafts 4 to 2020-12, and annotations in use that look like one of them.
_KEYWORDS = _MAPS_OF_SCHEMAS | _SCHEMAS | _OTHER_KEYWORDS | _words("example comment defs")


def _check_keywords(schema: Any, path: str = "") -> None:
    """Refuse a keyword that is none, but close to one: it would check nothing."""
    if isinstance(schema, list):
        for i, item in enumerate(schema):
            _check_keywords(item, f"{path}/{i}")
    if not isinstance(schema, dict):
        return
    for word, value in schema.items():
        if word in _MAPS_OF_SCHEMAS and isinstance(value, dict):
            for name, item in value.items():
                _check_keywords(item, f"{path}/{word}/{name}")
        elif word in _SCHEMAS:
            _check_keywords(value, f"{path}/{word}")
        elif word not in _KEYWORDS and (close := _close_keyword(word)) is not None:
            raise ValueError(
                f"schema must be made of keywords of JSON Schema, got {word!r} at {path or '/'!r}; did you mean "
                f"{close!r}? if it is an annotation of your own, name it {'x-' + word!r}"
            )


@lru_cache(maxsize=1 << 10)
def _close_keyword(word: str) -> str | None:
    """The keyword of at least 4 letters that a word is most likely to be meant as: any other is close to something."""
    long = [keyword for keyword in sorted(_KEYWORDS) if len(keyword) > 3]
    same = [keyword for keyword in long if keyword.lower() == word.lower()]
    return next(iter(same or get_close_matches(word, long, n=1, cutoff=0.75)), None)


def num_subschemas(schema: Any) -> int:
    """Objects and arrays in a schema with every local $ref replaced by what it refers to; a recursive one counts once.

    Counted by dynamic programming, so 2^24 of them take no time.
    """
    known: dict[int, int] = {}

    def count(node: Any) -> int:
        if not isinstance(node, (dict, list)):
            return 0
        if id(node) not in known:
            known[id(node)] = 1  # while it is being counted, so that recursion ends
            total = 1 + sum(map(count, node.values() if isinstance(node, dict) else node))
            if isinstance(node, dict) and isinstance(node.get("$ref"), str):
                total += count(_target(schema, node["$ref"]))
            known[id(node)] = total
        return known[id(node)]

    try:
        return count(schema)
    except RecursionError:
        return MAX_SUBSCHEMAS + 1  # a chain of hundreds of $ref


def _target(schema: Any, reference: str) -> Any:
    """What a JSON pointer in the schema leads to; None for every other kind of reference."""
    node = schema
    for part in reference.partition("#")[2].split("/")[1:]:
        part = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict):
            node = node.get(part)
        elif isinstance(node, list) and part.isdecimal() and len(part) < 6 and int(part) < len(node):
            node = node[int(part)]
        else:
            return None
    return node if reference.startswith("#") else None


def _schema_text(schema: Any) -> str:
    if not isinstance(schema, (dict, bool)):
        raise ValueError(f"schema must be an object or a bool, got {type(schema).__name__}; see json-schema.org")
    try:
        text = json.dumps(schema, allow_nan=False)
        read_json(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"schema must be JSON, got {str(schema)[:80]!r}: {error}") from None
    if len(text) > MAX_SCHEMA_BYTES:
        raise ValueError(f"schema must be at most {MAX_SCHEMA_BYTES:,} bytes of JSON, got {len(text):,}; cut it down")
    return text


def _expected(problem: ProblemLike) -> tuple[Any, ...]:
    """The values that count as right."""
    if "expected" in problem.metadata:
        return (problem.metadata["expected"],)
    if not problem.references:
        raise ValueError(
            f"the problem with prompt {problem.prompt[:80]!r} must have metadata['expected'] or a reference in JSON, "
            "got neither; say what the right value is"
        )
    return tuple(_reference_value(text) for text in problem.references)


@lru_cache(maxsize=1 << 14)
def _reference_value(text: str) -> Any:
    try:
        return read_json(text)
    except ValueError as error:
        raise ValueError(f"a reference must be valid JSON, got {text[:80]!r}: {error}") from None
