"""Who the people of a world are: arrays with a row a person (user_id = row + 1), drawn once from the parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.errors import WorldError
from playbill.world.draws import Stream, categorical, integers, normal, uniform
from playbill.world.parameters import Parameters

GROUPS = ("a", "b")
AGE_BANDS = ("18-24", "25-34", "35-44", "45-54", "55-64", "65+")
_AGE_SHARES = (0.14, 0.22, 0.2, 0.18, 0.14, 0.12)

# minutes east of UTC. Only zones that keep one offset all year: a person's local hour is then their UTC hour, shifted
ZONES = {
    "UTC": 0,
    "Africa/Lagos": 60,
    "Africa/Johannesburg": 120,
    "Africa/Nairobi": 180,
    "Asia/Dubai": 240,
    "Asia/Karachi": 300,
    "Asia/Kolkata": 330,
    "Asia/Bangkok": 420,
    "Asia/Singapore": 480,
    "Asia/Tokyo": 540,
    "Australia/Brisbane": 600,
    "America/Argentina/Buenos_Aires": -180,
    "America/Puerto_Rico": -240,
    "America/Bogota": -300,
    "America/Phoenix": -420,
    "Pacific/Honolulu": -600,
}

SEGMENTS = (
    "early birds",
    "night owls",
    "weekenders",
    "families",
    "collectors",
    "bargain hunters",
    "newcomers",
    "regulars",
    "dreamers",
    "connoisseurs",
)


@dataclass(slots=True)
class People:
    """The people, P rows.

    Attributes:
        taste: [P, D] float32 unit vectors, on day 0.
        turn: [P, D] float32 unit vectors at right angles to taste; drift turns taste towards them.
        segment: [P] int16, true segment.
        declared_segment: [P] int16, as the person says, with errors.
        favourite_category: [P] int16, as the person says, with errors.
        anonymous: [P] bool, never logs in: events carry a session_id alone, and `users` has no row.
        visits_per_day: [P] float32, mean.
        rhythm: [P] int16, row of the world's rhythms.
        timezone: [P] int16, row of the names in population.timezones.
        utc_offset_min: [P] int16, minutes east of UTC.
        device_share: [P, devices] float32, rows sum to 1.
        price_sensitivity: [P] float32, not negative.
        inclination: [P] float32, own log-odds of a purchase.
        kind: [P] int8, row of the names in purchases.kinds.
        openness: [P] float32, own log-odds of opening a mail.
        leniency: [P] float32, stars added.
        machine: [P] bool, the mail program opens mails.
        contactable: [P] bool, has an address (never an anonymous person).
        consent: purpose -> [P] bool (no for an anonymous person).
        group: [P] int8, row of GROUPS; protected, half each, independent of everything else.
        age_band: [P] int8, row of AGE_BANDS; protected, independent of everything else.
    """

    taste: np.ndarray
    turn: np.ndarray
    segment: np.ndarray
    declared_segment: np.ndarray
    favourite_category: np.ndarray
    anonymous: np.ndarray
    visits_per_day: np.ndarray
    rhythm: np.ndarray
    timezone: np.ndarray
    utc_offset_min: np.ndarray
    device_share: np.ndarray
    price_sensitivity: np.ndarray
    inclination: np.ndarray
    kind: np.ndarray
    openness: np.ndarray
    leniency: np.ndarray
    machine: np.ndarray
    contactable: np.ndarray
    consent: dict[str, np.ndarray]
    group: np.ndarray
    age_band: np.ndarray


def segment_name(segment: int) -> str:
    """Return a segment's readable name."""
    return SEGMENTS[segment] if segment < len(SEGMENTS) else f"segment {segment + 1}"


