"""Does PPO improve a warm-started language model on the suite? One text, one structured and one many-turn task.

    python benchmarks/suite.py --seeds 0 1 2

Each run starts from the shipped model as it is (`continuation`: it was pretrained on such text), or first imitates some
of the task's demonstrations; then it learns by PPO from the task's own reward. Given is the mean return of sampled
episodes before and after PPO, on 512 problems of training and 512 held out, and the mean change with its 95 % t
interval over the seeds. Writes one line a run to benchmarks/suite.csv.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from jobs import run_jobs
from scipy import stats

from agents.algorithms import ALGORITHMS, Algorithm

NUM_EVALUATED = 512
PPO = replace(ALGORITHMS["ppo"], learning_rate=3e-4, episodes_per_update=128, entropy_coef=0.0, kl_coef=0.01)
#: Rewards at the end of natural text: see `agents.demo.config`.
TEXT_PPO = replace(PPO, num_epochs=2, gae_lambda=1.0, kl_coef=0.02)


@dataclass(frozen=True)
class Run:
    """What is learnt, from what start: no demonstrations are the model as it is. Chosen on seed 100."""

    env_id: str
    model: str
    num_demonstrations: int
    num_epochs: int
    num_episodes: int
    algorithm: Algorithm = PPO


RUNS = {
    "continuation": Run("TextGen-v0", "tiny", 0, 0, 5120, TEXT_PPO),
    "summary": Run("textenvs/Summarize-v0", "tiny", 304, 12, 10240, replace(TEXT_PPO, kl_coef=0.005)),
    "structured": Run("textenvs/RegularLanguage-v0", "scratch", 4000, 8, 20480),
    "many turns": Run("textenvs/SlotFilling-v0", "scratch", 1000, 6, 5120),
}
SPLITS = ("train", "heldout")


def job(name: str, seed: int) -> dict[str, Any]:
    """One line of the table."""
    import torch

    from agents.evaluate import load_run
    from agents.rollout import collect
    from agents.sft import SFTConfig, sft
    from agents.train import TrainConfig, make_envs, train

    torch.set_num_threads(1)
    run = RUNS[name]
    envs = {split: make_envs(run.env_id, 128, {"split": split}) for split in SPLITS}

    def returns(policy: Any, when: str) -> dict[str, float]:
        sampled = {
            split: collect(envs[split], policy, num_episodes=NUM_EVALUATED, seed=10**6 + seed) for split in SPLITS
        }
        return {f"{split} {when}": round(float(rollout.returns.mean()), 4) for split, rollout in sampled.items()}

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        start = run.model
        if run.num_demonstrations:
            imitation = SFTConfig(
                run.env_id,
                max_demonstrations=run.num_demonstrations,
                model=run.model,
                num_epochs=run.num_epochs,
                patience=run.num_epochs,
                seed=seed,
            )
            start = str(sft(imitation, Path(folder) / "sft", quiet=True) / "final")
        config = TrainConfig(
            run.env_id,
            algorithm=run.algorithm,
            model=start,
            num_episodes=run.num_episodes,
            seed=seed,
            checkpoint_every=10**6,
        )
        trained = load_run(train(config, Path(folder) / "run", quiet=True))
        row = {"task": name, "env": run.env_id, "seed": seed}
        row |= returns(trained.reference(envs["train"]), "before") | returns(trained.policy(envs["train"]), "after")
    row["seconds"] = round(time.perf_counter() - started, 1)
    print(row, flush=True)
    return row


def change(rows: list[dict[str, Any]], split: str) -> str:
    """Mean return before and after, and the mean change with its interval."""
    before, after = (np.array([row[f"{split} {when}"] for row in rows]) for when in ("before", "after"))
    difference = after - before
    half = stats.t.ppf(0.975, len(rows) - 1) * difference.std(ddof=1) / len(rows) ** 0.5 if len(rows) > 1 else np.nan
    return f"{before.mean():.3f} -> {after.mean():.3f} | {difference.mean():+.3f} ± {half:.3f}"


def main() -> None:
    """Run all jobs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("suite.csv"))
    arguments = parser.parse_args()
    jobs = list(itertools.product(arguments.tasks, arguments.seeds))
    rows = run_jobs(job, jobs, arguments.jobs, arguments.out)
    print("| task | env | training problems | change | held-out problems | change |\n|---|---|---|---|---|---|")
    for name in arguments.tasks:
        mine = [row for row in rows if row["task"] == name]
        print(f"| {name} | `{RUNS[name].env_id}` | {change(mine, 'train')} | {change(mine, 'heldout')} |")


if __name__ == "__main__":
    main()
