"""What a problem of PythonFunction is made of: a function, edge cases, and generators of further arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Draw = Callable[[np.random.Generator], Any]


class Source(NamedTuple):
    """A function, what draws the list of its arguments, and arguments that must be among the cases."""

    function: Callable[..., Any]
    arguments: Draw
    edges: tuple[tuple[Any, ...], ...]


def either(*draws: Draw) -> Draw:
    """What one of the generators draws: a function with few answers needs cases on both sides of its border."""
    return lambda rng: draws[rng.integers(len(draws))](rng)


def chosen(values: Sequence[int]) -> Draw:
    """One of the values."""
    return lambda rng: int(rng.choice(values))


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


def ascending(most: int = 12) -> Draw:
    """A list of at most `most` ints, ascending but for two neighbours in every other one."""
    some = integers(0, 20, most)

    def draw(rng: np.random.Generator) -> list[int]:
        numbers = sorted(some(rng))
        if len(numbers) > 1 and rng.random() < 0.5:
            i = int(rng.integers(1, len(numbers)))
            numbers[i - 1 : i + 1] = [numbers[i] + 1, numbers[i - 1]]
        return numbers

    return draw


def mirrored(letters: str = "abcAB", most: int = 5) -> Draw:
    """A text that reads the same backwards, but for one letter or its case in every other one."""
    half = word(letters, most)

    def draw(rng: np.random.Generator) -> str:
        start: str = half(rng)
        text = start + start[::-1][int(rng.integers(2)) :]
        if len(text) > 1 and rng.random() < 0.5:
            i = int(rng.integers(len(text) // 2))
            other = text[i].swapcase() if rng.random() < 0.5 else "z"
            text = f"{text[:i]}{other}{text[i + 1 :]}"
        return text

    return draw


def rearranged(letters: str = "bcde", most: int = 8) -> Draw:
    """A text and its letters in another order, in every other pair with two of them moved apart in the alphabet."""
    one = word(letters, most)

    def draw(rng: np.random.Generator) -> list[str]:
        text = one(rng)
        other = [text[i] for i in rng.permutation(len(text))]
        if len(text) > 1 and rng.random() < 0.5:
            other[:2] = [chr(ord(other[0]) - 1), chr(ord(other[1]) + 1)]
        return [text, "".join(other)]

    return draw


def registrar(sources: list[Source]) -> Callable[..., Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """A decorator `problem(*draws, edges=[...])` that adds functions to `sources`.

    A draw is of one argument each; with `together`, the only draw is of the list of all arguments.
    """

    def problem(
        *draws: Draw, edges: list[tuple[Any, ...]], together: bool = False
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            arguments = draws[0] if together else lambda rng: [draw(rng) for draw in draws]
            sources.append(Source(function, arguments, tuple(edges)))
            return function

        return register

    return problem
