"""The sandbox: what comes out of it, what it calls whose fault, what it does when it cannot hold."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import hostile_programs as corpus
import pytest
from sandboxed import bubblewrap, refuse

from textenvs.rewards import sandbox, sandbox_bwrap, sandbox_probe
from textenvs.rewards.sandbox import Job, Limits, Outcome, SandboxUnavailable, run_programs
from textenvs.rewards.sandbox_base import read_answer

__all__ = ["bubblewrap"]
ADD = "def f(a, b):\n    return a + b\n"
#: Writes to the descriptor of the answer itself.
WRITE = "import os\ndef f(a, b):\n  os.write(3, %s)\n  os._exit(0)"
#: Dataclasses look for their module by name.
POSTPONED = """from __future__ import annotations
from dataclasses import dataclass
@dataclass
class P:
    a: int
def f(a, b): return P(a).a + b
"""
QUICK = Limits(seconds=1.0, memory_mb=corpus.MEMORY_MB)


def run(program: str, *inputs: list[Any], limits: Limits = QUICK) -> Outcome:
    return run_programs([Job(program, "f", inputs or ([1, 2],))], limits, "bubblewrap")[0]


@pytest.fixture
def fresh_probe(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what was found out about this machine, here and afterwards."""
    monkeypatch.setattr(sandbox, "_probed", {})
    sandbox_bwrap._static_command.cache_clear()
    yield
    sandbox_bwrap._static_command.cache_clear()


# ---------------------------------------------------------------------------------------------------- what comes out


@pytest.mark.usefixtures("bubblewrap")
def test_every_json_value_goes_in_and_comes_out_as_it_was() -> None:
    values = [None, True, False, 0, -1, 2**70, -(10**3000), 0.1, -0.0, 1e300, 5e-324, "", "é\ud800\0\n\u2028", [], {}]
    values += [[1, [2.0, {"a": [None], "": "x"}]], "x" * 100_000, [[]] * 1000]
    outcome = run("def f(x): return x", *([value] for value in values))
    assert outcome.status == "ok", outcome.detail
    assert [json.dumps(result["value"]) for result in outcome.results] == [json.dumps(value) for value in values]
    assert all(type(r["value"]) is type(v) for r, v in zip(outcome.results, values, strict=True))


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize(
    ("program", "status", "detail"),
    [
        (ADD, "ok", ""),
        ("def f(a, b): return a - b", "ok", ""),
        ("def f(a, b): return (a, b)", "model_fault", "TypeError: returned a tuple, which is no JSON value"),
        ("def f(a, b): return {1: 2}", "model_fault", "TypeError: a returned dict has a key that is no str"),
        ("def f(a, b): return 1e308 * 10", "model_fault", "ValueError: the returned number is not finite"),
        ("class I(int): pass\ndef f(a, b): return I(3)", "model_fault", "TypeError: returned a I"),
        (POSTPONED, "ok", ""),
        (
            "import tempfile\ndef f(a, b): tempfile.TemporaryFile()",
            "model_fault",
            "FileNotFoundError: [Errno 2] No usable",
        ),
        ("def f(a, b): return 1 / 0", "model_fault", "ZeroDivisionError: division by zero"),
        ("def g(a, b): return 1", "model_fault", "NameError: the program defines no f"),
        ("def f(a, b:", "model_fault", "SyntaxError: "),
        ("import numpy_that_is_not_there\ndef f(a, b): return 1", "model_fault", "ModuleNotFoundError"),
        ("import os\ndef f(a, b): os._exit(0)", "model_fault", "the program ended without an answer, exit status 0"),
        ("def f(a, b):\n  while True: pass", "model_fault", "no answer within 1 s"),
        ("import sys\ndef f(a, b): sys.exit('bye')", "model_fault", "SystemExit: bye"),
        (WRITE % "b'[' * 3000000", "model_fault", "more than 1,048,576 bytes of answer"),
        (WRITE % """b'[{"value":3}]\\nx'""", "model_fault", "more than an answer"),
    ],
)
def test_whose_fault_it_is(program: str, status: str, detail: str) -> None:
    outcome = run(program)
    assert outcome.status == status
    assert outcome.detail.startswith(detail)


@pytest.mark.usefixtures("bubblewrap")
def test_a_case_that_fails_leaves_the_others_their_results() -> None:
    outcome = run("def f(a): return 6 // a", [1], [0], [3])
    assert outcome.status == "model_fault"
    assert outcome.results[0] == {"value": 6}
    assert outcome.results[1]["error"].startswith("ZeroDivisionError")
    assert outcome.results[2] == {"value": 2}


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b'[{"value":1}]', "ok"),
        (b'[{"value":{"a":[1.5,null,true,"x"]}}]', "ok"),
        (b'[{"error":"TypeError"}]', "model_fault"),
        *[
            (line, "model_fault")
            for line in (
                *(b"", b"[]", b"null", b"{}", b'[{"value":1},{"value":1}]', b'[{"value":1}', b'[{"value":1}] 1'),
                *(b'[{"value":NaN}]', b'[{"value":-Infinity}]', b'[{"value":1e999}]', b'[{"value":1,"value":1}]'),
                *(b'[{"value":' + b"9" * 4001 + b"}]", b"[" * 100_000, b'[{"value":"\xff"}]', b'[{"error":1}]'),
                *(b"[1]", b'[{"value":1,"error":"x"}]', b'[{"verdict":"passed"}]', b'[{"value":{"a":1,"a":1}}]'),
            )
        ],
    ],
)
def test_answers_are_read_strictly(line: bytes, status: str) -> None:
    assert read_answer(line, 1).status == status


