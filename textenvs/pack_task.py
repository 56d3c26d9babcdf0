"""What tasks share whose problems are stored; and those on a shipped pack: where it is, its vocabulary, its splits.

The tasks themselves live in `textenvs.tasks`; how the packs were made stands in `textenvs/assets/README.md`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textenvs.task import Problem, Task, check_index, check_split
from textenvs.vocab import CharVocab, TokenizerVocab

ASSETS = Path(__file__).parent / "assets"


class StoredTask(Task):
    """Problems that are there before the first is asked for; a subclass's constructor sets `_problems`."""

    _problems: Sequence[Problem]

    def __len__(self) -> int:
        return len(self._problems)

    def __getitem__(self, k: int) -> Problem:
        return self._problems[check_index(k, len(self._problems))]


class PackTask(StoredTask):
    """The problems of `assets/<pack>_train.jsonl` and `assets/<pack>_heldout.jsonl`, in the files' order.

    Each line is an object with "prompt", "references" and "metadata". A subclass sets `pack`, `reward` and
    `max_new_tokens`, and `symbols` where characters are its tokens and not those of the shipped tokenizer.

    Args:
        split: "train", "heldout" or "all".
    """

    pack: ClassVar[str]
    symbols: ClassVar[str] = ""

    def __init__(self, *, split: str = "train") -> None:
        check_split(split)
        self.vocab = CharVocab(self.symbols) if self.symbols else TokenizerVocab(ASSETS / "tokenizer.json")
        packs = {name: _read(ASSETS / f"{self.pack}_{name}.jsonl") for name in ("train", "heldout")}
        packs["all"] = packs["train"] + packs["heldout"]
        self._problems = packs[split]
        # The same for every split, so that an agent trained on one can be evaluated on another.
        self.max_prompt_tokens = max(len(self.vocab.encode(problem.prompt)) for problem in packs["all"])

    def optimal_return(self) -> float:
        """A reference scores 1, and nothing scores more."""
        return 1.0


def _read(path: Path) -> list[Problem]:
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [Problem(row["prompt"], tuple(row["references"]), row["metadata"]) for row in rows]
