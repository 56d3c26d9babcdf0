"""Tier B: pydantic-monty, an interpreter of a subset of Python that has no way to reach files, network or processes.

For machines where bubblewrap cannot work. Once the interpreter runs, whatever happens is the program's doing and
`model_fault`. The price: a right program that needs what Monty lacks (class inheritance, `yield`, `del`, much of the
standard library) is called wrong, and so is one whose worker is killed from outside. To leave such programs out of the
means instead would let a policy choose `infra_fault` rather than 0, by a `yield` in everything it cannot solve.
"""

from __future__ import annotations

import math
import threading
from typing import Any

from textenvs.rewards.sandbox_base import MAX_DEPTH, MAX_DIGITS, Job, Limits, Outcome, SandboxUnavailable

NAME = "monty"
# Its constructor looks for its binary through `sysconfig`, which threads must not be the first to use together.
_starting = threading.Lock()


def run(job: Job, limits: Limits) -> Outcome:
    """Run one program in a worker of its own, half the seconds for loading it and half for all calls.

    Raises:
        SandboxUnavailable: pydantic-monty is missing.
    """
    try:
        import pydantic_monty as monty
    except ImportError:
        raise SandboxUnavailable('pydantic-monty is missing; pip install "textenvs[sandbox]"') from None
    bounds = {"max_feed_duration_secs": limits.seconds / 2, "max_memory": limits.memory_mb << 20}
    calls = f"[{job.entry_point}(*args) for args in _textenvs_inputs]"
    with _starting:
        workers = monty.Monty(request_timeout=limits.seconds / 2 + 0.5)
    ready = False
    try:
        with workers as pool, pool.checkout(limits=bounds) as session:
            session.feed_run("0")
            ready = True
            session.feed_run(job.program, print_callback=monty.CollectString())
            values = session.feed_run(
                calls, inputs={"_textenvs_inputs": list(job.inputs)}, print_callback=monty.CollectString()
            )
            results: list[dict[str, Any]] = [{"value": _plain(value)} for value in values]
    except (monty.MontyError, TypeError, ValueError, RecursionError) as error:
        cause = error.exception() if isinstance(error, monty.MontyError) else error
        return Outcome("model_fault" if ready else "infra_fault", detail=f"{type(cause).__name__}: {cause}"[:500])
    return Outcome("ok", tuple(results))


def _plain(value: Any, depth: int = 0) -> Any:
    """The value, when it is a JSON value.

    Raises:
        TypeError: it is not.
        ValueError: it is too deep, too long, or not finite.
    """
    kind = type(value)
    if depth > MAX_DEPTH or (kind is float and not math.isfinite(value)):
        raise ValueError("the returned value is too deep or not finite")
    if kind is int and value.bit_length() > 3 * MAX_DIGITS:
        raise ValueError("the returned integer is too large")
    if kind is list:
        return [_plain(item, depth + 1) for item in value]
    if kind is dict and all(type(key) is str for key in value):
        return {key: _plain(item, depth + 1) for key, item in value.items()}
    if value is None or kind in (bool, int, float, str):
        return value
    raise TypeError(f"returned a {kind.__name__}, which is no JSON value")
