"""Write a record as JSON. The prompt says in words what is in it.

## Description
The prompt describes a record of `num_fields` fields in one of several wordings: `write json with name ida and age 42:`.
The response is a JSON object with exactly these fields and values: `{"name":"ida","age":42}`. What a field is follows
from its name: `name` and `city` are texts, `age` and `floor` numbers, `code` is a text although it is made of digits,
`member` is `true` or `false` where the prompt says yes or no, `tags` is an array of texts (of one, too), and with
`nested` there is `home`, an object of the texts `street` and `color` and the number `door`.

## Action Space
`Discrete(V)`: lower-case letters, digits, space, `{}[]":,;=+-` and the end token (the last id). `action_masks()` allows
what keeps the response a prefix of a JSON value that fits the budget, and the end token when it is one. Of JSON's many
spellings the mask follows the shortest: no white space between tokens, no escapes, no fractions, and at most the 64
levels that the reward reads; it does not remember keys. So a masked response is always JSON if no key comes twice, but
rarely the one that was asked for. After a token that the mask forbids it allows the end token. `masked=False` allows
everything.

## Observation Space
The prompt and the response so far; see `textenvs.env.TextGenEnv`.

## Starting State
Uniformly one of the problems: fields, their order, values and wording are drawn at random.

## Rewards
1 when the response is strictly valid JSON of exactly that value, else 0: keys may come in any order, types count (see
`textenvs.rewards.json_checks.JsonMatch`). `reward="json_schema"` pays for the right shape alone.

## Episode End
The end token, or the `max_new_tokens`-th token.

## Splits
4,000 problems for training, 1,000 held out. The two share neither wordings nor values, other than yes and no. Within
one a draw may come again: at the default settings 3,811 and 917 of the prompts are distinct, with three fields 3,999
and 998, and no record is asked for in more than 0.5 % of the problems. With a single field one would be in 9 %, so that
`num_fields=1` takes `nested`.

## Version History
v0: first version.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from string import ascii_lowercase, digits
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textenvs.strict_json import DOCUMENT
from textenvs.task import Problem, Task, check_flag, int_in, split_range
from textenvs.vocab import CharVocab

NUM_PROBLEMS = 5_000
SYMBOLS = ascii_lowercase + digits + ' {}[]":,;=+-'

#: Texts by field: the first list is for training, the second held out.
TEXTS: dict[str, tuple[str, str]] = {
    "name": (
        "ada ben cleo dan eva finn gus hana ida jon kai lena max nora otto pia quinn rosa sam tess uma vera wes yara",
        "amir bela cora dirk elsa fred",
    ),
    "city": (
        "bonn cork dover essex graz izmir kyoto lima malmo nice oslo paris quito riga seoul turin",
        "bern pisa rome kobe",
    ),
    "tags": ("red blue old new big small fast slow warm cold soft loud calm dark", "green young thin sharp bright"),
    "street": ("oak elm high lake mill park river hill garden church", "bridge forest south pine"),
    "color": ("black white brown grey pink gold", "silver purple orange"),
}
#: How a record is asked for: what comes first, how each field is said, what stands between two.
WORDINGS: tuple[tuple[tuple[str, str, str], ...], ...] = (
    (
        ("write json with ", "{key} {value}", " and "),
        ("", "{key} is {value}", "; "),
        ("a record: ", "{key}={value}", "; "),
        ("someone whose ", "{key} is {value}", " and whose "),
    ),
    (
        ("note down ", "{value} as {key}", " then "),
        ("we need an object: ", "{key} - {value}", " - "),
    ),
)
FIELDS = ("name", "age", "member", "tags", "city", "code", "floor")
TYPES = {"age": "integer", "floor": "integer", "door": "integer", "member": "boolean"}


class JsonRequest(Task):
    """Write the described record as JSON: `write json with name ida and age 42:` -> `{"name":"ida","age":42}`.

    Args:
        num_fields: fields of a record, 2 to 7; 1 with `nested`.
        nested: whether one more field, `home`, is an object.
        masked: whether `action_masks()` follows JSON's grammar, or allows everything.
        split: "train", "heldout" or "all".
    """

    reward = "json_match"

    def __init__(self, *, num_fields: int = 2, nested: bool = False, masked: bool = True, split: str = "train") -> None:
        self.num_fields = int_in("num_fields", num_fields, 1, len(FIELDS))
        if num_fields == 1 and nested is False:
            raise ValueError("num_fields must be at least 2 for records that differ, got 1; or pass nested=True")
        self.nested, self.has_masks = check_flag("nested", nested), check_flag("masked", masked)
        self.vocab = CharVocab(SYMBOLS)
        self._range = split_range(NUM_PROBLEMS, split)
        self._first_heldout = len(split_range(NUM_PROBLEMS, "train"))
        # Room for every problem; the longest field is `tags` with three texts, and there is one of it.
        self.max_prompt_tokens = 50 + 30 * (self.num_fields - 1) + 60 * nested
        self.max_new_tokens = 40 + 20 * (self.num_fields - 1) + 60 * nested

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, k: int) -> Problem:
        number = self._range[k]
        part = int(number >= self._first_heldout)
        rng = np.random.default_rng(np.random.SeedSequence([number, self.num_fields, self.nested]))
        keys = [FIELDS[i] for i in rng.permutation(len(FIELDS))[: self.num_fields]]
        if self.nested:
            keys.insert(int(rng.integers(len(keys) + 1)), "home")
        record = {key: _value(key, part, rng) for key in keys}
        begin, phrase, between = WORDINGS[part][rng.integers(len(WORDINGS[part]))]
        said = between.join(phrase.format(key=key, value=_in_words(value)) for key, value in record.items())
        reference = json.dumps(record, separators=(",", ":"))
        return Problem(f"{begin}{said}:", (reference,), {"expected": record, "schema": _schema(record)})

    def legal(self, problem: Problem, token_ids: Sequence[int]) -> NDArray[np.bool_]:
        """See `Task.legal`."""
        state = START
        for token in token_ids:
            state = _after(state, SYMBOLS[token]) if token < len(SYMBOLS) else DEAD
        return _allowed(state, self.max_new_tokens - len(token_ids))

    def optimal_return(self) -> float:
        """Every record can be written."""
        return 1.0


class State(NamedTuple):
    """Where a prefix of a JSON text stands.

    Attributes:
        mode: what comes next ("value", "array": a value or `]`, "object": a key or `}`, "key", "colon", "end": `,` or
            what closes) or what is being spelt ("in key", "in text", "minus", "zero", "number", "literal").
        stack: the containers that are open, "[" and "{", outermost first.
        literal: the letters still to come of true, false or null.
    """

    mode: str
    stack: str = ""
    literal: str = ""


START, DEAD = State("value"), State("dead")
#: Fewest symbols that end each mode, before what is open is closed: such as `":0` for a key that is being spelt.
TO_END = {
    "value": 1,
    "array": 0,
    "object": 0,
    "key": 4,
    "colon": 2,
    "end": 0,
    "in key": 3,
    "in text": 1,
    "minus": 1,
    "zero": 0,
    "number": 0,
    "literal": 0,
}
LITERALS = {"t": "rue", "f": "alse", "n": "ull"}


@lru_cache(maxsize=1 << 16)
def _after(state: State, symbol: str) -> State:
    """The state after one more symbol; DEAD when no JSON text in short spelling begins so."""
    mode, stack, literal = state
    if mode in ("in key", "in text"):
        if symbol == '"':
            return State("colon" if mode == "in key" else "end", stack)
        return state
    if mode == "literal" and literal:
        return State("literal", stack, literal[1:]) if symbol == literal[0] else DEAD
    if mode == "colon":
        return State("value", stack) if symbol == ":" else DEAD
    if mode in ("object", "key"):
        if symbol == '"':
            return State("in key", stack)
        return State("end", stack[:-1]) if symbol == "}" and mode == "object" else DEAD
    if mode in ("number", "minus") and symbol in digits:
        return State("zero" if mode == "minus" and symbol == "0" else "number", stack)
    if mode in ("value", "array"):
        if symbol == "]" and mode == "array":
            return State("end", stack[:-1])
        return _begun(stack, symbol)
    if mode in ("end", "zero", "number", "literal") and stack:
        if symbol == ",":
            return State("value" if stack[-1] == "[" else "key", stack)
        if symbol == ("]" if stack[-1] == "[" else "}"):
            return State("end", stack[:-1])
    return DEAD


def _begun(stack: str, symbol: str) -> State:
    """The state after the first symbol of a value."""
    if symbol in LITERALS:
        return State("literal", stack, LITERALS[symbol])
    if symbol in "[{":
        if len(stack) >= DOCUMENT.depth:
            return DEAD
        return State("array" if symbol == "[" else "object", stack + symbol)
    if symbol in digits:
        return State("zero" if symbol == "0" else "number", stack)
    modes = {'"': "in text", "-": "minus"}
    return State(modes[symbol], stack) if symbol in modes else DEAD


def _to_end(state: State) -> int:
    """Fewest symbols after which a state's text is a JSON value."""
    return TO_END[state.mode] + len(state.stack) + len(state.literal)


