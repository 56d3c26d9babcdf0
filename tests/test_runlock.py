"""One writer a run: the lock names its holder, dies with it, and a file left behind locks nothing."""

import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest

import agents.runlock
from agents.runlock import LOCK_NAME, run_lock

HOLD = """
import sys
from pathlib import Path
from agents.runlock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_lock_names_its_process_and_goes_with_it(tmp_path):
    run_dir = tmp_path / "new" / "run"
    with run_lock(run_dir):
        owner = json.loads((run_dir / LOCK_NAME).read_text())
        assert owner["pid"] == os.getpid()
        message = f"run_dir must have one writer, got {run_dir}, which process {os.getpid()} is writing; wait"
        for _ in range(2):
            with pytest.raises(ValueError, match=message), run_lock(run_dir):
                pass
    assert list(run_dir.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), run_lock(run_dir):
        raise KeyboardInterrupt
    with run_lock(run_dir):
        pass


def test_another_process_is_named_and_its_death_frees_the_run(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"which process {child.pid} is writing"), run_lock(tmp_path):
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert (tmp_path / LOCK_NAME).exists()
    with run_lock(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize(
    "left",
    ['{"pid": %d, "boot_id": "%s"}', '{"pid": 1, "boot_id": "another"}', '{"pid": 4194304}', "", "{", "é" * 9999],
)
def test_a_file_left_behind_is_taken_over(tmp_path, left):
    """Of a dead process, of one whose id is used again, of another boot, or unreadable."""
    if "%d" in left:
        left %= (os.getppid(), agents.runlock._boot_id())
    (tmp_path / LOCK_NAME).write_text(left)
    with run_lock(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK_NAME).exists()


@pytest.mark.parametrize(
    ("text", "holder"),
    [
        ('{"pid": 7, "boot_id": "another"}', "process 7 of another machine"),
        ('{"pid": "\x1b[2J", "boot_id": null}', "another process"),
        ("[]", "another process"),
        ("", "another process"),
    ],
)
def test_a_holder_that_is_far_or_unknown_is_called_so(tmp_path, text, holder):
    with run_lock(tmp_path):
        (tmp_path / LOCK_NAME).write_text(text)
        with pytest.raises(ValueError, match=f"which {holder} is writing"), run_lock(tmp_path):
            pass


def test_a_holder_that_ends_just_then_leaves_no_lock_on_nothing(tmp_path, monkeypatch):
    """Between opening the file and locking it, its holder may unlink it: another process would lock a new one."""
    path, real, calls = tmp_path / LOCK_NAME, fcntl.flock, []

    def flock(descriptor, operation):
        calls.append(1)
        if len(calls) <= 2:
            path.unlink()
        if len(calls) == 2:
            path.write_text("")
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with run_lock(tmp_path):
        assert len(calls) == 3
        with pytest.raises(ValueError, match="must have one writer"), run_lock(tmp_path):
            pass


def test_a_run_dir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(ValueError, match=r"run_dir must be a directory, got .*file; name another"),
        run_lock(tmp_path / "file"),
    ):
        pass
    (tmp_path / LOCK_NAME).symlink_to(tmp_path / "file")
    with pytest.raises(OSError, match="symbolic links"), run_lock(tmp_path):
        pass
    assert (tmp_path / "file").read_text() == "mine"
