"""Completion at the keyboard: what a person may type next is what the legal tokens spell."""

from __future__ import annotations

import copy
import sys
from typing import Any

import gymnasium as gym
import numpy as np

import textenvs

MAX_TOKEN_LENGTH = 24  # characters of an unfinished token that are tried as its beginning
MAX_OFFERED = 200  # what is legal with nothing typed of it is offered only where it is no more than this


def completions(env: gym.Env[Any, Any], typed: str) -> list[str]:
    """Find the lines that continue a typed one by a legal token, or finish its last one.

    Args:
        env: a running episode; it is left as it is.
        typed: the line so far, which is appended to the response when it is entered.

    Returns:
        Whole lines, sorted, without any that would drive a terminal.
    """
    base: Any = env.unwrapped
    vocab = base.rules.vocab
    texts = [vocab.decode([token]) for token in range(vocab.num_tokens)]
    found: set[str] = set()
    for cut in range(len(typed), max(len(typed) - MAX_TOKEN_LENGTH, -1), -1):
        start, rest = typed[:cut], typed[cut:]
        try:
            ids = vocab.encode(start).tolist()
        except ValueError:
            continue
        legal = _legal_after(base, ids)
        tokens = [token for token in legal if texts[token].startswith(rest) and texts[token] != rest]
        if not rest and len(tokens) > MAX_OFFERED:
            continue
        for token in tokens:
            line = start + texts[token]
            # A tokenizer may spell the whole otherwise, with tokens that are not legal.
            if textenvs.printable(line) == line and vocab.encode(line).tolist() == [*ids, token]:
                found.add(line)
    return sorted(found)


def _legal_after(base: Any, ids: list[int]) -> list[int]:
    """Tokens that may follow some more; none where those are illegal or end the episode."""
    ahead = copy.deepcopy(base)
    for token in ids:
        if not ahead.action_masks()[token]:
            return []
        _, _, terminated, truncated, _ = ahead.step(token)
        if terminated or truncated:
            return []
    return [int(token) for token in np.flatnonzero(ahead.action_masks())]


def complete_by_tab(env: gym.Env[Any, Any]) -> None:
    """Let the tab key complete what is typed at a terminal; does nothing where there is none, or no readline."""
    if not sys.stdin.isatty():
        return
    try:
        import readline
    except ImportError:  # on Windows
        return
    lines: list[str] = []

    def complete(typed: str, state: int) -> str | None:
        nonlocal lines
        if state == 0:
            lines = completions(env, typed)
        return lines[state] if state < len(lines) else None

    readline.set_completer(complete)
    readline.set_completer_delims("")  # a token may begin with a space: the whole line is completed
    readline.set_auto_history(False)
    is_libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")
