"""Run every plug-in example in its library's venv, write docs/interop.csv and the README's table: `make interop`.

Each example trains for up to five minutes on one core and ends with one line of JSON; what the library saw must equal
what the envs counted, and the mean return must reach 0.9. The venvs are made once, in the cache of `agents.gguf`.
`--only NAME ...` runs some and keeps the other lines of the file; `--smoke` runs seconds of each, prints what was
counted on both sides and records nothing: `make interop-smoke`, which `.ci/run` calls.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from table import splice

ROOT = Path(__file__).resolve().parents[1]
RESULTS, README = ROOT / "docs" / "interop.csv", ROOT / "README.md"
BEGIN, END = "<!-- made by benchmarks/interop.py from docs/interop.csv -->", "<!-- end of what interop.py made -->"
WANTED = 0.9
MOST_SECONDS = 1_200  # of an example, before it is stopped: four times what it may take
#: example -> its venv, of examples/requirements-VENV.txt; "" is the one that runs this script, of constraints.txt.
EXAMPLES = {
    "rllib_ppo": "rllib",
    "rllib_masked_ppo": "rllib",
    "sb3_ppo": "",
    "sb3_dqn": "",
    "sb3_maskable_ppo": "",
    "sb3_recurrent_ppo": "",
    "cleanrl_ppo": "",
    "reinforce": "",
    "tianshou_ppo": "tianshou",
    "tianshou_masked_dqn": "tianshou",
    "torchrl_ppo": "torchrl",
    "torchrl_masked_ppo": "torchrl",
}
COLUMNS = (
    "library",
    "example",
    "version",
    "gymnasium",
    "observation",
    "mask",
    "autoreset",
    "episodes",
    "mean_return",
    "episodes_env",
    "episodes_library",
    "steps_env",
    "steps_library",
    "return_env",
    "return_library",
    "seconds",
)


def main() -> None:
    """Run what is asked for; exit with 1 if any example failed, after the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=EXAMPLES, default=list(EXAMPLES), metavar="NAME")
    parser.add_argument("--smoke", action="store_true", help="seconds of each, nothing recorded")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    failed, lines = make_venvs(arguments.only), []
    for name in arguments.only:
        print(f"{name} ...", end=" ", flush=True)
        if EXAMPLES[name] in failed:
            print("has no venv", flush=True)
            continue
        try:
            line = run(name, seed=arguments.seed, smoke=arguments.smoke)
            check(line, reaches=None if arguments.smoke else WANTED)
        except (RuntimeError, ValueError) as error:
            failed[name] = f"{name}: {error}"
            print("failed", flush=True)
            continue
        print(f"{line['mean_return']:.3f} after {line['episodes']} episodes, {line['seconds']:.0f} s", flush=True)
        lines.append(line)
        if not arguments.smoke:
            record(line)
    print(counts(lines))
    if not arguments.smoke:
        splice(README, BEGIN, END, markdown(recorded()))
        print(markdown(recorded()))
    if failed:
        raise SystemExit("\n".join(failed.values()))


def make_venvs(names: Sequence[str]) -> dict[str, str]:
    """Make the venvs that some examples need and that are not there: venv -> why it could not be made."""
    failed = {}
    for venv in dict.fromkeys(EXAMPLES[name] for name in names):
        try:
            python(venv)
        except RuntimeError as error:
            failed[venv] = str(error)
            print("failed", flush=True)
    return failed


