"""`textenvs score`: what the env paid is what the file's responses are worth, and bad lines are named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import textenvs
from agents.cli import main
from agents.evaluate import write_samples
from agents.policy import RandomPolicy
from agents.rollout import collect
from agents.score import score_file
from agents.train import make_envs

COPY = "textenvs/Copy-v0"


def run(*arguments: str) -> int:
    try:
        main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def write(path: Path, *lines: Any) -> str:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [
        (COPY, {}),
        (COPY, {"stop": ["h"], "split": "heldout"}),
        ("TextGen-v0", {"split": "heldout"}),
        ("textenvs/RandomWalk-v0", {}),
        ("textenvs/GuessNumber-v0", {"split": "heldout"}),
    ],
)
def test_samples_score_what_they_scored(env_id: str, kwargs: dict[str, Any], tmp_path: Path) -> None:
    envs = make_envs(env_id, 16, kwargs)
    rollout = collect(envs, RandomPolicy(envs.single_action_space.n), num_episodes=300, seed=0)
    write_samples(rollout, tmp_path / "samples.jsonl", split=kwargs.get("split", "train"))
    kwargs = {name: value for name, value in kwargs.items() if name != "split"}  # it is found in either split
    scored = list(score_file(env_id, kwargs, tmp_path / "samples.jsonl"))
    assert [row.record["id"] for row in scored] == list(range(300))
    assert [row.record["value"] for row in scored] == pytest.approx(rollout.returns.tolist(), abs=1e-12)
    if env_id != "TextGen-v0":  # whose random bytes take another number of tokens as text
        assert [row.record["finish_reason"] for row in scored] == [info["finish_reason"] for info in rollout.infos]
    assert [row.record["is_success"] for row in scored] == [bool(info["is_success"]) for info in rollout.infos]


def test_every_way_to_name_the_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = gym.make(COPY)
    _, info = env.reset(seed=7)
    problem = env.unwrapped.rules.task[info["problem"]]
    good = problem.references[0]
    path = write(
        tmp_path / "responses.jsonl",
        {"prompt": problem.prompt, "references": [good], "metadata": {}, "response": good},
        {"prompt": "hh=", "references": ["abc", "ab"], "response": "ab", "id": "mine"},
        {"prompt": problem.prompt, "response": good[:2]},
        "",
        {"problem_id": info["problem"], "response": good},
        {"seed": 7, "response": ""},
        {"problem_id": info["problem"], "seed": 3, "response": good + good},
        {"problem_id": info["problem"], "response": "é"},
    )
    assert run("score", COPY, "--input", path, "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == {
        "id": 0,
        "value": 1.0,
        "parts": {"position_match": 1.0},
        "status": "ok",
        "finish_reason": "eos",
        "is_success": True,
    }
    assert [row["id"] for row in rows] == [0, "mine", 2, 3, 4, 5, 6]
    assert [row["value"] for row in rows] == [1.0, 1.0, 0.5, 1.0, 0.0, 0.5, 0.0]
    assert [row["finish_reason"] for row in rows][4:6] == ["eos", "length"]
    assert (rows[6]["status"], rows[6]["parts"]) == ("model_fault", {})
    assert "got 'é'" in rows[6]["cause"]
    assert run("score", COPY, "--input", path) == 0
    table = re.sub(r"[ │]+", " ", capsys.readouterr().out)
    assert " responses 7 " in table
    assert " value 0.571 ± 0.170 " in table
    assert " success_rate 0.429 ± 0.202 " in table
    assert " status model_fault 1 " in table


def test_a_fault_has_no_value(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *({"problem_id": 0, "response": text} for text in ("a", "b", "ab")))

    def touchy(problem: Any, text: str) -> float:
        return 1 / (len(text) - 1)

    with pytest.warns(UserWarning, match="ZeroDivisionError"):
        rows = [row.record for row in score_file(COPY, {"reward": touchy}, Path(path))]
    assert [row["value"] for row in rows] == [None, None, 1.0]
    assert rows[0]["status"] == "infra_fault"
    assert rows[0]["cause"] == "ZeroDivisionError: division by zero"
    assert rows[0]["parts"] == {}


def test_turns_are_played_with_the_replies(tmp_path: Path) -> None:
    rules = textenvs.Rules("guess_number")
    solution = rules.task.demonstration(rules.task[0])
    assert solution is not None
    path = write(
        tmp_path / "a.jsonl",
        {"problem_id": 0, "response": list(solution)},
        {"problem_id": 0, "response": solution[0] if len(solution) > 1 else "0"},
    )
    values = [row.record["value"] for row in score_file("textenvs/GuessNumber-v0", {}, Path(path))]
    assert values[0] == 1.0
    assert values[1] < 1.0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line must be JSON"),
        ("[1]", "line must be a JSON object"),
        ("[" * 100_000, "line must be JSON"),
        ('{"id": NaN, "problem_id": 0, "response": "a"}', "line must be JSON, .*: NaN is no JSON number"),
        ('{"id": 1e999, "problem_id": 0, "response": "a"}', "line must be JSON, .*: 1e999 is no finite number"),
        ({"problem_id": 0, "response": "a", "value": 10**400}, '"value" must be a number of double precision'),
        ({"prompt": "abcd="}, '"response" must be a text, got None'),
        ({"prompt": "abcd=", "response": 5}, '"response" must be a text, got 5'),
        ({"response": "a"}, 'must have "prompt", "problem_id" or "seed", got none'),
        ({"prompt": 5, "response": "a"}, '"prompt" must be a text, got 5'),
        ({"prompt": "XX", "response": "a"}, "prompt must be symbols of 'abcdefgh'"),
        ({"prompt": "ab=", "references": "ab", "response": "a"}, "\"references\" must be a list of texts, got 'ab'"),
        ({"prompt": "ab=", "references": [], "response": "a"}, "must have a reference to be compared with"),
        ({"prompt": "ab=", "references": ["a"], "metadata": 5, "response": "a"}, '"metadata" must be an object, got 5'),
        ({"problem_id": 10**9, "response": "a"}, r'"problem_id" must be an integer in \[0, 3277\), got 1000000000'),
        ({"problem_id": True, "response": "a"}, '"problem_id" must be an integer'),
        ({"seed": -1, "response": "a"}, '"seed" must be an integer'),
    ],
    ids=str,
)
def test_a_bad_line_is_named(line: Any, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "bad.jsonl", {"problem_id": 0, "response": "a"}, line)
    assert run("score", COPY, "--input", path, "--json") == 2
    output = capsys.readouterr()
    assert output.out == "", "nothing is scored"
    assert re.search(re.escape(f"{path}:2: ") + ".*" + words, output.err)


def test_a_stored_prompt_is_found_in_either_split_and_an_unknown_one_refused(tmp_path: Path) -> None:
    heldout = textenvs.Rules("translate", split="heldout").task[0]
    path = Path(write(tmp_path / "a.jsonl", {"prompt": heldout.prompt, "response": heldout.references[0]}))
    assert [row.record["value"] for row in score_file("textenvs/Translate-v0", {}, path)] == [1.0]
    path = Path(write(tmp_path / "b.jsonl", {"prompt": "no such prompt", "response": "a"}))
    with pytest.raises(ValueError, match=r"b.jsonl:1: the problem with prompt 'no such prompt' must have a reference"):
        list(score_file("textenvs/Translate-v0", {}, path))


def test_files_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("score", COPY, "--input", str(tmp_path / "missing.jsonl")) == 2
    assert "missing.jsonl" in capsys.readouterr().err
    (tmp_path / "empty.jsonl").write_text("\n\n")
    assert run("score", COPY, "--input", str(tmp_path / "empty.jsonl")) == 2
    assert "must hold at least one response" in capsys.readouterr().err
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    assert run("score", COPY, "--input", str(tmp_path / "bytes.jsonl")) == 2
    assert "must be UTF-8" in capsys.readouterr().err
    assert run("score", "CartPole-v1", "--input", str(tmp_path / "empty.jsonl")) == 2
    assert "no text environment" in capsys.readouterr().err


def test_a_long_file_shows_progress_on_standard_error_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "long.jsonl", *({"problem_id": k, "response": "a", "value": 0.5} for k in range(600)))
    assert run("score", COPY, "--input", path, "--json") == 0
    assert len([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == 600
    assert run("score", COPY, "--input", path) == 0
    assert re.search(r"equal to the file's value[ │]+0 of 600", capsys.readouterr().out)
    values = np.array([row.record["value"] for row in score_file(COPY, {}, Path(path))])
    assert set(values) == {0.0, 0.25}
