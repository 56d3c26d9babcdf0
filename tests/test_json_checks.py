"""JSON: what is strictly valid, what is equal, what conforms, and what is refused before it costs anything."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reward_batches import responses_of

from textenvs import Problem
from textenvs.rewards.json_checks import (
    JsonMatch,
    JsonSchema,
    ValidJson,
    num_subschemas,
    same_json,
)
from textenvs.strict_json import DOCUMENT, JsonLimits, read_json

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
#: Not to be accepted, and why.
BAD = {
    '{"a":1,"a":2}': "key once",
    '{"a":{"b":1,"\\u0062":1}}': "key once",
    "NaN": "finite",
    "[Infinity]": "finite",
    "-Infinity": "finite",
    "1e999": "finite",
    "-1e400": "finite",
    "1" * 1001: "digits",
    "1." + "0" * 1000: "digits",
    '"\\ud800"': "surrogate",
    '"\ud800"': "surrogate",
    "[" * 65 + "]" * 65: "64 levels",
    '{"a":' * 65 + "1" + "}" * 65: "64 levels",
    "[" * 200_000: "64 levels|bytes",
    "[" + "0," * DOCUMENT.values + "0]": "50,000 values",
    '"' + "x" * 256 * 1024 + '"': "bytes",
    '"' + "\u20ac" * 90_000 + '"': "bytes",
    "": "Expecting value",
    " ": "Expecting value",
    "01": "Extra data",
    "+1": "Expecting",
    "[1,]": "Expecting",
    '{"a":1} {"a":1}': "Extra data",
    '{"a":1}x': "Extra data",
    "```json\n{}\n```": "Expecting",
    "{'a':1}": "Expecting",
    '"\t"': "control",
    "\ufeff1": "BOM",
    "\u0661": "Expecting",
    "\x0b1": "Expecting",
    "True": "Expecting",
    '"' + "\\" * 99_999: "[Uu]nterminated|escape",
}


@pytest.mark.parametrize("text", BAD, ids=lambda text: ascii(text[:12]))
def test_what_is_not_json(text: str) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match=BAD[text]):
        read_json(text)
    assert time.process_time() - start < 0.5


def test_what_is_json() -> None:
    assert read_json(' {"a": [1.5e3, true, null, "\\ud83d\\ude00"]}\n') == {"a": [1500.0, True, None, "\U0001f600"]}
    deep = read_json("[" * 64 + "]" * 64)
    assert json.dumps(deep).count("[") == 64
    assert read_json('"' + "[{" * 100 + '"') == "[{" * 100  # brackets in a string are no levels
    assert len(read_json("[" + "0," * (DOCUMENT.values - 2) + "0]")) == DOCUMENT.values - 1


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"a": [1, {"b": 1, "b": 2}]}', "got 'b' 2 times, at '/a/1'"),
        ('{"a": {"c~/d": NaN}}', "got NaN, at '/a/c~0~1d'"),
        ("[0, -1e999]", "got -1e999, at '/1'"),
        ("[[" + "1" * 1001 + "]]", "at most 1,000 digits, got 1,001, at '/0/0'"),
        ('[1, {"\\udc00": 1}]', r"an escaped lone surrogate, at '/1/\\udc00'"),
        ('["a", "\\ud83d"]', "an escaped lone surrogate, at '/1'"),
        ('["\ud83d"]', "got a lone surrogate as character 3"),
        ('"a' + "[" * 65 + '"' + "[" * 65, r"at most 64 levels, got more, at character 133|Extra data: .*char 68"),
        ("[1,\n2,}", r"line 2 column 3 \(char 6\)"),
        ("NaN", "got NaN$"),
    ],
)
def test_an_error_names_the_place(text: str, place: str) -> None:
    with pytest.raises(ValueError, match=place):
        read_json(text)


def test_limits_are_those_asked_for() -> None:
    small = JsonLimits(num_bytes=12, depth=2, values=3, digits=2, surrogates=True)
    assert read_json('[["\\ud800"]]', small) == [["\ud800"]]
    for text, words in {
        '"' + "x" * 12 + '"': "12 bytes",
        "[[[]]]": "2 levels",
        "[0,0,0]": "3 values",
        "123": "2 digits",
    }.items():
        with pytest.raises(ValueError, match=words):
            read_json(text, small)
    with pytest.raises(ValueError, match="key once, got 'a'"):
        read_json('{"a":1,"a":2}', JsonLimits(surrogates=True))


def test_what_is_refused_is_refused_as_quickly() -> None:
    start = time.process_time()
    for text in (
        "{" + ",".join(f'"{i}":0' for i in range(20_000)) + ',"19999":0}',
        '{"a":' * 60 + "[" + "0," * 40_000 + "NaN]" + "}" * 60,
        "[" + ",".join(['{"a":0,"a":0}'] * 10_000) + "]",
    ):
        with pytest.raises(ValueError, match=r"key once|finite"):
            read_json(text)
    assert time.process_time() - start < 1


@given(value=VALUES)
def test_every_value_survives(value: Any) -> None:
    try:
        text = json.dumps(value)
        text.encode()
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    assert same_json(read_json(text), value)


def test_equality_is_type_exact() -> None:
    pairs = [
        (1, True),
        (0, False),
        (1, 1.0),
        ("1", 1),
        (None, 0),
        ([], {}),
        ([1, 2], [2, 1]),
        ({"a": 1}, {"a": 1, "b": 2}),
    ]
    pairs += [([1], [True]), ({"a": 1}, {"a": 1.0}), ([1], [1, 1]), ({"a": None}, {})]
    for a, b in pairs:
        assert not same_json(a, b)
        assert not same_json(b, a)
        assert same_json(a, a)
    assert same_json({"a": 1, "b": [True, None]}, {"b": [True, None], "a": 1})


def scored(reward: Any, problem: Problem, *texts: str) -> list[float]:
    reward.require(problem)
    return [float(value) for value in reward([problem] * len(texts), responses_of(texts)).values]


def test_valid_json() -> None:
    assert scored(ValidJson(), Problem("q"), "{}", "0", "", "{} {}", "{", *BAD) == [1, 1, 0, 0, 0] + [0] * len(BAD)


def test_json_match() -> None:
    problem = Problem("q", (), {"expected": {"name": "Ann", "age": 1}})
    right = ['{"name":"Ann","age":1}', ' { "age" : 1, "name" : "\\u0041nn" } ']
    wrong = [
        *('{"name":"Ann","age":true}', '{"name":"Ann","age":1.0}', '{"name":"Ann","age":"1"}', '{"name":"Ann"}', ""),
        *('{"name":"Ann","age":1,"x":0}', '{"name":"Bob","name":"Ann","age":1}', '[{"name":"Ann","age":1}]'),
        *('{"name":"Ann","age":1}{"name":"Ann","age":1}', 'Here: {"name":"Ann","age":1}', "null"),
    ]
    assert scored(JsonMatch(), problem, *right, *wrong) == [1, 1] + [0] * len(wrong)
    assert scored(JsonMatch(), Problem("q", ("[1]", "[2]")), "[2]", "[ 1 ]", "[1, 2]") == [1, 1, 0]
    assert scored(JsonMatch(), Problem("q", (), {"expected": None}), "null", "0", "") == [1, 0, 0]


@pytest.mark.parametrize(
    ("problem", "words"),
    [(Problem("q"), "must have metadata\\['expected'\\]"), (Problem("q", ("{",)), "a reference must be valid JSON")],
)
def test_nothing_to_match(problem: Problem, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        JsonMatch().require(problem)


@given(text=st.text(max_size=30), pad=st.text(min_size=1, max_size=6))
def test_padding_never_pays(text: str, pad: str) -> None:
    value, padded = scored(JsonMatch(), Problem("q", ('{"a":1}',)), text, text + pad)
    assert value in (0, 1)
    assert padded <= value or not pad.strip(" \t\r\n")


def test_conforming() -> None:
    texts = {
        '{"name":"Ann","age":3}': 1,
        '{"name":"Ann"}': 0,
        '{"name":"Ann","age":-1}': 0,
        '{"name":"Ann","age":true}': 0,
    }
    texts |= {'{"name":"Ann","age":3,"x":1}': 0, "": 0, "{}": 0, '{"name":"A","name":"B","age":3}': 0}
    assert scored(JsonSchema(), Problem("q", (), {"schema": PERSON}), *texts) == list(texts.values())
    assert scored(JsonSchema(schema=PERSON), Problem("q"), *texts) == list(texts.values())
    assert scored(JsonSchema(schema={"pattern": "^(a+)+$"}), Problem("q"), '"aaa"', f'"{"a" * 9999}b"') == [1, 0]


@pytest.mark.parametrize(
    "draft", ["", "http://json-schema.org/draft-04/schema#", "http://json-schema.org/draft-07/schema#"]
)
def test_formats_are_checked_in_every_draft(draft: str) -> None:
    schema = {"type": "string", "format": "date"} | ({"$schema": draft} if draft else {})
    assert scored(JsonSchema(schema=schema), Problem("q"), '"2024-02-29"', '"2023-02-29"', '"soon"') == [1, 0, 0]
    own = {"type": "string", "format": "phone"}
    assert scored(JsonSchema(schema=own), Problem("q"), '"soon"', "1") == [1, 0], "an unknown format is an annotation"


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"tpye": "integer"}, "got 'tpye' at '/'; did you mean 'type'?.* name it 'x-tpye'"),
        ({"properties": {"a": {"requird": []}}}, "got 'requird' at '/properties/a'; did you mean 'required'?"),
        ({"items": [{}, {"minlength": 3}]}, "got 'minlength' at '/items/1'; did you mean 'minLength'?"),
        ({"$defs": {"a": {"not": {"Maximum": 3}}}}, "got 'Maximum' at '/\\$defs/a/not'; did you mean 'maximum'?"),
        ({"ref": "#"}, "did you mean '\\$ref'?"),
        ({"propertys": {"a": {}}}, "did you mean 'properties'?"),
    ],
)
def test_a_misspelt_keyword_is_refused(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        JsonSchema(schema=schema)


def test_names_and_annotations_that_are_no_keywords_are_fine() -> None:
    fine = {"properties": {"tpye": {"note": "x", "unit": "m", "x-tpye": 1}, "requird": {"enum": [{"tpye": 1}]}}}
    rest = {"const": {"minlength": 1}, "default": {"itms": 1}, "example": 1, "nullable": True}
    reward = JsonSchema(schema=fine | rest)
    assert scored(reward, Problem("q"), '{"minlength": 1}', '{"minLength": 1}') == [1, 0]


def doubling(levels: int, key: str = "allOf") -> dict[str, Any]:
    defs: dict[str, Any] = {f"a{i}": {key: [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(levels)}
    return {"$defs": defs | {f"a{levels}": {"type": "integer"}}, "properties": {"x": {"$ref": "#/$defs/a0"}}}


def test_subschemas_are_counted_without_being_visited() -> None:
    assert num_subschemas({}) == 1
    assert num_subschemas({"properties": {"a": {"$ref": "#"}}}) == 4  # itself, properties, a, and once more itself
    assert num_subschemas({"$defs": {"b~/c": {"not": {}}}, "$ref": "#/$defs/b~0~1c"}) == 1 + 1 + 2 + 2
    # Level i holds itself, a list, and two references that each hold level i + 1.
    level = 1
    for _ in range(3):
        level = 1 + 1 + 2 * (1 + level)
    assert num_subschemas(doubling(3)["$defs"] | {"$ref": "#/a0"}) > 0
    assert num_subschemas({"$defs": doubling(3)["$defs"], "$ref": "#/$defs/a0"}) >= 2 * level


REFUSED: dict[str, tuple[Any, str]] = {
    "unknown type": ({"type": "strin"}, "must be a valid JSON Schema, got .*strin"),
    "negative": ({"minItems": -1}, "minItems|less than the minimum"),
    "no schema": (3, "must be an object or a bool, got int"),
    "nan": ({"minimum": float("nan")}, "schema must be JSON"),
    "a set": ({"enum": {1}}, "schema must be JSON"),
    "deep": (json.loads('{"not":' * 70 + "{}" + "}" * 70), "at most 64 levels"),
    "large": ({"enum": ["x" * 70_000]}, "at most 65,536 bytes"),
    "http": ({"$ref": "http://127.0.0.1:9/x.json"}, "refers to nothing outside of itself, got .*Retriev"),
    "https": ({"properties": {"a": {"$ref": "https://example.com/x.json#/a"}}}, "Retriev"),
    "file": ({"$ref": "file:///etc/passwd"}, "Retriev"),
    "relative": ({"$ref": "other.json"}, "retriev"),
    "base": ({"$id": "file:///etc/", "$ref": "passwd"}, "Retriev"),
    "meta": ({"$schema": "http://127.0.0.1:9/meta"}, "meta-schema"),
    "dynamic": ({"$dynamicRef": "http://127.0.0.1:9/y"}, "Retriev"),
    "dangling": ({"$ref": "#/$defs/none"}, "does not exist"),
    "look-around": ({"pattern": "(?=a)"}, "a valid JSON Schema, .*; look-around needs backtracking; write what"),
    "back-reference": ({"pattern": r"(a)\1"}, "a valid JSON Schema, .*; a back-reference needs backtracking; list"),
    "bad pattern": ({"patternProperties": {"(": {}}}, "a valid JSON Schema, .*regex.*; see docs.rs/regex"),
    "all of 2^24": (doubling(24), "it explodes"),
    "any of 2^30": (doubling(30, "anyOf"), "it explodes"),
    "a long chain": (
        {"$defs": {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(1500)}, "$ref": "#/$defs/a0"},
        "explodes|exist",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_schemas_that_are_refused_when_the_task_is_built(name: str) -> None:
    schema, words = REFUSED[name]
    JsonSchema(schema=True)  # the process is there
    start = time.monotonic()
    with pytest.raises(ValueError, match=words):
        JsonSchema().require(Problem("q", (), {"schema": schema}))
    assert time.monotonic() - start < 1
    with pytest.raises(ValueError, match=words):
        JsonSchema(schema=schema)


def test_schemas_that_are_fine() -> None:
    for schema in (True, {}, {"$ref": "#"}, {"properties": {"a": {"$ref": "#"}}}, doubling(5)):
        JsonSchema(schema=schema)
    own = {
        "$id": "http://example.com/root",
        "$ref": "http://example.com/root#/$defs/a",
        "$defs": {"a": {"type": "null"}},
    }
    assert scored(JsonSchema(schema=own), Problem("q"), "null", "1") == [1, 0]


def test_no_schema_at_all() -> None:
    with pytest.raises(ValueError, match=r"must have metadata\['schema'\], got none"):
        JsonSchema().require(Problem("q"))


def test_documents_made_to_be_slow_stay_within_the_limit() -> None:
    """Objects under uniqueItems, which naive checkers compare pairwise, and recursion that doubles at each level."""
    objects = json.dumps([{"a": {"b": i}} for i in range(12_000)])
    tree = {"anyOf": [{"type": "integer"}] + [{"type": "array", "items": {"$ref": "#"}}] * 2}
    reward = JsonSchema(limit_seconds=1.0)
    problems = [Problem("q", (), {"schema": {"uniqueItems": True}}), Problem("q", (), {"schema": tree})]
    texts = [objects, "[" * 60 + '"x"' + "]" * 60]
    for problem, text, value in zip(problems, texts, (1.0, 0.0), strict=True):
        scored(reward, problem, "[1]")
        start = time.monotonic()
        scores = reward([problem], responses_of([text]))
        assert time.monotonic() - start < 1.5
        assert (scores.status[0], scores.values[0]) in (("ok", value), ("model_fault", 0.0))
        assert scored(reward, problem, "[1]") == [1]


@pytest.mark.parametrize("limit", [0, -1, 61, True, "5"])
def test_limits_that_are_none(limit: Any) -> None:
    with pytest.raises(ValueError, match=r"limit_seconds must be a number in \(0, 60\]"):
        JsonSchema(limit_seconds=limit)
