"""The main job's own parts, and the whole of it at a hundredth of its size."""

from __future__ import annotations

import io
import json
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from agents import cli, demo


def test_the_commonest_4gram_is_a_share_of_responses() -> None:
    texts = ["a b c d", "x A B C D y", "a b c", "a b c d a b c d"]
    assert demo.top_4gram(texts) == 3 / 4
    assert demo.top_4gram(["", "a"]) == 0.0


def test_verdicts_fail_when_they_should() -> None:
    good = {"mean_return": 0.5, "stderr": 0.01, "judge": 0.5, "kl_per_episode": 0.0, "sample_perplexity": 10.0}
    good |= {"distinct_2": 0.6, "mean_length": 20.0, "top_4gram": 0.0}
    better = good | {"mean_return": 0.6, "judge": 0.51}
    assert all(demo.verdicts({"before": good, "after": better}).values())
    spoilt = {
        "mean_return": 0.54,
        "judge": 0.5,
        "kl_per_episode": 10.1,
        "sample_perplexity": 15.1,
        "distinct_2": 0.41,
        "top_4gram": 0.11,
        "mean_length": 14.9,
    }
    for i, (name, value) in enumerate(spoilt.items()):
        holds = list(demo.verdicts({"before": good, "after": better | {name: value}}).values())
        assert holds == [j != i for j in range(len(holds))], name
    assert not list(demo.verdicts({"before": good, "after": better | {"mean_length": 25.1}}).values())[-1]


def test_the_demo_at_a_hundredth_of_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = replace(demo.config(3), num_episodes=32)
    small = replace(small, algorithm=replace(small.algorithm, episodes_per_update=16))
    monkeypatch.setattr(demo, "config", lambda seed: replace(small, seed=seed))
    monkeypatch.setattr(demo, "NUM_EPISODES", 16)
    monkeypatch.setattr(sys, "argv", ["demo", "--run-dir", str(tmp_path / "run"), "--seed", "3"])
    demo.main()
    out = capsys.readouterr().out
    assert "best of 8" in out
    assert out.count("before") == 1 + demo.NUM_SHOWN
    record = json.loads((tmp_path / "run/demo.json").read_text())
    assert list(record["rows"]) == ["before", "after", "best of 8"]
    assert record["rows"]["before"]["kl_per_episode"] == pytest.approx(0, abs=1e-4)
    assert record["rows"]["best of 8"]["mean_return"] >= record["rows"]["before"]["mean_return"]
    curve = (tmp_path / "run/curve.png").read_bytes()
    assert curve.startswith(b"\x89PNG")
    # The last line is a command that works as it stands: no wrapped path.
    command = shlex.split(out.splitlines()[-1])
    assert command[1:] == ["report", str(tmp_path / "run")]
    assert Path(shutil.which(command[0]) or command[0]).name == "textenvs"
    cli.main(command[1:])
    assert (tmp_path / "run/report.html").stat().st_size > 10_000
    # Again: nothing is trained twice, the same table comes back.
    demo.main()
    again = json.loads((tmp_path / "run/demo.json").read_text())
    for name, row in record["rows"].items():
        assert {k: v for k, v in row.items() if k != "tokens_per_second"} == {
            k: v for k, v in again["rows"][name].items() if k != "tokens_per_second"
        }


def test_the_table_fits_a_terminal_of_80_columns_and_has_no_negative_zero() -> None:
    row: dict[str, float] = dict.fromkeys(demo.COLUMNS, 0.5) | {
        "stderr": 0.009,
        "kl_per_episode": -1e-7,
        "tokens_per_second": 10670.3,
    }
    row |= {"sample_perplexity": 17.5, "mean_length": 19.4, "top_4gram": 0.01}
    console = Console(width=80, record=True, file=io.StringIO())
    demo.report({"before": row, "after": row, "best of 8": row}, [], console)
    printed = console.export_text()
    assert "10670" in printed
    assert "…" not in printed
    assert "-0.00" not in printed
