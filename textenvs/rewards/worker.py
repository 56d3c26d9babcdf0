"""A process that is killed when its time is up: for checkers whose libraries can be made to run for ever.

Signals interrupt the main thread only, and C code not at all, so the limit is kept from outside: it holds in any
thread, in asyncio and after a fork. What runs inside is `textenvs.rewards.child`.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

CHILD = Path(__file__).with_name("child.py")
#: A process that is not ready by then will never be; a quiet machine takes 0.1 to 1 s.
START_SECONDS = 60.0
#: Items that are sent before the first reply: fewer turns between two processes, and none waits for another's limit.
WINDOW = 64
#: Idle processes that are kept for the next call; more exist only while more threads ask at once.
MAX_IDLE = 2
#: A process that got less than this share of its time on a processor was stopped or starved: nobody judged the item.
STARVED_SHARE = 0.1


@dataclass(frozen=True)
class Verdict:
    """What came of one item.

    Attributes:
        status: one of `textenvs.rewards.base.STATUSES`, or "refused" when the task itself is at fault.
        value: what the judge said; None unless the status is "ok".
        detail: why, unless the status is "ok".
    """

    status: str
    value: Any = None
    detail: str = ""


class _Gone(Exception):
    """The process ended by itself."""


class _Process:
    """One child, started and ready.

    Raises:
        OSError: it does not start.
    """

    def __init__(self, kind: str, limit_seconds: float, max_memory: int) -> None:
        command = [sys.executable, "-P", "-s", "-B", str(CHILD), kind, str(limit_seconds), str(max_memory)]
        # A clean environment: no secrets, no user settings; the parent's module path, and a fixed hash seed.
        environment = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "0"}
        environment |= {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        self.child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the parent
        )
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self._in, self._out = self.child.stdin.fileno(), self.child.stdout.fileno()
        os.set_blocking(self._in, False)
        try:
            (ready,) = self._exchange(b"", 1, START_SECONDS)
            self._cpu: float = json.loads(ready)["cpu"]
        except (_Gone, TimeoutError) as error:
            self.kill()
            raise OSError(f"the {kind} checker does not start ({type(error).__name__})") from None
        except BaseException:
            self.kill()
            raise

    def ask(self, items: Sequence[Sequence[Any]], seconds: float) -> Iterator[dict[str, Any]]:
        """The replies to some items, as they come; each may take so many seconds.

        Raises:
            TimeoutError: the next one does not come in time.
            _Gone: the process ended.
        """
        request = b"".join(json.dumps(item).encode() + b"\n" for item in items)
        for line in self._exchange(request, len(items), seconds):
            reply: dict[str, Any] = json.loads(line)
            self._cpu = reply["cpu"]
            yield reply

    def _exchange(self, request: bytes, num_replies: int, seconds: float) -> Iterator[bytes]:
        """Lines that come back, while the request is being written."""
        received = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            if request:
                selector.register(self._in, selectors.EVENT_WRITE)
            deadline = time.monotonic() + seconds
            while num_replies:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise TimeoutError
                for key, _ in ready:
                    if key.fd == self._in:
                        request = self._written(request)
                        if not request:
                            selector.unregister(self._in)
                        continue
                    chunk = os.read(self._out, 1 << 16)
                    if not chunk:
                        raise _Gone
                    received += chunk
                *lines, received = received.split(b"\n")
                for line in lines:
                    yield bytes(line)
                if lines:
                    num_replies -= len(lines)
                    deadline = time.monotonic() + seconds

    def _written(self, request: bytes) -> bytes:
        """What is still to be written."""
        try:
            return request[os.write(self._in, request[: 1 << 16]) :]
        except BrokenPipeError:
            raise _Gone from None

    def starved(self, seconds: float) -> bool:
        """Whether it got almost no processor time since its last reply, these seconds ago."""
        return self.cpu_seconds() - self._cpu < STARVED_SHARE * seconds

    def cpu_seconds(self) -> float:
        """Processor time used since the start; 0 when it is gone."""
        try:
            fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))

    def kill(self) -> int:
        """End it, leave no zombie; the return code, negative for a signal."""
        self.child.kill()
        self._close_pipes()
        return self.child.wait()

    def abandon(self) -> None:
        """Let go of another process's child, so that it sees its own parent's end."""
        self._close_pipes()
        self.child.returncode = 0  # not ours to wait for

    def _close_pipes(self) -> None:
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                pipe.close()


class Workers:
    """Processes of one kind, shared by all callers; each is given to one caller at a time.

    Args:
        kind: what they judge, "maths" or "schema".
        limit_seconds: wall time an item may take.
        max_memory: bytes of address space of each.
    """

    def __init__(self, kind: str, limit_seconds: float, max_memory: int = 1 << 30) -> None:
        self.kind, self.limit_seconds, self.max_memory = kind, limit_seconds, max_memory
        self._idle: list[_Process] = []
        self._lock = threading.Lock()
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._forget)

    def judge(self, items: Sequence[Sequence[Any]], limit_seconds: float | None = None) -> list[Verdict]:
        """A verdict on each item, in order; every item has the limit for itself."""
        limit = self.limit_seconds if limit_seconds is None else limit_seconds
        verdicts: list[Verdict] = []
        process: _Process | None = None
        again = False  # whoever ended the process the first time, the item may not have
        try:
            while len(verdicts) < len(items):
                process = process or self._take(fresh=again)
                try:
                    for reply in process.ask(items[len(verdicts) :][:WINDOW], limit):
                        verdicts.append(_verdict(reply))
                        again = False
                except TimeoutError:
                    verdicts.append(_TIMED_OUT[process.starved(limit)])
                    process.kill()
                    process, again = None, False
                except _Gone:
                    code = process.kill()
                    process, again = None, not again
                    if not again:
                        status = "infra_fault" if code == -signal.SIGKILL else "model_fault"
                        verdicts.append(Verdict(status, detail=f"the checker ended twice, then with code {code}"))
        except OSError as error:  # what does not start now will not start for the rest of the batch
            verdicts += [Verdict("infra_fault", detail=str(error))] * (len(items) - len(verdicts))
            if process is not None:
                process.kill()
                process = None
        except BaseException:  # such as Ctrl-C: the process is in the middle of an item
            if process is not None:
                process.kill()
            raise
        if process is not None:
            self._put_back(process)
        return verdicts

    def _take(self, fresh: bool) -> _Process:
        with self._lock:
            if self._idle and not fresh:
                return self._idle.pop()
        return _Process(self.kind, self.limit_seconds, self.max_memory)

    def _put_back(self, process: _Process) -> None:
        with self._lock:
            if len(self._idle) < MAX_IDLE:
                self._idle.append(process)
                return
        process.kill()

    def _forget(self) -> None:
        """After a fork: the processes are the parent's."""
        self._lock = threading.Lock()
        for process in self._idle:
            process.abandon()
        self._idle = []

    def close(self) -> None:
        """End all idle processes; the next call starts a fresh one."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.kill()


_TIMED_OUT = {
    True: Verdict("infra_fault", detail="the checker got no processor time"),
    False: Verdict("model_fault", detail="the response took longer than the limit"),
}


def _verdict(reply: dict[str, Any]) -> Verdict:
    if "value" in reply:
        return Verdict("ok", reply["value"])
    if "refused" in reply:
        return Verdict("refused", detail=str(reply["refused"]))
    return Verdict("model_fault", detail=str(reply["fault"]))


@cache
def workers(kind: str, limit_seconds: float) -> Workers:
    """The processes of a kind and limit: one set a Python process, however many rewards ask."""
    return Workers(kind, limit_seconds)
