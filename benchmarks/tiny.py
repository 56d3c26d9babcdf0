"""PPO from scratch to 95 % of the optimum on copy, beside the agents of Stable-Baselines3 and sb3-contrib.

    python benchmarks/tiny.py

Copy with 4 of 8 symbols and dense rewards. Reached is a mean training return of 0.95 over 128 successive episodes,
counted by episode wherever an update ends, and seconds are CPU time of the process. Our PPO trains a language model
(GPT-2, one layer of width 96) from random weights through `train`, with its records and checks; the others train
attention over embedded tokens and two dense layers (`agents/sb3.py`). The settings of all were chosen on seeds from 100
on (`LOG.md`); gamma is 0 where that is better, as each reward of this task answers for its own token.

Everybody trains on every seed, in turns within one process and thread, after a warm-up that does not count; each seed
begins with another agent, so that all meet the same neighbours. DQN, the best of the others, has two settings, one
tuned for few episodes and one for few seconds; our PPO has one, which is held to both. The best of the others is the
one with the lowest median, of episodes and of seconds apart.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from measure import RESULTS, machine, record
from tune import TARGET, WINDOW, Curve, learn, prepare

from agents.statistics import median_interval

ROW, TASK = "end to end, tiny", "Copy"
WARM_UP_SEED = 99
NAME = "our ppo"
#: Of ours, beside the row of `ALGORITHMS`.
OURS: dict[str, Any] = {
    "learning_starts": 64,
    "episodes_per_update": 16,
    "num_epochs": 5,
    "num_minibatches": 1,
    "learning_rate": 1.6e-3,
    "gamma": 0.0,
    "baseline": "none",  # tokens that earn nothing then move nothing; a critic of few episodes is noise on them
    "normalize": "none",  # with it, symbols are settled on a wrong answer before the right one was tried
    "clip_range": 0.5,
    "entropy_coef": 0.01,
    "imitation_coef": 0.5,  # a token once rewarded is right for ever
    "imitated_episodes": 12,
    "model_kwargs": {"num_layers": 1, "hidden_size": 96, "num_heads": 2, "init_std": 0.06},
}
_WIDE = {"policy_kwargs": {"net_arch": [128, 128], "features_extractor_kwargs": {"embedding_dim": 64}}}
_DQN = {"gamma": 0.0, "learning_starts": 200, **_WIDE}
#: Of the others, beside `agents.baselines.BASELINES`.
OTHERS: dict[str, dict[str, Any]] = {
    "dqn": _DQN | {"learning_rate": 2e-3, "gradient_steps": 8, "exploration_steps": 800},
    "dqn, fewer steps": _DQN
    | {"learning_rate": 3.5e-3, "gradient_steps": 1, "batch_size": 192, "exploration_steps": 1_000},
    "ppo": {"gamma": 0.0},
    "maskable_ppo": {"gamma": 0.0},  # every token of copy is legal
    "a2c": {"gamma": 0.0},
}
#: The learning rate of ours falls to 0 within these, which are also all it gets.
NUM_OWN_EPISODES = 1_200
NUM_EPISODES = 5_000  # after which one of the others has not reached it

Result = tuple[float, float]  # episodes and seconds, infinite where not reached


def run(name: str, seed: int, num_episodes: int | None = None) -> Result:
    """Episodes and CPU seconds of `NAME` or of a key of `OTHERS`, such as "dqn" or "dqn, fewer steps"."""
    agent, settings, most = "ppo", OURS, NUM_OWN_EPISODES
    if name != NAME:
        agent, settings, most = f"sb3-{name.split(',')[0]}", OTHERS[name], NUM_EPISODES
    curve = Curve(num_episodes=num_episodes or most)
    learn(agent, TASK, seed, settings, curve)
    return curve.result.episodes_to(TARGET, WINDOW) or (math.inf, math.inf)


def run_in_turns(agents: Mapping[str, Callable[[int], Result]], seeds: Iterable[int]) -> dict[str, list[Result]]:
    """Call every agent once a seed, beginning with another one each time: what they returned, in the order of seeds."""
    results: dict[str, list[Result]] = {name: [] for name in agents}
    for turn, seed in enumerate(seeds):
        names = list(agents)
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            results[name].append(agents[name](seed))
            episodes, seconds = results[name][-1]
            print(f"seed {seed}, {name}: {episodes:,.0f} episodes, {seconds:.2f} s", flush=True)
    return results


def cell(results: list[Result]) -> str:
    """How many seeds got there, the median episodes with an interval of order statistics, the median seconds."""
    episodes, seconds = zip(*results, strict=True)
    low, high = median_interval(episodes)
    spread = f" [{low:,.0f}, {high:,.0f}]" if math.isfinite(low) else ""
    reached = f"{sum(map(math.isfinite, episodes))} of {len(episodes)}"
    return f"{reached}: {median(episodes):,.0f}{spread}, {median(seconds):.1f} s"


def best(results: Mapping[str, list[Result]], unit: int) -> str:
    """The name with the lowest median of episodes (unit 0) or of seconds (unit 1)."""
    return min(results, key=lambda name: median([result[unit] for result in results[name]]))


def main() -> None:
    """Train everybody on every seed, print the table and append both comparisons to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10, help="seeds, from --first-seed on")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--others", nargs="+", default=list(OTHERS), choices=list(OTHERS))
    parser.add_argument("--no-csv", action="store_true", help="print only")
    arguments = parser.parse_args()
    prepare()
    print(f"{machine()}, 1 thread")
    agents = {name: partial(run, name) for name in (NAME, *arguments.others)}
    for name in agents:
        run(name, WARM_UP_SEED, num_episodes=160)
    results = run_in_turns(agents, range(arguments.first_seed, arguments.first_seed + arguments.repeats))
    others = {name: results[name] for name in arguments.others}
    peers = [best(others, unit) for unit in range(2)]
    print("| agent | reached: median episodes, seconds | episodes of the best / its | seconds of the best / its |")
    print("|---|---|---|---|")
    for name, both in results.items():
        shares = [
            median([result[unit] for result in others[peer]]) / median([r[unit] for r in both])
            for unit, peer in enumerate(peers)
        ]
        print(f"| {name} | {cell(both)} | {shares[0]:.2f} | {shares[1]:.2f} |")
    out = None if arguments.no_csv else RESULTS
    for unit, (name, peer) in enumerate(zip(("episodes", "s"), peers, strict=True)):
        pairs = [(mine[unit], other[unit]) for mine, other in zip(results[NAME], others[peer], strict=True)]
        record(ROW, f"{name} to 0.95 on copy", pairs, unit=name, peer=peer, bar=1.0, out=out)


if __name__ == "__main__":
    main()
