"""Checkpoints: exact, the newest two and the best kept, never read when a byte is wrong. Faults: `test_faults`."""

import json
import os
import shutil
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from saved import linear_and_adam, save
from small import string_envs

import agents.checkpoint
from agents.algorithms import Algorithm
from agents.checkpoint import (
    best_checkpoint,
    latest_checkpoint,
    load_checkpoint,
    newest_state,
    note_metric,
    parameter_hash,
)
from agents.lm import LMPolicy
from agents.train import TrainConfig, train

FIXTURES = Path(__file__).parent / "fixtures"
FILES = (
    "manifest.json", "manifest.sha256", "optimizer.safetensors", "policy/model.safetensors",
    "policy/value_head.safetensors", "state.json",
)  # fmt: skip


@pytest.fixture
def trained():
    return linear_and_adam()


def steps(folder):
    return sorted(int(path.name.removeprefix("step_")) for path in folder.glob("step_*"))


def sign(path):
    """Write the hash of a changed manifest, as an attacker or another version would."""
    text = (path / "manifest.json").read_bytes()
    (path / "manifest.sha256").write_text(f"{sha256(text).hexdigest()}  manifest.json\n")


def change_manifest(path, change):
    """Change a manifest and its hash."""
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))
    sign(path)


def test_optimizer_and_state_come_back_exactly(tmp_path, trained):
    model, optimizer = trained
    numbers = {"third": 1 / 3, "tiny": 5e-324, "zero": -0.0, "large": 2**70, "none": None}
    path = save(tmp_path, 7, trained, **numbers)
    assert latest_checkpoint(tmp_path) == path == tmp_path / "step_000007"
    assert torch.equal(load_file(path / "policy" / "model.safetensors")["weight"], model.weight)
    fresh = torch.optim.Adam(model.parameters(), lr=0.9)
    assert repr(load_checkpoint(path, fresh)) == repr({"step": 7, "note": 7, **numbers})
    for one, other in zip(optimizer.state.values(), fresh.state.values(), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("step", "exp_avg", "exp_avg_sq"))
    assert fresh.param_groups[0]["lr"] == 0.1
    assert sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()) == list(FILES)


def test_the_newest_two_are_kept_and_nothing_else(tmp_path, trained):
    (tmp_path / "step_000009.tmp").mkdir()
    (tmp_path / "step_000003.trash").mkdir()
    for step in (1, 2, 10, 100):
        save(tmp_path, step, trained)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LATEST", "step_000010", "step_000100"]
    assert (tmp_path / "LATEST").read_text() == "step_000100\n"


def test_what_is_not_a_checkpoint_is_neither_read_nor_deleted(tmp_path, trained):
    files = ("step_notes.txt", "step_000008", "step_000007.tmp")
    directories = ("step_²", "step_٣٣٣٣٣٣", "step_12", "step_000009.old")
    for name in files:
        (tmp_path / name).write_text("mine")
    for name in directories:
        (tmp_path / name).mkdir()
    (tmp_path / "step_000000").symlink_to(tmp_path / "step_12")
    for step in (1, 2, 3):
        save(tmp_path, step, trained)
    kept = {"LATEST", "step_000000", "step_000002", "step_000003"}
    assert {path.name for path in tmp_path.iterdir()} == {*files, *directories, *kept}
    assert latest_checkpoint(tmp_path) == tmp_path / "step_000003"


def test_the_best_is_kept_beside_the_newest_two(tmp_path, trained):
    kept = []
    for step, value in enumerate([1.0, 5.0, 3.0, None, 2.0, 5.0, 4, 0.0], start=1):
        save(tmp_path, step, trained, value)
        kept.append(steps(tmp_path))
    assert kept == [[1], [1, 2], [2, 3], [2, 3, 4], [2, 4, 5], [2, 5, 6], [6, 7], [6, 7, 8]]
    assert json.loads((tmp_path / "METRICS.json").read_text()) == {"6": 5.0, "7": 4.0, "8": 0.0}
    assert best_checkpoint(tmp_path) == tmp_path / "step_000006"
    (tmp_path / "step_000006" / "state.json").unlink()
    with pytest.warns(UserWarning, match=r"step_000006 is damaged: 'state.json' is missing; using step_000007"):
        assert best_checkpoint(tmp_path) == tmp_path / "step_000007"


def test_the_best_is_the_one_whose_own_episodes_were_the_best(tmp_path):
    """What update 3 samples is worth what update 2 left, so that checkpoint 2 has the return of line 3."""
    config = TrainConfig(
        env_id="textenvs/Copy-v0",
        env_kwargs={"length": 2, "alphabet": "abcd", "dense": True},
        algorithm=Algorithm(episodes_per_update=16),
        model_kwargs={"hidden_size": 16, "num_heads": 2},
        num_episodes=64,
    )
    folder = train(config, tmp_path / "run", quiet=True) / "checkpoints"
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    returns = {step: json.loads(line)["return"] for step, line in enumerate(lines)}
    best = max((1, 2, 3), key=lambda step: (returns[step], step))
    assert best_checkpoint(folder) == folder / f"step_{best:06d}"
    noted = json.loads((folder / "METRICS.json").read_text())
    assert noted == {step: returns[int(step)] for step in noted}
    assert {"2", "3"} <= noted.keys() <= {"1", "2", "3"}


