"""Seconds until somebody who starts us can begin: `python benchmarks/start_up.py`.

Each figure is of a fresh process, from its start to its end: `import textenvs`, `textenvs list`, and the first
`env.reset` of `gym.make("TextGen-v0")`, imports included. Each stands beside its limit (the ratio is limit / seconds)
and, in turns with it, beside a process that only imports Gymnasium, which nobody who uses it can do without. The last
comparison leaves the imports out: `gym.make` and the first `reset`, as the process itself clocks them, beside those of
CartPole-v1. One run of each goes before and is not counted: it reads the files and compiles the bytecode.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from measure import RESULTS, in_turns, machine, record

ROW = "start-up"
FLOOR = ["-c", "import gymnasium"]
_CLOCKED = """
import time, gymnasium as gym, textenvs
started = time.perf_counter()
gym.make({env_id!r}).reset(seed=0)
print(time.perf_counter() - started)
"""
#: case -> what Python is given, and the limit in seconds.
CASES: dict[str, tuple[list[str], float]] = {
    "import textenvs": (["-c", "import textenvs"], 0.5),
    "textenvs list": (["-m", "agents.cli", "list"], 1.0),
    "first reset of TextGen-v0": (
        ["-c", "import gymnasium as gym, textenvs; gym.make('TextGen-v0').reset(seed=0)"],
        1.0,
    ),
}


def output(arguments: list[str]) -> str:
    """What a fresh interpreter prints, run in the directory of this checkout, with nothing of Python's set."""
    unset = ("PYTHONDONTWRITEBYTECODE", "PYTHONSTARTUP", "PYTHONPROFILEIMPORTTIME", "PYTHONPATH")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, check=True).stdout


def whole(arguments: list[str]) -> float:
    """Seconds of a process from its start to its end."""
    started = time.perf_counter()
    output(arguments)
    return time.perf_counter() - started


def clocked(env_id: str) -> float:
    """Seconds that a fresh process needs for `gym.make` and the first `reset`, after its imports."""
    return float(output(["-c", _CLOCKED.format(env_id=env_id)]))


def main() -> None:
    """Measure every case, print it and append it to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="turns of each comparison")
    parser.add_argument("--no-csv", action="store_true", help="print only")
    arguments = parser.parse_args()
    out = None if arguments.no_csv else RESULTS
    print(machine())
    sides: dict[str, tuple[Callable[[], float], Callable[[], float], str, float | None]] = {
        case: (partial(whole, given), partial(whole, FLOOR), "import gymnasium", limit)
        for case, (given, limit) in CASES.items()
    }
    ours, theirs = partial(clocked, "TextGen-v0"), partial(clocked, "CartPole-v1")
    sides["make and first reset of TextGen-v0, after the imports"] = (ours, theirs, "CartPole-v1", None)
    for case, (one, other, peer, limit) in sides.items():
        one(), other()
        pairs = in_turns(one, other, arguments.repeats)
        if limit is not None:
            limits = [(seconds, limit) for seconds, _ in pairs]
            record(ROW, case, limits, unit="s", peer="the limit", bar=1.0, out=out)
        record(ROW, f"{case}, beside {peer}", pairs, unit="s", peer=peer, bar=None, out=out)


if __name__ == "__main__":
    main()
