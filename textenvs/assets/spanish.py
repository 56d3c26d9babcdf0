"""A small English-Spanish grammar: words with all their forms, noun phrases that agree, sentences filled from frames.

Lives here: the lexicon, agreement and `fill`. The frames and which words meet in which split: `translate`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

#: English singular and plural | Spanish singular, plural and gender. `/` parts words between which Spanish may choose.
PEOPLE = """
boy boys | niño niños m
girl girls | niña niñas f
man men | hombre hombres m
woman women | mujer mujeres f
mother mothers | madre madres f
father fathers | padre padres m
sister sisters | hermana hermanas f
brother brothers | hermano hermanos m
grandmother grandmothers | abuela abuelas f
uncle uncles | tío tíos m
son sons | hijo hijos m
daughter daughters | hija hijas f
teacher teachers | profesor profesores m / profesora profesoras f / maestro maestros m / maestra maestras f
doctor doctors | doctor doctores m / doctora doctoras f / médico médicos m / médica médicas f
friend friends | amigo amigos m / amiga amigas f
"""
ANIMALS = """
dog dogs | perro perros m
cat cats | gato gatos m
horse horses | caballo caballos m
bird birds | pájaro pájaros m
cow cows | vaca vacas f
"""
TEXTS = """
book books | libro libros m
letter letters | carta cartas f
newspaper newspapers | periódico periódicos m
magazine magazines | revista revistas f
poem poems | poema poemas m
song songs | canción canciones f
"""
FOODS = """
apple apples | manzana manzanas f
orange oranges | naranja naranjas f
egg eggs | huevo huevos m
tomato tomatoes | tomate tomates m
potato potatoes | papa papas f / patata patatas f
cake cakes | pastel pasteles m
"""
DRINKS = """
milk - | leche - f
coffee - | café - m
tea - | té - m
wine - | vino - m
"""
CLOTHES = """
shirt shirts | camisa camisas f
shoe shoes | zapato zapatos m
dress dresses | vestido vestidos m
hat hats | sombrero sombreros m
coat coats | abrigo abrigos m
"""
THINGS = """
house houses | casa casas f
door doors | puerta puertas f
window windows | ventana ventanas f
table tables | mesa mesas f
chair chairs | silla sillas f
box boxes | caja cajas f
bag bags | bolsa bolsas f
suitcase suitcases | maleta maletas f
cup cups | taza tazas f
plate plates | plato platos m
key keys | llave llaves f
flower flowers | flor flores f
tree trees | árbol árboles m
map maps | mapa mapas m
boat boats | barco barcos m
bicycle bicycles | bicicleta bicicletas f
car cars | coche coches m / carro carros m
"""
PLACES = """
garden gardens | jardín jardines m
kitchen kitchens | cocina cocinas f
school schools | escuela escuelas f
market markets | mercado mercados m
park parks | parque parques m
library libraries | biblioteca bibliotecas f
hospital hospitals | hospital hospitales m
museum museums | museo museos m
church churches | iglesia iglesias f
station stations | estación estaciones f
village villages | pueblo pueblos m
city cities | ciudad ciudades f
"""
#: English | Spanish masculine and feminine, singular and plural; a single form where gender makes no difference.
ADJECTIVES = """
red | rojo roja rojos rojas
white | blanco blanca blancos blancas
black | negro negra negros negras
yellow | amarillo amarilla amarillos amarillas
green | verde verdes
blue | azul azules
big | grande grandes
small | pequeño pequeña pequeños pequeñas
new | nuevo nueva nuevos nuevas
old | viejo vieja viejos viejas
expensive | caro cara caros caras
cheap | barato barata baratos baratas
beautiful | bonito bonita bonitos bonitas / hermoso hermosa hermosos hermosas
heavy | pesado pesada pesados pesadas
long | largo larga largos largas
short | corto corta cortos cortas
interesting | interesante interesantes
famous | famoso famosa famosos famosas
sweet | dulce dulces
tall | alto alta altos altas
young | joven jóvenes
strong | fuerte fuertes
kind | amable amables
tired | cansado cansada cansados cansadas
sick | enfermo enferma enfermos enfermas
sad | triste tristes
happy | contento contenta contentos contentas / feliz felices
open | abierto abierta abiertos abiertas
closed | cerrado cerrada cerrados cerradas
empty | vacío vacía vacíos vacías
full | lleno llena llenos llenas
clean | limpio limpia limpios limpias
dirty | sucio sucia sucios sucias
broken | roto rota rotos rotas
"""
#: English infinitive, 3rd person, -ing, past | Spanish infinitive, or all the forms of `FORMS` where irregular.
VERBS = """
read reads reading read | leer leo lee leemos leen leyendo leyó leyeron
write writes writing wrote | escribir
buy buys buying bought | comprar
sell sells selling sold | vender
eat eats eating ate | comer
drink drinks drinking drank | beber / tomar
open opens opening opened | abrir
close closes closing closed | cerrar cierro cierra cerramos cierran cerrando cerró cerraron
clean cleans cleaning cleaned | limpiar
wash washes washing washed | lavar
carry carries carrying carried | llevar
find finds finding found | encontrar encuentro encuentra encontramos encuentran encontrando encontró encontraron
paint paints painting painted | pintar
draw draws drawing drew | dibujar
prepare prepares preparing prepared | preparar
see sees seeing saw | ver veo ve vemos ven viendo vio vieron
break breaks breaking broke | romper
lose loses losing lost | perder pierdo pierde perdemos pierden perdiendo perdió perdieron
sing sings singing sang | cantar
sleep sleeps sleeping slept | dormir duermo duerme dormimos duermen durmiendo durmió durmieron
work works working worked | trabajar
run runs running ran | correr
dance dances dancing danced | bailar
study studies studying studied | estudiar
cry cries crying cried | llorar
want wants wanting wanted | querer quiero quiere queremos quieren - - -
need needs needing needed | necesitar
have has having had | tener tengo tiene tenemos tienen - - -
go goes going went | ir voy va vamos van - - -
can can - - | poder puedo puede podemos pueden - - -
do does - - | -
be is being - | ser soy es somos son - - -
stay stays - - | estar estoy está estamos están - - -
like likes - - | gustar - gusta - gustan - - -
cost costs - - | costar - cuesta - cuestan - - -
visit visits visiting visited | visitar
help helps helping helped | ayudar
know knows - - | conocer conozco conoce conocemos conocen - - -
give gives giving gave | dar doy da damos dan dando dio dieron
"""
FORMS = ("inf", "1s", "3s", "1p", "3p", "ing", "past3s", "past3p")
_REGULAR = {
    "ar": ("o", "a", "amos", "an", "ando", "ó", "aron"),
    "er": ("o", "e", "emos", "en", "iendo", "ió", "ieron"),
    "ir": ("o", "e", "imos", "en", "iendo", "ió", "ieron"),
}
_FUTURE = {"1s": "é", "3s": "á", "1p": "emos", "3p": "án"}
_BE = {"1s": "am", "3s": "is", "1p": "are", "3p": "are"}
#: English | Spanish masculine and feminine of the singular, then of the plural.
DETERMINERS = {
    "the": ("the", "the", "el", "la", "los", "las"),
    "a": ("a", "", "un", "una", "", ""),
    "my": ("my", "my", "mi", "mi", "mis", "mis"),
    "our": ("our", "our", "nuestro", "nuestra", "nuestros", "nuestras"),
    "this": ("this", "these", "este", "esta", "estos", "estas"),
    "two": ("", "two", "", "", "dos", "dos"),
    "three": ("", "three", "", "", "tres", "tres"),
    "four": ("", "four", "", "", "cuatro", "cuatro"),
    # After an English possessive: "my sister's house", "la casa de mi hermana".
    "'s": ("", "", "el", "la", "los", "las"),
}


@dataclass(frozen=True)
class Form:
    """One way to say a slot's filler in one language, with what agrees with it.

    Attributes:
        text: empty for words that have only `forms`.
        number: "s" or "p".
        gender: "m" or "f".
        forms: name -> form, of a verb or an adjective.
    """

    text: str = ""
    number: str = "s"
    gender: str = "m"
    forms: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Word:
    """A filler: its English form, and the Spanish forms between which there is free choice, the first the best."""

    english: Form
    spanish: tuple[Form, ...]


def _lines(table: str) -> list[tuple[list[str], list[list[str]]]]:
    """English cells and, for each choice, the Spanish cells."""
    rows = (line.split(" | ") for line in table.strip().splitlines())
    return [(english.split(), [choice.split() for choice in spanish.split(" / ")]) for english, spanish in rows]


def _adjective(cells: list[str]) -> dict[str, str]:
    if len(cells) < 4:
        cells = [cells[0], cells[0], cells[-1], cells[-1]]
    return dict(zip(("ms", "fs", "mp", "fp"), cells, strict=True))


def _verb(cells: list[str]) -> dict[str, str]:
    stem, ending = cells[0][:-2], cells[0][-2:]
    if len(cells) == 1 and ending in _REGULAR:
        cells = [cells[0], *(stem + end for end in _REGULAR[ending])]
    forms = dict(zip(FORMS, cells, strict=False))
    # Of the verbs that the frames use in the future, none is irregular in it.
    return forms | {f"fut{person}": cells[0] + end for person, end in _FUTURE.items()}


def _english_verb(cells: list[str]) -> dict[str, str]:
    infinitive, third, ing, past = cells
    forms = {"inf": infinitive, "ing": ing, "3s": third} | dict.fromkeys(("1s", "1p", "3p"), infinitive)
    forms |= dict.fromkeys(("past3s", "past3p"), past)
    return forms | _BE if infinitive == "be" else forms


#: English singular -> (English plural, [Spanish singular, plural, gender]).
NOUNS = {
    english[0]: (english[1], spanish)
    for table in (PEOPLE, ANIMALS, TEXTS, FOODS, DRINKS, CLOTHES, THINGS, PLACES)
    for english, spanish in _lines(table)
}
ADJECTIVE = {
    english[0]: Word(Form(english[0]), tuple(Form(forms=_adjective(cells)) for cells in spanish))
    for english, spanish in _lines(ADJECTIVES)
}
VERB = {
    english[0]: Word(Form(forms=_english_verb(english)), tuple(Form(forms=_verb(cells)) for cells in spanish))
    for english, spanish in _lines(VERBS)
}


def names_in(table: str) -> list[str]:
    """The English names of a table of nouns."""
    return [english[0] for english, _ in _lines(table)]


def noun_phrase(noun: str, determiner: str = "", number: str = "s", adjective: str = "") -> Word:
    """A noun phrase in both languages; the Spanish adjective follows the noun and agrees with it.

    Args:
        noun: English singular.
        determiner: a key of `DETERMINERS`, or "" for none.
        number: "s" or "p"; mass nouns have no plural.
        adjective: English, or "" for none.
    """
    plural, choices = NOUNS[noun]
    cells = DETERMINERS.get(determiner, ("",) * 6)
    words = [cells[number == "p"], adjective, noun if number == "s" else plural]
    english = re.sub(r"^a (?=[aeiou])", "an ", " ".join(filter(None, words)))
    spanish = []
    for singular, several, gender in choices:
        article = cells[2 + 2 * (number == "p") + (gender == "f")]
        for form in ADJECTIVE[adjective].spanish if adjective else (Form(forms={gender + number: ""}),):
            agreeing = (form.forms or {})[gender + number]
            text = " ".join(filter(None, (article, singular if number == "s" else several, agreeing)))
            spanish.append(Form(text, number, gender))
    return Word(Form(english, number), tuple(spanish))


def fill(english: str, spanish: list[str], words: Mapping[str, Word]) -> tuple[str, list[str]]:
    """A sentence and all its translations.

    Slots of a template: `{s}` is the text of word s; `{v:ing}` a form of v; `{v:s}` the form that agrees with s, in the
    present, `{v:past s}` and `{v:fut s}` in the past and the future; for s may also stand 1s, 1p, 3s or 3p. An
    adjective's `{a:s}` agrees in gender and number. Names that no word of the frame has are verbs, by English name.
    `[x/y]` is left out, or x or y.

    Args:
        english: template.
        spanish: templates, the best first.
        words: slot -> word.
    """
    names = _names(" ".join([english, *spanish]))
    used = {name: words[name] if name in words else VERB[name] for name in names if name in words or name in VERB}
    source = _sentence(english, {name: word.english for name, word in used.items()})
    choices = [dict(zip(used, forms, strict=True)) for forms in product(*(word.spanish for word in used.values()))]
    templates = [text for template in spanish for text in _optional(template)]
    return source, list(dict.fromkeys(_sentence(template, forms) for forms in choices for template in templates))


def _optional(template: str) -> list[str]:
    """A template without what stands in brackets, and with each of it."""
    before, bracket, rest = template.partition("[")
    if not bracket:
        return [template]
    inside, _, after = rest.partition("]")
    return [before + option + text for option in ("", *inside.split("/")) for text in _optional(after)]


def _names(template: str) -> list[str]:
    """Every word that a template names: in a slot, or as what a slot agrees with."""
    slots = re.findall(r"\{(\w+)(?::(?:\w+ )?(\w+))?\}", template)
    return list(dict.fromkeys(name for slot in slots for name in slot))


def _sentence(template: str, forms: Mapping[str, Form]) -> str:
    def form(match: re.Match[str]) -> str:
        word, how = forms[match[1]], match[2]
        if not how or word.forms is None:
            return word.text
        tense, _, controller = how.rpartition(" ")
        if controller in forms:
            agree = forms[controller]
            controller = agree.gender + agree.number if "ms" in word.forms else "3" + agree.number
        return word.forms[tense + controller]

    text = re.sub(r"\{(\w+)(?::([\w ]+))?\}", form, template)
    text = re.sub(r"\b([Aa]|[Dd]e) el\b", lambda match: match[1] + "l", " ".join(text.split()))
    return re.sub(r"[^\W\d_]", lambda match: match[0].upper(), text, count=1)
