"""Plant one wrong line at a time in a copy of the code and see that an ordinary fast test notices it.

    python benchmarks/mutations.py --jobs 2
    python benchmarks/mutations.py --only "KL sign in the reward" --show

Every mutant of `mutants` gets a copy of agents/, textenvs/, tests/ and pyproject.toml of its own, and its test runs
there with `pytest -x -m "not slow"`, learning curves left out. The unpatched copy must pass all of them first, and a
mutant that cannot be imported must die: so what runs is the copy. Prints a markdown table; the exit status is 1 when a
mutant survives, runs into the time limit (not a kill) or breaks the import of the tests.

The processes are forked from one that has imported the libraries, but nothing of ours: that is most of the time saved.
"""

import argparse
import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from mutants import IMPOSSIBLE, LEARNING, MUTANTS, SANITY, Mutant

ROOT = Path(__file__).parents[1]
TIMEOUT_SECONDS = 120  # of a test
_LIBRARIES = (
    "gymnasium",
    "matplotlib.pyplot",
    "peft",
    "stable_baselines3",
    "torch.utils.tensorboard",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.llama.modeling_llama",
)


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: "passed", "failed", "timeout" or "not imported", and the first test that failed."""

    verdict: str
    test: str
    seconds: float


class _FirstFailure:
    """A pytest plugin that remembers what failed first."""

    verdict, test = "passed", ""

    def _remember(self, verdict: str, test: str) -> None:
        if self.verdict == "passed":
            self.verdict, self.test = verdict, test

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._remember("not imported", report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._remember("timeout" if "Failed: Timeout" in report.longreprtext else "failed", report.nodeid)


def patch(text: str, mutant: Mutant) -> str:
    """Return the text with the mutant's line in it.

    Raises:
        ValueError: when the line to replace does not stand there exactly once.
    """
    if (count := text.count(mutant.old)) != 1:
        raise ValueError(
            f"old must occur once in {mutant.file}, got {count} times for {mutant.name!r}; renew the table"
        )
    return text.replace(mutant.old, mutant.new)


def line_of(file: str, fragment: str) -> int:
    """Return the number of the line where a fragment begins."""
    return (ROOT / file).read_text(encoding="utf-8").partition(fragment)[0].count("\n") + 1


def run(mutant: Mutant | None, tests: Sequence[str], show: bool) -> Outcome:
    """Run tests in this process on a fresh copy, patched or not. The process is of no use afterwards."""
    started, failure = time.perf_counter(), _FirstFailure()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("agents", "textenvs", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        if mutant is not None:
            path = copy / mutant.file
            path.write_text(patch(path.read_text(encoding="utf-8"), mutant), encoding="utf-8")
        os.chdir(copy)
        # Before anything an editable installation adds; for children of the tests as well.
        sys.path.insert(0, str(copy))
        os.environ["PYTHONPATH"] = str(copy)
        options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "pytest_timeout"]
        options += [f"--timeout={TIMEOUT_SECONDS}"]
        options += [f"--deselect=tests/{test}" for test in LEARNING] + [f"--rootdir={copy}"]
        with Path(os.devnull).open("w") as null, redirect_stdout(sys.stdout if show else null):
            status = pytest.main([*options, *(f"tests/{test}" for test in tests)], plugins=[failure])
        if failure.verdict == "passed" and status != pytest.ExitCode.OK:
            failure.verdict = f"pytest's exit status {int(status)}"  # such as no tests found
    return Outcome(failure.verdict, failure.test.removeprefix("tests/"), time.perf_counter() - started)


def run_baseline(show: bool) -> Outcome:
    """Run every test of the table on the unpatched copy."""
    return run(None, sorted({mutant.test for mutant in MUTANTS}), show)


def main() -> int:
    """Run the mutants and print the table; 1 when one of them is not killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", metavar="NAME", help="mutants whose name contains this; without the unpatched copy")
    parser.add_argument("--show", action="store_true", help="print what pytest prints")
    arguments = parser.parse_args()
    mutants = [SANITY, *(mutant for mutant in MUTANTS if not arguments.only or arguments.only in mutant.name)]
    # Looking for pytest's plugins takes longer than most of the tests; only the timeout is needed.
    os.environ |= {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    sys.dont_write_bytecode = True
    for name in _LIBRARIES:
        importlib.import_module(name)
    started = time.perf_counter()
    with multiprocessing.get_context("fork").Pool(arguments.jobs, maxtasksperchild=1) as pool:
        if not arguments.only:
            baseline = pool.apply(run_baseline, [arguments.show])
            print(f"unpatched: {baseline.verdict} {baseline.test} in {baseline.seconds:.1f} s\n", flush=True)
            if baseline.verdict != "passed":
                return 1
        pending = [pool.apply_async(run, [mutant, [mutant.test], arguments.show]) for mutant in mutants]
        print("| mutant | line | killed by | seconds |\n|---|---|---|---|")
        survivors = 0
        for mutant, result in zip(mutants, pending, strict=True):
            outcome = result.get(10 * TIMEOUT_SECONDS)  # a process that dies gives none
            killed = outcome.verdict == ("not imported" if mutant is SANITY else "failed")
            survivors += not killed
            end = outcome.test if killed else f"**not killed: {outcome.verdict}** {outcome.test}"
            line = f"{mutant.file}:{line_of(mutant.file, mutant.old)}"
            print(f"| {mutant.name} | {line} | {end} | {outcome.seconds:.1f} |", flush=True)
    print("\n| cannot happen | line | why |\n|---|---|---|")
    for item in IMPOSSIBLE:
        print(f"| {item.name} | {item.file}:{line_of(item.file, item.line)} | {item.reason} |")
    print(f"\n{len(mutants)} mutants, {survivors} not killed, in {time.perf_counter() - started:.0f} s")
    return int(survivors > 0)


if __name__ == "__main__":
    raise SystemExit(main())
