"""What a problem of PythonFunction is made of: a function, edge cases, and generators of further arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Draw = Callable[[np.random.Generator], Any]


class Source(NamedTuple):
    """A function, how its arguments are drawn, and arguments that must be among the cases."""

    function: Callable[..., Any]
    draws: tuple[Draw, ...]
    edges: tuple[tuple[Any, ...], ...]


def integer(low: int, high: int) -> Draw:
    """An int in [low, high]."""
    return lambda rng: int(rng.integers(low, high + 1))


def integers(low: int = -9, high: int = 9, most: int = 8) -> Draw:
    """A list of at most `most` ints in [low, high]."""
    return lambda rng: rng.integers(low, high + 1, size=int(rng.integers(1, most + 1))).tolist()


def word(letters: str = "abcde", most: int = 8) -> Draw:
    """A text of at most `most` of the letters."""
    return lambda rng: "".join(rng.choice(list(letters), size=int(rng.integers(1, most + 1))).tolist())


def words(letters: str = "abc", most: int = 6) -> Draw:
    """A list of at most `most` short texts."""
    one = word(letters, 4)
    return lambda rng: [one(rng) for _ in range(int(rng.integers(1, most + 1)))]


def sentence(letters: str = "abcAB", most: int = 5) -> Draw:
    """Words with single spaces between them."""
    some = words(letters, most)
    return lambda rng: " ".join(some(rng))


def registrar(sources: list[Source]) -> Callable[..., Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """A decorator `problem(*draws, edges=[...])` that adds functions to `sources`."""

    def problem(*draws: Draw, edges: list[tuple[Any, ...]]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            sources.append(Source(function, draws, tuple(edges)))
            return function

        return register

    return problem
