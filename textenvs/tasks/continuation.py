"""Continue a prompt so that the reward likes it. Without arguments: openings of short reviews, scored by sentiment.

Also home of the prompt-file reader, for prompts of your own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from textenvs.pack_task import ASSETS, StoredTask
from textenvs.strict_json import JSON_LINE, read_json
from textenvs.task import Problem, check_split
from textenvs.vocab import TokenizerVocab

#: A prompt file larger than this is refused: its lines are held in memory.
MAX_FILE_BYTES = 256 << 20


class Continuation(StoredTask):
    """Continue a prompt; the reward judges the response.

    The prompt is the beginning of a text, such as `The food was`, the response what comes after it, in tokens of the
    shipped byte-level tokenizer. No answer is the right one: what is good the reward says, unless told otherwise how
    happy the review is. Both are there to be replaced, `prompts=` by texts or a file of yours, `reward=` by a function.

    Args:
        prompts: texts, or a file of them: one a line, or JSON lines with "prompt" and perhaps "references" and
            "metadata" when its name ends in .jsonl. None: the shipped openings of reviews, whose held-out split has
            subjects and openings of its own.
        threshold: score from which a response counts as a success.
        split: "train", "heldout" or "all". Prompts of your own have no held-out split: pass those as another list.
    """

    reward = "sentiment"
    max_new_tokens = 24

    def __init__(
        self,
        *,
        prompts: Sequence[str] | str | Path | None = None,
        threshold: float = 0.5,
        split: str = "train",
    ) -> None:
        check_split(split)
        self.vocab = TokenizerVocab(ASSETS / "tokenizer.json")
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or threshold != threshold:
            raise ValueError(f"threshold must be a number, got {threshold!r}; the usual one is 0.5")
        self.threshold = float(threshold)
        if prompts is None:
            packs = {name: read_prompts(ASSETS / f"prompts_{name}.jsonl") for name in ("train", "heldout")}
            packs["all"] = packs["train"] + packs["heldout"]
            self._problems = packs[split]
            # The same for every split, so that an agent trained on one can be evaluated on another.
            self.max_prompt_tokens = max(len(self.vocab.encode(problem.prompt)) for problem in packs["all"])
        elif split == "heldout":
            raise ValueError(
                "split must be 'train' or 'all' with prompts of your own, got 'heldout'; "
                "pass your held-out prompts as prompts="
            )
        elif isinstance(prompts, (str, Path)):
            self._problems = read_prompts(prompts)
        elif not isinstance(prompts, Iterable):
            raise TypeError(f"prompts must be a list of texts or a file, got {prompts!r}; pass [text] for one")
        else:
            self._problems = [_problem(prompt, f"prompts[{i}]") for i, prompt in enumerate(prompts)]
        if not self._problems:
            raise ValueError("prompts must hold at least one prompt, got an empty list; add one")


def read_prompts(path: str | Path) -> list[Problem]:
    """The problems in a file of prompts: one a line, or JSON lines when its name ends in .jsonl; blank lines skipped.

    Raises:
        FileNotFoundError: no such file.
        ValueError: empty, too large, not UTF-8, or a line that is not a prompt; the message names file and line.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"prompts must be a list of texts or a file, got {str(path)!r} which is no file; "
            "pass [text] for a single prompt"
        )
    if (size := file.stat().st_size) > MAX_FILE_BYTES:
        raise ValueError(f"prompt file {path} must be at most {MAX_FILE_BYTES:,} bytes, got {size:,}; split it")
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")  # a prompt may hold what else breaks a line
    except UnicodeDecodeError as error:
        raise ValueError(
            f"prompt file {path} must be UTF-8, got byte {error.start} that is not; re-encode it"
        ) from None
    read = _json_line if file.suffix == ".jsonl" else _problem
    problems = [read(line, f"{path}:{n}") for n, line in enumerate(lines, 1) if line.strip()]
    if not problems:
        raise ValueError(f"prompt file {path} must hold at least one prompt, got none; write one a line")
    return problems


def _problem(prompt: Any, where: str) -> Problem:
    if not isinstance(prompt, str) or not prompt:
        raise ValueError(f"{where} must be a text, got {prompt!r}; give every prompt at least one character")
    return Problem(prompt)


def _json_line(line: str, where: str) -> Problem:
    try:
        row = read_json(line, JSON_LINE)
    except ValueError as error:
        raise ValueError(f"{where} must be a JSON object, got {line[:80]!r}: {error}") from None
    if not isinstance(row, dict) or "prompt" not in row:
        raise ValueError(f"{where} must be a JSON object with the key 'prompt', got {line[:80]!r}; add the key")
    references, metadata = row.get("references", []), row.get("metadata", {})
    if not isinstance(references, list) or not all(isinstance(text, str) for text in references):
        raise ValueError(f"{where}: 'references' must be a list of texts, got {references!r}")
    if not isinstance(metadata, dict):
        raise ValueError(f"{where}: 'metadata' must be an object, got {metadata!r}")
    return Problem(_problem(row["prompt"], where).prompt, tuple(references), metadata)
