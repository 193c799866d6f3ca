"""The hours of the week in which a campaign's messages may arrive, by the clock of each time zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np

from playbill.campaign.rhythm import HOURS
from playbill.campaign.send_time import arrival_us
from playbill.campaign.settings import Campaign
from playbill.filters.check import moment_us

_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Week:
    """Of one time zone.

    Attributes:
        arrival: [168] int64 UTC microseconds of each local hour of the week.
        may: [168] bool, hours in which messages may arrive.
    """

    arrival: np.ndarray
    may: np.ndarray


def week_of(campaign: Campaign, timezone: str, at: int) -> Week:
    """Return the hours of a campaign's window; one that the clock leaps over in spring is none.

    Args:
        timezone: a known IANA name.
        at: UTC microseconds of the run; nothing arrives before it.
    """
    window, quiet = campaign.window, campaign.quiet
    given = None if window.start is None else moment_us(window.start)
    start = at if given is None else given
    end, first = start + round(window.days * _DAY_US), max(at, start)
    arrival = np.asarray([arrival_us(first, timezone, hour) for hour in range(HOURS)], np.int64)
    clock = [local(moment, timezone) for moment in arrival.tolist()]
    hours, weekdays = np.asarray([c.hour for c in clock]), np.asarray([c.weekday() for c in clock])
    low, high = quiet.from_hour, quiet.to_hour
    within = (hours >= low) & (hours < high) if low <= high else (hours >= low) | (hours < high)
    named = np.arange(HOURS)
    shown = (hours == named % 24) & (weekdays == named // 24)  # not of an hour that the clock leaps over
    may = (arrival < end) & shown & np.isin(hours, window.hours) & np.isin(weekdays, window.weekdays) & ~within
    return Week(arrival, may)


def local(moment_us: int, timezone: str) -> datetime:
    """Return what the clock of a time zone shows."""
    return datetime.fromtimestamp(moment_us / 1e6, UTC).astimezone(ZoneInfo(timezone))


def known_zone(timezone: str | None, otherwise: str) -> str:
    """Return a person's time zone, or the other one where it is missing or unknown."""
    try:
        return ZoneInfo(timezone).key if timezone else otherwise
    except (ValueError, OSError, KeyError):
        return otherwise
