r"""Problems from a table of your own: JSON lines, CSV or Parquet, with the columns that you name.

## Description
One row is one problem: `prompt_column` is the prompt, `reference_column` its right answer or answers, and
`metadata_columns` go to the reward. Rows with the same prompt are one problem, with the references of all, and are
refused where their metadata differ. The env's `reward` says how a response is scored, by name or as a function. Without
a path: 60 capitals of the world.

## Action Space
`Discrete(V)`: the shipped tokenizer's tokens, or with `vocabulary="characters"` one token for each character that the
file uses, or any tokenizer file by the env's `vocab`.

## Starting State
A prompt, uniformly from the split's.

## Rewards
`exact_match` with a reference, unless the env's `reward` names another. A model from scratch almost never writes a
reference whole, so nothing tells it better from worse; a graded reward, paid as it grows, token by token, does:

    textenvs train textenvs/Dataset-v0 --run-dir runs/mine --env-kwargs \
      '{"path": "mine.jsonl", "vocabulary": "characters", "reward": "edit_similarity", "dense": true}'

## Episode End
The end token, or the last token of the budget: what the longest reference takes and 8 more, 64 without references; the
env's `max_new_tokens` sets another.

## Splits
By `split_column`, whose values are `train` and `heldout` (or `test`), or the `heldout_fraction` of the prompts in a
fixed shuffled order. Prompts that are equal but for letter case, white space around them, or composed characters are in
the same split; a `split_column` that says otherwise is refused.

## References
RFC 4180 (CSV), parquet.apache.org; Parquet needs `pip install "textenvs[data]"`.

## Version History
v0: first version.
"""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from textenvs.pack_task import ASSETS, StoredTask
from textenvs.strict_json import JSON_LINE, read_json
from textenvs.task import Problem, check_split, permuted
from textenvs.vocab import CharVocab, TokenizerVocab, Vocab, near_miss

#: A file of more bytes is refused, Parquet as it is uncompressed: its rows are held in memory.
MAX_FILE_BYTES = 256 << 20
#: Budget where no reference says how long a response is.
DEFAULT_NEW_TOKENS = 64
_SPLITS = {"train": "train", "heldout": "heldout", "test": "heldout"}


class Dataset(StoredTask):
    """Answer the questions of a file of your own; without one: `What is the capital of Peru?` -> `Lima`.

    Args:
        path: a file named .jsonl, .csv, .tsv or .parquet; None for the shipped capitals.
        prompt_column: texts of at least one character.
        reference_column: a name, or several of alternative answers; a cell is a text, an integer, or (JSON, Parquet) a
            list of texts. None: no references, for a reward that needs none.
        metadata_columns: what the reward gets as the problem's metadata.
        split_column: which split a row is in; None: by heldout_fraction.
        heldout_fraction: of the prompts, above 0 and below 1.
        vocabulary: "tokenizer" (the shipped one) or "characters" (those of the file).
        split: "train", "heldout" or "all".
    """

    reward = "exact_match"

    def __init__(
        self,
        *,
        path: str | Path | None = None,
        prompt_column: str = "prompt",
        reference_column: str | Sequence[str] | None = "reference",
        metadata_columns: Sequence[str] = (),
        split_column: str | None = None,
        heldout_fraction: float = 0.2,
        vocabulary: str = "tokenizer",
        split: str = "train",
    ) -> None:
        check_split(split)
        if vocabulary not in ("tokenizer", "characters"):
            raise ValueError(f"vocabulary must be 'tokenizer' or 'characters', got {vocabulary!r}; pick one")
        if not isinstance(heldout_fraction, (int, float)) or not 0 < heldout_fraction < 1:
            raise ValueError(f"heldout_fraction must be in (0, 1), got {heldout_fraction!r}; the usual one is 0.2")
        if isinstance(metadata_columns, str):
            raise TypeError(f"metadata_columns must be a list of names, got {metadata_columns!r}; put it in a list")
        path = ASSETS / "capitals.csv" if path is None else path
        if not isinstance(path, (str, Path)):
            raise TypeError(f"path must be a text or a Path, got {path!r}; pass the file's name")
        (prompt,) = _names("prompt_column", [prompt_column])
        references = [reference_column] if isinstance(reference_column, str) else reference_column
        table = _Columns(
            prompt,
            _names("reference_column", [] if references is None else references),
            _names("metadata_columns", metadata_columns),
            None if split_column is None else _names("split_column", [split_column])[0],
            spaces=Path(path).suffix not in (".csv", ".tsv"),
        )
        rows = _merged([_row(cells, where, table) for where, cells in read_rows(path, table.names)])
        if not rows:
            raise ValueError(f"{path} must hold at least one row, got none; add one")
        parts = _parts(rows, heldout_fraction) if split_column is None else _checked_parts(rows)
        self._problems = [row.problem for row in rows if split == "all" or parts[_key(row.problem.prompt)] == split]
        if not self._problems:
            raise ValueError(f"split {split!r} of {path} must hold a row, got none of {len(rows)}; pass split='all'")
        # The same for every split, so that an agent trained on one can be evaluated on another.
        self.vocab = _vocab(vocabulary, [row.problem for row in rows])
        lengths = [self._lengths(row) for row in rows]
        self.max_prompt_tokens = max(prompt for prompt, _ in lengths)
        longest = max(reference for _, reference in lengths)
        self.max_new_tokens = longest + 9 if longest else DEFAULT_NEW_TOKENS

    def _lengths(self, row: _Row) -> tuple[int, int]:
        """Tokens of a row's prompt and of its longest reference, 0 without one."""
        try:
            prompt, *references = (
                len(self.vocab.encode(text)) for text in (row.problem.prompt, *row.problem.references)
            )
        except ValueError as error:
            raise ValueError(f"{row.where}: {error}") from None
        return prompt, max(references, default=0)


