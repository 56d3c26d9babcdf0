"""Episodes and seconds to 95 % of the optimum on copy, reverse and sort: our PPO on a scratch LM against SB3's agents.

    python benchmarks/toy.py --seeds 0 1 2 --jobs 2

Both learn on the same env ids (length 4, 8 symbols, dense rewards), one torch thread a job. "Reached" means a mean
training return of at least 0.95 over 128 successive episodes; seconds are wall time from the start of training, ours
with its logging and checkpoints. A job that does not get there within its episodes says "not reached". Writes one line
a job to benchmarks/toy.csv.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import textenvs

os.environ.setdefault("OMP_NUM_THREADS", "1")

TASKS = ("Copy", "Reverse", "Sort")
AGENTS = ("lm-ppo", "sb3-ppo", "sb3-a2c", "sb3-dqn", "sb3-qrdqn")
KWARGS = {"length": 4, "alphabet": "abcdefgh", "dense": True}
TARGET, WINDOW = 0.95, 128
#: Ours, tuned on seeds 100 and 101; SB3's settings stand in agents/baselines.py.
SETTINGS = {"num_epochs": 8, "num_minibatches": 2, "gae_lambda": 0.8, "value_coef": 0.5}
#: Enough for each to converge; a schedule that ends too early is not the algorithm's fault.
NUM_EPISODES = {"lm-ppo": 7680, "sb3": 20_000}


def lm_ppo(task: str, seed: int, overrides: dict[str, Any]) -> tuple[int, float] | None:
    """Episodes and seconds of our PPO, or None."""
    from agents.algorithms import ALGORITHMS
    from agents.train import TrainConfig, train

    overrides = SETTINGS | overrides
    num_episodes = overrides.pop("num_episodes", NUM_EPISODES["lm-ppo"])
    model_kwargs = overrides.pop("model_kwargs", {})
    algorithm = replace(ALGORITHMS["ppo"], **overrides)
    config = TrainConfig(
        f"textenvs/{task}-v0", KWARGS, algorithm, num_episodes=num_episodes, seed=seed, model_kwargs=model_kwargs
    )
    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder) / "run", quiet=True)
        updates = [json.loads(line) for line in (Path(folder) / "run/metrics.jsonl").open(encoding="utf-8")]
    span = WINDOW // algorithm.episodes_per_update
    seconds = list(itertools.accumulate(update["seconds"] for update in updates))
    for i in range(span - 1, len(updates)):
        if statistics.fmean(update["return"] for update in updates[i + 1 - span : i + 1]) >= TARGET:
            return updates[i]["episodes"], seconds[i]
    return None


def sb3(agent: str, task: str, seed: int) -> tuple[int, float] | None:
    """The same of an agent of Stable-Baselines3 or sb3-contrib, such as "sb3-ppo"."""
    from agents.baselines import train_sb3

    name = agent.removeprefix("sb3-")
    num_episodes = NUM_EPISODES["sb3"]
    result = train_sb3(name, f"textenvs/{task}-v0", KWARGS, num_episodes=num_episodes, seed=seed, target=TARGET)
    return result.episodes_to(TARGET)


def job(agent: str, task: str, seed: int, overrides: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    import torch

    textenvs.register_envs()
    torch.set_num_threads(1)
    started = time.perf_counter()
    reached = lm_ppo(task, seed, overrides) if agent == "lm-ppo" else sb3(agent, task, seed)
    episodes, seconds = reached or ("", "")
    row = {"agent": agent, "task": task, "seed": seed, "episodes": episodes, "seconds": seconds}
    print(row, f"({time.perf_counter() - started:.1f} s)", flush=True)
    return row


def main() -> None:
    """Run all jobs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--agents", nargs="+", default=list(AGENTS), choices=AGENTS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--overrides", type=json.loads, default={}, help="coefficients of lm-ppo, as JSON")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("toy.csv"))
    arguments = parser.parse_args()
    jobs = list(itertools.product(arguments.agents, arguments.tasks, arguments.seeds))
    with ProcessPoolExecutor(arguments.jobs) as pool:
        rows = list(pool.map(job, *zip(*jobs, strict=True), [arguments.overrides] * len(jobs)))
    with arguments.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print("| agent | task | " + " | ".join(f"seed {seed}" for seed in arguments.seeds) + " |")
    for agent, task in itertools.product(arguments.agents, arguments.tasks):
        mine = [row for row in rows if (row["agent"], row["task"]) == (agent, task)]
        cells = [f"{r['episodes']:,} in {r['seconds']:.1f} s" if r["episodes"] else "not reached" for r in mine]
        print(f"| {agent} | {task.lower()} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
