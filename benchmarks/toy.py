"""Episodes and seconds to 95 % of the optimum on the string tasks: our algorithms on a scratch LM, and SB3's agents.

    python benchmarks/toy.py --agents ppo rloo grpo --seeds 0 1 2 3 4 5 6 7 8 9

All learn on the same env ids (8 symbols, dense rewards), one torch thread a job. "Reached" means a mean training return
of at least 0.95 over 128 successive episodes, counted by episode for all agents, wherever an update of theirs ends; a
job ends there. Seconds are wall time from the start of training, ours with its logging, without checkpoints, and to the
end of the update that follows the episode. A job that does not get there within its episodes says "not reached" and
counts as later than any other. The interval of a median is between order statistics, at least 95 % whatever the
distribution. Writes one line a job to a CSV.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from jobs import run_jobs

import textenvs
from agents.statistics import median_interval

os.environ.setdefault("OMP_NUM_THREADS", "1")

TASKS = ("Copy", "Reverse", "Sort", "Count")
ROWS = ("reinforce", "a2c", "ppo", "rloo", "grpo")
SB3 = ("sb3-ppo", "sb3-a2c", "sb3-dqn", "sb3-qrdqn")
TARGET, WINDOW = 0.95, 128
_GROUPS = {"credit": "to_go", "group_size": 4, "episodes_per_update": 32, "num_minibatches": 2}
#: What differs from the rows of `ALGORITHMS`, chosen on seeds from 100 on (benchmarks/LOG.md). GRPO is without its
#: standard deviation: with it and groups of four, sort is not reached, as groups that are nearly solved weigh too much.
SETTINGS: dict[str, dict[str, Any]] = {
    "ppo": {"episodes_per_update": 128, "num_epochs": 6, "num_minibatches": 2, "gae_lambda": 0.6, "value_coef": 0.5},
    "rloo": _GROUPS,
    "grpo": {**_GROUPS, "normalize": "none"},
}
#: Of training, and of the learning rate's fall to 0, which a job that is quick does not live to see. Copy and reverse;
#: all others.
NUM_EPISODES = {"ppo": (6_000, 9_600), "sb3": (20_000, 20_000)}
GROUPED_EPISODES = (12_000, 16_000)


class Reached(Exception):
    """The target was met: the benchmark needs nothing after it."""


def prepare() -> None:
    """Make the ids known, and torch work on one thread."""
    import torch

    textenvs.register_envs()
    torch.set_num_threads(1)


def budget(agent: str, task: str) -> int:
    """Return the episodes an agent may take on a task."""
    return NUM_EPISODES.get(agent.split("-")[0], GROUPED_EPISODES)[task not in ("Copy", "Reverse")]


def ours(row: str, task: str, kwargs: dict[str, Any], seed: int, overrides: dict[str, Any]) -> tuple[int, float] | None:
    """Episodes and seconds of a row of `ALGORITHMS`, or None."""
    import agents.train
    from agents.algorithms import ALGORITHMS
    from agents.baselines import BaselineResult
    from agents.rollout import Rollout
    from agents.runlog import RunLog

    overrides = SETTINGS.get(row, {}) | overrides
    config = agents.train.TrainConfig(
        task if "-v" in task else f"textenvs/{task}-v0",
        kwargs,
        model_kwargs=overrides.pop("model_kwargs", {}),
        num_episodes=overrides.pop("num_episodes", budget(row, task)),
        algorithm=replace(ALGORITHMS[row], **overrides),
        seed=seed,
        checkpoint_every=10**6,
    )
    returns: list[float] = []
    seconds: list[float] = []
    curve = BaselineResult(returns, seconds)
    started = time.perf_counter()

    class Watch(RunLog):
        """Ends the run at the target."""

        def write(self, update: int, metrics: dict[str, float], rollout: Rollout, *rest: Any) -> None:
            super().write(update, metrics, rollout, *rest)
            returns.extend(rollout.returns.tolist())
            seconds.extend([time.perf_counter() - started] * len(rollout))
            if curve.episodes_to(TARGET, WINDOW):
                raise Reached

    watched = patch.object(agents.train, "RunLog", Watch)
    with watched, tempfile.TemporaryDirectory() as folder, suppress(Reached):
        agents.train.train(config, Path(folder) / "run", quiet=True)
    return curve.episodes_to(TARGET, WINDOW)


def sb3(agent: str, task: str, kwargs: dict[str, Any], seed: int) -> tuple[int, float] | None:
    """The same of an agent of Stable-Baselines3 or sb3-contrib, such as "sb3-ppo"."""
    from agents.baselines import train_sb3

    name, num_episodes = agent.removeprefix("sb3-"), budget(agent, task)
    result = train_sb3(name, f"textenvs/{task}-v0", kwargs, num_episodes=num_episodes, seed=seed, target=TARGET)
    return result.episodes_to(TARGET)


def job(agent: str, task: str, seed: int, length: int, overrides: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    prepare()
    kwargs = {"length": length, "alphabet": "abcdefgh", "dense": True}
    reached = sb3(agent, task, kwargs, seed) if agent in SB3 else ours(agent, task, kwargs, seed, overrides)
    episodes, seconds = reached or ("", "")
    row = {"agent": agent, "task": task, "length": length, "seed": seed, "episodes": episodes, "seconds": seconds}
    print(row, flush=True)
    return row


def cell(rows: list[dict[str, Any]]) -> str:
    """How many seeds got there, and the median episodes with their interval."""
    episodes = [float(row["episodes"]) if row["episodes"] else math.inf for row in rows]
    seconds = [float(row["seconds"]) if row["seconds"] else math.inf for row in rows]
    num_reached = sum(map(math.isfinite, episodes))
    if not num_reached:
        return f"0 of {len(rows)}"
    low, high = median_interval(episodes)
    spread = f" [{low:,.0f}, {high:,.0f}]" if math.isfinite(low) else ""
    return f"{num_reached} of {len(rows)}: {median(episodes):,.0f}{spread}, {median(seconds):.1f} s"


def main() -> None:
    """Run all jobs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--agents", nargs="+", default=["ppo", "rloo", "grpo", *SB3], choices=ROWS + SB3)
    parser.add_argument("--length", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--overrides", type=json.loads, default={}, help="of our algorithms' coefficients, as JSON")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("toy.csv"))
    arguments = parser.parse_args()
    rest = ([arguments.length], [arguments.overrides])
    jobs = list(itertools.product(arguments.agents, arguments.tasks, arguments.seeds, *rest))
    rows = run_jobs(job, jobs, arguments.jobs, arguments.out)
    print(f"| agent | {' | '.join(task.lower() for task in arguments.tasks)} |")
    print("|---" * (1 + len(arguments.tasks)) + "|")
    for agent in arguments.agents:
        cells = [cell([r for r in rows if (r["agent"], r["task"]) == (agent, task)]) for task in arguments.tasks]
        print(f"| {agent} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
