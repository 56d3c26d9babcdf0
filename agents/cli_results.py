"""The verbs of the `textenvs` command that are about results: of a run, and of saved responses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from agents.cli_arguments import (
    EnvId,
    EnvKwargs,
    at_least_one,
    json_object,
    make_env,
    not_negative,
    print_json,
    print_json_line,
)


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
    from agents.evaluate import evaluate_run, result_table

    at_least_one("--episodes", episodes)
    not_negative("--seed", seed)
    kwargs = None if env_kwargs is None else json_object(env_kwargs)
    result = evaluate_run(
        Path(run_dir), env_id=env, env_kwargs=kwargs, num_episodes=episodes, seed=seed, judge=judge, samples=samples
    )
    if json:
        print_json(result)
        return
    Console().print(result_table(result, f"evaluation of {run_dir}"))


def score(env_id: EnvId, /, *, input: Path, env_kwargs: EnvKwargs = "{}", json: bool = False) -> None:
    """Score saved responses again by a task's reward, as the environment would.

    Args:
        env_id: a registered id.
        input: a file of JSON lines, each with "response" and its problem: "prompt", "references" and "metadata"; or a
            "prompt" of the task's own; or "problem_id", or "seed". What `evaluate --samples` writes is such a file.
        env_kwargs: keyword arguments of the environment.
        json: print a JSON line a response (id, value, parts, status, ...) instead of a table of means.
    """
    from agents.score import score_file, summary_table

    make_env(env_id, env_kwargs, ours=True)
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
