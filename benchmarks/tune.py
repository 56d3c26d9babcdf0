"""Choose the settings of the suite `toy`: the same number of trials for each agent of ours and of theirs.

    nice -n 10 python benchmarks/tune.py --trials 8 --seeds 100 101
    python benchmarks/tune.py --report

Trial 0 of an agent is `STARTS` beside its row or baseline (`agents/algorithms.py`, `agents/baselines.py`), what the
suite said before these trials; trial k draws each setting of its `SPACES` at random, by agent and k alone, so that more
trials never change earlier ones. A job learns copy or sort (4 of 8 symbols, dense rewards) with one seed until the mean
training return of 128 successive episodes reaches 0.95, or the budget of episodes or CPU seconds is spent, and is a
line of toy_trials.csv; one that has its line there is not run again. Jobs come seed by seed and trial by trial, so that
a run cut short leaves every agent the same number of trials but for the last. The report counts only trials that every
agent has done on a job; its best are the suite's settings.

Reverse and the seeds below 100 are never seen.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import textenvs
from agents.algorithms import ALGORITHMS, Algorithm
from agents.baselines import BaselineResult, train_sb3
from agents.suites import SUITES
from agents.train import TrainConfig, train

Settings = dict[str, Any]
Row = dict[str, str]

TRIALS = Path(__file__).with_name("toy_trials.csv")
COLUMNS = ("agent", "trial", "task", "seed", "episodes", "seconds", "last_return", "budget_seconds", "settings")
TASKS = ("Copy", "Sort")
KWARGS = {"length": 4, "alphabet": "abcdefgh", "dense": True}
NUM_EPISODES = SUITES["toy"].num_episodes
TARGET, WINDOW = 0.95, 128  # the mean training return of so many successive episodes is "reached"

_SMALL: Settings = {"num_layers": 1, "hidden_size": 128, "num_heads": 2, "init_std": 0.06}
_RATE = {"learning_rate": [5e-4, 1e-3, 2e-3]}
#: Each reward of these tasks answers for its own token: discounting everything after it loses nothing, to anybody.
_GAMMA = {"gamma": [0.0, 1.0]}
_MODEL: dict[str, list[Any]] = {"model_kwargs": [{}, _SMALL, {**_SMALL, "num_layers": 2}]}
_ONCE = {**_GAMMA, **_MODEL, "learning_rate": [1e-3, 2e-3, 3e-3], "episodes_per_update": [8, 16, 32]}
_EPOCHS = {**_RATE, **_MODEL, "num_epochs": [4, 6, 8], "num_minibatches": [2, 4], "clip_range": [0.2, 0.3]}
_GROUPS = {"credit": ["to_go"], "group_size": [4, 8], "episodes_per_update": [32, 64], "entropy_coef": [0.003, 0.01]}
_NET = {
    "policy_kwargs": [{"net_arch": [128, 128], "features_extractor_kwargs": {"embedding_dim": n}} for n in (32, 64)]
}
_SB3_PPO = {**_RATE, **_GAMMA, **_NET, "n_steps": [8, 16, 32], "n_epochs": [4, 8, 12], "ent_coef": [0.0, 0.003, 0.01]}
_SB3_DQN = {**_RATE, **_GAMMA, "gradient_steps": [2, 4, 8], "learning_starts": [200, 500], "batch_size": [64, 128, 256]}
_SB3_DQN |= {"exploration_steps": [1_000, 2_000]}
_TRPO_NET = {
    "policy_kwargs": [
        {"net_arch": [128, 128], "features_extractor_kwargs": {"twice_differentiable": True, "embedding_dim": n}}
        for n in (32, 64)
    ]
}
_QUANTILES = {"policy_kwargs": [{"net_arch": [128, 128], "n_quantiles": n} for n in (10, 25)]}
#: What may be chosen for each agent, five to seven settings of two or three values.
SPACES: dict[str, dict[str, list[Any]]] = {
    "reinforce": {**_ONCE, "normalize": ["none", "batch"], "entropy_coef": [0.0, 0.003, 0.01]},
    "a2c": {**_ONCE, "value_coef": [0.5, 1.0], "entropy_coef": [0.003, 0.01], "gae_lambda": [0.6, 1.0]},
    "ppo": {**_EPOCHS, **_GAMMA, "baseline": ["none", "critic"], "normalize": ["none", "batch"]}
    | {"episodes_per_update": [32, 64, 128], "entropy_coef": [0.005, 0.01], "value_coef": [0.5, 1.0]},
    "rloo": {**_EPOCHS, **_GROUPS},
    "grpo": {**_EPOCHS, **_GROUPS, "normalize": ["none", "group"]},
    "sb3-ppo": _SB3_PPO,
    "sb3-a2c": {**_RATE, **_GAMMA, **_NET, "n_steps": [3, 5, 10], "ent_coef": [0.003, 0.01], "gae_lambda": [0.9, 1.0]},
    "sb3-dqn": {**_SB3_DQN, **_NET},
    "maskable-ppo": _SB3_PPO,
    "qrdqn": {**_SB3_DQN, **_QUANTILES},
    "recurrent-ppo": {**_SB3_PPO, "policy_kwargs": [{"lstm_hidden_size": n, "net_arch": [128]} for n in (64, 256)]},
    "trpo": {**_RATE, **_GAMMA, **_TRPO_NET}
    | {"n_steps": [8, 16, 32], "target_kl": [0.01, 0.03, 0.1], "n_critic_updates": [5, 10]},
    "ars": {"delta_std": [0.1, 0.2, 0.4], "learning_rate": [0.05, 0.1, 0.2], "n_delta": [8, 16]}
    | {"n_eval_episodes": [4, 8, 16], "policy_kwargs": [{"net_arch": net} for net in ([], [32], [64])]},
}


_START_GROUPS: Settings = {"credit": "to_go", "group_size": 4, "episodes_per_update": 32, "num_minibatches": 2}
_START_ONCE: Settings = {"gamma": 0.0, "episodes_per_update": 16, "model_kwargs": _SMALL}
#: Chosen by hand, on seeds from 100 on (`LOG.md`); nothing for those that are not here.
STARTS: dict[str, Settings] = {
    "reinforce": _START_ONCE,
    "a2c": _START_ONCE,
    "ppo": {"episodes_per_update": 128, "num_epochs": 6, "num_minibatches": 2, "gae_lambda": 0.6, "value_coef": 0.5},
    "rloo": _START_GROUPS,
    "grpo": {**_START_GROUPS, "normalize": "none"},
    "sb3-dqn": {"gamma": 0.0, "learning_rate": 2e-3, "exploration_steps": 1_000, "learning_starts": 200},
}


def prepare() -> None:
    """Make the ids known, and torch work on one thread."""
    import torch

    textenvs.register_envs()
    torch.set_num_threads(1)


def baseline_name(agent: str) -> str:
    """The key of `BASELINES` of an agent of theirs."""
    return agent.removeprefix("sb3-").replace("-", "_")


def settings_of(agent: str, trial: int) -> Settings:
    """What a trial sets beside the agent's row or baseline: a pure function of both arguments."""
    if trial == 0:
        return dict(STARTS.get(agent, {}))
    rng = np.random.default_rng([zlib.crc32(agent.encode()), trial])
    return {name: values[int(rng.integers(len(values)))] for name, values in SPACES[agent].items()}


