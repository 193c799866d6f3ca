"""When to write to somebody: a probability for each hour of their week, one hour chosen, and the moment that it is.

Made by `playbill train-campaign`; two files of a run or a bundle, neither of which can run code:

    send_time.npz        the week, by everybody and by segment, and the map that makes probabilities true
    send_time.parquet    a row a person: what is believed of them, and how much they rest on
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
from scipy.special import expit

from playbill.campaign.rhythm import HOURS, WIDTH, Week, log_rates
from playbill.errors import FeatureError
from playbill.tables.files import write_atomic

FILE, PEOPLE = "send_time.npz", "send_time.parquet"
PERSON, SEGMENT, EVERYBODY = "person", "segment", "everybody"  # whose hours an answer rests on
_VALUES = ["opening", *(f"w{k}" for k in range(WIDTH))]


@dataclass(frozen=True, slots=True)
class SendTimes:
    """What is believed of people's weeks.

    Attributes:
        week: see `rhythm.Week`; its rows of `mean` are those of `segments`, whose first is "", of nobody's.
        segments: [S] names.
        knots, mapped: [K] float64 ascending, log-odds and the log-odds that they turned out to be; empty changes none.
        least: events and openings that a person must have shown before their own hours count.
        user_ids: [P], ascending.
        value: [P, 10] float32, see `rhythm.People`; `unsure` [P] float32 is the variance of their log-odds.
        shown: [P] int32, events and openings that it rests on.
    """

    week: Week
    segments: list[str]
    knots: np.ndarray
    mapped: np.ndarray
    least: int
    user_ids: np.ndarray
    value: np.ndarray
    unsure: np.ndarray
    shown: np.ndarray

    def chances(self, user_ids: list[int | str], segments: list[str]) -> tuple[np.ndarray, list[str]]:
        """Return [n, 168] float32 probabilities of an open by local hour of arrival, and on whose hours each rests.

        Args:
            user_ids: of the recipients; who is not known is answered by their segment.
            segments: name of each one's segment, "" where there is none.
        """
        places = {name: row for row, name in enumerate(self.segments)}
        segment = np.asarray([places.get(name, 0) for name in segments], np.int64)
        own = np.zeros(len(user_ids), bool)
        value = self.week.mean[segment]
        unsure = np.full(len(user_ids), self.week.spread[0] ** 2)
        if len(self.user_ids):  # a model may know the list's hours and nobody's own
            row = np.searchsorted(self.user_ids, np.asarray(user_ids, self.user_ids.dtype))
            row = np.minimum(row, len(self.user_ids) - 1)
            own = (self.user_ids[row] == np.asarray(user_ids)) & (self.shown[row] >= self.least)
            value = np.where(own[:, None], self.value[row], value)
            unsure = np.where(own, self.unsure[row], unsure)
        log_odds = value[:, :1] + self.week.taste * log_rates(self.week, value[:, 1:])
        log_odds = log_odds / np.sqrt(1 + np.pi / 8 * unsure)[:, None]
        if len(self.knots):
            log_odds = mapped(log_odds, self.knots, self.mapped)
        codes = [PERSON if mine else SEGMENT if at else EVERYBODY for mine, at in zip(own, segment, strict=True)]
        return expit(log_odds).astype(np.float32), codes


def mapped(log_odds: np.ndarray, knots: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Return a rising, piecewise linear map of numbers, its outer pieces going on."""
    found: np.ndarray = np.interp(log_odds, knots, to)
    low, high = (to[1] - to[0]) / (knots[1] - knots[0]), (to[-1] - to[-2]) / (knots[-1] - knots[-2])
    found += np.minimum(log_odds - knots[0], 0) * low + np.maximum(log_odds - knots[-1], 0) * high
    return found


