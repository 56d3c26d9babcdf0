"""The corpus against the sandbox: 330 attacks that must fail, 100 odd programs that must pass, and what sees a hit."""

from __future__ import annotations

import os

import hostile_programs as corpus
import pytest
from sandboxed import bubblewrap

from textenvs.rewards import sandbox_bwrap, sandbox_probe

__all__ = ["bubblewrap"]
ODD_CASES = [{"args": [a, b], "expected": a + b} for a, b in ((1, 2), (0, 0), (-5, 7), (100, -1))]


def sample() -> list[corpus.Program]:
    """The first program of some mechanisms of every family."""
    first = [program for program in corpus.programs() if program.variant == 0]
    return [program for family in corpus.FAMILIES for program in [p for p in first if p.family == family][::5]]


@pytest.mark.usefixtures("bubblewrap")
def test_attacks_fail() -> None:
    with corpus.World() as world:
        verdicts = [corpus.attack(world, program, 0.7) for program in sample()]
    assert len(verdicts) >= 25
    assert not [(str(v.program), v.problems) for v in verdicts if v.problems]


@pytest.mark.usefixtures("bubblewrap")
def test_what_the_host_would_remember_is_refused() -> None:
    """Names, locks, metadata and the limit of core dumps: all of their variants, since each is a call of its own."""
    mechanisms = ("makes names without end", "locks a file", "changes what the host knows", "asks for a core dump")
    programs = [p for p in corpus.programs("memory", "state", "syscalls") if p.mechanism.startswith(mechanisms)]
    with corpus.World() as world:
        verdicts = [corpus.attack(world, program, 1.0, honest_after=False) for program in programs]
    assert len(verdicts) >= 40
    assert not [(str(v.program), v.problems) for v in verdicts if v.problems]


@pytest.mark.slow
@pytest.mark.usefixtures("bubblewrap")
def test_all_attacks_fail() -> None:
    with corpus.World() as world:
        verdicts = [corpus.attack(world, program, 3.0) for program in corpus.programs()]
    assert not [(str(v.program), v.problems) for v in verdicts if v.problems]


def test_the_corpus_is_as_large_as_it_says() -> None:
    programs = corpus.programs()
    assert len({program.code for program in programs}) == len(programs) >= 200
    assert len({(program.family, program.mechanism) for program in programs}) >= 40
    assert len({program.code for program in corpus.odd_programs()}) == len(corpus.odd_programs()) >= 100


def test_forgers_do_fool_a_naive_checker() -> None:
    """Positive control: the same programs pass where program, expected values and verdict share a process."""
    with corpus.World() as world:
        assert corpus.naive_verdict("def f(a, b): return 1", world.cases) is False
        fooled = [corpus.naive_verdict(world.aimed(program), world.cases) for program in corpus.programs("forging")]
    assert sum(fooled) >= 20


def test_the_world_sees_what_hits_it() -> None:
    with corpus.World() as world:
        assert world.damage() == []
        for number, listener in enumerate(world._listeners):
            with corpus.socket.socket(listener.family, listener.type) as attacker:
                attacker.connect(listener.getsockname())
                attacker.send(b"loot")
            assert len(world.damage()) == 1, number
        world.victim.write_text("attacked", encoding="utf-8")
        assert world.damage() == ["write"]
        assert world.leaked(f"... {world.values[1]} ...")
        assert world.leaked(os.environ["HOSTILE_CANARY"])


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize("part", range(4))
def test_odd_programs_that_are_right_pass(part: int) -> None:
    programs = corpus.odd_programs()
    # The fast run takes a fifth of them; `benchmarks/hostile.py` and the slow test take all.
    for program in programs[part::20]:
        value, status, said = corpus.score(program.code, ODD_CASES, 5.0)
        assert (value, status) == (1.0, "ok"), (str(program), said)


@pytest.mark.slow
@pytest.mark.usefixtures("bubblewrap")
def test_all_odd_programs_that_are_right_pass() -> None:
    scored = [(str(program), corpus.score(program.code, ODD_CASES, 5.0)) for program in corpus.odd_programs()]
    assert not [row for row in scored if row[1][0] != 1]


@pytest.mark.usefixtures("bubblewrap")
def test_the_namespaces_hold_without_the_system_call_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer counts: with a filter that allows everything, the host is still out of reach."""
    import pyseccomp

    with sandbox_probe.tempfile.TemporaryFile() as file:
        pyseccomp.SyscallFilter(pyseccomp.ALLOW).export_bpf(file)
        file.seek(0)
        everything = file.read()
    monkeypatch.setattr(sandbox_bwrap, "compiled_filter", lambda: everything)
    with corpus.World() as world:
        for program in corpus.programs("network", "reading", "processes", "memory"):
            if program.mechanism in (
                "connects by tcp",
                "sends by udp",
                "connects to a unix socket",
                "becomes a daemon",
                "makes names without end",
                "makes files without a name",
            ):
                said = corpus.score(world.aimed(program), world.cases, 1.0)[2]
                assert "SUCCEEDED" not in said, program
                assert not world.damage(), program
                assert not world.leaked(said), program
