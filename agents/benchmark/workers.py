"""Processes that run the jobs of a benchmark side by side, and outlive neither a killed worker nor a killed parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from agents.benchmark.jobs import Job, failed_row, run_job
from agents.benchmark.results import Key, Row, job_folder, write_job

MAX_ATTEMPTS = 2  # of a job whose process dies
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Workers:
    """Processes that run jobs: each takes the next when it has done one, and dies with this process.

    A process that dies is replaced, and its job run again from its start, `MAX_ATTEMPTS` times in all.
    """

    def __init__(self, num_workers: int, jobs: Sequence[Job], out: Path) -> None:
        self.waiting, self.out = deque(jobs), out
        self.attempts: dict[Key, int] = {}
        self.running: dict[Connection, tuple[Any, Job | None]] = {}
        self.num_workers = min(num_workers, len(jobs))

    def results(self) -> Iterator[tuple[Job, Row]]:
        """Run all jobs; give each with its row as it ends.

        However this ends, no process is left.
        """
        try:
            for _ in range(self.num_workers):
                self._start()
            while self.running:
                ready = wait(list(self.running))
                for connection in ready:
                    assert isinstance(connection, Connection)
                    process, job = self.running[connection]
                    try:
                        row = connection.recv()
                    except (EOFError, OSError):
                        row = self._died(connection, process, job)
                    if job is not None and row is not None:
                        yield job, row
                    if connection in self.running:
                        self._give(connection)
        finally:
            self._stop()

    def _start(self) -> None:
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(target=work, args=(theirs, self.out))
        with _one_thread():
            process.start()
        theirs.close()
        self.running[ours] = (process, None)
        self._give(ours)

    def _give(self, connection: Connection) -> None:
        """Give a worker the next job, or end it."""
        process, _ = self.running[connection]
        if not self.waiting:
            del self.running[connection]
            connection.close()  # the worker ends when it reads that
            process.join()
            return
        job = self.waiting.popleft()
        self.attempts[job.key] = self.attempts.get(job.key, 0) + 1
        self.running[connection] = (process, job)
        with contextlib.suppress(OSError):  # one that died is found dead when it is read
            connection.send(job)

    def _died(self, connection: Connection, process: Any, job: Job | None) -> Row | None:
        """Bury a worker and start another; the row of its job when that is to be tried no more."""
        process.join()
        del self.running[connection]
        connection.close()
        row = None
        if job is not None and self.attempts[job.key] < MAX_ATTEMPTS:
            self.waiting.appendleft(job)
        elif job is not None:
            row = failed_row(
                job,
                f"its process died {MAX_ATTEMPTS} times, last with exit code {process.exitcode}; "
                "a code of -9 is often a lack of memory",
            )
            write_job(job_folder(self.out, job.key), row, [])
        if self.waiting:
            self._start()
        return row

    def _stop(self) -> None:
        for connection, (process, _) in self.running.items():
            process.kill()
            process.join()
            connection.close()
        self.running.clear()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let processes started inside compute on one thread: their libraries read this when they are loaded."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def work(connection: Connection, out: Path) -> None:
    """Run the jobs that come, until the connection ends; what each process of `Workers` does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then ends this one
    threading.Thread(target=_die_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            job: Job = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(run_job(job, job_folder(out, job.key)))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
