"""What a sandboxed program costs beside a bare start of the same interpreter, and how many run a second.

    python benchmarks/programs.py [--repeats 60] [--batch 64]

Both are measured in turns, so that a busy machine is busy for both.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time

from textenvs.rewards import sandbox_bwrap
from textenvs.rewards.sandbox import Job, Limits, run_programs

JOB = Job("def add(a, b):\n    return a + b\n", "add", tuple([i, i + 1] for i in range(12)))


def seconds(function: object) -> float:
    """Wall clock of one call."""
    start = time.perf_counter()
    function()  # type: ignore[operator]
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    run_programs([JOB], Limits(), "bubblewrap")  # probes
    python = "/usr/bin/python3" if "/usr/bin/python3" in sandbox_bwrap._static_command()[1] else "python3"
    bare, boxed = [], []
    for _ in range(args.repeats):
        bare.append(seconds(lambda: subprocess.run([python, "-I", "-S", "-c", "pass"], check=True)))
        boxed.append(seconds(lambda: sandbox_bwrap.run(JOB, Limits())))
    for name, times in (("bare interpreter", bare), ("sandboxed program, 12 cases", boxed)):
        low, middle, high = statistics.quantiles(times, n=4)
        print(f"{name:<28} median {middle * 1e3:6.1f} ms, quartiles {low * 1e3:.1f} to {high * 1e3:.1f}")
    ratios = [b / a for a, b in zip(bare, boxed, strict=True)]
    medians = statistics.median(boxed) / statistics.median(bare)
    print(f"ratio of medians {medians:.2f}, median of ratios {statistics.median(ratios):.2f} (budget 2.5)")
    batch = seconds(lambda: run_programs([JOB] * args.batch, Limits(), "bubblewrap"))
    print(f"{args.batch} programs in one batch: {args.batch / batch:.0f} programs/s")


if __name__ == "__main__":
    main()
