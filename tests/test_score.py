"""`textenvs score`: what the env paid is what the file's responses are worth, and bad lines are named."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from command import run

import textenvs
from agents.evaluation_files import write_samples
from agents.policy import RandomPolicy
from agents.rollout import collect
from agents.score import score_file
from agents.train import make_envs

COPY = "textenvs/Copy-v0"


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
    assert " part/position_match 0.667 ± 0.167 (of 6) " in table


def test_a_problem_is_numbered_as_info_numbers_it(tmp_path: Path) -> None:
    good = textenvs.make_task("copy")[5].references[0]
    lines = {"problem": 5, "response": good}, {"problem": -1, "prompt": "hh=", "response": "hh"}
    path = Path(write(tmp_path / "a.jsonl", *lines, {"problem": 9, "problem_id": 5, "response": good}))
    assert [row.record["value"] for row in score_file(COPY, {}, path)] == [1, 1, 1]


def test_a_fault_has_no_value(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *({"problem_id": 0, "response": text} for text in ("a", "b", "ab")))

    def touchy(problem: Any, text: str) -> float:
        return 1 / (len(text) - 1)

    with pytest.warns(UserWarning, match="ZeroDivisionError"):
        rows = [row.record for row in score_file(COPY, {"reward": touchy}, Path(path))]
    assert [row["value"] for row in rows] == [None, None, 1.0]
    assert rows[0]["status"] == "infra_fault"
    assert rows[0]["cause"].startswith(f"ZeroDivisionError: division by zero at {__file__}:")
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
        ({"turns": ["100", "<", "50"]}, "as turn 2, where the task replies '>'"),
        ({"turns": ["137", "<", "50"]}, "got '<' as turn 2, where the episode has ended"),
        ({"turns": ["100", ">", "150", ">", "137"]}, "got '>' as turn 4, where the task replies '<'"),
        ({"turns": ["x", ">"]}, "as turn 2, where the task replies '?'"),
        ({"turns": []}, '"turns" must be a list of texts'),
        ({"turns": ["100", 5]}, '"turns" must be a list of texts'),
        (
            {"turns": ["100", ">"], "metadata": {}},
            r"line must have metadata\['hidden'\], metadata\['par'\], as",
        ),
        ({"response": []}, '"response" must be a list of texts'),
        (
            {"response": ["100", "137", "5"]},
            '"response" must end where the episode does, got 3 turns, .* number 2 ends it',
        ),
        ({"response": ["100"], "metadata": {"hidden": 137}}, r"line must have metadata\['par'\], as the problems of"),
        ({"response": ["100"], "references": []}, "line must have references, as the problems of the task"),
        ({"response": ["100"], "metadata": {"hidden": "x", "par": 8}}, '"metadata" must have what .* TypeError'),
    ],
    ids=str,
)
def test_turns_that_the_task_did_not_say_are_refused(line: Any, words: str, tmp_path: Path) -> None:
    problem: dict[str, Any] = {"prompt": "1-200=", "references": ["137"], "metadata": {"hidden": 137, "par": 8}}
    line, good = problem | line, problem | {"turns": ["100", ">", "150", "<", "137"]}
    cut = {**good, "turns": ["100", ">"]}  # by the budget
    path = Path(write(tmp_path / "a.jsonl", good, cut))
    assert [row.record["value"] for row in score_file("textenvs/GuessNumber-v0", {}, path)] == [1, 0]
    path = Path(write(tmp_path / "bad.jsonl", good, cut, line))
    with pytest.raises(ValueError, match=re.escape(f"{path}:3: ") + ".*" + words):
        list(score_file("textenvs/GuessNumber-v0", {}, path))


@pytest.mark.parametrize("way", [{"problem_id": 1}, {"prompt": "b"}, {"prompt": "b", "references": [], "metadata": {}}])
def test_each_line_is_held_to_what_the_tasks_own_reward_requires(way: Any, tmp_path: Path) -> None:
    """The env looks at the first problem alone, for a task's own reward."""
    rows = [
        {"prompt": "a", "reference": "x", "alternative": "x"},
        {"prompt": "b", "reference": "y", "alternative": "y"},
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    class Picky(textenvs.ExactMatch):
        def require(self, problem: Any) -> None:
            if problem.prompt == "b":
                raise ValueError("b cannot be scored")

    class Mine(type(textenvs.make_task("dataset"))):  # type: ignore[misc]
        reward = Picky()

    task = Mine(path=tmp_path / "data.jsonl", split="all")
    path = Path(write(tmp_path / "a.jsonl", {"problem_id": 0, "response": "x"}))
    assert [row.record["value"] for row in score_file("TextGen-v0", {"task": task}, path)] == [1]
    path = Path(write(tmp_path / "b.jsonl", {"problem_id": 0, "response": "x"}, {**way, "response": "y"}))
    with pytest.raises(ValueError, match=r"b.jsonl:2: .*b cannot be scored"):
        list(score_file("TextGen-v0", {"task": task}, path))


def test_a_split_of_a_task_without_splits_names_the_line(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "a.jsonl", {"problem_id": 0, "split": "train", "response": "x"}))
    with pytest.raises(ValueError, match=r"a.jsonl:1: \"split\" must be left out, got 'train'"):
        list(score_file("TextGen-v0", {"task": textenvs.make_task("copy")}, path))


