"""The main job, `make demo`: the shipped language model learns by PPO to continue openings as happy reviews.

Prints what it was worth before and after on held-out prompts, beside the best of eight samples of the untouched model,
and six continuations. Run it again and it continues, or shows the finished run; `--seed` gives another run.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import textenvs
from agents.algorithms import ALGORITHMS
from agents.evaluate import evaluate, load_run
from agents.held_out import held_out_envs
from agents.rollout import Rollout
from agents.text_metrics import best_of, best_of_kl, summarise
from agents.train import TrainConfig, train

NUM_EPISODES = 512
NUM_CANDIDATES = 8
NUM_SHOWN = 6
EVALUATION_SEED = 1
COLUMNS = {
    "mean_return": "reward",
    "judge": "judge",
    "kl_per_episode": "KL",
    "sample_perplexity": "perpl.",
    "distinct_2": "dist-2",
    "mean_length": "length",
    "tokens_per_second": "tok/s",
}
CAPTION = (
    "reward: the classifier's, mean ± standard error; judge: VADER, not trained on (but it filtered the rows the "
    "classifier learnt from); KL: nats an episode from "
    "the start (best of 8: its bound); perpl.: of the continuations under the start; dist-2: different bigrams; "
    "length: tokens"
)


def config(seed: int) -> TrainConfig:
    """Settings of the main job, tuned on seeds 100 and above.

    gae_lambda is 1: below it a reward at the end counts for less the longer the response, until the critic has learnt,
    and the policy learns to be brief (at 0.95 responses shrank by a sixth; "VC-PPO", arXiv:2503.01491, finds the same).
    The critic's bias is fitted: 320 steps of Adam move it by 0.05, and the mean return is ten times that.
    """
    algorithm = replace(
        ALGORITHMS["ppo"],
        episodes_per_update=128,
        num_epochs=2,
        num_minibatches=4,
        learning_rate=3e-4,
        kl_coef=0.02,
        gae_lambda=1.0,
        fit_value_bias=True,
    )
    return TrainConfig(env_id="TextGen-v0", model="tiny", algorithm=algorithm, num_episodes=40 * 128, seed=seed)


def measure(rollout: Rollout, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Add the held-out judge's mean and the commonest 4-gram to an evaluation's numbers."""
    judge: Any = textenvs.as_reward("vader")
    values = judge.score_texts([info["prompt"] + info["response"] for info in rollout.infos])
    judged = {"judge": float(values.mean()), "judge_stderr": float(values.std(ddof=1) / np.sqrt(len(values)))}
    return {**numbers, **judged, "top_4gram": top_4gram([info["response"] for info in rollout.infos])}


def top_4gram(responses: list[str]) -> float:
    """Return the share of the first 256 responses that hold the commonest run of 4 words."""
    counts: Counter[tuple[str, ...]] = Counter()
    for response in responses[:256]:
        words = response.lower().split()
        counts.update({tuple(words[i : i + 4]) for i in range(len(words) - 3)})
    return max(counts.values(), default=0) / min(256, len(responses))


def evaluate_all(run_dir: Path) -> tuple[dict[str, dict[str, Any]], list[dict[str, str]]]:
    """Measure the start, the trained policy and best-of-8 on the same held-out problems.

    Returns:
        Numbers of each row, and the continuations of the first different prompts before and after.
    """
    run = load_run(run_dir)
    envs, _ = held_out_envs(run.env_id, run.env_kwargs, num_envs=128)
    reference, policy = run.reference(envs), run.policy(envs)
    rows: dict[str, dict[str, Any]] = {}
    rollouts = {}
    for name, who in (("before", reference), ("after", policy)):
        numbers, rollouts[name] = evaluate(
            who, envs, num_episodes=NUM_EPISODES, seed=EVALUATION_SEED, reference=reference
        )
        rows[name] = measure(rollouts[name], numbers)
    numbers, candidates = evaluate(
        reference,
        envs,
        num_episodes=NUM_EPISODES * NUM_CANDIDATES,
        seed=EVALUATION_SEED,
        group_size=NUM_CANDIDATES,
    )
    chosen = best_of(candidates, NUM_CANDIDATES)
    # Eight samples are paid for one answer; their KL is bounded, not estimated.
    paid = {
        "kl_per_episode": best_of_kl(NUM_CANDIDATES),
        "kl_per_episode_stderr": None,
        "tokens_per_second": numbers["tokens_per_second"] / NUM_CANDIDATES,
    }
    rows[f"best of {NUM_CANDIDATES}"] = measure(chosen, {**summarise(chosen, reference=reference), **paid})
    envs.close()
    return rows, continuations(rollouts["before"], rollouts["after"])


