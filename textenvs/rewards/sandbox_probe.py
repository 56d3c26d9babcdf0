"""Whether a sandbox holds, found out by attacking it: a binary that exists proves nothing."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from textenvs.rewards.sandbox_base import Job, Limits, Outcome, SandboxUnavailable

Runner = Callable[[Job, Limits], Outcome]

_HONEST = "def attack(target):\n    return [target, 1 + 2]\n"
#: Each returns True when it succeeded; anything else is a denial.
ATTACKS = {
    "read a file of the host": """
def attack(target):
    return bool(open(target).read())
""",
    "write a file of the host": """
def attack(target):
    with open(target, "w") as file:
        return file.write("attacked") > 0
""",
    "read the host's environment": """
import os
def attack(names):
    texts = [" ".join(os.environ)]
    for process in (1, os.getpid(), os.getppid()):
        try:
            texts.append(open(f"/proc/{process}/environ").read())
        except OSError:
            pass
    return any(name in text for name in names for text in texts)
""",
    "connect by tcp": """
import socket
def attack(port):
    socket.create_connection(("127.0.0.1", port), 1).close()
    return True
""",
    "send by udp": """
import socket
def attack(port):
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"attacked", ("127.0.0.1", port)) > 0
""",
    "start processes without end": """
import os
def attack(limit):
    for started in range(limit):
        if os.fork() == 0:
            import time
            time.sleep(60)
    return True
""",
    "take more memory than allowed": """
def attack(num_bytes):
    return len(bytearray(num_bytes)) == num_bytes
""",
    "trace a process": """
import ctypes
def attack(request):
    return ctypes.CDLL(None).ptrace(request, 0, 0, 0) == 0
""",
}
#: What the sandbox itself sets, and so may be seen there.
_OWN_VARIABLES = {"PWD", "LC_CTYPE", "PYTHONHASHSEED"}


def probe(run: Runner, map_jobs: Callable[[Runner, list[Job], Limits], list[Outcome]]) -> None:
    """Run an honest program, which must work, and eight attacks, which must be denied.

    Raises:
        SandboxUnavailable: names what did not work, or which attack did.
    """
    limits = Limits(seconds=10.0)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="textenvs-probe-")))
        directory.chmod(0o755)
        victim = directory / "victim"
        victim.write_text("untouched", encoding="utf-8")
        victim.chmod(0o666)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        tcp.setblocking(False)
        udp.setblocking(False)
        names = sorted(name for name in set(os.environ) - _OWN_VARIABLES if len(name) > 3)
        targets = [str(victim), str(victim), names, tcp.getsockname()[1], udp.getsockname()[1], 64]
        targets += [limits.memory_mb << 21, 0]
        jobs = [Job(_HONEST, "attack", ([7],))]
        jobs += [Job(code, "attack", ([target],)) for code, target in zip(ATTACKS.values(), targets, strict=True)]
        honest, *attacks = map_jobs(run, jobs, limits)
        if honest.results != ({"value": [7, 3]},):
            raise SandboxUnavailable(f"an honest program did not run ({honest.detail})")
        allowed = [name for name, outcome in zip(ATTACKS, attacks, strict=True) if {"value": True} in outcome.results]
        if victim.read_text(encoding="utf-8") != "untouched":
            allowed.append("write a file of the host")
        for name, receive in (
            ("connect by tcp", lambda: tcp.accept()[0].close()),
            ("send by udp", lambda: udp.recv(64)),
        ):
            try:
                receive()
            except BlockingIOError:
                continue
            allowed.append(name)
    if allowed:
        raise SandboxUnavailable(f"it did not stop an attack: {', '.join(sorted(set(allowed)))}")
