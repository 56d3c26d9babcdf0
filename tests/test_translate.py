"""Translate: the Spanish is right, choices are references, held-out sentences are new combinations of known words."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import textenvs
from textenvs.assets import spanish, translate
from textenvs.assets.spanish import ADJECTIVE, NOUNS, VERB, Word, fill, noun_phrase
from textenvs.rewards.references import ChrF
from textenvs.tasks import make_task
from textenvs.tasks.translate import ComposedChrF

#: How the task scores.
REWARD = ComposedChrF(word_order=2)


@cache
def problems(split: str) -> list[textenvs.Problem]:
    task = make_task("translate", split=split)
    return [task[k] for k in range(len(task))]


TEACHERS = ("nuestro profesor", "nuestra profesora", "nuestro maestro", "nuestra maestra")


@pytest.mark.parametrize(
    ("noun", "determiner", "number", "adjective", "english", "translations"),
    [
        ("girl", "the", "p", "young", "the young girls", ["las niñas jóvenes"]),
        ("map", "this", "s", "old", "this old map", ["este mapa viejo"]),
        ("song", "", "p", "long", "long songs", ["canciones largas"]),
        ("apple", "a", "s", "", "an apple", ["una manzana"]),
        ("key", "a", "s", "old", "an old key", ["una llave vieja"]),
        ("key", "a", "s", "new", "a new key", ["una llave nueva"]),
        ("flower", "three", "p", "blue", "three blue flowers", ["tres flores azules"]),
        (
            "teacher",
            "our",
            "s",
            "tired",
            "our tired teacher",
            [f"{our} cansad{end}" for our, end in zip(TEACHERS, "oaoa", strict=True)],
        ),
        ("house", "'s", "p", "", "houses", ["las casas"]),
        ("milk", "", "s", "", "milk", ["leche"]),
        (
            "bird",
            "this",
            "p",
            "beautiful",
            "these beautiful birds",
            ["estos pájaros bonitos", "estos pájaros hermosos"],
        ),
    ],
)
def test_noun_phrases_agree(
    noun: str, determiner: str, number: str, adjective: str, english: str, translations: list[str]
) -> None:
    word = noun_phrase(noun, determiner, number, adjective)
    assert word.english.text == english
    assert [form.text for form in word.spanish] == translations


@pytest.mark.parametrize(
    ("verb", "forms"),
    [
        ("buy", "comprar compro compra compramos compran comprando compró compraron compraré comprará comprarán"),
        ("sell", "vender vendo vende vendemos venden vendiendo vendió vendieron venderé venderá venderán"),
        ("open", "abrir abro abre abrimos abren abriendo abrió abrieron abriré abrirá abrirán"),
        ("close", "cerrar cierro cierra cerramos cierran cerrando cerró cerraron cerraré cerrará cerrarán"),
        ("read", "leer leo lee leemos leen leyendo leyó leyeron leeré leerá leerán"),
        ("sleep", "dormir duermo duerme dormimos duermen durmiendo durmió durmieron dormiré dormirá dormirán"),
    ],
)
def test_verbs_are_conjugated(verb: str, forms: str) -> None:
    (spanish_verb,) = VERB[verb].spanish
    names = (*spanish.FORMS, "fut1s", "fut3s", "fut3p")
    assert [(spanish_verb.forms or {})[name] for name in names] == forms.split()


#: What no copy of a reference survives, and what it keeps on average: as the page says, where it does.
BROKEN = {
    "no spaces": (lambda text: text.replace(" ", ""), 0.78),
    "a space less": (lambda text: text.replace(" ", "", 1), 0.93),
    "a space more": (lambda text: text[:-2] + " " + text[-2:], None),
    "small letters": (str.lower, 0.93),
    "no full stop": (lambda text: text.rstrip(".?"), None),
    "no accents": (lambda text: text.translate(str.maketrans("áéíóúñ¿", "aeioun ")), None),
    "a word less": (lambda text: text.rpartition(" ")[0], None),
    "a word behind": (lambda text: text + " no", None),
    "a line behind": (lambda text: text + "\nno", None),
    "a word before": (lambda text: "no " + text, None),
    "twice": (lambda text: f"{text} {text}", 0.82),
    "twice, on lines": (lambda text: f"{text}\n{text}", None),
    "twice in one": (lambda text: text + text, None),
    "backwards": (lambda text: " ".join(reversed(text.split())), None),
    "without width": (lambda text: text + "\u200b", None),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_reference_never_scores_one(name: str) -> None:
    change, expected = BROKEN[name]
    values = []
    for problem in problems("all")[::5]:
        for reference in problem.references[:2]:
            if change(reference) not in problem.references:
                values.append(REWARD.score_text(change(reference), problem.references))
    assert max(values) < 1
    assert len(values) >= (40 if name == "no accents" else 182)
    if expected is not None:
        assert np.mean(values) == pytest.approx(expected, abs=0.0125)


def spaces_aside(text: str) -> str:
    """What chrF++ sees of a text: one space between words, and none before a full stop or a question mark."""
    return re.sub(r" (?=[.?])", "", " ".join(text.split()))


@given(st.data())
def test_edits_of_a_reference_score_less_but_for_white_space(data: st.DataObject) -> None:
    problem = data.draw(st.sampled_from(problems("heldout")))
    text = data.draw(st.sampled_from(problem.references))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(start + 3, len(text))))
        text = text[:start] + data.draw(st.text(" \n.?¿aáeLl", max_size=3)) + text[stop:]
    same = spaces_aside(text) in map(spaces_aside, problem.references)
    assert (REWARD.score_text(text, problem.references) == 1) == same


def test_a_letter_with_a_combining_accent_is_that_letter() -> None:
    num_checked = 0
    for problem in problems("heldout"):
        for reference in problem.references:
            apart = unicodedata.normalize("NFD", reference)
            assert REWARD.score_text(apart, problem.references) == 1
            assert REWARD.score_text(reference, (apart,)) == 1
            if apart != reference:
                assert ChrF(word_order=2).score_text(apart, problem.references) < 1
                num_checked += 1
    assert num_checked > 50


def test_the_task_scores_so_and_how_much_white_space_there_is_makes_no_difference() -> None:
    rules = textenvs.Rules("translate")
    assert vars(rules.reward) == vars(REWARD)
    for problem in problems("train")[::20]:
        for reference in problem.references:
            for text in (reference.replace(" ", " \n "), f"\n{reference} ", reference[:-1] + " " + reference[-1]):
                assert REWARD.score_text(text, problem.references) == 1


def words(**named: Word) -> dict[str, Word]:
    return named


GIRL, BOYS = noun_phrase("girl", "the"), noun_phrase("boy", "the", "p")
FRIEND, PARK, HATS = noun_phrase("friend", "my"), noun_phrase("park", "the"), noun_phrase("hat", "the", "p", "red")


@pytest.mark.parametrize(
    ("frame", "filled", "english", "translations"),
    [
        (
            "{s1} {like:s1} {d}. | A {s1} le {like:d} {d}.",
            words(s1=GIRL, d=HATS),
            "The girl likes the red hats.",
            ["A la niña le gustan los sombreros rojos."],
        ),
        (
            "{s} {be:s} very {c}. | {s} {stay:s} muy {c:s}.",
            words(s=FRIEND, c=ADJECTIVE["tired"]),
            "My friend is very tired.",
            ["Mi amigo está muy cansado.", "Mi amiga está muy cansada."],
        ),
        (
            "We {i:1p} in {l}. | [Nosotros/Nosotras] {i:1p} en {l}. | En {l} [nosotros/nosotras] {i:1p}.",
            words(i=VERB["run"], l=PARK),
            "We run in the park.",
            [
                *(f"{we}orremos en el parque." for we in ("C", "Nosotros c", "Nosotras c")),
                *(f"En el parque {we}corremos." for we in ("", "nosotros ", "nosotras ")),
            ],
        ),
        (
            "{s} will {v:inf} to {l}. | {s} {v:fut s} a {l}. | {s} {go:s} a {v:inf} a {l}.",
            words(s=BOYS, v=VERB["run"], l=PARK),
            "The boys will run to the park.",
            ["Los niños correrán al parque.", "Los niños van a correr al parque."],
        ),
        (
            "{s1}'s {h} {be:h} {a}. | {h} de {s1} {be:h} {a:h}.",
            words(s1=noun_phrase("man", "the"), h=noun_phrase("house", "'s"), a=ADJECTIVE["white"]),
            "The man's house is white.",
            ["La casa del hombre es blanca."],
        ),
        (
            "{be:s} {s} {c}? | ¿{stay:s} {c:s} {s}?",
            words(s=BOYS, c=ADJECTIVE["sad"]),
            "Are the boys sad?",
            ["¿Están tristes los niños?"],
        ),
        (
            "{s} {v:past s} {o} in {l}. | {s} {v:past s} {o} en {l}.",
            words(s=BOYS, v=VERB["drink"], o=noun_phrase("milk"), l=PARK),
            "The boys drank milk in the park.",
            ["Los niños bebieron leche en el parque.", "Los niños tomaron leche en el parque."],
        ),
    ],
)
def test_sentences_are_filled(frame: str, filled: dict[str, Word], english: str, translations: list[str]) -> None:
    template, *spanish_templates = frame.split(" | ")
    assert fill(template, spanish_templates, filled) == (english, translations)


#: An English subject that Spanish may leave out, and how it is said.
PRONOUNS = {"I": "yo", "We": "nosotros nosotras", "he": "él", "she": "ella", "they": "ellos ellas"}


def test_every_pronoun_that_may_be_left_out_is_a_reference_with_and_without() -> None:
    num_checked = dict.fromkeys(PRONOUNS, 0)
    for problem in problems("all"):
        sentence = problem.prompt.removeprefix("Spanish: ")
        if sentence.startswith("I like"):
            assert any(text.startswith("A mí me ") for text in problem.references)
            assert any(text.startswith("Me ") for text in problem.references)
            continue
        for english, some in PRONOUNS.items():
            if re.search(rf"\b{english}\b", sentence):
                known = {
                    word for word in some.split() for text in problem.references if word in translate.words_of(text)
                }
                assert known == set(some.split()) if english != "they" else known, problem
                assert not set(some.split()) & set(translate.words_of(problem.references[0]))
                num_checked[english] += 1
    assert num_checked["I"] > 100
    assert all(num_checked.values()), num_checked


def test_who_teaches_and_who_heals_has_four_names() -> None:
    for problem in problems("all"):
        for english, stems in {"teacher": ("profesor", "maestr"), "doctor": ("doctor", "médic")}.items():
            if re.search(rf"\b{english}s?\b", problem.prompt):
                for stem in stems:
                    feminine = [bool(re.search(rf"\b{stem}as?\b", text.lower())) for text in problem.references]
                    assert set(feminine) == {True, False}, problem


def test_articles_and_contractions_are_right_in_every_reference() -> None:
    genders = {form: choice[2] for _, choices in NOUNS.values() for choice in choices for form in choice[:2]}
    articles = {"el": "m", "un": "m", "los": "m", "este": "m", "estos": "m"}
    articles |= {"la": "f", "una": "f", "las": "f", "esta": "f", "estas": "f"}
    num_checked = 0
    for problem in problems("all"):
        for reference in problem.references:
            assert not re.search(r"\b(a|de) el\b", reference.lower()), reference
            assert re.fullmatch(r"¿[A-ZÁ].*\?|[A-ZÁ][^¿?]*\.", reference), reference
            for article, noun in re.findall(r"(\w+) (?=(\w+))", reference.lower()):
                if article in articles and noun in genders:
                    assert articles[article] == genders[noun], reference
                    num_checked += 1
    assert num_checked > 1000


def test_held_out_words_were_all_seen_and_their_combinations_never() -> None:
    train, heldout = problems("train"), problems("heldout")
    known = {word for p in train for text in (p.prompt, *p.references) for word in translate.words_of(text)}
    for p in heldout:
        assert known.issuperset(translate.words_of(p.prompt + p.references[0])), p.prompt
    plurals = {plural: noun for noun, (plural, _) in NOUNS.items()}

    def pairs(some: list[textenvs.Problem]) -> set[tuple[str, str]]:
        found = (
            (first, plurals.get(second, second))
            for p in some
            for first, second in re.findall(r"(\w+)(?= (\w+))", p.prompt)
        )
        return {pair for pair in found if pair[0] in ADJECTIVE and pair[1] in NOUNS}

    assert len(pairs(train)) > 50
    assert len(pairs(heldout)) > 10
    assert not pairs(train) & pairs(heldout)
    for first, second in pairs(train) | pairs(heldout):
        assert translate.meets(first, second, "train") != translate.meets(first, second, "heldout")
