"""Reads the files that a report shows. They are hostile: each is read strictly, within limits, and never run.

What a file holds is turned into what may be shown by `visible`, in one place: `page` and `markdown` do it to
everything that they are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import textenvs

MAX_TEXT = 10_000  # characters of one text that are shown; the number left out is said
MAX_SAMPLE_BYTES = 12 << 20  # of the lines of samples.jsonl that go into a page, all runs together
_EDGE_SHARE = 0.25  # of those bytes, for each end of a run

_NO_ENVIRONMENT: dict[str, Any] = {}


def visible(value: Any) -> Any:
    """Make every text in a JSON value one that can be shown: nothing invisible, nothing endless; keys too."""
    if isinstance(value, str):
        cut = len(value) - MAX_TEXT
        return textenvs.printable(value) if cut <= 0 else f"{textenvs.printable(value[:MAX_TEXT])}… ({cut:,} more)"
    if isinstance(value, Mapping):
        return {visible(str(key)): visible(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [visible(item) for item in value]
    return value


def read_object(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        ValueError: when it holds anything else.
    """
    try:
        value = textenvs.read_json(path.read_text(encoding="utf-8"), textenvs.JSON_LINE)
    except ValueError as error:
        raise ValueError(f"{path} must hold a JSON object, got {error}; restore it") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(value).__name__}; restore it")
    return value


def read_lines(path: Path, *, max_bytes: int | None = None) -> tuple[list[dict[str, Any]], int, bool]:
    """Read JSON objects, one a line.

    Args:
        path: the file; one that does not exist has no lines.
        max_bytes: read only so much: the first and the last lines, and between them every so many; None for all.

    Returns:
        The objects; how many lines there are; whether the last one is cut, as in a run that is being written or was
        killed: it is left out and not counted.

    Raises:
        ValueError: for a whole line that is no JSON object, with its number.
    """
    if not path.is_file():
        return [], 0, False
    sizes, is_cut = [], False
    with path.open("rb") as file:
        for line in file:
            is_cut = not line.endswith(b"\n")
            sizes.append(len(line))
    if is_cut:
        sizes.pop()
    kept = set(range(len(sizes))) if max_bytes is None else _choose(sizes, max_bytes)
    found = []
    with path.open("rb") as file:
        for k, line in enumerate(file):
            if k in kept:
                found.append(_line(line, f"line {k + 1} of {path}"))
    return found, len(sizes), is_cut


def _line(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = textenvs.read_json(line.decode(), textenvs.JSON_LINE)
    except ValueError as error:
        raise ValueError(f"{where} must be a JSON object, got {error}; restore the file") from None
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be a JSON object, got {type(value).__name__}; restore the file")
    return value


def _choose(sizes: list[int], max_bytes: int) -> set[int]:
    """Choose lines of so many bytes: a quarter from each end, the rest evenly from between."""
    if sum(sizes) <= max_bytes:
        return set(range(len(sizes)))
    kept: set[int] = set()
    for order in (range(len(sizes)), range(len(sizes) - 1, -1, -1)):
        room = _EDGE_SHARE * max_bytes
        for k in order:
            room -= sizes[k]
            if room < 0:
                break
            kept.add(k)
    between = [k for k in range(len(sizes)) if k not in kept]
    room = max_bytes - sum(sizes[k] for k in kept)
    step = max(1.0, sum(sizes[k] for k in between) / max(room, 1))
    for i in range(int(len(between) / step)):
        k = between[int(i * step)]
        room -= sizes[k]
        if room < 0:
            break
        kept.add(k)
    return kept


def run_environment(run_dir: Path) -> dict[str, Any]:
    """Return what a run's newest checkpoint says it was computed by: versions, processor, commit; {} without one."""
    manifests = sorted((run_dir / "checkpoints").glob("step_*/manifest.json"))
    if not manifests:
        return _NO_ENVIRONMENT
    environment = read_object(manifests[-1]).get("environment")
    return environment if isinstance(environment, dict) else _NO_ENVIRONMENT
