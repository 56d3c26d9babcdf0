"""The report of runs without a browser: what it gathers, its file and its Markdown, and what it says of bad input."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from command import run
from hostile_texts import PAYLOADS
from markdown_it import MarkdownIt
from report_pages import Reader, data_of
from report_runs import benchmark_row, episode, metrics, write_benchmark, write_run
from scipy import stats

from agents.report import records
from agents.report.markdown import span, to_markdown
from agents.report.page import SCRIPTS, embedded_json, number, policy, render
from agents.report.records import MAX_TEXT, read_lines, visible
from agents.report.run_data import MAX_POINTS, t_interval
from agents.report.write import gather, write_report


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of three seeds."""
    folder = tmp_path_factory.mktemp("seeds")
    for seed in range(3):
        settings = {"env_id": "TextGen-v0", "algorithm": {"baseline": "critic", "num_epochs": 2}, "seed": seed}
        write_run(folder / f"seed_{seed}", config=settings, lines=metrics(20, seed=seed))
    return write_report([folder]).read_text(encoding="utf-8")


def test_one_style_and_one_script_are_let_through_by_their_hashes(html: str) -> None:
    page = Reader(html)
    (meta,) = [a for tag, a in page.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in str(meta["content"]).split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in str(meta["content"])
    assert (rules["require-trusted-types-for"], rules["trusted-types"]) == ("'script'", "'none'")
    for kind, name in (("script", "script-src"), ("style", "style-src")):
        (block,) = re.findall(rf"<{kind}>(.*?)</{kind}>", html, re.DOTALL)
        assert rules[name] == f"'sha256-{base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()}'"
    # What comes before the policy is not under it.
    assert [tag for tag, _ in page.tags].index("meta") < [tag for tag, _ in page.tags].index("style")
    assert html.index("Content-Security-Policy") < html.index("<title>")


def test_the_page_is_one_file_that_names_no_other(html: str) -> None:
    page = Reader(html)
    for tag, attributes in page.tags:
        assert not {name for name in attributes if name.startswith("on") or name in ("src", "style", "srcset")}, tag
        assert str(attributes.get("href", "#")).startswith("#")
    assert [tag for tag, _ in page.tags].count("script") == 2
    script = "".join((Path(records.__file__).parent / "assets" / name).read_text() for name in SCRIPTS)
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "fetch(", "</"):
        assert word not in script
    assert "<!--" not in script


def test_json_stands_safely_in_a_script_element() -> None:
    text = "</script><!--&\u2028\u2029\ud800é"
    spelt = embedded_json({text: text})
    assert spelt.isascii()
    assert not set("<>&") & set(spelt)
    assert json.loads(spelt) == {text: text}
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded_json(math.nan)


def test_everything_unseen_is_spelt_out_and_nothing_is_endless(tmp_path: Path) -> None:
    assert visible({"a\x00": ["\u202e", {"b\u200b": 1.5, "c": None}]}) == {
        "a\\x00": ["\\u202e", {"b\\u200b": 1.5, "c": None}]
    }
    page = write_report([write_run(tmp_path / "run", config={"env_id": "a\u202eb", "seed": 0})]).read_text(
        encoding="utf-8"
    )
    assert "<h1>a\\u202eb</h1>" in page
    assert data_of(page)["title"] == "a\\u202eb"
    assert visible("x" * MAX_TEXT) == "x" * MAX_TEXT
    assert visible("x" * (MAX_TEXT + 1234)) == "x" * MAX_TEXT + "… (1,234 more)"


def test_means_and_intervals_of_seeds(html: str) -> None:
    curves = data_of(html)["curves"]
    assert curves["metrics"][0]["name"] == "return"
    metric = curves["metrics"][0]
    assert [values[4] for values in metric["runs"]] == pytest.approx([0.2, 0.21, 0.22])
    assert metric["mean"][4] == pytest.approx(0.21)
    assert metric["half"][4] == pytest.approx(4.302653 * 0.01 / math.sqrt(3), rel=1e-4)  # t of 2 degrees of freedom
    assert curves["x"][0] == [
        ["episodes", [64.0 * k for k in range(1, 21)]],
        ["update", [float(k) for k in range(1, 21)]],
        ["seconds", [1.5 * k for k in range(1, 21)]],
    ]
    mean, half = t_interval([1.0, 2.0, 4.0, 9.0])
    low, high = stats.t.interval(0.95, 3, loc=4.0, scale=stats.sem([1.0, 2.0, 4.0, 9.0]))
    assert (mean - (half or 0), mean + (half or 0)) == pytest.approx((low, high))
    assert t_interval([3.0]) == (3.0, None)


