"""One page a reward, from its docstring, with scores computed now: of right answers and of attacks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from docstrings import GENERATED, code, escaped, fence, parse, slug, table

import textenvs
from textenvs.rewards import _UNNAMED, REWARDS


@dataclass(frozen=True)
class Example:
    """A problem, and responses to it with a word on what each is."""

    responses: tuple[tuple[str, str], ...]
    references: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    prompt: str = "Say it: "


OLD = "The old bridge was closed on Monday."
SENTENCE = Example(
    references=(OLD, "On Monday, the bridge shut."),
    responses=(
        (OLD, "a reference"),
        ("The new bridge was closed on Monday.", "one word wrong"),
        ("The bridge", "a piece"),
        ("", "attack: say nothing"),
        (f"{OLD} {OLD}", "attack: a reference twice"),
        (f"{OLD} {'It was not. ' * 8}", "attack: padding behind it"),
        ("bridge " * 7, "attack: one right word, repeated"),
        ("Monday on closed was bridge old The.", "attack: its words in another order"),
    ),
)
PRAISE = "great wonderful superb lovely excellent perfect amazing brilliant delightful fantastic"
REVIEW = Example(
    prompt="The food was",
    responses=(
        (" wonderful, and we loved every minute of it.", "happy"),
        (" cold and we waited for an hour.", "unhappy"),
        ("", "attack: say nothing"),
        (" great" * 24, "attack: one word of praise, 24 times"),
        (f" {PRAISE} {PRAISE}", "attack that works: many words of praise"),
        ("\x1b[2J<script>alert(1)</script>", "attack: markup and control characters"),
    ),
)
STYLE = Example(
    prompt="Tell me. ",
    responses=(
        ("The cat sat on the mat. It was warm there.", "two short sentences"),
        ("Notwithstanding considerable institutional opposition, implementation continued.", "long words"),
        ("the same the same the same the same", "repetition"),
        ("", "nothing"),
        ("!!! 42 ...", "no words"),
    ),
)
ADD = {"entry_point": "add", "cases": [{"args": [1, 2], "expected": 3}, {"args": [2, 2], "expected": 4}]}
FORGED = "class Equal:\n    def __eq__(self, other):\n        return True\n\ndef add(a, b):\n    return Equal()"
EXAMPLES = {
    "sentiment": REVIEW,
    "vader": REVIEW,
    "regex": Example(
        metadata={"pattern": r"[a-c]+\d?"},
        responses=(
            ("abc3", "matches"),
            ("abd", "does not"),
            ("abc3 and more", "attack: padding"),
            ("a" * 60 + "!", "attack: made to be slow"),
        ),
    ),
    "words": Example(
        metadata={"required": ["bridge", "old"], "forbidden": ["new"]},
        responses=(
            ("An old bridge was rebuilt.", "both required words"),
            ("A bridge was rebuilt.", "one of them"),
            ("The old bridge is NEW.", "attack: a forbidden word in capitals"),
            ("The old bridge is n\u00adew.", "attack: with a soft hyphen inside"),
            ("bridgeold bridge", "attack: inside of a longer word"),
            ("bridge old", "attack that works: the bare list"),
        ),
    ),
    "language": Example(
        metadata={"language": "de"},
        responses=(
            ("Die alte Brücke wurde am Montag für den Verkehr gesperrt.", "German"),
            ("The old bridge was closed to all traffic on Monday.", "English"),
            ("", "attack: say nothing"),
            ("12 34 56 !", "attack: digits"),
            ("Brücke", "attack: one word"),
        ),
    ),
    "json": Example(
        responses=(
            ('{"name": "ida", "age": 42}', "JSON"),
            ('Here it is: {"name": "ida"}', "attack: text before it"),
            ('{"a": 1, "a": 2}', "attack: a key twice"),
            ("[NaN, 1e999]", "attack: what is no JSON number"),
            ("[" * 10_000, "attack: 10,000 levels deep"),
            ("[]", "attack that works: the smallest JSON"),
        )
    ),
    "json_match": Example(
        metadata={"expected": {"name": "ida", "age": 42}},
        responses=(
            ('{"age": 42, "name": "ida"}', "the value, keys in another order"),
            ('{"name": "ida", "age": "42"}', "attack: a text for a number"),
            ('{"name": "ida", "age": 42, "x": 0}', "attack: one key more"),
            ('{"name": "ida", "age": 42} {"name": "bob"}', "attack: several values"),
            ("", "attack: say nothing"),
        ),
    ),
    "json_schema": Example(
        metadata={"schema": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2}},
        responses=(
            ("[1, 2]", "conforms"),
            ('["x"]', "wrong type"),
            ("[1, 2, 3]", "too long"),
            ("[1, 2] // done", "attack: padding"),
            ("[1]", "attack that works: the smallest document allowed"),
        ),
    ),
    "math_answer": Example(
        metadata={"answer": "1/2"},
        prompt="What is 3/6? ",
        responses=(
            (r"It is \boxed{1/2}", "the answer"),
            ("0.5", "an equal number"),
            ("The answer is 1/2 or 1/3", "attack: two answers"),
            ("-1/2", "attack: another sign"),
            (r"\boxed{9^{9^{9^9}}}", "attack: a tower of powers"),
            ("__import__('os').system('true')", "attack: code"),
        ),
    ),
    "python_program": Example(
        metadata=ADD,
        prompt="def add(a, b): ",
        responses=(
            ("def add(a, b):\n    return a + b", "right"),
            ("def add(a, b):\n    return 3", "right in one case of two"),
            (FORGED, "attack: an object that equals everything"),
            ("import sys\ndef add(a, b):\n    sys.exit(0)", "attack: leave early"),
            ("def add(a, b):\n    return open('/etc/passwd').read()", "attack: read a file"),
        ),
    ),
    "log_prob": Example(
        prompt="The food was",
        responses=(
            (" good.", "likely"),
            (" zq xv jj kw.", "rubbish"),
            ("", "attack: say nothing after an unfinished sentence"),
            (" good and the food was good and the food was good.", "attack that works: a stock phrase, repeated"),
        ),
    ),
    "distinct_2": STYLE,
    "repetition_4": STYLE,
    "reading_ease": STYLE,
    "LengthRange": STYLE,
    "ReadingGrade": STYLE,
}
#: Rewards without a name, as a page's example makes them; those that need a model of the user's own are not made.
MADE = {"LengthRange": "textenvs.LengthRange(5, 10)", "ReadingGrade": "textenvs.ReadingGrade(8)"}
HINTS = {
    "SklearnReward": "SklearnReward(pipeline, label=1)",
    "PretrainedClassifier": 'PretrainedClassifier("runs/classifier", label="POSITIVE")',
}

WHERE = (
    'In an environment: `gym.make("textenvs/Dataset-v0", path="mine.jsonl", reward="{}")`, or `prompts="mine.jsonl"` '
    "of `TextGen-v0`, with `references` or `metadata` in each line."
)


def classes() -> dict[str, type[textenvs.Reward]]:
    """Page name -> class: the name of a reward, or its class's where it has none."""
    paths = {**REWARDS, **{path.split(":")[1]: path for path in _UNNAMED}}
    return {name: getattr(import_module(path.split(":")[0]), path.split(":")[1]) for name, path in paths.items()}


