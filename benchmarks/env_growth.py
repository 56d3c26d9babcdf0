"""How the cost of a step of the batch env grows: `python benchmarks/env_growth.py`.

`gym.make_vec("textenvs/Copy-v0")` under uniform random actions, along three ways: 1 to 65,536 rows (32 slots, V = 32),
32 to 1,024 slots (1,024 rows, V = 32) and V = 32 to 50,000 (1,024 rows, 32 slots), with a constant reward and with the
task's own. Slots are half prompt, half response; the prompt has 16 tokens throughout. Each measurement steps for about
`--seconds`, then copies the observation of the same run (`numpy.ndarray.copy`) for as long. Ends, scores and starts are
part of a step; every problem has been played once before, so that encoding the 8,000 prompts and references is not, and
nobody looks at the infos, which are written at the first look.
The share is seconds of a copy / seconds of a step: 1 would be an env whose step costs no more than what it must write.
Medians over the repeats; the measurements of all points take turns.

Writes benchmarks/growth.csv and benchmarks/growth.png; `--plot-only` draws the CSV file again.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium as gym
import numpy as np
from matplotlib.figure import Figure
from measure import RESULTS, commit, machine

import textenvs

HERE = RESULTS.parent
ROWS, SLOTS, SYMBOLS = 1024, 32, 32
#: panel -> the values on its axis; what is not on the axis stays at the three values above.
WAYS = {
    "rows": [4**k for k in range(9)],
    "slots": [32, 64, 128, 256, 512, 1024],
    "tokens": [32, 100, 320, 1000, 3200, 10_000, 50_000],
}
AXES = {"rows": "rows N", "slots": "slots of a row (P + T)", "tokens": "tokens of the vocabulary V"}
#: Blue and vermilion of Okabe and Ito: told apart by the colour-blind, and by their marks in grey.
LOOKS = {"constant": ("#0072B2", "o", "-"), "the task's own": ("#D55E00", "s", "--")}


class Point(NamedTuple):
    """One env of a curve, and what was measured of it: medians over the repeats."""

    way: str
    reward: str
    rows: int
    slots: int
    tokens: int
    steps_per_second: float  # of a row
    share: float  # seconds of a copy of the observation / seconds of a step
    lowest: float
    highest: float


COLUMNS = dict(zip(Point._fields, (str, str, int, int, int, float, float, float, float), strict=True))


class Constant(textenvs.Reward):
    """1.0, whatever the response."""

    name = "constant"

    def __call__(self, problems: Any, responses: textenvs.Responses) -> textenvs.Scores:
        """See `textenvs.Reward`."""
        return textenvs.Scores(np.ones(len(responses)))


class Run:
    """One env of a curve, kept running between the turns."""

    def __init__(self, way: str, value: int, reward: str, seconds: float) -> None:
        size = {"rows": ROWS, "slots": SLOTS, "tokens": SYMBOLS} | {way: value}
        self.way, self.reward, self.size, self.seconds = way, reward, size, seconds
        self.envs: Any = gym.make_vec(
            "textenvs/Copy-v0",
            num_envs=size["rows"],
            length=15,
            max_prompt_tokens=size["slots"] // 2,
            max_new_tokens=size["slots"] // 2,
            vocab=vocabulary(size["tokens"]),
            reward=Constant() if reward == "constant" else None,
        )
        self.rng = np.random.default_rng(0)
        self._play_every_problem()
        self.observation, _ = self.envs.reset(seed=0)
        self.num_steps, self.num_copies = 8, 8
        self.turns: list[tuple[float, float]] = []  # seconds of a step, seconds of a copy

    def _play_every_problem(self) -> None:
        num_rows, rules = self.size["rows"], self.envs.rules
        for first in range(0, len(rules.task), num_rows):
            self.envs.reset(options={"problem": np.arange(first, first + num_rows) % len(rules.task)})
            self.envs.step(np.full(num_rows, rules.vocab.eos_id))

    def turn(self, *, kept: bool) -> None:
        """Step, then copy, for about as long as asked; a turn that is not kept finds out how often that is."""
        actions = self.rng.integers(self.size["tokens"], size=(self.num_steps, self.size["rows"]))
        started = time.perf_counter()
        for row in actions:
            self.observation = self.envs.step(row)[0]
        step = (time.perf_counter() - started) / self.num_steps
        started = time.perf_counter()
        for _ in range(self.num_copies):  # each replaces the one before, as the next observation does
            self.observation = self.observation.copy()
        copied = (time.perf_counter() - started) / self.num_copies
        if kept:
            self.turns.append((step, copied))
        else:  # at least two episodes, so that ends and starts are among the steps
            self.num_steps = max(2 * self.size["slots"] // 2, int(self.seconds / step))
            self.num_copies = max(8, int(self.seconds / copied))

    def point(self) -> Point:
        """What was measured."""
        shares = [copied / step for step, copied in self.turns]
        speed = self.size["rows"] / median(step for step, _ in self.turns)
        return Point(self.way, self.reward, *self.size.values(), speed, median(shares), min(shares), max(shares))


def vocabulary(num_tokens: int) -> textenvs.CharVocab:
    """The symbols that Copy's prompts are spelt with, then as many others as make V with the end token."""
    spelt = "abcdefgh="
    return textenvs.CharVocab(spelt + "".join(map(chr, range(0x10000, 0x10000 + num_tokens - 1 - len(spelt)))))