@lru_cache(maxsize=1 << 16)
def _allowed(state: State, room: int) -> NDArray[np.bool_]:
    """(V,) what may follow a state when so many tokens are left, the end token among them; read-only."""
    legal = np.zeros(len(SYMBOLS) + 1, dtype=bool)
    if state != DEAD:
        for i, symbol in enumerate(SYMBOLS):
            after = _after(state, symbol)
            legal[i] = after != DEAD and _to_end(after) + 2 <= room
    legal[-1] = not legal.any() or _to_end(state) == 0
    legal.flags.writeable = False
    return legal


def _value(key: str, part: int, rng: np.random.Generator) -> Any:
    """A random value of a field: part 0 for training, 1 held out; numbers that 5 divides are held out."""
    if key == "home":
        return {name: _value(name, part, rng) for name in ("street", "color", "door")}
    if key == "member":
        return bool(rng.integers(2))
    if key in ("age", "floor", "door", "code"):
        most = {"age": 20, "floor": 10, "door": 40, "code": 2000}[key]
        number = 5 * int(rng.integers(1, most)) + (0 if part else int(rng.integers(1, 5)))
        return f"{number:04d}" if key == "code" else number
    texts = TEXTS[key][part].split()
    if key == "tags":
        return [texts[i] for i in rng.permutation(len(texts))[: rng.integers(1, 4)]]
    return texts[rng.integers(len(texts))]


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "+".join(value)
    if isinstance(value, dict):
        return " ".join(f"{name} {value[name]}" for name in value)
    return str(value)


def _schema(record: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of a record's shape."""
    properties: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            properties[key] = _schema(value)
        elif isinstance(value, list):
            properties[key] = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        else:
            properties[key] = {"type": TYPES.get(key, "string")}
    return {"type": "object", "properties": properties, "required": list(record), "additionalProperties": False}
