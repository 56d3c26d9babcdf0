"""Rebuilds the packs of Translate, ConstrainedRewrite and StyleTransfer: `python -m textenvs.assets.packs [--check]`.

Without arguments the packs beside this module and their rows in manifest.json are written again. With `--check` they
are only compared, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence

from textenvs.assets import translate
from textenvs.assets.frames import HERE, Row, read_frames, rewrite_rows, style_rows

#: Fillings of a frame in each split.
NUM_TRANSLATE = {"train": 12, "heldout": 8}
NUM_REWRITE = {"train": 8, "heldout": 6}
NUM_STYLE = {"train": 4, "heldout": 4}

#: Files that are a source themselves.
WRITTEN = (
    *("rewrite_frames.txt", "style_frames.txt"),
    *("summarize_train.jsonl", "summarize_heldout.jsonl", "qa_train.jsonl", "qa_heldout.jsonl", "word_problems.json"),
)

LICENCE = "Apache-2.0"
_WRITTEN = "written by this project"
_MADE = "made by textenvs.assets.packs from"


def packs() -> Iterator[tuple[str, list[Row], str]]:
    """File name, rows and source of every pack."""
    for split, rows in translate.rows(NUM_TRANSLATE["train"], NUM_TRANSLATE["heldout"]).items():
        yield f"translate_{split}.jsonl", rows, f"{_MADE} translate.py and spanish.py, {_WRITTEN}"
    for split, frames in read_frames(HERE / "rewrite_frames.txt").items():
        yield f"rewrite_{split}.jsonl", rewrite_rows(frames, NUM_REWRITE[split]), f"{_MADE} rewrite_frames.txt"
    for split, frames in read_frames(HERE / "style_frames.txt").items():
        yield f"style_{split}.jsonl", style_rows(frames, NUM_STYLE[split]), f"{_MADE} style_frames.txt"


def build() -> dict[str, tuple[bytes, str]]:
    """File name -> content and source, of the packs and of the files that they are made from."""
    files = {name: ((HERE / name).read_bytes(), _WRITTEN) for name in WRITTEN}
    for name, rows, source in packs():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        files[name] = ("".join(lines).encode(), source)
    return files


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description="Rebuild the packs of the text tasks.")
    parser.add_argument("--check", action="store_true", help="compare a fresh build with the files, write nothing")
    check = parser.parse_args(argv).check
    files = build()
    if check:
        stale = [name for name, (content, _) in files.items() if (HERE / name).read_bytes() != content]
        print("\n".join(f"{name} differs" for name in stale) or "the committed packs rebuild")
        return int(bool(stale))
    manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    for name, (content, source) in files.items():
        (HERE / name).write_bytes(content)
        manifest["files"][name] = {
            "bytes": len(content),
            "licence": LICENCE,
            "sha256": hashlib.sha256(content).hexdigest(),
            "source": source,
        }
        print(f"{name}: {len(content):,} bytes")
    (HERE / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