def test_of_what_nothing_is_noted_none_is_the_best(tmp_path, trained):
    save(tmp_path, 1, trained)
    assert best_checkpoint(tmp_path) is None
    note_metric(tmp_path, 2, 9.0)  # --checkpoint-every 3: there is no such checkpoint
    note_metric(tmp_path / "nowhere", 1, 9.0)
    assert not (tmp_path / "METRICS.json").exists()
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"value must be finite, got {value}; leave out"):
            note_metric(tmp_path, 1, value)
    for forged in ('{"1": "9"}', '{"1": true}', '{"1": 1e999}', '{"1": 9' + "9" * 400 + "}", "[1]", "", "[" * 100_000):
        (tmp_path / "METRICS.json").write_text(forged)
        assert best_checkpoint(tmp_path) is None
    note_metric(tmp_path, 1, 0.5)
    assert best_checkpoint(tmp_path) == tmp_path / "step_000001"


def test_a_metric_in_a_manifest_is_read_over(tmp_path, trained):
    """Earlier versions put one there, which was that of the weights before."""
    path = save(tmp_path, 1, trained)
    change_manifest(path, lambda manifest: manifest.update(metric=9.0))
    assert latest_checkpoint(tmp_path) == path
    assert best_checkpoint(tmp_path) is None


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_no_checkpoint(tmp_path, trained, number):
    """Whole as written: an update that diverged may have written them."""
    first = save(tmp_path, 1, trained)
    with torch.no_grad():
        trained[0].bias[1] = number
    second, problem = (
        save(tmp_path, 2, trained),
        "policy/model.safetensors must be finite, got NaN or infinity in 'bias'",
    )
    with pytest.warns(UserWarning, match=f"step_000002 is damaged: {problem}; using step_000001"):
        assert latest_checkpoint(tmp_path) == first
    shutil.rmtree(first)
    with pytest.raises(ValueError, match=f"must hold a whole one, got none in .*: step_000002 is damaged: {problem}"):
        latest_checkpoint(tmp_path)
    assert second.is_dir()


def test_weights_that_are_no_safetensors_are_named(tmp_path, trained):
    first, second = save(tmp_path, 1, trained), save(tmp_path, 2, trained)
    path = second / "policy" / "model.safetensors"
    path.write_bytes(b"\xff" * 100)
    entry = {"bytes": 100, "sha256": sha256(path.read_bytes()).hexdigest()}
    change_manifest(second, lambda manifest: manifest["files"].update({"policy/model.safetensors": entry}))
    with pytest.warns(UserWarning, match="policy/model.safetensors must be a safetensors file, got"):
        assert latest_checkpoint(tmp_path) == first


def test_the_newest_state_is_that_of_the_newest_that_can_be_read(tmp_path, trained):
    assert newest_state(tmp_path / "nowhere") == {}
    for step in (1, 2):
        save(tmp_path, step, trained, kl_coef=step / 4)
    assert newest_state(tmp_path)["kl_coef"] == 0.5
    (tmp_path / "step_000002" / "state.json").write_text("{")
    assert newest_state(tmp_path)["kl_coef"] == 0.25


