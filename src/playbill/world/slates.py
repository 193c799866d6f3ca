"""One day's visits of some people: what the shop shows them, what they do, and what it learns from that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from playbill.world.build import World
from playbill.world.decisions import Choices, context, named, texts
from playbill.world.draws import Stream, key_of, uniform
from playbill.world.identifiers import CREATIVE, ITEM
from playbill.world.knowledge import Beliefs, Knowledge
from playbill.world.organic import find
from playbill.world.people import segment_name
from playbill.world.policies import choose, probabilities
from playbill.world.pools import deal
from playbill.world.respond import Impressions, Responses, after_click, respond
from playbill.world.settings import GenerateSettings, PolicyKind
from playbill.world.unfairness import shown
from playbill.world.visits import DAY_US, Visits, day_start_us
from playbill.world.writing import CLICK, PLAY, PURCHASE, RATE, SEARCH_PLAY, VISIT, Events, make_events

Array = np.ndarray[Any, Any]

_SEARCH = 1 << 20  # stands where an impression has its position: no slate is that long


@dataclass(slots=True)
class Slates:
    """Slates of n visits with K positions.

    Attributes:
        pools: [n, K, m] int32 rows of items: what each position could choose from.
        item, creative: [n, K] int64 rows.
        item_propensity, creative_propensity: [n, K] float64, within the pool and among the item's creatives.
        shown: [n, K] bool; what was chosen and not shown is no impression and is written nowhere.
        key: [n, K] uint64, one an impression.
    """

    pools: Array
    item: Array
    creative: Array
    item_propensity: Array
    creative_propensity: Array
    shown: Array
    key: Array


def segment_of(world: World, person: Array) -> Array:
    """Return int64 declared segments; people without an account have the one after the last."""
    people = world.people
    unknown = world.parameters.population.segments
    return np.where(people.anonymous[person], unknown, people.declared_segment[person]).astype(np.int64)


def creative_tables(world: World, policy_beliefs: Beliefs, settings: GenerateSettings) -> tuple[Array, Array]:
    """Return what the creative policy does with every item today: probabilities and their running sums, [I, most]."""
    first = np.asarray(world.creatives.first, np.int64)
    count = np.diff(first)
    column = np.arange(count.max())
    eligible = column < count[:, None]
    row = np.minimum(first[:-1, None] + column, first[-1] - 1)
    chances = probabilities(
        settings.creative, policy_beliefs.creative_value[row], policy_beliefs.creative_count[row], eligible
    )
    return chances, np.cumsum(chances, axis=1)


def make_slates(
    world: World,
    visits: Visits,
    deck: tuple[Array, int],
    believed: Beliefs,
    creative: tuple[Array, Array],
    settings: GenerateSettings,
) -> Slates:
    """Choose the items and creatives of some visits of a day.

    Args:
        deck: of `make_deck`, for the day.
        believed: what the policies may act on.
        creative: of `creative_tables`.
    """
    pools = deal(world, *deck, visits.key)
    n, positions, _ = pools.shape
    key = key_of(visits.key[:, None], np.arange(positions))
    if settings.item.kind is PolicyKind.uniform:
        values = np.broadcast_to(0.0, pools.shape)
    elif settings.item.kind is PolicyKind.popularity:
        values = believed.item_count[pools]
    else:
        values = believed.item_value[segment_of(world, visits.person)[:, None, None], pools]
    chances = probabilities(settings.item, values, values if settings.item.kind is PolicyKind.popularity else None)
    place, item_propensity = choose(chances, uniform(world.seed, Stream.CHOOSE_ITEM, key))
    item = np.take_along_axis(pools, place[..., None], -1)[..., 0].astype(np.int64)
    chance, edges = creative
    draw = uniform(world.seed, Stream.CHOOSE_CREATIVE, key)
    which = (edges[item] <= draw[..., None]).sum(-1)
    which = np.minimum(which, np.diff(world.creatives.first)[item] - 1)
    return Slates(
        pools=pools,
        item=item,
        creative=np.asarray(world.creatives.first, np.int64)[item] + which,
        item_propensity=item_propensity,
        creative_propensity=chance[item, which],
        shown=np.broadcast_to(shown(world, visits.person[:, None], key), (n, positions)),
        key=key,
    )


def answer(world: World, visits: Visits, slates: Slates) -> Responses:
    """Draw what the visitors do; nothing is clicked that was not shown."""
    responses = respond(
        world,
        Impressions(
            person=visits.person[:, None],
            session=visits.session[:, None],
            item=slates.item,
            creative=slates.creative,
            position=np.arange(slates.item.shape[1]),
            hour=visits.hour[:, None],
            device=visits.device[:, None],
            day=visits.day,
            at_us=visits.at_us[:, None],
            key=slates.key,
        ),
    )
    responses.clicked = responses.clicked & slates.shown
    return responses


def slate_events(world: World, visits: Visits, slates: Slates, responses: Responses) -> list[Events]:
    """Return what the visitors did on their slates, visits included."""
    found = [make_events(VISIT, visits.person, visits.session, visits.at_us, device=visits.device)]
    for kind, happened, delay, value in (
        (CLICK, responses.clicked, responses.click_delay_us, None),
        (PLAY, responses.clicked, responses.play_delay_us, responses.completion),
        (RATE, responses.clicked & ~np.isnan(responses.stars), responses.stars_delay_us, responses.stars),
        (PURCHASE, responses.clicked & responses.bought, responses.purchase_delay_us, world.items.price[slates.item]),
    ):
        row, position = np.nonzero(happened)
        found.append(
            make_events(
                kind,
                visits.person[row],
                visits.session[row],
                visits.at_us[row] + delay[row, position],
                slot=2 * position + ITEM,
                item=slates.item[row, position],
                creative=slates.creative[row, position],
                value=np.nan if value is None else value[row, position],
                device=visits.device[row],
            )
        )
    return found


def searches(world: World, visits: Visits, attraction: Array) -> Events:
    """Return the plays of items that visitors find by themselves; they answer no decision."""
    key = key_of(visits.key, _SEARCH)
    row = np.flatnonzero(uniform(world.seed, Stream.ORGANIC, key) < world.parameters.outcomes.organic_visits_share)
    item = find(world, visits.person[row], visits.day, key[row], attraction)
    after = after_click(world, visits.person[row], item, visits.day, key[row])
    return make_events(
        SEARCH_PLAY,
        visits.person[row],
        visits.session[row],
        visits.at_us[row] + after.play_delay_us,
        item=item,
        value=after.completion,
        device=visits.device[row],
    )


def learn(world: World, known: Knowledge, visits: Visits, slates: Slates, responses: Responses) -> None:
    """Add a chunk's impressions and clicks to today's counts."""
    row, position = np.nonzero(slates.shown)
    group = segment_of(world, visits.person) * known.categories
    category = np.asarray(world.items.category, np.int64)
    item = slates.item[row, position]
    known.item.tried(item)
    known.group.tried(group[row] + category[item])
    known.creative.tried(slates.creative[row, position])
    row, position = np.nonzero(responses.clicked)
    at_us = visits.at_us[row] + responses.click_delay_us[row, position]
    later = (at_us - day_start_us(world.size, visits.day)) // DAY_US
    item = slates.item[row, position]
    known.item.succeeded(item, later)
    known.group.succeeded(group[row] + category[item], later)
    known.creative.succeeded(slates.creative[row, position], later)


def slate_choices(
    world: World, visits: Visits, slates: Slates, settings: GenerateSettings, written: Array
) -> list[Choices]:
    """Return the item and creative decisions of the visitors whose decisions are written.

    Args:
        written: [P] bool.
    """
    row, position = np.nonzero(slates.shown & written[visits.person][:, None])
    item, creative = slates.item[row, position], slates.creative[row, position]
    pool = slates.pools[row, position]
    contexts: tuple[pa.Array | None, pa.Array | None] = (None, None)
    first = np.asarray(world.creatives.first, np.int64)
    count = np.diff(first)
    if world.size.contexts:
        moment = {
            "segment": named(_segments(world), segment_of(world, visits.person[row])),
            "hour": texts(visits.hour[row]),
            "device": named([f'"{d}"' for d in world.parameters.clicks.device], visits.device[row]),
        }
        of_item = [
            pa.array(first[item] + k + 1, mask=k >= count[item]).cast(pa.string()) for k in range(int(count.max()))
        ]
        contexts = (
            context(moment, [texts(pool[:, k].astype(np.int64) + 1) for k in range(pool.shape[1])]),
            context({"item_id": texts(item + 1), **moment}, of_item),
        )

    def choices(
        kind: str, policy: PolicyKind, slot: int, chosen: Array, chance: Array, of: Array | int, k: int
    ) -> Choices:
        return Choices(
            kind=kind,
            policy=str(policy),
            person=visits.person[row],
            session=True,
            request=visits.session[row],
            slot=2 * position + slot,
            chosen=texts(chosen + 1),
            at_us=visits.at_us[row],
            position=position,
            propensity=chance[row, position],
            eligible_count=of,
            context=contexts[k],
        )

    return [
        choices("item", settings.item.kind, ITEM, item, slates.item_propensity, pool.shape[1], 0),
        choices("creative", settings.creative.kind, CREATIVE, creative, slates.creative_propensity, count[item], 1),
    ]


def _segments(world: World) -> Sequence[str]:
    names = [f'"{segment_name(k)}"' for k in range(world.parameters.population.segments)]
    return [*names, "null"]
