"""One day's mails of some people: whom the shop writes to, what and when, and what comes of it.

Everybody who may be contacted, and agreed to marketing where the world asks for that, has a mail day every so many
days. A small share is held back at random (`hold`). The rest get a subject line, a hero picture, a local hour and an
offer, each chosen by a logging policy of its own. The shop decides at midnight UTC; the mail arrives when that UTC day
reaches the local hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from playbill.world.build import World
from playbill.world.decisions import MAIL_POLICY, Choices, context, named
from playbill.world.draws import Stream, bits, integers, key_of, uniform
from playbill.world.identifiers import HERO, HOLD, MAIL, OFFER, SEND_HOUR, SUBJECT, Sessions
from playbill.world.knowledge import Beliefs, Knowledge
from playbill.world.messages import MailResponses, Mails, respond_to_mails
from playbill.world.organic import find
from playbill.world.people import segment_name
from playbill.world.policies import choose, probabilities
from playbill.world.settings import GenerateSettings, LoggingPolicy
from playbill.world.slates import segment_of
from playbill.world.unfairness import offer_probabilities
from playbill.world.visits import DAY_US, HOUR_US, day_start_us, local_hour_of_week
from playbill.world.writing import MESSAGE_CLICK, OPEN, PURCHASE, Events, make_events

Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class Mailing:
    """The people whose mail day it is, [n], and the mails of those who are not held back, [s].

    Attributes:
        person: [n] int64 rows; request: [n] int64 request ids; held: [n] bool.
        mails: of the others.
        mail_request: [s] int64.
        which: [s] int64 by "subject", "hero", "send_hour", "offer": rows of what was chosen.
        propensity: [s] float64 by the same names.
        responses: of the mails.
    """

    day: int
    person: Array
    request: Array
    held: Array
    mails: Mails
    mail_request: Array
    which: dict[str, Array]
    propensity: dict[str, Array]
    responses: MailResponses


_STREAMS = {
    "subject": Stream.CHOOSE_SUBJECT,
    "hero": Stream.CHOOSE_HERO,
    "send_hour": Stream.CHOOSE_SEND_HOUR,
    "offer": Stream.CHOOSE_OFFER,
}
_SLOTS = {"subject": SUBJECT, "hero": HERO, "send_hour": SEND_HOUR, "offer": OFFER}


def may_be_mailed(world: World) -> Array:
    """Return [P] bool: people with an address who agreed to marketing (where the world asks for that purpose)."""
    people = world.people
    agreed = people.consent.get("marketing", np.ones(len(people.contactable), bool))
    mailable: Array = people.contactable & agreed & ~people.anonymous
    return mailable


def send_mails(
    world: World, day: int, low: int, high: int, mailable: Array, believed: Beliefs, settings: GenerateSettings
) -> Mailing:
    """Decide about the mails of one day to people low..high-1, and draw what comes of them.

    Args:
        mailable: [P] bool of `may_be_mailed`.
        believed: what the policies may act on.
    """
    messages, seed = world.parameters.messages, world.seed
    person = low + np.flatnonzero(mailable[low:high]) if messages.every_days else np.zeros(0, np.int64)
    if len(person):
        person = person[integers(messages.every_days, seed, Stream.MAIL_DAY, person) == day % messages.every_days]
    request = Sessions(len(world.people.contactable), world.size.days).ids(day, person, MAIL)
    key = bits(seed, Stream.VISIT_KEY, day, person, MAIL)
    held = uniform(seed, Stream.CHOOSE_HOLD, key) < settings.hold_share
    person_s, key_s = person[~held], key[~held]
    segment = segment_of(world, person_s)
    which: dict[str, Array] = {}
    propensity: dict[str, Array] = {}
    for name, stream in _STREAMS.items():
        policy = _policy(settings, name)
        chances = probabilities(policy, believed.mail_value[name], believed.mail_count[name])[segment]
        if name == "offer":
            chances = offer_probabilities(world, person_s, chances)
        which[name], propensity[name] = choose(chances, uniform(seed, stream, key_s))
    offset = world.people.utc_offset_min[person_s].astype(np.int64)
    local_min = np.asarray(messages.send_hours, np.int64)[which["send_hour"]] * 60
    at_us = day_start_us(world.size, day) + (local_min - offset) % (24 * 60) * (HOUR_US // 60)
    mails = Mails(
        person=person_s,
        subject=which["subject"],
        hero=which["hero"],
        offer=which["offer"],
        hour_of_week=local_hour_of_week(world.size, at_us, offset),
        day=day,
        at_us=at_us,
        key=key_s,
    )
    return Mailing(
        day=day,
        person=person,
        request=request,
        held=held,
        mails=mails,
        mail_request=request[~held],
        which=which,
        propensity=propensity,
        responses=respond_to_mails(world, mails),
    )


def mail_events(world: World, mailing: Mailing, attraction: Array) -> list[Events]:
    """Return openings (by people and by machines alike), clicks, and purchases; these are found as in a search."""
    m, r = mailing.mails, mailing.responses
    artworks = len(world.creatives.item)
    subject = artworks + mailing.which["subject"]
    hero = artworks + len(world.subjects.pull) + mailing.which["hero"]
    device = _device(world, mailing)

    def events(kind: int, rows: Array, delay_us: Array, slot: int, **more: Any) -> Events:
        at_us = m.at_us[rows] + delay_us[rows]
        return make_events(kind, m.person[rows], mailing.mail_request[rows], at_us, slot=slot, **more)

    person, machine = np.flatnonzero(r.opened), np.flatnonzero(r.machine_opened)
    clicked, bought = np.flatnonzero(r.clicked), np.flatnonzero(r.bought)
    item = find(world, m.person[bought], mailing.day, key_of(m.key[bought], OFFER), attraction)
    return [
        events(OPEN, person, r.open_delay_us, SUBJECT, creative=subject[person], device=device[person]),
        events(OPEN, machine, r.machine_delay_us, SUBJECT, creative=subject[machine], device=device[machine]),
        events(MESSAGE_CLICK, clicked, r.click_delay_us, HERO, creative=hero[clicked], device=device[clicked]),
        events(
            PURCHASE,
            bought,
            r.purchase_delay_us,
            OFFER,
            item=item,
            value=world.items.price[item],
            device=device[bought],
        ),
    ]


def learn_mails(world: World, known: Knowledge, mailing: Mailing) -> None:
    """Add a chunk's mails and what came of them to the counts, each response on the day on which it comes."""
    r, segment = mailing.responses, segment_of(world, mailing.mails.person)
    tallies = {"subject": known.subject, "hero": known.hero, "send_hour": known.hour, "offer": known.offer}
    start = day_start_us(world.size, mailing.day)
    opened = r.opened | r.machine_opened
    first_open = np.where(
        r.opened & r.machine_opened,
        np.minimum(r.open_delay_us, r.machine_delay_us),
        np.where(r.opened, r.open_delay_us, r.machine_delay_us),
    )
    outcome = {
        "subject": (opened, first_open),
        "send_hour": (opened, first_open),
        "hero": (r.clicked, r.click_delay_us),
        "offer": (r.bought, r.purchase_delay_us),
    }
    for name, tally in tallies.items():
        cells = segment * (len(tally.trials) // (known.segments + 1)) + mailing.which[name]
        happened, delay_us = outcome[name]
        rows = np.flatnonzero(happened)
        tally.tried(cells)
        tally.succeeded(cells[rows], (mailing.mails.at_us[rows] + delay_us[rows] - start) // DAY_US)


def mail_choices(world: World, mailing: Mailing, settings: GenerateSettings, written: Array) -> list[Choices]:
    """Return the decisions about mails to people whose decisions are written."""
    messages = world.parameters.messages
    artworks, subjects, heroes = len(world.creatives.item), len(world.subjects.pull), len(world.heroes.pull)
    at_us = day_start_us(world.size, mailing.day)

    def choices(
        kind: str,
        policy: str,
        slot: int,
        rows: Array,
        chosen: Any,
        chance: Array,
        count: int,
        eligible: str,
        all_of: bool,
    ) -> Choices:
        person = (mailing.person if all_of else mailing.mails.person)[rows]
        about = {"segment": named(_segments(world), segment_of(world, person))}
        return Choices(
            kind=kind,
            policy=MAIL_POLICY + policy,
            person=person,
            session=False,
            request=(mailing.request if all_of else mailing.mail_request)[rows],
            slot=slot,
            chosen=chosen,
            at_us=np.full(len(rows), at_us),
            position=None,
            propensity=chance,
            eligible_count=count,
            context=context(about, eligible) if world.size.contexts else None,
        )

    every = np.flatnonzero(written[mailing.person])
    held = mailing.held[every]
    share = settings.hold_share
    found = [
        choices(
            "hold",
            "holdout",
            HOLD,
            every,
            named(["send", "hold"], held.astype(np.int64)),
            np.where(held, share, 1.0 - share),
            2 if share > 0 else 1,
            '"send","hold"' if share > 0 else '"send"',
            True,
        )
    ]
    rows = np.flatnonzero(written[mailing.mails.person])
    first = {"subject": artworks + 1, "hero": artworks + subjects + 1}
    names = {
        "subject": [str(first["subject"] + k) for k in range(subjects)],
        "hero": [str(first["hero"] + k) for k in range(heroes)],
        "send_hour": [str(hour) for hour in messages.send_hours],
        "offer": list(messages.offers),
    }
    for name, words in names.items():
        quoted = ",".join(f'"{word}"' if name == "offer" else word for word in words)
        found.append(
            choices(
                "creative" if name == "hero" else name,
                str(_policy(settings, name).kind),
                _SLOTS[name],
                rows,
                named(words, mailing.which[name][rows]),
                mailing.propensity[name][rows],
                len(words),
                quoted,
                False,
            )
        )
    return found


def _policy(settings: GenerateSettings, name: str) -> LoggingPolicy:
    policy: LoggingPolicy = getattr(settings, name)
    return policy


def _device(world: World, mailing: Mailing) -> Array:
    """Return [s] the device on which a mail is read; a machine borrows its person's, so that nothing gives it away."""
    edges = np.cumsum(world.people.device_share[mailing.mails.person], axis=1, dtype=np.float64)
    draw = uniform(world.seed, Stream.VISIT_DEVICE, mailing.mails.key)[:, None] * edges[:, -1:]
    device: Array = np.minimum((edges <= draw).sum(1), edges.shape[1] - 1)
    return device


def _segments(world: World) -> list[str]:
    return [f'"{segment_name(k)}"' for k in range(world.parameters.population.segments)]
