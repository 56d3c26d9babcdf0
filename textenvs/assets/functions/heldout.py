"""Held-out problems of PythonFunction. See `textenvs.assets.functions.build`."""

from __future__ import annotations

from textenvs.assets.functions.sources import (
    Source,
    ascending,
    chosen,
    either,
    integer,
    integers,
    rearranged,
    registrar,
    sentence,
    word,
    words,
)

SOURCES: list[Source] = []
PRIMES = [p for p in range(2, 400) if all(p % d for d in range(2, p))]
problem = registrar(SOURCES)


@problem(words(), edges=[(["a"],), (["bb", "a"],), (["a", "b", "cab"],)])
def last(items: list[str]) -> str:
    """Return the last one of the words.

    >>> last(["a", "bc"])
    'bc'
    """
    return items[-1]


@problem(integer(0, 99_999), edges=[(0,), (1,), (7,), (8,), (2**40 - 1,)])
def ones(n: int) -> int:
    """Return how many ones n >= 0 has when it is written in binary.

    >>> ones(10)
    2
    """
    return bin(n).count("1")


@problem(
    either(
        chosen([2**i for i in range(41)]),
        either(integer(1, 200), chosen([2**i + d for i in range(3, 41) for d in (-1, 1, 2)])),
    ),
    edges=[(0,), (1,), (2,), (3,), (64,), (96,), (256,), (1024,)],
)
def is_power_of_two(n: int) -> bool:
    """Return whether n is one of 1, 2, 4, 8, 16 and so on.

    >>> is_power_of_two(8)
    True
    """
    return n > 0 and n & (n - 1) == 0


@problem(
    either(integer(0, 100), chosen(PRIMES), chosen([p * q for p in PRIMES[4:9] for q in PRIMES[4:9]])),
    edges=[(0,), (1,), (2,), (3,), (4,), (5,), (7,), (9,), (25,), (49,), (91,), (97,), (121,), (341,)],
)
def is_prime(n: int) -> bool:
    """Return whether n is a prime number.

    >>> is_prime(7)
    True
    """
    return n > 1 and all(n % d for d in range(2, n))


@problem(integer(1, 300), edges=[(1,), (2,), (3,), (27,)])
def collatz_steps(n: int) -> int:
    """Return how many steps lead n to 1: halve an even n, else 3 * n + 1.

    >>> collatz_steps(3)
    7
    """
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


@problem(integers(0, 1, 12), edges=[([],), ([5],), ([2, 2, 2],), ([1, 2, 1],), ([0, 0, -1, -1],)])
def runs(numbers: list[int]) -> list[int]:
    """Return how long each run of equal numbers is.

    >>> runs([7, 7, 1, 7])
    [2, 1, 1]
    """
    result: list[int] = []
    for i in range(len(numbers)):
        if i > 0 and numbers[i] == numbers[i - 1]:
            result[-1] += 1
        else:
            result.append(1)
    return result


@problem(integers(), edges=[([],), ([4],), ([1, 1],)])
def gaps(numbers: list[int]) -> list[int]:
    """Return each number minus the one before it.

    >>> gaps([1, 4, 2])
    [3, -2]
    """
    return [numbers[i + 1] - numbers[i] for i in range(len(numbers) - 1)]


@problem(ascending(), edges=[([],), ([1],), ([1, 1],), ([1, 2, 3],), ([3, 2],), ([1, 2, 3, 4, 5, 4],)])
def is_sorted(numbers: list[int]) -> bool:
    """Return whether no number is smaller than the one before it.

    >>> is_sorted([1, 1, 2])
    True
    """
    return numbers == sorted(numbers)


@problem(integers(), integers(), edges=[([], []), ([1], []), ([], [2, 3]), ([1, 2], [3])])
def interleave(a: list[int], b: list[int]) -> list[int]:
    """Take numbers from a and b in turn, as far as both reach.

    >>> interleave([1, 2], [3, 4])
    [1, 3, 2, 4]
    """
    return [n for i in range(min(len(a), len(b))) for n in (a[i], b[i])]


@problem(word("abcdeiouAEx", 12), edges=[("",), ("aeiou",), ("xyz",), ("AEIOU",)])
def remove_vowels(text: str) -> str:
    """Return the text without the letters aeiou.

    >>> remove_vowels("banana")
    'bnn'
    """
    return "".join(c for c in text if c not in "aeiou")


@problem(sentence(), edges=[("",), ("one",), ("a b",), ("a  b ",)])
def reverse_words(text: str) -> str:
    """Return the words in reverse order with single spaces.

    >>> reverse_words("to be")
    'be to'
    """
    return " ".join(text.split()[::-1])


@problem(words(), edges=[([],), (["a"],), (["bb", "a", ""],)])
def lengths(items: list[str]) -> list[int]:
    """Return the length of each word.

    >>> lengths(["a", "bcd"])
    [1, 3]
    """
    return [len(w) for w in items]


@problem(
    rearranged(),
    edges=[("", ""), ("ab", "ba"), ("aab", "abb"), ("a", "aa"), ("ac", "bb"), ("aab", "aba"), ("Ab", "ab")],
    together=True,
)
def is_anagram(a: str, b: str) -> bool:
    """Return whether both texts have the same letters equally often.

    >>> is_anagram("ab", "ba")
    True
    """
    return sorted(a) == sorted(b)
