"""The verbs of the `textenvs` command that are about results: of a run, and of saved responses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import tyro
from rich.console import Console

import textenvs
from agents.cli_arguments import (
    EnvId,
    EnvKwargs,
    UsageError,
    at_least_one,
    json_object,
    make_env,
    not_negative,
    print_json,
    print_json_line,
    seed_list,
)
from agents.suites import near_id


def evaluate(
    run_dir: EnvId,
    /,
    *,
    env: str | None = None,
    env_kwargs: Annotated[str | None, tyro.conf.arg(metavar="JSON")] = None,
    episodes: int = 512,
    seed: int = 0,
    judge: str | None = None,
    samples: Path | None = None,
    json: bool = False,
) -> None:
    """Evaluate a trained run, sampled and greedy, beside its start, on held-out problems.

    When the task has no problems but those of training, it plays them and says so.

    Args:
        run_dir: the run.
        env: evaluate on this id instead of the run's own.
        env_kwargs: with these keyword arguments instead of the run's own.
        episodes: how many, at least 1.
        seed: of the problems and the sampling.
        judge: a reward nobody trained on, by name, to hold the samples against; learned rewards have one by default.
        samples: also write every sampled response to this file of JSON lines: id, prompt, response, value.
        json: print JSON instead of a table.
    """
    at_least_one("--episodes", episodes)
    not_negative("--seed", seed)
    kwargs = None if env_kwargs is None else json_object(env_kwargs)
    if samples is not None and not samples.parent.is_dir():  # before the episodes are played
        raise UsageError(f"{samples} must be in a directory that exists, got none; make {samples.parent}")

    from agents.evaluate import evaluate_run, result_table

    try:
        result = evaluate_run(
            Path(run_dir), env_id=env, env_kwargs=kwargs, num_episodes=episodes, seed=seed, judge=judge, samples=samples
        )
    except gym.error.UnregisteredEnv:
        if env is None:
            raise
        raise UsageError(f"no environment has the id {env!r}; {near_id(env)}") from None
    if json:
        print_json(result)
        return
    Console().print(result_table(result, f"evaluation of {run_dir}"))


def score(env_id: EnvId, /, *, input: Path, env_kwargs: EnvKwargs = "{}", json: bool = False) -> None:
    """Score saved responses again by a task's reward, as the environment would.

    Args:
        env_id: a registered id, or "module:Name-v0" of a file module.py of yours.
        input: a file of JSON lines, each with "response" and its problem: "prompt", "references" and "metadata"; or a
            "prompt" of the task's own; or "problem_id", or "seed". What `evaluate --samples` writes is such a file.
        env_kwargs: keyword arguments of the environment.
        json: print a JSON line a response (id, value, parts, status, ...) instead of a table of means.
    """
    if not input.exists():
        raise UsageError(f"--input must be a file of JSON lines, got {input}, which does not exist; name another")
    make_env(env_id, env_kwargs, ours=True)

    from agents.score import score_file, summary_table

    scored = score_file(env_id, json_object(env_kwargs), input)
    if json:
        for row in scored:
            print_json_line(row.record)
        return
    Console().print(summary_table(list(scored), f"{input} by {env_id}"))


def report(
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional],
    /,
    *,
    out: Path | None = None,
    format: Literal["html", "markdown"] = "html",
) -> None:
    """Write what a run, several seeds of one, or a benchmark came to, as one page that opens from disk.

    Args:
        paths: a run's directory, finished or not; several, or a directory of several, for seeds of one run.
        out: where the page goes; report.html in the directory unless given.
        format: "markdown" writes a summary for a pull request instead, to standard output unless --out is given.
    """
    from agents.report.write import markdown_report, write_report

    if format == "html":
        print(write_report(paths, out))
        return
    text = markdown_report(paths)
    if out is None:
        print(text, end="")
    else:
        out.write_text(text, encoding="utf-8")
        print(out)


def benchmark(
    suite: Annotated[str, tyro.conf.Positional],
    /,
    *,
    agents: str,
    seeds: str = "10",
    jobs: int = 1,
    out: Path | None = None,
    episodes: int | None = None,
    seconds: float | None = None,
    against: str | None = None,
    retry_failed: bool = False,
    allow_pickle: bool = False,
    json: bool = False,
    markdown: bool = False,
) -> None:
    """Benchmark agents: train each on each environment with each seed, and compare what they are worth.

    A benchmark that was stopped goes on where it was: what is done is never run again. docs/benchmark.md says how to
    read the results.

    Args:
        suite: a name (toy, text, checkers), a .json or .toml file, or ids with commas between them, each perhaps
            followed by keyword arguments: 'textenvs/Copy-v0{"length": 4},mine:Own-v0', the last of a file mine.py.
        agents: with commas between them: reinforce, a2c, ppo, rloo, grpo (ours), sb3-ppo, sb3-a2c, sb3-dqn,
            maskable-ppo, qrdqn, ... (Stable-Baselines3's and sb3-contrib's), random, oracle, the path of an SB3 zip, or
            module:function, a function of one observation that returns an action.
        seeds: how many, from 0 on; or such as 0-4 or 0,3,7.
        jobs: how many to run at once, each in a process of its own on one thread.
        out: directory of the results; runs/benchmark-NAME by default, of the suite's name or one made of the ids.
        episodes: most training episodes of a job; the suite's by default.
        seconds: most CPU seconds of training of a job; the suite's by default.
        against: the agent that the others are compared with; the one with the best scores by default.
        retry_failed: run again what failed.
        allow_pickle: read SB3 zips, which runs whatever code their maker put there.
        json: print JSON instead of tables.
        markdown: print the table in Markdown.
    """
    from agents.benchmark import read_results, run_benchmark, with_budget
    from agents.benchmark.picture import draw
    from agents.benchmark.tables import markdown as as_markdown
    from agents.benchmark.tables import summarise, tables
    from agents.suites import load_suite

    at_least_one("--jobs", jobs)
    asked = with_budget(load_suite(suite), num_episodes=episodes, seconds=seconds)
    folder = Path("runs") / f"benchmark-{asked.name}" if out is None else out
    names = [name.strip() for name in agents.split(",") if name.strip()]
    known = dict.fromkeys([*names, *(key[0] for key in read_results(folder)[0])])
    if against is not None and against not in known:
        hint = textenvs.near_miss(against, [*known])
        raise UsageError(f"--against must be one of the agents, got {against!r}; {hint}")
    chosen = seed_list(seeds)
    rows, curves = run_benchmark(
        asked,
        names,
        chosen,
        folder,
        num_workers=jobs,
        retry_failed=retry_failed,
        zips_trusted=allow_pickle,
    )
    summary = summarise(rows, against)
    draw(summary, rows, curves, folder / "benchmark.png")
    if json:
        print_json(summary)
    elif markdown:
        print(as_markdown(summary), end="")
    else:
        for part in tables(summary):
            Console(highlight=False).print(part)
        print(f"{folder}: results.csv, curves.csv, benchmark.png, jobs/")
    asked_for = [row for row in rows.values() if row["agent"] in names and row["seed"] in chosen]
    _say_what_failed(list(rows.values()), asked_for, folder)


def _say_what_failed(rows: list[dict[str, Any]], asked_for: list[dict[str, Any]], folder: Path) -> None:
    """Print a line a failed job; a RuntimeError when one of them was asked for."""
    for row in rows:
        if row["status"] == "failed":
            said = f"{row['agent']} on {row['env_id']}, seed {row['seed']}, failed: {row['error']}"
            print(f"textenvs: {textenvs.printable(said)}", file=sys.stderr)
    num_failed = sum(row["status"] == "failed" for row in asked_for)
    if num_failed:
        raise RuntimeError(
            f"{num_failed} of {len(asked_for)} jobs failed, see log.txt of each in {folder / 'jobs'}; the same command "
            "with --retry-failed runs them again"
        )
