"""The command as the tests call it: its exit status, and what it says of an error."""

from __future__ import annotations

import pytest

from agents.cli import main


def run(*arguments: str) -> int:
    """Exit status of the command."""
    try:
        main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def lines(capsys: pytest.CaptureFixture[str]) -> str:
    """What stands on standard error: one line, no traceback."""
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error.count("\n") == 1, error
    return error
