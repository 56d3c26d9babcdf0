"""What the benchmarks of speed share: whose turn it is, which median, and the line that results.csv gets."""

from __future__ import annotations

import csv
import re
import subprocess
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
# Of the ratios 2, 3, 4 the median is 3; the ratio of the medians, 8 / 2, is 4 and would be wrong.
RATES = [(2.0, 1.0), (9.0, 3.0), (8.0, 2.0)]
SECONDS = [(theirs, ours) for ours, theirs in RATES]


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("measure")


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("repeats", "order"), [(1, "ot"), (2, "otto"), (5, "ottoottoot")])
def test_each_side_goes_first_every_other_turn(measure: ModuleType, repeats: int, order: str) -> None:
    called: list[str] = []

    def side(name: str) -> Callable[[], float]:
        return lambda: called.append(name) or len(called)

    pairs = measure.in_turns(side("o"), side("t"), repeats)
    assert "".join(called) == order
    assert [(called[one - 1], called[other - 1]) for one, other in pairs] == [("o", "t")] * repeats


@pytest.mark.parametrize(("unit", "pairs"), [("tokens/s", RATES), ("s", SECONDS), ("MB", SECONDS)])
def test_the_ratio_is_how_many_times_better_ours_is_in_the_median_turn(
    measure: ModuleType, tmp_path: Path, unit: str, pairs: list[tuple[float, float]]
) -> None:
    out = tmp_path / "results.csv"
    assert measure.record("a", "b", pairs, unit=unit, peer="p", bar=None, out=out) == 3.0
    (line,) = lines(out)
    assert (line["ours"], line["peer"]) == (("8", "2") if unit == "tokens/s" else ("2", "8"))
    assert (line["ratio"], line["lowest"], line["highest"]) == ("3", "2", "4")


def test_a_comparison_is_a_line_and_the_header_stands_once(measure: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    measure.record("sampling", "1M, ragged", RATES, unit="tokens/s", peer="generate", bar=1.2, threads=2, out=out)
    measure.record("start-up", "list", SECONDS, unit="s", peer="p", bar=None, versions={"trl": "1.16"}, out=out)
    assert out.read_text(encoding="utf-8").count("row,case") == 1
    first, second = lines(out)
    assert ",".join(first) == (
        "row,case,unit,ours,peer_name,peer,ratio,lowest,highest,repeats,bar,threads,load,date,commit,machine,versions"
    )
    kept = ("row", "case", "unit", "peer_name", "repeats", "bar", "threads")
    assert [first[key] for key in kept] == ["sampling", "1M, ragged", "tokens/s", "generate", "3", "1.2", "2"]
    assert [second[key] for key in kept] == ["start-up", "list", "s", "p", "3", "", "1"]
    assert "numpy=" in first["versions"]
    assert second["versions"].endswith(" trl=1.16")
    assert first["machine"] == measure.machine()
    assert first["commit"]


@pytest.mark.parametrize(
    ("bar", "said"), [(3.0, "at least 3 wanted: reached"), (3.01, "at least 3.01 wanted: NOT reached"), (None, "")]
)
def test_the_verdict_is_printed(
    measure: ModuleType, capsys: pytest.CaptureFixture[str], bar: float | None, said: str
) -> None:
    measure.record("env, batch", "constant", RATES, unit="steps/s", peer="CartPole", bar=bar, out=None)
    printed = capsys.readouterr().out
    assert printed.startswith(
        "env, batch | constant: 8 steps/s against 2 of CartPole; ratio 3.00 (2.00 to 4.00, 3 turns, 1 threads)"
    )
    assert printed.rstrip("\n").endswith(said or "1 threads)")


def test_nothing_is_written_where_nothing_is_to_be_kept(measure: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "RESULTS", Path("/nowhere/results.csv"))
    assert measure.record("a", "b", RATES, unit="s", peer="p", bar=None, out=None) == pytest.approx(1 / 3)


def test_a_commit_is_marked_where_more_than_results_changed(
    measure: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "benchmarks" / "results.csv")
    (tmp_path / "benchmarks").mkdir()
    assert measure.commit() == "unknown"
    for name in ("code.py", "benchmarks/results.csv", "benchmarks/README.md", "README.md"):
        (tmp_path / name).write_text("a\n", encoding="utf-8")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "a"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    clean = measure.commit()
    assert re.fullmatch("[0-9a-f]{7}", clean)
    for name in ("benchmarks/results.csv", "benchmarks/README.md"):
        (tmp_path / name).write_text("b\n", encoding="utf-8")
    assert measure.commit() == clean
    (tmp_path / "code.py").write_text("b\n", encoding="utf-8")
    assert measure.commit() == clean + "+"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("AMD EPYC", "AMD EPYC family 25 model 17, "),
        ("AMD EPYC 9354", "AMD EPYC 9354, "),
        ("Intel(R) Xeon(R) Processor", "Intel(R) Xeon(R) Processor family 25 model 17, "),
    ],
)
def test_processors_of_one_name_have_two_tables(measure: ModuleType, tmp_path: Path, name: str, said: str) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    core = f"cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: {name}\n\n"
    cpuinfo.write_text(core * 2, encoding="utf-8")
    assert measure.machine(cpuinfo).startswith(said)