def continuations(before: Rollout, after: Rollout) -> list[dict[str, str]]:
    """Pair the responses to the first different prompts; both rollouts met the same problems in the same order."""
    shown: dict[str, dict[str, str]] = {}
    for old, new in zip(before.infos, after.infos, strict=True):
        pair = {"prompt": old["prompt"], "before": old["response"], "after": new["response"]}
        shown.setdefault(old["prompt"], pair)
    return list(shown.values())[:NUM_SHOWN]


def verdicts(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, bool]:
    """Whether the improvement is real: each condition, in words, and whether it holds."""
    old, new = rows["before"], rows["after"]
    gain, error = new["mean_return"] - old["mean_return"], float(np.hypot(new["stderr"], old["stderr"]))
    return {
        f"reward up by more than 3 standard errors ({gain:+.3f}, {gain / error:.1f} of them)": gain > 3 * error,
        f"held-out judge up ({new['judge'] - old['judge']:+.3f})": new["judge"] > old["judge"],
        f"KL at most 10 nats an episode ({new['kl_per_episode']:z.2f})": new["kl_per_episode"] <= 10,
        f"perplexity under the start at most 1.5x ({new['sample_perplexity'] / old['sample_perplexity']:.2f}x)": (
            new["sample_perplexity"] <= 1.5 * old["sample_perplexity"]
        ),
        f"distinct-2 at least 0.7x ({new['distinct_2'] / old['distinct_2']:.2f}x)": (
            new["distinct_2"] >= 0.7 * old["distinct_2"]
        ),
        f"no 4-gram in more than 10 % of 256 continuations ({new['top_4gram']:.1%})": new["top_4gram"] <= 0.1,
        f"mean length within 25 % ({new['mean_length'] / old['mean_length']:.2f}x)": (
            abs(new["mean_length"] / old["mean_length"] - 1) <= 0.25
        ),
    }


def report(rows: Mapping[str, Mapping[str, Any]], pairs: list[dict[str, str]], console: Console) -> None:
    """Print the table, the verdicts and the continuations; model text is escaped."""
    table = Table(title=f"{NUM_EPISODES} continuations of held-out openings", caption=CAPTION)
    table.add_column("", no_wrap=True)
    for title in COLUMNS.values():
        table.add_column(title, justify="right", no_wrap=True)
    digits = {"kl_per_episode": 2, "sample_perplexity": 1, "mean_length": 1, "tokens_per_second": 0}
    for name, row in rows.items():
        cells = [f"{row[key]:z.{digits.get(key, 3)}f}" for key in COLUMNS]
        cells[0] += f" ± {row['stderr']:.3f}"
        table.add_row(name, *cells)
    console.print(table)
    for words, holds in verdicts(rows).items():
        console.print(f"  {'yes' if holds else '[bold red]NO[/bold red] '}  {escape(words)}")
    for pair in pairs:
        console.print()
        for name in ("before", "after"):
            prompt, response = (escape(textenvs.printable(pair[key])) for key in ("prompt", name))
            console.print(f"  {name:6}  [bold]{prompt}[/bold]{response}")


def report_command(run_dir: Path) -> str:
    """What to type for the page of a run, here and now: `make demo` leaves .venv off the PATH."""
    textenvs_command = (
        "textenvs" if shutil.which("textenvs") else os.path.relpath(Path(sys.executable).with_name("textenvs"))
    )
    return shlex.join([textenvs_command, "report", str(run_dir)])


def main() -> None:
    """Train, evaluate, print, and say where everything is."""
    parser = argparse.ArgumentParser(prog="python -m agents.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, default=Path("runs/demo"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    run_dir, console, started = arguments.run_dir, Console(highlight=False), time.perf_counter()
    torch.set_num_threads(1)  # a model this small only waits for a second thread
    try:
        console.print(f"training the shipped model on TextGen-v0, seed {arguments.seed}, into {run_dir}")
        train(config(arguments.seed), run_dir, resume=True)
        trained = time.perf_counter()
        rows, pairs = evaluate_all(run_dir)
    except KeyboardInterrupt:
        console.print(f"stopped; {run_dir}/curve.png shows how far it came; the same command continues")
        raise SystemExit(130) from None
    except (ValueError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    report(rows, pairs, console)
    record = {"seed": arguments.seed, "rows": rows, "verdicts": verdicts(rows), "continuations": pairs}
    (run_dir / "demo.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    seconds = time.perf_counter()
    console.print(f"\ntrained in {trained - started:.0f} s, evaluated in {seconds - trained:.0f} s; in {run_dir}:")
    console.print("  curve.png  demo.json  samples.jsonl  metrics.jsonl  final/  checkpoints/  TensorBoard events")
    console.print("one page of it, with curves, self-checks and episodes:")
    console.print(f"  {escape(report_command(run_dir))}", style="bold", soft_wrap=True)


if __name__ == "__main__":
    main()