def test_a_mean_is_only_where_every_seed_has_a_number(tmp_path: Path) -> None:
    """Where one of them logged null, the mean of the others would be of another group."""
    for seed in range(3):
        lines = metrics(20, seed=seed)
        lines[7]["return"] = None if seed == 1 else lines[7]["return"]
        write_run(tmp_path / f"seed_{seed}", lines=lines, config={"env_id": "TextGen-v0", "seed": seed})
    metric = gather([tmp_path])["curves"]["metrics"][0]
    assert (metric["mean"][7], metric["half"][7]) == (None, None)
    assert metric["mean"][6] == pytest.approx(0.25)


def test_a_check_that_fails_in_one_of_the_seeds_fails(tmp_path: Path) -> None:
    broken = {"check/ratio_error": 1.0, "check/excluded_episodes": 64.0}
    for seed in range(3):
        lines = metrics(20, **(broken if seed == 1 else {}))
        write_run(tmp_path / f"seed_{seed}", lines=lines, config={"env_id": "TextGen-v0", "seed": seed})
    checks = gather([tmp_path])["checks"]
    assert {check["name"] for check in checks if check["status"] == "fail"} == set(broken)


def test_the_page_says_what_was_reached(html: str) -> None:
    data = data_of(html)
    assert data["subject"] == "PPO on TextGen-v0, 3 seeds"
    assert data["summary"].startswith("the mean return went from 0.140 ± 0.025 to 0.500 ± 0.025 (first and last tenth")
    assert data["summary"].endswith("every self-check with a bound passed.")
    assert data["marks"] == []


def test_long_runs_are_averaged_to_so_many_points(tmp_path: Path) -> None:
    data = gather([write_run(tmp_path / "run", lines=metrics(2 * MAX_POINTS + 1))])
    curves = data["curves"]
    assert curves["per_point"] == 3
    values = curves["metrics"][0]["runs"][0]
    assert len(values) == math.ceil((2 * MAX_POINTS + 1) / 3)
    assert values[0] == pytest.approx(0.14)
    assert curves["x"][0][1][1][:2] == [3.0, 6.0]


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("check/ratio_error", 2e-4, "fail"),
        ("check/ratio_error", None, "fail"),  # NaN is within no bound
        ("check/ratio_error", 9e-5, "pass"),
        ("check/start_kl_same_forward", 1e-12, "fail"),
        ("check/start_kl_per_token", 2e-5, "fail"),
        ("check/explained_variance", -0.1, "fail"),
        ("check/excluded_episodes", 2.0, "fail"),
        ("check/excluded_episodes", 1.0, "pass"),
        ("check/silent_episodes", 1.0, "note"),
    ],
)
def test_self_checks_are_held_against_their_bounds(tmp_path: Path, name: str, value: float, status: str) -> None:
    data = gather([write_run(tmp_path / "run", lines=metrics(20, **{name: value}))])
    assert {check["name"]: check["status"] for check in data["checks"]}[name] == status
    failed = [check["name"] for check in data["checks"] if check["status"] == "fail"]
    assert failed == ([name] if status == "fail" else [])
    assert ("one self-check failed" in data["summary"]) == (status == "fail")


def test_what_differs_between_runs_is_marked_and_not_merged(tmp_path: Path) -> None:
    for k, commit in enumerate(("abc", "def")):
        config = {"env_id": "TextGen-v0", "seed": k, "algorithm": {"learning_rate": 10.0**-k}}
        write_run(tmp_path / "runs" / str(k), config=config, environment={"git_commit": commit, "cpu": "x86"})
    data = gather([tmp_path / "runs"])
    assert data["marks"] == [
        "not the same in all runs: algorithm.learning_rate",
        "not the same in all runs: git_commit",
    ]
    assert ["git_commit", ["abc", "def"]] in data["environment"]
    assert ["cpu", ["x86"]] in data["environment"]
    assert Reader(render(data)).tags.count(("tr", {"class": "differs"})) == 2