def test_a_run_that_fell_back_keeps_what_it_writes(tmp_path, trained):
    """Newer, damaged checkpoints must not count among the newest two."""
    save(tmp_path, 1, trained, 9.0)
    for step in (5, 6):
        (save(tmp_path, step, trained, 1.0) / "state.json").unlink()
    for step in (2, 3):
        save(tmp_path, step, trained, 2.0)
    assert steps(tmp_path) == [1, 2, 3, 5, 6]
    with pytest.warns(UserWarning, match="is damaged"):
        assert latest_checkpoint(tmp_path) == tmp_path / "step_000003"


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_or_flipped_anywhere_is_named_and_the_checkpoint_before_used(tmp_path, trained, name):
    first, path = save(tmp_path, 1, trained), save(tmp_path, 2, trained) / name
    content = path.read_bytes()
    cut = [content[:size] for size in (0, 1, len(content) // 2, len(content) - 1)]
    places = {0, 1, 7, 8, 9, len(content) // 3, len(content) // 2, len(content) - 2, len(content) - 1}
    flipped = [content[:i] + bytes([content[i] ^ bit]) + content[i + 1 :] for i in places for bit in (1, 0x20, 0x80)]
    for damaged in (*cut, *flipped, content + b" ", content + content):
        path.write_bytes(damaged)
        named = "manifest.json" if "manifest" in name else name
        with pytest.warns(UserWarning, match=f"step_000002 is damaged: '?{named}.*; using step_000001"):
            assert latest_checkpoint(tmp_path) == first
    path.write_bytes(content)
    assert latest_checkpoint(tmp_path) == path.parents[name.count("/")]
    path.unlink()
    with pytest.warns(UserWarning, match=f"step_000002 is damaged: .*{name}"):
        assert latest_checkpoint(tmp_path) == first


def without(name):
    """Take one file out of a manifest."""
    return lambda manifest: manifest["files"].pop(name)


def without_policy(manifest):
    manifest["files"] = {name: entry for name, entry in manifest["files"].items() if "policy" not in name}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda manifest: manifest.pop("files"), "manifest.json must list state.json, optimizer.safetensors and a"),
        (lambda manifest: manifest.update(files=["state.json"]), "manifest.json must list"),
        (lambda manifest: manifest.update(files={}), "manifest.json must list"),
        (without("state.json"), "manifest.json must list"),
        (without("optimizer.safetensors"), "manifest.json must list"),
        (without_policy, "manifest.json must list .* a policy/"),
        (without("policy/value_head.safetensors"), "'policy/value_head.safetensors' is not in manifest.json"),
        (lambda manifest: manifest["files"].update({"../LATEST": {}}), "'../LATEST' is missing"),
        (lambda manifest: manifest["files"].update({"/etc/hostname": {}}), "'/etc/hostname' is missing"),
        (lambda manifest: manifest["files"].update({"policy/../state.json": {}}), "'policy/../state.json' is missing"),
        (lambda manifest: manifest["files"].update({"\x1b[2J": {}}), r"'\\x1b\[2J' is missing"),
        (lambda manifest: manifest["files"].update({"state.json": {}}), "state.json is not what"),
        (lambda manifest: manifest["files"].update({"state.json": "x"}), "state.json is not what"),
        (lambda manifest: manifest["files"]["state.json"].update(mode=7), "state.json is not what"),
        (lambda manifest: manifest["files"]["state.json"].update(bytes=7), "state.json is not what"),
        (lambda manifest: manifest.update(format=1), "manifest.json must have format 2 and manifest.sha256, got"),
        (lambda manifest: manifest.update(format=True), "manifest.json must have format 2 and manifest.sha256, got"),
    ],
)
def test_a_forged_manifest_reaches_nothing_and_is_named(tmp_path, trained, change, problem):
    first = save(tmp_path, 1, trained)
    change_manifest(save(tmp_path, 2, trained), change)
    with pytest.warns(UserWarning, match=f"step_000002 is damaged: {problem}"):
        assert latest_checkpoint(tmp_path) == first


@pytest.mark.parametrize("text", ["{", "[]", "2", "[" * 100_000, '{"format": ' + "9" * 5000 + "}"])
def test_a_manifest_that_is_no_json_object_is_named(tmp_path, trained, text):
    first, second = save(tmp_path, 1, trained), save(tmp_path, 2, trained)
    (second / "manifest.json").write_text(text)
    sign(second)
    with pytest.warns(UserWarning, match=r"step_000002 is damaged: manifest.json is missing or not a JSON object"):
        assert latest_checkpoint(tmp_path) == first


def test_links_devices_and_extra_files_are_refused(tmp_path, trained):
    first, second = save(tmp_path, 1, trained), save(tmp_path, 2, trained)
    shutil.copytree(second, tmp_path / "copy")

    def link(target):
        return lambda path: (path.unlink(), path.symlink_to(target))

    for name, damage, problem in (
        ("state.json", link(tmp_path / "copy" / "state.json"), "'state.json' must be a file .* got a link"),
        ("policy/link", lambda path: path.symlink_to("/"), "'link' must be a file .* got a link"),
        ("pipe", os.mkfifo, "'pipe' must be a file or directory, got a link or a device"),
        ("policy/extra.safetensors", lambda path: path.write_text(""), "'policy/extra.safetensors' is not in manifest"),
    ):
        damage(second / name)
        with pytest.warns(UserWarning, match=f"step_000002 is damaged: {problem}"):
            assert latest_checkpoint(tmp_path) == first
        shutil.rmtree(second)
        shutil.copytree(tmp_path / "copy", second)
    assert latest_checkpoint(tmp_path) == second


def test_an_unknown_format_is_refused_by_name(tmp_path, trained):
    save(tmp_path, 1, trained)
    change_manifest(save(tmp_path, 2, trained), lambda manifest: manifest.update(format=3))
    with pytest.raises(
        ValueError, match=r"format must be one of \(1, 2\), got 3 in .*step_000002.*; use the version of"
    ):
        latest_checkpoint(tmp_path)


