"""Trending near somebody: what people of the same place choose most at present, for places with enough people."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from playbill.baselines.popularity import trending
from playbill.errors import FeatureError
from playbill.tables.files import write_atomic

FILE = "near.npz"
LEAST_PEOPLE = 50  # of a place that chose anything lately: of fewer, a list would tell what single people did
LONGEST = 200  # items of a place


@dataclass(frozen=True, slots=True)
class Near:
    """What is chosen most at present, by place.

    Attributes:
        column: of the users table (and of a request's context) that says where somebody is.
        row: by place, its row in the lists.
        indptr: [V + 1] int64; `item` [L] int64 item_index, best first, and `share` [L] float32 of the best one's score.
    """

    column: str
    row: dict[str, int]
    indptr: np.ndarray
    item: np.ndarray
    share: np.ndarray

    def of(self, place: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return (item, share) of a place, both empty where nothing is known of it."""
        row = self.row.get(place) if isinstance(place, str) else None
        low, high = (0, 0) if row is None else self.indptr[row : row + 2].tolist()
        return self.item[low:high], self.share[low:high]


def fit_near(
    column: str,
    places: Sequence[Any],
    person: np.ndarray,
    item: np.ndarray,
    at: np.ndarray,
    num_items: int,
    now_us: int,
    half_life_days: float,
) -> Near:
    """Return what is trending in each place.

    Args:
        column: what places are values of.
        places: [P] text of each person; whatever is none belongs nowhere.
        person: [E] int64 row in `places` of each event; `item` [E], `at` [E], and the rest see `popularity.trending`.
    """
    names = sorted({place for place in places if isinstance(place, str) and place})
    number = {place: row for row, place in enumerate(names)}
    of_person = np.asarray([number.get(place, -1) if isinstance(place, str) else -1 for place in places], np.int64)
    row: dict[str, int] = {}
    items, shares = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    where = of_person[person]
    order = np.argsort(where, kind="stable")
    edges = np.searchsorted(where[order], np.arange(len(names) + 1))
    for place in names:
        mine = order[edges[number[place]] : edges[number[place] + 1]]
        if len(np.unique(person[mine])) < LEAST_PEOPLE:
            continue
        score = trending(item[mine], at[mine], num_items, now_us, half_life_days)
        best = np.argsort(-score[1:], kind="stable")[:LONGEST] + 1
        best = best[score[best] > 0]
        row[place] = len(row)
        items.append(best)
        shares.append((score[best] / score[best[:1]]).astype(np.float32))
    indptr = np.cumsum([0, *map(len, items[1:])]).astype(np.int64)
    return Near(column, row, indptr, np.concatenate(items), np.concatenate(shares))


def write_near(path: Path | str, near: Near) -> None:
    """Write it as .npz."""
    buffer = io.BytesIO()
    names = np.asarray(list(near.row), np.str_)
    column = np.asarray(near.column, np.str_)
    np.savez(buffer, column=column, places=names, indptr=near.indptr, item=near.item, share=near.share)
    write_atomic(path, buffer.getvalue())


def read_near(path: Path | str, num_items: int) -> Near:
    """Return what `write_near` wrote.

    Raises:
        FeatureError: another file, or one whose arrays do not fit each other or the catalogue.
    """
    try:
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
            row = {str(place): n for n, place in enumerate(file["places"].tolist())}
            read = Near(str(file["column"]), row, file["indptr"], file["item"], file["share"])
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise FeatureError(f"{path} holds no lists by place: {error}") from error
    indptr, item = read.indptr, read.item
    fits = len(indptr) == len(row) + 1 and indptr[0] == 0 and indptr[-1] == len(item) == len(read.share)
    if not fits or (np.diff(indptr) < 0).any() or not np.isfinite(read.share).all():
        raise FeatureError(f"{path} holds lists by place whose offsets, items and shares do not fit each other")
    if len(item) and not 0 < item.min() <= item.max() <= num_items:
        raise FeatureError(f"{path} names items that are not in the catalogue of 1..{num_items}")
    return read
