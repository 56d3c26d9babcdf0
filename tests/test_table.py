"""The table of speed in benchmarks/README.md is what results.csv gives, and every script is told of."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
HEADER = (
    "row,case,unit,ours,peer_name,peer,ratio,lowest,highest,repeats,bar,threads,load,date,commit,machine,versions\n"
)
LINES = (
    "own,x,s,2,floor,1,0.5,0.4,0.6,5,0.769231,1,0.3,2026-01-02 10:00,abc,M,a=1\n"
    "sampling,1M,tokens/s,100,generate,200,0.5,0.4,0.6,5,1.2,2,0.1,2026-01-02 10:00,abc,M,a=1 b=2\n"
    '"env, batch",a | b,steps/s,1234567,CartPole,0.01234,1.195,1.1,1.3,15,1.2,1,0.4,2026-01-03 10:00,abc,M,a=1\n'
    "sampling,0.1M,tokens/s,300,generate,200,1.5,1.4,1.6,7,,2,0.2,2026-01-04 10:00,def,M,a=1 b=2\n"
    "sampling,1M,tokens/s,300,generate,200,1.5,1.4,1.6,7,1.2,2,0.2,2026-01-04 10:00,def,M,a=1 b=2\n"
)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("table")


def test_the_readme_holds_what_the_results_give(table: ModuleType) -> None:
    readme = table.README.read_text(encoding="utf-8")
    between = readme.partition(table.BEGIN)[2].partition(table.END)[0]
    assert between.strip() == table.markdown(table.newest()), "run python benchmarks/table.py"


def test_the_newest_line_of_each_case_counts_in_the_order_of_the_rows(table: ModuleType, tmp_path: Path) -> None:
    results = tmp_path / "results.csv"
    results.write_text(HEADER + LINES, encoding="utf-8")
    made = table.markdown(table.newest(results)).splitlines()
    assert made[2].startswith(
        "| [env, batch](env_batch.py) | a \\| b | 1,230,000 steps/s | 0.0123 steps/s (CartPole) |"
    )
    assert made[2].endswith("| **1.195** | 1.10 to 1.30 | 15 | 1.2 | **no** | abc |")
    assert made[3].endswith(
        "| 1M | 300 tokens/s | 200 tokens/s (generate) | **1.500** | 1.40 to 1.60 | 7 | 1.2 | yes | def |"
    )
    assert made[4].endswith("| 1.40 to 1.60 | 7 |  |  | def |")
    assert made[5] == "| own | x | 2 s | 1 s (floor) | **0.500** | 0.40 to 0.60 | 5 | 0.769 | **no** | abc |"
    assert made[7:] == [
        "- env, batch; own: 1 thread of M; 2026-01-02 to 2026-01-03, load average 0.3 to 0.4; a 1",
        "- sampling: 2 threads of M; 2026-01-04, load average 0.2 to 0.2; a 1, b 2",
    ]


def test_each_machine_has_its_table(table: ModuleType, tmp_path: Path) -> None:
    results = tmp_path / "results.csv"
    results.write_text(HEADER + LINES + LINES.replace(",M,", ",W,").replace(",300,", ",600,"), encoding="utf-8")
    made = table.markdown(table.newest(results))
    first, second = (part for part in made.split(f"| {table._COLUMNS} |") if part)
    assert [line.split("of ")[1][:2] for line in first.splitlines() if line.startswith("- ")] == ["M;", "M;"]
    assert "| 300 tokens/s |" in first
    assert [line.split("of ")[1][:2] for line in second.splitlines() if line.startswith("- ")] == ["W;", "W;"]
    assert "| 600 tokens/s |" in second
    assert "| 300 tokens/s |" not in second


@pytest.mark.parametrize("given", [None, "", HEADER])
def test_a_missing_or_empty_file_gives_no_table(table: ModuleType, tmp_path: Path, given: str | None) -> None:
    results = tmp_path / "results.csv"
    if given is not None:
        results.write_text(given, encoding="utf-8")
    assert table.markdown(table.newest(results)) == "Nothing measured yet: `make bench` writes results.csv."


def test_only_what_stands_between_the_markers_is_written_again(table: ModuleType, tmp_path: Path) -> None:
    readme, results = tmp_path / "README.md", tmp_path / "results.csv"
    readme.write_text(f"before\n{table.BEGIN}old{table.END}\nafter\n", encoding="utf-8")
    results.write_text(HEADER + LINES, encoding="utf-8")
    for _ in range(2):
        table.write(readme, results)
        expected = table.markdown(table.newest(results))
        assert readme.read_text(encoding="utf-8") == f"before\n{table.BEGIN}\n\n{expected}\n\n{table.END}\nafter\n"
    for wrong in ("", f"{table.END}{table.BEGIN}", f"{table.BEGIN}{table.END}" * 2):
        readme.write_text(wrong, encoding="utf-8")
        with pytest.raises(ValueError, match="put them back"):
            table.write(readme, results)
        assert readme.read_text(encoding="utf-8") == wrong


def test_the_readme_tells_of_every_script() -> None:
    readme = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| \[(\w+\.py)\]\(\1\) \|", readme, re.MULTILINE)
    assert sorted(told) == sorted(path.name for path in BENCHMARKS.glob("*.py"))


def test_make_runs_every_script_that_records_and_ends_with_the_table(table: ModuleType) -> None:
    makefile = (BENCHMARKS.parent / "Makefile").read_text(encoding="utf-8")
    recording = {path.name for path in BENCHMARKS.glob("*.py") if "measure import" in path.read_text(encoding="utf-8")}
    run = set(re.findall(r"benchmarks/(\w+\.py)", makefile))
    assert recording <= run
    assert recording - {"table.py", "env_growth.py"} <= set(table.SCRIPTS.values())
    assert all((BENCHMARKS / name).exists() for name in run)
    recipes = re.findall(r"^bench\S*:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert len(recipes) == 2
    assert all(recipe.rstrip().endswith("benchmarks/table.py") for recipe in recipes)