class _Columns(NamedTuple):
    prompt: str
    references: tuple[str, ...]
    metadata: tuple[str, ...]
    split: str | None
    spaces: bool

    @property
    def names(self) -> dict[str, str]:
        """All that the file must have, and the setting that names each."""
        split = {} if self.split is None else {self.split: "split_column"}
        others = dict.fromkeys(self.metadata, "metadata_columns") | dict.fromkeys(self.references, "reference_column")
        return {self.prompt: "prompt_column"} | split | others


class _Row(NamedTuple):
    problem: Problem
    part: str | None
    where: str


def _names(setting: str, names: Any) -> tuple[str, ...]:
    """The names of columns that a setting lists.

    Raises:
        TypeError: it is no list of texts.
    """
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{setting} must be made of the names of columns, got {names!r}; see the file's first line")
    return tuple(names)


def read_rows(path: str | Path, names: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row of a file is, and its cells; it has the named columns, each of a setting that an error names.

    Raises:
        FileNotFoundError: no such file.
        ValueError: of another kind, too large, damaged, not UTF-8, or without a column.
        ImportError: Parquet without its library.
    """
    file = Path(path)
    readers = {".jsonl": _json_rows, ".csv": _csv_rows, ".tsv": _csv_rows, ".parquet": _parquet_rows}
    if file.suffix not in readers:
        raise ValueError(f"path must be named {', '.join(readers)}, got {str(path)!r}; rename or convert it")
    if not file.is_file():
        raise FileNotFoundError(f"path must be a file, got {str(path)!r}, which is none")
    if (size := file.stat().st_size) > MAX_FILE_BYTES:
        raise ValueError(f"{path} must be at most {MAX_FILE_BYTES:,} bytes, got {size:,}; split it")
    try:
        for where, cells in readers[file.suffix](file):
            for name, setting in names.items():
                if name not in cells:
                    place = f"{path}:1" if file.suffix in (".csv", ".tsv") else where
                    hint = f"{near_miss(name, list(cells))}; pass {setting}= where yours is named otherwise"
                    raise ValueError(f"{place}: must have the column {name!r}; {hint}")
            yield where, cells
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8, got byte {error.start} of a block that is not; re-encode it") from None


def _json_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    cells = read_json(line, JSON_LINE)
                except ValueError as error:
                    raise ValueError(f"{file}:{number}: must be JSON, got {line[:80]!r}: {error}") from None
                if not isinstance(cells, dict):
                    raise ValueError(f"{file}:{number}: must be a JSON object, got {line[:80]!r}")
                yield f"{file}:{number}", cells


def _csv_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        delimiter = "\t" if file.suffix == ".tsv" else ","
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        header, num_lines = [], 0  # of the rows that are read
        try:
            header = next(reader, [])
            if len(set(header)) < len(header):
                raise ValueError(f"{file}:1: must name each column once, got {header}")
            num_lines = reader.line_num
            for cells in reader:
                where, num_lines = f"{file}:{num_lines + 1}", reader.line_num  # a row may be of several lines
                if cells and len(cells) != len(header):
                    many = len(cells) > len(header)
                    raise ValueError(
                        f"{where}: must have {len(header)} columns ({', '.join(header)}), got {len(cells)}; "
                        + ("quote a cell that holds the delimiter" if many else "fill it, or save the table as .jsonl")
                    )
                if cells:
                    yield where, dict(zip(header, cells, strict=True))
        except csv.Error as error:
            if "field limit" in str(error):
                with file.open(encoding="utf-8-sig", newline="") as again:
                    k = _long_cell("".join(islice(again, num_lines, reader.line_num)), delimiter)
                column = repr(header[k]) if k < len(header) else str(k + 1)
                raise ValueError(
                    f"{file}:{reader.line_num}: column {column} must have cells of at most {csv.field_size_limit():,} "
                    "characters, got more; shorten it, close its quotes, or save the table as .jsonl or .parquet"
                ) from None
            raise ValueError(
                f"{file}:{num_lines + 1}: must be CSV, got {error} at line {reader.line_num}; close the quotes of the "
                "row that begins here, and double those inside of a cell"
            ) from None


def _long_cell(row: str, delimiter: str) -> int:
    """Which cell of a row is longer than the `csv` module reads; it says only that there is one."""
    column = length = 0
    quoted, before = False, ""
    for character in row:
        if character == '"':
            quoted = not quoted
            length += quoted and before == '"'  # two of them inside of quotes spell one
        elif character == delimiter and not quoted:
            column, length = column + 1, 0
        else:
            length += 1
        if length > csv.field_size_limit():
            break
        before = character
    return column


def _parquet_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ImportError(f'a Parquet file needs {error.name}; pip install "textenvs[data]"') from None
    try:
        table = parquet.ParquetFile(file)
        groups = range(table.metadata.num_row_groups)
        size = sum(table.metadata.row_group(i).total_byte_size for i in groups)
        if size > MAX_FILE_BYTES:
            raise ValueError(f"{file} must hold at most {MAX_FILE_BYTES:,} bytes, got {size:,}; split it")
        number = 0
        for batch in table.iter_batches():
            for cells in batch.to_pylist():
                number += 1
                yield f"{file}: row {number}", cells
    except pyarrow.ArrowException as error:
        raise ValueError(f"{file} must be Parquet, got {error}; write it again") from None


def _row(cells: dict[str, Any], where: str, columns: _Columns) -> _Row:
    prompt = cells[columns.prompt]
    if not isinstance(prompt, str) or not prompt:
        raise ValueError(
            f"{where}: column {columns.prompt!r} must be a text of at least one character, got {prompt!r:.80}"
        )
    references = tuple(
        text for name in columns.references for text in _references(cells[name], where, name, spaces=columns.spaces)
    )
    metadata = {name: cells[name] for name in columns.metadata}
    try:
        json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: columns {', '.join(metadata)} must be JSON-able, got {error}") from None
    part = None
    if columns.split is not None:
        part = _SPLITS.get(str(cells[columns.split]))
        if part is None:
            raise ValueError(
                f"{where}: column {columns.split!r} must be one of {', '.join(_SPLITS)}, "
                f"got {cells[columns.split]!r:.80}"
            )
    return _Row(Problem(prompt, references, metadata), part, where)


def _references(cell: Any, where: str, name: str, *, spaces: bool) -> list[str]:
    found = cell if isinstance(cell, list) else [cell]
    texts = [str(text) if isinstance(text, int) and not isinstance(text, bool) else text for text in found]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise ValueError(
            f"{where}: column {name!r} must be a text, an integer or a list of texts, none of them empty, got "
            f"{cell!r:.80}; fill it, or pass reference_column=None with a reward that needs no reference"
        )
    # A table of characters has no way to say that the white space around a text belongs to it.
    if isinstance(cell, str) and cell != cell.strip() and not spaces:
        raise ValueError(
            f"{where}: column {name!r} must have no white space around a reference, got {cell!r:.80}; remove it, or "
            "save the table as .jsonl if it belongs to the right answer"
        )
    return texts


def _key(prompt: str) -> str:
    """What prompts share between which an answer learnt by heart carries over."""
    return unicodedata.normalize("NFC", prompt).strip().casefold()


def _merged(rows: Sequence[_Row]) -> list[_Row]:
    """Rows with one prompt as one, at the place of the first."""
    firsts: dict[str, _Row] = {}
    references: dict[str, dict[str, None]] = {}
    for row in rows:
        prompt = row.problem.prompt
        first = firsts.setdefault(prompt, row)
        if (first.problem.metadata, first.part) != (row.problem.metadata, row.part):
            raise ValueError(
                f"{row.where}: the same prompt must come with the same metadata and split, got {prompt[:80]!r} with "
                f"others than at {first.where}; drop one of the rows, or the column from metadata_columns"
            )
        references.setdefault(prompt, {}).update(dict.fromkeys(row.problem.references))
    return [
        row._replace(problem=Problem(prompt, tuple(references[prompt]), row.problem.metadata))
        for prompt, row in firsts.items()
    ]


def _parts(rows: Sequence[_Row], heldout_fraction: float) -> dict[str, str]:
    """The split of each prompt's key, shuffled in a fixed order."""
    prompts = list(dict.fromkeys(_key(row.problem.prompt) for row in rows))
    num_heldout = round(len(prompts) * heldout_fraction)
    return {prompts[permuted(k, len(prompts))]: "heldout" if k < num_heldout else "train" for k in range(len(prompts))}


def _checked_parts(rows: Sequence[_Row]) -> dict[str, str]:
    """The split of each prompt's key, as the rows say."""
    firsts: dict[str, _Row] = {}
    for row in rows:
        first = firsts.setdefault(_key(row.problem.prompt), row)
        if first.part != row.part:
            raise ValueError(
                f"{row.where}: a prompt must be in one split, got {row.problem.prompt[:80]!r} here and in the other at "
                f"{first.where}; drop one of them"
            )
    return {key: row.part or "" for key, row in firsts.items()}


def _vocab(vocabulary: str, problems: Sequence[Problem]) -> Vocab:
    if vocabulary == "tokenizer":
        return TokenizerVocab(ASSETS / "tokenizer.json")
    return CharVocab("".join(sorted({c for problem in problems for c in problem.prompt + "".join(problem.references)})))
