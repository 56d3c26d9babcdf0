"""Processes that are killed when their time is up: for checkers whose libraries can be made to run for ever.

Signals interrupt the main thread only, and C code not at all, so the limit is kept from outside: it holds in any
thread, in asyncio and after a fork. What runs inside is `textenvs.rewards.child`.

The threads of a Python process take turns, first come first served, at no more than `MAX_PROCESSES` processes; a turn
is `WINDOW` items, or fewer if one has its process killed. An item's clock starts when a process that is ready has
received it, so that it gets its whole limit whoever else asks. Before that its turn comes within `WAIT_SECONDS` and
its process is ready within another `START_SECONDS`, or it is an infra_fault that says which. A verdict therefore
comes within the sum of the three; twice that if the process ends by itself, after which an item is tried once more.
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
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

CHILD = Path(__file__).with_name("child.py")
#: Processes of one kind and limit, at most: more than processors would take them from each other.
MAX_PROCESSES = min(8, os.cpu_count() or 1)
#: A turn that has not come by then is taken for one that never will.
WAIT_SECONDS = 600.0
#: A process that is not ready by then will never be; a quiet machine takes 0.1 to 2 s.
START_SECONDS = 60.0
#: Items that are sent before the first reply: fewer turns between two processes, and none waits for another's limit.
WINDOW = 16
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
    """One child, which is started but not ready yet: see `wait_until_ready`.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, kind: str, max_memory: int) -> None:
        self.kind = kind
        command = [sys.executable, "-P", "-s", "-B", str(CHILD), kind, str(max_memory)]
        # A clean environment: no secrets, no user settings; the parent's module path, and a fixed hash seed.
        environment = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "0"}
        environment |= {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        self.child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd="/",
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the parent
        )
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self._in, self._out = self.child.stdin.fileno(), self.child.stdout.fileno()
        os.set_blocking(self._in, False)
        self._cpu: float | None = None  # processor seconds at its last reply; None until it is ready

    def wait_until_ready(self) -> None:
        """Wait for it to load its libraries, unless it has.

        Raises:
            OSError: that takes too long, or it ended; with the last line it wrote.
        """
        if self._cpu is not None:
            return
        try:
            (ready,) = self._exchange(b"", 1, START_SECONDS)
            self._cpu = json.loads(ready)["cpu"]
        except TimeoutError:
            raise OSError(f"the {self.kind} checker was not ready within {START_SECONDS:g} s") from None
        except _Gone:
            assert self.child.stderr is not None
            *_, line = ["no message", *self.child.stderr.read().decode(errors="replace").split("\n")[:-1]]
            raise OSError(f"the {self.kind} checker did not start: {line[:300]}") from None

    def ask(self, items: Sequence[Sequence[Any]], seconds: float) -> Iterator[Verdict]:
        """Verdicts on some items, as they come; the last one is on the first that takes more seconds than these.

        Raises:
            _Gone: the process ended; with its return code, negative for a signal.
        """
        request = b"".join(json.dumps([seconds, *item]).encode() + b"\n" for item in items)
        try:
            for line in self._exchange(request, len(items), seconds):
                reply: dict[str, Any] = json.loads(line)
                self._cpu = reply["cpu"]
                yield _verdict(reply)
        except TimeoutError:
            verdict = _TIMED_OUT[self._starved(seconds)]
            self.kill()
            yield verdict
        except _Gone:
            raise _Gone(self.kill()) from None

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
                        deadline = time.monotonic() + seconds  # this thread may have waited for a processor
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

    def _starved(self, seconds: float) -> bool:
        """Whether it got almost no processor time since its last reply, these seconds ago."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        used = (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))
        return used - (self._cpu or 0.0) < STARVED_SHARE * seconds

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.child.poll() is None

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
        for pipe in (self.child.stdin, self.child.stdout, self.child.stderr):
            if pipe is not None:
                pipe.close()


class Workers:
    """Processes of one kind, shared by all callers; each is given to one caller at a time.

    Args:
        kind: what they judge, "maths" or "schema".
        limit_seconds: wall time an item may take, from when its process has received it.
        max_memory: bytes of address space of each.
    """

    def __init__(self, kind: str, limit_seconds: float, max_memory: int = 1 << 30) -> None:
        self.kind, self.limit_seconds, self.max_memory = kind, limit_seconds, max_memory
        self._processes: set[_Process] = set()
        self._forget()
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._forget)

    def judge(self, items: Sequence[Sequence[Any]], limit_seconds: float | None = None) -> list[Verdict]:
        """A verdict on each item, in order; every item has the limit for itself."""
        limit = self.limit_seconds if limit_seconds is None else limit_seconds
        verdicts: list[Verdict] = []
        again = False  # whoever ended the process the first time, the item may not have
        while len(verdicts) < len(items):
            try:
                with self._turn() as process:
                    for verdict in process.ask(items[len(verdicts) :][:WINDOW], limit):
                        verdicts.append(verdict)
                        again = False
            except _Gone as gone:
                again = not again
                if not again:
                    (code,) = gone.args
                    status = "infra_fault" if code == -signal.SIGKILL else "model_fault"
                    verdicts.append(Verdict(status, detail=f"the checker ended twice, then with code {code}"))
            except OSError as error:  # what does not start now will not start for the rest of the batch
                verdicts += [Verdict("infra_fault", detail=str(error))] * (len(items) - len(verdicts))
        return verdicts

    @contextmanager
    def _turn(self) -> Iterator[_Process]:
        """A ready process for this caller alone, when it is its turn.

        Raises:
            OSError: its turn does not come, or no process is ready, in time.
        """
        ticket = object()
        with self._turns:
            self._queue.append(ticket)
            try:
                if not self._turns.wait_for(lambda: self._queue[0] is ticket and self._free(), WAIT_SECONDS):
                    raise OSError(f"no {self.kind} checker was free within {WAIT_SECONDS:g} s")
                process = self._idle.pop() if self._idle else _Process(self.kind, self.max_memory)
                self._processes.add(process)
            finally:
                self._queue.remove(ticket)
                self._turns.notify_all()
        try:
            process.wait_until_ready()
            yield process
        except BaseException:  # such as Ctrl-C: the process is in the middle of an item
            process.kill()
            raise
        finally:
            with self._turns:
                if process.alive:
                    self._idle.append(process)
                else:
                    self._processes.discard(process)
                self._turns.notify_all()

    def _free(self) -> bool:
        """Whether there is a process for one more caller, or room for one."""
        for process in list(self._idle):
            if not process.alive:
                self._drop(process)
        return bool(self._idle) or len(self._processes) < MAX_PROCESSES

    def _drop(self, process: _Process) -> None:
        process.kill()
        self._idle.remove(process)
        self._processes.discard(process)

    def _forget(self) -> None:
        """At the start, and after a fork, where the processes are the parent's."""
        self._turns, self._queue = threading.Condition(), deque[object]()
        for process in self._processes:
            process.abandon()
        self._processes = set()
        self._idle: list[_Process] = []

    def close(self) -> None:
        """End all idle processes; the next call starts a fresh one."""
        with self._turns:
            for process in list(self._idle):
                self._drop(process)


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
    """The processes of a kind and limit: one set a Python process, however many rewards and threads ask."""
    return Workers(kind, limit_seconds)
