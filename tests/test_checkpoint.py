"""Checkpoints: exact, written in the safe order, and never read when a byte is wrong."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from agents.checkpoint import latest_checkpoint, load_checkpoint, parameter_hash, save_checkpoint


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
    (tmp_path / "step_000009.tmp-77").mkdir()
    (tmp_path / "step_000003.trash").mkdir()
    for step in (1, 2, 10, 100):
        save(tmp_path, step, trained)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000010", "step_000100"]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("policy/model.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-1])),
        ("optimizer.safetensors", lambda path: path.unlink()),
        ("state.json", lambda path: path.write_text(path.read_text().replace("2", "3"))),
        ("manifest.json", lambda path: path.write_text("{")),
        ("manifest.json", lambda path: path.write_text(json.dumps({"format": 99, "files": {}}))),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(tmp_path, trained, name, damage):
    first = save(tmp_path, 1, trained)
    damage(save(tmp_path, 2, trained) / name)
    with pytest.warns(UserWarning, match=f"step_000002 is damaged: {name}.*; using the one before it"):
        assert latest_checkpoint(tmp_path) == first


def test_without_a_whole_checkpoint_there_is_none(tmp_path, trained):
    assert latest_checkpoint(tmp_path / "nowhere") is None
    path = save(tmp_path, 1, trained)
    path.rename(tmp_path / "step_000001.tmp-99")
    assert latest_checkpoint(tmp_path) is None


def test_files_then_manifest_then_directory_then_rename_then_parent(tmp_path, trained, monkeypatch):
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
    assert sorted(events[:3]) == ["model.safetensors", "optimizer.safetensors", "state.json"]
    assert events[3:] == ["manifest.json", "policy", "step_000001", "rename", "checkpoints"]


def test_parameter_hash_sees_every_bit(trained):
    model, _ = trained
    before = parameter_hash(model)
    assert parameter_hash(model) == before
    with torch.no_grad():
        model.bias[0] = torch.nextafter(model.bias[0], torch.tensor(9.0))
    assert parameter_hash(model) != before
