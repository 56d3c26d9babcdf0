"""How optional libraries are imported: when first needed, and with the command that installs a missing one."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def library(module: str, reward: str, extra: str = "rewards") -> Any:
    """An optional module.

    Args:
        module: its full name.
        reward: the name of the reward that needs it, for the error.
        extra: the extra of textenvs that installs it.

    Raises:
        ImportError: it is not installed; says how to.
    """
    try:
        return import_module(module)
    except ImportError as error:
        needed = module.split(".")[0]
        raise ImportError(f'the reward "{reward}" needs {needed}; run: pip install "textenvs[{extra}]"') from error
