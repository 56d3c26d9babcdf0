"""Checkpoints: exact, written in the safe order, and never read when a byte is wrong."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from agents.checkpoint import latest_checkpoint, load_checkpoint, parameter_hash, save_checkpoint, write_directory


@pytest.fixture
def trained():
    """A model and an optimizer that has state."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(3):
        model(torch.ones(3)).sum().backward()
        optimizer.step()
    return model, optimizer


def save(folder, step, trained):
    model, optimizer = trained

    def write_policy(path):
        path.mkdir()
        save_file(model.state_dict(), path / "model.safetensors")
        save_file({"weight": torch.ones(1)}, path / "value_head.safetensors")

    return save_checkpoint(folder, step, write_policy=write_policy, optimizer=optimizer, state={"note": step})


def test_optimizer_and_state_come_back_exactly(tmp_path, trained):
    model, optimizer = trained
    path = save(tmp_path, 7, trained)
    assert latest_checkpoint(tmp_path) == path == tmp_path / "step_000007"
    fresh = torch.optim.Adam(model.parameters(), lr=0.9)
    assert load_checkpoint(path, fresh) == {"step": 7, "note": 7}
    for one, other in zip(optimizer.state.values(), fresh.state.values(), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("step", "exp_avg", "exp_avg_sq"))
    assert fresh.param_groups[0]["lr"] == 0.1
    assert {file.suffix for file in path.rglob("*") if file.is_file()} == {".json", ".safetensors"}


def test_the_newest_two_are_kept_and_nothing_else(tmp_path, trained):
    (tmp_path / "step_000009.tmp").mkdir()
    (tmp_path / "step_000003.trash").mkdir()
    for step in (1, 2, 10, 100):
        save(tmp_path, step, trained)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000010", "step_000100"]


def test_what_is_not_a_checkpoint_is_neither_read_nor_deleted(tmp_path, trained):
    files = ("step_notes.txt", "step_000008", "step_000007.tmp")
    directories = ("step_²", "step_٣٣٣٣٣٣", "step_12", "step_000009.old")
    for name in files:
        (tmp_path / name).write_text("mine")
    for name in directories:
        (tmp_path / name).mkdir()
    for step in (1, 2, 3):
        save(tmp_path, step, trained)
    assert {path.name for path in tmp_path.iterdir()} == {*files, *directories, "step_000002", "step_000003"}
    assert latest_checkpoint(tmp_path) == tmp_path / "step_000003"


def without(name):
    """Take one file out of a manifest, as if it had never been written."""

    def damage(path):
        manifest = json.loads(path.read_text())
        del manifest["files"][name]
        path.write_text(json.dumps(manifest))

    return damage


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("policy/model.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-1])),
        ("optimizer.safetensors", lambda path: path.unlink()),
        ("state.json", lambda path: path.write_text(path.read_text().replace("2", "3"))),
        ("manifest.json", lambda path: path.write_text("{")),
        ("manifest.json", lambda path: path.write_text("[" * 100_000)),
        ("manifest.json", lambda path: path.write_text(json.dumps({"format": 99, "files": {}}))),
        ("manifest.json", lambda path: path.write_text(json.dumps({"format": 1}))),
        ("manifest.json", lambda path: path.write_text(json.dumps({"format": 1, "files": ["state.json"]}))),
        ("manifest.json", lambda path: path.write_text(json.dumps({"format": 1, "files": {}}))),
        ("manifest.json", without("state.json")),
        ("manifest.json", without("optimizer.safetensors")),
        ("manifest.json", without("policy/model.safetensors")),
        ("manifest.json", without("policy/value_head.safetensors")),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(tmp_path, trained, name, damage):
    first = save(tmp_path, 1, trained)
    damage(save(tmp_path, 2, trained) / name)
    with pytest.warns(UserWarning, match=f"step_000002 is damaged: {name}.*; using the one before it"):
        assert latest_checkpoint(tmp_path) == first


def test_checkpoints_that_are_all_damaged_are_refused(tmp_path, trained):
    for step in (1, 2):
        (save(tmp_path, step, trained) / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"step_000002 is damaged: manifest.json .*; restore it from a copy"):
        latest_checkpoint(tmp_path)


def test_without_a_checkpoint_there_is_none(tmp_path, trained):
    assert latest_checkpoint(tmp_path / "nowhere") is None
    path = save(tmp_path, 1, trained)
    path.rename(tmp_path / "step_000001.tmp")
    assert latest_checkpoint(tmp_path) is None


def test_a_writer_that_is_stopped_leaves_what_was_there(tmp_path):
    def write(path):
        (path / "new").write_text("half")
        raise KeyboardInterrupt

    for there in ([], ["old"]):
        with pytest.raises(KeyboardInterrupt):
            write_directory(tmp_path / "final", write)
        assert [path.name for path in (tmp_path / "final").glob("*")] == there
        write_directory(tmp_path / "final", lambda path: (path / "old").write_text("whole"))
    assert [path.name for path in tmp_path.rglob("*")] == ["final", "old"]


def test_files_then_directories_then_rename_then_parent(tmp_path, trained, monkeypatch):
    """What a power cut needs: nothing is renamed before it is on disk. fsync is recorded, not trusted."""
    events = []
    real_rename, real_open, names = type(tmp_path).rename, os.open, {}

    def record_open(path, *args, **kwargs):
        descriptor = real_open(path, *args, **kwargs)
        names[descriptor] = os.path.basename(path).split(".tmp")[0]
        return descriptor

    def record_rename(self, target):
        events.append("rename")
        return real_rename(self, target)

    monkeypatch.setattr(os, "open", record_open)
    monkeypatch.setattr(os, "fsync", lambda descriptor: events.append(names[descriptor]))
    monkeypatch.setattr(type(tmp_path), "rename", record_rename)
    save(tmp_path / "checkpoints", 1, trained)
    files = ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json", "value_head.safetensors"]
    assert sorted(events[:5]) == files
    assert events[5:] == ["policy", "step_000001", "rename", "checkpoints"]


def test_parameter_hash_sees_every_bit(trained):
    model, _ = trained
    before = parameter_hash(model)
    assert parameter_hash(model) == before
    with torch.no_grad():
        model.bias[0] = torch.nextafter(model.bias[0], torch.tensor(9.0))
    assert parameter_hash(model) != before
