"""Steps a second of one env, against Gymnasium's CartPole: both as `gym.make` gives them, with their resets.

    python benchmarks/env_step.py

Uniform random actions, a NumPy integer a step as `action_space.sample()` gives; an episode that ends is reset, and its
reset is in the time. Episodes of Copy have 4 steps and those of CartPole 22 on average: a reset, a score and a final
info come five times as often.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium as gym
import numpy as np
from measure import in_turns, machine, record

import textenvs

NUM_STEPS = 10_000


def steps_per_second(env: gym.Env[Any, Any], rng: np.random.Generator) -> float:
    """Steps a second over one turn."""
    actions = list(rng.integers(env.action_space.n, size=NUM_STEPS))  # type: ignore[attr-defined]
    env.reset()
    started = time.perf_counter()
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    return NUM_STEPS / (time.perf_counter() - started)


def main() -> None:
    """Print and record the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=45)
    parser.add_argument("--no-csv", action="store_true", help="print only")
    arguments, rng = parser.parse_args(), np.random.default_rng(0)
    print(machine())
    textenvs.register_envs()
    ours, theirs = gym.make("textenvs/Copy-v0"), gym.make("CartPole-v1")
    for env in (ours, theirs):
        env.reset(seed=0)
        steps_per_second(env, rng)
    turns = in_turns(lambda: steps_per_second(ours, rng), lambda: steps_per_second(theirs, rng), arguments.repeats)
    options = {"out": None} if arguments.no_csv else {}
    record("env, one row", "Copy-v0", turns, unit="steps/s", peer="CartPole-v1", bar=1.0, **options)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
