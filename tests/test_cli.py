"""The command: what it prints, its exit status, and that every error is one sentence with the remedy."""

from __future__ import annotations

import inspect
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from command import lines, run
from safetensors.torch import load_file

import textenvs
from agents import cli
from agents.cli import main
from agents.sft import SFTConfig
from agents.train import TrainConfig
from textenvs.env import TextGenEnv

COPY = ["textenvs/Copy-v0", "--env-kwargs", '{"length": 2, "alphabet": "abcd", "dense": true}']
FAST = ["--episodes", "32", "--episodes-per-update", "16", "--num-envs", "16"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two updates."""
    run_dir = tmp_path_factory.mktemp("cli") / "run"
    assert run("train", *COPY, "--run-dir", str(run_dir), *FAST) == 0
    return run_dir


@pytest.mark.parametrize(("verb", "config", "count"), [(cli.train, TrainConfig, 6), (cli.sft, SFTConfig, 7)])
def test_a_flags_default_is_the_settings(verb: Any, config: Any, count: int) -> None:
    """The settings are known with torch only, which `--help` does not wait for."""
    flags = {name: parameter.default for name, parameter in inspect.signature(verb).parameters.items()}
    settings = {x.name if x.name in flags else x.name.removeprefix("num_"): x.default for x in fields(config)}
    shared = (flags.keys() & settings.keys()) - {"env_id", "env_kwargs", "algorithm"}
    assert len(shared) == count
    assert {name: flags[name] for name in shared} == {name: settings[name] for name in shared}


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in rows] == [entry.id for entry in textenvs.ENTRIES]
    keys = ["id", "family", "random", "dumb", "reference", "optimal", "dumb_success"]
    assert all(list(row) == keys for row in rows)
    assert rows[1] == {
        "id": "textenvs/Copy-v0",
        "family": "strings",
        "random": pytest.approx(0.072853),
        "dumb": pytest.approx(0.8),  # an echo is a copy with `=` behind it
        "reference": 1.0,
        "optimal": 1.0,
        "dumb_success": 0.005,
    }


def test_list_plays_an_id_whose_anchors_are_not_stored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = textenvs.Entry("Mine-v0", "mine", {"task": "copy", "length": 2})
    monkeypatch.setattr(textenvs, "ENTRIES", (*textenvs.ENTRIES[:1], mine))
    assert run("list", "--json") == 0
    known = textenvs.anchors(textenvs.Rules(**mine.kwargs))
    assert json.loads(capsys.readouterr().out)[1] == {"id": "Mine-v0", "family": "mine", **vars(known)}


@pytest.mark.parametrize("flag", [[], ["--json"]])
def test_list_plays_and_imports_nothing(flag: list[str]) -> None:
    heavy = ("torch", "transformers", "tokenizers", "reasoning_gym", "pandas", "scipy", "matplotlib", "textenvs.tasks.")
    code = (
        "import sys; from agents.cli import main; main(sys.argv[1:])\n"
        f"print([m for m in sys.modules if m.startswith({heavy})], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code, "list", *flag], capture_output=True, text=True, check=True)
    assert result.stderr == "[]\n"
    assert all(entry.id in result.stdout for entry in textenvs.ENTRIES)


@pytest.mark.parametrize("entry", textenvs.ENTRIES, ids=lambda entry: entry.id)
def test_show_and_list_every_id(entry: textenvs.Entry, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", entry.id) == 0
    page = capsys.readouterr().out
    assert entry.id in page
    assert "max_new_tokens" in page
    assert "0: " in page


def test_show_states_known_returns_for_the_tasks_own_reward_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "textenvs/Copy-v0", "--env-kwargs", '{"length": 2}') == 0
    assert "random_return" in capsys.readouterr().out
    assert run("show", "textenvs/Copy-v0", "--env-kwargs", '{"reward": "exact_match"}') == 0
    assert "_return" not in capsys.readouterr().out


def test_check_says_which_clauses_break(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "textenvs/Copy-v0") == 0
    assert "keeps the contract" in capsys.readouterr().out
    gym.register("test/Broken-v0", entry_point=broken_env)
    assert run("check", "test/Broken-v0") == 1
    assert "reward" in capsys.readouterr().err
    del gym.registry["test/Broken-v0"]


def broken_env(**kwargs: Any) -> gym.Env[Any, Any]:
    """An env that pays a reward which is no number."""

    class Broken(TextGenEnv):
        def step(self, action: Any) -> Any:
            observation, _, *rest = super().step(action)
            return observation, float("nan"), *rest

    return Broken(task="copy", **kwargs)


def test_play_by_hand(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    env: Any = gym.make("textenvs/Copy-v0").unwrapped
    env.reset(seed=0)
    answer = env.rules.vocab.decode(env.demonstration())
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"Z\n{answer}\n\n"))
    assert run("play", "textenvs/Copy-v0") == 0
    out = capsys.readouterr().out
    assert "got 'Z'" in out
    assert "return 1.000" in out
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert run("play", "textenvs/Copy-v0") == 0
    assert "stopped" in capsys.readouterr().out


def test_play_by_policy(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("play", "textenvs/Sort-v0", "--policy", "oracle", "--episodes", "3") == 0
    assert "mean return 1.000 over 3 episodes" in capsys.readouterr().out
    assert run("play", "textenvs/Sort-v0", "--policy", "random") == 0


def test_a_run_leaves_everything(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("config.json", "metrics.jsonl", "samples.jsonl", "curve.png", "final/model.safetensors"):
        assert (finished / name).stat().st_size > 0, name
    samples = finished.parent / "samples.jsonl"
    assert run("evaluate", str(finished), "--episodes", "10", "--json", "--samples", str(samples)) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"mean_return", "stderr", "success_rate", "num_episodes", "split", "greedy", "start"} <= set(result)
    assert result["num_episodes"] == len(samples.read_text().splitlines()) == 10
    assert list(json.loads(samples.read_text().splitlines()[0])) == ["id", "prompt", "response", "value"]
    assert run("play", str(finished), "--episodes", "2") == 0
    assert "over 2 episodes" in capsys.readouterr().out
    assert run("evaluate", str(finished), "--episodes", "10", "--judge", "exact_match") == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("sampled", "greedy", "start", "±", "held-out judge: exact_match"))


def test_a_warm_start_that_train_takes_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text_file = tmp_path / "walks.txt"
    text_file.write_text("ceoa\nfa\ntneoa\n" * 4, encoding="utf-8")
    warm, run_dir = str(tmp_path / "warm"), str(tmp_path / "run")
    walk = "textenvs/RandomWalk-v0"
    assert run("sft", walk, "--run-dir", warm, "--text-file", str(text_file), "--epochs", "2") == 0
    out = capsys.readouterr().out
    assert "held-out perplexity" in out
    last = out.splitlines()[-1]
    assert re.search(r"kept epoch [0-2] of 2, held-out perplexity \d+\.\d{3}; \d+\.\d{3} after the last", last)
    assert f"train {walk} --model {warm}/final" in last
    goes_on = f"an sft run.*; `textenvs train {walk} --model {warm}/final` goes on from it"
    for verb in ("evaluate", "play"):
        assert run(verb, warm) == 2
        assert re.search(goes_on, lines(capsys))
    assert run("train", walk, "--run-dir", run_dir, "--model", warm, *FAST) == 2
    assert f"it is a run, whose model is {warm}/final" in lines(capsys)
    assert (tmp_path / "warm/metrics.jsonl").read_text().count("\n") == 3
    assert run("train", walk, "--run-dir", run_dir, "--model", f"{warm}/final", *FAST) == 0
    text_file.write_text("ceoa\nceoz\n", encoding="utf-8")
    assert run("sft", walk, "--run-dir", str(tmp_path / "no"), "--text-file", str(text_file)) == 2
    assert "walks.txt:2: text must be spelt" in lines(capsys)
    assert run("sft", "TextGen-v0", "--run-dir", str(tmp_path / "no")) == 2
    assert "pass --text-file" in lines(capsys)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "textenvs/Copi-v0"], "did you mean 'textenvs/Copy-v0'"),
        (["show", "textenv/Copy-v0"], "did you mean 'textenvs/Copy-v0'"),
        (["show", "TextGen-v0", "--env-kwargs", '{"task": "revers"}'], "did you mean 'reverse'"),
        (["show", "TextGen-v0", "--env-kwargs", '{"reward": "vadr"}'], "did you mean 'vader'"),
        (["show", "TextGen-v0", "--env-kwargs", '{"reward": "my:fn"}'], "register_envs.*`textenvs train my:My-v0`"),
        (["show", "TextGen-v0", "--env-kwargs", "{task: 1}"], "must be JSON"),
        (["show", "TextGen-v0", "--env-kwargs", "[1]"], "must be a JSON object"),
        (["show", "TextGen-v0", "--env-kwargs", '{"prompts": "nowhere.txt"}'], "'nowhere.txt' which is no file"),
        (["show", "TextGen-v0", "--env-kwargs", '{"vocab": "nowhere.json"}'], "'nowhere.json' which does not exist"),
        (["play", "TextGen-v0", "--env-kwargs", '{"max_prompt_tokens": 1}'], "1 to 1 tokens, got"),
        (["play", "textenvs/Copy-v0", "--episodes", "0"], "--episodes must be at least 1, got 0"),
        (["train", *COPY, "--run-dir", "RUN", "--episodes", "0"], "--episodes must be at least 1, got 0"),
        (["train", *COPY, "--run-dir", "RUN", "--kl-coef", "nan"], "kl_coef must be finite and not negative, got nan"),
        (["train", *COPY, "--run-dir", "RUN", "--learning-rate", "-1"], "learning_rate must be positive"),
        (["train", *COPY, "--run-dir", "RUN", "--model", "./nowhere"], "'./nowhere', which does not exist"),
        (["train", *COPY, "--run-dir", "RUN", "--seed", "-1"], "seed must be an integer of at least 0, got -1"),
        (["show", "CartPole-v1"], "'CartPole-v1' is no text environment"),
        (["play", "CartPole-v1"], "'CartPole-v1' is no text environment"),
        (["play", "CartPole-v1", "--policy", "random"], "'CartPole-v1' is no text environment"),
        (["train", "CartPole-v1", "--run-dir", "RUN"], "'CartPole-v1' is no text environment.*with --model mlp"),
        (["show", "TextGen-v0", "--env-kwargs", '{"a":' * 5000], "must be JSON"),
        (["show", "TextGen-v0", "--env-kwargs", '{"stop": 5}'], "stop must be a list"),
        (["show", "TextGen-v0", "--env-kwargs", '{"prompts": 5}'], "prompts must be a list"),
        (["play", "TextGen-v0", "--seed", "-1"], "--seed must not be negative, got -1"),
        (["train", "textenvs/Copy-v0", "--env-kwargs", '{"observation": "onehot"}', "--run-dir", "RUN"], "observation"),
        (["train", "textenvs/Copy-v0", "--env-kwargs", '{"mask_keys": "rllib"}', "--run-dir", "RUN"], "observation"),
        (["evaluate", "nowhere"], "holds no run|which has no config.json"),
        (["evaluate", "nowhere", "--episodes", "0"], "--episodes must be at least 1, got 0"),
    ],
)
def test_wrong_usage_is_one_sentence_and_status_2(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    assert run(*[str(run_dir) if word == "RUN" else word for word in arguments]) == 2

    assert re.search(words, lines(capsys))
    assert not run_dir.exists(), "nothing half-written"


def test_bad_prompt_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        "empty.txt": (b"\n\n", "must hold at least one prompt"),
        "latin.txt": (b"caf\xe9", "must be UTF-8, got byte 3"),
        "key.jsonl": (b'{"prompt": "a"}\n{"promt": "b"}\n', "key.jsonl:2 must be a JSON object with the key 'prompt'"),
        "broken.jsonl": (b'{"prompt": "a"\n', "broken.jsonl:1 must be a JSON object"),
        "twice.jsonl": (b'{"prompt": "a", "prompt": "b"}\n', "must have each key once, got 'prompt' 2 times"),
        "nan.jsonl": (b'{"prompt": "a", "metadata": {"x": NaN}}\n', "must be finite, got NaN, at '/metadata/x'"),
        "deep.jsonl": (b"[" * 100_000, "deep.jsonl:1 must be a JSON object"),
    }
    for name, (content, words) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert run("show", "TextGen-v0", "--env-kwargs", json.dumps({"prompts": str(path)})) == 2
        assert words in lines(capsys)


def test_unknown_verbs_and_flags_end_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("shw") == 2
    assert run("train", "textenvs/Copy-v0") == 2
    assert run("train", *COPY, "--run-dir", "x", "--algorithm", "pppo") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_directory_that_holds_a_run_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "metrics.jsonl").read_bytes()
    assert run("train", *COPY, "--run-dir", str(finished), *FAST) == 2
    assert "holds a run; pass --resume" in lines(capsys)
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_a_model_directory_without_weights(tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    shutil.copytree(finished / "final", model)
    (model / "model.safetensors").unlink()
    assert run("train", *COPY, "--run-dir", str(tmp_path / "run"), "--model", str(model), *FAST) == 2
    assert "must hold model.safetensors" in lines(capsys)
    assert not (tmp_path / "run").exists()


def test_a_model_made_for_another_vocabulary(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["textenvs/Copy-v0", "--env-kwargs", '{"length": 2, "alphabet": "dcba"}']
    assert run("train", *arguments, "--run-dir", str(tmp_path / "run"), "--model", str(finished / "final"), *FAST) == 2
    assert "vocab_sha256 must be the env's" in lines(capsys)
    assert run("evaluate", str(finished), "--env", "textenvs/Sort-v0", "--episodes", "4") == 2
    assert "vocab_sha256" in lines(capsys)


def assert_same_weights(a: Path, b: Path) -> None:
    """The final weights of two runs are equal to the bit."""
    for name in ("model.safetensors", "value_head.safetensors"):
        ours, theirs = load_file(a / "final" / name), load_file(b / "final" / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_truncated_checkpoint_is_named_and_the_previous_one_used(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    shutil.rmtree(run_dir / "final")
    newest = sorted((run_dir / "checkpoints").glob("step_*"))[-1]
    weights = next(newest.rglob("model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.warns(UserWarning, match=newest.name):
        assert run("train", *COPY, "--run-dir", str(run_dir), *FAST, "--resume") == 0
    assert_same_weights(run_dir, finished)
    assert (run_dir / "metrics.jsonl").read_text().count("\n") == 2


def test_interrupt_leaves_a_run_that_resumes(tmp_path: Path) -> None:
    """Ctrl-C: status 130, one line, a curve; the resumed run ends with the weights of the straight one."""
    command = [sys.executable, "-m", "agents.cli", "train", *COPY, *FAST[2:], "--episodes", "640", "--run-dir"]
    process = subprocess.Popen(
        [*command, str(tmp_path / "a")],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background of a shell ignores SIGINT, and so would the run.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    metrics = tmp_path / "a/metrics.jsonl"
    for _ in range(1200):
        if metrics.exists() and metrics.read_text().count("\n") >= 3:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error
    assert "interrupted" in error
    assert (tmp_path / "a/curve.png").stat().st_size > 0
    assert not (tmp_path / "a/final").exists()
    subprocess.run([*command, str(tmp_path / "a"), "--resume"], check=True, capture_output=True)
    subprocess.run([*command, str(tmp_path / "b")], check=True, capture_output=True)
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    assert metrics.read_text().count("\n") == 40


@pytest.mark.parametrize(
    ("verb", "hint"),
    [("train", "; the same command with --resume goes on"), ("benchmark", "; the same command goes on"), ("sft", "")],
)
def test_an_interrupt_says_how_to_go_on(monkeypatch, capsys, verb: str, hint: str) -> None:
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("tyro.extras.subcommand_cli_from_dict", interrupted)
    with pytest.raises(SystemExit) as ended:
        main([verb])
    assert (ended.value.code, capsys.readouterr().err) == (130, f"textenvs: interrupted{hint}\n")


def test_an_env_of_the_users_own_trains_from_the_command(tmp_path: Path) -> None:
    """A module in the working directory registers its task, and `module:Name-v0` finds it."""
    (tmp_path / "mine.py").write_text(
        "import textenvs\n"
        "task = textenvs.make_task('copy', length=2, alphabet='ab', split='all')\n"
        "textenvs.register_envs([textenvs.Entry('Mine-v0', 'mine', {'task': task})])\n",
        encoding="utf-8",
    )
    code = "from agents.cli import main; import sys; sys.path.remove(''); main(sys.argv[1:])"
    for arguments in (["train", "mine:Mine-v0", "--run-dir", "run", *FAST], ["evaluate", "run", "--episodes", "4"]):
        command = [sys.executable, "-c", code, *arguments]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


def test_a_finished_run_says_what_is_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After training, when it is resumed once more, and when it is asked to grow."""
    run_dir = tmp_path / "run"
    trains = ["train", *COPY, "--run-dir", str(run_dir), *FAST]
    assert run(*trains) == 0
    assert capsys.readouterr().out.endswith(f"next: textenvs evaluate {run_dir}; textenvs report {run_dir}\n")
    begins = f"a new run goes on from its model with --model {run_dir}/final"
    assert run(*trains, "--resume") == 0
    assert f"{run_dir} was finished already: nothing was trained; {begins}\n" in capsys.readouterr().out
    more = [word if word != FAST[FAST.index("--episodes") + 1] else "999" for word in trains]
    assert run(*more, "--resume") == 2
    assert lines(capsys).endswith(
        f"num_episodes {trains[trains.index('--episodes') + 1]} -> 999; change them back; {begins}\n"
    )
    assert run(*trains, "--resume", "--seed", "7") == 2
    assert begins not in lines(capsys)
    assert run("train", *COPY, "--run-dir", str(tmp_path / "more"), *FAST, "--model", f"{run_dir}/final") == 0
