"""Resume: stopped and killed runs end with the bits of one that never stopped, whatever the global generators hold."""

import dataclasses
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small import string_envs, tiny_lm

import agents.train
from agents.algorithms import Algorithm
from agents.checkpoint import save_checkpoint
from agents.train import TrainConfig, train

ROOT = Path(__file__).parent.parent
CONFIG = TrainConfig(
    env_id="textenvs/Copy-v0",
    env_kwargs={"length": 2, "alphabet": "abcd", "dense": True},
    algorithm=Algorithm(
        episodes_per_update=16, num_epochs=2, num_minibatches=2, kl_coef=0.1, kl_target=0.5, kl_horizon=100
    ),
    model_kwargs={"hidden_size": 16, "num_heads": 2},
    num_episodes=48,
)


def contents(run_dir):
    """Everything of a finished run that no clock makes."""
    last = run_dir / "checkpoints" / "step_000003"
    state = json.loads((last / "state.json").read_text())
    del state["sizes"]["metrics.jsonl"]
    files = (last / "optimizer.safetensors", *(run_dir / "final").glob("*.safetensors"))
    tensors = {f"{path.name} {name}": value for path in files for name, value in load_file(path).items()}
    return state, {name: value.numpy().tobytes() for name, value in tensors.items()}


def test_resume_restores_everything_and_reads_no_global_generator(tmp_path, monkeypatch):
    """The adaptive KL coefficient, the optimizer and the counters come back; the rest is a function of the counters."""
    straight = train(CONFIG, tmp_path / "straight", quiet=True)

    def save_and_stop(*args, **kwargs):
        save_checkpoint(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(agents.train, "save_checkpoint", save_and_stop)
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        with pytest.raises(KeyboardInterrupt):
            train(CONFIG, tmp_path / "stopped", resume=True, quiet=True)
        assert (tmp_path / "stopped" / "checkpoints" / "LATEST").read_text() == f"step_{seed:06d}\n"
    monkeypatch.setattr(agents.train, "save_checkpoint", save_checkpoint)
    resumed = train(CONFIG, tmp_path / "stopped", resume=True, quiet=True)
    assert contents(straight)[0]["kl_coef"] != CONFIG.algorithm.kl_coef
    assert contents(resumed) == contents(straight)


def test_a_start_that_changed_since_is_refused(tmp_path):
    """The reference of the KL penalty is not in the checkpoint, its hash is."""
    model = tmp_path / "model"
    tiny_lm(string_envs(), seed=0).save(model)
    config = TrainConfig(CONFIG.env_id, CONFIG.env_kwargs, CONFIG.algorithm, model=str(model), num_episodes=16)
    train(config, tmp_path / "run", quiet=True)
    tiny_lm(string_envs(), seed=1).save(model)
    with pytest.raises(ValueError, match=r"model must be what the run in .*started from, got changed weights"):
        train(config, tmp_path / "run", resume=True, quiet=True)


def test_a_run_from_before_a_setting_existed_goes_on_and_another_value_of_it_is_refused(tmp_path):
    run_dir = train(CONFIG, tmp_path / "run", quiet=True)
    path = run_dir / "config.json"
    settings = json.loads(path.read_text())
    del settings["autocast"]
    for name in ("imitation_coef", "fit_value_bias", "learning_starts"):
        del settings["algorithm"][name]
    path.write_text(json.dumps(settings))
    train(CONFIG, run_dir, quiet=True, resume=True)
    later = dataclasses.replace(CONFIG.algorithm, imitation_coef=0.5, learning_rate=1e-4)
    refused = r"got algorithm\.imitation_coef 0\.0 -> 0\.5; algorithm\.learning_rate 0\.001 -> 0\.0001; change them"
    with pytest.raises(ValueError, match=refused):
        train(dataclasses.replace(CONFIG, algorithm=later), run_dir, quiet=True, resume=True)


HOSTILE = ["", "[]", "{}", '{"env_id": 1, "algorithm": {"speed": 2}}', "[" * 100_000]
HOSTILE += ['{"env_id": 1, "algorithm": {"clip_range": 1%s}}' % ("0" * 400)]
HOSTILE += ['{"env_id": 1, "algorithm": {}, "env_kwargs": %s}' % ("[" * 900 + "]" * 900)]


@pytest.mark.parametrize("content", HOSTILE)
def test_a_config_that_train_did_not_write_is_refused_by_its_name(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json in .* must be what train wrote, got .*; restore it"):
        train(CONFIG, tmp_path, quiet=True, resume=True)


def test_every_test_that_the_page_names_exists():
    page = (ROOT / "docs" / "determinism.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)::(\w+)`", page)
    assert len(named) > 20
    for module, name in named:
        assert f"def {name}(" in (ROOT / "tests" / f"{module}.py").read_text(encoding="utf-8"), f"{module}::{name}"


@pytest.mark.slow
def test_stops_and_kills_in_new_processes_end_at_the_same_bits():
    command = [sys.executable, str(ROOT / "benchmarks" / "resume.py"), "--stops", "3", "--kills", "3", "--jobs", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "all equal: 3 stops, 3 kills" in result.stdout
