"""Checkpoints outlive what goes wrong: the order of fsync and rename, kills, full and failing disks."""

import errno
import os
import resource
import shutil
import signal
import warnings
from pathlib import Path

import pytest
import saved
from saved import linear_and_adam, save

import agents.checkpoint
from agents.checkpoint import latest_checkpoint, write_directory, write_file
from agents.manifest import verify

FILES = (
    "manifest.json", "manifest.sha256", "model.safetensors", "optimizer.safetensors", "state.json",
    "value_head.safetensors",
)  # fmt: skip


@pytest.fixture
def trained():
    return linear_and_adam()


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


def test_files_then_directories_then_rename_then_parent_then_latest(tmp_path, trained, monkeypatch):
    """What a power cut needs: nothing is renamed before it is on disk. fsync is recorded, not trusted."""
    events = []
    real_rename, real_open, names = os.rename, os.open, {}

    def record_open(path, *args, **kwargs):
        descriptor = real_open(path, *args, **kwargs)
        names[descriptor] = os.path.basename(path)
        return descriptor

    def record_rename(source, target, **kwargs):
        events.append(f"rename {os.path.basename(source)} {os.path.basename(target)}")
        real_rename(source, target, **kwargs)

    monkeypatch.setattr(os, "open", record_open)
    monkeypatch.setattr(os, "fsync", lambda descriptor: events.append(names[descriptor]))
    monkeypatch.setattr(os, "rename", record_rename)
    save(tmp_path / "checkpoints", 1, trained)
    assert events[0] == tmp_path.name  # which has the new entry "checkpoints"
    assert sorted(events[1:7]) == list(FILES)
    assert events[7:] == [
        "policy", "step_000001.tmp", "rename step_000001.tmp step_000001", "checkpoints",
        "LATEST.tmp", "rename LATEST.tmp LATEST", "checkpoints",
    ]  # fmt: skip


class Fault:
    """Counts the operations that write; the chosen one is done by half, then fails."""

    def __init__(self, monkeypatch, at, fail):
        self.count, self.at, self.fail = 0, at, fail
        owners = [(os, name) for name in ("mkdir", "open", "fsync", "rename", "unlink", "rmdir")]
        for owner, name in (
            *owners,
            (Path, "write_text"),
            (agents.checkpoint, "save_file"),
            (saved, "save_file"),
        ):
            monkeypatch.setattr(owner, name, self.wrap(name, getattr(owner, name)))

    def wrap(self, name, real):
        def call(*args, **kwargs):
            self.count += 1
            if self.count == self.at:
                if name in ("write_text", "save_file"):
                    real(*args, **kwargs)
                    path = args[0] if name == "write_text" else args[1]
                    os.truncate(path, path.stat().st_size // 2)
                self.fail()
            return real(*args, **kwargs)

        return call


@pytest.fixture
def two_saved(tmp_path, trained, monkeypatch):
    """Makes run after run with two checkpoints, and how many operations the third save is, which deletes the first.

    Nothing waits for the disk: a kill loses nothing that was written.
    """
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    for step in (1, 2):
        save(tmp_path / "two", step, trained)

    def copies(name):
        while True:
            yield shutil.copytree(tmp_path / "two", tmp_path / name)
            shutil.rmtree(tmp_path / name)

    folder = next(copies("count"))
    with pytest.MonkeyPatch.context() as patch:
        fault = Fault(patch, None, None)
        save(folder, 3, trained)
    assert fault.count > 40
    return copies("run"), fault.count


def see_that_it_goes_on(folder, trained):
    """After a third save that failed: nothing acknowledged is lost, nothing is half there, the next save works."""
    found, acknowledged = latest_checkpoint(folder), (folder / "LATEST").read_text().strip()
    assert found.name in (("step_000002", "step_000003") if acknowledged == "step_000002" else ("step_000003",))
    for path in folder.glob("step_??????"):
        verify(path)
    for step in (3, 4):
        save(folder, step, trained)
    assert sorted(path.name for path in folder.iterdir() if path.name != "LATEST.tmp") == [
        "LATEST",
        "step_000003",
        "step_000004",
    ]
    return found.name


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_write_is_named_and_costs_nothing(two_saved, trained, number):
    def fail():
        raise OSError(number, os.strerror(number))

    folders, total = two_saved
    found = []
    for at, folder in zip(range(1, total + 1), folders, strict=False):
        with pytest.MonkeyPatch.context() as patch:
            Fault(patch, at, fail)
            with pytest.raises(OSError, match=os.strerror(number)) as caught:
                save(folder, 3, trained)
        found.append(see_that_it_goes_on(folder, trained))
        deleting = "Errno" in str(caught.value).split(" ")[0]
        assert deleting or "step_000003 must be written whole, got" in str(caught.value)
        assert not deleting or found[-1] == "step_000003"
    assert found == sorted(found)
    assert set(found) == {"step_000002", "step_000003"}


def test_a_kill_at_any_operation_loses_no_acknowledged_checkpoint(two_saved, trained):
    """A child process is killed with SIGKILL at each operation of a save, half-written files included."""
    folders, total = two_saved
    found = []
    for at, folder in zip(range(1, total + 1), folders, strict=False):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on, of threads that only wait
            child = os.fork()
        if not child:
            with pytest.MonkeyPatch.context() as patch:
                Fault(patch, at, lambda: os.kill(os.getpid(), signal.SIGKILL))
                save(folder, 3, trained)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        found.append(see_that_it_goes_on(folder, trained))
    assert found == sorted(found)
    assert set(found) == {"step_000002", "step_000003"}


def test_a_real_write_that_fails_is_named(tmp_path, trained):
    """The kernel refuses to let files grow (EFBIG), at sizes that hit one file after the other."""
    first = save(tmp_path, 1, trained)
    before, messages = resource.getrlimit(resource.RLIMIT_FSIZE), []
    for size in (0, 100, 250, 400, 700):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
            with pytest.raises(
                OSError, match=r"step_000002 must be written whole, got .*File too large.*resume"
            ) as caught:
                save(tmp_path, 2, trained)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        messages.append(type(caught.value.__cause__).__name__)
        assert latest_checkpoint(tmp_path) == first
        assert sorted(path.name for path in tmp_path.iterdir()) == ["LATEST", "step_000001"]
    assert set(messages) == {"SafetensorError", "OSError"}


def test_a_disk_too_full_is_refused_before_anything_is_written(tmp_path, trained, monkeypatch):
    """8 parameters, two moments of each and two counters, 4 bytes each, and 1 MiB."""
    first = save(tmp_path, 1, trained)
    needed = 4 * (8 + 2 * 8 + 2) + 2**20
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, needed - 1))
    with pytest.raises(
        OSError, match="must have 1,048,680 bytes free for a checkpoint, got 1,048,679; delete"
    ) as caught:
        save(tmp_path, 2, trained)
    assert caught.value.errno == errno.ENOSPC
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LATEST", "step_000001"]
    assert latest_checkpoint(tmp_path) == first
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, needed))
    save(tmp_path, 2, trained)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "notes"
    write_file(path, "old")

    def fail(descriptor):
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no"):
        write_file(path, "new")
    assert path.read_text() == "old"
