"""Benchmarks: whatever is killed, no job is lost and no process is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from benchmarked import COPY, TINY

from agents.benchmark import run_benchmark, workers
from agents.benchmark.results import read_results
from agents.suites import load_suite


def test_a_killed_worker_is_replaced_and_its_job_run_again(
    tmp_path: Path, acts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "work", import_module("acts").light_worker)
    suite = replace(TINY, envs=TINY.envs[:1])
    agents = ["acts:dies_once", "acts:dies", "random", "oracle"]
    rows, _ = run_benchmark(suite, agents, [0], tmp_path / "out", num_workers=2, quiet=True)
    said = {key[0]: (row["status"], row["error"]) for key, row in rows.items()}
    assert said["acts:dies_once"] == said["random"] == said["oracle"] == ("ok", "")
    assert said["acts:dies"][0] == "failed"
    assert "its process died 2 times, last with exit code -9" in said["acts:dies"][1]
    assert read_results(tmp_path / "out")[0] == rows
    assert not children()


@pytest.mark.slow
def test_a_worker_that_is_killed_in_earnest_is_replaced(tmp_path: Path, acts: Path) -> None:
    suite = replace(TINY, envs=TINY.envs[:1])
    rows, _ = run_benchmark(suite, ["acts:dies_once", "acts:dies", "random"], [0], tmp_path / "out", quiet=True)
    assert {key[0]: row["status"] for key, row in rows.items()} == {
        "acts:dies_once": "ok",
        "acts:dies": "failed",
        "random": "ok",
    }
    assert not children()


@pytest.mark.parametrize(
    ("number", "wanted"), [(signal.SIGKILL, -9), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_killed_benchmark_leaves_no_process_and_goes_on(
    number: int, wanted: int, tmp_path: Path, acts: Path, inline: list[Any]
) -> None:
    """Killed, or stopped by Ctrl-C, in the middle of the second job; then the rest here."""
    out = tmp_path / "out"
    arguments = [f"textenvs/Copy-v0{json.dumps(COPY)}", "--agents", "acts:slow", "--seeds", "4", "--out", str(out)]
    code = f"import sys; sys.path.insert(0, {str(acts)!r}); from agents.cli import main; main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "benchmark", *arguments], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: any(out.glob("jobs/*/*/seed_1/log.txt")))  # the second job has begun
    workers = children(process.pid)
    assert workers
    done = results(out)
    os.kill(process.pid, number)
    said = process.communicate()[1]  # ends when the last of them has closed it
    assert process.returncode == wanted
    assert ("textenvs: interrupted" in said) == (wanted == 130)
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    assert results(out) == done  # the job under way, of seconds, was not gone on with
    assert 1 <= len(done) < 4
    rows, _ = run_benchmark(load_suite(arguments[0]), ["acts:slow"], range(4), out, quiet=True)
    assert len(inline) == 4 - len(done)
    assert done.items() <= results(out).items()  # not written again
    assert len(rows) == len(results(out)) == 4


def results(out: Path) -> dict[Path, int]:
    """Every finished job with the time at which its result was written."""
    return {path: path.stat().st_mtime_ns for path in out.glob("jobs/*/*/*/result.json")}


def children(pid: int | None = None) -> list[int]:
    """Process ids of the workers that a process has."""
    path = Path(f"/proc/{pid or os.getpid()}/task")
    found = [int(child) for task in path.iterdir() for child in (task / "children").read_text().split()]
    return [child for child in found if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
