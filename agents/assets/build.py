"""Rebuilds the shipped language model: `python -m agents.assets.build [--out DIR]`.

Reads the reviews, the row choice and the tokenizer among the assets of textenvs, trains on one core, measures, and
writes a Hugging Face directory with a model card. Early stopping and the trigram's weights see a twentieth of the
training rows; held-out rows are only measured.
"""

import argparse
import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from agents.assets.card import model_card
from agents.assets.measure import copied_share, log_probs, perplexity, sample
from agents.assets.pretrain import Settings, Trained, train
from agents.assets.trigram import Trigram

TINY = Path(__file__).parent / "tiny"
END_TOKEN = "<|endoftext|>"
DEV_SHARE = 0.05
DEV_SEED, SAMPLE_SEED = 1, 2
NUM_SAMPLES, NUM_SHOWN = 200, 20


class Data(NamedTuple):
    """Everything read from the assets of textenvs; rows have the keys subject, tone, opening and text."""

    tokenizer: Tokenizer
    end: int
    train: list[dict[str, str]]
    dev: list[dict[str, str]]
    heldout: list[dict[str, str]]
    prompts: list[str]

    def encode(self, text: str) -> list[int]:
        """Token ids of a review, end token included."""
        return [*self.tokenizer.encode(text).ids, self.end]


def read_data() -> Data:
    """Read the assets and set the dev slice of the training rows apart."""
    assets = files("textenvs") / "assets"
    tokenizer = Tokenizer.from_str((assets / "tokenizer.json").read_text(encoding="utf-8"))
    lines = gzip.decompress((assets / "reviews.jsonl.gz").read_bytes()).decode("utf-8").splitlines()
    chosen = json.loads((assets / "rows.json").read_text(encoding="utf-8"))
    rows = {split: [json.loads(lines[i]) for i in chosen[split]] for split in ("train", "heldout")}
    order = np.random.default_rng(DEV_SEED).permutation(len(rows["train"])).tolist()
    num_dev = round(DEV_SHARE * len(order))
    dev, rest = ([rows["train"][i] for i in sorted(part)] for part in (order[:num_dev], order[num_dev:]))
    pack = (assets / "prompts_train.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = [json.loads(line)["prompt"] for line in pack]
    end = tokenizer.get_vocab()[END_TOKEN]
    return Data(tokenizer, end, rest, dev, rows["heldout"], prompts)


def vocab_sha256(tokenizer: Tokenizer, end: int) -> str:
    """The vocabulary's fingerprint as the envs compute it: tokens in id order and the end token's id."""
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    table = json.dumps([tokens, end], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(table.encode("utf-8")).hexdigest()


def heldout_perplexities(model: LlamaForCausalLM, data: Data) -> dict[str, float]:
    """Perplexity of model and trigram on the same held-out tokens.

    All tokens but the first of each review (`heldout`), and those after the opening alone (`heldout_rest`), which is
    what the model is asked for: an opening of the held-out kind was never seen in training.
    """
    sequences = [data.encode(row["text"]) for row in data.heldout]
    openings = [len(data.tokenizer.encode(row["opening"]).ids) for row in data.heldout]
    fit, dev = ([data.encode(row["text"]) for row in rows] for rows in (data.train, data.dev))
    trigram = Trigram(fit, dev, data.tokenizer.get_vocab_size())
    results = {}
    for name, scored in (
        ("model", log_probs(model, sequences)),
        ("trigram", [trigram.log_probs(sequence)[1:] for sequence in sequences]),
    ):
        rest = [values[n - 1 :] for values, n in zip(scored, openings, strict=True)]
        results[f"{name}_heldout"], results[f"{name}_heldout_rest"] = perplexity(scored), perplexity(rest)
    return results


def measure(model: LlamaForCausalLM, data: Data) -> tuple[dict[str, float], list[str]]:
    """All measurements, and the samples (openings included) in the order drawn."""
    rng = np.random.default_rng(SAMPLE_SEED)
    openings = [data.prompts[i] for i in rng.integers(len(data.prompts), size=NUM_SAMPLES)]
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    prompts = [data.tokenizer.encode(opening).ids for opening in openings]
    sampled = sample(model, prompts, data.end, model.config.max_position_embeddings, generator)
    texts: list[str] = data.tokenizer.decode_batch(sampled)
    training = [row["text"] for row in (*data.train, *data.dev)]
    results = heldout_perplexities(model, data)
    results["heldout_gain"] = 1 - results["model_heldout"] / results["trigram_heldout"]
    results["heldout_rest_gain"] = 1 - results["model_heldout_rest"] / results["trigram_heldout_rest"]
    results["copied_share"] = copied_share(texts, training)
    results["heldout_copied_share"] = copied_share([row["text"] for row in data.heldout[:NUM_SAMPLES]], training)
    return {name: round(value, 4) for name, value in results.items()}, texts


def save(trained: Trained, data: Data, settings: Settings, directory: Path) -> None:
    """Write the model in float16, measure what was written, and write the card."""
    directory.mkdir(parents=True, exist_ok=True)
    trained.model.half().save_pretrained(directory)
    fingerprint = {"vocab_sha256": vocab_sha256(data.tokenizer, data.end)}
    (directory / "textenvs.json").write_text(json.dumps(fingerprint) + "\n", encoding="utf-8")
    model = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32, local_files_only=True).eval()
    results, texts = measure(model, data)
    facts: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "train_reviews": len(data.train),
        "train_tokens": sum(len(data.encode(row["text"])) for row in data.train),
        "steps": trained.num_steps,
        "best_epoch": trained.best_epoch,
        "dev_perplexities": [round(value, 2) for value in trained.dev_perplexities],
        "seconds": round(trained.seconds),
        "settings": asdict(settings),
        **results,
    }
    (directory / "measurements.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    (directory / "README.md").write_text(model_card(facts, texts[:NUM_SHOWN]), encoding="utf-8")


def build(directory: Path, settings: Settings) -> None:
    """Train, save and measure."""
    data = read_data()
    reviews = [(row["subject"], row["text"]) for row in data.train]
    dev = [data.encode(row["text"]) for row in data.dev]
    trained = train(settings, reviews, dev, data.encode, data.tokenizer.get_vocab_size(), data.end)
    save(trained, data, settings, directory)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Rebuild the shipped language model.")
    parser.add_argument("--out", type=Path, default=TINY, help="directory to write (default: the shipped one)")
    out = parser.parse_args(argv).out
    torch.set_num_threads(1)
    build(out, Settings())
    print((out / "measurements.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
