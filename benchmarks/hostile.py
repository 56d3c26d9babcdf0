"""The corpus of hostile programs against the sandbox: families x count, and what each was meant to break.

    python benchmarks/hostile.py [--seconds 3] [--family forging]

Exits with status 1 when any program passed, leaked, wrote, reached the network, left a process, took longer than its
limit and a second, was called anything but a model_fault, or harmed the honest program after it.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import hostile_programs as corpus


def main() -> int:
    """Attack, print the table, say what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="wall clock limit of a program")
    parser.add_argument("--family", choices=corpus.FAMILIES, help="only this one")
    args = parser.parse_args()
    start, bad, total, mechanisms = time.monotonic(), 0, 0, 0
    print(f"{'family':<10} {'mechanisms':>10} {'programs':>8} {'model_fault':>11} {'longest s':>9} {'broke':>6}")
    failures = []
    corpus.score("def f(): return 1", [{"args": [], "expected": 1}], args.seconds)  # probes the sandbox
    with corpus.World() as world:
        for family in [args.family] if args.family else corpus.FAMILIES:
            programs = corpus.programs(family)
            verdicts = [corpus.attack(world, program, args.seconds) for program in programs]
            broke = [verdict for verdict in verdicts if verdict.problems]
            names = len({program.mechanism for program in programs})
            faults = sum(verdict.status == "model_fault" for verdict in verdicts)
            longest = max(verdict.seconds for verdict in verdicts)
            print(
                f"{family:<10} {names:>10} {len(programs):>8} {faults:>11} {longest:>9.2f} {len(broke):>6}", flush=True
            )
            failures += broke
            bad, total, mechanisms = bad + len(broke), total + len(programs), mechanisms + names
        forged = [corpus.naive_verdict(world.aimed(p), world.cases) for p in corpus.programs("forging")]
    odd = corpus.odd_programs()
    cases = [{"args": [a, b], "expected": a + b} for a, b in ((1, 2), (0, 0), (-5, 7), (100, -1))]
    wrong = [(p, said) for p in odd for value, _, said in [corpus.score(p.code, cases, args.seconds)] if value != 1]
    print(f"{'all':<10} {mechanisms:>10} {total:>8} {total - bad} held of {total}, {time.monotonic() - start:.0f} s")
    print(f"positive control: {sum(forged)} of {len(forged)} forging programs pass a naive in-process checker")
    print(f"odd but right: {len(odd) - len(wrong)} of {len(odd)} pass")
    for verdict in failures:
        print(f"BROKE {verdict.program}: {'; '.join(verdict.problems)[:600]}")
    for program, said in wrong:
        print(f"REFUSED {program}: {said[:600]}")
    return 1 if bad or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
