"""What goes into a sandbox and what comes out of it; no isolation lives here (see the tiers beside this module)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from textenvs.rewards.base import RewardError

#: Most bytes that a program may answer with; more is a flood.
MAX_ANSWER_BYTES = 1 << 20
#: Deepest nesting of a value that goes in or comes out.
MAX_DEPTH = 64
#: Digits of the largest integer that comes out; reading a longer one would cost the parent quadratic time.
MAX_DIGITS = 4_000


class SandboxUnavailable(RewardError, RuntimeError):
    """No sandbox works on this machine; the message has what was tried and the remedy."""


@dataclass(frozen=True)
class Job:
    """One program to run. There is no place in it for an expected value, so none can enter a sandbox.

    Attributes:
        program: Python source, hostile.
        entry_point: name of the function to call.
        inputs: per case, the arguments of the call, JSON-able.
    """

    program: str
    entry_point: str
    inputs: tuple[list[Any], ...]


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    Attributes:
        seconds: wall clock from the moment the program starts, for all its cases.
        memory_mb: address space in MiB.
    """

    seconds: float = 3.0
    memory_mb: int = 512


@dataclass(frozen=True)
class Outcome:
    """What became of a job. All of it was written by the program, hence hostile.

    Attributes:
        status: `ok`: every call returned a JSON value; `model_fault`: the program broke, or broke the rules;
            `infra_fault`: the sandbox failed, and the program was not judged.
        results: per case `{"value": ...}` or `{"error": text}`; empty when there is no answer.
        detail: what went wrong, for people.
    """

    status: str
    results: tuple[dict[str, Any], ...] = ()
    detail: str = ""


def read_answer(line: bytes, num_cases: int) -> Outcome:
    """The outcome that a program's answer states, read as strictly as its writer deserves.

    Refused: anything but one list of `num_cases` objects with the key "value" or "error"; duplicate keys; NaN and
    infinities, also as 1e999; integers of more than `MAX_DIGITS` digits; deeper nesting than the parser stands.
    """
    try:
        results = json.loads(
            line,
            object_pairs_hook=_object,
            parse_int=_int,
            parse_float=_float,
            parse_constant=_refuse,
        )
    except (ValueError, RecursionError) as error:
        return Outcome("model_fault", detail=f"the answer is no strict JSON: {str(error)[:200]}")
    if not isinstance(results, list) or len(results) != num_cases or not all(map(_is_result, results)):
        return Outcome("model_fault", detail="the answer is not one result for each case")
    errors = [result["error"] for result in results if "error" in result]
    return Outcome("model_fault" if errors else "ok", tuple(results), errors[0][:500] if errors else "")


def _is_result(result: Any) -> bool:
    if not isinstance(result, dict) or len(result) != 1:
        return False
    return "value" in result or isinstance(result.get("error"), str)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate key")
    return members


def _int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"integer of more than {MAX_DIGITS} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("number out of range")
    return value


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")