def reward_page(name: str) -> str:
    """The page of one reward."""
    cls = classes()[name]
    doc = parse(cls.__doc__)
    body, withstands, beware = _attacks(doc.body)
    parts = [
        GENERATED.format(cls.__module__.replace(".", "/") + ".py"),
        f"# {name}",
        doc.summary,
        _facts(name, cls),
        "## How it is computed" if body else "",
        body,
        "## Settings" if doc.args else "",
        _settings(cls, doc.args),
        "## Use",
        _use(name, cls),
        *_scores(name),
        "## What it withstands, and what not",
        f"**Withstands**: {withstands}" if withstands else "",
        f"**Does not withstand**{beware}" if beware else "",
        "[All rewards](../rewards.md): composition, several references, status, writing your own.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _attacks(body: str) -> tuple[str, str, str]:
    """A docstring's text without the paragraph on attacks; what that says is withstood; and what is not."""
    found = re.search(r"^Withstands: (.*?)(?=\n\n|\Z)", body, flags=re.MULTILINE | re.DOTALL)
    if not found:
        return body, "", ""
    rest = (body[: found.start()] + body[found.end() :]).strip()
    withstands, *beware = re.split(r"Does not\s+withstand", found[1], maxsplit=1)
    return re.sub(r"\n{3,}", "\n\n", rest), withstands.strip(), (beware[0] if beware else "")


def _facts(name: str, cls: type[textenvs.Reward]) -> str:
    users = [f"[`{env_id}`](../envs/{slug(env_id)}.md)" for env_id in _users().get(name, ())]
    rows = [
        ("class", code(f"textenvs.{cls.__name__}")),
        ("by name", code(f'reward="{name}"') if name in REWARDS else "no: it needs settings"),
        ("range", _range(name)),
        ("default of", ", ".join(users) or "-"),
    ]
    return table(("", ""), rows)


@cache
def _users() -> dict[str, list[str]]:
    """Name of a reward -> ids that have it unless told otherwise."""
    users: dict[str, list[str]] = {}
    for entry in textenvs.ENTRIES:
        users.setdefault(textenvs.Rules(**entry.kwargs).reward.name, []).append(entry.id)
    return users


def _range(name: str) -> str:
    if name in HINTS:
        return "[0, 1], or all numbers, by `output`"
    low, high = _made(name).value_range
    return f"{'(-inf' if low == -np.inf else f'[{low:g}'}, {high:g}]"


@cache
def _made(name: str) -> textenvs.Reward:
    if name == "LengthRange":
        return textenvs.LengthRange(5, 10)
    return textenvs.ReadingGrade(8) if name == "ReadingGrade" else textenvs.as_reward(name)


def _settings(cls: type[textenvs.Reward], args: dict[str, str]) -> str:
    signature = inspect.signature(cls.__init__).parameters
    rows = []
    for name, meaning in args.items():
        default = signature[name].default
        shown = "-" if default is inspect.Parameter.empty else code(_short(default))
        rows.append((code(name), shown, escaped(meaning)))
    return table(("setting", "default", "meaning"), rows) if rows else ""


def _short(default: Any) -> str:
    """A default, without the place of a shipped file on this machine."""
    return repr(getattr(default, "name", default))


def _use(name: str, cls: type[textenvs.Reward]) -> str:
    if name in HINTS:
        return f'Needs a model of your own: `gym.make("TextGen-v0", reward=textenvs.{HINTS[name]})`.'
    lines = ["import textenvs", ""]
    made = MADE.get(name, f'"{name}"')
    example = _example(name)
    if not example.references and not example.metadata:
        return fence(
            "\n".join(["import gymnasium as gym", *lines, f'env = gym.make("TextGen-v0", reward={made})']), "python"
        )
    problem = f"textenvs.Problem({example.prompt!r}, {example.references!r}"
    problem += f", {example.metadata!r})" if example.metadata else ")"
    lines += [f"problem = {problem}", f"reward = textenvs.as_reward({made})"]
    lines += ["reward.require(problem)  # or a ValueError says what is missing"]
    return fence("\n".join(lines), "python") + "\n\n" + WHERE.format(name)


def _example(name: str) -> Example:
    return EXAMPLES.get(name, SENTENCE)


def _scores(name: str) -> list[str]:
    """The responses of the example with what the reward gives them now."""
    if name in HINTS:
        return []
    example = _example(name)
    texts = [text for text, _ in example.responses]
    problem = textenvs.Problem(example.prompt, example.references, example.metadata)
    scores = _made(name)([problem] * len(texts), _responses(texts, name, example))
    rows = []
    for i, (text, what) in enumerate(example.responses):
        status = f" ({scores.status[i]})" if scores.status and scores.status[i] != "ok" else ""
        rows.append((what, _shown(text), f"{scores.values[i]:.3f}{status}".replace("-0.000", "0.000")))
    said = [f"prompt {code(example.prompt)}"]
    said += [f"references {', '.join(map(code, example.references))}"] if example.references else []
    said += [f"metadata {code(repr(example.metadata))}"] if example.metadata else []
    return ["## Scores", f"Of responses to {'; '.join(said)}:", table(("response", "text", "score"), rows)]


def _shown(text: str) -> str:
    if len(text) > 120:
        return f"{code(text[:100])} ... ({len(text):,} characters)"
    return code(text) if text else "(nothing)"


def _responses(texts: Sequence[str], name: str, example: Example) -> textenvs.Responses:
    """Texts as finished responses, a character a token."""
    vocab = textenvs.CharVocab("".join(sorted({*"".join([*texts, *example.references, example.prompt]), " "})))
    ids = np.full((len(texts), max(map(len, texts))), -1, dtype=np.int64)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = vocab.encode(text)
    return textenvs.Responses(ids, np.array([len(text) for text in texts]), ["eos"] * len(texts), vocab)


def links() -> str:
    """A line of links, for the page of all rewards."""
    return "A page each: " + ", ".join(f"[`{name}`](rewards/{name}.md)" for name in classes()) + "."
