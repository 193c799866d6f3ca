"""How people respond to mails: draws from the probabilities of respond.py."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.world.build import World
from playbill.world.draws import Stream, uniform
from playbill.world.respond import (
    late_us,
    message_click_probability,
    message_purchase_probability,
    open_probability,
)

_HOUR_US = 3_600_000_000
_WEEK_H = 168


@dataclass(slots=True)
class Mails:
    """Mails sent, [n] rows each.

    Attributes:
        person, subject, hero: rows.
        offer: rows of messages.offers.
        hour_of_week: local hour of the week at arrival, 0..167, 0 is Monday 00:00.
        day: 0-based day of the world.
        at_us: int64 microseconds since 1970 UTC, arrival.
        key: uint64, one a mail: keys its draws.
    """

    person: np.ndarray
    subject: np.ndarray
    hero: np.ndarray
    offer: np.ndarray
    hour_of_week: np.ndarray
    day: int | np.ndarray
    at_us: np.ndarray
    key: np.ndarray


@dataclass(slots=True)
class MailResponses:
    """What happened to mails, [n] rows each; delays are int64 microseconds after arrival, 0 where it did not happen.

    Attributes:
        opened: bool, the person opened it.
        machine_opened: bool, the mail program did; a log shows both as an opening.
        clicked: bool.
        bought: bool, the person bought something within three days, because of the mail or not.
        open_delay_us, machine_delay_us, click_delay_us, purchase_delay_us: as they say; no purchase comes before the
            opening or the click by the same person, and none later than delays.most_h.
    """

    opened: np.ndarray
    machine_opened: np.ndarray
    clicked: np.ndarray
    bought: np.ndarray
    open_delay_us: np.ndarray
    machine_delay_us: np.ndarray
    click_delay_us: np.ndarray
    purchase_delay_us: np.ndarray


def respond_to_mails(world: World, mails: Mails) -> MailResponses:
    """Draw what people and their machines do with mails; each mail's draws depend on its key alone."""
    m, seed, delays = mails, world.seed, world.parameters.delays
    opened = uniform(seed, Stream.OPEN, m.key) < open_probability(world, m.person, m.subject, m.hour_of_week, m.day)
    clicked = uniform(seed, Stream.MESSAGE_CLICK, m.key) < message_click_probability(world, m.person, m.hero, m.day)
    clicked &= opened
    bought = uniform(seed, Stream.MESSAGE_PURCHASE, m.key) < message_purchase_probability(
        world, m.person, m.offer, opened
    )
    machine = world.people.machine[m.person] & world.parameters.switches.machine_opens
    open_delay = in_own_hours_us(world, m, opened, late_us(world, Stream.OPEN_DELAY, m.key, delays.open_mean_h))
    most = int(delays.most_h * _HOUR_US)
    click_delay = open_delay + late_us(
        world, Stream.MESSAGE_CLICK_DELAY, m.key, world.parameters.clicks.delay_mean_s / 3600
    )
    click_delay = np.minimum(click_delay, most)
    # what makes people buy is in the mail: nobody who opened it, or clicked in it, buys before that
    cause = np.where(clicked, click_delay, np.where(opened, open_delay, 0))
    buy_delay = cause + late_us(world, Stream.MESSAGE_PURCHASE_DELAY, m.key, delays.purchase_mean_h, most - cause)
    machine_delay = late_us(world, Stream.MACHINE_OPEN_DELAY, m.key, delays.machine_open_mean_s / 3600)
    return MailResponses(
        opened=opened,
        machine_opened=machine,
        clicked=clicked,
        bought=bought,
        open_delay_us=np.where(opened, open_delay, 0),
        machine_delay_us=np.where(machine, machine_delay, 0),
        click_delay_us=np.where(clicked, click_delay, 0),
        purchase_delay_us=np.where(bought, buy_delay, 0),
    )


def in_own_hours_us(world: World, mails: Mails, opened: np.ndarray, late: np.ndarray) -> np.ndarray:
    """Return when mails are opened if waiting passes as fast as the person is there at that hour of the week.

    An hour in which the person is there twice as often as on average counts double, and a night hardly: opens then
    follow the person's own hours and not the sender's. No wait is longer than delays.most_h.

    Args:
        opened: [n] bool; the other rows are left as they are.
        late: [n] int64 microseconds, the wait of somebody who is there alike at all hours.
    Returns:
        [n] int64 microseconds after arrival.
    """
    switches, most_h = world.parameters.switches, world.parameters.delays.most_h
    rows = np.flatnonzero(opened & (late > 0))
    if not switches.rhythm or not len(rows):
        return late
    weeks = np.tile(world.rhythms.astype(np.float64), 2 + int(most_h) // _WEEK_H)
    passed = np.concatenate([np.zeros((len(weeks), 1)), np.cumsum(weeks, axis=1)], axis=1)
    person = mails.person[rows]
    rhythm, hour = world.people.rhythm[person], mails.hour_of_week[rows]
    local_us = mails.at_us[rows] + world.people.utc_offset_min[person].astype(np.int64) * (_HOUR_US // 60)
    begun = local_us % _HOUR_US / _HOUR_US
    until = passed[rhythm, hour] + begun * weeks[rhythm, hour] + late[rows] / _HOUR_US
    # the hour in which the wait is over, by bisection: a row looks at no other
    low, high = hour.astype(np.int64), np.full(len(rows), passed.shape[1] - 2)
    while (low < high).any():
        middle = (low + high + 1) // 2
        below = passed[rhythm, middle] <= until
        low, high = np.where(below, middle, low), np.where(below, high, middle - 1)
    wait_h = low + (until - passed[rhythm, low]) / weeks[rhythm, low] - hour - begun
    result: np.ndarray = late.copy()
    result[rows] = (np.clip(wait_h, 0.0, most_h) * _HOUR_US).astype(np.int64)
    return result
