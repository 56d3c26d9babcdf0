"""The process that judges maths answers: its limit holds in any thread, and it leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from maths_answers import HALVES, LIMIT, TOWER, judged

from textenvs.rewards import child
from textenvs.rewards.worker import Workers, workers


def in_thread(call: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def in_asyncio(call: Callable[[], Any]) -> Any:
    async def main() -> Any:
        return await asyncio.to_thread(call)

    return asyncio.run(main())


@pytest.mark.parametrize("run", [in_thread, in_asyncio])
def test_the_limit_holds_in_any_thread_and_the_next_answer_passes(run: Callable[[Callable[[], Any]], Any]) -> None:
    assert run(lambda: judged(42, HALVES)) == [(1.0, "ok")]
    start = time.monotonic()
    assert run(lambda: judged(42, TOWER)) == [(0.0, "model_fault")]
    assert time.monotonic() - start < LIMIT + 0.5
    assert run(lambda: judged(42, HALVES)) == [(1.0, "ok")]


def test_one_bad_answer_costs_its_neighbours_nothing() -> None:
    """More of them than are sent at once, and two of them bad."""
    pool, item = Workers("schema", 0.3), ('{"type": "integer"}', "1")
    items: list[Any] = [item] * 150
    slow = {"items": {"anyOf": [{"const": i} for i in range(3000)]}}
    items[3] = items[70] = (json.dumps(slow), json.dumps([2999] * 40_000))
    statuses = [(verdict.status, verdict.value) for verdict in pool.judge(items)]
    pool.close()
    assert statuses[3] == statuses[70] == ("model_fault", None)
    assert statuses[:3] + statuses[4:70] + statuses[71:] == [("ok", True)] * 148


def test_threads_at_once_do_not_wait_for_each_other() -> None:
    """Two of them, each with a process of its own; both are there before the clock starts."""
    barrier = threading.Barrier(2)

    def one() -> None:
        barrier.wait()
        assert judged(42, *[HALVES.replace("84", f"{42 * k}").replace("{2}", f"{{{k}}}") for k in range(1, 30)])

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(one) for _ in range(2)]:
            future.result()
    start = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        faults = [pool.submit(judged, 42, TOWER) for _ in range(2)]
        assert [future.result() for future in faults] == [[(0.0, "model_fault")]] * 2
    assert time.monotonic() - start < 2 * LIMIT + 3  # one of them may have had to start a process


def test_a_killed_worker_is_replaced_without_harm() -> None:
    pool = workers("maths", LIMIT)
    assert judged(42, HALVES) == [(1.0, "ok")]
    for process in pool._idle:
        os.kill(process.child.pid, signal.SIGKILL)
    assert judged(42, HALVES) == [(1.0, "ok")]


def test_a_worker_that_is_killed_again_and_again_is_nobodys_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    from textenvs.rewards import worker

    class Doomed(worker._Process):
        def ask(self, items: Any, seconds: float) -> Any:
            self.child.kill()
            return super().ask(items, seconds)

    monkeypatch.setattr(worker, "_Process", Doomed)
    pool = Workers("schema", 1.0)
    assert [v.status for v in pool.judge([("{}", "1"), ("{}", "1")])] == ["infra_fault"] * 2


def test_a_stopped_worker_is_nobodys_wrong_answer() -> None:
    pool = Workers("schema", 0.3)
    assert [v.status for v in pool.judge([("{}", "1")])] == ["ok"]
    (process,) = pool._idle
    os.kill(process.child.pid, signal.SIGSTOP)
    (verdict,) = pool.judge([("{}", "1")])
    assert (verdict.status, verdict.detail) == ("infra_fault", "the checker got no processor time")
    assert process.child.returncode == -signal.SIGKILL
    pool.close()


def test_a_worker_that_cannot_start_is_an_infra_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    from textenvs.rewards import worker

    monkeypatch.setattr(worker, "CHILD", Path("/nonexistent/child.py"))
    verdicts = Workers("schema", 1.0).judge([("{}", "1")] * 3)
    assert {(v.status, v.detail) for v in verdicts} == {("infra_fault", "the schema checker does not start (_Gone)")}


def children() -> set[int]:
    """Process ids of this process's children, zombies included."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(stat.parent.name))
        except OSError:
            continue
    return found


def test_closing_leaves_no_process() -> None:
    before = children()
    pool = Workers("schema", 0.5)
    assert pool.judge([("{}", "1")])[0].value is True
    assert len(children() - before) == 1
    pool.close()
    assert children() <= before


ORPHANS = """
import os, sys, threading
from textenvs.rewards.worker import Workers
pool = Workers("maths", 0.5)
pool.judge([("1", ["1"])])
idle = pool._idle[0].child.pid
if sys.argv[1] == "busy":
    threading.Thread(target=pool.judge, args=([("1", ["9^{9^{9^{9}}}"])],), daemon=True).start()
    import time; time.sleep(0.2)
print(idle, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_worker_does_not_outlive_its_parent(state: str) -> None:
    out = subprocess.run([sys.executable, "-c", ORPHANS, state], capture_output=True, text=True, check=True).stdout
    deadline = time.monotonic() + 10
    while Path(f"/proc/{out.strip()}/environ").exists() and time.monotonic() < deadline:
        try:
            if Path(f"/proc/{out.strip()}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                break  # gone, only nobody waits for orphans here
        except OSError:
            break
        time.sleep(0.05)
    assert time.monotonic() < deadline


FORK = """
import os
from textenvs.rewards.worker import workers
pool = workers("schema", 2.0)
ask = lambda: [v.value for v in pool.judge([('{"type": "integer"}', "1"), ('{"type": "integer"}', "[]")])]
assert ask() == [True, False]
pid = os.fork()
if pid == 0:
    assert not pool._idle
    os._exit(0 if ask() == [True, False] else 1)
