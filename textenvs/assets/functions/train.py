"""Training problems of PythonFunction, on numbers and lists. See `textenvs.assets.functions.build`."""

from __future__ import annotations

from textenvs.assets.functions.sources import Source, chosen, either, integer, integers, registrar

SOURCES: list[Source] = []
problem = registrar(SOURCES)


@problem(integer(-99, 99), integer(-99, 99), edges=[(0, 0), (1, -1), (2**40, 1)])
def add(a: int, b: int) -> int:
    """Return the sum of a and b.

    >>> add(1, 2)
    3
    """
    return a + b


@problem(integer(-99, 99), integer(-99, 99), edges=[(0, 0), (3, 3), (1, 2)])
def difference(a: int, b: int) -> int:
    """Return a minus b.

    >>> difference(5, 2)
    3
    """
    return a - b


@problem(integer(-99, 99), edges=[(0,), (1,), (-1,), (2**40,)])
def double(n: int) -> int:
    """Return twice n.

    >>> double(4)
    8
    """
    return 2 * n


@problem(integer(-99, 99), edges=[(0,), (-1,), (12,)])
def square(n: int) -> int:
    """Return n times n.

    >>> square(-3)
    9
    """
    return n * n


@problem(integer(-999, 999), edges=[(0,), (1,), (-1,), (-2,), (7,)])
def is_even(n: int) -> bool:
    """Return whether n is even.

    >>> is_even(4)
    True
    """
    return n % 2 == 0


@problem(integer(-99, 99), integer(-99, 99), edges=[(0, 0), (-2, -1), (1, 5)])
def larger(a: int, b: int) -> int:
    """Return the larger of a and b.

    >>> larger(3, 7)
    7
    """
    return max(a, b)


@problem(integer(-99, 99), edges=[(0,), (-1,), (1,)])
def sign(n: int) -> int:
    """Return 1 for a positive n, -1 for a negative n, else 0.

    >>> sign(-8)
    -1
    """
    return (n > 0) - (n < 0)


@problem(integer(-20, 30), integer(-5, 5), integer(6, 20), edges=[(0, 0, 9), (-1, 0, 9), (10, 0, 9), (9, 0, 9)])
def clamp(n: int, low: int, high: int) -> int:
    """Return n held between low and high.

    >>> clamp(12, 0, 9)
    9
    """
    return max(low, min(n, high))


@problem(integer(0, 50), edges=[(0,), (1,), (2,), (20,)])
def factorial(n: int) -> int:
    """Return the product of the numbers 1 to n; 1 for 0.

    >>> factorial(4)
    24
    """
    result = 1
    for i in range(2, n + 1):
        result *= i
    return result


@problem(integer(0, 90), edges=[(0,), (1,), (2,), (3,), (10,)])
def fibonacci(n: int) -> int:
    """Return Fibonacci number n: 0, 1, 1, 2, 3, 5, ...

    >>> fibonacci(6)
    8
    """
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


@problem(
    either(integer(1, 99), chosen(range(12, 200, 12))),
    either(integer(1, 99), chosen(range(12, 200, 12))),
    edges=[(1, 1), (12, 18), (0, 5), (7, 0), (13, 7), (36, 12)],
)
def greatest_divisor(a: int, b: int) -> int:
    """Return the greatest common divisor.

    >>> greatest_divisor(12, 18)
    6
    """
    while b:
        a, b = b, a % b
    return a


@problem(integer(0, 99999), edges=[(0,), (9,), (10,), (10**12,)])
def digit_sum(n: int) -> int:
    """Return the sum of the decimal digits of n >= 0.

    >>> digit_sum(305)
    8
    """
    return sum(int(d) for d in str(n))


@problem(integer(1, 120), edges=[(1,), (2,), (12,), (13,), (49,), (36,)])
def divisors(n: int) -> list[int]:
    """Return all divisors of n > 0, ascending.

    >>> divisors(6)
    [1, 2, 3, 6]
    """
    return [d for d in range(1, n + 1) if n % d == 0]