def test_a_run_that_goes_on_is_shown_and_said_to(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", finished=False)
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"update": 21, "ret')
    data = gather([run_dir])
    assert data["marks"] == [
        "seed 0 has not finished: 1,280 episodes",
        "seed 0: the last line of metrics.jsonl is cut and left out",
    ]
    assert len(data["curves"]["metrics"][0]["runs"][0]) == 20


def test_of_too_many_samples_both_ends_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.dumps(episode(k, "prompt", ["a", "b"], 0.5)) for k in range(1_000)]
    path = tmp_path / "samples.jsonl"
    path.write_text("\n".join(lines) + "\n")
    size = len(lines[500]) + 1
    found, num_lines, is_cut = read_lines(path, max_bytes=100 * size)
    assert (num_lines, is_cut) == (1_000, False)
    updates = [line["update"] for line in found]
    assert 90 <= len(updates) <= 100
    assert updates[:20] == list(range(20))
    assert updates[-20:] == list(range(980, 1_000))
    gaps = [b - a for a, b in pairwise(updates)]
    assert max(gaps) <= 30
    monkeypatch.setattr("agents.report.runs.MAX_SAMPLE_BYTES", 100 * size)
    run_dir = write_run(tmp_path / "run", samples=[json.loads(line) for line in lines])
    assert "of the 1,000 that the run kept" in render(gather([run_dir]))


def test_paths_do_not_tell_who_made_the_run(tmp_path: Path) -> None:
    config = {"env_id": "TextGen-v0", "model": "/home/somebody/models/mine", "env_kwargs": {"prompts": "/srv/x/a.txt"}}
    html = write_report([write_run(tmp_path / "run", config=config)]).read_text(encoding="utf-8")
    assert "…/mine" in html
    assert "somebody" not in html
    assert "/srv" not in html
    assert str(tmp_path) not in html


def test_files_may_hold_anything(tmp_path: Path) -> None:
    """Values of every wrong type where the page expects another."""
    strange = [None, True, 3, 1e400, "text", [1, "x", None], {"a": {"b": []}}, {"token": 3}, {"token": ["a"], "kl": 7}]
    names = ("update", "prompt", "response", "finish_reason", "return", "tokens", "parts")
    samples = [{**episode(1, "p", ["a"], 0.5), name: value} for name in names for value in strange if value != 1e400]
    keys = ("greedy", "start", "gain", "warnings", "pairs", "judge_name", "env", "split")
    lines = metrics(3) + [{"update": value, "return": value, "episodes": value, "x": value} for value in strange[:3]]
    for k, key in enumerate(keys):
        for i, value in enumerate(v for v in strange if v != 1e400):
            run_dir = write_run(
                tmp_path / f"{k}_{i}", lines=lines, samples=samples, evaluation={key: value}, config={"model": value}
            )
            if i in (0, 6) or k == 0:
                html = render(gather([run_dir]))
                assert data_of(html)["kind"] == "run"
                to_markdown(gather([run_dir]))


def test_an_evaluation_is_laid_out_before_and_after(tmp_path: Path) -> None:
    side = {"response": "bad", "return": 0.25, "judge": 0.5}
    after = {"mean_return": 0.75, "stderr": 0.01, "judge": 0.9, "judge_stderr": 0.02, "mean_length": 3.0}
    evaluation = after | {
        "greedy": {"mean_return": 0.8, "stderr": 0.03, "judge": 0.95, "judge_stderr": 0.04},
        "start": {"mean_return": 0.25, "stderr": 0.02, "judge": 0.5, "judge_stderr": 0.05, "mean_length": 4.0},
        "split": "heldout",
        "judge_name": "vader",
        "env": {"id": "TextGen-v0"},
        "warnings": ["the judge fell"],
        "gain": {"mean_return": 0.5, "mean_return_stderr": 0.015, "judge": 0.4, "judge_stderr": 0.06},
        "pairs": [{"prompt": "It was", "before": side, "after": side | {"response": "good"}}],
    }
    (found,) = gather([write_run(tmp_path / "run", evaluation=evaluation)])["evaluations"]
    assert found["columns"] == ["before", "after, sampled", "after, greedy"]
    assert found["main"] == [
        {"by": "the reward", "cells": [[0.25, 0.02], [0.75, 0.01], [0.8, 0.03]], "gain": [0.5, 0.015]},
        {"by": "judge: vader", "cells": [[0.5, 0.05], [0.9, 0.02], [0.95, 0.04]], "gain": [0.4, 0.06]},
    ]
    assert dict(found["rows"])["mean_length"] == [[4.0, None], [3.0, None], [None, None]]
    (pair,) = found["pairs"]
    assert [pair[when]["response"] for when in ("before", "after")] == ["bad", "good"]
    markdown = to_markdown(gather([tmp_path / "run"]))
    assert "| `seed 0` | `the reward` | 0.250 ± 0.020 | 0.750 ± 0.010 | 0.800 ± 0.030 | 0.500 ± 0.015 |" in markdown
    assert "**Warning:** `the judge fell`" in markdown