def choose_hours(
    chances: np.ndarray, may: np.ndarray, epsilon: float, uniform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return each recipient's hour [n] int64 and the probability float64 with which it was chosen.

    The best hour that may be, and with probability epsilon any that may be, all alike: so none has less than
    epsilon / hours, and any other choice can be valued on the log.

    Args:
        chances: [n, 168].
        may: [n, 168] bool, hours in which mails may arrive; one at least in each row.
        epsilon: 0..1.
        uniform: [n] in [0, 1).
    Raises:
        FeatureError: a recipient without an hour that may be.
    """
    count = may.sum(1)
    if not count.all():
        raise FeatureError(f"{int((count == 0).sum())} recipients have no hour in which they may be written to")
    best = np.where(may, chances, -1.0).argmax(1)
    chance = np.where(may, epsilon / count[:, None], 0.0)
    rows = np.arange(len(best))
    chance[rows, best] += 1 - epsilon
    edges = np.cumsum(chance, 1)
    hour = np.minimum((edges <= uniform[:, None] * edges[:, -1:]).sum(1), HOURS - 1)
    return hour, chance[rows, hour]


def arrival_us(after_us: int, timezone: str, hour: int) -> int:
    """Return UTC microseconds of the first full local hour of the week at or after a moment.

    An hour that the clock leaps over in spring is taken for the next that there is; of one that comes twice in autumn
    the first is taken.

    Args:
        timezone: IANA name; one that is not known counts as UTC.
        hour: 0..167, 0 is Monday 00:00.
    """
    zone = _zone(timezone)
    start = datetime.fromtimestamp(after_us / 1e6, UTC).astimezone(zone)
    now = start.replace(tzinfo=None)
    monday = datetime(now.year, now.month, now.day) - timedelta(days=now.weekday())
    for week in (0, 1):
        local = monday + timedelta(weeks=week, hours=hour)
        moment = local.replace(tzinfo=zone).astimezone(UTC)
        found = round(moment.timestamp() * 1e6)
        if found >= after_us:
            return found
    return round((monday + timedelta(weeks=2, hours=hour)).replace(tzinfo=zone).timestamp() * 1e6)


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return ZoneInfo("UTC")


def write_send_times(folder: Path, found: SendTimes) -> None:
    """Write both files of a folder."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        log_rate=found.week.log_rate,
        taste=np.float64(found.week.taste),
        mean=found.week.mean,
        spread=found.week.spread,
        segments=np.asarray(found.segments, np.str_),
        knots=found.knots,
        mapped=found.mapped,
        least=np.int64(found.least),
    )
    write_atomic(folder / FILE, buffer.getvalue())
    columns: dict[str, Any] = {name: found.value[:, k] for k, name in enumerate(_VALUES)}
    people = pl.DataFrame({"user_id": found.user_ids, **columns, "unsure": found.unsure, "shown": found.shown})
    rows = io.BytesIO()
    people.write_parquet(rows)
    write_atomic(folder / PEOPLE, rows.getvalue())


def read_send_times(folder: Path) -> SendTimes:
    """Return what `write_send_times` wrote.

    Raises:
        FeatureError: files that are missing or hold something else.
    """
    try:
        with np.load(io.BytesIO((folder / FILE).read_bytes()), allow_pickle=False) as file:
            week = Week(file["log_rate"], float(file["taste"]), file["mean"], file["spread"])
            segments, knots, to = file["segments"].tolist(), file["knots"], file["mapped"]
            least = int(file["least"])
        people = pl.read_parquet(folder / PEOPLE).sort("user_id")
        value = people.select(_VALUES).to_numpy().astype(np.float32)
        unsure, shown = people["unsure"].to_numpy(), people["shown"].to_numpy()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, pl.exceptions.PolarsError) as error:
        raise FeatureError(f"{folder} holds no send times: {error}; run `playbill train-campaign`") from error
    fits = week.log_rate.shape == (HOURS,) and week.mean.shape == (len(segments), 1 + WIDTH) and len(knots) == len(to)
    if not fits or not (np.isfinite(value).all() and np.isfinite(week.mean).all() and np.isfinite(week.log_rate).all()):
        raise FeatureError(
            f"{folder}/{FILE} holds send times that do not fit each other; run `playbill train-campaign`"
        )
    return SendTimes(week, segments, knots, to, least, people["user_id"].to_numpy(), value, unsure, shown)