def test_a_checkpoint_of_format_1_is_read_for_ever():
    """Written at commit aee5d9b: two updates of a one-layer GPT-2 of width 4 on Copy, length 2, letters abcd."""
    folder = FIXTURES / "checkpoint_format_1"
    path = latest_checkpoint(folder)
    assert path == folder / "step_000002"
    policy = LMPolicy.from_config(string_envs().metadata["textgen"], hidden_size=4, num_heads=1, num_layers=1, seed=9)
    policy.load(path / "policy")
    assert parameter_hash(policy) == "45c1e884a66f662a6fd3607d2451f762d6ae845cc2f9172236ed2187ab5e6c12"
    optimizer = torch.optim.Adam(policy.parameters())
    state = load_checkpoint(path, optimizer)
    assert (state["step"], state["sizes"]) == (2, {"metrics.jsonl": 1001, "samples.jsonl": 720})
    assert {entry["step"].item() for entry in optimizer.state.values()} == {2}
    assert optimizer.param_groups[0]["lr"] == 5e-4


def test_the_manifest_says_what_was_running(tmp_path, trained):
    (tmp_path / "config.json").write_text("{}\n")
    path = save(tmp_path / "checkpoints", 1, trained)
    manifest = json.loads((path / "manifest.json").read_text())
    assert sorted(manifest) == ["config_sha256", "environment", "files", "format"]
    assert manifest["config_sha256"] == sha256(b"{}\n").hexdigest()
    assert manifest["files"]["state.json"] == {
        "bytes": (path / "state.json").stat().st_size,
        "sha256": sha256((path / "state.json").read_bytes()).hexdigest(),
    }
    environment = manifest["environment"]
    assert environment["torch"] == torch.__version__
    assert (environment["threads"], environment["device"]) == (torch.get_num_threads(), "cpu")
    assert environment["python"] == ".".join(map(str, sys.version_info[:3]))
    if (Path(agents.checkpoint.__file__).parents[1] / ".git").exists() and shutil.which("git"):
        assert len(environment["git_commit"].removesuffix("-dirty")) == 40


def test_going_on_under_other_conditions_is_said(tmp_path, trained):
    path = save(tmp_path, 1, trained)
    change_manifest(path, lambda manifest: manifest["environment"].update(threads=64, git_commit="0" * 40, torch="1"))
    assert latest_checkpoint(tmp_path) == path
    now = f"torch 1, now {torch.__version__}; threads 64, now {torch.get_num_threads()}"
    with pytest.warns(UserWarning, match="step_000001 was written with") as caught:
        load_checkpoint(path, trained[1])
    assert str(caught[0].message) == f"step_000001 was written with {now}: the run goes on, but not bit for bit"


def test_checkpoints_that_are_all_damaged_are_refused(tmp_path, trained):
    for step in (1, 2):
        (save(tmp_path, step, trained) / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"step_000002 is damaged: manifest.json .*; restore it from a copy"):
        latest_checkpoint(tmp_path)


def test_without_a_checkpoint_there_is_none(tmp_path, trained):
    assert latest_checkpoint(tmp_path / "nowhere") is None
    assert best_checkpoint(tmp_path / "nowhere") is None
    save(tmp_path, 1, trained).rename(tmp_path / "step_000001.tmp")
    (tmp_path / "LATEST").unlink()
    assert latest_checkpoint(tmp_path) is None


def test_an_acknowledged_checkpoint_that_is_gone_is_missed(tmp_path, trained):
    first, second = save(tmp_path, 1, trained), save(tmp_path, 2, trained)
    shutil.rmtree(second)
    with pytest.warns(UserWarning, match="'step_000002' is missing, which LATEST names; using step_000001"):
        assert latest_checkpoint(tmp_path) == first
    (tmp_path / "LATEST").write_bytes(b"\xff\x1b[2J" * 1000)
    with pytest.warns(UserWarning, match=r"'\ufffd\\x1b\[2J.{,1000} is missing, which LATEST names"):
        assert latest_checkpoint(tmp_path) == first
    shutil.rmtree(first)
    with pytest.raises(ValueError, match=r"must hold a whole one, got none .* is missing, which LATEST names; restore"):
        latest_checkpoint(tmp_path)


def test_a_whole_checkpoint_that_latest_does_not_name_yet_is_used(tmp_path, trained):
    second = [save(tmp_path, step, trained) for step in (1, 2)][1]
    (tmp_path / "LATEST").write_text("step_000001\n")
    assert latest_checkpoint(tmp_path) == second


def test_parameter_hash_sees_every_bit(trained):
    model, _ = trained
    before = parameter_hash(model)
    assert parameter_hash(model) == before
    with torch.no_grad():
        model.bias[0] = torch.nextafter(model.bias[0], torch.tensor(9.0))
    assert parameter_hash(model) != before
