"""Training rows: what may be learned from, with histories as old as those the model will be asked with."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from playbill.dataset.dataset import Dataset, Examples, examples, query_arrays
from playbill.errors import TrainingError
from playbill.features.encoder import DAY_US, Arrays, point_in_time
from playbill.features.fold import EventPool

_ENOUGH = 0.1


def learnable(dataset: Dataset) -> Examples:
    """Return the rows of the train part, those without any history included: newcomers are asked for too.

    Raises:
        TrainingError: there are none.
    """
    rows = examples(dataset, "train")
    if not len(rows):
        raise TrainingError("no event to learn from in training time; raise split.train, or check consent and item ids")
    return rows


def take(rows: Examples, chosen: np.ndarray) -> Examples:
    """Return some rows ([n] int64 positions), in that order."""
    return Examples(**{f.name: getattr(rows, f.name)[chosen] for f in fields(rows)})


def earlier_and_later(rows: Examples, later_share: float, most: int) -> tuple[Examples, Examples]:
    """Return the rows before and the latest rows, at most `most` of those, both in the order given.

    Raises:
        TrainingError: one of the two would be empty.
    """
    by_time = np.argsort(rows.now, kind="stable")
    cut = round(len(rows) * (1 - later_share))
    if not 0 < cut < len(rows):
        raise TrainingError(
            f"{len(rows)} training rows cannot be parted with model.later_share={later_share}: one part would be empty"
        )
    return take(rows, np.sort(by_time[:cut])), take(rows, np.sort(by_time[cut:][-most:]))


def before_absences(
    pool: EventPool, rows: Examples, away_days: float, visit_share: float, draw: np.random.Generator
) -> Examples:
    """Return rows as they would be asked while a person is away: what a visit brought, from what was known before it.

    Rows of people who had not been away, newcomers among them, stay as they are, a share of them.

    Args:
        away_days: how long is away; 0 = rows stay as they are.
        visit_share: share of the other rows that stays, where there is enough without them.
    """
    if not away_days:
        return rows
    end = point_in_time(pool, rows.person, rows.now - int(away_days * DAY_US))[1]
    away = end > rows.start
    kept = np.flatnonzero(away | (draw.random(len(rows)) < share_within_visits(visit_share, float(away.mean()))))
    end = np.where(away, end, rows.end)
    return take(Examples(rows.person, rows.target_row, rows.start, end, rows.now), kept)


def share_within_visits(least: float, away: float) -> float:
    """Return the share of the events within visits that is learned: all of them where nobody comes back.

    Args:
        least: share where enough people come back.
        away: share of all events that follow an absence; a tenth is enough.
    """
    return max(least, 1 - away / _ENOUGH)


def cut_histories(rows: Examples, stale: float, empty: float, draw: np.random.Generator) -> Examples:
    """Return the rows with some histories cut short at their newer end.

    A model is asked for more than the very next event: a slate is to hold for a while, and people come who have no
    history yet. A row whose history ends earlier, at a random event, teaches what comes some time later.

    Args:
        stale: share of rows cut at an even random place between nothing left and nothing cut.
        empty: share of rows cut to nothing.
    """
    kept, cut, gone = draw.random((3, len(rows)))
    end = rows.start + np.floor(kept * (rows.end - rows.start + 1)).astype(np.int64)
    end = np.where(cut < stale, end, rows.end)
    end = np.where(gone < empty, rows.start, end)
    return Examples(rows.person, rows.target_row, rows.start, end, rows.now)


def recency_weights(rows: Examples, half_life_days: float, floor: float) -> np.ndarray:
    """Return [R] float32 weights of mean 1 that fall with the age of a row's event.

    Args:
        half_life_days: age at which the weight above the floor has halved; 0 = all rows weigh the same.
        floor: weight of the oldest rows relative to the newest.
    """
    weight = recency_weights_at(rows.now, half_life_days, floor)
    return (weight / weight.mean()).astype(np.float32)


def recency_weights_at(at: np.ndarray, half_life_days: float, floor: float, newest: int | None = None) -> np.ndarray:
    """Return [n] float64 weights, 1 for the newest moment and falling with age; all 1 without a half-life.

    Args:
        at: [n] int64 UTC microseconds.
        half_life_days, floor: see `recency_weights`.
        newest: moment of weight 1; None takes the newest of `at`.
    """
    if not half_life_days or not len(at):
        return np.ones(len(at))
    age = (int(at.max()) if newest is None else newest) - at
    weight: np.ndarray = floor + (1 - floor) * 0.5 ** (age / DAY_US / half_life_days)
    return weight


def queries_of(dataset: Dataset, rows: Examples) -> Arrays:
    """Return the query-side arrays of the rows, [R, ...] each."""
    return query_arrays(dataset, rows.person, rows.start, rows.end, rows.now, rows.target_row)
