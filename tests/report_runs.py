"""Run directories as train and evaluate write them, small and made up, that the tests of the report share."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agents.benchmark.results import COLUMNS as COLUMNS_OF_RESULTS
from agents.benchmark.results import key_of, write_tables

COLUMNS = ("log_prob", "value", "advantage", "kl")
# Without these flags Chromium asks the network for updates, which has nothing to do with the page.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def episode(update: int, prompt: str, tokens: Sequence[str], value: float, **more: Any) -> dict[str, Any]:
    """A line of samples.jsonl."""
    columns = {name: [round(-0.1 * k - 0.01 * i, 4) for i in range(len(tokens))] for k, name in enumerate(COLUMNS)}
    line = {"update": update, "prompt": prompt, "response": "".join(tokens), "finish_reason": "eos", "return": value}
    return {**line, "tokens": {"token": list(tokens), **columns}, **more}


def metrics(num_updates: int, *, seed: int = 0, **more: Any) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl whose return rises from 0.1."""
    return [
        {
            "update": k,
            "return": 0.1 + 0.02 * k + 0.01 * seed,
            "entropy": 2.0 - 0.01 * k,
            "check/ratio_error": 1e-6,
            "check/excluded_episodes": 0.0,
            "check/explained_variance": 0.5,
            "episodes": 64 * k,
            "seconds": 1.5,
            **({"check/start_kl_same_forward": 0.0, "check/start_kl_per_token": 1e-7} if k == 1 else {}),
            **more,
        }
        for k in range(1, num_updates + 1)
    ]


def write_run(
    run_dir: Path,
    *,
    config: dict[str, Any] | None = None,
    lines: list[dict[str, Any]] | None = None,
    samples: list[dict[str, Any]] | None = None,
    evaluation: dict[str, Any] | None = None,
    environment: dict[str, Any] | None = None,
    finished: bool = True,
) -> Path:
    """Write a run directory; what is not given is that of a run that went well."""
    run_dir.mkdir(parents=True)
    settings = {"env_id": "TextGen-v0", "algorithm": {"baseline": "critic", "num_epochs": 2}, "model": "tiny"}
    settings |= {"num_episodes": 64 * 20, "seed": 0}
    (run_dir / "config.json").write_text(json.dumps(settings if config is None else config))
    some = [episode(k, f"prompt {k}.{i} ", ["a", " b", "<eos>"], 0.1 * i) for k in (1, 10, 20) for i in range(4)]
    for name, records in (("metrics", metrics(20) if lines is None else lines), ("samples", samples or some)):
        (run_dir / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if evaluation is not None:
        (run_dir / "evaluation.json").write_text(json.dumps(evaluation))
    checkpoint = run_dir / "checkpoints" / "step_000020"
    checkpoint.mkdir(parents=True)
    computed = {"torch": "2.13.0", "cpu": "x86_64", "git_commit": "abc"} if environment is None else environment
    (checkpoint / "manifest.json").write_text(json.dumps({"environment": computed}))
    if finished:
        (run_dir / "final").mkdir()
    return run_dir


def benchmark_row(agent: str, env_id: str, seed: int, score: float, **more: Any) -> dict[str, Any]:
    """A finished job; it reached the threshold when its score is above 0.9."""
    reached = score > 0.9
    row = {
        **dict.fromkeys(COLUMNS_OF_RESULTS),
        "suite": "toy",
        "agent": agent,
        "library": "textenvs",
        "env_id": env_id,
        "env_kwargs": {},
        "seed": seed,
        "status": "ok",
        "budget_episodes": 4000,
        "budget_seconds": 45.0,
        "episodes": 4000,
        "seconds": 40.0,
        "final_return": 0.1 + 0.9 * score,
        "final_return_greedy": score,
        "random_return": 0.1,
        "optimal_return": 1.0,
        "score": score,
        "threshold": 0.95,
        "threads": 1,
        "commit": "abc",
        "versions": {"torch": "2.13"},
        "date": f"2026-11-22 10:{seed:02}",
        "machine": "a machine",
        "settings_sha256": "1",
        "episodes_to_threshold": int(4000 - 2000 * score) if reached else None,
        "seconds_to_threshold": 40 - 20 * score if reached else None,
    }
    return row | more


def write_benchmark(out: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write a benchmark's directory in its committed form; each job's curve rises to its score."""
    out.mkdir(parents=True)
    by_key = {key_of(row): row for row in rows}
    curves = {
        key: [(400 * k, 4.0 * k, 0.1 + 0.9 * (row["score"] or 0) * (1 - math.exp(-k / 3))) for k in range(1, 11)]
        for key, row in by_key.items()
    }
    write_tables(out, by_key, curves)
    return out


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser; where there is none the test skips, or fails where TEXTENVS_REQUIRE_BROWSER is set."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        path = None
    if path is None:
        why = "needs Chromium and the package playwright: apt-get install chromium; pip install playwright"
        if os.environ.get("TEXTENVS_REQUIRE_BROWSER"):
            pytest.fail(why)
        pytest.skip(why)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()
