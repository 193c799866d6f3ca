"""What a request may choose from: distinct candidates, dealt into one small pool a position.

Each morning the shop orders the items it has by recent clicks, the newest arrivals last: the day's *deck*. The deck is
cut into `slate length * pool` runs, short ones at the head and long ones towards the tail, so that a run drawn from is
about as likely to hold a bestseller as the Zipf curve says. A request takes one item of each run, at random, and deals
the runs to the positions like cards, beginning at a random one. So a request's candidates are distinct, every position
has some of the head and some of the tail, and the pools are known before anything is chosen: what a policy does at one
position says nothing about the others, and the propensity of a choice is its probability within its pool.

All of it follows from the deck, the seed and the visit's key: `pools_of` deals a written request's pools again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from playbill.errors import WorldError
from playbill.world.build import World, items_there
from playbill.world.draws import Stream, bits, uniform
from playbill.world.identifiers import MAIL, Sessions

Array = np.ndarray[Any, Any]

FRESH_DAYS = 14
"""An item counts as a new arrival for so long."""
_SHORTEST_RUN = 3

DECKS = "truth/decks.npy"
"""[days, items] int32 rows of items in each day's order, -1 after the last; beside the written tables."""


def make_deck(world: World, day: int, recent_clicks: Array) -> tuple[Array, int]:
    """Return a day's deck: the available items by recent clicks, most first, then the new arrivals.

    Args:
        world: as built.
        day: 0-based.
        recent_clicks: [I] numbers up to yesterday.
    Returns:
        deck [available] int32 rows of items, and how many at its end are new arrivals.
    """
    there = items_there(world, day)
    fresh = _fresh(world, day)
    tie = bits(world.seed, Stream.CANDIDATE, np.arange(there))
    # items stand in the order of their publication: the new arrivals are the last rows
    order = np.lexsort((tie, -np.asarray(recent_clicks[:there], np.float64), np.arange(there) >= there - fresh))
    return order.astype(np.int32), fresh


def runs(available: int, fresh: int, slate_length: int, pool: int) -> Array:
    """Return [E + 1] int64: run e of a deck is its entries edges[e] .. edges[e + 1].

    E is the slate's length times the pool's size; where the catalogue is small the pools are smaller too. The new
    arrivals are a run of their own while there are any.

    Raises:
        WorldError: fewer items than positions.
    """
    size = min(pool, available // slate_length)
    if size < 1:
        raise WorldError(
            f"{available} items are available and a slate has {slate_length} positions; "
            "raise size.items, lower size.slate_length or lower catalogue.new_share"
        )
    count = slate_length * size
    apart = 0 < fresh <= available - (count - 1) and count > 1
    known, cuts = (available - fresh, count - 1) if apart else (available, count)
    least = min(_SHORTEST_RUN, known // cuts)
    growth = known ** (np.arange(cuts + 1) / cuts) - 1
    further = np.floor((known - least * cuts) * growth / max(growth[-1], 1e-12)).astype(np.int64)
    edges = least * np.arange(cuts + 1) + further
    edges[-1] = known
    return np.append(edges, available) if apart else edges


def deal(world: World, deck: Array, fresh: int, key: Array) -> Array:
    """Return [n, K, m] int32 rows of items: the pools of n requests, all K * m of a request distinct.

    Args:
        deck, fresh: of `make_deck`.
        key: [n] uint64 keys of the visits.
    """
    positions = world.size.slate_length
    edges = runs(len(deck), fresh, positions, world.size.pool)
    count = len(edges) - 1
    start, length = edges[:-1], np.diff(edges)
    first = (uniform(world.seed, Stream.POOL, key) * count).astype(np.int64)
    run = first[:, None] + np.arange(count)
    run %= count
    drawn = uniform(world.seed, Stream.CANDIDATE, key[:, None], np.arange(count, dtype=np.uint64))
    drawn *= length[run]
    place = drawn.astype(np.int64)
    place += start[run]
    # column e belongs to position e % K: every position gets runs from all along the deck
    return deck[place].reshape(len(key), count // positions, positions).transpose(0, 2, 1)


def pools_of(world: World, folder: Path | str, request_ids: Array) -> list[Array]:
    """Return the pools of written requests, dealt again from the truth.

    Args:
        world: of `truth.open_truth(folder)`.
        folder: the folder of tables that `generate` wrote.
        request_ids: [n] int64 request ids of item decisions, all of visits.
    Returns:
        n arrays [K, m] int64 item ids; position k chose one of row k.
    Raises:
        WorldError: the folder holds no decks, or an id is no visit's.
    """
    path = Path(folder) / DECKS
    if not path.is_file():
        raise WorldError(f"no decks in {folder}: {DECKS} is missing; write the world with `playbill generate`")
    decks = np.load(path, mmap_mode="r", allow_pickle=False)
    day, person, number = Sessions(len(world.people.visits_per_day), world.size.days).back(request_ids)
    if np.any((day < 0) | (day >= len(decks))):
        raise WorldError(f"{int(np.sum((day < 0) | (day >= len(decks))))} request ids are of no day of this world")
    if np.any(number == MAIL):
        raise WorldError(f"{int(np.sum(number == MAIL))} request ids are of mails, which choose from no pools")
    found: list[Array] = [np.zeros(0)] * len(request_ids)
    for d in np.unique(day):
        rows = np.flatnonzero(day == d)
        deck = np.asarray(decks[d])
        deck = deck[deck >= 0]
        key = bits(world.seed, Stream.VISIT_KEY, int(d), person[rows], number[rows])
        for row, pool in zip(rows, deal(world, deck, _fresh(world, int(d)), key), strict=True):
            found[row] = pool.astype(np.int64) + 1
    return found


def _fresh(world: World, day: int) -> int:
    """Return how many of the items there on a day are new arrivals; what was there from the start never is."""
    return items_there(world, day) - items_there(world, max(day - FRESH_DAYS, 0))