def test_marks_line_ends_and_long_lines(tmp_path: Path) -> None:
    long = "h" * 1_000_000
    lines = [{"problem_id": k, "response": long if k == 3 else "a"} for k in range(600)]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(line).encode() for line in lines) + b"\r\n\r\n")
    tracemalloc.start()
    rows = [row.record for row in score_file(COPY, {}, path)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(rows) == 600
    assert (rows[3]["value"] < 1e-5, rows[3]["finish_reason"], rows[4]["finish_reason"]) == (True, "length", "eos")
    assert peak < 256 << 20, "not 256 rows as long as the longest"
    path.write_text(json.dumps({"problem_id": 0, "response": "x" * (17 << 20)}))
    with pytest.raises(ValueError, match=r"a.jsonl:1: .* must be at most 16,777,216 bytes, got"):
        list(score_file(COPY, {}, path))


def test_a_response_that_is_half_a_character_is_the_models_fault(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "a.jsonl", '{"prompt": "The hotel", "response": "good \\ud83d", "id": {"a": [1]}}'))
    (row,) = score_file("TextGen-v0", {}, path)
    assert (row.record["status"], row.record["id"]) == ("model_fault", {"a": [1]})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line must be JSON, got '{': Expecting .* at character 2; write one object a line"),
        ("[1]", "line must be a JSON object"),
        ("[" * 100_000, "line must be JSON, .*: a JSON text must have at most 128 levels"),
        ('{"problem_id": 0, "response": "a", "response": "b"}', "must have each key once, got 'response' 2 times"),
        ('{"prompt": "ab=", "metadata": {"x": [-Infinity]}, "response": "a"}', "got -Infinity, at '/metadata/x/0'"),
        ('{"problem_id": ' + "1" * 5_000 + ', "response": "a"}', "at most 4,000 digits, got 5,000, at '/problem_id'"),
        ({"problem_id": 0, "response": "a", "value": "0.5"}, "\"value\" must be a number or null, got '0.5'"),
        ({"problem_id": 0, "response": "a", "value": True}, '"value" must be a number or null, got True'),
        ({"problem_id": 0, "response": ["a"]}, r"\"response\" must be a text, got \['a'\]"),
        (
            {"problem_id": 0, "response": "a", "prompt": "zz="},
            "\"prompt\" must be that of problem 0, .* got 'zz='; .*split",
        ),
        ({"problem_id": 0, "response": "a", "split": "dev"}, "split must be one of train, heldout, all, got 'dev'"),
        ({"prompt": "ab=", "references": ["ab", "aé"], "response": "a"}, "\"references\" must be .* got 'é' in 'aé'"),
        ({"prompt": "ab=", "references": ["\ud800"], "response": "a"}, '"references" must be .* got .*ud800'),
        (
            '{"id": NaN, "problem_id": 0, "response": "a"}',
            "line must be JSON, .*: a JSON number must be finite, got NaN, at '/id'",
        ),
        (
            '{"id": 1e999, "problem_id": 0, "response": "a"}',
            "line must be JSON, .*: a JSON number must be finite, got 1e999",
        ),
        ({"problem_id": 0, "response": "a", "value": 10**400}, '"value" must be a number of double precision'),
        ({"prompt": "abcd="}, '"response" is missing; add it, a text'),
        ({"problem": 10**9, "response": "a"}, r'"problem" must be an integer in \[0, 3277\), got 1000000000'),
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


@pytest.mark.parametrize(
    ("name", "kwargs", "change", "words"),
    [
        ("WordProblem", {}, {"prompt": str.rstrip}, r"own '.*\\n' differs in white space at its end"),
        ("Translate", {}, {"prompt": str.rstrip}, "own '.*' differs in white space at its end"),
        ("Translate", {}, {"prompt": " {}".format}, "differs in white space at its beginning or end"),
        ("Translate", {"split": "heldout"}, {}, "the prompt is of split train, and the env is on split heldout"),
        ("Translate", {}, {"prompt": "x{}".format, "reference": str}, "unknown key 'reference', did you mean \"refer"),
        ("Translate", {}, {"prompt": "x{}".format}, 'no problem of the task has this prompt: give "references", or'),
    ],
)
def test_an_unknown_prompt_is_told_why(name: str, kwargs: Any, change: Any, words: str, tmp_path: Path) -> None:
    prompt = gym.make(f"textenvs/{name}-v0").unwrapped.rules.task[0].prompt
    line = {"prompt": prompt, "response": "a"} | {key: how(prompt) for key, how in change.items()}
    path = Path(write(tmp_path / "a.jsonl", line))
    with pytest.raises(ValueError, match="must have .*" + words):
        list(score_file(f"textenvs/{name}-v0", kwargs, path))


def test_files_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("score", COPY, "--input", str(tmp_path / "missing.jsonl")) == 2
    assert "missing.jsonl" in capsys.readouterr().err
    (tmp_path / "empty.jsonl").write_text("\n\n")
    assert run("score", COPY, "--input", str(tmp_path / "empty.jsonl")) == 2
    assert "must hold at least one response" in capsys.readouterr().err
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    assert run("score", COPY, "--input", str(tmp_path / "bytes.jsonl")) == 2
    assert "bytes.jsonl:1: line must be UTF-8, got 0xff as byte 1; re-encode" in capsys.readouterr().err
    (tmp_path / "binary.jsonl").write_bytes(b'{"problem_id": 0, "response": "a"}\n\x00\x01\x1b[2J\n')
    assert run("score", COPY, "--input", str(tmp_path / "binary.jsonl")) == 2
    assert r"binary.jsonl:2: line must be JSON, got '\x00\x01\x1b[2J'" in capsys.readouterr().err
    assert run("score", COPY, "--input", str(tmp_path)) == 2
    assert "must be a file, got a directory; name another" in capsys.readouterr().err
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
