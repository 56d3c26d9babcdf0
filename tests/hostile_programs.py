"""330 programs that attack the checker and 100 odd ones that are right; `hostile/*.txt` holds them, a file a family.

A program whose call worked though it must not raises an error that says SUCCEEDED.

In the files `### ` starts a program and names its mechanism; a line `#: NAME = one | another` after it makes one
program of each, with `@NAME@` replaced. `World` is what the attacks aim at, and sees whether they hit.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

HERE = Path(__file__).parent
FAMILIES = sorted(path.stem for path in (HERE / "hostile").glob("*.txt") if path.stem != "odd_but_right")
#: Characters that a text file or an editor would not keep.
_CHARACTERS = {"NUL": "\0", "SURROGATE": "\ud800", "CR": "\r", "FF": "\f", "PARENTHESES": "(" * 10_000 + ")" * 10_000}
_REPO = str(HERE.parent)
#: The limit that this process's sandboxes have: tells them from those of others on the same machine.
MEMORY_MB = 512 + os.getpid() % 1024


@dataclass(frozen=True)
class Program:
    """A program with the entry point `f(a, b)`."""

    family: str
    mechanism: str
    code: str
    variant: int = 0

    def __str__(self) -> str:
        return f"{self.family}: {self.mechanism}, {self.variant}"


def programs(*families: str) -> list[Program]:
    """All programs of these families, or all hostile ones."""
    return [program for family in families or FAMILIES for program in _read(family)]


def odd_programs() -> list[Program]:
    """Programs that are right, however they look: f(a, b) is a + b."""
    return list(_read("odd_but_right"))


def _read(family: str) -> Iterator[Program]:
    text = (HERE / "hostile" / f"{family}.txt").read_text(encoding="utf-8")
    for block in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        mechanism, code = block.split("\n", 1)
        variants = [code.strip("\n") + "\n"]
        if header := re.match(r"#: (\w+) = (.*)\n", code):
            name, rest = header[1], code[header.end() :].strip("\n") + "\n"
            variants = [rest.replace(f"@{name}@", value) for value in header[2].split(" | ")]
        for i, variant in enumerate(variants):
            for name, character in _CHARACTERS.items():
                variant = variant.replace(f"@{name}@", character)
            yield Program(family, mechanism, variant, i)


@dataclass
class World:
    """What the attacks aim at: listeners, a secret in a file, in our environment and in the expected values.

    Use as a context manager.
    """

    canary: str = field(default_factory=lambda: "canary" + secrets.token_hex(12))
    values: list[int] = field(default_factory=lambda: [10**9 + secrets.randbelow(9 * 10**9) for _ in range(3)])

    def __enter__(self) -> World:
        self._stack = ExitStack()
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="hostile-")))
        directory.chmod(0o777)
        self.secret, self.victim = directory / "secret", directory / "victim"
        self.secret.write_text(self.canary, encoding="utf-8")
        self.victim.write_text("untouched", encoding="utf-8")
        self.secret.chmod(0o644)
        self.victim.chmod(0o666)
        os.environ["HOSTILE_CANARY"] = self.canary
        self._stack.callback(os.environ.pop, "HOSTILE_CANARY")
        unix, abstract = str(directory / "socket"), "hostile-" + secrets.token_hex(4)
        self._listeners = [
            self._listen(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            self._listen(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            self._listen(socket.AF_UNIX, socket.SOCK_STREAM, unix),
            self._listen(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + abstract),
            self._listen(socket.AF_UNIX, socket.SOCK_DGRAM, unix + ".dgram"),
        ]
        os.chmod(unix, 0o777)
        self._names = {
            "SECRET": str(self.secret),
            "VICTIM": str(self.victim),
            "TCP": str(self._listeners[0].getsockname()[1]),
            "UDP": str(self._listeners[1].getsockname()[1]),
            "UNIX": unix,
            "ABSTRACT": abstract,
            "PID": str(os.getpid()),
            "REPO": _REPO,
            "HOME": str(Path.home()),
        }
        self._before = self._files()
        return self

    def __exit__(self, *args: object) -> None:
        self._stack.close()

    def _listen(self, family: int, kind: int, address: Any) -> socket.socket:
        listener = self._stack.enter_context(socket.socket(family, kind))
        listener.bind(address)
        if kind == socket.SOCK_STREAM:
            listener.listen()
        listener.setblocking(False)
        return listener

    def aimed(self, program: Program) -> str:
        """The program's code, with the names of this world in it."""
        code = program.code
        for name, value in self._names.items():
            code = code.replace(f"@{name}@", value)
        return code

    @property
    def cases(self) -> list[dict[str, Any]]:
        """Cases that nobody passes who does not know the secret values."""
        return [{"args": [i, i + 1], "expected": value} for i, value in enumerate(self.values)]

    def damage(self) -> list[str]:
        """What has been hit since the last time."""
        found = []
        for listener in self._listeners:
            try:
                found.append(f"network: {listener.recv(64)!r}" if listener.type == socket.SOCK_DGRAM else "network")
                if listener.type == socket.SOCK_STREAM:
                    listener.accept()[0].close()
            except (BlockingIOError, OSError):
                found = found[:-1] if listener.type == socket.SOCK_STREAM else found
        if self._files() != self._before:
            found.append("write")
        return found + [f"process {line}" for line in leftovers()]

    def leaked(self, text: str) -> bool:
        """Whether a secret stands in what came out."""
        return self.canary in text or any(str(value) in text for value in self.values)

    def _files(self) -> list[tuple[str, int, int, str]]:
        stat = [(path, path.stat()) for path in sorted(self.victim.parent.iterdir())]
        null = os.stat("/dev/null")
        found = [(path.name, s.st_mode, s.st_size, self.victim.read_text(encoding="utf-8")) for path, s in stat]
        return [*found, ("/dev/null", null.st_mode, null.st_mtime_ns, "")]


