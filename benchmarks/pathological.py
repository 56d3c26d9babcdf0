"""Every pathological answer of tests/pathological_answers.py, from the main thread, a worker thread and asyncio.

    python benchmarks/pathological.py

After each, an honest answer must pass. Prints one line a mechanism: how many answers, how many scored as right (none
may), how many were refused or killed (model_fault), the longest time, honest answers that failed, and infra faults.
Then many threads ask at once, one with a maths answer that never ends and the next with an honest one.
About 8 minutes on two cores. Exit status 1 when a promise is broken.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from maths_answers import TOWER, children
from pathological_answers import CONTEXTS, HONEST, Outcome, pathological, rewards, tried

from textenvs.rewards.base import Reward
from textenvs.rewards.worker import MAX_PROCESSES

#: What a call may take beyond the limit.
SLACK_SECONDS = 0.5


def resident_mb() -> float:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=float, default=2.0, help="seconds a maths answer or a document may take")
    parser.add_argument("--every", type=int, default=1, help="try every n-th answer only")
    arguments = parser.parse_args()
    limit = arguments.limit
    answers, checkers = pathological()[:: arguments.every], rewards(limit)
    for name, honest in HONEST.items():
        assert tried(honest, checkers[name], "main").value == 1.0
    before, start = resident_mb(), time.monotonic()
    outcomes: dict[str, list[tuple[Outcome, Outcome]]] = {}
    for answer in answers:
        for context in CONTEXTS:
            bad = tried(answer, checkers[answer.reward], context)
            good = tried(HONEST[answer.reward], checkers[answer.reward], context)
            outcomes.setdefault(answer.mechanism, []).append((bad, good))
            if bad.value or bad.seconds > limit + SLACK_SECONDS or good.value != 1.0 or bad.status == "infra_fault":
                print(f"BROKEN {context} {answer.mechanism} {answer.response[:60]!a} {bad} {good}", flush=True)
    crowds_failed = sum(not crowd(checkers["math_answer"], num_threads) for num_threads in (10, 32))
    for workers in {checker.workers for checker in checkers.values() if hasattr(checker, "workers")}:
        workers.close()
    rows = [(name, *_columns(pairs)) for name, pairs in outcomes.items()]
    total = ("all", *_columns([pair for pairs in outcomes.values() for pair in pairs]))
    print("| mechanism | tried | right | model_fault | infra_fault | longest (s) | honest after that failed |")
    print("|---|---|---|---|---|---|---|")
    for row in [*rows, total]:
        print("| " + " | ".join(map(str, row)) + " |")
    left = len(children())
    print(
        f"{len(answers)} answers x {len(CONTEXTS)} contexts, limit {limit} s, {time.monotonic() - start:.0f} s; "
        f"{left} processes left; memory grew by {resident_mb() - before:.1f} MB"
    )
    broken = total[2] or total[4] or total[5] > limit + SLACK_SECONDS or total[6] or left or crowds_failed
    return int(bool(broken))


def crowd(reward: Reward, num_threads: int) -> bool:
    """Whether each of many threads at once gets its own answer's verdict, from no more processes than there may be."""
    honest = HONEST["math_answer"]
    asked = [honest._replace(response=TOWER) if i % 2 else honest for i in range(num_threads)]
    most = 0
    with ThreadPoolExecutor(num_threads) as pool:
        futures = [pool.submit(tried, answer, reward, "main") for answer in asked]
        while not all(future.done() for future in futures):
            most = max(most, len(children()))
            time.sleep(0.05)
    outcomes = [future.result() for future in futures]
    right = sum(outcome[:2] == (1.0, "ok") for outcome in outcomes[::2])
    killed = sum(outcome[:2] == (0.0, "model_fault") for outcome in outcomes[1::2])
    print(
        f"{num_threads} threads at once: {right} of {len(outcomes[::2])} honest answers right, {killed} of "
        f"{len(outcomes[1::2])} towers model_fault, {sum(o.status == 'infra_fault' for o in outcomes)} infra_fault; at "
        f"most {most} processes; longest with its turn {max(outcome.seconds for outcome in outcomes):.1f} s",
        flush=True,
    )
    return right + killed == num_threads and most <= 2 * MAX_PROCESSES  # as many for schemas


def _columns(pairs: list[tuple[Outcome, Outcome]]) -> tuple[int, int, int, int, float, int]:
    bad = [pair[0] for pair in pairs]
    return (
        len(bad),
        sum(outcome.value > 0 for outcome in bad),
        sum(outcome.status == "model_fault" for outcome in bad),
        sum(outcome.status == "infra_fault" for outcome in bad),
        round(max(outcome.seconds for outcome in bad), 2),
        sum(pair[1].value != 1.0 for pair in pairs),
    )


if __name__ == "__main__":
    sys.exit(main())
