"""Shortest ways through a graph that nobody shows: imitate 1,000 random walks, then reinforce the short ones.

    python examples/random_walk.py                              # one run; writes random_walk.png
    python examples/random_walk.py --seeds 0 1 2 --arms all     # what the warm start and the mask are worth

The walks know the edges and nothing of short ways. With the mask (`--arms masked`) the agent is shown the edges, and
the warm start has nothing left to teach; without it (`--arms warm`, as in trlx's example of the same name) it must
learn them from the walks. Prints mean optimality (1 is a shortest path) of sampled walks, and of greedy ones.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import stats

import textenvs
from agents.algorithms import ALGORITHMS
from agents.evaluate import evaluate
from agents.lm import LMPolicy
from agents.policy import Policy, RandomPolicy
from agents.rollout import collect
from agents.sft import SFTConfig, sft
from agents.train import TrainConfig, make_envs, start_policy, train

ENV_ID = "textenvs/RandomWalk-v0"
NUM_WALKS, NUM_EVALUATED = 1000, 1000
#: Chosen on seeds 100 to 102 of the arm "warm". Without the small KL penalty, or with the entropy bonus and the higher
#: learning rate of the defaults, PPO now and then forgets the way from some start.
PPO = replace(ALGORITHMS["ppo"], learning_rate=3e-4, episodes_per_update=128, entropy_coef=0.0, kl_coef=0.01)
#: name -> whether the agent is shown the legal moves, whether it starts from the random walks, PPO's episodes
ARMS = {
    "masked": (True, True, 2560),
    "masked-scratch": (True, False, 2560),
    "warm": (False, True, 10_240),
    "scratch": (False, False, 10_240),
}
COLUMNS = ("before", "warm", "after", "greedy")


def write_random_walks(path: Path, seed: int) -> float:
    """Walk along random edges, write one walk a line, and return their mean optimality."""
    envs = make_envs(ENV_ID, 128, {})
    walks = collect(envs, RandomPolicy(int(envs.single_action_space.n)), num_episodes=NUM_WALKS, seed=seed)
    # A line without a tab is plain text: its first token is the prompt.
    path.write_text("".join(f"{info['prompt']}{info['response']}\n" for info in walks.infos), encoding="utf-8")
    return float(walks.returns.mean())


def run(folder: Path, seed: int, arm: str, num_episodes: int | None = None) -> dict[str, Any]:
    """One run of one arm in a folder; the optimality before, after the warm start and after PPO."""
    masked, warm, usual_episodes = ARMS[arm]
    kwargs = {} if masked else {"masked": False}
    envs = make_envs(ENV_ID, 128, kwargs)

    def optimality(policy: Policy, *, greedy: bool = False) -> float:
        return float(evaluate(policy, envs, num_episodes=NUM_EVALUATED, seed=seed, greedy=greedy)[0]["mean_return"])

    def saved(name: str) -> LMPolicy:
        return LMPolicy.from_pretrained(folder / name / "final", envs.metadata["textgen"])

    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    row = {"arm": arm, "seed": seed, "random_walks": write_random_walks(folder / "walks.txt", seed)}
    num_episodes = num_episodes or usual_episodes
    config = TrainConfig(ENV_ID, kwargs, PPO, num_episodes=num_episodes, seed=seed, checkpoint_every=1000)
    row["before"] = row["warm"] = optimality(start_policy(config, envs))
    if warm:
        sft(SFTConfig(ENV_ID, kwargs, text_file=str(folder / "walks.txt"), seed=seed), folder / "warm")
        row["warm"] = optimality(saved("warm"))
        config = replace(config, model=str(folder / "warm/final"))
    train(config, folder / "ppo")
    policy = saved("ppo")
    row |= {"after": optimality(policy), "greedy": optimality(policy, greedy=True)}
    envs.close()
    return row | {"seconds": time.perf_counter() - started}


def greedy_moves(policy: Policy) -> list[tuple[str, str]]:
    """The moves of the most likely walk from each start."""
    envs = make_envs(ENV_ID, 20, {"masked": False})
    infos = collect(envs, policy, num_episodes=NUM_EVALUATED, seed=0, greedy=True).infos
    walks = {info["prompt"] + info["response"] for info in infos}
    return sorted({(walk[i], walk[i + 1]) for walk in walks for i in range(len(walk) - 1)})


def draw(folder: Path, row: dict[str, Any], path: Path) -> None:
    """The graph with the moves of the greedy walks on it, and the learning curve."""
    task: Any = textenvs.make_task("random_walk")
    envs = make_envs(ENV_ID, 1, {"masked": False})
    moves = greedy_moves(LMPolicy.from_pretrained(folder / "ppo/final", envs.metadata["textgen"]))
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = figure.add_subplot(1, 2, 1, title="edges, and the moves of the greedy walks; a is the goal")
    axes.set(xticks=range(1, task.shortest.max() + 1), xlabel="nodes on a shortest path to a", yticks=[])
    place = {}
    for length in range(1, task.shortest.max() + 1):
        column = [task.nodes[i] for i in np.flatnonzero(task.shortest == length)]
        # Shifted a little by column: edges between far columns would run through the nodes between.
        place |= {node: (length, (i - (len(column) - 1) / 2) + 0.13 * length) for i, node in enumerate(column)}
    edges = [(task.nodes[u], task.nodes[v]) for u, v in np.argwhere(task.edges)]
    for u, v in [*edges, *moves]:
        style = {"arrowstyle": "-|>", "shrinkA": 8, "shrinkB": 8, "color": "0.8", "linewidth": 0.7}
        if (u, v) in moves:
            style |= {"color": "tab:green" if (u, v) in edges else "tab:red", "linewidth": 2}
        axes.annotate("", place[v], place[u], arrowprops=style)
    for node, (x, y) in place.items():
        axes.text(x, y, node, ha="center", va="center", bbox={"boxstyle": "circle", "facecolor": "white"})
    axes.set(xlim=(0.6, task.shortest.max() + 0.4), ylim=(-4.5, 5.5))
    with (folder / "ppo/metrics.jsonl").open(encoding="utf-8") as file:
        updates = [json.loads(line) for line in file]
    axes = figure.add_subplot(1, 2, 2, xlabel="episodes", ylabel="mean optimality", title="PPO", ylim=(0, 1.1))
    axes.plot([update["episodes"] for update in updates], [update["return"] for update in updates])
    for name, y in (("shortest paths", 1.0), ("random walks", row["random_walks"])):
        axes.axhline(y, linestyle="--", color="0.5", linewidth=0.8)
        axes.text(updates[-1]["episodes"], y + 0.015, name, ha="right", color="0.4")
    figure.savefig(path, dpi=120)


def report(rows: list[dict[str, Any]]) -> None:
    """Print a line an arm: means over the seeds with 95 % t intervals."""
    seeds = sorted({row["seed"] for row in rows})
    walks = np.mean([row["random_walks"] for row in rows])
    print(f"\nmean optimality, seeds {seeds}; {NUM_WALKS} random walks have {walks:.3f}")
    print(f"{'arm':16}" + "".join(f"{name:>16}" for name in (*COLUMNS, "seconds")))
    for arm in dict.fromkeys(row["arm"] for row in rows):
        cells = []
        for name in (*COLUMNS, "seconds"):
            values = np.array([row[name] for row in rows if row["arm"] == arm])
            half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else None
            cells.append(f"{values.mean():.3f}" + ("" if half is None else f" ± {half:.3f}"))
        print(f"{arm:16}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", default=["masked"], choices=[*ARMS, "all"])
    parser.add_argument("--episodes", type=int, help="of PPO, instead of the arm's own")
    parser.add_argument("--smoke", action="store_true", help="two updates of PPO")
    parser.add_argument("--png", type=Path, default=Path("random_walk.png"), help="of the first run")
    parser.add_argument("--csv", type=Path, help="one line a run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a model this small only waits for a second thread
    arms = list(ARMS) if "all" in arguments.arms else arguments.arms
    num_episodes = 2 * PPO.episodes_per_update if arguments.smoke else arguments.episodes
    rows: list[dict[str, Any]] = []
    for arm in arms:
        for seed in arguments.seeds:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(run(Path(folder), seed, arm, num_episodes))
                if len(rows) == 1:
                    draw(Path(folder), rows[0], arguments.png)
            print({name: round(value, 4) if isinstance(value, float) else value for name, value in rows[-1].items()})
    if arguments.csv:
        with arguments.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    report(rows)
    print(f"the graph and the curve: {arguments.png}")


if __name__ == "__main__":
    main()