class Curve:
    """Training returns as they come, each with the CPU time of this process."""

    def __init__(self, seconds: float = math.inf, num_episodes: int = NUM_EPISODES) -> None:
        self.budget, self.num_episodes, self.started = seconds, num_episodes, time.process_time()
        self.result = BaselineResult([], [])

    def note(self, returns: Iterable[float]) -> bool:
        """Take episodes that ended; False when the target is reached or the budget spent."""
        now = time.process_time() - self.started
        for value in returns:
            self.result.returns.append(float(value))
            self.result.seconds.append(now)
        spent = now > self.budget or len(self.result.returns) >= self.num_episodes
        return not spent and self.result.episodes_to(TARGET, WINDOW) is None


def learn(agent: str, task: str, seed: int, settings: Mapping[str, Any], curve: Curve) -> None:
    """Train an agent until its curve says that it is enough."""
    env_id = f"textenvs/{task}-v0"
    if agent in ALGORITHMS:
        names = {field.name for field in fields(Algorithm)}
        chosen = {name: value for name, value in settings.items() if name in names}
        rest = {name: value for name, value in settings.items() if name not in names}
        algorithm = replace(ALGORITHMS[agent], **chosen)
        common = {"num_episodes": curve.num_episodes, "seed": seed, "checkpoint_every": 10**6}
        config = TrainConfig(env_id, KWARGS, algorithm=algorithm, **common, **rest)
        with tempfile.TemporaryDirectory() as folder:
            train(config, Path(folder) / "run", quiet=True, on_update=lambda update: curve.note(update.returns))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SB3_LOGDIR"] = folder  # or a directory is left for each agent
        train_sb3(
            baseline_name(agent),
            env_id,
            KWARGS,
            num_episodes=curve.num_episodes,
            seed=seed,
            overrides=settings,
            on_episode=lambda value: curve.note([value]),
        )


