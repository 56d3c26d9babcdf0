"""Rebuilds the text assets from reviews.jsonl.gz: `python -m textenvs.assets.build [--check]`.

Without arguments the files beside this module are written again. With `--check` they are built in a temporary
directory and compared: row choice, tokenizer and prompt packs byte for byte, the classifier's accuracy within 2 %.
Needs the extras `dev` (scikit-learn) and `rewards` (vaderSentiment).
"""

import argparse
import gzip
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textenvs.assets import sentiment
from textenvs.assets.clean import Review, clean, is_heldout
from textenvs.rewards.classifiers import SentimentReward, VaderReward

HERE = Path(__file__).parent
SOURCE = HERE / "reviews.jsonl.gz"
END_TOKEN = "<|endoftext|>"
NUM_TOKENS = 2048
EXACT = ("rows.json", "tokenizer.json", "prompts_train.jsonl", "prompts_heldout.jsonl")
MAX_RELATIVE_CHANGE = 0.02

LICENCE = "Apache-2.0"
_MADE = "made by textenvs.assets.build from reviews.jsonl.gz"
SOURCES = {
    "reviews.jsonl.gz": "sampled by this project from SmolLM2-135M-Instruct (Hugging Face, Apache-2.0)",
    **dict.fromkeys((*EXACT, "sentiment.json"), _MADE),
}


def read_reviews(path: Path = SOURCE) -> list[Review]:
    """All rows of the source file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [Review(row, **json.loads(line)) for row, line in enumerate(lines)]


def train_tokenizer(texts: Iterable[str]) -> Any:
    """A byte-level BPE with `NUM_TOKENS` tokens, the end token first; any UTF-8 text survives encode and decode."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_TOKENS,
        special_tokens=[END_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def prompt_pack(reviews: Iterable[Review]) -> dict[str, dict[str, str | None]]:
    """The distinct openings in alphabetical order, each with its metadata: template, and subject where it names one."""
    pack: dict[str, dict[str, str | None]] = {}
    for review in reviews:
        subject = review.subject if review.subject in review.opening else None
        pack[review.opening] = {"opening": review.template, "subject": subject}
    return dict(sorted(pack.items()))


def build(directory: Path) -> dict[str, Any]:
    """Write every derived asset into a directory.

    Returns:
        What manifest.json says of them besides the files: counts and measurements.
    """
    source = read_reviews()
    kept, dropped = clean(source)
    train = [review for review in kept if not is_heldout(review)]
    heldout = [review for review in kept if is_heldout(review)]
    _write_json(directory / "rows.json", {"train": [r.row for r in train], "heldout": [r.row for r in heldout]})

    tokenizer = train_tokenizer(review.text for review in train)
    tokenizer.save(str(directory / "tokenizer.json"))
    packs = {"train": prompt_pack(train)}
    packs["heldout"] = {p: metadata for p, metadata in prompt_pack(heldout).items() if p not in packs["train"]}
    for split, pack in packs.items():
        lines = [json.dumps({"prompt": prompt, "metadata": metadata}) + "\n" for prompt, metadata in pack.items()]
        (directory / f"prompts_{split}.jsonl").write_text("".join(lines), encoding="utf-8")

    train_labelled, heldout_labelled = sentiment.labelled(train), sentiment.labelled(heldout)
    sentiment.save(sentiment.train(train_labelled, _compounds(train_labelled)), directory / "sentiment.json")
    scores = SentimentReward(directory / "sentiment.json").score_texts([review.text for review in heldout_labelled])
    lengths = [len(tokenizer.encode(prompt).ids) for pack in packs.values() for prompt in pack]
    return {
        "counts": {
            "source": len(source),
            "dropped": dropped,
            "kept": len(kept),
            "train": len(train),
            "heldout": len(heldout),
            "prompts_train": len(packs["train"]),
            "prompts_heldout": len(packs["heldout"]),
            "tokenizer_tokens": tokenizer.get_vocab_size(),
            "max_prompt_tokens": max(lengths),
        },
        "sentiment": sentiment.measure(heldout_labelled, scores, _compounds(heldout_labelled)),
    }


def manifest(directory: Path, results: dict[str, Any]) -> dict[str, Any]:
    """Every asset with licence, source, size and hash, and the measured results; packs made elsewhere keep theirs."""
    listed = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))["files"]
    files = {
        name: {
            "bytes": (directory / name).stat().st_size,
            "licence": LICENCE,
            "sha256": hashlib.sha256((directory / name).read_bytes()).hexdigest(),
            "source": source,
        }
        for name, source in SOURCES.items()
    }
    return {"files": {**listed, **files}, **results}


def differences(fresh: Path, results: dict[str, Any]) -> list[str]:
    """One sentence for each way in which a fresh build is not the committed one; empty when all is well."""
    found = [f"{name} differs" for name in EXACT if (fresh / name).read_bytes() != (HERE / name).read_bytes()]
    committed = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    if results["counts"] != committed["counts"]:
        found.append("the counts in manifest.json differ")
    before, after = committed["sentiment"]["accuracy"], results["sentiment"]["accuracy"]
    if abs(after - before) > MAX_RELATIVE_CHANGE * before:
        found.append(f"the classifier's accuracy is {after}, committed {before}")
    stale = [
        n for n, f in committed["files"].items() if hashlib.sha256((HERE / n).read_bytes()).hexdigest() != f["sha256"]
    ]
    return found + [f"{name} is not the file that manifest.json lists" for name in stale]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description="Rebuild the text assets.")
    parser.add_argument("--check", action="store_true", help="compare a fresh build with the files, write nothing")
    if parser.parse_args(argv).check:
        with tempfile.TemporaryDirectory() as name:
            results = build(Path(name))
            found = differences(Path(name), results)
        print(json.dumps(results, indent=2))
        print("\n".join(found) or "the committed assets rebuild")
        return int(bool(found))
    results = build(HERE)
    (HERE / "manifest.json").write_text(json.dumps(manifest(HERE, results), indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))
    return 0


def _compounds(reviews: Sequence[Review]) -> NDArray[np.float64]:
    """(B,) VADER's compound scores in [-1, 1]."""
    return VaderReward().score_texts([review.text for review in reviews]) * 2 - 1


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