@problem(integers(), edges=[([],), ([0],), ([-1, 1],)])
def total(numbers: list[int]) -> int:
    """Return the sum of the numbers; 0 for none.

    >>> total([1, 2, 3])
    6
    """
    return sum(numbers)


@problem(integers(), edges=[([],), ([5],), ([0, -2],)])
def product(numbers: list[int]) -> int:
    """Return the product of the numbers; 1 for none.

    >>> product([2, 3])
    6
    """
    result = 1
    for n in numbers:
        result *= n
    return result


@problem(integers(-20, 20), edges=[([],), ([1],), ([2],), ([-2, 0, 3],), ([4, 2, 4],)])
def evens(numbers: list[int]) -> list[int]:
    """Return the even numbers in their order.

    >>> evens([1, 2, 4])
    [2, 4]
    """
    return [n for n in numbers if n % 2 == 0]


@problem(integers(), edges=[([],), ([-1],), ([0, 0],)])
def squares(numbers: list[int]) -> list[int]:
    """Return the square of each number.

    >>> squares([1, -2])
    [1, 4]
    """
    return [n * n for n in numbers]


@problem(integers(-3, 3), edges=[([],), ([0],), ([-3, 3],), ([2, 2],)])
def count_positive(numbers: list[int]) -> int:
    """Return how many numbers are above 0.

    >>> count_positive([1, -2, 3])
    2
    """
    return sum(n > 0 for n in numbers)


@problem(integers(-5, 5), edges=[([],), ([4],), ([2, 2, 1],)])
def descending(numbers: list[int]) -> list[int]:
    """Return the numbers from large to small.

    >>> descending([1, 3, 2])
    [3, 2, 1]
    """
    return sorted(numbers, reverse=True)


@problem(integers(0, 4, 12), edges=[([],), ([1, 1, 1],), ([3, 1, 3],)])
def unique(numbers: list[int]) -> list[int]:
    """Return each number once, in order of first appearance.

    >>> unique([2, 1, 2])
    [2, 1]
    """
    result: list[int] = []
    for n in numbers:
        if n not in result:
            result.append(n)
    return result


@problem(integers(), edges=[([],), ([7],), ([1, 1, 1],)])
def running_sum(numbers: list[int]) -> list[int]:
    """Return the sums of the first 1, 2, ... numbers.

    >>> running_sum([1, 2, 3])
    [1, 3, 6]
    """
    return [sum(numbers[: i + 1]) for i in range(len(numbers))]


@problem(integers(), integer(0, 20), edges=[([], 3), ([1, 2, 3], 0), ([1, 2, 3], 4), ([1, 2, 3], 3)])
def rotate(numbers: list[int], k: int) -> list[int]:
    """Move the first k numbers to the end, round and round.

    >>> rotate([1, 2, 3], 1)
    [2, 3, 1]
    """
    if not numbers:
        return []
    k %= len(numbers)
    return numbers[k:] + numbers[:k]


@problem(integers(most=12), integer(1, 5), edges=[([], 2), ([1], 3), ([1, 2, 3, 4], 2)])
def chunks(numbers: list[int], size: int) -> list[list[int]]:
    """Split into lists of size numbers; the last may be shorter.

    >>> chunks([1, 2, 3], 2)
    [[1, 2], [3]]
    """
    return [numbers[i : i + size] for i in range(0, len(numbers), size)]


@problem(integers(-5, 5), integers(-5, 5), edges=[([], []), ([1], []), ([2, 2], [2])])
def common(a: list[int], b: list[int]) -> list[int]:
    """Return the numbers that both lists hold, ascending, each once.

    >>> common([1, 2], [2, 3])
    [2]
    """
    return sorted(set(a) & set(b))


@problem(integers(), edges=[([],), ([3],), ([5, 1, 9],)])
def spread(numbers: list[int]) -> int:
    """Return the largest number minus the smallest; 0 for none.

    >>> spread([4, 1, 6])
    5
    """
    return max(numbers) - min(numbers) if numbers else 0
