"""Which observations, masks and autoreset modes fit a library: try each, and hold its books to the envs' count.

`python benchmarks/fits.py [--only rllib tianshou torchrl]` runs fits_LIBRARY.py in its venv (see interop.py) and
the Python of docs/plug_in/LIBRARY.md, and writes docs/fits.csv and the table of that page.
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

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "fits.csv"
BEGIN, END = "<!-- made by benchmarks/fits.py -->", "<!-- end of what fits.py made -->"
LIBRARIES = ("rllib", "tianshou", "torchrl")
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
    parser.add_argument("--only", nargs="+", choices=LIBRARIES, default=LIBRARIES, metavar="LIBRARY")
    libraries = parser.parse_args().only
    path = os.pathsep.join(map(str, (ROOT, ROOT / "examples", ROOT / "benchmarks")))
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    env |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    rows = [row for row in recorded() if row["library"] not in libraries]
    for library in libraries:
        page = ROOT / "docs" / "plug_in" / f"{library}.md"
        blocks = re.findall(
            r"^```python title=.*?\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
        subprocess.run([str(python(library)), "-c", "\n".join(blocks)], env=env, check=True)
        script = str(ROOT / "benchmarks" / f"fits_{library}.py")
        made = subprocess.run([str(python(library)), script], env=env, stdout=subprocess.PIPE, text=True, check=True)
        lines = [json.loads(line) for line in made.stdout.splitlines() if line.startswith('{"envs"')]
        new = [{column: str(line.get(column, "")) for column in COLUMNS} | {"library": library} for line in lines]
        rows += new
        splice(page, BEGIN, END, markdown(new))
        print(markdown(new))
    rows.sort(key=lambda row: LIBRARIES.index(row["library"]))
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


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


if __name__ == "__main__":
    sys.exit(main())
