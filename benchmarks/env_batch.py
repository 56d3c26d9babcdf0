"""Steps a second of the batch env beside Gymnasium's own: `python benchmarks/env_batch.py`.

1,024 rows of 32 slots of `textenvs/Copy-v0` (length 15) under uniform random actions, against
`gym.make_vec("CartPole-v1", num_envs=1024)`: the sides take turns in one process, 100 steps at a time. A step of a row
counts; resets are part of it. Given are medians over the repeats, and the ratio of each turn, median and range.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium as gym
import numpy as np

import textenvs

NUM_ROWS, NUM_STEPS = 1024, 100


class Constant(textenvs.Reward):
    """1.0, whatever the response."""

    name = "constant"

    def __call__(self, problems: Any, responses: textenvs.Responses) -> textenvs.Scores:
        """See `textenvs.Reward`."""
        return textenvs.Scores(np.ones(len(responses)))


REWARDS = {"constant": Constant(), "the task's own": None, "a Python function": lambda problem, text: float(len(text))}


def steps_per_second(envs: Any, rng: np.random.Generator) -> float:
    """Rows stepped a second over one turn."""
    actions = rng.integers(envs.single_action_space.n, size=(NUM_STEPS, NUM_ROWS))
    started = time.perf_counter()
    for row in actions:
        envs.step(row)
    return NUM_STEPS * NUM_ROWS / (time.perf_counter() - started)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    repeats, rng = parser.parse_args().repeats, np.random.default_rng(0)
    theirs = gym.make_vec("CartPole-v1", num_envs=NUM_ROWS)
    print("| reward | ours, steps/s | CartPole, steps/s | ratio | lowest to highest |\n|---|---|---|---|---|")
    for name, reward in REWARDS.items():
        ours = gym.make_vec("textenvs/Copy-v0", num_envs=NUM_ROWS, length=15, reward=reward)
        for envs in (ours, theirs):
            envs.reset(seed=0)
            for _ in range(3):
                steps_per_second(envs, rng)
        pairs = np.array([[steps_per_second(ours, rng), steps_per_second(theirs, rng)] for _ in range(repeats)])
        ratios = pairs[:, 0] / pairs[:, 1]
        one, other = np.median(pairs, axis=0)
        span = f"{ratios.min():.2f} to {ratios.max():.2f}"
        print(f"| {name} | {one:,.0f} | {other:,.0f} | {np.median(ratios):.2f} | {span} |")


if __name__ == "__main__":
    main()
