"""The words of a world: readable titles and texts in which a reader, or a text model, can find the aspects again.

Every aspect has two poles, and every pole a few words that mean the same. An item's words come from the poles on which
it stands most, a creative's from the one pole that it stresses; which of the words is drawn.
"""

from __future__ import annotations

import numpy as np

from playbill.world.build import World
from playbill.world.draws import Stream, integers

# pole 2k is the positive side of aspect k, pole 2k + 1 its negative side; as many as aspects may be
POLES = (
    *(("warm", "tender", "kind"), ("cool", "distant", "detached")),
    *(("merry", "playful", "cheerful"), ("grave", "solemn", "earnest")),
    *(("swift", "breathless", "hurried"), ("slow", "patient", "unhurried")),
    *(("bright", "golden", "sunlit"), ("dark", "shadowy", "moonless")),
    *(("loud", "roaring", "noisy"), ("quiet", "hushed", "silent")),
    *(("strange", "eerie", "uncanny"), ("plain", "everyday", "familiar")),
    *(("wild", "fierce", "untamed"), ("gentle", "mild", "tame")),
    *(("vast", "sweeping", "epic"), ("small", "intimate", "close")),
    *(("old", "ancient", "bygone"), ("new", "modern", "recent")),
    *(("clever", "intricate", "winding"), ("simple", "direct", "clear")),
    *(("hopeful", "rising", "bold"), ("bitter", "weary", "fading")),
    *(("true", "factual", "real"), ("dreamlike", "imagined", "invented")),
    *(("crowded", "busy", "teeming"), ("lonely", "empty", "solitary")),
    *(("rough", "raw", "rugged"), ("smooth", "polished", "elegant")),
    *(("sweet", "rich", "lavish"), ("spare", "lean", "austere")),
    *(("early", "young", "fresh"), ("late", "ripe", "seasoned")),
)
CATEGORIES = (
    "drama, comedy, thriller, documentary, romance, family, crime, science fiction, fantasy, music, "
    "history, sport, travel, food, animation, western, war, nature, theatre, short film"
).split(", ")
_NOUNS = (
    "harbour garden letter winter city river house song train mountain island mirror orchard border engine summer "
    "circus bridge window forest station market lantern archive valley tide tower road kitchen stage meadow clock"
).split()


def category_name(category: int) -> str:
    """Return a category's readable name."""
    return CATEGORIES[category] if category < len(CATEGORIES) else f"category {category + 1}"


def pole_name(pole: int) -> str:
    """Return the first word of a pole: 2 * aspect, plus 1 for its negative side."""
    return POLES[pole][0]


def poles_of(vectors: np.ndarray, count: int) -> np.ndarray:
    """Return [n, count] int64: the poles on which each vector stands most, strongest first.

    Args:
        vectors: [n, D].
        count: at most D.
    """
    order = np.argsort(-np.abs(vectors), axis=1, kind="stable")[:, :count]
    result: np.ndarray = 2 * order + (np.take_along_axis(vectors, order, 1) < 0)
    return result


def item_titles(world: World) -> list[str]:
    """Return a title an item, such as "Hushed harbour 17": a word of its strongest pole, and a number of its own."""
    rows = np.arange(len(world.items.price))
    words = _words(world, poles_of(world.items.aspects, 1), 0)
    nouns = integers(len(_NOUNS), world.seed, Stream.WORDS, 1, rows)
    return [
        f"{word.capitalize()} {_NOUNS[noun]} {row + 1}" for (word,), noun, row in zip(words, nouns, rows, strict=True)
    ]


def item_texts(world: World) -> list[str]:
    """Return a text an item, such as "A hushed and tender family story about a harbour; eerie to the end."."""
    items, rows = world.items, np.arange(len(world.items.price))
    words = _words(world, poles_of(items.aspects, min(3, items.aspects.shape[1])), 2)
    nouns = integers(len(_NOUNS), world.seed, Stream.WORDS, 1, rows)
    texts = []
    for (first, second, *third), category, noun in zip(words, items.category.tolist(), nouns, strict=True):
        end = f"; {third[0]} to the end" if third else ""
        texts.append(f"{_a(first)} and {second} {category_name(category)} story about {_a(_NOUNS[noun]).lower()}{end}.")
    return texts


def creative_texts(world: World) -> list[str]:
    """Return the line on each artwork, which stresses what its title stresses, such as "A tender story"."""
    return [f"{_a(word)} story" for (word,) in _words(world, poles_of(world.creatives.title, 1), 3)]


def creative_uris(world: World) -> list[str]:
    """Return where each artwork's image would lie; the name says what the image stresses, as a caption would."""
    words = _words(world, poles_of(world.creatives.image, 1), 4)
    return [f"images/{row + 1}-{word}.jpg" for row, (word,) in enumerate(words)]


def subject_texts(world: World) -> list[str]:
    """Return the subject lines."""
    return [f"Something {word} for you" for (word,) in _words(world, poles_of(world.subjects.title, 1), 5)]


def hero_uris(world: World) -> list[str]:
    """Return where each hero picture would lie."""
    words = _words(world, poles_of(world.heroes.image, 1), 6)
    return [f"images/hero-{row + 1}-{word}.jpg" for row, (word,) in enumerate(words)]


def _words(world: World, poles: np.ndarray, purpose: int) -> list[list[str]]:
    """Return a word for each of [n, m] poles, drawn among the pole's words."""
    rows, places = np.arange(len(poles))[:, None], np.arange(poles.shape[1])
    drawn = integers(len(POLES[0]), world.seed, Stream.WORDS, 100 + purpose, rows, places)
    table = np.array(POLES, object)
    chosen: list[list[str]] = table[poles, drawn].tolist()
    return chosen


def _a(word: str) -> str:
    return f"{'An' if word[0] in 'aeiou' else 'A'} {word}"