def build_people(
    parameters: Parameters, people: int, activity: float, category_centres: np.ndarray, seed: int
) -> People:
    """Draw the people.

    Args:
        people: P, how many.
        activity: factor on everybody's visits a day.
        category_centres: [categories, D] float64, for the declared favourite category.
    Raises:
        WorldError: population.timezones names a zone that is not in ZONES.
    """
    population, purchases, messages = parameters.population, parameters.purchases, parameters.messages
    unknown = sorted(set(population.timezones) - set(ZONES))
    if unknown:
        raise WorldError(f"population.timezones: no zone {', '.join(unknown)}; known: {', '.join(ZONES)}")
    rows = np.arange(people)
    centres = unit(normal(seed, Stream.SEGMENT_CENTRE, *_grid(population.segments, population.aspects)))
    segment = integers(population.segments, seed, Stream.SEGMENT, rows)
    own = normal(seed, Stream.TASTE, *_grid(people, population.aspects)) / np.sqrt(population.aspects)
    taste = unit(centres[segment] + population.taste_spread * own)
    turn = normal(seed, Stream.TURN, *_grid(people, population.aspects))
    turn = unit(turn - np.sum(turn * taste, axis=1, keepdims=True) * taste)
    anonymous = _yes(population.anonymous_share, seed, Stream.ANONYMOUS, rows)
    zones = np.array([ZONES[name] for name in population.timezones], np.int16)
    zone = categorical(np.array(list(population.timezones.values())), seed, Stream.TIMEZONE, rows)
    sensitivity = population.price_sensitivity_mean + population.price_sensitivity_sd * normal(
        seed, Stream.PRICE_SENSITIVITY, rows
    )
    # the mean of exp(sd * z) is exp(sd^2 / 2)
    log_activity = population.activity_sd * normal(seed, Stream.ACTIVITY, rows) - population.activity_sd**2 / 2
    return People(
        taste=taste.astype(np.float32),
        turn=turn.astype(np.float32),
        segment=segment.astype(np.int16),
        declared_segment=_with_errors(
            segment, population.segments, population.segment_error, seed, Stream.DECLARED_ERROR, Stream.DECLARED_SEGMENT
        ),
        favourite_category=_with_errors(
            np.argmax(taste @ category_centres.T, axis=1),
            len(category_centres),
            population.segment_error,
            seed,
            Stream.FAVOURITE_ERROR,
            Stream.FAVOURITE_CATEGORY,
        ),
        anonymous=anonymous,
        visits_per_day=(population.activity_mean * activity * np.exp(log_activity)).astype(np.float32),
        rhythm=integers(population.rhythms, seed, Stream.RHYTHM, rows).astype(np.int16),
        timezone=zone.astype(np.int16),
        utc_offset_min=zones[zone],
        device_share=_device_habits(parameters, people, seed),
        price_sensitivity=np.maximum(sensitivity, 0).astype(np.float32),
        inclination=(purchases.inclination_sd * normal(seed, Stream.INCLINATION, rows)).astype(np.float32),
        kind=categorical(np.array(list(purchases.kinds.values())), seed, Stream.PURCHASE_KIND, rows).astype(np.int8),
        openness=(messages.openness_sd * normal(seed, Stream.OPENNESS, rows)).astype(np.float32),
        leniency=(
            parameters.outcomes.leniency_mean + parameters.outcomes.leniency_sd * normal(seed, Stream.LENIENCY, rows)
        ).astype(np.float32),
        machine=_yes(messages.machine_share, seed, Stream.MACHINE, rows),
        contactable=_yes(population.contactable_share, seed, Stream.CONTACTABLE, rows) & ~anonymous,
        consent={
            purpose: _yes(share, seed, Stream.CONSENT, k, rows) & ~anonymous
            for k, (purpose, share) in enumerate(population.consent_share.items())
        },
        group=integers(2, seed, Stream.GROUP, rows).astype(np.int8),
        age_band=categorical(np.array(_AGE_SHARES), seed, Stream.AGE_BAND, rows).astype(np.int8),
    )


def build_rhythms(parameters: Parameters, seed: int) -> np.ndarray:
    """Return [rhythms, 168] float32: how often people of each rhythm are there, by local hour of week, mean 1 a row.

    Hour 0 is Monday 00:00. A rhythm is the population's week, bent towards a favourite hour of its own on workdays and
    another at the weekend, and towards or away from the weekend.
    """
    population = parameters.population
    rows = np.arange(population.rhythms)
    hours = np.asarray(population.hours) / np.mean(population.hours)
    week = np.outer(np.asarray(population.weekdays) / np.mean(population.weekdays), hours)  # [7, 24]
    if not parameters.switches.rhythm:
        return np.ones((population.rhythms, 168), np.float32)
    clock = 2 * np.pi * np.arange(24) / 24
    workday = 2 * np.pi * uniform(seed, Stream.RHYTHM_WORKDAY_PEAK, rows)
    weekend = 2 * np.pi * uniform(seed, Stream.RHYTHM_WEEKEND_PEAK, rows)
    tilt = 0.3 * normal(seed, Stream.RHYTHM_WEEKEND_TILT, rows)
    bend = np.empty((population.rhythms, 7, 24))
    bend[:, :5] = np.cos(clock - workday[:, None])[:, None]
    bend[:, 5:] = np.cos(clock - weekend[:, None])[:, None] + tilt[:, None, None]
    rhythms = (week * np.exp(population.rhythm_concentration * bend)).reshape(population.rhythms, 168)
    result: np.ndarray = (rhythms / rhythms.mean(axis=1, keepdims=True)).astype(np.float32)
    return result


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return the vectors with length 1 along the last axis."""
    result: np.ndarray = vectors / np.sqrt(np.sum(vectors * vectors, axis=-1, keepdims=True))
    return result


def _grid(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(rows)[:, None], np.arange(columns)


def _yes(share: float, seed: int, stream: Stream, *keys: int | np.ndarray) -> np.ndarray:
    result: np.ndarray = uniform(seed, stream, *keys) < share
    return result


def _with_errors(true: np.ndarray, count: int, error: float, seed: int, wrong: Stream, other: Stream) -> np.ndarray:
    """Return int16 of `true`, where a share of the rows says one of the other values."""
    rows = np.arange(len(true))
    elsewhere = (true + 1 + integers(max(count - 1, 1), seed, other, rows)) % count
    result: np.ndarray = np.where(_yes(error, seed, wrong, rows), elsewhere, true).astype(np.int16)
    return result


def _device_habits(parameters: Parameters, people: int, seed: int) -> np.ndarray:
    population = parameters.population
    # the order of clicks.device is the order of devices everywhere
    shares = np.array([population.device_share[name] for name in parameters.clicks.device])
    habit = normal(seed, Stream.DEVICE_HABIT, *_grid(people, len(shares)))
    odds = shares * np.exp(population.device_spread * habit)
    result: np.ndarray = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    return result
