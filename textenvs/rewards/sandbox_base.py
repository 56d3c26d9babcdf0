"""What goes into a sandbox and what comes out of it; no isolation lives here (see the tiers beside this module)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from textenvs.rewards.base import RewardError
from textenvs.strict_json import JsonLimits, read_json

#: Most bytes that a program may answer with; more is a flood.
MAX_ANSWER_BYTES = 1 << 20
#: Deepest nesting of a value that goes in or comes out.
MAX_DEPTH = 64
#: Digits of the largest integer that comes out; reading a longer one would cost the parent quadratic time.
MAX_DIGITS = 4_000
#: Of an answer: a list of results around values; a program may return half of a character, which is then wrong.
ANSWER = JsonLimits(MAX_ANSWER_BYTES, MAX_DEPTH + 3, MAX_ANSWER_BYTES, MAX_DIGITS, surrogates=True)


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

    Refused: anything but one list of `num_cases` objects with the key "value" or "error"; what `read_json` refuses.
    """
    try:
        results = read_json(line.decode(), ANSWER)
    except ValueError as error:
        return Outcome("model_fault", detail=f"the answer is no strict JSON: {str(error)[:200]}")
    if not isinstance(results, list) or len(results) != num_cases or not all(map(_is_result, results)):
        return Outcome("model_fault", detail="the answer is not one result for each case")
    errors = [result["error"] for result in results if "error" in result]
    return Outcome("model_fault" if errors else "ok", tuple(results), errors[0][:500] if errors else "")


def _is_result(result: Any) -> bool:
    if not isinstance(result, dict) or len(result) != 1:
        return False
    return "value" in result or isinstance(result.get("error"), str)
