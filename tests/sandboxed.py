"""Tests that need the strong sandbox skip where it cannot work, with the reason, and fail where it must."""

from __future__ import annotations

import os
from functools import cache
from typing import NoReturn

import pytest

from textenvs.rewards.sandbox import Job, Limits, SandboxUnavailable, run_programs


@cache
def why_not() -> str:
    """Why bubblewrap cannot be used here, or nothing."""
    try:
        run_programs([Job("def f(): return 1", "f", ([],))], Limits(), "bubblewrap")
    except SandboxUnavailable as error:
        return str(error)
    return ""


@pytest.fixture
def bubblewrap() -> None:
    """For tests that cannot do without it."""
    if reason := why_not():
        refuse(reason)


def refuse(reason: str) -> NoReturn:
    """Skip the test, or fail it where TEXTENVS_REQUIRE_SANDBOX=1, as in .ci/run."""
    if os.environ.get("TEXTENVS_REQUIRE_SANDBOX") == "1":
        pytest.fail(f"TEXTENVS_REQUIRE_SANDBOX=1, but {reason}")
    pytest.skip(reason)
