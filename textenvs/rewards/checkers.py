"""Rewards that check a text against a rule: a regular expression, required and forbidden words, a language."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np

from textenvs.rewards.base import ProblemLike, Responses, Reward, Scores
from textenvs.rewards.libraries import library

#: A longer response is refused unread (status model_fault).
MAX_CHARS = 100_000
#: Characters of a pattern.
MAX_PATTERN_CHARS = 10_000
#: Characters of a response that the language identifier reads.
MAX_LANGUAGE_CHARS = 10_000

BACK_REFERENCE = "a back-reference needs backtracking; list the repeated texts as alternatives"
LOOK_AROUND = "look-around needs backtracking; write what may stand there into the pattern itself"
# What re2 says of a pattern, and what to do about it.
_REMEDIES = (
    ("invalid perl operator: (?P", BACK_REFERENCE),
    ("invalid perl operator: (?", LOOK_AROUND),
    ("invalid escape sequence: \\", BACK_REFERENCE),
    ("repetition size", "a repetition may count to 1,000; ask for the length by another reward"),
    ("too large", "the compiled pattern is too large; use smaller repetitions"),
)


#: What people write for the code of a language.
_CODES = dict(
    re.findall(
        "([a-z]+)=([a-z]+)",
        "arabic=ar chinese=zh czech=cs danish=da dutch=nl english=en finnish=fi french=fr german=de greek=el hebrew=he "
        "hindi=hi hungarian=hu italian=it japanese=ja korean=ko latin=la norwegian=no persian=fa polish=pl "
        "portuguese=pt romanian=ro russian=ru spanish=es swedish=sv thai=th turkish=tr ukrainian=uk vietnamese=vi",
    )
)


class Regex(Reward):
    """1.0 when the response matches the regular expression, else 0.0. Range [0, 1].

    The pattern is the argument, or `metadata["pattern"]`. It is matched by RE2 in time linear in the text, so no
    response can stall it; in return back-references and look-around are refused when the task is built.

    Withstands: responses made to be slow, line breaks (`.` and `$` stop at none in mode "fullmatch"), padding of a
    response under "fullmatch", lone surrogates and more than 100,000 characters (status model_fault).
    Does not withstand, in mode "search": a match in the middle of anything.

    Source: google-re2, github.com/google/re2.

    Args:
        pattern: in RE2's syntax, for all problems; None takes `metadata["pattern"]`.
        mode: "fullmatch", the whole response, or "search", any part of it.
    """

    name = "regex"
    value_range = (0.0, 1.0)

    def __init__(self, pattern: str | None = None, *, mode: str = "fullmatch") -> None:
        if mode not in ("fullmatch", "search"):
            raise ValueError(f"mode must be 'fullmatch' or 'search', got {mode!r}; the usual one is 'fullmatch'")
        library("re2", self.name)
        self.pattern, self.mode = pattern, mode
        if pattern is not None:
            compiled(pattern)

    def require(self, problem: ProblemLike) -> None:
        """See `Reward.require`."""
        compiled(self._pattern_of(problem))

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        values, status = np.zeros(len(responses)), ["ok"] * len(responses)
        for i, (problem, text) in enumerate(zip(problems, responses.texts, strict=True)):
            pattern = compiled(self._pattern_of(problem))
            if len(text) > MAX_CHARS:
                status[i] = "model_fault"
                continue
            try:
                match = pattern.fullmatch(text) if self.mode == "fullmatch" else pattern.search(text)
            except UnicodeEncodeError:  # no pattern of characters matches half a character
                status[i] = "model_fault"
                continue
            values[i] = float(match is not None)
        return Scores(values, {self.name: values}, status)

    def _pattern_of(self, problem: ProblemLike) -> Any:
        pattern = problem.metadata.get("pattern") if self.pattern is None else self.pattern
        if pattern is None:
            raise ValueError(
                f"the problem with prompt {problem.prompt[:80]!r} must have metadata['pattern'], got none; "
                "give it one, or one to Regex(pattern=...)"
            )
        return pattern


class Words(Reward):
    """Share of the required words that the response holds; 0 when it holds a forbidden one. Range [0, 1].

    Words are the arguments, or `metadata["required"]` and `metadata["forbidden"]`. A word counts as a whole, in any
    case (Unicode case folding) and normal form (NFKC); several words with spaces between must stand in that order. A
    word is made of letters, digits and the marks that combine with them; characters without width do not part it.

    Withstands: a word inside of a longer one, repetition of one word for another, a forbidden word in capitals, between
    underscores (`_rain_`), or with a soft hyphen or a character without width inside.
    Does not withstand: the bare list of the required words; an empty response where words are only forbidden; a
    forbidden word with letters of another script that look alike (Cyrillic for Latin), with digits for letters, with an
    accent, or with its letters spaced out. Multiply it by a reward for what the text should be.

    Args:
        required: texts for all problems; None takes the metadata's.
        forbidden: the same.
    """

    name = "words"
    value_range = (0.0, 1.0)

    def __init__(self, *, required: Sequence[str] | None = None, forbidden: Sequence[str] | None = None) -> None:
        self._given = {"required": required, "forbidden": forbidden}
        if required is not None or forbidden is not None:
            _phrases("required", required or ())
            _phrases("forbidden", forbidden or ())

    def require(self, problem: ProblemLike) -> None:
        """See `Reward.require`."""
        required, forbidden = self._words_of(problem)
        if not required and not forbidden:
            raise ValueError(
                f"the problem with prompt {problem.prompt[:80]!r} must have metadata['required'] or "
                "metadata['forbidden'], got neither; name a word"
            )
        if both := set(required) & set(forbidden):
            raise ValueError(f"a word must be required or forbidden, got both for {min(both).strip()!r}; drop one")

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        values = np.zeros(len(responses))
        for i, (problem, text) in enumerate(zip(problems, responses.texts, strict=True)):
            required, forbidden = self._words_of(problem)
            folded = _folded(text)
            if not any(phrase in folded for phrase in forbidden):
                values[i] = sum(phrase in folded for phrase in required) / len(required) if required else 1.0
        return Scores(values, {self.name: values})

    def _words_of(self, problem: ProblemLike) -> tuple[tuple[str, ...], tuple[str, ...]]:
        required, forbidden = (
            _phrases(name, problem.metadata.get(name, ()) if given is None else given)
            for name, given in self._given.items()
        )
        return required, forbidden


class Language(Reward):
    """Probability that the response is in the language, by py3langid; 0 for a text too short to tell. Range [0, 1].

    The language is the argument, or `metadata["language"]`: a code of ISO 639-1 such as "de". The first 10,000
    characters are read.

    Withstands: an empty response, digits and punctuation, a single word (fewer than `min_letters` letters).
    Does not withstand: any text of that language, whatever it says, and the repetition of one word of it. Short
    texts are often taken for another language's: see docs/rewards.md before a gate on this.

    Source: Lui and Baldwin 2012, "langid.py"; py3langid.

    Args:
        language: for all problems; None takes `metadata["language"]`.
        min_letters: shortest text that is judged, at least 1.
    """

    name = "language"
    value_range = (0.0, 1.0)

    def __init__(self, language: str | None = None, *, min_letters: int = 20) -> None:
        if isinstance(min_letters, bool) or not isinstance(min_letters, int) or min_letters < 1:
            raise ValueError(f"min_letters must be an int of at least 1, got {min_letters!r}; the usual one is 20")
        library("py3langid", self.name)
        self.language, self.min_letters = language, min_letters
        if language is not None:
            _check_language(language)

    def require(self, problem: ProblemLike) -> None:
        """See `Reward.require`."""
        self._language_of(problem)

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        values = np.zeros(len(responses))
        for i, (problem, text) in enumerate(zip(problems, responses.texts, strict=True)):
            language = self._language_of(problem)
            text = text[:MAX_LANGUAGE_CHARS]
            if sum(map(str.isalpha, text)) >= self.min_letters:
                values[i] = _language_probabilities(text).get(language, 0.0)
        return Scores(values, {self.name: values})

    def _language_of(self, problem: ProblemLike) -> str:
        language = problem.metadata.get("language") if self.language is None else self.language
        _check_language(language)
        return str(language)


@lru_cache(maxsize=1 << 12)
def compiled(pattern: str) -> Any:
    """A pattern compiled by RE2.

    Raises:
        ValueError: RE2 refuses it; says why, and what to use.
    """
    re2 = library("re2", Regex.name)
    if not isinstance(pattern, str) or len(pattern) > MAX_PATTERN_CHARS:
        raise ValueError(f"pattern must be text of at most {MAX_PATTERN_CHARS:,} characters, got {str(pattern)[:80]!r}")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        remedy = next((text for start, text in _REMEDIES if start in reason), "see github.com/google/re2/wiki/Syntax")
        raise ValueError(f"pattern must be one that RE2 takes, got {pattern[:80]!r}: {reason}; {remedy}") from None


@cache
def _identifier() -> Any:
    """The language identifier; its model is a data file of the library, read without unpickling."""
    langid = library("py3langid.langid", Language.name)  # 0.1 s, and 0.5 s for the model
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)


def _language_probabilities(text: str) -> dict[str, float]:
    clean = text.encode("utf-8", "replace").decode()
    return {str(label): min(1.0, max(0.0, float(p))) for label, p in _identifier().rank(clean)}


def _check_language(language: Any) -> None:
    known = _identifier().labels
    if language not in known:
        word = str(language).lower()
        code = word if word in known else _CODES.get(word)
        hint = f"did you mean {code!r}? " if code else ""
        raise ValueError(
            f"language must be a code that py3langid knows, got {language!r}; {hint}known: {', '.join(known)}"
        )


def _phrases(name: str, words: Iterable[str]) -> tuple[str, ...]:
    """Each text as it is looked for in a folded text."""
    if isinstance(words, str) or not isinstance(words, (list, tuple)):
        raise ValueError(f"{name} must be a list of words, got {words!r}; put it in a list")
    phrases = tuple(_folded_phrase(word) if isinstance(word, str) else "" for word in words)
    if not all(phrase.strip() for phrase in phrases):
        raise ValueError(f"{name} must hold texts of at least one letter or digit, got {list(words)!r}")
    return phrases


@lru_cache(maxsize=1 << 12)
def _folded_phrase(text: str) -> str:
    return _folded(text)


def _folded(text: str) -> str:
    """The words of a text, case-folded, with one space before and after each."""
    word = _WORD
    if not text.isascii():
        hidden, word = _unicode_patterns()
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", hidden.sub("", text)).casefold())
    return f" {' '.join(word.findall(text.casefold()))} "


_WORD = re.compile(r"[^\W_]+")
#: Fillers and variation selectors: without width, though Unicode calls them letters and marks.
_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"


@cache
def _unicode_patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What shows nothing; and a word, marks such as Indic vowel signs included, which `re` counts to no word."""
    of: dict[str, list[str]] = {"C": [], "M": []}
    for character in map(chr, (*range(0x20000), *range(0xE0000, 0xE1000))):  # the planes that hold any
        category = unicodedata.category(character)
        if category == "Cf" or category[0] == "M":
            of[category[0]].append(character)
    return re.compile(f"[{_FILLERS}{''.join(of['C'])}]"), re.compile(rf"[^\W_](?:[^\W_]|[{''.join(of['M'])}])*")
