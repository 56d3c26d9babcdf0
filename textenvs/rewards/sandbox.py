"""Runs Python programs that a model wrote, in the strongest sandbox that works here, or not at all.

The parts: `sandbox_base` (jobs and outcomes), `sandbox_bwrap` with `sandbox_seccomp` and `assets/sandbox/child.py.txt`
(tier A), `sandbox_monty` (tier B), `sandbox_probe` (does it hold?). What this does not promise stands in SECURITY.md.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from textenvs.rewards import sandbox_bwrap, sandbox_monty
from textenvs.rewards.sandbox_base import Job, Limits, Outcome, SandboxUnavailable
from textenvs.rewards.sandbox_probe import Runner, probe

__all__ = ["SANDBOXES", "Job", "Limits", "Outcome", "SandboxUnavailable", "run_programs"]

#: name -> how it runs a program, strongest first.
SANDBOXES: dict[str, Runner] = {sandbox_bwrap.NAME: sandbox_bwrap.run, sandbox_monty.NAME: sandbox_monty.run}

# Programs wait for the clock as often as for a core.
_NUM_WORKERS = 2 * len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
_slots = threading.BoundedSemaphore(_NUM_WORKERS)
_probed: dict[str, Runner] = {}
_probing = threading.Lock()


def run_programs(jobs: Sequence[Job], limits: Limits, sandbox: str = "auto") -> list[Outcome]:
    """Run programs, each in a fresh sandbox, at most two per core at a time.

    Args:
        jobs: B programs.
        limits: of each.
        sandbox: a name of `SANDBOXES`, or "auto": the first that works.

    Returns:
        B outcomes; a program's outcome does not depend on the others.

    Raises:
        SandboxUnavailable: none that was asked for works here.
    """
    return _map(_chosen(sandbox), jobs, limits) if jobs else []


def _map(run: Runner, jobs: Sequence[Job], limits: Limits) -> list[Outcome]:
    def one(job: Job) -> Outcome:
        with _slots:
            return run(job, limits)

    with ThreadPoolExecutor(min(len(jobs), _NUM_WORKERS)) as pool:
        return list(pool.map(one, jobs))


def _chosen(sandbox: str) -> Runner:
    """The sandbox to use, probed once in this process."""
    with _probing:
        if sandbox in _probed:
            return _probed[sandbox]
        failures = []
        for name in SANDBOXES if sandbox == "auto" else (sandbox,):
            try:
                probe(SANDBOXES[name], _map)
            except SandboxUnavailable as error:
                failures.append(f"{name}: {error}")
                continue
            _probed[sandbox] = SANDBOXES[name]
            if failures:
                warnings.warn(
                    f"programs run in {name}, which knows only a part of Python; {'; '.join(failures)}",
                    RuntimeWarning,
                    stacklevel=5,
                )
            return SANDBOXES[name]
    raise SandboxUnavailable(
        f"no sandbox for Python programs works here: {'; '.join(failures)}. On Debian or Ubuntu: apt-get install "
        'bubblewrap libseccomp2, pip install "textenvs[sandbox]"; where unprivileged user namespaces are forbidden '
        "(some containers, Ubuntu 24.04), allow them, or score elsewhere"
    )
