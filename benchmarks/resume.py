"""Exact resume: a run stopped after any update, or killed anywhere, ends with the bits of one that never stopped.

    TMPDIR=/dev/shm python benchmarks/resume.py --jobs 2      # every stop 1 to 39, and 50 kills, not waiting for a disk
    python benchmarks/resume.py --stops 3 --kills 3           # a few of them
    python benchmarks/resume.py --fork                        # the imports once, in a fork server: a third of the time

One configuration of 40 updates is trained straight, twice. Then, for each stop k, a new process stops after update k
and another new process resumes to the end. Then processes kill themselves (SIGKILL) at a call drawn at random among all
calls of sampling (LMPolicy.act), of updating (LMPolicy.evaluate, Adam.step) and of saving (each file operation; a file
being written is left half written), once a checkpoint is acknowledged; another new process resumes each.

Compared are SHA-256 of the final weights and the optimizer (names, kinds, shapes and bytes of the tensors; safetensors
writes its header's metadata in any order), the state, metrics.jsonl and samples.jsonl. Left out by name, because a
clock makes them: `seconds` and `tokens_per_second` of each line of metrics.jsonl, and that file's length in state.json.
Every process starts from other states of the global generators of Python, NumPy and torch, which must not matter. Exit
status 1 when a bit differs, a kill resumes from update 0, or an acknowledged checkpoint is lost.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

NUM_UPDATES, EPISODES_PER_UPDATE = 40, 16
WALL_CLOCK = ("seconds", "tokens_per_second")
PHASES = ("sampling", "update", "saving")
KILL_SEED = 0
PARTS = ("weights", "optimizer", "state", "metrics", "samples")
FORKS: ForkServerContext | None = None


class Hooks:
    """In the child: counts the calls of each phase, and stops or kills its process at the one asked for."""

    def __init__(self, stop: int | None, kill: str | None) -> None:
        self.stop, self.saving = stop, False
        phase, number = (kill or "none:0").split(":")
        self.kill = (phase, int(number))
        self.counts = dict.fromkeys(PHASES, 0)
        self.first: dict[str, int] | None = None  # counts when the first checkpoint was acknowledged

    def install(self) -> None:
        """Replace what train() calls."""
        import torch

        import agents.checkpoint
        import agents.train
        from agents.lm import LMPolicy

        self.wrap(LMPolicy, "act", "sampling")
        self.wrap(LMPolicy, "evaluate", "update")
        self.wrap(torch.optim.Adam, "step", "update")
        for name in ("mkdir", "open", "fsync", "rename", "unlink", "rmdir"):
            self.wrap(os, name, "saving")
        self.wrap(Path, "write_text", "saving", lambda path, *rest: path)
        self.wrap(agents.checkpoint, "save_file", "saving", lambda tensors, path: path)
        train: Any = agents.train
        train.save_checkpoint = functools.partial(self.save, train.save_checkpoint)
        train.write_directory = functools.partial(self.save, train.write_directory)
        train.load_checkpoint = functools.partial(self.load, train.load_checkpoint)

    def wrap(self, owner: Any, name: str, phase: str, written: Callable[..., Path] | None = None) -> None:
        """Count the calls of owner.name; die at the chosen one, with what it writes half written."""
        real = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if phase != "saving" or self.saving:
                self.counts[phase] += 1
                if (phase, self.counts[phase]) == self.kill:
                    if written is not None:
                        real(*args, **kwargs)
                        os.truncate(written(*args), written(*args).stat().st_size // 2)
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        setattr(owner, name, call)

    def save(self, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Save; say what is acknowledged by its return; stop when asked to."""
        self.saving = True
        try:
            result = real(*args, **kwargs)
        finally:
            self.saving = False
        if isinstance(args[1], int):
            print("saved", args[1], flush=True)
            self.first = self.first or dict(self.counts)
            if args[1] == self.stop:
                raise KeyboardInterrupt
        return result

    def load(self, real: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
        """Load; say which update it was."""
        state = real(*args)
        print("resumed", state["step"], flush=True)
        return state


def child(run_dir: Path, stop: int | None, kill: str | None) -> None:
    """Train, or go on where run_dir stands."""
    import torch

    import textenvs
    from agents.algorithms import ALGORITHMS
    from agents.train import TrainConfig, train

    torch.set_num_threads(1)
    textenvs.register_envs()
    random.seed()
    np.random.seed()  # noqa: NPY002
    torch.seed()
    # An adaptive KL coefficient and several optimizer steps, so that the state is more than a counter.
    algorithm = replace(
        ALGORITHMS["ppo"],
        episodes_per_update=EPISODES_PER_UPDATE, num_epochs=2, num_minibatches=2,
        kl_coef=0.05, kl_target=0.5, kl_horizon=200,
    )  # fmt: skip
    config = TrainConfig(
        env_id="textenvs/Copy-v0",
        env_kwargs={"length": 2, "alphabet": "abcd", "dense": True},
        algorithm=algorithm,
        model_kwargs={"hidden_size": 16, "num_heads": 2},
        num_episodes=NUM_UPDATES * EPISODES_PER_UPDATE,
        num_envs=EPISODES_PER_UPDATE,
    )
    hooks = Hooks(stop, kill)
    hooks.install()
    try:
        train(config, run_dir, resume=run_dir.exists(), quiet=True)
    except KeyboardInterrupt:
        return
    print("counts", json.dumps([hooks.first, hooks.counts]), flush=True)


@dataclass(frozen=True)
class Ended:
    """What one child process said, and how it ended."""

    status: int
    said: dict[str, Any]  # the last value of each word


def run_child(run_dir: Path, *arguments: str) -> Ended:
    """Run a new Python interpreter on a run directory; with --fork, a new process that has imported the modules."""
    output = run_dir.parent / "said"
    status: int | None
    if FORKS is None:
        command = [sys.executable, "-W", "error", __file__, "--child", str(run_dir), *arguments]
        with output.open("w", encoding="utf-8") as file:
            status = subprocess.run(command, stdout=file, check=False).returncode
    else:
        process = FORKS.Process(target=forked, args=(output, ["--child", str(run_dir), *arguments]))
        process.start()
        process.join()
        status = process.exitcode
    if status not in (0, -signal.SIGKILL):
        raise RuntimeError(
            f"the child must end by itself or by the kill, got exit status {status}; see its error above"
        )
    words = (line.split(" ", 1) for line in output.read_text(encoding="utf-8").splitlines())
    return Ended(status, {word: json.loads(value) for word, value in words})


def forked(output: Path, arguments: list[str]) -> None:
    """Be the child, in a process that the fork server made."""
    with output.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        main(arguments)


def tensors(path: Path) -> bytes:
    """Return names, kinds, shapes and bytes of a file's tensors."""
    found = sorted(load_file(path).items())
    return b"".join(f"{name} {value.dtype} {value.shape} ".encode() + value.tobytes() for name, value in found)


def fingerprint(run_dir: Path) -> dict[str, str]:
    """Return a SHA-256 for each part of what a finished run is."""
    last = run_dir / "checkpoints" / f"step_{NUM_UPDATES:06d}"
    state = json.loads((last / "state.json").read_text(encoding="utf-8"))
    del state["sizes"]["metrics.jsonl"]
    metrics = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [{name: value for name, value in line.items() if name not in WALL_CLOCK} for line in metrics]
    contents = (
        b"".join(tensors(path) for path in sorted((run_dir / "final").glob("*.safetensors"))),
        tensors(last / "optimizer.safetensors"),
        json.dumps(state).encode(),
        json.dumps(kept).encode(),
        (run_dir / "samples.jsonl").read_bytes(),
    )
    return {part: hashlib.sha256(content).hexdigest() for part, content in zip(PARTS, contents, strict=True)}


def interrupted(label: str, arguments: tuple[str, str], expected: dict[str, str]) -> tuple[str, bool]:
    """Interrupt one run as asked, resume it to the end; return its cell of the table and whether all is equal."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        first = run_child(run_dir, *arguments)
        second = run_child(run_dir)
        prints = fingerprint(run_dir)
    was_killed = first.status == -signal.SIGKILL
    saved, resumed = first.said.get("saved", 0), second.said.get("resumed", 0)
    different = [part for part in PARTS if prints[part] != expected[part]]
    good = not different and resumed >= max(saved, 1) and was_killed == (arguments[0] == "--kill")
    verdict = total(prints)[:8] if not different else f"{' '.join(different)} DIFFER"
    cell = f"{label:>14}  acknowledged {saved:2}  resumed {resumed:2}  {verdict}{'' if good else '  WRONG'}"
    return cell, good


def total(prints: dict[str, str]) -> str:
    """Return one SHA-256 over all parts."""
    return hashlib.sha256("".join(prints[part] for part in PARTS).encode()).hexdigest()


def draw_kills(counts: list[dict[str, int]], num_kills: int) -> list[str]:
    """Draw different calls among those after the first acknowledged checkpoint, the phases in turn."""
    first, last = counts
    rng = np.random.default_rng(KILL_SEED)
    drawn = []
    for i, phase in enumerate(PHASES):
        num = len(range(i, num_kills, len(PHASES)))
        calls = rng.choice(np.arange(first[phase] + 1, last[phase] + 1), size=num, replace=False)
        drawn += [f"{phase}:{call}" for call in sorted(calls)]
    return drawn


def main(argv: list[str] | None = None) -> None:
    """Run the straight runs, the stops and the kills; print both tables."""
    global FORKS
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stops", type=int, default=NUM_UPDATES - 1, help="how many stops, evenly spread over 1 to 39")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--fork", action="store_true", help="fork the processes from one that has imported the modules")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--stop", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kill", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child:
        child(arguments.child, arguments.stop, arguments.kill)
        return
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if arguments.fork:
        FORKS = multiprocessing.get_context("forkserver")
        FORKS.set_forkserver_preload(["agents.train", "transformers.models.gpt2.modeling_gpt2"])
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        runs = [Path(folder) / str(i) / "run" for i in range(2)]
        for run_dir in runs:
            run_dir.parent.mkdir()
        straight = [run_child(run_dir) for run_dir in runs]
        expected, again = map(fingerprint, runs)
    good = expected == again
    print(f"straight run, {NUM_UPDATES} updates: {total(expected)[:8]}; a second one: {total(again)[:8]}")
    print("  " + "  ".join(f"{part} {value[:8]}" for part, value in expected.items()))
    stops = np.unique(np.linspace(1, NUM_UPDATES - 1, arguments.stops).round().astype(int))
    jobs = [(f"stop {k}", ("--stop", str(k))) for k in stops]
    kills = draw_kills(straight[0].said["counts"], arguments.kills)
    jobs += [(kill.replace(":", " "), ("--kill", kill)) for kill in kills]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = pool.map(lambda job: interrupted(*job, expected), jobs)
        for number, (cell, equal) in enumerate(results):
            print(cell, flush=True)
            good &= equal
            if number + 1 == len(stops):
                print(
                    f"-- {len(stops)} stops done in {time.perf_counter() - started:.0f} s; kills, by call of a phase:"
                )
    print(f"{'all equal' if good else 'NOT EQUAL'}: {len(stops)} stops, {len(kills)} kills; ", end="")
    print(f"{time.perf_counter() - started:.0f} s, {arguments.jobs} jobs")
    sys.exit(not good)


if __name__ == "__main__":
    main()
