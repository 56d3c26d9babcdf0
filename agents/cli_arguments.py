"""What the verbs of the `textenvs` command share: types of arguments, checks of them, JSON on standard output."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import tyro

from agents.suites import near_id

EnvId = Annotated[str, tyro.conf.Positional]
EnvKwargs = Annotated[str, tyro.conf.arg(metavar="JSON")]


class UsageError(Exception):
    """What the user asked for cannot be done; the message says what would help."""


def make_env(env_id: str, env_kwargs: str, *, ours: bool = False) -> gym.Env[Any, Any]:
    """Make the env of an id with keyword arguments given as JSON.

    Args:
        env_id: a registered id.
        env_kwargs: a JSON object.
        ours: only a text environment will do.

    Raises:
        UsageError: an id that nobody registered, arguments that are no JSON object, or another env than a text one.
    """
    kwargs = json_object(env_kwargs)
    try:
        env = gym.make(env_id, **kwargs)
    except gym.error.UnregisteredEnv:
        raise UsageError(f"no environment has the id {env_id!r}; {near_id(env_id)}") from None
    if ours and "textgen" not in env.metadata:
        remedy = "see `textenvs list`; `textenvs train` takes it with --model mlp"
        raise UsageError(f"{env_id!r} is no text environment: it has no metadata['textgen']; {remedy}")
    return env


def os_error_sentence(error: OSError) -> str:
    """What a path must be that the system refused; an error with words of its own keeps them."""
    if error.errno is None or not isinstance(error.filename, str):
        return str(error)
    path = Path((error.filename2 or error.filename).removesuffix(".tmp"))  # files are written beside and renamed
    if error.errno == errno.EISDIR:
        return f"{path} must be a file, got a directory; name another"
    if error.errno == errno.ENOTDIR:
        return f"{path} must be in a directory, got a file in its place; name another"
    if error.errno == errno.ENOENT and not path.parent.is_dir():
        return f"{path} must be in a directory that exists, got none; make {path.parent} or name another"
    if error.errno == errno.ENOENT:
        return f"{path} must be a file that exists, got none; name another"
    return f"{path} must be a path that can be used, got: {str(error.strerror).lower()}; change that or name another"


def json_object(text: str) -> dict[str, Any]:
    """Read the JSON object of --env-kwargs; anything else is a UsageError."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--env-kwargs must be JSON, got {text[:200]!r}: {error}") from None
    if not isinstance(value, dict):
        raise UsageError(f"--env-kwargs must be a JSON object, got {text!r}; for example '{{\"length\": 4}}'")
    return value


def at_least_one(flag: str, value: int) -> None:
    """Refuse a value below 1 of a flag."""
    if value < 1:
        raise UsageError(f"{flag} must be at least 1, got {value}")


def not_negative(flag: str, value: int) -> None:
    """Refuse a value below 0 of a flag."""
    if value < 0:
        raise UsageError(f"{flag} must not be negative, got {value}")


def seed_list(text: str) -> list[int]:
    """Read --seeds: "3" is 0, 1, 2; "2-4" is 2, 3, 4; "0,5" is 0 and 5; anything else is a UsageError."""
    seeds: list[int] = []
    for part in [f"0-{int(text) - 1}"] if text.isdecimal() and len(text) < 6 else text.split(","):
        first, _, last = part.strip().partition("-")
        last = last or first
        if not (first.isdecimal() and last.isdecimal()) or max(len(first), len(last)) > 10 or int(last) < int(first):
            raise UsageError(f'--seeds must be how many or which, got {text!r}; for example "10", "0-4" or "0,7"')
        seeds += range(int(first), min(int(last), int(first) + 10_000) + 1)
    return seeds


def print_json(value: Any) -> None:
    """Print a value as JSON; a number that does not exist is an error."""
    print(json.dumps(value, indent=2, allow_nan=False))


def print_json_line(value: Any) -> None:
    """Print a value as JSON on one line."""
    print(json.dumps(value, allow_nan=False))
