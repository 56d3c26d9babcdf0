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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from maths_answers import HALVES, LIMIT, TOWER, children, judged

from textenvs.rewards import child, worker
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


FAKE = """
import json, sys, time
{start}
print(json.dumps({{"cpu": time.process_time()}}), flush=True)
for line in sys.stdin:
    word = json.loads(line)[1]
    while word == "hang":
        pass
    time.sleep(0.02 if word == "slow" else 0)
    print(json.dumps({{"value": word, "cpu": time.process_time()}}), flush=True)
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Workers]]:
    """Workers whose process echoes, hangs at "hang", and begins as a test says; no more of them than it says."""
    made = []

    def make(limit: float, start: str = "", **constants: Any) -> Workers:
        script = tmp_path / "fake.py"
        script.write_text(FAKE.format(start=start))
        for name, value in {"CHILD": script, **constants}.items():
            monkeypatch.setattr(worker, name, value)
        made.append(Workers("fake", limit))
        return made[-1]

    before = children()
    yield make
    for pool in made:
        pool.close()
    assert children() <= before


def said(verdicts: list[worker.Verdict]) -> list[Any]:
    return [verdict.value or verdict.status for verdict in verdicts]


@pytest.mark.parametrize("num_threads", [10, 32])
def test_many_threads_share_few_processes(fake: Callable[..., Workers], num_threads: int) -> None:
    """Every third one has an item that hangs: its own verdict, and no other, is a fault, and the model's."""
    pool, before, most = fake(0.5, MAX_PROCESSES=2), children(), 0
    calls = [[f"{i}", "hang" if i % 3 == 0 else "b", "c"] for i in range(num_threads)]
    barrier = threading.Barrier(num_threads)

    def ask(words: list[str]) -> list[Any]:
        barrier.wait()
        return said(pool.judge([(word,) for word in words]))

    with ThreadPoolExecutor(num_threads) as threads:
        futures = [threads.submit(ask, words) for words in calls]
        while not all(future.done() for future in futures):
            most = max(most, len(children() - before))
            time.sleep(0.01)
    assert [future.result() for future in futures] == [
        ["model_fault" if word == "hang" else word for word in words] for words in calls
    ]
    assert most == 2


def test_turns_are_taken_in_order_and_end(fake: Callable[..., Workers]) -> None:
    """One item does not wait for the hundred of the caller before."""
    pool, finished, started = fake(5.0, MAX_PROCESSES=1), [], threading.Event()

    def ask(name: str, items: list[tuple[str]]) -> None:
        started.set()
        assert said(pool.judge(items)) == ["slow"] * len(items)
        finished.append(name)

    many = threading.Thread(target=ask, args=("many", [("slow",)] * 100))
    many.start()
    started.wait()
    ask("one", [("slow",)])
    many.join()
    assert finished == ["one", "many"]


