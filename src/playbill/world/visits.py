"""Who comes when: the visits of one day, the same for any group of people at once.

The days of the world are UTC days: a policy that acts on "up to yesterday" then knows nothing that lies ahead of
anybody. A person's rhythm is over local hours of the week and is shifted into UTC here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from playbill.world.draws import Stream, bits, uniform
from playbill.world.identifiers import VISITS_A_DAY, Sessions
from playbill.world.people import ZONES
from playbill.world.settings import Size, first_weekday, start_us

if TYPE_CHECKING:
    from playbill.world.build import World

Array = np.ndarray[Any, Any]

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US


@dataclass(slots=True)
class Visits:
    """Visits of one day, ordered by person and number; all [n].

    Attributes:
        day: 0-based UTC day.
        person: int64 row of people.
        number: int64, 0 for the person's first draw of the day; not an order in time.
        session: int64 session id, also the request id of the visit's slate.
        key: uint64 that keys all further draws of the visit.
        at_us: int64 UTC microseconds.
        hour: int64 local hour of the day, 0..23.
        device: int64 column of `People.device_share`.
    """

    day: int
    person: Array
    number: Array
    session: Array
    key: Array
    at_us: Array
    hour: Array
    device: Array

    def __len__(self) -> int:
        return len(self.person)


def day_start_us(size: Size, day: int) -> int:
    """Return the first microsecond of a day of the world."""
    return start_us(size) + day * DAY_US


def local_hour_of_week(size: Size, at_us: Array, utc_offset_min: Array) -> Array:
    """Return int64 0..167, hour 0 being Monday 0:00 local time; arguments broadcast."""
    since_monday = at_us - start_us(size) + first_weekday(size) * DAY_US
    hours: Array = (since_monday + utc_offset_min.astype(np.int64) * (HOUR_US // 60)) // HOUR_US
    return hours % 168


def visits(world: World, day: int, low: int = 0, high: int | None = None) -> Visits:
    """Return who of people low..high-1 comes on a day, when and with which device.

    The number of visits is Poisson (cut at VISITS_A_DAY) around the person's visits a day times the weight that their
    rhythm gives to this day; the hour follows the rhythm.

    Args:
        world: as built.
        day: 0-based.
        low, high: rows of people; None: to the last.
    """
    people = world.people
    high = len(people.visits_per_day) if high is None else high
    every = np.arange(low, high)
    shares, edges = day_shares(world, day)
    zones = len(world.parameters.population.timezones)
    row = people.rhythm[low:high].astype(np.int64) * zones + people.timezone[low:high]
    mean = people.visits_per_day[low:high].astype(np.float64) * shares[row]
    drawn = uniform(world.seed, Stream.VISIT_COUNT, day, every)
    count = _poisson(mean, drawn)
    come = np.flatnonzero(count)
    times = count[come]
    person = np.repeat(every[come], times)
    number = np.arange(len(person)) - np.repeat(np.cumsum(times) - times, times)
    key = bits(world.seed, Stream.VISIT_KEY, day, person, number)
    hour_edges = edges[np.repeat(row[come], times)]
    utc_hour = (hour_edges <= uniform(world.seed, Stream.VISIT_HOUR, key)[:, None]).sum(1)
    within_us = (uniform(world.seed, Stream.VISIT_MINUTE, key) * HOUR_US).astype(np.int64)
    at_us = day_start_us(world.size, day) + np.minimum(utc_hour, 23) * HOUR_US + within_us
    device_edges = np.cumsum(people.device_share[person], axis=1, dtype=np.float64)
    draw = uniform(world.seed, Stream.VISIT_DEVICE, key)[:, None] * device_edges[:, -1:]
    device = np.minimum((device_edges <= draw).sum(1), device_edges.shape[1] - 1)
    return Visits(
        day=day,
        person=person,
        number=number,
        session=Sessions(len(people.visits_per_day), world.size.days).ids(day, person, number),
        key=key,
        at_us=at_us,
        hour=local_hour_of_week(world.size, at_us, people.utc_offset_min[person]) % 24,
        device=device,
    )


def day_shares(world: World, day: int) -> tuple[Array, Array]:
    """Return for each (rhythm, zone) the weight of the UTC day (mean 1 over a week), and its hours' cumulative shares.

    Returns:
        shares [R * zones] float64, edges [R * zones, 24] float64 that end in 1.
    """
    rhythms = np.asarray(world.rhythms, np.float64)
    offset_h = np.array([ZONES[name] for name in world.parameters.population.timezones]) // 60
    weekday = (day + first_weekday(world.size)) % 7
    hours = (weekday * 24 + np.arange(24)[None, :] + offset_h[:, None]) % 168
    mass = rhythms[:, hours].reshape(-1, 24)
    total = mass.sum(1)
    weekly = np.repeat(rhythms.sum(1), len(offset_h))
    return 7 * total / weekly, np.cumsum(mass, 1) / total[:, None]


def _poisson(mean: Array, drawn: Array) -> Array:
    """Return [n] int64 Poisson counts by inversion of one uniform draw each, cut at VISITS_A_DAY."""
    chance = np.exp(-mean)
    count = np.zeros(len(mean), np.int64)
    rows = np.flatnonzero(drawn >= chance)
    reached, term = chance[rows], chance[rows]
    for k in range(1, VISITS_A_DAY + 1):
        count[rows] = k
        term = term * mean[rows] / k
        reached = reached + term
        further = drawn[rows] >= reached
        rows, reached, term = rows[further], reached[further], term[further]
        if not len(rows):
            break
    return count