def run_job(agent: str, trial: int, task: str, seed: int, seconds: float) -> Row:
    """One line of the table; without episodes when the target was not reached, and then with all seconds."""
    settings, curve = settings_of(agent, trial), Curve(seconds)
    learn(agent, task, seed, settings, curve)
    reached = curve.result.episodes_to(TARGET, WINDOW)
    spent = reached[1] if reached else curve.result.seconds[-1]
    return {
        "agent": agent,
        "trial": str(trial),
        "task": task,
        "seed": str(seed),
        "episodes": str(reached[0]) if reached else "",
        "seconds": f"{spent:.2f}",
        "last_return": f"{np.mean(curve.result.returns[-WINDOW:]):.3f}",
        "budget_seconds": f"{seconds:g}",
        "settings": json.dumps(settings, sort_keys=True),
    }


def key(row: Row) -> tuple[str, ...]:
    """Which job a line is of: other settings or another budget make another job."""
    return tuple(row[name] for name in ("agent", "trial", "settings", "task", "seed", "budget_seconds"))


def read(path: Path) -> list[Row]:
    """The lines of a table, none when there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run_all(
    agents: Sequence[str],
    trials: int,
    seeds: Sequence[int],
    seconds: float,
    path: Path,
    job: Callable[[str, int, str, int, float], Row] = run_job,
) -> None:
    """Run the jobs that have no line yet, and append theirs, each at once."""
    if any(seed < 100 for seed in seeds):
        raise ValueError(f"seeds must be at least 100, got {list(seeds)}; those below are for the benchmark")
    done = {key(row) for row in read(path)}
    for seed in seeds:
        for trial in range(trials):
            for agent in agents:
                for task in TASKS:
                    settings = json.dumps(settings_of(agent, trial), sort_keys=True)
                    if (agent, str(trial), settings, task, str(seed), f"{seconds:g}") in done:
                        continue
                    row = job(agent, trial, task, seed, seconds)
                    is_new = not path.exists()
                    with path.open("a", newline="", encoding="utf-8") as file:
                        writer = csv.DictWriter(file, COLUMNS)
                        if is_new:
                            writer.writeheader()
                        writer.writerow(row)
                    done.add(key(row))
                    print(*(row[name] for name in COLUMNS), flush=True)


def ranking(rows: Sequence[Row], agents: Sequence[str]) -> dict[str, list[tuple[int, float, str]]]:
    """The trials of each agent, the best first: jobs reached, geometric mean of episodes (10,000 if not), settings.

    Only what every agent has done counts: trials on the (trial, task, seed) for which all of them have a line.
    """
    jobs = {agent: {(r["trial"], r["task"], r["seed"]): r for r in rows if r["agent"] == agent} for agent in agents}
    common = set.intersection(*(set(lines) for lines in jobs.values()))
    ranked = {}
    for agent, lines in jobs.items():
        trials: dict[str, dict[tuple[str, str], Row]] = {}  # two that drew the same settings are one
        for at in sorted(common):
            trials.setdefault(lines[at]["settings"], {})[at[1:]] = lines[at]
        scores = []
        for settings, by_job in trials.items():
            done = list(by_job.values())
            logs = [math.log(float(row["episodes"] or NUM_EPISODES)) for row in done]
            scores.append((sum(bool(row["episodes"]) for row in done), math.exp(sum(logs) / len(logs)), settings))
        ranked[agent] = sorted(scores, key=lambda score: (-score[0], score[1]))
    return ranked


def main() -> None:
    """Run what is missing, or print what is best."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agents", nargs="+", default=list(SPACES), choices=list(SPACES))
    parser.add_argument("--trials", type=int, default=8, help="of each agent")
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101], help="at least 100")
    parser.add_argument("--seconds", type=float, default=20.0, help="of CPU, at most, a job")
    parser.add_argument("--report", action="store_true", help="print the best trials of each agent only")
    arguments = parser.parse_args()
    prepare()
    if not arguments.report:
        run_all(arguments.agents, arguments.trials, arguments.seeds, arguments.seconds, TRIALS)
    for agent, scores in ranking(read(TRIALS), arguments.agents).items():
        for reached, episodes, settings in scores[:3]:
            print(f"{agent}, best of {len(scores)}: {reached} reached, {episodes:,.0f} episodes, {settings}")


if __name__ == "__main__":
    main()
