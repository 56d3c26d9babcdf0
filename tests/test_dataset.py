"""Dataset: the same problems from JSON lines, CSV and Parquet; splits that share no prompt; bad rows are named."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import textenvs
from textenvs.tasks import dataset as module
from textenvs.tasks.dataset import Dataset

ROWS = [
    {"question": "one, \"two\"?", "answer": "1\n2", "level": "easy", "part": "train"},
    {"question": "naïve é ✓", "answer": "yes", "level": "hard", "part": "test"},
    {"question": "three", "answer": "3", "level": "easy", "part": "heldout"},
    {"question": "one, \"two\"?", "answer": "12", "level": "easy", "part": "train"},
]  # fmt: skip
COLUMNS: dict[str, Any] = {
    "prompt_column": "question", "reference_column": "answer", "metadata_columns": ["level"], "split_column": "part",
}  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    elif path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def problems(**settings: Any) -> list[textenvs.Problem]:
    task = Dataset(**settings)
    return [task[k] for k in range(len(task))]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_every_format_gives_the_same_problems(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"data{suffix}", ROWS)
    expected = [textenvs.Problem(row["question"], (row["answer"],), {"level": row["level"]}) for row in ROWS[:3]]
    expected[0] = textenvs.Problem(expected[0].prompt, ("1\n2", "12"), {"level": "easy"})
    assert problems(path=str(path), **COLUMNS, split="all") == expected
    assert problems(path=path, **COLUMNS) == expected[:1]
    assert problems(path=path, **COLUMNS, split="heldout") == expected[1:3]


@pytest.mark.parametrize("vocabulary", ["tokenizer", "characters"])
@pytest.mark.parametrize("reward", [None, "token_f1", lambda problem, text: float(problem.metadata["level"] == "easy")])
def test_an_env_on_a_file_plays(vocabulary: str, reward: Any, tmp_path: Path) -> None:
    path = str(write(tmp_path / "data.csv", ROWS))
    env = gym.make("textenvs/Dataset-v0", path=path, **COLUMNS, vocabulary=vocabulary, reward=reward, split="all")
    _, info = env.reset(options={"problem": 0})
    for token in env.unwrapped.demonstration():
        *_, value, terminated, _, info = env.step(token)
    assert (terminated, value, info["response"]) == (True, 1.0, "1\n2")
    if vocabulary == "characters":
        symbols = {c for row in ROWS for c in row["question"] + row["answer"]}
        assert env.action_space.n == len(symbols) + 1


def test_alternative_answers_and_none(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "reference": ["x", "y"], "other": 7}, {"prompt": "b", "reference": "z", "other": 8}]
    for suffix, second in ((".jsonl", ["z"]), (".parquet", ["z"])):
        rows[1]["reference"] = second
        path = write(tmp_path / f"data{suffix}", rows)
        found = problems(path=path, reference_column=["reference", "other"], split="all")
        assert [problem.references for problem in found] == [("x", "y", "7"), ("z", "8")]
    task = Dataset(path=path, reference_column=None, split="all")
    assert task[0].references == ()
    assert task.max_new_tokens == module.DEFAULT_NEW_TOKENS
    env = gym.make("textenvs/Dataset-v0", path=str(path), reference_column=None, split="all", reward="sentiment")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"problem 0: .* must have a reference"):
        gym.make("textenvs/Dataset-v0", path=str(path), reference_column=None, split="all")


def test_a_fraction_of_the_prompts_is_held_out_wherever_they_come_again(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{k % 50}", "reference": str(k)} for k in range(200)]
    path = write(tmp_path / "data.jsonl", rows)
    parts = {split: problems(path=path, heldout_fraction=0.3, split=split) for split in ("train", "heldout", "all")}
    prompts = {split: {problem.prompt for problem in found} for split, found in parts.items()}
    assert not prompts["train"] & prompts["heldout"]
    assert (len(prompts["train"]), len(prompts["heldout"])) == (35, 15)
    assert len(parts["train"]) + len(parts["heldout"]) == len(parts["all"]) == 50
    assert parts["all"][7].references == ("7", "57", "107", "157")
    limits = {(task.max_prompt_tokens, task.max_new_tokens) for task in (Dataset(path=path, split=s) for s in parts)}
    assert len(limits) == 1, "an agent trained on one split can be evaluated on the other"


def test_prompts_that_differ_in_nothing_to_learn_are_in_one_split(tmp_path: Path) -> None:
    forms = ["É{}", "e\u0301{} ", " é{}\n", "E\u0301{}"]
    path = write(tmp_path / "a.jsonl", [{"prompt": f.format(k), "reference": "x"} for k in range(20) for f in forms])
    numbers = [
        {re.sub(r"\D", "", problem.prompt) for problem in problems(path=path, split=s)} for s in ("train", "heldout")
    ]
    assert [len(part) for part in numbers] == [16, 4]
    assert not numbers[0] & numbers[1]
    assert len(problems(path=path, split="all")) == 80, "they stay problems of their own"


def test_many_answers_to_one_prompt_are_one_problem(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [{"prompt": "Tell:", "reference": f"story {k}", "n": "1"} for k in range(20_000)])
    (problem,) = problems(path=path, split="all", metadata_columns=["n"])
    assert len(problem.references) == 20_000
    assert type(problem.metadata["n"]) is str, "rewards compare types"


def test_white_space_around_a_reference_counts_where_the_file_can_say_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "and so", "reference": " on"}])
    assert problems(path=path, split="all")[0].references == (" on",)


def test_the_shipped_capitals() -> None:
    assert (len(Dataset()), len(Dataset(split="heldout")), len(Dataset(split="all"))) == (48, 12, 60)
    assert len({problem.references for problem in problems(split="all")}) == 60


GOOD = {"prompt": "p", "reference": "r", "part": "train", "n": 1}


@pytest.mark.parametrize(
    ("rows", "settings", "words"),
    [
        ([GOOD, {**GOOD, "prompt": ""}], {}, "{}:2: column 'prompt' must be a text of at least one character, got ''"),
        ([GOOD, {**GOOD, "prompt": 5}], {}, "{}:2: column 'prompt' must be a text .* got 5"),
        ([GOOD, {**GOOD, "reference": ""}], {}, "{}:2: column 'reference' must be .* got ''; fill it, or pass refer"),
        ([GOOD, {**GOOD, "reference": None}], {}, "{}:2: column 'reference' must be .* got None"),
        ([GOOD, {**GOOD, "reference": []}], {}, r"{}:2: column 'reference' must be .* got \[\]"),
        ([GOOD, {**GOOD, "reference": 0.5}], {}, "{}:2: column 'reference' must be .* got 0.5"),
        ([GOOD, {"prompt": "q"}], {}, "{}:2: must have the column 'reference'; known: prompt"),
        ([GOOD], {"prompt_column": "promt"}, "{}:1: must have the column 'promt'; did you mean 'prompt'"),
        ([GOOD], {"metadata_columns": ["lvl"]}, "{}:1: must have the column 'lvl'"),
        (
            [GOOD, {**GOOD, "part": "tran"}],
            {"split_column": "part"},
            "{}:2: column 'part' must be one of .*'tran'",
        ),
        (
            [GOOD, {**GOOD, "part": "test"}],
            {"split_column": "part"},
            "{0}:2: the same prompt must come with the same metadata and split, got 'p' with others than at {0}:1",
        ),
        (
            [GOOD, {**GOOD, "prompt": "P ", "part": "test"}],
            {"split_column": "part"},
            "{0}:2: a prompt must be in one split, got 'P ' here and in the other at {0}:1",
        ),
        ([GOOD, {**GOOD, "n": 2}], {"metadata_columns": ["n"]}, "{0}:2: the same prompt .* at {0}:1; drop one"),
        ([GOOD, {**GOOD, "n": float("nan")}], {"metadata_columns": ["n"]}, "{}:2: must be JSON, .* finite, got NaN"),
        ([GOOD, {**GOOD, "prompt": "\ud800"}], {}, "{}:2: text must be valid Unicode"),
        ([GOOD], {"split": "heldout"}, "split 'heldout' of .* must hold a row, got none of 1; pass split='all'"),
    ],
    ids=range(16),
)
def test_a_bad_row_is_named(rows: list[Any], settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "bad.jsonl", rows)
    with pytest.raises(ValueError, match=words.format(path)):
        Dataset(path=path, **settings)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"prompt": "a", "reference": "b"}\n{', "{}:2: must be JSON, got"),
        ("a.jsonl", b"[" * 100_000, "{}:1: must be JSON, got"),
        ("a.jsonl", b"[1]", "{}:1: must be a JSON object"),
        ("a.jsonl", b'{"prompt":"a","reference":"b","reference":"c"}', "{}:1: must be JSON, .* 'reference' 2 times"),
        (
            "a.csv",
            b"prompt,reference\na,b\nQ?, Lima\n",
            "{}:3: column 'reference' must have no white .* got ' Lima'; rem",
        ),
        ("a.tsv", b"prompt\treference\nQ?\tLima \n", "{}:2: column 'reference' must have no white space"),
        ("a.jsonl", b"\xff\xfe\x00", "{} must be UTF-8, got byte 0"),
        ("a.jsonl", b"\n", "{} must hold at least one row"),
        ("a.csv", b"", "{} must hold at least one row"),
        ("a.csv", b"prompt,reference\na,b\nc,d,e\n", "{}:3: must have 2 columns .prompt, reference., got 3; quote"),
        ("a.csv", b"prompt,reference\na,b\nc\n", "{}:3: must have 2 columns .prompt, reference., got 1; fill it, or"),
        ("a.csv", b"question,reference\na,b\n", "{}:1: must have the column 'prompt'; .*; pass prompt_column= where"),
        ("a.tsv", b"prompt\tanswer\na\tb\n", "{}:1: must have the column 'reference'; .*; pass reference_column= "),
        (
            "a.csv",
            b'prompt,reference\na,b\n"c,d\n' + b"e,f\n" * 7,
            "{}:3: must be CSV, .* at line 10; close the quotes",
        ),
        ("a.csv", b'prompt,reference\na,b\n"c,d\ne,"f"\n', "{}:3: must be CSV, .* at line 4; close the quotes"),
        ("a.csv", b'prompt,reference\n"a\nb",c\nd\n', "{}:4: must have 2 columns"),
        ("a.csv", b'prompt,reference\n"a\nb", c\n', "{}:2: column 'reference' must have no white space"),
        ("a.csv", b"prompt,prompt\na,b\n", "{}:1: must name each column once"),
        ("a.csv", b'prompt,reference\n"a"x,b\n', "{}:2: must be CSV, got"),
        ("a.csv", b'prompt,reference\n"a,b\n', "{}:2: must be CSV, got unexpected end of data"),
        (
            "a.csv",
            b"prompt,reference\na," + b"x" * 200_000,
            "{}:2: column 'reference' must have cells of at most 131,072 .* got more; .* save the table as .jsonl",
        ),
        (
            "a.csv",
            b'prompt,reference\n"a\n,""b""",c\n"' + b'a,"" \n' * 20_000 + b'",' + b"x" * 140_000 + b"\nc,d\n",
            "{}:20004: column 'reference' must have cells of at most 131,072 characters",
        ),
        ("a.tsv", b"prompt\treference\n" + b"a," * 70_000 + b"\tb", "{}:2: column 'prompt' must have cells of at most"),
        ("a.tsv", b"prompt\t" + b"r" * 131_073, "{}:1: column 2 must have cells of at most"),
        ("a.parquet", b"PAR1 no", "{} must be Parquet, got"),
        ("a.xlsx", b"", "path must be named .jsonl, .csv, .tsv, .parquet, got"),
    ],
    ids=range(26),
)
def test_a_file_that_cannot_be_read_is_named(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words.format(path)):
        Dataset(path=path)


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", [{"prompt": "p" * 10_000, "reference": "r"}] * 300)
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 2_000_000)
    Dataset(path=path, split="all")
    monkeypatch.setattr(module, "MAX_FILE_BYTES", path.stat().st_size + 100)
    with pytest.raises(ValueError, match=r"must hold at most .* bytes, got .*; split it"):
        Dataset(path=path)  # small on disk, large in memory
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 100)
    with pytest.raises(ValueError, match="must be at most 100 bytes, got"):
        Dataset(path=path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"vocabulary": "words"}, "vocabulary must be 'tokenizer' or 'characters', got 'words'"),
        ({"heldout_fraction": 1}, "heldout_fraction must be in"),
        ({"split": "dev"}, "split must be one of"),
        ({"path": "missing.csv"}, "path must be a file, got 'missing.csv'"),
        ({"metadata_columns": "continent"}, "metadata_columns must be a list of names"),
        ({"metadata_columns": None}, "metadata_columns must be .* got None"),
        ({"metadata_columns": [["continent"]]}, "metadata_columns must be .* got"),
        ({"reference_column": 3}, "reference_column must be .* got 3"),
        ({"reference_column": ["reference", 3]}, "reference_column must be .* got"),
        ({"prompt_column": ["prompt"]}, "prompt_column must be .* got"),
        ({"split_column": 3}, "split_column must be .* got .3"),
        ({"path": 3}, "path must be a text or a Path, got 3"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=words):
        Dataset(**settings)


def test_parquet_without_its_library_says_what_to_install(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [{"prompt": "p", "reference": "r"}])
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from textenvs.tasks.dataset import Dataset\n"
        f"try: Dataset(path={str(path)!r})\nexcept ImportError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == 'a Parquet file needs pyarrow; pip install "textenvs[data]"\n'
