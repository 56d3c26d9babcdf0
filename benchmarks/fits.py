"""Which observations, masks and autoreset modes fit a library: try each, and hold its books to the envs' count.

`python benchmarks/fits.py [--only sb3 rllib ...]` runs fits_LIBRARY.py in its venv (see interop.py) and the Python of
docs/plug_in/LIBRARY.md that no test runs, and writes docs/fits.csv, the table of that page and the README's.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gymnasium.vector import AutoresetMode

ROOT = Path(__file__).resolve().parents[1]
RESULTS, README = ROOT / "docs" / "fits.csv", ROOT / "README.md"
BEGIN, END = "<!-- made by benchmarks/fits.py -->", "<!-- end of what fits.py made -->"
#: library -> its venv, as in interop.py.
LIBRARIES = {
    "sb3": "",
    "sb3_contrib": "",
    "cleanrl": "",
    "rllib": "rllib",
    "tianshou": "tianshou",
    "torchrl": "torchrl",
}
COLUMNS = ("library", "envs", "observation", "mask", "autoreset", "outcome", "episodes_env", "episodes_library")
COLUMNS += ("steps_env", "steps_library", "return_env", "return_library")
#: Settings of `textenvs/Copy-v0` in every trial.
COPY = {"length": 3, "alphabet": "abcd", "dense": True}


def tell(
    use: Callable[..., tuple[Iterable[float], Iterable[int]]], combinations: Iterable[tuple[str, str, str | None, str]]
) -> None:
    """Print a line of JSON for each way to use the envs; called by fits_LIBRARY.py, in its venv.

    Args:
        use: (envs, settings, autoreset) -> returns and lengths of the episodes that the library saw end; `settings`
            are for `gym.make`, and whatever it makes it counts.
        combinations: (envs, observation, mask_keys, autoreset) of each.
    """
    import counting

    for envs, observation, mask, autoreset in combinations:
        counting.lengths.clear()
        counting.returns.clear()
        row = {"envs": envs, "observation": observation, "mask": mask or "none", "autoreset": autoreset}
        try:
            returns, lengths = use(envs, {**COPY, "observation": observation, "mask_keys": mask}, autoreset)
            ours, theirs = (counting.returns, counting.lengths), ([*map(float, returns)], [*map(int, lengths)])
        except Exception as error:  # whatever a library raises is the answer
            while error.__cause__ is not None:
                error = error.__cause__
            said = " ".join(str(error).split())
            said = said if len(said) <= 160 else f"{said[:70]} ... {said[-90:]}"
            row["outcome"] = f"refused: {type(error).__name__}: {said}"
        else:
            row |= {"episodes_env": len(ours[0]), "episodes_library": len(theirs[0])}
            row |= {"steps_env": sum(ours[1]), "steps_library": sum(theirs[1])}
            row |= {"return_env": sum(ours[0]), "return_library": sum(theirs[0])}
            row["outcome"] = outcome(row)
        print(json.dumps(row), flush=True)


def outcome(row: Mapping[str, Any]) -> str:
    """`fits`, or what the library lost."""
    if not row["episodes_env"]:
        return "no episode ended"
    same = all(row[f"{what}_env"] == row[f"{what}_library"] for what in ("episodes", "steps"))
    if same and abs(row["return_env"] - row["return_library"]) <= 1e-6 * row["episodes_env"]:
        return "fits"
    if same:
        return f"other returns: {row['return_library']:.2f} for {row['return_env']:.2f}"
    return f"sees {row['steps_library']:,} of {row['steps_env']:,} steps"


def main() -> None:
    """Try every way of the libraries asked for, and write the tables."""
    from interop import python
    from table import splice

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=LIBRARIES, default=list(LIBRARIES), metavar="LIBRARY")
    libraries = parser.parse_args().only
    path = os.pathsep.join(map(str, (ROOT, ROOT / "examples", ROOT / "benchmarks")))
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    env |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    rows = [row for row in recorded() if row["library"] not in libraries]
    for library in libraries:
        print(f"{library}:", flush=True)
        page = ROOT / "docs" / "plug_in" / f"{library}.md"
        blocks = re.findall(
            r"^```python title=.*?\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
        try:
            interpreter = str(python(LIBRARIES[library]))
        except RuntimeError as error:
            raise SystemExit(str(error)) from None
        subprocess.run([interpreter, "-c", "\n".join(blocks)], env=env, check=True)
        script = str(ROOT / "benchmarks" / f"fits_{library}.py")
        made = subprocess.run([interpreter, script], env=env, stdout=subprocess.PIPE, text=True, check=True)
        lines = [json.loads(line) for line in made.stdout.splitlines() if line.startswith('{"envs"')]
        new = [{column: str(line.get(column, "")) for column in COLUMNS} | {"library": library} for line in lines]
        rows += new
        splice(page, BEGIN, END, markdown(new))
        print(markdown(new), flush=True)
    rows.sort(key=lambda row: [*LIBRARIES].index(row["library"]))
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    splice(README, BEGIN, END, summary(rows))
    print(summary(rows))


def recorded() -> list[dict[str, str]]:
    """The rows of the file."""
    if not RESULTS.exists():
        return []
    with RESULTS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """The table of a page."""
    made = ["| envs | observation | mask | autoreset | outcome |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (row["envs"], row["observation"], row["mask"], row["autoreset"], row["outcome"].replace("|", "\\|"))
        made.append(f"| {' | '.join(cells)} |")
    return "\n".join(made)


def summary(rows: Sequence[Mapping[str, str]]) -> str:
    """The README's table: a line for each kind of envs of each library.

    Its observations and masks are those of which some row fits; a mode's cell is the outcome of the first row in it.
    """
    modes = ("library", *(mode.value for mode in AutoresetMode))
    made = [f"| library | envs | observation | mask | {' | '.join(modes)} |", "|---" * (4 + len(modes)) + "|"]
    for library, envs in dict.fromkeys((row["library"], row["envs"]) for row in rows):
        group = [row for row in rows if (row["library"], row["envs"]) == (library, envs)]
        fitting = [row for row in group if row["outcome"] == "fits"]
        cells = [", ".join(dict.fromkeys(row[key] for row in fitting)) or "-" for key in ("observation", "mask")]
        for mode in modes:
            outcome = next((row["outcome"] for row in group if row["autoreset"] == mode), "-")
            cells.append("refused" if outcome.startswith("refused: ") else outcome)
        made.append(f"| [{library}](docs/plug_in/{library}.md) | {envs} | {' | '.join(cells)} |")
    return "\n".join(made)


if __name__ == "__main__":
    sys.exit(main())
