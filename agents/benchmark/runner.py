"""Run the jobs of a benchmark that are not done yet, and write down all that are."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import textenvs
from agents.benchmark.agents import NAMES, Agent, find_agent
from agents.benchmark.jobs import Job, Scale, scale_of
from agents.benchmark.results import (
    Curve,
    Key,
    Row,
    canonical,
    env_slug,
    job_folder,
    read_curve,
    read_results,
    write_tables,
    write_text,
)
from agents.benchmark.workers import Workers
from agents.runlock import run_lock
from agents.suites import Suite


def run_benchmark(
    suite: Suite,
    agents: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    *,
    num_workers: int = 1,
    retry_failed: bool = False,
    zips_trusted: bool = False,
    quiet: bool = False,
) -> tuple[dict[Key, Row], dict[Key, Curve]]:
    """Run the jobs that are not done yet, and write the tables of all that are.

    Args:
        suite: environments, budgets, settings.
        agents: names, see `find_agent`.
        seeds: at least 0, all different.
        out: the directory; made, or that of the same suite and budgets, whose finished jobs stay.
        num_workers: processes, at least 1, each on one thread.
        retry_failed: run jobs again that failed.
        zips_trusted: SB3 zips among the agents may be read, which runs the pickles in them.
        quiet: show no progress.

    Returns:
        The rows and curves of all jobs of the directory, by agent, environment and seed.

    Raises:
        ValueError: what is asked cannot be done, or a file of the directory is damaged; names it.
        ImportError: a library is missing, with the command that installs it.
    """
    known = [find_agent(name, suite.settings.get(name, {}), zips_trusted=zips_trusted) for name in agents]
    for name in suite.settings.keys() - {*NAMES, *agents}:
        raise ValueError(f"agents of a suite must be known, got {name!r}; {textenvs.near_miss(name, NAMES)}")
    for name, given in (("agents", agents), ("seeds", seeds)):
        if not given or len(set(given)) < len(given):
            raise ValueError(f"{name} must be at least one, each once, got {list(given)}; mend the list")
    with run_lock(out, "--out"):
        scales = [scale_of(env) for env in suite.envs]
        _note_request(suite, scales, agents, seeds, out)
        rows, curves = read_results(out)
        jobs = _jobs(suite, scales, known, seeds)
        write_tables(out, rows, curves)
        _run(_to_do(jobs, rows, retry_failed), len(jobs), out, rows, curves, num_workers, quiet)
        return rows, curves


def _jobs(suite: Suite, scales: Sequence[Scale], agents: Sequence[Agent], seeds: Sequence[int]) -> list[Job]:
    """All jobs asked for, seed by seed, so that a benchmark cut short has compared everybody."""
    return [
        Job(suite.name, agent, env, scale, seed, suite.num_episodes, suite.seconds)
        for seed in seeds
        for env, scale in zip(suite.envs, scales, strict=True)
        for agent in agents
    ]


def _to_do(jobs: Sequence[Job], rows: dict[Key, Row], retry_failed: bool) -> list[Job]:
    """Leave out what is done with the same settings."""
    stale = [job for job in jobs if job.key in rows and rows[job.key]["settings_sha256"] != job.settings_sha256]
    if stale:
        names = ", ".join(dict.fromkeys(job.agent.name for job in stale))
        warnings.warn(f"{len(stale)} finished jobs had other settings than {names} has now: run again", stacklevel=3)
    failed = [job for job in jobs if retry_failed and job.key in rows and rows[job.key]["status"] == "failed"]
    return [job for job in jobs if job.key not in rows or job in stale or job in failed]


def _run(
    jobs: Sequence[Job],
    num_all: int,
    out: Path,
    rows: dict[Key, Row],
    curves: dict[Key, Curve],
    num_workers: int,
    quiet: bool,
) -> None:
    console = Console(stderr=True, quiet=quiet, markup=False, highlight=False, soft_wrap=True)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("jobs"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # Only a terminal has a bar; a line a job is printed above it, and into a file alike.
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=num_all, completed=num_all - len(jobs))

        for number, (job, row) in enumerate(Workers(num_workers, jobs, out).results(), num_all - len(jobs) + 1):
            rows[job.key], curves[job.key] = row, read_curve(job_folder(out, job.key))
            write_tables(out, rows, curves)
            said = "failed" if row["status"] == "failed" else f"final return {row['final_return']:.3f}"
            title = job.env.env_id + (canonical(job.env.env_kwargs) if job.env.env_kwargs else "")
            said = f"{number}/{num_all} {job.agent.name} {title} seed {job.seed}: {said}"
            console.print(textenvs.printable(said))
            progress.advance(task)


def _note_request(
    suite: Suite, scales: Sequence[Scale], agents: Sequence[str], seeds: Sequence[int], out: Path
) -> None:
    """Write suite.json; in a directory that has one, see that it is of the same suite, and add agents and seeds."""
    path = out / "suite.json"
    envs = [
        {
            "id": env.env_id,
            "kwargs": dict(env.env_kwargs),
            "slug": env_slug(env),
            **vars(scale),
            "threshold": scale.threshold,
        }
        for env, scale in zip(suite.envs, scales, strict=True)
    ]
    asked = {"suite": suite.name, "budget_episodes": suite.num_episodes, "budget_seconds": suite.seconds, "envs": envs}
    asked = json.loads(canonical(asked))
    noted: dict[str, list[Any]] = {"agents": list(agents), "seeds": list(seeds)}
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            same = {name: before[name] for name in asked}
            slugs = ", ".join(env["slug"] for env in before["envs"])
            noted = {name: list(dict.fromkeys([*before[name], *values])) for name, values in noted.items()}
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"{path} must be what a benchmark wrote, got {error!r}; restore it") from None
        # The name of a list of ids tells no more than the ids do, and was "own" before each list had one.
        changed = [name for name in asked if same[name] != asked[name] and (name, same[name]) != ("suite", "own")]
        if changed:
            name = changed[0]
            had, got = same[name], asked[name]
            if name == "envs":
                got = ", ".join(env["slug"] for env in envs)
                had = slugs if slugs != got else f"{slugs} with another threshold"
            raise ValueError(f"{name} must be that of the benchmark in {out}, {had}, got {got}; name another --out")
    noted["seeds"].sort()
    write_text(path, json.dumps({**asked, **noted}, indent=1) + "\n")


def with_budget(suite: Suite, *, num_episodes: int | None, seconds: float | None) -> Suite:
    """The suite with another budget, where one is given."""
    return replace(
        suite,
        num_episodes=suite.num_episodes if num_episodes is None else num_episodes,
        seconds=suite.seconds if seconds is None else seconds,
    )