def test_neither_the_start_nor_a_late_write_takes_of_the_limit(
    fake: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, written = fake(0.5, "time.sleep(1)"), worker._Process._written
    assert said(pool.judge([("a",)])) == ["a"]
    monkeypatch.setattr(worker._Process, "_written", lambda *args: time.sleep(0.8) or written(*args))
    assert said(pool.judge([("a",)])) == ["a"]


@pytest.mark.parametrize(
    ("start", "detail"),
    [
        ("time.sleep(30)", "the fake checker was not ready within 0.5 s"),
        ("raise RuntimeError('no luck')", "the fake checker did not start: RuntimeError: no luck"),
        ("sys.exit()", "the fake checker did not start: no message"),
    ],
)
def test_a_process_that_does_not_start_is_an_infra_fault(fake: Callable[..., Workers], start: str, detail: str) -> None:
    seconds = 0.5 if "sleep" in start else 20.0
    pool, begin = fake(20.0, start, START_SECONDS=seconds), time.monotonic()
    verdicts = pool.judge([("a",)] * 3)
    assert {(verdict.status, verdict.detail) for verdict in verdicts} == {("infra_fault", detail)}
    assert time.monotonic() - begin < 15
    assert not pool._processes


def test_a_turn_that_does_not_come_is_an_infra_fault(fake: Callable[..., Workers]) -> None:
    """The queue goes on behind the one that gave up."""
    pool = fake(3.0, MAX_PROCESSES=1, WAIT_SECONDS=0.5)
    with ThreadPoolExecutor(1) as other:
        hanging = other.submit(pool.judge, [("hang",)])
        while not pool._processes:
            time.sleep(0.01)
        (verdict,) = pool.judge([("a",)])
        assert (verdict.status, verdict.detail) == ("infra_fault", "no fake checker was free within 0.5 s")
        assert not hanging.done()
        assert said(hanging.result()) == ["model_fault"]
    assert said(pool.judge([("a",)])) == ["a"]


def test_an_interrupted_call_gives_its_place_back(
    fake: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of an item: its late reply is not taken for the next one's."""
    pool = fake(5.0, MAX_PROCESSES=1)
    with monkeypatch.context() as patch:
        patch.setattr(worker, "_verdict", lambda reply: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pool.judge([("a",), ("b",)])
    assert not pool._processes
    assert said(pool.judge([("c",)])) == ["c"]


def test_killed_workers_are_replaced_without_harm(fake: Callable[..., Workers]) -> None:
    """All of the idle ones, or the one that is in the middle of a window."""
    pool = fake(5.0, MAX_PROCESSES=2)
    with pool._turn(), pool._turn():
        pass
    for process in pool._idle:
        os.kill(process.child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.child.pid, os.WEXITED | os.WNOWAIT)
    assert said(pool.judge([("a",)])) == ["a"]
    (process,) = pool._processes
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(pool.judge, [("slow",)] * 40)
        time.sleep(0.1)
        os.kill(process.child.pid, signal.SIGKILL)
        assert said(asked.result()) == ["slow"] * 40


def test_a_worker_that_is_killed_again_and_again_is_nobodys_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
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
if sys.argv[1] != "exit":
    os._exit(0)  # as if it were killed
"""


@pytest.mark.parametrize("state", ["idle", "busy", "exit"])
def test_a_worker_does_not_outlive_its_parent(state: str) -> None:
    out = subprocess.run([sys.executable, "-c", ORPHANS, state], capture_output=True, text=True, check=True).stdout
    deadline = time.monotonic() + 10
    assert state != "exit" or not Path(f"/proc/{out.strip()}").exists()
    while Path(f"/proc/{out.strip()}/environ").exists() and time.monotonic() < deadline:
        try:
            if Path(f"/proc/{out.strip()}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                break  # gone, only nobody waits for orphans here
        except OSError:
            break
        time.sleep(0.05)
    assert time.monotonic() < deadline


FORK = """
import os, sys, threading, time
from pathlib import Path
from textenvs.rewards import worker
worker.CHILD, worker.MAX_PROCESSES = Path(sys.argv[1]), 2
pool = worker.Workers("fake", 2.0)
ask = lambda *words: [verdict.value or verdict.status for verdict in pool.judge([(word,) for word in words])]
outcome = []
busy = threading.Thread(target=lambda: outcome.extend(ask("hang")))
busy.start()
while not pool._processes:
    time.sleep(0.01)
assert ask("a") == ["a"]
parents = list(pool._processes)
assert len(parents) == 2 and len(pool._idle) == 1
pid = os.fork()
if pid == 0:
    assert not pool._processes and all(process.child.stdin.closed for process in parents)
    os._exit(0 if ask("a", "b") == ["a", "b"] else 1)
assert os.waitpid(pid, 0)[1] == 0
assert ask("b") == ["b"]
busy.join()
assert outcome == ["model_fault"]
"""


def test_a_fork_starts_its_own(tmp_path: Path) -> None:
    """With one process idle and another, of another thread, in the middle of an item."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE.format(start=""))
    command = [sys.executable, "-W", "error", "-c", FORK, str(script)]
    assert subprocess.run(command, timeout=60).returncode == 0


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
