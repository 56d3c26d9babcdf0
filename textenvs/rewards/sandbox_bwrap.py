"""Tier A: one fresh bubblewrap container a program, with a system-call filter, limits and a host uid that is not root.

What holds what (each is attacked in `tests/hostile_programs.py`):

- files: a read-only root with the interpreter, its libraries, /dev/null and an empty /tmp; no /proc, no /etc, nothing
  of the host's home, /tmp or working directory. Nothing can be written, because even names without content take kernel
  memory, which no limit of an ordinary user bounds
- network: an empty network namespace, and no system call that opens a socket
- processes: no system call that makes one; a pid namespace that dies as a whole with bwrap, and bwrap with us
- secrets: bwrap itself starts with an empty environment, and no process of it is left inside (--as-pid-1)
- memory: RLIMIT_AS for the only process; page tables come on top, at most twice that
- crashes: RLIMIT_CORE is 1, the one value at which the kernel starts no handler of core dumps (fs/coredump.c)
- time: the wall clock, here in the parent
- uid: root drops to nobody first, since neither RLIMIT_NPROC nor file permissions mean anything to root
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from textenvs.rewards.sandbox_base import MAX_ANSWER_BYTES, Job, Limits, Outcome, SandboxUnavailable, read_answer
from textenvs.rewards.sandbox_seccomp import compiled_filter

NAME = "bubblewrap"
#: The child's first byte, before the program starts. Without it the sandbox failed, whatever the program is.
READY = b"\x06"
#: Starting takes 50 ms; a machine that needs longer than this is broken, and not the program.
START_SECONDS = 20.0
NOBODY = 65534
_CHILD = Path(__file__).parent.parent / "assets" / "sandbox" / "child.py.txt"


def run(job: Job, limits: Limits) -> Outcome:
    """Run one program; when this returns, nothing of it is alive.

    Raises:
        SandboxUnavailable: bubblewrap, libseccomp or a Python to run inside is missing.
    """
    request = json.dumps({"program": job.program, "entry_point": job.entry_point, "inputs": job.inputs}).encode()
    stdin, seccomp = _sealed(request), _sealed(_filter())
    try:
        process = subprocess.Popen(
            _command(limits.memory_mb << 20, seccomp),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={},
            pass_fds=(seccomp,),
            start_new_session=True,  # no terminal to type into, and Ctrl-C is for us alone
        )
    except OSError as error:
        return Outcome("infra_fault", detail=f"bwrap did not start: {error}")
    finally:
        os.close(stdin)
        os.close(seccomp)
    with process:
        try:
            return _watch(process, len(job.inputs), limits.seconds)
        finally:
            _kill(process)


def _watch(process: subprocess.Popen[bytes], num_cases: int, seconds: float) -> Outcome:
    """Read until the answer's newline, the end, a flood or the time limit; then kill what is left, and judge."""
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    said, end, deadline = bytearray(), "time", time.monotonic() + START_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        if not poll.poll(left * 1000):
            continue
        chunk = os.read(pipe, 1 << 16)
        if not chunk:
            end = "closed"
            break
        if not said and chunk[:1] == READY:
            deadline = time.monotonic() + seconds
        said += chunk
        if b"\n" in chunk and said[:1] == READY:
            end = "answer"
            break
        if len(said) > MAX_ANSWER_BYTES:
            end = "flood"
            break
    if end != "closed":
        _kill(process)
        if not _drained(pipe, poll):
            return Outcome("infra_fault", detail="the sandbox could not be killed")
    code = process.wait()
    if said[:1] != READY:
        return Outcome("infra_fault", detail=f"the sandbox did not start ({code}): {bytes(said[:500])!r}")
    if end == "answer":
        line, _, rest = bytes(said[1:]).partition(b"\n")
        return Outcome("model_fault", detail="more than an answer") if rest else read_answer(line, num_cases)
    if end == "closed" and code < 0:  # no program can reach the outer bwrap
        return Outcome("infra_fault", detail=f"the sandbox was killed from outside, by signal {-code}")
    details = {
        "time": f"no answer within {seconds:g} s",
        "flood": f"more than {MAX_ANSWER_BYTES:,} bytes of answer",
        "closed": f"the program ended without an answer, exit status {code}",
    }
    return Outcome("model_fault", detail=details[end])


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill bwrap and what it started: one process group, which no program can leave; and each dies with its parent."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _drained(pipe: int, poll: select.poll) -> bool:
    """Wait for the end of the pipe: every process of the namespace holds it, so its end is theirs."""
    deadline = time.monotonic() + START_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        if poll.poll(left * 1000) and not os.read(pipe, 1 << 20):
            return True
    return False


