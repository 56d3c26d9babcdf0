"""Steps a second of the batch env beside Gymnasium's own: `python benchmarks/env_batch.py`.

1,024 rows of 32 slots of `textenvs/Copy-v0` (length 15) under uniform random actions, against
`gym.make_vec("CartPole-v1", num_envs=1024)`: the sides take turns in one process, 100 steps at a time. A step of a row
counts; resets are part of it. Given are medians over the repeats, and the ratio of each turn, median and range.
"""

from __future__ import annotations

import argparse
import os
import time
from functools import partial
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium as gym
import numpy as np
from measure import in_turns, machine, record

import textenvs

NUM_ROWS, NUM_STEPS = 1024, 100


class Constant(textenvs.Reward):
    """1.0, whatever the response."""

    name = "constant"

    def __call__(self, problems: Any, responses: textenvs.Responses) -> textenvs.Scores:
        """See `textenvs.Reward`."""
        return textenvs.Scores(np.ones(len(responses)))


#: By name; what is to be reached of CartPole's steps a second.
REWARDS = {
    "constant": (Constant(), 1.2),
    "the task's own": (None, 0.6),
    "a Python function's": (lambda problem, text: float(len(text)), 0.3),
}


def steps_per_second(envs: Any, rng: np.random.Generator) -> float:
    """Rows stepped a second over one turn."""
    actions = rng.integers(envs.single_action_space.n, size=(NUM_STEPS, NUM_ROWS))
    started = time.perf_counter()
    for row in actions:
        envs.step(row)
    return NUM_STEPS * NUM_ROWS / (time.perf_counter() - started)


def main() -> None:
    """Print and record the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=45)
    parser.add_argument("--no-csv", action="store_true", help="print only")
    arguments, rng = parser.parse_args(), np.random.default_rng(0)
    print(machine())
    theirs = gym.make_vec("CartPole-v1", num_envs=NUM_ROWS)
    for name, (reward, bar) in REWARDS.items():
        ours = gym.make_vec("textenvs/Copy-v0", num_envs=NUM_ROWS, length=15, reward=reward)
        for envs in (ours, theirs):
            envs.reset(seed=0)
            for _ in range(3):
                steps_per_second(envs, rng)
        turns = in_turns(
            partial(steps_per_second, ours, rng), partial(steps_per_second, theirs, rng), arguments.repeats
        )
        options: dict[str, Any] = {"out": None} if arguments.no_csv else {}
        record("env, batch", f"{name} reward", turns, unit="steps/s", peer="CartPole-v1", bar=bar, **options)


if __name__ == "__main__":
    main()
