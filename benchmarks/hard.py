"""Where the algorithms stop: longer strings, one-digit addition and parity, by PPO from scratch and after a warm start.

    python benchmarks/hard.py --seeds 0 1 2

PPO with the toy benchmark's settings and 9,600 episodes of dense rewards; "warm" imitates the references of at most 100
training problems first. Given is the mean return of 256 sampled held-out episodes after training, per seed. Parity has
no partial credit: knowing nothing of the bits earns a half. Writes one line a job to benchmarks/hard.csv.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from toy import SETTINGS

NUM_EPISODES = 9_600
LETTERS = {"alphabet": "abcdefgh", "dense": True}


#: name -> id, keyword arguments
JOBS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"{task.lower()} {length}": (f"textenvs/{task}-v0", {"length": length, **LETTERS})
        for task, length in itertools.product(("Copy", "Reverse", "Sort", "Count"), (5, 6))
    },
    "addition": ("textenvs/Addition-v0", {"num_digits": 1, "dense": True}),
    "parity 8": ("textenvs/Parity-v0", {"length": 8, "dense": True}),
}


def job(name: str, arm: str, seed: int) -> dict[str, Any]:
    """One line of the table."""
    import torch

    from agents.algorithms import ALGORITHMS
    from agents.evaluate import held_out_envs, load_run
    from agents.rollout import collect
    from agents.sft import SFTConfig, sft
    from agents.train import TrainConfig, train

    torch.set_num_threads(1)
    env_id, kwargs = JOBS[name]
    with tempfile.TemporaryDirectory() as folder:
        model = "scratch"
        if arm == "warm":
            sft(SFTConfig(env_id, kwargs, max_demonstrations=100, seed=seed), Path(folder) / "sft", quiet=True)
            model = str(Path(folder) / "sft" / "final")
        algorithm = replace(ALGORITHMS["ppo"], **SETTINGS["ppo"])
        config = TrainConfig(
            env_id, kwargs, algorithm, model, num_episodes=NUM_EPISODES, seed=seed, checkpoint_every=10**6
        )
        run = load_run(train(config, Path(folder) / "run", quiet=True))
        envs, split = held_out_envs(env_id, kwargs, 64)
        mean = collect(envs, run.policy(envs), num_episodes=256, seed=10**6 + seed).returns.mean()
    row = {"task": name, "arm": arm, "seed": seed, "split": split, "return": round(float(mean), 4)}
    print(row, flush=True)
    return row


def main() -> None:
    """Run all jobs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("hard.csv"))
    arguments = parser.parse_args()
    jobs = list(itertools.product(arguments.tasks, ("scratch", "warm"), arguments.seeds))
    with ProcessPoolExecutor(arguments.jobs) as pool:
        rows = list(pool.map(job, *zip(*jobs, strict=True)))
    with arguments.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print("| task | scratch | warm start |\n|---|---|---|")
    for name in arguments.tasks:
        cells = [
            ", ".join(f"{row['return']:.2f}" for row in rows if (row["task"], row["arm"]) == (name, arm))
            for arm in ("scratch", "warm")
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