def measured(repeats: int, seconds: float) -> Iterator[Point]:
    """Every point of the three ways, each as it is done; one way's envs are in memory at a time."""
    for way, values in WAYS.items():
        runs = [Run(way, value, reward, seconds) for value in values for reward in LOOKS]
        for turn in range(-2, repeats):
            for run in runs if turn % 2 else reversed(runs):
                run.turn(kept=turn >= 0)
        for run in runs:
            yield run.point()


def plot(points: list[Point], path: Path, circumstances: str) -> None:
    """Three panels: the share of a copy along rows, slots and V."""
    figure = Figure(figsize=(7, 13), layout="constrained")
    figure.suptitle("What a step of the batch env costs beside\na copy of its observation (up is faster)", fontsize=15)
    for axes, (way, label) in zip(figure.subplots(3, 1, sharey=True), AXES.items(), strict=True):
        for reward, (colour, mark, line) in LOOKS.items():
            curve = [point for point in points if (point.way, point.reward) == (way, reward)]
            x = [getattr(point, way) for point in curve]
            axes.plot(x, [point.share for point in curve], line, marker=mark, color=colour, lw=2, ms=7, label=reward)
            spread = [point.lowest for point in curve], [point.highest for point in curve]
            axes.fill_between(x, *spread, color=colour, alpha=0.15, lw=0)
        axes.set_xscale("log", base=2 if way != "tokens" else 10)
        axes.set_yscale("log")
        axes.set_ylim(0.001, 1.1)
        axes.set_yticks([0.001, 0.01, 0.1, 1], ["0.1 %", "1 %", "10 %", "100 %"])
        fixed = {"rows": f"N = {ROWS:,}", "slots": f"{SLOTS} slots", "tokens": f"V = {SYMBOLS}"}
        axes.set_title(", ".join(text for name, text in fixed.items() if name != way), fontsize=13)
        ticks = WAYS[way] if way != "tokens" else [32, 100, 1000, 10_000, 50_000]
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=11)
        axes.minorticks_off()
        axes.set_xlabel(label, fontsize=13)
        axes.set_ylabel("time of a copy / time of a step", fontsize=13)
        axes.tick_params(axis="y", labelsize=11)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(title="reward", fontsize=12, title_fontsize=12)
    figure.text(0.5, -0.005, circumstances, ha="center", va="top", fontsize=8)
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})


def main() -> None:
    """Measure, write the CSV file and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.1, help="of stepping, and of copying, in a turn")
    parser.add_argument("--out", type=Path, default=HERE, help="directory of growth.csv and growth.png")
    parser.add_argument("--plot-only", action="store_true", help="measure nothing and draw growth.csv again")
    arguments = parser.parse_args()
    file, image = arguments.out / "growth.csv", arguments.out / "growth.png"
    if not arguments.plot_only:
        where = {"machine": machine(), "commit": commit(), "numpy": np.__version__}
        print(where["machine"], "1 thread")
        with file.open("w", newline="", encoding="utf-8") as target:
            writer = csv.writer(target)
            writer.writerow([*Point._fields, *where])
            for point in measured(arguments.repeats, arguments.seconds):
                print(
                    f"{point.way:>6} {getattr(point, point.way):>6,} | {point.reward}: "
                    f"{point.steps_per_second:,.4g} steps/s, {point.share:.4f} of a copy "
                    f"({point.lowest:.4f} to {point.highest:.4f})",
                    flush=True,
                )
                numbers = [f"{x:.5g}" if isinstance(x, float) else x for x in point]
                writer.writerow([*numbers, *where.values()])
    with file.open(newline="", encoding="utf-8") as source:
        lines = list(csv.DictReader(source))
    points = [Point(*(kind(line[name]) for name, kind in COLUMNS.items())) for line in lines]
    last = lines[-1]
    plot(points, image, f"{last['machine']}, 1 thread; numpy {last['numpy']}; commit {last['commit']}")


if __name__ == "__main__":
    main()
