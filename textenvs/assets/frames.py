"""Problems from hand-written frames: pairs of sentences with slots, and what may stand in the slots.

Lives here: the reader of the frame files, and what ConstrainedRewrite and StyleTransfer make of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from textenvs.task import permuted

HERE = Path(__file__).parent

#: A row of a pack: prompt, references and metadata, as `textenvs.packs` reads them.
Row = dict[str, Any]

_SLOT = re.compile(r"\{(\w+)\}")
_MARKED = re.compile(r"\[([^\]]+)\]")


@dataclass
class Frame:
    """Sentences with slots.

    Attributes:
        left: sentences of the `<` lines, the first the best.
        right: sentences of the `>` lines, the first the best.
        slots: name -> what may stand there, as pairs: on the left, on the right.
    """

    left: list[str] = field(default_factory=list)
    right: list[str] = field(default_factory=list)
    slots: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def fillings(self, num: int) -> list[tuple[list[str], list[str]]]:
        """Up to `num` distinct fillings in a fixed shuffled order: the sentences of both sides, slots filled."""
        sizes = [len(fillers) for fillers in self.slots.values()]
        found = []
        for k in range(min(num, prod(sizes))):
            number, chosen = permuted(k, prod(sizes)), {}
            for name, fillers in self.slots.items():
                number, i = divmod(number, len(fillers))
                chosen[name] = fillers[i]
            left = [_fill(text, {name: pair[0] for name, pair in chosen.items()}) for text in self.left]
            right = [_fill(text, {name: pair[1] for name, pair in chosen.items()}) for text in self.right]
            found.append((left, right))
        return found


def read_frames(path: Path) -> dict[str, list[Frame]]:
    """The frames of a file, by split.

    Raises:
        ValueError: a line that is none of those its first lines describe; names file and line.
    """
    splits: dict[str, list[Frame]] = {}
    frame = Frame()
    for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("== "):
            split = splits[line[3:]] = []
        elif not line:
            frame = Frame()
        elif line.startswith("< "):
            if not frame.left:
                split.append(frame)
            frame.left.append(line[2:])
        elif line.startswith("> "):
            frame.right.append(line[2:])
        elif " = " in line:
            name, fillers = line.split(" = ")
            pairs = [filler.partition(" / ") for filler in fillers.split(" | ")]
            frame.slots[name] = [(left, right or left) for left, _, right in pairs]
        elif not line.startswith("#"):
            raise ValueError(f"{path.name}:{n} must be a frame's line, got {line!r}; see the head of the file")
    return splits


def style_rows(frames: Iterable[Frame], num: int) -> list[Row]:
    """StyleTransfer's problems, `num` fillings a frame, each in both directions."""
    rows: list[Row] = []
    for frame in frames:
        for informal, formal in frame.fillings(num):
            for style, source, references in (
                ("formal", informal[0], formal),
                ("informal", formal[0], informal),
            ):
                metadata = {"style": style, "source": source, "frame": frame.left[0]}
                rows.append(_row(f"{style.capitalize()}: {source}\n", references, metadata))
    return rows


def rewrite_rows(frames: Iterable[Frame], num: int) -> list[Row]:
    """ConstrainedRewrite's problems, `num` fillings a frame."""
    rows = []
    for frame in frames:
        for (marked, *_), targets in frame.fillings(num):
            source, references = _plain(marked), [_plain(text) for text in targets]
            required = [word.lower() for word in _MARKED.findall(targets[0])]
            forbidden = [word.lower() for word in _MARKED.findall(marked)]
            max_words = max(len(text.split()) for text in references)
            prompt = f"Use: {', '.join(required)}. Avoid: {', '.join(forbidden)}. At most {max_words} words: {source}\n"
            metadata = {
                "required": required,
                "forbidden": forbidden,
                "max_words": max_words,
                "source": source,
                "frame": _plain(frame.left[0]),
            }
            rows.append(_row(prompt, references, metadata))
    return rows


def _row(prompt: str, references: list[str], metadata: Mapping[str, Any]) -> Row:
    return {"prompt": prompt, "references": list(dict.fromkeys(references)), "metadata": metadata}


def _fill(template: str, fillers: Mapping[str, str]) -> str:
    text = _SLOT.sub(lambda match: fillers[match[1]], template)
    # A slot may begin the sentence, within brackets or without.
    return re.sub(r"[^\W\d_]", lambda match: match[0].upper(), text, count=1)


def _plain(text: str) -> str:
    return _MARKED.sub(r"\1", text)
