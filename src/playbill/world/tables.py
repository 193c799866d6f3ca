"""What the five tables of a world hold: the rows that do not change with time, and what every column and event means.

The tables say what a shop could know. A person's declared segment and favourite category are partly wrong, an item's
text names what it stands for as a blurb would, and a creative says what it stresses; tastes, appeal, quality, kinds of
buyers and machines are in the truth alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from playbill.tables.schema import CONSENT_PREFIX, CONTRACT, Column, EventKind, Kind, Provenance
from playbill.world.build import World
from playbill.world.draws import Stream, exponential
from playbill.world.people import AGE_BANDS, GROUPS, segment_name
from playbill.world.settings import start_us
from playbill.world.visits import DAY_US
from playbill.world.words import (
    category_name,
    creative_texts,
    creative_uris,
    hero_uris,
    item_texts,
    item_titles,
    pole_name,
    poles_of,
    subject_texts,
)

Array = np.ndarray[Any, Any]

_DECLARED = Provenance.DECLARED

EVENTS = [
    EventKind(name="visit", meaning="came to the service", utility=0.0),
    EventKind(name="click", meaning="clicked an item on the slate that was shown", utility=0.0),
    EventKind(
        name="play",
        meaning="watched what was clicked; the part of it that was watched, which is the true utility",
        unit="share",
        low=0.0,
        high=1.0,
        utility=1.0,
    ),
    EventKind(
        name="search_play",
        meaning="watched an item found by search, not from a slate",
        unit="share",
        low=0.0,
        high=1.0,
        utility=1.0,
    ),
    EventKind(
        name="rate",
        meaning="stars given: a biased statement of what was thought of it",
        unit="stars",
        low=1.0,
        high=5.0,
        utility=0.0,
    ),
    EventKind(name="purchase", meaning="bought; the price paid", unit="EUR", low=0.0, utility=0.0),
    EventKind(name="open", meaning="a mail was opened, by its person or by a mail program", utility=0.0),
    EventKind(name="message_click", meaning="clicked in a mail", utility=0.0),
]


def columns(world: World) -> dict[str, list[Column]]:
    """Return the columns of all five tables, in the order in which they are written."""
    consents = [
        Column(name=CONSENT_PREFIX + purpose, kind=Kind.FLAG, provenance=_DECLARED) for purpose in world.people.consent
    ]
    declared = [Column(name=n, kind=Kind.TEXT, provenance=_DECLARED) for n in ("segment", "favourite_category")]
    protected = [Column(name=n, kind=Kind.TEXT, provenance=_DECLARED, protected=True) for n in ("group", "age_band")]
    stressed = [Column(name=n, kind=Kind.TEXT, provenance=_DECLARED) for n in ("title_stresses", "image_stresses")]
    left_out = {"creatives": ("approved_by", "approved_until", "is_default"), "decisions": ("bundle", "arm")}
    kept = {name: [c for c in CONTRACT[name] if c.name not in left_out.get(name, ())] for name in CONTRACT}
    return {
        "users": [*kept["users"], *consents, *declared, *protected],
        "items": kept["items"],
        "creatives": [*kept["creatives"], *stressed],
        "events": kept["events"],
        "decisions": kept["decisions"],
    }


def users_table(world: World) -> pa.Table:
    """Return the people with an account, in the order of their ids."""
    people = world.people
    rows = np.flatnonzero(~people.anonymous)
    segments = [segment_name(k) for k in range(world.parameters.population.segments)]
    categories = _categories(world)
    return pa.table(
        {
            "user_id": pa.array(rows + 1),
            "timezone": _named(list(world.parameters.population.timezones), people.timezone[rows]),
            "contactable": pa.array(people.contactable[rows]),
            **{CONSENT_PREFIX + name: pa.array(given[rows]) for name, given in people.consent.items()},
            "segment": _named(segments, people.declared_segment[rows]),
            "favourite_category": _named(categories, people.favourite_category[rows]),
            "group": _named(GROUPS, people.group[rows]),
            "age_band": _named(AGE_BANDS, people.age_band[rows]),
        }
    )


def items_table(world: World) -> pa.Table:
    """Return the items with titles and texts; those of the first day were published over the two years before it."""
    items = world.items
    rows = np.arange(len(items.price))
    names = _categories(world)
    lists = [
        [names[category], *([names[second]] if second >= 0 else [])]
        for category, second in zip(items.category.tolist(), items.second_category.tolist(), strict=True)
    ]
    age_days = 1 + np.minimum(365 * exponential(world.seed, Stream.AGE_AT_START, rows), 730)
    day = np.where(items.published_day > 0, items.published_day, -np.floor(age_days)).astype(np.int64)
    return pa.table(
        {
            "item_id": pa.array(rows + 1),
            "title": pa.array(item_titles(world)),
            "text": pa.array(item_texts(world)),
            "categories": pa.array(lists, pa.list_(pa.string())),
            "price": pa.array(items.price),
            "published_at": pa.array(start_us(world.size) + day * DAY_US).cast(pa.timestamp("us", tz="UTC")),
            "available": pa.array(np.ones(len(rows), bool)),
            "provider": _named([f"provider {k + 1}" for k in range(int(items.provider.max()) + 1)], items.provider),
        }
    )


def creatives_table(world: World) -> pa.Table:
    """Return artworks (creative_id 1 .. C), then subject lines, then hero pictures."""
    artworks, subjects, heroes = world.creatives, world.subjects, world.heroes
    counts = len(artworks.item), len(subjects.pull), len(heroes.pull)
    kinds = np.repeat(np.arange(3), counts)
    poles = [pole_name(k) for k in range(2 * world.parameters.population.aspects)]
    title = _named(poles, np.concatenate([poles_of(v, 1)[:, 0] for v in (artworks.title, subjects.title)]))
    image = _named(poles, np.concatenate([poles_of(v, 1)[:, 0] for v in (artworks.image, heroes.image)]))
    item = np.concatenate([artworks.item.astype(np.int64), np.zeros(counts[1] + counts[2], np.int64)])
    titles = pa.concat_arrays([title, pa.nulls(counts[2], pa.string())])
    images = pa.concat_arrays([image.slice(0, counts[0]), pa.nulls(counts[1], pa.string()), image.slice(counts[0])])
    uris = [*creative_uris(world), *[None] * counts[1], *hero_uris(world)]
    texts = [*creative_texts(world), *subject_texts(world), *[None] * counts[2]]
    return pa.table(
        {
            "creative_id": pa.array(np.arange(1, sum(counts) + 1)),
            "kind": _named(["artwork", "subject", "hero"], kinds),
            "item_id": pa.array(item + 1, mask=kinds > 0),
            "uri": pa.array(uris, pa.string()),
            "text": pa.array(texts, pa.string()),
            "status": _named(["approved"], np.zeros(sum(counts), np.int64)),
            "locale": _named(["en"], np.zeros(sum(counts), np.int64)),
            "channel": _named(["site", "mail"], np.minimum(kinds, 1)),
            "title_stresses": titles,
            "image_stresses": images,
        }
    )


def _categories(world: World) -> list[str]:
    return [category_name(k) for k in range(world.parameters.catalogue.categories)]


def _named(names: Sequence[str], index: Array) -> pa.Array:
    return pa.array(list(names), pa.string()).take(pa.array(np.asarray(index, np.int64)))