@pytest.mark.usefixtures("bubblewrap")
def test_what_a_program_finds_inside() -> None:
    program = """
import os, resource, sys
def f():
    fds = []
    for fd in range(64):
        try: fds.append((fd, os.fstat(fd)) and fd)
        except OSError: pass
    names = ("AS", "FSIZE", "NOFILE", "NPROC")
    limits = [resource.getrlimit(getattr(resource, "RLIMIT_" + name))[1] for name in names]
    core = resource.getrlimit(resource.RLIMIT_CORE)
    writable = [path for path in ("/", "/tmp", "/dev", "/usr", "/usr/lib") if os.access(path, os.W_OK)]
    found = [sorted(os.environ), os.getpid(), os.listdir("/tmp"), sorted(os.listdir("/dev")), len(fds), limits]
    return [*found, list(core), writable, sys.argv]
"""
    outcome = run(program, [])
    assert outcome.results[0]["value"] == [
        ["LC_CTYPE", "PWD", "PYTHONHASHSEED"],
        1,
        [],
        ["null"],
        4,
        [corpus.MEMORY_MB << 20, 0, 64, 16],
        [1, 1],
        [],
        ["program"],
    ], outcome


@pytest.mark.usefixtures("bubblewrap")
def test_hashes_do_not_vary() -> None:
    outcomes = run_programs([Job("def f(): return hash('x')", "f", ([],))] * 3, QUICK, "bubblewrap")
    assert len({outcome.results[0]["value"] for outcome in outcomes}) == 1


@pytest.mark.usefixtures("bubblewrap")
def test_a_batch_keeps_its_order_and_one_hang_harms_no_other() -> None:
    programs = [f"def f(a, b): return {i}" for i in range(9)]
    programs[4] = "def f(a, b):\n  while True: pass"
    outcomes = run_programs([Job(program, "f", ([1, 2],)) for program in programs], QUICK, "bubblewrap")
    assert [outcome.status for outcome in outcomes] == ["ok"] * 4 + ["model_fault"] + ["ok"] * 4
    assert [o.results[0]["value"] for o in outcomes if o.results] == [0, 1, 2, 3, 5, 6, 7, 8]


@pytest.mark.usefixtures("bubblewrap")
def test_it_works_from_a_thread_and_from_asyncio() -> None:
    found: list[Outcome] = []
    thread = threading.Thread(target=lambda: found.append(run("def f(a, b):\n  while True: pass")))
    start = time.monotonic()
    thread.start()
    thread.join()

    async def from_asyncio() -> Outcome:
        return run(ADD)

    assert found[0].detail == "no answer within 1 s"
    assert time.monotonic() - start < QUICK.seconds + 1
    assert asyncio.run(from_asyncio()).results == ({"value": 3},)


# ----------------------------------------------------------------------------------------------- when it cannot hold


@pytest.mark.usefixtures("bubblewrap")
def test_a_sandbox_killed_from_outside_is_not_the_programs_fault() -> None:
    found: list[Outcome] = []
    program = "import time\ndef f(a, b): time.sleep(30)"
    thread = threading.Thread(target=lambda: found.append(run(program, limits=Limits(40.0, corpus.MEMORY_MB))))
    thread.start()
    deadline = time.monotonic() + 10
    while not (inside := corpus.leftovers()) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)  # until the program has started
    uids = {Path(f"/proc/{process}/status").read_text().split("Uid:")[1].split()[0] for process in inside}
    assert uids == {str(os.geteuid() or sandbox_bwrap.NOBODY)}
    outermost = min(map(int, corpus.leftovers()))
    os.kill(outermost, signal.SIGKILL)
    thread.join(10)
    assert found[0].status == "infra_fault"
    assert "killed from outside, by signal 9" in found[0].detail
    assert not corpus.leftovers(), "the program dies with bwrap"


def test_another_interpreter_is_shown_as_itself_and_nothing_of_its_prefix() -> None:
    mounts, python = sandbox_bwrap._interpreter(Path("/there/is/no/python3"))
    prefix = sandbox_bwrap.sys.base_prefix
    shown = {source for option, source in pairwise(mounts) if option == "--ro-bind"}
    assert python in shown
    assert not shown & {prefix, f"{prefix}/lib", f"{prefix}/bin", str(Path.home())}


def fake_bwrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    tool = tmp_path / "bwrap"
    tool.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    tool.chmod(0o755)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.geteuid() and str(directory) not in ("/", "/tmp"):
            directory.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


