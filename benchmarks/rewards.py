"""How many responses a second each reward scores: median of `--repeats`, one thread.

    OMP_NUM_THREADS=1 python benchmarks/rewards.py

A batch of 1,000 responses of 25 words against one reference each of 25 words that shares half of them, spelt by the
shipped tokenizer; decoding is part of a score. Responses are new in every repeat, references are not, as in training.
Rewards that ask for something else get it: right and wrong JSON, expressions, and so on, half and half. Prints a row a
reward: responses a second of the wall clock, and of this process's CPU time, which others on the machine cannot take
away; rewards that leave the work to other processes have the former only. Exit status 1 when a bar of the project is
missed in CPU time: exact 20,000 responses a second, BLEU and ROUGE 2,000.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import textenvs
from textenvs import Problem, Responses, Reward, TokenizerVocab
from textenvs.rewards.fluency import LengthRange, ReadingGrade

BARS = {"exact_match": 20_000, "bleu": 2_000, "rouge1": 2_000, "rouge2": 2_000, "rougeL": 2_000}
OTHER_PROCESSES = ("json_schema", "math_answer, symbolic", "python_program")
BATCH, NUM_WORDS = 1_000, 25
#: Rewards that start a process or a network for a response get a smaller batch.
SMALLER = {"log_prob": 100, "python_program": 16, "math_answer, symbolic": 100, "json_schema": 200}
WORDS = Path(__file__).read_text(encoding="utf-8").split()  # about 300 different ones

Pair = tuple[Problem, str]


def sentences(rng: np.random.Generator, count: int) -> list[Pair]:
    """A reference and a response with every second word of it, the others drawn anew; every tenth is the reference."""
    pairs, always = [], np.random.default_rng(0)
    for i in range(count):
        words = always.choice(WORDS, NUM_WORDS).tolist()
        problem = Problem(f"Summarize text {i}:", (" ".join(words).capitalize() + ".",))
        if i % 10:
            words[::2] = rng.choice(WORDS, len(words[::2])).tolist()
        pairs.append((problem, " ".join(words).capitalize() + "."))
    return pairs


def alternating(
    problem: Callable[[int], Problem], right: Callable[[int], str], wrong: str
) -> Callable[..., list[Pair]]:
    """Problem i with a right response where i is even, else with the wrong one."""
    return lambda rng, count: [(problem(i), right(i) if i % 2 == 0 else wrong) for i in range(count)]


def record(i: int) -> str:
    """A JSON object of five members."""
    return json.dumps({"id": i, "name": f"item {i}", "price": i / 4, "tags": ["a", "b"], "stock": {"north": i}})


SCHEMA = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id", "name"]}
ADD = {"entry_point": "add", "cases": [{"args": [k, 2], "expected": k + 2} for k in range(5)]}
SAY = Problem("Say it.", ("x",))
#: Reward -> what it is asked; by name, with ", detail" behind where one reward is measured twice.
INPUTS: dict[str, Callable[..., list[Pair]]] = {
    "regex": alternating(lambda i: Problem("p", (), {"pattern": r"(\w+ )*\d+"}), lambda i: f"item number {i}", "none"),
    "words": lambda rng, count: [
        (Problem("p", (), {"required": ["bridge", "river"], "forbidden": ["mayor"]}), text)
        for _, text in sentences(rng, count)
    ],
    "language": lambda rng, count: [
        (Problem("p", (), {"language": "en"}), text) for _, text in sentences(rng, count)
    ],
    "json": alternating(lambda i: SAY, record, '{"id": 1,'),
    "json_match": alternating(lambda i: Problem("p", (), {"expected": json.loads(record(i))}), record, record(-1)),
    "json_schema": alternating(lambda i: Problem("p", (), {"schema": SCHEMA}), record, '{"id": "x"}'),
    "math_answer": alternating(lambda i: Problem("p", (), {"answer": i}), lambda i: f"so the answer is {i}", "7"),
    "math_answer, symbolic": alternating(
        lambda i: Problem("p", (), {"answer": rf"\frac{{x+{i}}}{{2}}"}), lambda i: rf"\boxed{{({i}+x)/2}}", r"\boxed{x}"
    ),
    "python_program": alternating(
        lambda i: Problem("p", (), ADD), lambda i: f"def add(a, b):\n    return a + b  # {i}", "def add(a, b): return a"
    ),
}  # fmt: skip
WITH_SETTINGS: dict[str, Reward] = {"length_range": LengthRange(10, 30), "reading_grade": ReadingGrade(8)}


def responses_of(texts: Sequence[str], vocab: TokenizerVocab) -> Responses:
    """A fresh batch, nothing decoded yet."""
    rows = [vocab.encode(text) for text in texts]
    ids = np.full((len(rows), max(map(len, rows))), -1, dtype=np.int64)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    return Responses(ids, np.array([len(row) for row in rows]), ["eos"] * len(rows), vocab)


def rates(name: str, repeats: int) -> tuple[list[float], list[float]]:
    """Responses a second of the wall clock and of CPU time, one a repeat."""
    vocab = TokenizerVocab(Path(textenvs.__file__).parent / "assets" / "tokenizer.json")
    rng, count = np.random.default_rng(1), SMALLER.get(name, BATCH)
    reward = WITH_SETTINGS.get(name) or textenvs.as_reward(name.split(",")[0])
    wall, cpu = [], []
    for repeat in range(repeats + 1):
        problems, texts = zip(*INPUTS.get(name, sentences)(rng, count), strict=True)
        responses = responses_of(texts, vocab)
        started = time.perf_counter(), time.process_time()
        scores = reward(problems, responses)
        ended = time.perf_counter(), time.process_time()
        assert "infra_fault" not in scores.status
        assert scores.values.any() or name == "repetition_4"
        if repeat:  # the first one loads the library, and encodes the references
            wall.append(count / (ended[0] - started[0]))
            cpu.append(count / (ended[1] - started[1]))
    return wall, cpu


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="rewards; all by default")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    names = args.names or [*textenvs.REWARDS, "math_answer, symbolic", *WITH_SETTINGS]
    print("| reward | responses/s | responses/CPU s | lowest to highest | bar |\n|---|---|---|---|---|")
    missed = False
    for name in names:
        wall, cpu = rates(name, args.repeats)
        elsewhere, bar = name in OTHER_PROCESSES, BARS.get(name)
        median, measured = statistics.median(cpu), wall if elsewhere else cpu
        missed |= bar is not None and median < bar
        cells = (
            f"{statistics.median(wall):,.0f}",
            "-" if elsewhere else f"{median:,.0f}",
            f"{min(measured):,.0f} to {max(measured):,.0f}",
            "-" if bar is None else f"{bar:,}",
        )
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
