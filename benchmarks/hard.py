"""Where the algorithms stop: longer strings, one-digit addition and parity, by PPO, and what helps.

    python benchmarks/hard.py --seeds 0 1 2

PPO with the toy benchmark's settings and 9,600 episodes of dense rewards, from three starts: "scratch"; "warm" imitates
the references of at most 100 training problems first; "curriculum" spends the first half of its episodes on shorter
inputs (lengths 2 and 4, for parity 4 and 6) in observations of the final size. Given is the mean return of 256 sampled
episodes after training, on held-out problems and on those of training, per seed. Parity has no partial credit: knowing
nothing of the bits earns a half. Writes one line a job to benchmarks/hard.csv.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from jobs import run_jobs
from tune import STARTS

NUM_EPISODES = 9_600
LETTERS = {"alphabet": "abcdefgh", "dense": True}
ARMS = ("scratch", "warm", "curriculum")

#: name -> id, keyword arguments
JOBS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"{task.lower()} {length}": (f"textenvs/{task}-v0", {"length": length, **LETTERS})
        for task, length in itertools.product(("Copy", "Reverse", "Sort", "Count"), (5, 6))
    },
    "addition": ("textenvs/Addition-v0", {"num_digits": 1, "dense": True}),
    "parity 8": ("textenvs/Parity-v0", {"length": 8, "dense": True}),
}


def stages(name: str, arm: str) -> list[tuple[dict[str, Any], int]]:
    """Keyword arguments of the env and episodes of each run of an arm, one after the other."""
    kwargs = JOBS[name][1]
    if arm != "curriculum":
        return [(kwargs, NUM_EPISODES)]
    length = kwargs["length"]
    shorter = (length // 2, length - 2) if name.startswith("parity") else (2, 4)
    size = {"max_prompt_tokens": length + 1, "max_new_tokens": 2 if name.startswith("parity") else length + 1}
    return [({**kwargs, **size, "length": n}, NUM_EPISODES // 4) for n in shorter] + [(kwargs, NUM_EPISODES // 2)]


def job(name: str, arm: str, seed: int) -> dict[str, Any]:
    """One line of the table."""
    import torch

    from agents.algorithms import ALGORITHMS
    from agents.evaluate import load_run
    from agents.held_out import held_out_envs
    from agents.rollout import collect
    from agents.sft import SFTConfig, sft
    from agents.train import TrainConfig, make_envs, train

    torch.set_num_threads(1)
    env_id, kwargs = JOBS[name]
    with tempfile.TemporaryDirectory() as folder:
        model = "scratch"
        if arm == "warm":
            sft(SFTConfig(env_id, kwargs, max_demonstrations=100, seed=seed), Path(folder) / "sft", quiet=True)
            model = str(Path(folder) / "sft" / "final")
        algorithm = replace(ALGORITHMS["ppo"], **STARTS["ppo"])
        for number, (settings, num_episodes) in enumerate(stages(name, arm)):
            config = TrainConfig(
                env_id, settings, algorithm, model, num_episodes=num_episodes, seed=seed, checkpoint_every=10**6
            )
            run_dir = train(config, Path(folder) / f"run-{number}", quiet=True)
            model = str(run_dir / "final")
        run = load_run(run_dir)
        envs, split = held_out_envs(env_id, kwargs, 64)
        policy = run.policy(envs)
        returns = {
            f"{where} return": round(float(collect(on, policy, num_episodes=256, seed=10**6 + seed).returns.mean()), 4)
            for where, on in ((split, envs), ("train", make_envs(env_id, 64, kwargs)))
        }
    row = {"task": name, "arm": arm, "seed": seed, **returns}
    print(row, flush=True)
    return row


def main() -> None:
    """Run all jobs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("hard.csv"))
    arguments = parser.parse_args()
    jobs = [
        (name, arm, seed)
        for name, arm, seed in itertools.product(arguments.tasks, arguments.arms, arguments.seeds)
        if arm != "curriculum" or "length" in JOBS[name][1]  # one-digit addition has nothing shorter
    ]
    rows = run_jobs(job, jobs, arguments.jobs, arguments.out)
    print(f"| task | {' | '.join(arguments.arms)} |")
    print("|---" * (1 + len(arguments.arms)) + "|")
    for name in arguments.tasks:
        cells = [
            ", ".join(
                f"{row['heldout return']:.2f} ({row['train return']:.2f})"
                for row in rows
                if (row["task"], row["arm"]) == (name, arm)
            )
            for arm in arguments.arms
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