@pytest.mark.usefixtures("fresh_probe", "bubblewrap")
def test_a_bwrap_that_fails_is_an_infra_fault_with_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_bwrap(tmp_path, monkeypatch, 'echo "bwrap: No permissions to create new namespace" >&2; exit 1')
    sandbox_bwrap._static_command.cache_clear()
    outcome = sandbox_bwrap.run(Job(ADD, "f", ([1, 2],)), QUICK)
    assert outcome.status == "infra_fault"
    assert "No permissions to create new namespace" in outcome.detail
    with pytest.raises(SandboxUnavailable, match=r"No permissions .*apt-get install bubblewrap libseccomp2"):
        run(ADD)


@pytest.mark.usefixtures("fresh_probe")
def test_nothing_usable_is_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "pydantic_monty", None)
    with pytest.raises(
        RuntimeError, match=r"bubblewrap: bwrap is missing; apt-get.*monty: pydantic-monty is missing; pip"
    ):
        run_programs([Job(ADD, "f", ([1, 2],))], QUICK)
    assert run_programs([], QUICK) == []


@pytest.mark.usefixtures("fresh_probe")
def test_the_weaker_sandbox_says_that_it_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pydantic_monty")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.warns(
        RuntimeWarning, match="programs run in monty, which knows only a part of Python; bubblewrap: bwrap"
    ):
        outcomes = run_programs([Job(ADD, "f", ([1, 2],))], QUICK)
    assert outcomes[0] == Outcome("ok", ({"value": 3},))
    with pytest.raises(SandboxUnavailable, match="bwrap is missing"):
        run(ADD)


@pytest.mark.usefixtures("fresh_probe")
@pytest.mark.filterwarnings("error")
def test_where_warnings_are_errors_only_the_first_call_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pydantic_monty")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeWarning, match="programs run in monty"):
        run_programs([Job(ADD, "f", ([1, 2],))], QUICK)
    assert run_programs([Job(ADD, "f", ([1, 2],))], QUICK)[0] == Outcome("ok", ({"value": 3},))


@pytest.mark.parametrize("name", sandbox_probe.ATTACKS)
def test_the_probe_refuses_a_sandbox_that_lets_one_attack_through(name: str) -> None:
    def leaky(job: Job, limits: Limits) -> Outcome:
        if job.program == sandbox_probe._HONEST:
            return Outcome("ok", ({"value": [7, 3]},))
        if job.program == sandbox_probe.ATTACKS[name]:
            return Outcome("ok", ({"value": True},))
        return Outcome("model_fault", ({"error": "OSError"},))

    with pytest.raises(SandboxUnavailable, match=f"did not stop an attack: {name}"):
        sandbox_probe.probe(leaky, sandbox._map)


def test_the_probe_believes_its_own_eyes() -> None:
    """An attack that says it failed, but wrote, connected or sent, is found out."""

    def silent(job: Job, limits: Limits) -> Outcome:
        if job.program == sandbox_probe._HONEST:
            return Outcome("ok", ({"value": [7, 3]},))
        target = job.inputs[0][0]
        if job.program == sandbox_probe.ATTACKS["write a file of the host"]:
            Path(target).write_text("attacked", encoding="utf-8")
        if job.program == sandbox_probe.ATTACKS["connect by tcp"]:
            sandbox_probe.socket.create_connection(("127.0.0.1", target)).close()
        if job.program == sandbox_probe.ATTACKS["send by udp"]:
            with sandbox_probe.socket.socket(type=sandbox_probe.socket.SOCK_DGRAM) as sender:
                sender.sendto(b"x", ("127.0.0.1", target))
        return Outcome("model_fault", ({"error": "OSError"},))

    with pytest.raises(SandboxUnavailable, match="connect by tcp, send by udp, write a file of the host"):
        sandbox_probe.probe(silent, sandbox._map)


def test_where_the_sandbox_is_required_its_absence_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTENVS_REQUIRE_SANDBOX", "1")
    with pytest.raises(pytest.fail.Exception, match="TEXTENVS_REQUIRE_SANDBOX=1, but bwrap is missing"):
        refuse("bwrap is missing")
    monkeypatch.delenv("TEXTENVS_REQUIRE_SANDBOX")
    with pytest.raises(pytest.skip.Exception, match="bwrap is missing"):
        refuse("bwrap is missing")


def test_where_core_dumps_are_forbidden_for_good_the_sandbox_still_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_bwrap.resource, "getrlimit", lambda which: (0, 0))
    monkeypatch.setattr(sandbox_bwrap.os, "geteuid", lambda: 1000)
    assert sandbox_bwrap._prepared()[1:] == ["--core=0:0", "--"]
    monkeypatch.setattr(sandbox_bwrap.shutil, "which", lambda name: None)
    with pytest.raises(SandboxUnavailable, match="prlimit or setpriv is missing; apt-get install util-linux"):
        sandbox_bwrap._prepared()