def leftovers() -> list[str]:
    """Command lines of processes that came out of a sandbox of ours and still live."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if str(MEMORY_MB << 20).encode() in arguments[-2:]:
            found.append(path.parent.name)
    return found


#: How several published checkers work: the program, the expected values and the verdict share one process.
NAIVE_CHECKER = """
import json, sys
spec = json.load(sys.stdin)
def check(cases):
    passed, namespace = [], {"__name__": "program"}
    exec(spec["program"], namespace)
    for case in list(cases):
        expected = case["expected"]
        try:
            value = namespace["f"](*case["args"])
        except Exception:
            break
        if value != expected and not (value == expected):
            break
    else:
        passed.append("passed")
    return passed
verdict = "passed" if "passed" in check(spec["cases"]) else "failed"
print(json.dumps(verdict))
sys.stdout.flush()
"""


def naive_verdict(code: str, cases: list[dict[str, Any]]) -> bool:
    """Whether the naive checker, in a process of its own, says that a program passes."""
    request = json.dumps({"program": code, "cases": cases})
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", NAIVE_CHECKER], input=request, capture_output=True, text=True, timeout=10
        )
    except subprocess.TimeoutExpired:
        return False
    lines = done.stdout.split()
    return bool(lines) and lines[-1].strip('"') == "passed"


@dataclass(frozen=True)
class Verdict:
    """What became of one attack."""

    program: Program
    value: float
    status: str
    seconds: float
    problems: tuple[str, ...]


def attack(world: World, program: Program, seconds: float, *, honest_after: bool = True) -> Verdict:
    """Score one program as the reward does, and look at the world."""
    start = time.monotonic()
    value, status, said = score(world.aimed(program), world.cases, seconds)
    elapsed = time.monotonic() - start
    problems = world.damage()
    if value != 0:
        problems.append("passed")
    if status != "model_fault":
        problems.append(f"status {status}: {said}")
    if world.leaked(said):
        problems.append("leak")
    if "SUCCEEDED" in said:
        problems.append(f"what must fail did not: {said}")
    if elapsed > seconds + 1:
        problems.append(f"{elapsed:.2f} s")
    if honest_after:
        code = "import os, json\ndef f(a, b): return [a + b, os.listdir('/tmp'), json.dumps(a)]\n"
        value, _, said = score(code, [{"args": [1, 2], "expected": [3, [], "1"]}], 3.0)
        if value != 1:
            problems.append(f"the honest program after it: {said}")
    return Verdict(program, value, status, elapsed, tuple(problems))


def score(code: str, cases: list[dict[str, Any]], seconds: float) -> tuple[float, str, str]:
    """Value and status from the reward, and everything that came out of the sandbox."""
    from textenvs import Problem
    from textenvs.rewards import programs as module

    said: list[Any] = []

    def recording(*args: Any) -> Any:
        said.extend(outcomes := run_programs(*args))
        return outcomes

    run_programs = module.run_programs
    reward = module.PythonProgram(seconds=seconds, memory_mb=MEMORY_MB, sandbox="bubblewrap")
    problem = Problem("f", (), {"entry_point": "f", "cases": cases})
    with mock.patch.object(module, "run_programs", recording):
        # No vocabulary spells every hostile text.
        scores = reward([problem], cast(Any, SimpleNamespace(texts=[code], finish_reasons=["eos"])))
    return float(scores.values[0]), scores.status[0], repr(said)
