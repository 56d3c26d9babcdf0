"""Small benchmarks, agents of the user's own, and the command, that the tests of the benchmark share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.benchmark import jobs, runner, workers
from agents.benchmark.jobs import Job, run_job
from agents.benchmark.results import job_folder
from agents.cli import main
from agents.suites import Suite, SuiteEnv

COPY = {"length": 2, "alphabet": "abcd", "dense": True}
TINY = Suite("tiny", (SuiteEnv("textenvs/Copy-v0", COPY), SuiteEnv("textenvs/Reverse-v0", COPY)), 256, 20.0)
ACTS = """
import os, pathlib, signal, time

HERE = pathlib.Path(__file__).parent

def first(observation):
    return 0

def broken(observation):
    raise ZeroDivisionError("a line\\nand another")

def dies_once(observation):
    marker = HERE / "died"
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 0

def dies(observation):
    os.kill(os.getpid(), signal.SIGKILL)

def slow(observation):
    time.sleep(0.003)
    return 0

def light_worker(connection, out):
    # What workers.work does, without torch: each job kills the process, or is done at once.
    from agents.benchmark.jobs import failed_row
    from agents.benchmark.results import job_folder, write_job
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        if job.agent.kind == "function":
            globals()[job.agent.name.removeprefix("acts:")](None)
        row = failed_row(job, "") | {"status": "ok", "final_return": 1.0, "episodes": 0, "score": 1.0}
        row |= {"final_return_greedy": 1.0, "seconds": 0.0}
        write_job(job_folder(out, job.key), row, [])
        connection.send(row)
"""


@pytest.fixture
def acts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with agents of the user's own, on the path of this process and those it starts."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "acts.py").write_text(ACTS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("acts", None)


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """Run jobs in this process; gives the keys of those that were run."""
    ran: list[tuple[str, str, int]] = []

    class Inline(workers.Workers):
        def results(self) -> Iterator[tuple[Job, dict[str, Any]]]:
            for job in self.waiting:
                ran.append(job.key)
                yield job, run_job(job, job_folder(self.out, job.key))

    monkeypatch.setattr(runner, "Workers", Inline)
    monkeypatch.setattr(jobs, "NUM_EVALUATED", 32)
    return ran


def run(*arguments: str) -> int:
    """Exit status of the command."""
    try:
        main(["benchmark", *arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0
