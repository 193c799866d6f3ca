"""Rows of the past with the tallies of their moment: what was answered, and all that was counted until then.

Two ways to stand in time. *Running*: everything that happened strictly before a row counts, other rows of the same part
included, as when a service counts on. *Frozen*: nothing counts that came after the part began, as when a model and its
counts are a month old.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.dataset.boundary import rows_before
from playbill.dataset.dataset import Dataset, Examples, examples
from playbill.dataset.settings import SplitKind
from playbill.errors import ConfigError
from playbill.features.encoder import point_in_time
from playbill.features.person_tallies import Tastes, flags_of, pair_numbers, person_numbers, person_sums
from playbill.features.spec import Encoding, Side
from playbill.features.tallies import ItemTallies, contributions, item_numbers, learn_tallies, sums_before

_AT_ONCE = 65_536  # rows
_EARLIER = 0.8  # share of a person's rows in which the moment may fall after which nothing is known


@dataclass(slots=True)
class Tallied:
    """Numbers of R rows, by whom they are about.

    Attributes:
        item: [R, K] float32, columns of `TallySpec.item_names`.
        person: [R, K'] float32. pair: [R, 6] float32, see `person_tallies`.
    """

    item: np.ndarray
    person: np.ndarray
    pair: np.ndarray


def tallies_until(dataset: Dataset, part: str, like_at: float, half_lives_days: list[float]) -> ItemTallies:
    """Return the tallies of items at the moment where a part begins. Args: like_at: mapped value of the least like."""
    pool, rows = dataset.pool, rows_before(dataset, part)
    return learn_tallies(
        pool.item[rows], pool.value[rows], pool.at[rows], dataset.spec.num_items, like_at, half_lives_days
    )


def tastes_of(dataset: Dataset, tallies: ItemTallies) -> Tastes:
    """Return what tallies of people know of items: their usual values, categories, and decade."""
    size = dataset.spec.num_items + 1
    flags = [
        flags_of(dataset.item_arrays[field.array], field.size)
        for field in dataset.spec.side(Side.ITEM)
        if field.encoding is Encoding.CATEGORIES
    ]
    if "published_at" in dataset.items.columns:
        year = dataset.items["published_at"].dt.year().fill_null(0).to_numpy()
        decade = np.concatenate([[0], year // 10 * 10])
        flags += [(decade == d)[:, None].astype(np.float32) for d in np.unique(decade[decade > 0])]
    return Tastes(tallies.base(), np.concatenate([np.zeros((size, 0), np.float32), *flags], 1))


def rows_at(dataset: Dataset, part: str, running: bool) -> Examples:
    """Return the events of a part as rows to predict, `now` being the moment up to which anything may be known.

    Raises:
        ConfigError: frozen rows of a split that has no moment at which a part begins.
    """
    rows = examples(dataset, part)
    if running:
        return rows
    split = dataset.split
    if split.kind is not SplitKind.global_time or part == "train":
        raise ConfigError("frozen rows need split.kind=global_time and part valid or test, which begin at one moment")
    moment = split.train_until_us if part == "valid" else split.valid_until_us
    now = np.full(len(rows), moment, np.int64)
    start, end = point_in_time(dataset.pool, rows.person, now)
    return Examples(rows.person, rows.target_row, start, end, now)


def stale(rows: Examples, draw: np.random.Generator) -> tuple[Examples, np.ndarray]:
    """Return the later rows of each person with what was known at one random row of theirs, and their positions.

    So a model that will be asked long after it was made learns from histories of all lengths and ages.

    Args:
        rows: in pool order.
    """
    edges = np.flatnonzero(np.diff(rows.person, prepend=-1))
    size = np.diff(np.append(edges, len(rows)))
    first = np.repeat(edges + np.floor(draw.random(len(edges)) * size * _EARLIER).astype(np.int64), size)
    kept = np.flatnonzero(np.arange(len(rows)) >= first)
    end = np.minimum(rows.end, rows.end[first])
    found = Examples(rows.person[kept], rows.target_row[kept], rows.start[kept], end[kept], rows.now[kept])
    return found, kept


def tally_rows(dataset: Dataset, tallies: ItemTallies, tastes: Tastes, rows: Examples, length: int) -> Tallied:
    """Return the tallies of rows, each as of its `now` and its history.

    Args:
        tallies: gives the level that counting starts from; its sums are not read.
        length: newest events of a history that count.
    """
    item = dataset.pool.item[rows.target_row]
    parts = []
    for low in range(0, len(rows), _AT_ONCE):
        some = slice(low, low + _AT_ONCE)
        sums = person_sums(tallies.spec, tastes, dataset.pool, rows.start[some], rows.end[some], length)
        mine = np.arange(sums.shape[1])
        parts.append((person_numbers(tallies.spec, sums), pair_numbers(sums, mine, item[some], tastes)))
    person, pair = (np.concatenate([part[i] for part in parts]) for i in range(2))
    return Tallied(item_numbers_at(dataset, tallies, item, rows.now), person, pair)


def item_numbers_at(dataset: Dataset, tallies: ItemTallies, item: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return [R, K] float32 tallies of items as of moments, of the dataset's whole log. Args: item, at: [R] int64."""
    pool, spec = dataset.pool, tallies.spec
    known = np.flatnonzero(pool.item > 0)
    added = contributions(spec, pool.value[known], pool.at[known])
    return item_numbers(spec, sums_before(pool.item[known], pool.at[known], added, item, at), at)
