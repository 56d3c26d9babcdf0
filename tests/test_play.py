"""play RUN_DIR: tokens in colours on a terminal, as numbers elsewhere; what a model wrote does neither."""

from __future__ import annotations

import io
import os
import re
import select
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from rich.console import Console
from small import string_envs

from agents.algorithms import ALGORITHMS, Algorithm
from agents.complete import completions
from agents.evaluate import evaluate
from agents.evaluate import load_run as load
from agents.play import Scale, play_human, play_policy, play_run, print_episodes, print_tokens
from agents.policy import RandomPolicy
from agents.rollout import collect
from agents.runlog import token_columns
from agents.train import TrainConfig, make_envs, train
from agents.update import make_batch, rollout_log_probs

COPY = {"length": 2, "alphabet": "abcd"}


def finished(run_dir: Path, algorithm: Algorithm, env_id: str = "textenvs/Copy-v0", **settings: Any) -> Path:
    """A run of one update."""
    config = TrainConfig(
        env_id, env_kwargs=COPY, model_kwargs={"hidden_size": 16, "num_heads": 2}, algorithm=algorithm, num_episodes=16
    )
    return train(replace(config, **settings), run_dir, quiet=True)


def numbers(out: str) -> list[dict[str, Any]]:
    """The rows of numbers that were printed."""
    pattern = re.compile(r"^" + r" +(\S+)" * 4 + r"  (\S+)$", re.MULTILINE)
    names = ("log_prob", "value", "advantage", "kl")
    rows = [dict(zip((*names, "token"), match, strict=True)) for match in pattern.findall(out)]
    return [{k: v if k == "token" else float(v) for k, v in row.items()} for row in rows if row["kl"] != "kl"]


