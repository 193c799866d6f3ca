"""As of when acts are learned, calibrated and judged, and what came after each of those moments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from playbill.campaign.act_features import DAY_US, ActLog, Words, features, matrix
from playbill.campaign.act_models import with_interval
from playbill.campaign.acts import NEXT, Act

_MOST = 4  # moments that calibrate, and that judge: of one week alone nobody knows what was of that week


@dataclass(frozen=True, slots=True)
class Moments:
    """UTC microseconds. What follows those of one list is over before those of the next begin."""

    learn: list[int]
    calibrate: list[int]
    judge: list[int]


@dataclass(frozen=True, slots=True)
class Rows:
    """Of people as of moments.

    Attributes:
        x: [n, F] float64.
        y: [n] float64, 0 or 1, or an amount.
        person: [n] int64 labels, the same of one person at all moments.
    """

    x: np.ndarray
    y: np.ndarray
    person: np.ndarray


def needed_days(history: float, horizon: float) -> float:
    """Return the days that a log must span: a window, then what is learned from, what calibrates and what judges."""
    return history + 3 * horizon


def moments(log: ActLog, history: float, horizon: float, step: float, most: int) -> Moments:
    """Return the latest moments that a log of `needed_days` allows."""
    day, days = DAY_US, log.days
    spare = days - needed_days(history, horizon)
    many = 1 + int(min(_MOST - 1, spare // (3 * step)))

    def back(last: float, count: int) -> list[int]:
        return [log.first + round((last - k * step) * day) for k in range(count)][::-1]

    judge = back(days - horizon, many)
    last = days - 2 * horizon - (many - 1) * step
    calibrate = back(last, many)
    last -= horizon + (many - 1) * step
    return Moments(back(last, min(most, 1 + int((last - history) // step))), calibrate, judge)


def shifted(at: Moments, horizon: float, step: float) -> Moments:
    """Return the moments by which what is kept is learned: those that judged calibrate, and all before them teach."""
    calibrate = at.judge
    newest = calibrate[0] - round(horizon * DAY_US)
    learn = [newest - round(k * step * DAY_US) for k in range(len(at.learn))][::-1]
    return Moments(learn, calibrate, [])


def drawn(log: ActLog, most: int, seed: int) -> ActLog:
    """Return the log of so many people, drawn evenly; all of it where there are not more."""
    people = log.events["user_id"].unique().sort()
    if len(people) <= most:
        return log
    some = people.sample(most, seed=seed).implode()
    events, sends = (rows.filter(pl.col("user_id").is_in(some)) for rows in (log.events, log.sends))
    return ActLog(events, sends, log.first, log.last)


class Past:
    """What was known of people at moments, computed once each, and what they did then.

    Args:
        fine: which rows of `features` are of people of whom enough is known.
    """

    def __init__(self, log: ActLog, words: Words, fine: Callable[[pl.DataFrame], pl.Series]) -> None:
        self.log, self.words, self._fine = log, words, fine
        ids = log.events["user_id"].unique().sort()
        self._person = pl.DataFrame({"user_id": ids}).with_row_index("person")
        self._known: dict[int, pl.DataFrame] = {}

    def known(self, at: int) -> pl.DataFrame:
        """Return rows of `features`, with `person`, of people of whom enough is known."""
        if at not in self._known:
            rows = features(self.log, self.words, at)
            self._known[at] = rows.filter(self._fine(rows)).join(self._person, on="user_id", maintain_order="left")
        return self._known[at]

    def known_of(self, at: int, user_ids: pl.Series) -> pl.DataFrame:
        """Return the same of some people alone; not kept."""
        some = user_ids.unique().implode()
        events, sends = (rows.filter(pl.col("user_id").is_in(some)) for rows in (self.log.events, self.log.sends))
        rows = features(ActLog(events, sends, self.log.first, self.log.last), self.words, at)
        return rows.filter(self._fine(rows)).join(self._person, on="user_id", maintain_order="left")

    def first_after(self, at: int, flag: str, people: pl.DataFrame) -> np.ndarray:
        """Return [n] days until each of some people next did something, infinite where they never did.

        Args:
            flag: column of the log's events that counts: there, own or bought.
        """
        after = self.log.events.filter((pl.col("at") >= at) & pl.col(flag))
        first = after.group_by("user_id").agg(pl.col("at").min())
        when = people.select("user_id").join(first, on="user_id", how="left", maintain_order="left")["at"]
        days: np.ndarray = (when.cast(pl.Float64).fill_null(np.inf).to_numpy() - at) / DAY_US
        return days

    def spent(self, at: int, horizon: float, people: pl.DataFrame) -> np.ndarray:
        """Return [n] money paid within so many days."""
        within = self.log.events.filter((pl.col("at") >= at) & (pl.col("at") < at + round(horizon * DAY_US)))
        sums = within.group_by("user_id").agg(pl.col("value").sum())
        paid = people.select("user_id").join(sums, on="user_id", how="left", maintain_order="left")["value"]
        return paid.fill_null(0.0).to_numpy()

    def rows(self, act: Act, at: list[int], edges: list[float]) -> Rows:
        """Return what was known at moments and what came of it; of the next purchase a row a stretch still open.

        Of churn `y` says who was there, as its model does.
        """
        return _together([self._rows(act, moment, edges) for moment in at])

    def _rows(self, act: Act, at: int, edges: list[float]) -> Rows:
        people = self.known(at)
        x, person = matrix(people), people["person"].to_numpy().astype(np.int64)
        if act.name.startswith("value"):
            return Rows(x, self.spent(at, act.horizon, people), person)
        if act.name != NEXT:
            days = self.first_after(at, FLAGS[act.name.partition("_")[0]], people)
            return Rows(x, (days < act.horizon).astype(np.float64), person)
        return by_stretch(self._waits(at), edges)

    def waits(self, at: list[int]) -> Rows:
        """Return a row for each person and moment, y the days until the next purchase, infinite where none came."""
        return _together([self._waits(moment) for moment in at])

    def _waits(self, at: int) -> Rows:
        people = self.known(at)
        person = people["person"].to_numpy().astype(np.int64)
        return Rows(matrix(people), self.first_after(at, "bought", people), person)


def _together(parts: list[Rows]) -> Rows:
    return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "y", "person")))


FLAGS = {"churn": "there", "return": "own", "purchase": "bought", "next": "bought"}


def by_stretch(rows: Rows, edges: list[float]) -> Rows:
    """Return a row for each stretch that a person entered without a purchase; y says whether it came in it.

    Args:
        rows: y is days until the next purchase.
    """
    xs, ys, people = [], [], []
    for j, (low, high) in enumerate(zip([0.0, *edges], edges, strict=False)):
        open_ = rows.y >= low
        xs.append(with_interval(rows.x[open_], j, (low + high) / 2, len(edges)))
        ys.append((rows.y[open_] < high).astype(np.float64))
        people.append(rows.person[open_])
    return Rows(np.concatenate(xs), np.concatenate(ys), np.concatenate(people))