def test_markdown_lets_nothing_out_of_its_spans(tmp_path: Path) -> None:
    """Rendered by a parser that lets HTML through, hostile text is found in code alone, as it was."""
    samples = [episode(1, payload, [payload], 0.5) for payload in PAYLOADS[:3]]
    config = {"env_id": PAYLOADS[0], "seed": PAYLOADS[7]}
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    evaluation = {
        "split": "heldout",
        "judge_name": PAYLOADS[1],
        "start": {"judge": 0.5},
        "warnings": PAYLOADS,
    }
    run_dir = write_run(tmp_path / "run", config=config, samples=samples, evaluation=evaluation)
    html = parser.render(to_markdown(gather([run_dir])))
    allowed = {"h3", "p", "code", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "strong"}
    assert {tag for tag, _ in Reader(html).tags} == allowed
    hostile = [
        benchmark_row(text, text, 0, 0.5, commit=text.encode("utf-8", "replace").decode()) for text in PAYLOADS[:90]
    ]
    html = parser.render(to_markdown(gather([write_benchmark(tmp_path / "out", hostile)])))
    assert {tag for tag, _ in Reader(html).tags} <= allowed
    for payload in PAYLOADS:
        text = "".join(Reader(parser.render(span(payload))).texts["code"])
        expected = visible(payload).replace("|", "¦")
        assert text.strip() == (expected if len(expected) <= 300 else expected[:300] + "…").strip()


def test_numbers_are_spelt_for_readers() -> None:
    assert [number(x) for x in (None, 3.0, -1234.0, 0.12345, 7.7e-7, -0.5)] == [
        "–",
        "3",
        "−1,234",
        "0.123",
        "7.7e−07",
        "−0.500",
    ]
    # As many digits as the others of a column, and no zero below zero; what is large has none.
    assert [number(x, 3, True) for x in (1.0, 0.0, -0.0002, 0.9996, 1234.5)] == [
        "1.000",
        "0.000",
        "0.000",
        "1.000",
        "1,234",
    ]
    assert [number(x, 0, True) for x in (None, 496.0)] == ["–", "496"]
    assert policy("a", "b").count("sha256-") == 2


def test_the_command_writes_a_page_or_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(write_run(tmp_path / name)) for name in ("a", "b")]
    assert run("report", runs[0]) == 0
    assert capsys.readouterr().out == f"{runs[0]}/report.html\n"
    assert (tmp_path / "a" / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert run("report", *runs, "--out", str(tmp_path / "both.html")) == 0
    assert data_of((tmp_path / "both.html").read_text(encoding="utf-8"))["seeds"] == ["seed 0", "seed 0"]
    capsys.readouterr()
    assert run("report", runs[0], "--format", "markdown") == 0
    assert capsys.readouterr().out.startswith("### `TextGen-v0`\n")
    assert run("report", runs[0], "--format", "markdown", "--out", str(tmp_path / "a.md")) == 0
    assert (tmp_path / "a.md").read_text(encoding="utf-8").startswith("### `TextGen-v0`\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run_dir: (run_dir / "metrics.jsonl").unlink(), "whose metrics.jsonl is missing or empty; wait for"),
        (
            lambda run_dir: (run_dir / "metrics.jsonl").write_text(""),
            "whose metrics.jsonl is missing or empty; wait for",
        ),
        (
            lambda run_dir: (run_dir / "metrics.jsonl").write_text("{}\nno\n"),
            "line 2 of .*metrics.jsonl must be a JSON",
        ),
        (lambda run_dir: (run_dir / "samples.jsonl").write_text("[1]\n"), "line 1 of .*samples.jsonl must be a JSON"),
        (
            lambda run_dir: (run_dir / "samples.jsonl").write_bytes(b"\xff\n"),
            "line 1 of .*samples.jsonl must be a JSON",
        ),
        (lambda run_dir: (run_dir / "config.json").write_text("[]"), "config.json must hold a JSON object, got list"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Any, message: str
) -> None:
    run_dir = write_run(tmp_path / "run")
    damage(run_dir)
    assert run("report", str(run_dir)) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("\n") == 1
    assert not (run_dir / "report.html").exists()


def test_bad_paths_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for arguments, message in (
        ([str(tmp_path / "none")], "which does not exist; name another"),
        ([str(tmp_path / "file")], "which is no directory; name another"),
        ([], "got none; name one"),
        ([str(write_run(tmp_path / "a")), str(write_run(tmp_path / "b"))], "name the file with --out report.html"),
    ):
        assert run("report", *arguments) == 2
        assert message in capsys.readouterr().err


def test_without_jinja2_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    assert run("report", str(write_run(tmp_path / "run"))) == 2
    assert 'pip install "textenvs[report]"' in capsys.readouterr().err
