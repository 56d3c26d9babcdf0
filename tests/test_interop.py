"""Other libraries plug in: what each saw is what the envs counted, now (`--smoke`) and in docs/interop.csv."""

from __future__ import annotations

import ast
import csv
import importlib.metadata
import json
import re
import runpy
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO

import textenvs  # noqa: F401 - registers the ids, before the registry is saved
from agents.sb3 import SB3VecEnv

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
EXAMPLES = Path(__file__).parent.parent / "examples"
#: Those whose library `make test` installs; `make interop-smoke`, of `.ci/run`, runs the others in venvs of their own.
HERE = ("sb3_ppo", "sb3_dqn", "sb3_maskable_ppo", "sb3_recurrent_ppo", "cleanrl_ppo", "reinforce")
#: Those that are not about a library, and something that each prints with `--smoke`.
OTHERS = {
    "own_reward": "after ",
    "own_task": "in the last of 1\n",
    "own_model": "in the last of 1\n",
    "whole_utterances": "mean return 1.000 over 5 episodes\n",
    "random_walk": "the graph and the curve: random_walk.png\n",
    "linear_walk": "of 110 pairs of cells",
    "smollm2_sentiment": "split heldout, seed 3, 1 iterations\n",
}


@pytest.fixture
def interop(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("interop")


def test_the_record_holds_every_example_and_each_kept_the_invariant(interop: ModuleType) -> None:
    lines = interop.recorded()
    assert [line["example"] for line in lines] == list(interop.EXAMPLES)
    for line in lines:
        interop.check(line, reaches=interop.WANTED)


def test_the_readme_holds_what_the_record_gives(interop: ModuleType) -> None:
    readme = interop.README.read_text(encoding="utf-8")
    between = readme.partition(interop.BEGIN)[2].partition(interop.END)[0]
    assert between.strip() == interop.markdown(interop.recorded()), "run python benchmarks/interop.py --only NAME"


def run_here(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[str, dict[str, Any]]:
    """What an example prints with `--smoke`, and its names; run in this process, which imports torch and SB3 once."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "counting", raising=False)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--smoke", "--seed", "3"])
    registered, random = dict(gym.registry), torch.get_rng_state()
    try:
        names = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    finally:
        gym.registry.clear()
        gym.registry.update(registered)
        torch.set_rng_state(random)
        sys.modules.pop("counting", None)
    return capsys.readouterr().out, names


@pytest.mark.parametrize("name", HERE)
def test_the_library_sees_what_the_env_counted(
    name: str, interop: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = json.loads(run_here(name, monkeypatch, capsys)[0].splitlines()[-1])
    assert {*interop.COLUMNS} - {"example", "seconds"} == {*line}
    interop.check(line)
    assert line["episodes"] > 50
    assert line["version"] == importlib.metadata.version(line["library"])
    assert line["gymnasium"] == gym.__version__
    assert line["mask"] == ("action_masks()" if "maskable" in name else "none")
    assert (line["observation"], line["autoreset"]) == ("onehot", "NextStep" if name == "cleanrl_ppo" else "library")


@pytest.mark.parametrize("name", OTHERS)
def test_your_own_reward_task_model_and_agent_and_the_studies(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which random_walk.py would set
    said, _ = run_here(name, monkeypatch, capsys)
    assert OTHERS[name] in said
    assert {path.name for path in tmp_path.iterdir()} == ({"random_walk.png"} if name == "random_walk" else set())


def test_ppo_in_one_file_learns_from_no_step_that_only_resets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, names = run_here("cleanrl_ppo", monkeypatch, capsys)
    done, real, rewards, terminated = (names[name] for name in ("done", "real", "rewards", "terminated"))
    assert torch.equal(real[1:], ~done[:-1])
    assert not rewards[~real].any()
    assert 0 < (~real).sum() < real.sum()
    assert [len(column) for column in names["batch"]] == [int(real.sum())] * 5
    # The advantage of a last step is its reward less its value: nothing of the next episode leaks into it.
    expected = (rewards - names["values"])[terminated]
    torch.testing.assert_close(names["advantages"][terminated], expected)


def test_every_example_is_run_with_smoke_here_or_in_ci(interop: ModuleType) -> None:
    elsewhere = {name for name, venv in interop.EXAMPLES.items() if venv}
    assert {*interop.EXAMPLES} - elsewhere == {*HERE}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*HERE, *OTHERS} | elsewhere | {"counting"}
    commands = (BENCHMARKS.parent / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert "make interop-smoke" in commands
    makefile = (BENCHMARKS.parent / "Makefile").read_text(encoding="utf-8")
    assert "\ninterop-smoke: install\n\t$(BIN)/python benchmarks/interop.py --smoke\n" in makefile


def test_examples_are_short(interop: ModuleType) -> None:
    studies = {"linear_walk", "random_walk", "smollm2_sentiment"}  # told of in the README's results
    for name in {*interop.EXAMPLES, *OTHERS} - studies:
        text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
        assert text.count("\n") < 60, name
        assert '"--seed"' in text, name


def test_a_venv_that_cannot_be_made_is_one_sentence_and_the_others_go_on(
    interop: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a network: pip fails once a venv, not once an example, and nothing passes for a whole venv."""
    asked = []

    def no_network(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
        if "pip" not in command:
            return subprocess.CompletedProcess(command, 0)
        asked.append(command[-1])
        said = "WARNING: Retrying (Retry(total=4))\nERROR: No matching distribution found for absl-py==2.5.1\n"
        return subprocess.CompletedProcess(command, 1, stderr=said)

    monkeypatch.setenv("TEXTENVS_CACHE", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", no_network)
    failed = interop.make_venvs(["rllib_ppo", "sb3_ppo", "rllib_masked_ppo", "torchrl_ppo"])
    assert [Path(path).name for path in asked] == ["requirements-rllib.txt", "requirements-torchrl.txt"]
    assert failed.keys() == {"rllib", "torchrl"}
    assert failed["rllib"] == (
        "the venv of rllib needs what examples/requirements-rllib.txt lists, but pip said "
        "'ERROR: No matching distribution found for absl-py==2.5.1'; "
        "see that this machine reaches a package index and has the disk for it, and run this again"
    )
    assert not list(tmp_path.rglob("whole"))
    assert "making" in capsys.readouterr().out


def test_an_example_that_does_not_end_is_stopped_with_all_it_started(
    interop: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray leaves workers behind where only its first process is killed."""
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "endless.py").write_text(
        "import pathlib, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
        "child.wait()\n"
    )
    monkeypatch.setattr(interop, "ROOT", tmp_path)
    monkeypatch.setitem(interop.EXAMPLES, "endless", "")
    monkeypatch.setattr(interop, "MOST_SECONDS", 3)
    with pytest.raises(RuntimeError, match=r"must end within 3 s, got no end; run examples/endless\.py by itself"):
        interop.run("endless")
    status = Path("/proc", (tmp_path / "pid").read_text(), "stat")
    for _ in range(100):  # the system takes a moment to carry out a kill
        if not status.exists() or status.read_text().split()[2] in "ZX":
            break
        time.sleep(0.1)
    assert not status.exists() or status.read_text().split()[2] in "ZX"  # gone, or waiting to be buried


def test_the_table_of_a_smoke_run_holds_both_counts(interop: ModuleType) -> None:
    line = {"library": "ray", "version": "2.60.0", "example": "rllib_ppo"}
    line |= {"episodes_env": 1234, "episodes_library": 1233, "steps_env": 4567, "steps_library": 4560}
    header, row = interop.counts([line]).splitlines()
    assert header.split() == ["library", "example", "episodes_env", "episodes_library", "steps_env", "steps_library"]
    assert row.split() == ["ray", "2.60.0", "rllib_ppo", "1,234", "1,233", "4,567", "4,560"]


def test_reinforce_by_hand_is_fifteen_lines() -> None:
    tree = ast.parse((EXAMPLES / "reinforce.py").read_text(encoding="utf-8"))
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "reinforce")
    assert function.end_lineno is not None
    assert function.end_lineno - function.lineno + 1 <= 15


#: An example's prefix -> the modules that could be missing, and the command that brings them.
NEEDS = {
    "sb3": (("stable_baselines3", "sb3_contrib"), 'pip install "textenvs[sb3]"'),
    "cleanrl": (("torch",), 'pip install "textenvs[agents]"'),
    "reinforce": (("torch",), 'pip install "textenvs[agents]"'),
    "own": (("agents.train",), 'pip install "textenvs[agents]"'),
    "rllib": (("ray",), "pip install -r examples/requirements-rllib.txt"),
    "tianshou": (("tianshou",), "pip install -r examples/requirements-tianshou.txt"),
    "torchrl": (("tensordict",), "pip install -r examples/requirements-torchrl.txt"),
}


def test_a_missing_library_is_named_with_its_command(
    interop: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {*interop.EXAMPLES, "own_reward", "own_task", "own_model"}
    assert len(names) == 15
    for name in sorted(names):
        modules, command = NEEDS[name.partition("_")[0]]
        for missing in {modules} if name.startswith(("rllib", "own")) else {modules, ("torch",)}:
            with monkeypatch.context() as absent:
                for module in missing:
                    absent.setitem(sys.modules, module, None)
                with pytest.raises(SystemExit, match=rf"^this example needs [\w -]+; {re.escape(command)}$"):
                    run_here(name, absent, capsys)


def counted(mode: AutoresetMode | None, **kwargs: Any) -> tuple[Any, ModuleType]:
    """A counted batch, or a single env without a mode, and the books."""
    sys.modules.pop("counting", None)
    counting = import_module("counting")
    if mode is None:
        return counting.count(gym.make("textenvs/Copy-v0", length=3, dense=True, **kwargs)), counting
    return counting.count(
        gym.make_vec("textenvs/Copy-v0", num_envs=5, autoreset_mode=mode, length=3, dense=True, **kwargs)
    ), counting


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_batch_counts_as_its_rows_would_alone(mode: AutoresetMode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    envs, counting = counted(mode)
    random = np.random.default_rng(0)
    envs.reset(seed=1)
    expected, paid, length, resetting = [], np.zeros(5), np.zeros(5, dtype=int), np.zeros(5, dtype=bool)
    for _ in range(60):
        _, rewards, terminated, truncated, _ = envs.step(random.integers(0, envs.single_action_space.n, 5))
        ended = terminated | truncated
        paid, length = paid + rewards, length + ~resetting
        expected += [(int(length[i]), float(paid[i])) for i in np.flatnonzero(ended)]
        paid[ended], length[ended] = 0, 0
        resetting = ended & (mode == AutoresetMode.NEXT_STEP)
        if mode == AutoresetMode.DISABLED and ended.any():
            envs.reset(options={"reset_mask": ended})
    assert len(expected) > 30
    assert counting.lengths == [steps for steps, _ in expected]
    assert counting.returns == pytest.approx([value for _, value in expected])
    assert max(counting.lengths) <= 4


def test_an_episode_left_unfinished_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    env, counting = counted(None)
    env.reset(seed=0)
    env.step(0)
    env.reset()
    for _ in range(4):
        *_, terminated, _, _ = env.step(0)
    assert terminated
    assert counting.lengths == [4]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"episodes_library": 9}, "episodes must be the same on both sides, got 10 in the env and 9 in the library"),
        ({"steps_library": 33}, "steps must be the same"),
        ({"return_library": 5.1}, "return must be the same"),
        ({"episodes": 0}, "at least one episode must end, got none"),
        ({"mean_return": 0.89}, "mean_return must be at least 0.9, got 0.89"),
    ],
)
def test_a_difference_is_an_error(interop: ModuleType, wrong: dict[str, float], message: str) -> None:
    line = {"episodes": 10, "mean_return": 0.95, "episodes_env": 10, "episodes_library": 10}
    line |= {"steps_env": 34, "steps_library": 34, "return_env": 5.0, "return_library": 5.000001}
    interop.check(line, reaches=0.9)
    with pytest.raises(ValueError, match=message):
        interop.check(line | wrong, reaches=0.9)


def test_the_envs_pass_their_tests_on_every_gymnasium_that_is_admitted() -> None:
    root = Path(__file__).parent.parent
    with (root / "docs" / "gymnasium.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    oldest = re.search(r'"gymnasium>=([\d.]+)"', (root / "pyproject.toml").read_text(encoding="utf-8"))
    newest = re.search(r"^gymnasium==(\S+)$", (root / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert oldest is not None
    assert newest is not None
    assert [line["gymnasium"] for line in lines] == [f"{oldest[1]}.0", "1.2.2", newest[1]]
    assert [line["failed"] for line in lines] == ["0"] * len(lines)
    assert len({line["tests"] for line in lines}) == 1


def test_sb3_refuses_a_batch_in_a_mode_that_does_not_fit() -> None:
    for mode in AutoresetMode:
        envs: Any = gym.make_vec("textenvs/Copy-v0", num_envs=2, autoreset_mode=mode, observation="onehot")
        with pytest.raises(ValueError, match="not a Gymnasium environment"):  # SB3's own words
            PPO("MlpPolicy", envs)
        if mode != AutoresetMode.SAME_STEP:
            with pytest.raises(ValueError, match="autoreset_mode must be SameStep for SB3"):
                SB3VecEnv(envs)


def test_a_masked_agent_takes_legal_tokens_only() -> None:
    taken: list[bool] = []

    class Watched(gym.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            taken.append(bool(self.env.get_wrapper_attr("action_masks")()[int(action)]))
            return self.env.step(action)

        def action_masks(self) -> Any:
            return self.env.get_wrapper_attr("action_masks")()

    env = Watched(gym.make("textenvs/RandomWalk-v0", observation="onehot"))
    assert not env.reset(seed=0) or not env.action_masks().all()
    for agent, legal in ((MaskablePPO, True), (PPO, False)):
        taken.clear()
        agent("MlpPolicy", env, n_steps=128, n_epochs=1, seed=0, device="cpu").learn(128)
        assert len(taken) == 128
        assert all(taken) is legal
