"""Training problems of PythonFunction, on texts. See `textenvs.assets.functions.build`."""

from __future__ import annotations

from textenvs.assets.functions.sources import Source, integer, mirrored, registrar, sentence, word, words

SOURCES: list[Source] = []
problem = registrar(SOURCES)


@problem(word("abcXY 12"), edges=[("",), ("a",), ("ab",), ("xyz",)])
def backwards(text: str) -> str:
    """Return the text backwards.

    >>> backwards("abc")
    'cba'
    """
    return text[::-1]


@problem(mirrored(), edges=[("",), ("a",), ("ab",), ("abba",), ("abcba",), ("Aa",), ("abcaba",)])
def is_palindrome(text: str) -> bool:
    """Return whether the text reads the same backwards.

    >>> is_palindrome("abba")
    True
    """
    return text == text[::-1]


@problem(word("abeiouxyAEU", 12), edges=[("",), ("aeiou",), ("xyz",), ("AEIOU",)])
def count_vowels(text: str) -> int:
    """Return how many letters are one of aeiou.

    >>> count_vowels("banana")
    3
    """
    return sum(c in "aeiou" for c in text)


@problem(word("abcAB", 12), word("abcAB", 1), edges=[("", "a"), ("aaa", "a"), ("AAA", "a")])
def count_letter(text: str, letter: str) -> int:
    """Return how often the letter stands in the text.

    >>> count_letter("banana", "a")
    3
    """
    return text.count(letter)


@problem(sentence(most=12), edges=[("",), ("one",), ("a b c",), ("a a",), ("  two  words ",)])
def count_words(text: str) -> int:
    """Return the number of words between spaces.

    >>> count_words("to be or")
    3
    """
    return len(text.split())


@problem(sentence(most=8), edges=[("",), ("one",), ("a b",)])
def initials(text: str) -> str:
    """Return the first letter of every word, in upper case.

    >>> initials("as soon as")
    'ASA'
    """
    return "".join(w[0].upper() for w in text.split())


@problem(word("abcAB"), edges=[("",), ("aBc",), ("XYZ",)])
def swap_case(text: str) -> str:
    """Return small letters as capitals and capitals as small ones.

    >>> swap_case("aBc")
    'AbC'
    """
    return text.swapcase()


@problem(words(), edges=[([],), (["a"],), (["b", "a"],)])
def join_words(items: list[str]) -> str:
    """Return the words with a comma between two of them.

    >>> join_words(["a", "b"])
    'a,b'
    """
    return ",".join(items)


@problem(words(), edges=[([],), (["a", "bb"],), (["bb", "aa"],)])
def longest(items: list[str]) -> str:
    """Return the first of the longest words; "" for none.

    >>> longest(["a", "bcd"])
    'bcd'
    """
    return max(items, key=len, default="")


@problem(word("aabbcA", 12), edges=[("",), ("aaa",), ("abc",)])
def letter_counts(text: str) -> dict[str, int]:
    """Return how often each letter stands in the text.

    >>> letter_counts("aba")
    {'a': 2, 'b': 1}
    """
    return {c: text.count(c) for c in text}


@problem(word("abA", 12), edges=[("",), ("a",), ("aaab",)])
def run_lengths(text: str) -> list[list[str | int]]:
    """Return each run of equal letters with its length.

    >>> run_lengths("aab")
    [['a', 2], ['b', 1]]
    """
    runs: list[list[str | int]] = []
    start = 0
    for i in range(1, len(text) + 1):
        if i == len(text) or text[i] != text[start]:
            runs.append([text[start], i - start])
            start = i
    return runs


@problem(integer(0, 2000), edges=[(0,), (1,), (2,), (255,)])
def to_binary(n: int) -> str:
    """Return n >= 0 in base 2, without a prefix.

    >>> to_binary(5)
    '101'
    """
    return bin(n)[2:]


@problem(integer(1, 200), edges=[(1,), (3,), (5,), (15,), (30,)])
def fizz_buzz(n: int) -> str:
    """Return "Fizz" for multiples of 3, "Buzz" of 5, "FizzBuzz" of both, else n.

    >>> fizz_buzz(9)
    'Fizz'
    """
    return "Fizz" * (n % 3 == 0) + "Buzz" * (n % 5 == 0) or str(n)
