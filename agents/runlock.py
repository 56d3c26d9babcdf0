"""One writer a run directory: a lock that dies with its process."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_NAME = "lock"  # in the run directory, while a process writes there
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def run_lock(run_dir: Path, name: str = "run_dir") -> Iterator[None]:
    """Hold run_dir / "lock" while its body runs, so that no second process writes into the run.

    The lock is the kernel's (flock): it ends with the process that holds it, also after kill -9 or a power cut, so a
    lock file left behind is taken over at once, and a process id used again deceives nobody. What stands in the file,
    {"pid", "boot_id"}, is for the message.

    Args:
        run_dir: made when absent.
        name: what the directory is called where it was asked for.

    Raises:
        ValueError: when run_dir is a file, or while another process holds the lock: names its id.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise ValueError(f"{name} must be a directory, got {run_dir}, which is a file; name another")
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / LOCK_NAME
    descriptor = _take(path, name)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "boot_id": _boot_id()}).encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock ends: afterwards the name may be another process's
        os.close(descriptor)


def _take(path: Path, name: str) -> int:
    """Return a descriptor of the locked file that has the name."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A holder that ended between the two calls took the name with it: what is locked then protects nothing.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
        except BlockingIOError:
            holder = _holder(os.pread(descriptor, 1000, 0))
            os.close(descriptor)
            raise ValueError(
                f"{name} must have one writer, got {path.parent}, which {holder} is writing; "
                f"wait until it ends, stop it or name another {name}"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _holder(text: bytes) -> str:
    """Name the process that a lock file is about."""
    try:
        owner = json.loads(text)
        process = f"process {int(owner['pid'])}"
        return process if owner["boot_id"] == _boot_id() else f"{process} of another machine"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _boot_id() -> str | None:
    return _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.is_file() else None