assert os.waitpid(pid, 0)[1] == 0
assert ask() == [True, False]
"""


def test_a_fork_starts_its_own() -> None:
    assert subprocess.run([sys.executable, "-W", "error", "-c", FORK], timeout=60).returncode == 0


ATTEMPTS = """
import os, runpy, socket, subprocess, sys, ctypes
child = runpy.run_path(sys.argv[1])
import sympy
attempts = {
    "eval": lambda: eval("1"),
    "exec": lambda: exec("x = 1"),
    "sympify": lambda: sympy.sympify("1+1"),
    "lambdify": lambda: sympy.lambdify(sympy.Symbol("x"), sympy.Symbol("x")),
    "write": lambda: open(sys.argv[2] + "/w", "w"),
    "rename": lambda: os.rename(sys.argv[2] + "/a", sys.argv[2] + "/b"),
    "process": lambda: subprocess.run(["true"]),
    "fork": lambda: os.fork() or os._exit(0),
    "system": lambda: os.system("true"),
    "socket": lambda: socket.socket(),
    "kill": lambda: os.kill(os.getpid(), 0),
    "ctypes": lambda: ctypes.CDLL(None),
}
if sys.argv[3] == "locked":
    sys.addaudithook(child["_refuse"])
for name, attempt in attempts.items():
    try:
        attempt()
    except Exception as error:
        print(name, type(error).__name__, "refused here" in str(error), flush=True)
    else:
        print(name, "worked", flush=True)
os._exit(0)
"""


def test_the_lock_refuses_to_run_text_write_or_reach_out(tmp_path: Path) -> None:
    """Positive control: all of it works without the lock."""
    outcomes = {}
    for state in ("open", "locked"):
        (tmp_path / "a").touch()
        command = [sys.executable, "-c", ATTEMPTS, str(child.__file__), str(tmp_path), state]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        outcomes[state] = {line.partition(" ")[2] for line in lines}
        assert len(lines) == 12
    assert outcomes["open"] == {"worked"}
    assert outcomes["locked"] <= {"PermissionError True", "SympifyError True"}


def test_honest_answers_are_judged_alike_with_and_without_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock and our reader of numbers cost no right answer."""
    from sympy.parsing import sympy_parser

    monkeypatch.setattr(sympy_parser, "parse_expr", sympy_parser.parse_expr)  # `child.maths` replaces it
    pairs = [
        *((r"\frac{1}{2}", "0.5"), ("2\\sqrt{3}", "\\sqrt{12}"), ("(1,2)", "(1, 2)"), ("x^2+2x+1", "(x+1)^2")),
        *((r"\{1,2\}", "2,1"), ("[0,1)", "0 \\le x < 1"), (r"\frac{\pi}{4}", "\\arctan 1"), ("10", "1.0 \\times 10^1")),
        *(
            ("x=3", "3"),
            ("-\\infty", "-\\infty"),
            ("3+4i", "4i+3"),
            ("\\log_2 8", "3"),
            ("2^{10}", "1024"),
            ("5!", "120"),
        ),
        *(
            (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"),
            ("0.001", "10^{-3}"),
            ("e", "e^1"),
        ),
        *((r"\text{east}", r"\text{east}"), ("\\sin(x)", "\\sin x"), ("1.50", "1.5"), ("x>2", "x > 2"), ("7", "8")),
    ]
    pairs += [
        *(
            (r"\frac{x^2-1}{x-1}", "x+1"),
            (r"x \ge 2", r"2 \le x"),
            (r"\binom{5}{2}", "10"),
            (r"\lfloor 2.5 \rfloor", "2"),
        ),
        *((r"\sum_{i=1}^{3} i", "6"), (r"\lim_{x\to 0}\frac{\sin x}{x}", "1"), (r"\tan 45^\circ", "1"), ("|x|", "|x|")),
        *(
            (r"(-\infty,3)\cup(5,\infty)", r"(-\infty,3)\cup(5,\infty)"),
            (r"2\pi r", r"2r\pi"),
            (r"1\frac{1}{2}", "1.5"),
        ),
        *(
            (r"\$5", "5"),
            ("1,000", "1000"),
            ("y=2x+1", "y=1+2x"),
            ("1.0", r"0.\overline{9}"),
            (r"30^\circ", "30"),
        ),
        *(
            (r"\int_0^1 x dx", r"\frac12"),
            (r"f(x)=x", "x"),
            (r"x=1,y=2", "y=2,x=1"),
            (r"x \in \mathbb{R}", r"\mathbb{R}"),
        ),
    ]
    real, free = sympy_parser.parse_expr, child.maths()
    vars(sympy_parser)["parse_expr"] = real
    locked = workers("maths", LIMIT).judge([(gold, [answer]) for gold, answer in pairs])
    expected = [free(gold, [answer]) for gold, answer in pairs]
    assert [verdict.value for verdict in locked] == expected
    assert sum(expected) >= 30