def test_the_numbers_are_those_of_the_trained_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same as the algorithm computes on the episodes that an evaluation with that seed plays, before whitening."""
    adaptive = {"kl_coef": 0.1, "kl_target": 1.0, "kl_horizon": 32}
    run_dir = finished(tmp_path / "run", replace(ALGORITHMS["ppo"], episodes_per_update=16, **adaptive))
    play_run(run_dir, episodes=3, seed=5)
    rows = numbers(capsys.readouterr().out)
    run = load(run_dir)
    envs = make_envs("textenvs/Copy-v0", 3, COPY | {"split": "heldout"})
    _, rollout = evaluate(run.policy(envs), envs, num_episodes=3, seed=5)
    plain = replace(run.config.algorithm, normalize="none")
    kl_coef = run.state["kl_coef"]  # where the controller ended: the KL of the one update is 0, far below the target
    assert kl_coef == pytest.approx(0.09)
    batch = make_batch(rollout, plain, rollout_log_probs(run.reference(envs), rollout), kl_coef=kl_coef)
    assert batch.kl is not None
    flat = {"log_prob": batch.old_log_probs, "value": batch.old_values, "advantage": batch.advantages, "kl": batch.kl}
    for name, tensor in flat.items():
        np.testing.assert_allclose([row[name] for row in rows], tensor[batch.mask], rtol=1e-3, atol=1e-6, err_msg=name)
    # The last token's advantage is the score less its KL penalty and its value.
    last = int(rollout.lengths[0]) - 1
    expected = rollout.returns[0] - kl_coef * rows[last]["kl"] - rows[last]["value"]
    assert rows[last]["advantage"] == pytest.approx(expected, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize("name", ["rloo", "grpo"])
def test_group_baselines_get_whole_groups(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    algorithm = replace(ALGORITHMS[name], episodes_per_update=16)
    run_dir = finished(tmp_path / "run", algorithm, env_kwargs=COPY | {"dense": True})
    play_run(run_dir, episodes=2, seed=0)
    out = capsys.readouterr().out
    assert "over 2 episodes" in out
    run = load(run_dir)
    envs = make_envs("textenvs/Copy-v0", 16, COPY | {"split": "heldout", "dense": True})
    _, rollout = evaluate(run.policy(envs), envs, num_episodes=16, seed=0, group_size=8)
    advantages = make_batch(rollout, algorithm).advantages
    expected = [advantages[row, t].item() for row in (0, 8) for t in range(rollout.lengths[row])]
    np.testing.assert_allclose([row["advantage"] for row in numbers(out)], expected, rtol=1e-3, atol=1e-4)
    assert np.abs(expected).max() > 0


def test_a_control_run_is_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    algorithm = Algorithm(episodes_per_update=4, num_epochs=1, num_minibatches=1)
    settings = {"env_kwargs": {}, "model": "mlp", "model_kwargs": {}, "num_episodes": 4}
    play_run(finished(tmp_path / "run", algorithm, "CartPole-v1", **settings), episodes=1, seed=0)
    rows = numbers(capsys.readouterr().out)
    assert len(rows) >= 8
    assert {row["token"] for row in rows} <= {"0", "1"}


def print_to_a_terminal(monkeypatch: pytest.MonkeyPatch, info: dict[str, Any]) -> None:
    """Print four episodes, of which the first has the given info."""
    rollout = collect(string_envs(), RandomPolicy(6), num_episodes=4, seed=0)
    rollout.infos[0].update(info)
    batch = make_batch(rollout, Algorithm())
    tokens = [token_columns(batch, row, None) for row in range(4)]
    tokens[0]["token"][0] = info["response"]
    terminal = partial(Console, force_terminal=True, color_system="truecolor", no_color=False)
    monkeypatch.setattr("agents.play.Console", terminal)
    print_tokens(rollout, tokens, "title [/bold]", "advantage")


def test_a_terminal_gets_colours_and_a_legend(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = {"prompt": "[bold]\x1b[2J", "response": "\x1b]0;x\x07[/red]"}
    print_to_a_terminal(monkeypatch, hostile)
    out = capsys.readouterr().out
    assert "\x1b[30;48;2;" in out or "\x1b[38;2;0;0;0;48;2;" in out
    assert "advantage (reward)" in out
    assert "\x1b[2J" not in out
    assert "\x1b]0" not in out
    assert "\\x1b]0;x\\x07[/red]" in out
    assert "[bold]\\x1b[2J" in out
    assert "title [/bold]" in out


def test_scales_span_the_numbers() -> None:
    assert Scale.fit("advantage", [-0.5, 2.0]) == Scale("advantage", -2.0, 0.0, 2.0)
    assert Scale.fit("kl", [-2.0, 0.5]) == Scale("kl", -2.0, 0.0, 2.0)
    assert Scale.fit("kl", []) == Scale("kl", 0.0, 0.0, 0.0)
    assert Scale.fit("log_prob", [-3.0, -0.1]) == Scale("log_prob", -3.0, 0.0, 0.0)
    value = Scale.fit("value", [0.2, 0.6])
    assert (value.low, value.mid, value.high) == (0.2, pytest.approx(0.4), 0.6)
    scale = Scale("advantage", -2.0, 0.0, 2.0)
    backgrounds = [scale.style(x).split(" on ")[1] for x in (-2, 0, 1, 2)]
    assert backgrounds == ["rgb(240,140,50)", "rgb(225,225,225)", "rgb(158,195,232)", "rgb(90,165,240)"]
    assert scale.legend().plain.split() == ["advantage", "(reward)", "-2", "0", "2"]
    assert Scale.fit("log_prob", [-3.0]).legend().plain.split() == ["log_prob", "(nats)", "-3", "0"]
    assert Scale.fit("kl", [0.0]).style(0.0).endswith("rgb(225,225,225)")


def test_many_turns_are_shown_apart(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    env: Any = gym.make("textenvs/GuessNumber-v0")
    env.reset(seed=3)
    turns = env.unwrapped.rules.task.demonstration(env.unwrapped.rules.task[env.unwrapped._number])
    assert len(turns) > 2
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{turn}\n\n" for turn in turns)))
    play_human(env, episodes=1, seed=3)
    out = capsys.readouterr().out
    assert f"reference: {' | '.join(turns)}\n" in out
    assert re.search(rf"^(> )*{turns[0]}\n    [<>]\n{turns[1]}\n    [<>]\n", out, re.MULTILINE)
    play_policy("textenvs/GuessNumber-v0", {}, "oracle", episodes=2, seed=0)
    cells = [line.split("\u2502")[2] for line in capsys.readouterr().out.splitlines() if line.count("\u2502") == 5]
    assert {re.sub(r"\d+", "0", cell).rstrip() for cell in cells} >= {" 0", "     >", "     <"}


def test_what_turns_hold_drives_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    rollout = collect(string_envs(), RandomPolicy(6), num_episodes=4, seed=0)
    rollout.infos[0].update(prompt="[bold]", turns=["\x1b[2J", "[red]a\nb"], finish_reason="eos")
    print_episodes(rollout, "title")
    out = capsys.readouterr().out
    assert "\x1b[2J" not in out
    assert "\\x1b[2J" in out
    assert "    [red]a\\nb" in out


def test_completion_offers_what_legal_tokens_spell() -> None:
    """One character a token under a grammar; tokens of several characters, an unfinished one too, without."""
    env: Any = gym.make("textenvs/JsonRequest-v0")
    env.reset(seed=0)
    before = env.unwrapped.text(), env.unwrapped.action_masks().tolist()
    assert completions(env, "{") == ['{"', "{}"]
    assert completions(env, "t") == ["tr"]
    assert completions(env, "tru") == ["true"]
    assert completions(env, "x") == []  # not legal
    assert completions(env, "\u00e9") == []  # not in the vocabulary
    legal = [env.unwrapped.rules.vocab.tokens[i] for i in np.flatnonzero(before[1])]
    assert completions(env, "") == sorted(legal)
    assert (env.unwrapped.text(), env.unwrapped.action_masks().tolist()) == before
    env = gym.make("textenvs/GuessNumber-v0")
    env.reset(seed=0)
    assert completions(env, "4") == [f"4{digit}" for digit in range(10)]
    assert completions(env, "-") == []  # not legal, though digits were after it
    env = gym.make("TextGen-v0")
    env.reset(seed=0)
    assert completions(env, "") == []  # all 2,048 are legal
    found = completions(env, "It is gr")
    assert "It is great" in found
    vocab = env.unwrapped.rules.vocab
    assert all(line.startswith("It is gr") and line != "It is gr" for line in found)
    # The last token finishes what was typed or continues it; a tokenizer that spells a line otherwise offers it not.
    for typed in ("It is gr", "I lo"):
        lines = completions(env, typed)
        assert all(typed.startswith(vocab.decode(vocab.encode(line)[:-1])) for line in lines)
    env = gym.make("textenvs/Copy-v0", alphabet="a\x1bbc", length=2)
    env.reset(seed=0)
    assert completions(env, "") == ["=", "a", "b", "c"]  # an escape would drive the terminal
    assert completions(env, "ab=") == []  # the third token was the last


def test_the_tab_key_completes_at_a_terminal() -> None:
    """The command in a terminal of its own: t, tab, tab, tab is true."""
    pty = pytest.importorskip("pty")
    pytest.importorskip("readline")
    command = [sys.executable, "-m", "agents.cli", "play", "textenvs/JsonRequest-v0"]
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "dumb", "NO_COLOR": "1", "INPUTRC": "/dev/null"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    shown = b""

    def read_until(text: bytes) -> None:
        nonlocal shown
        while text not in shown:
            assert select.select([ours], [], [], 60)[0], shown
            shown += os.read(ours, 4096)

    try:
        read_until(b"> ")
        assert b"Tab completes by legal tokens." in shown
        os.write(ours, b"t\t\t\t")
        read_until(b"true")
        shown = b""
        os.write(ours, b"\n")
        read_until(b"> true")
        read_until(b"\n> ")
        os.write(ours, b"\x04")
        read_until(b"stopped")
    finally:
        process.kill()
        process.wait()
        os.close(ours)
