"""Translate's problems: frames of English and Spanish sentences, and which words may meet in which split.

Lives here: the frames, what can be done with what and be said of what, and the draw. The grammar: `spanish`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from itertools import count
from typing import Any, TypeVar

from textenvs.assets import spanish as es
from textenvs.assets.spanish import ADJECTIVE, VERB, Form, Word, fill, names_in, noun_phrase

#: A longer translation might not fit the budget of 40 tokens.
MAX_CHARS = 60

#: English | Spanish | other Spanish; [x/y] is left out, or x or y. Slots, where 1 or 2 means singular or plural: s, p
#: people; r people with "the"; e the pronoun of s; v o and w x a verb and its object; n a and h a a thing and its
#: quality, h after "'s"; m b a thing and its state; c a person's state; d, j a thing, j after "'s"; g what may be in a
#: place; y a gift; l, k places; i an intransitive verb; I the speaker, man or woman. See `spanish.fill` for the rest.
TRAIN = """
{s} {v:s} {o}. | {s} {v:s} {o}.
{s} {v:s} {o} every day. | {s} {v:s} {o} todos los días. | Todos los días {s} {v:s} {o}.
{s} {be:s} {v:ing} {o}. | {s} {stay:s} {v:ing} {o}. | {s} {v:s} {o}.
{s} {be:s} {v:ing} {o} in {l}. | {s} {stay:s} {v:ing} {o} en {l}. | {s} {v:s} {o} en {l}.
Yesterday {s} {v:past s} {o}. | Ayer {s} {v:past s} {o}. | {s} {v:past s} {o} ayer.
{s} {v:past s} {o} in {l}. | {s} {v:past s} {o} en {l}.
{s} {v:past s} {o} and {w:past s} {x}. | {s} {v:past s} {o} y {w:past s} {x}.
{s} will {v:inf} {o} tomorrow. | {s} {v:fut s} {o} mañana. | {s} {go:s} a {v:inf} {o} mañana.
{s} {do:s} not {v:inf} {o}. | {s} no {v:s} {o}.
{s} {want:s} to {v:inf} {o}. | {s} {want:s} {v:inf} {o}.
{s} {have:s} to {v:inf} {o}. | {s} {have:s} que {v:inf} {o}.
{s} {can:s} {v:inf} {o}. | {s} {can:s} {v:inf} {o}.
{s} never {v:s} {o}. | {s} nunca {v:s} {o}.
{s} always {v:s} {o}. | {s} siempre {v:s} {o}.
{s} {v:s} {o} with {p}. | {s} {v:s} {o} con {p}.
{s} and {p} {v:3p} {o}. | {s} y {p} {v:3p} {o}.
{do:s2} {s2} {v:inf} {o}? | ¿{s2} {v:s2} {o}? | ¿{v:s2} {s2} {o}?
I {v:1s} {o}. | [Yo] {v:1s} {o}.
I am {v:ing} {o}. | [Yo] estoy {v:ing} {o}. | [Yo] {v:1s} {o}.
I want to {v:inf} {o}. | [Yo] quiero {v:inf} {o}.
I have to {v:inf} {o}. | [Yo] tengo que {v:inf} {o}.
I cannot {i:inf}. | [Yo] no puedo {i:inf}.
We {v:1p} {o} in {l}. | [Nosotros/Nosotras] {v:1p} {o} en {l}.
We are not {v:ing} {o}. | [Nosotros/Nosotras] no estamos {v:ing} {o}. | [Nosotros/Nosotras] no {v:1p} {o}.
We can {i:inf} in {l}. | [Nosotros/Nosotras] podemos {i:inf} en {l}.
When I am {c}, I {v:1s} {o}. | Cuando [yo] estoy {c:I}, [yo] {v:1s} {o}.
I do not {i:inf} because I am {c}. | [Yo] no {i:1s} porque [yo] estoy {c:I}.
{s} {be:s} {c} because {e} {do:s} not {i:inf}. | {s} {stay:s} {c:s} porque [{e}] no {i:s}.
I am {c} today. | Hoy [yo] estoy {c:I}. | [Yo] estoy {c:I} hoy.
{s} {be:s} {c}. | {s} {stay:s} {c:s}.
{s} {be:s} very {c}. | {s} {stay:s} muy {c:s}.
{s} {be:s} hungry. | {s} {have:s} hambre.
{s} {be:s} thirsty. | {s} {have:s} sed.
{n} {be:n} {a}. | {n} {be:n} {a:n}.
{n} {be:n} very {a}. | {n} {be:n} muy {a:n}.
{n} {be:n} too {a}. | {n} {be:n} demasiado {a:n}.
{n} {be:n} not {a}. | {n} no {be:n} {a:n}.
{s1}'s {h} {be:h} {a}. | {h} de {s1} {be:h} {a:h}.
{m} {be:m} {b}. | {m} {stay:m} {b:m}.
{be:m} {m} {b}? | ¿{stay:m} {b:m} {m}? | ¿{m} {stay:m} {b:m}?
There is {g1} in {l}. | Hay {g1} en {l}. | En {l} hay {g1}.
There are {g2} in {l}. | Hay {g2} en {l}. | En {l} hay {g2}.
Where {be:d} {d}? | ¿Dónde {stay:d} {d}?
{d} {be:d} on the table. | {d} {stay:d} en la mesa. | {d} {stay:d} sobre la mesa.
{d} {be:d} in {l}. | {d} {stay:d} en {l}.
{d} {cost:d} ten euros. | {d} {cost:d} diez euros.
I like {d}. | [A mí] me {like:d} {d}.
{s1} {like:s1} {d}. | A {s1} le {like:d} {d}.
{s2} {like:s2} {d}. | A {s2} les {like:d} {d}.
{s} {be:s} in {l}. | {s} {stay:s} en {l}.
{s} {i:s} in {l}. | {s} {i:s} en {l}.
{s} {be:s} {i:ing} in {l}. | {s} {stay:s} {i:ing} en {l}. | {s} {i:s} en {l}.
{s} {go:s} to {l}. | {s} {go:s} a {l}.
{s} {go:s} to {l} with {p}. | {s} {go:s} a {l} con {p}.
Every day I go to {l}. | Todos los días [yo] voy a {l}. | [Yo] voy a {l} todos los días.
{k1} {be:k1} near {l}. | {k1} {stay:k1} cerca de {l}.
{s} {give:s} {y} to {p1}. | {s} le {give:s} {y} a {p1}. | {s} {give:s} {y} a {p1}.
{s} {give:past s} {y} to {p1}. | {s} le {give:past s} {y} a {p1}. | {s} {give:past s} {y} a {p1}.
{s} {buy:s} {y} for {p}. | {s} {buy:s} {y} para {p}.
{s} {need:s} {y}. | {s} {need:s} {y}.
{s} {have:s} {y}. | {s} {have:s} {y}.
{s} {visit:s} {p}. | {s} {visit:s} a {p}.
{s} {help:s} {p} in {l}. | {s} {help:s} a {p} en {l}.
I know {p}. | [Yo] conozco a {p}.
I know {r} who {i:r} in {l}. | [Yo] conozco a {r} que {i:r} en {l}.
"""
HELDOUT = """
{r} who {i:r} in {l} {be:r} {c}. | {r} que {i:r} en {l} {stay:r} {c:r}.
I know {r} who {v:r} {o}. | [Yo] conozco a {r} que {v:r} {o}.
{s} {do:s} not want to {v:inf} {o}. | {s} no {want:s} {v:inf} {o}.
{s} cannot {v:inf} {o} today. | {s} no {can:s} {v:inf} {o} hoy. | Hoy {s} no {can:s} {v:inf} {o}.
When {s} {be:s} {c}, {e} {do:s} not {v:inf} {o}. | Cuando {s} {stay:s} {c:s}, [{e}] no {v:s} {o}.
I do not {v:inf} {o} because I am {c}. | [Yo] no {v:1s} {o} porque [yo] estoy {c:I}.
We do not {v:inf} {o} every day. | [Nosotros/Nosotras] no {v:1p} {o} todos los días.
Tomorrow {s} will {v:inf} {o} in {l}. | Mañana {s} {v:fut s} {o} en {l}. | Mañana {s} {go:s} a {v:inf} {o} en {l}.
{s} {be:s} {v:ing} {o} and {p} {be:p} {i:ing}. | {s} {stay:s} {v:ing} {o} y {p} {stay:p} {i:ing}.
{s} and {p} always {want:3p} to {i:inf}. | {s} y {p} siempre {want:3p} {i:inf}.
{s} never {go:s} to {l}. | {s} nunca {go:s} a {l}.
Yesterday {s} {give:past s} {y} to {p1}. | Ayer {s} le {give:past s} {y} a {p1}. | Ayer {s} {give:past s} {y} a {p1}.
{n} in {l} {be:n} {a}. | {n} de {l} {be:n} {a:n}. | {n} que {stay:n} en {l} {be:n} {a:n}. | {n} en {l} {be:n} {a:n}.
{be:n} {n} very {a}? | ¿{be:n} muy {a:n} {n}? | ¿{n} {be:n} muy {a:n}?
I like {s1}'s {j}. | [A mí] me {like:j} {j} de {s1}.
Where {be:j} {s1}'s {j}? | ¿Dónde {stay:j} {j} de {s1}?
{s1}'s {j} {be:j} in {l}. | {j} de {s1} {stay:j} en {l}.
There are {g2} near {l}. | Hay {g2} cerca de {l}. | Cerca de {l} hay {g2}.
"""

_GOODS = "apple orange egg tomato potato cake shirt shoe dress hat coat flower chair bicycle milk coffee wine"
#: What is done with what.
OBJECTS = {
    "read": "book letter newspaper magazine poem",
    "write": "book letter poem song",
    "sing": "song",
    "buy": f"{_GOODS} table book newspaper tea",
    "sell": f"{_GOODS} house boat car map",
    "eat": "apple orange egg tomato potato cake",
    "drink": "milk coffee tea wine",
    "open": "door window box bag suitcase letter book",
    "close": "door window box bag suitcase book",
    "clean": "table window shoe chair plate house kitchen",
    "wash": "shirt dress cup plate car hat coat",
    "carry": "box bag suitcase chair table",
    "find": "key hat bag map book letter",
    "lose": "key hat bag map suitcase letter",
    "paint": "house door chair boat table box",
    "draw": "horse tree flower house bird cat map",
    "prepare": "cake coffee tea potato egg",
    "see": "bird horse cow boat tree dog",
    "break": "cup plate window chair",
}
#: What nobody is doing for a while, and what nobody means to do.
MOMENTARY, ACCIDENTAL = {"see", "find", "lose", "break"}, {"lose", "break"}
#: What stands in no room, so is not handled "in the library".
BIG = {"house", "boat", "car", "horse", "cow", "tree", "door", "window", "kitchen"}
COLOURS = "red white black yellow green blue"
_PRICE = "expensive cheap"
_QUALITIES = {
    "dog cat horse cow": "big small white black beautiful old",
    "bird": f"small beautiful {COLOURS}",
    "book": "long short interesting new old famous",
    "newspaper magazine": f"interesting new old famous {_PRICE}",
    "letter": "long short interesting old",
    "poem song": "long short beautiful new old famous",
    "apple": f"red green yellow big small sweet {_PRICE}",
    "orange cake": f"big small sweet {_PRICE}",
    "egg potato": f"big small {_PRICE}",
    "tomato": f"red green big small {_PRICE}",
    "shirt hat shoe": f"{COLOURS} new old {_PRICE} beautiful",
    "dress coat": f"{COLOURS} new old {_PRICE} long short",
    "house": f"big small white yellow new old {_PRICE} beautiful",
    "door window": "big small white green blue new old",
    "table chair": f"big small white black new old heavy {_PRICE}",
    "box bag suitcase": f"{COLOURS} big small heavy",
    "cup plate": f"{COLOURS} big small new old {_PRICE}",
    "key": "small new old",
    "flower": f"red white yellow blue beautiful {_PRICE}",
    "tree": "big small old green beautiful",
    "map": "old new small big interesting",
    "boat bicycle car": f"{COLOURS} big small new old {_PRICE}",
    "museum church station city village": "big small old beautiful famous",
}
QUALITIES = {noun: adjectives.split() for nouns, adjectives in _QUALITIES.items() for noun in nouns.split()}
STATES = {
    **dict.fromkeys(("door", "window"), ("open", "closed", "dirty", "clean", "broken")),
    **dict.fromkeys(("box", "bag", "suitcase"), ("open", "closed", "empty", "full", "broken")),
    **dict.fromkeys(("cup", "plate"), ("clean", "dirty", "empty", "broken")),
}
FEELINGS = ("tired", "sick", "sad", "happy")
INTRANSITIVE = ("sleep", "work", "run", "dance", "study", "sing", "cry")
IN_PLACES = ("dog", "cat", "bird", "table", "chair", "box", "flower", "bag", "bicycle")
GIFTS = (
    "book",
    "magazine",
    "apple",
    "orange",
    "cake",
    "hat",
    "shirt",
    "dress",
    "coat",
    "flower",
    "bicycle",
    "cup",
    "map",
    "bag",
)
OWNED = (
    "book",
    "letter",
    "newspaper",
    "magazine",
    "map",
    "key",
    "hat",
    "coat",
    "bag",
    "cup",
    "plate",
    "box",
    "shirt",
    "bicycle",
    "dress",
)
#: People named by "the" or "a"; relatives are always somebody's.
ANYBODY, STRANGERS = ("boy", "girl", "man", "woman"), ("teacher", "doctor", "friend")
ONLY_ONE = ("mother", "father", "grandmother")

_SPEAKER = Word(Form("I"), (Form("yo", "s", "m"), Form("yo", "s", "f")))
_T = TypeVar("_T")


def rows(num_train: int, num_heldout: int) -> dict[str, list[dict[str, Any]]]:
    """Translate's problems by split, so many a frame where the words give them.

    A held-out sentence is left out when a word of it or of its best translation occurs in no training sentence.
    """
    train = _rows("train", TRAIN, num_train, None)
    known = {word for row in train for text in (row["prompt"], *row["references"]) for word in words_of(text)}
    return {"train": train, "heldout": _rows("heldout", HELDOUT, num_heldout, known)}


def words_of(text: str) -> list[str]:
    """Words in lower case."""
    return re.findall(r"\w+", text.lower())


def _rows(split: str, frames: str, num: int, known: set[str] | None) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for line in frames.strip().splitlines():
        english, *spanish = line.split(" | ")
        before = len(found)
        for attempt in range(20 * num):
            words = _Drawn(split, f"{english}|{attempt}").sentence(english)
            if words is None:
                continue
            source, references = fill(english, spanish, words)
            prompt = f"Spanish: {source}\n"
            new = known is not None and not known.issuperset(words_of(prompt + references[0]))
            if new or max(map(len, references)) > MAX_CHARS:
                continue
            found.setdefault(prompt, {"prompt": prompt, "references": references, "metadata": {"frame": english}})
            if len(found) == before + num:
                break
    return list(found.values())


def meets(first: str, second: str, split: str) -> bool:
    """Whether a verb and its object, or an adjective and its noun, are together in a split.

    A fixed quarter of the pairs is held out; every pair belongs to one split only.
    """
    return (_number(f"{first} {second}") % 4 == 0) == (split == "heldout")


class _Drawn:
    """The words of one sentence, drawn by a key: the same key draws the same words on any machine."""

    def __init__(self, split: str, key: str) -> None:
        self.split, self.key, self.draws = split, key, count()
        self.words: dict[str, Word] = {"I": _SPEAKER}
        self.nouns: list[str] = []

    def sentence(self, english: str) -> dict[str, Word] | None:
        """Slot -> word for an English template, or None where the draw makes no good sentence."""
        names = list(dict.fromkeys(re.findall(r"\{([a-z][12]?)[:}]", english)))
        avoid = set(BIG) if {"l", "k1"} & set(names) else set()
        if re.search(r"\b(?:very|too)\b", english):
            avoid.update(COLOURS.split())
        if re.search(r"\{[vw]:ing", english):
            avoid |= MOMENTARY
        if re.search(r"\{[vw]:inf", english):
            avoid |= ACCIDENTAL
        for name in names:
            number = {"1": "s", "2": "p"}.get(name[1:]) or self.pick("ssp")
            try:
                self.draw(name, number, avoid)
            except IndexError:  # no word fits those drawn before
                return None
        return self.words if len(set(self.nouns)) == len(self.nouns) else None

    def draw(self, name: str, number: str, avoid: set[str]) -> None:
        """Draw the word of one slot and those that go with it."""
        letter = name[0]
        if letter in "spr":
            self.words[name] = self.person(number, only_the=letter == "r")
        elif letter == "e":
            self.words[name] = self.pronoun(self.words["s"])
        elif letter in "vw":
            verb = self.pick([verb for verb in OBJECTS if verb not in avoid])
            nouns = [noun for noun in OBJECTS[verb].split() if meets(verb, noun, self.split) and noun not in avoid]
            self.words[name] = VERB[verb]
            self.words["o" if letter == "v" else "x"] = self.thing(self.pick(nouns), number)
        elif letter in "nhm":
            table = STATES if letter == "m" else QUALITIES
            nouns = [noun for noun in table if self.adjectives(noun, table) and noun not in avoid]
            noun = self.pick([noun for noun in nouns if letter != "h" or noun in OWNED])
            self.words[name] = self.phrase(noun, {"h": ("'s",)}.get(letter, ("the", "the", "my", "this")), number)
            self.words["b" if letter == "m" else "a"] = ADJECTIVE[
                self.pick([adjective for adjective in self.adjectives(noun, table) if adjective not in avoid])
            ]
        elif letter == "c":
            self.words[name] = ADJECTIVE[self.pick(FEELINGS)]
        elif letter == "i":
            self.words[name] = VERB[self.pick(INTRANSITIVE)]
        elif letter in "lk":
            self.words[name] = self.phrase(self.pick(names_in(es.PLACES)), ("the",), "s")
        elif letter in "dj":
            self.words[name] = self.phrase(self.pick(OWNED), ("'s",) if letter == "j" else ("the", "my"), number)
        elif letter in "gy":
            noun = self.pick(IN_PLACES if letter == "g" else GIFTS)
            determiners = ("a",) if number == "s" else ("two", "three", "four")
            self.words[name] = self.phrase(noun, determiners, number, self.adjective(noun))

    def pick(self, options: Sequence[_T]) -> _T:
        """One of the options; IndexError when there is none."""
        number = _number(f"{self.key}|{next(self.draws)}")
        return options[number % max(len(options), 1)]

    def person(self, number: str, *, only_the: bool) -> Word:
        """Somebody: "the girl", "my sister", "two teachers"."""
        people = (*ANYBODY, *STRANGERS) if only_the else names_in(es.PEOPLE)
        noun = self.pick([noun for noun in people if number == "s" or noun not in ONLY_ONE])
        if only_the:
            determiners: tuple[str, ...] = ("the",)
        elif noun in ANYBODY:
            determiners = ("the", "the", "this", "a" if number == "s" else "two")
        else:
            determiners = ("the", "my", "our") if noun in STRANGERS else ("my", "my", "our")
        return self.phrase(noun, determiners, number)

    def pronoun(self, person: Word) -> Word:
        """He, she or they; IndexError where Spanish may choose the gender."""
        (form,) = person.spanish if len(person.spanish) == 1 else self.pick(())
        key = form.gender + form.number
        spanish = Form({"ms": "él", "fs": "ella", "mp": "ellos", "fp": "ellas"}[key], form.number, form.gender)
        return Word(Form({"ms": "he", "fs": "she"}.get(key, "they"), form.number), (spanish,))

    def thing(self, noun: str, number: str) -> Word:
        """What something is done with: "the red hat", "an egg", "letters", "milk"."""
        if noun in names_in(es.DRINKS):
            return self.phrase(noun, ("", "", "the"), "s")
        determiners = ("the", "the", "a", "a", "my" if noun in OWNED else "this")
        if number == "p":
            determiners = ("the", "", "", "two", "three")
        return self.phrase(noun, determiners, number, self.adjective(noun))

    def phrase(self, noun: str, determiners: Sequence[str], number: str, adjective: str = "") -> Word:
        """A noun phrase with one of the determiners."""
        self.nouns.append(noun)
        return noun_phrase(noun, self.pick(determiners), number, adjective)

    def adjectives(self, noun: str, table: dict[str, Any]) -> list[str]:
        """What may be said of a noun in this split."""
        return [adjective for adjective in table.get(noun, ()) if meets(adjective, noun, self.split)]

    def adjective(self, noun: str) -> str:
        """One of them for every third noun, else none."""
        wanted = self.pick((True, False, False))
        fitting = self.adjectives(noun, QUALITIES)
        return self.pick(fitting) if wanted and fitting else ""


def _number(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
