"""Which of the sampled reviews are used, and where: filters and the split. Rows are only chosen here, never edited.

Lives here: the rules that drop a row, the held-out subjects and openings. Not here: what is made from the rows.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

HELDOUT_SUBJECTS = ("hotel", "camera", "concert", "garden")
HELDOUT_OPENINGS = ("I expected the {s} to be", "Everything about the {s}", "We went to the {s} and", "The staff")
"""Openings as templates: `{s}` stands for the subject."""

POSITIVE_TONES = ("very positive", "happy", "delighted", "grateful")
NEGATIVE_TONES = ("very negative", "angry", "sad", "bored", "disappointed")
"""The tones asked for that make a label; mixed, neutral and surprised reviews carry none."""

MIN_REST_WORDS = 4
MAX_JACCARD = 0.5

# Words that show a text is about its subject, besides the subject itself; each matches as the start of a word.
_SCREEN = (
    "movie film show story stories plot scene character actor acting cast watch screen series episode cinema laugh"
)
_FOOD = "food eat menu dish meal serv staff waiter delicious tast flavor coffee bread cake dessert dinner lunch"
_PAGE = "book novel reading story stories plot character chapter author page"
_PLACE = "visit walk nature tree scene water sun relax peace trail"
_TRIP = "trip travel vacation journey ride seat passenger airline airport plane station destination"
RELATED = {
    **dict.fromkeys(("movie", "film", "comedy", "thriller", "documentary", "romance", "cartoon", "TV show"), _SCREEN),
    "horror film": _SCREEN + " horror scar",
    **dict.fromkeys(("restaurant", "cafe"), _FOOD),
    "pizza place": _FOOD + " pizza",
    "bakery": _FOOD + " bake pastr",
    **dict.fromkeys(("book", "novel"), _PAGE),
    "phone": "phone screen battery device apps call camera samsung iphone",
    "laptop": "laptop screen battery computer device keyboard performance",
    "camera": "camera photo picture lens image shot shoot device",
    "album": "album song music track band sound lyric listen voice artist",
    "concert": "concert song music band sound crowd stage perform listen singer audience",
    "play": "play stage actor acting cast perform scene theat character audience story stories plot",
    **dict.fromkeys(
        ("museum", "museum tour"), "museum exhibit artwork artifact tour guide histor collection galler visit"
    ),
    "train ride": _TRIP + " train rail",
    "flight": _TRIP + " fly flew pilot",
    "holiday": _TRIP + " holiday beach hotel family",
    "game": "game play gaming level graphic character",
    "school": "school teach student class learn educat",
    "lesson": "lesson teach student class learn",
    "shop": "shop store buy bought purchase product customer staff sell",
    "bike": "bike bicycle ride riding rode cycl wheel pedal",
    "beach": _PLACE + " beach sand ocean seaside wave",
    "garden": _PLACE + " garden flower plant bloom",
    "park": _PLACE + " park playground",
    "podcast": "podcast episode listen host talk topic interview conversation",
    "hotel": "hotel room stay staff bed guest service check",
}

# These openings speak of a place or an event that people go to; they say nothing sensible about the rest.
_VISIT_OPENINGS = ("We went to the {s} and", "Our visit to the {s} was", "The people at the {s} were")
_NOT_VISITED = frozenset(("phone", "laptop", "camera", "bike", "book", "novel", "album", "podcast"))

_META = re.compile(
    r"\b(?:writers?|writer's|sentences?|paragraphs?|rewrite|reviewers?|assistant|AI|language model|prompt"
    r"|(?:this|my|the|your|a|an|short|simple|sweet|brief|honest|quick) review)\b",
    re.IGNORECASE,
)
_ODD = re.compile(r"[^\w\s.,;:!?'\"()&%$£€/’‘“”–—+-]|_|[^\x00-\u024f\u2010-\u20ac]")
_STUTTER = re.compile(r"\b(\w+)(?:\W+\1\b){2}|\b(\w+ \w+)\W+\2\b|\b([a-z]{4,})\s+\3\b", re.IGNORECASE)


class Review(NamedTuple):
    """One row of the source file.

    `row` is its line (from 0), `opening` the first words, `text` the whole review, opening included.
    """

    row: int
    subject: str
    tone: str
    opening: str
    text: str

    @property
    def template(self) -> str:
        """The opening with `{s}` in the place of the subject."""
        return re.sub(rf"\b{re.escape(self.subject)}\b", "{s}", self.opening)

    @property
    def rest(self) -> str:
        """What the source model wrote after the opening."""
        return self.text[len(self.opening) :]


def words(text: str) -> list[str]:
    """Lower-case words of a text."""
    return re.findall(r"[a-z0-9']+", text.lower())


def off_topic(review: Review) -> bool:
    """Whether neither the subject nor a word related to it occurs in a review whose opening does not name it."""
    if review.subject in review.opening:
        return review.template in _VISIT_OPENINGS and review.subject in _NOT_VISITED
    stems = (*RELATED[review.subject].split(), review.subject.lower())
    return not any(re.search(rf"\b{re.escape(stem)}", review.text.lower()) for stem in stems)


def about_writing(review: Review) -> bool:
    """Whether the source model speaks about the review it was asked to write instead of writing it."""
    return _META.search(review.rest) is not None


def malformed(review: Review) -> bool:
    """Whether a review has odd characters, stutters, is shorter than `MIN_REST_WORDS` or has a wrong article."""
    wrong_article = (
        review.subject in review.opening and f" a {review.subject}" in review.opening and review.subject[0] in "aeiou"
    )
    return (
        wrong_article
        or len(words(review.rest)) < MIN_REST_WORDS
        or not review.rest.startswith((" ", ",", "'"))
        or _ODD.search(review.text) is not None
        or _STUTTER.search(review.text) is not None
    )


FILTERS: dict[str, Callable[[Review], bool]] = {
    "off topic": off_topic,
    "about the writing": about_writing,
    "malformed": malformed,
}


def drop_duplicates(reviews: Iterable[Review]) -> list[Review]:
    """Keep a review if its word trigrams overlap no kept one's by more than `MAX_JACCARD` (exact copies included).

    The overlap is intersection over union of the two sets of trigrams; the first of two near-duplicates stays.
    """
    kept: list[Review] = []
    sizes: list[int] = []
    seen: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for review in reviews:
        tokens = words(review.text)
        grams = sorted(set(zip(tokens, tokens[1:], tokens[2:], strict=False)))
        shared = Counter(k for gram in grams for k in seen[gram])
        if any(n > MAX_JACCARD * (len(grams) + sizes[k] - n) for k, n in shared.items()):
            continue
        for gram in grams:
            seen[gram].append(len(kept))
        kept.append(review)
        sizes.append(len(grams))
    return kept


def clean(reviews: Sequence[Review]) -> tuple[list[Review], dict[str, int]]:
    """Apply every filter in turn.

    Returns:
        The reviews kept, in source order, and for each filter how many it dropped.
    """
    dropped: dict[str, int] = {}
    kept = list(reviews)
    for name, rule in FILTERS.items():
        passed = [review for review in kept if not rule(review)]
        dropped[name] = len(kept) - len(passed)
        kept = passed
    unique = drop_duplicates(kept)
    dropped["near-duplicate"] = len(kept) - len(unique)
    return unique, dropped


def is_heldout(review: Review) -> bool:
    """Whether a review has a held-out subject or a held-out opening; a training review has neither."""
    return review.subject in HELDOUT_SUBJECTS or review.template in HELDOUT_OPENINGS
