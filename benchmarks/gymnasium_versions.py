"""Run the tests of envs, batches, contract and wrappers on each Gymnasium we stand for: `make gymnasium-versions`.

Each version is unpacked alone into the cache of `agents.gguf` and put before this interpreter's own packages. Writes
docs/gymnasium.csv; tests/test_interop.py holds that no test failed on any. About two minutes of CPU time.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from importlib.metadata import version as installed
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "gymnasium.csv"
#: The oldest that pyproject.toml admits, the one that RLlib pins, and the newest.
VERSIONS = ("1.1.0", "1.2.2", "1.4.0")
TESTS = ("test_env.py", "test_vector_env.py", "test_checks.py", "test_wrappers.py")
COLUMNS = ("gymnasium", "numpy", "tests", "failed", "skipped", "seconds")


def main() -> None:
    """Run every version, write the file, and exit with 1 if a test failed."""
    rows = []
    for version in VERSIONS:
        rows.append(run(version))
        print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    if any(row["failed"] for row in rows):
        raise SystemExit("tests failed; see above")


def run(version: str) -> dict[str, str | int]:
    """The number of tests that ran and failed under one version of Gymnasium."""
    from agents.gguf import cache_directory

    folder = cache_directory() / f"gymnasium-{version}"
    if not (folder / f"gymnasium-{version}.dist-info").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(folder)]
        subprocess.run([*pip, f"gymnasium=={version}"], check=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    question = [sys.executable, "-c", "import gymnasium; print(gymnasium.__version__)"]
    answer = subprocess.run(question, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    if answer != version:
        raise RuntimeError(f"gymnasium must be {version}, got {answer}; remove {folder}")
    with TemporaryDirectory() as scratch:
        xml = Path(scratch) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={xml}"]
        subprocess.run([*command, *(str(ROOT / "tests" / name) for name in TESTS)], cwd=ROOT, env=environment)
        suite = ElementTree.parse(xml).getroot().find("testsuite")
    if suite is None:
        raise RuntimeError(f"pytest must report what it ran under gymnasium {version}, got nothing")
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    return {
        "gymnasium": version,
        "numpy": installed("numpy"),
        "tests": counts["tests"],
        "failed": counts["failures"] + counts["errors"],
        "skipped": counts["skipped"],
        "seconds": round(float(suite.attrib["time"])),
    }


if __name__ == "__main__":
    main()