def run(name: str, *, seed: int = 0, smoke: bool = False) -> dict[str, Any]:
    """One example in a process of its own, on one core; its JSON line, its name and its wall seconds.

    Raises:
        RuntimeError: it failed, did not end with a line of JSON, or did not end at all.
    """
    command = [str(python(EXAMPLES[name])), str(ROOT / "examples" / f"{name}.py"), "--seed", str(seed)]
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    settings |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}  # nothing is sent, no token is left
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, *(["--smoke"] if smoke else [])],
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=MOST_SECONDS)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)  # with all that it started, such as Ray's workers
        process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise RuntimeError(
            f"it must end within {MOST_SECONDS} s, got no end; run examples/{name}.py by itself"
        ) from None
    seconds = time.perf_counter() - started
    try:
        if process.returncode:
            raise ValueError(f"it ended with {process.returncode}")
        line = json.loads(stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise RuntimeError(f"{error}; it wrote {stdout[-500:]!r} and {stderr[-2000:]}") from error
    return {**line, "example": name, "seconds": round(seconds, 1)}


def check(line: Mapping[str, Any], reaches: float | None = None) -> None:
    """Hold what the library saw to what the envs counted.

    Raises:
        ValueError: they differ in episodes, steps or returns; no episode ended; or the mean return is too low.
    """
    if int(line["episodes"]) < 1:
        raise ValueError("at least one episode must end, got none")
    # SB3's Monitor rounds a return to six digits; float32 sums of five returns of a few rewards lose less.
    tolerance = 1e-6 * max(1, int(line["episodes"]))
    for what, allowed in (("episodes", 0.0), ("steps", 0.0), ("return", tolerance)):
        env, library = float(line[f"{what}_env"]), float(line[f"{what}_library"])
        if abs(env - library) > allowed:
            raise ValueError(
                f"{what} must be the same on both sides, got {env:.12g} in the env and {library:.12g} in the library"
            )
    if reaches is not None and float(line["mean_return"]) < reaches:
        raise ValueError(f"mean_return must be at least {reaches}, got {line['mean_return']}")


def python(venv: str) -> Path:
    """The interpreter of a venv, made unless a whole one with the same packages is there.

    Raises:
        RuntimeError: pip could not install them, as where no package index can be reached.
    """
    if not venv:
        return Path(sys.executable)
    from agents.gguf import cache_directory

    folder = cache_directory() / f"interop-{venv}"
    interpreter, whole = folder / "bin" / "python", folder / "whole"
    requirements = ROOT / "examples" / f"requirements-{venv}.txt"
    wanted = requirements.read_text(encoding="utf-8")
    if not whole.is_file() or whole.read_text(encoding="utf-8") != wanted:
        print(f"making {folder} ...", end=" ", flush=True)
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        made = subprocess.run([*install, "-r", str(requirements)], stderr=subprocess.PIPE, text=True)
        if made.returncode:
            said = [line for line in made.stderr.splitlines() if line.startswith("ERROR: ")] or [made.stderr[-500:]]
            raise RuntimeError(
                f"the venv of {venv} needs what examples/{requirements.name} lists, but pip said {' '.join(said)!r}; "
                "see that this machine reaches a package index and has the disk for it, and run this again"
            )
        whole.write_text(wanted, encoding="utf-8")
        size = sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())
        print(f"{size / 1e6:,.0f} MB, {time.perf_counter() - started:.0f} s", flush=True)
    return interpreter


def recorded(path: Path = RESULTS) -> list[dict[str, str]]:
    """The lines of the file, in the order of EXAMPLES."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        lines = {line["example"]: line for line in csv.DictReader(file)}
    return [lines[name] for name in EXAMPLES if name in lines]


def record(line: Mapping[str, Any], path: Path = RESULTS) -> None:
    """Write a line in place of the example's former one."""
    lines = {old["example"]: old for old in recorded(path)} | {line["example"]: line}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines[name] for name in EXAMPLES if name in lines)


def counts(lines: Sequence[Mapping[str, Any]]) -> str:
    """What each library saw beside what the envs counted, of examples that have just been run."""
    made = [
        f"{'library':26} {'example':20} {'episodes_env':>12} {'episodes_library':>16} {'steps_env':>9} steps_library"
    ]
    for line in lines:
        made.append(
            f"{line['library'] + ' ' + line['version']:26} {line['example']:20} {line['episodes_env']:12,} "
            f"{line['episodes_library']:16,} {line['steps_env']:9,} {line['steps_library']:13,}"
        )
    return "\n".join(made)


def markdown(lines: Sequence[Mapping[str, str]]) -> str:
    """The README's table."""
    made = [
        "| library | example | observation | mask | autoreset | episodes | mean return | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        made.append(
            f"| {line['library']} {line['version']}, gymnasium {line['gymnasium']} "
            f"| [{line['example']}](examples/{line['example']}.py) "
            f"| {line['observation']} | {line['mask']} | {line['autoreset']} "
            f"| {int(line['episodes']):,} | {float(line['mean_return']):.3f} | {float(line['seconds']):.0f} |"
        )
    return "\n".join(made)


if __name__ == "__main__":
    main()