def _sealed(data: bytes) -> int:
    """A descriptor that reads `data` from its beginning, and that nobody can write to."""
    fd = os.memfd_create("textenvs", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return fd


def _filter() -> bytes:
    try:
        return compiled_filter()
    except ImportError:
        raise SandboxUnavailable('pyseccomp is missing; pip install "textenvs[sandbox]"') from None
    except (RuntimeError, OSError) as error:
        raise SandboxUnavailable(f"libseccomp is unusable ({error}); apt-get install libseccomp2") from None


def _command(memory_bytes: int, seccomp: int) -> list[str]:
    before, after = _static_command()
    return [*_prepared(), *before, "--seccomp", str(seccomp), *after, str(memory_bytes)]


def _prepared() -> list[str]:
    """What limits core dumps, and lets root become nobody. `Popen` could, but forks: 15 ms in a process with torch."""
    prlimit, setpriv = shutil.which("prlimit"), shutil.which("setpriv")
    if prlimit is None or setpriv is None:
        raise SandboxUnavailable("prlimit or setpriv is missing; apt-get install util-linux")
    root = os.geteuid() == 0
    core = 1 if root or resource.getrlimit(resource.RLIMIT_CORE)[1] != 0 else 0  # 0 cannot be raised
    become = [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"] if root else []
    return [prlimit, f"--core={core}:{core}", "--", *become]


@cache
def _static_command() -> tuple[list[str], list[str]]:
    bwrap = shutil.which("bwrap")
    if bwrap is None or platform.system() != "Linux":
        raise SandboxUnavailable("bwrap is missing; apt-get install bubblewrap (Linux only)")
    mounts, python = _interpreter()
    arguments = [
        *(bwrap, "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent"),
        *("--as-pid-1", "--cap-drop", "ALL", "--hostname", "sandbox"),
        *("--dev-bind", "/dev/null", "/dev/null", "--dir", "/tmp"),
        *mounts,
        *("--remount-ro", "/", "--chdir", "/tmp", "--clearenv", "--setenv", "PYTHONHASHSEED", "0"),
    ]
    source = _CHILD.read_text(encoding="utf-8")
    return arguments, ["--", python, "-s", "-S", "-P", "-B", "-X", "utf8", "-c", source]


def _interpreter(system: Path = Path("/usr/bin/python3")) -> tuple[list[str], str]:
    """Mounts that hold a Python and nothing else of the host, and its path inside.

    The system's own, when it is 3.11 or newer: then no more than /usr/lib is shown. Otherwise the running one, of whose
    prefix (which may be a home directory) only the executable and the library are shown. Root's own (as pyenv's below
    /root) is none that nobody may read, and then the probe says that an honest program did not run.
    """
    mounts: list[str] = []
    for directory in ("lib", "lib64", "lib32"):
        top, usr = Path("/", directory), Path("/usr", directory)
        if usr.is_dir():
            mounts += ["--ro-bind", str(usr), str(usr)]
        if top.is_symlink():
            mounts += ["--symlink", os.readlink(top), str(top)]
        elif top.is_dir():
            mounts += ["--ro-bind", str(top), str(top)]
    system = system.resolve()
    version = re.fullmatch(r"python3\.(\d+)", system.name)
    if version and int(version[1]) >= 11 and system.is_file():
        return [*mounts, "--ro-bind", str(system), "/usr/bin/python3"], "/usr/bin/python3"
    executable, library = Path(sys.executable).resolve(), str(Path(os.__file__).parent)
    mounts += ["--ro-bind", str(executable), str(executable), "--ro-bind", library, library]
    for shared in Path(sys.base_prefix, "lib").glob("libpython*.so*"):
        mounts += ["--ro-bind", str(shared), str(shared)]
    return mounts, str(executable)
