"""The README is true: its code runs as pasted, its table of envs is what `textenvs list` computes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import textenvs
from textenvs.anchors import Anchors

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def env_table() -> list[str]:
    """The rows that the README should have."""
    rows = []
    for entry in textenvs.ENTRIES:
        summary = (type(textenvs.Rules(**entry.kwargs).task).__doc__ or "").splitlines()[0]
        known = Anchors.stored(entry.id)  # which tests/test_board.py computes anew
        assert known is not None
        values = (known.random, known.dumb, known.reference, known.optimal)
        cells = ["-" if value is None else f"{value:.3f}" for value in values]
        rows.append(f"| `{entry.id}` | {summary} | {' | '.join(cells)} |")
    return rows


def test_the_table_of_envs_is_what_the_code_computes() -> None:
    table = [line for line in README.splitlines() if line.startswith(("| `TextGen", "| `textenvs/"))]
    assert table == env_table(), "\n".join(["the README's table should be", *env_table()])


def test_the_code_runs_as_pasted(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 4
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    subprocess.run([sys.executable, "-W", "error", str(script)], check=True, cwd=tmp_path, timeout=300)


def test_files_named_in_the_readme_exist() -> None:
    for name in re.findall(r"`((?:textenvs|agents|docs|examples|benchmarks)/[\w./]+)`", README):
        assert (ROOT / name).exists(), name
