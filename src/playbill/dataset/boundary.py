"""The protocol "model frozen": one query a person at the moment where a part begins, with all that the part holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.dataset.arrays import blocks
from playbill.dataset.dataset import Dataset, rows_of
from playbill.dataset.settings import SplitKind
from playbill.dataset.splits import part_number
from playbill.errors import ConfigError
from playbill.features.encoder import point_in_time
from playbill.features.fold import EventPool


@dataclass(slots=True)
class Queries:
    """One query a person; lists of items are CSR: those of query q are `item[indptr[q]:indptr[q + 1]]`.

    Attributes:
        person: [Q] int64, ascending.
        start, end: [Q] int64 pool rows of the history.
        now: [Q] int64 UTC microseconds at which everybody is asked.
        target_indptr, target_item: [Q + 1] int64, [T] int64 known items of the part's events, each once, as they came.
        seen_indptr, seen_item: [Q + 1] int64, [S] int64 item_index of the whole history, oldest first, repeats kept.
    """

    person: np.ndarray
    start: np.ndarray
    end: np.ndarray
    now: np.ndarray
    target_indptr: np.ndarray
    target_item: np.ndarray
    seen_indptr: np.ndarray
    seen_item: np.ndarray

    def __len__(self) -> int:
        return len(self.person)

    def with_history(self) -> Queries:
        """Return the queries of people of whom something is known."""
        rows = np.flatnonzero(self.end > self.start)
        target_indptr, target_item = _lists(self.target_indptr, self.target_item, rows)
        seen_indptr, seen_item = _lists(self.seen_indptr, self.seen_item, rows)
        return Queries(
            person=self.person[rows],
            start=self.start[rows],
            end=self.end[rows],
            now=self.now[rows],
            target_indptr=target_indptr,
            target_item=target_item,
            seen_indptr=seen_indptr,
            seen_item=seen_item,
        )


def boundary_queries(dataset: Dataset, part: str) -> Queries:
    """Return one query for everybody who has an event in the part, people without any history included.

    For a global split everybody is asked at the moment at which the part begins and must be answered with what they do
    in the whole part. For leave-last-out each is asked at their own held-out event.

    Args:
        part: valid or test.
    """
    if part_number(part) == 0:
        raise ConfigError("boundary_queries is for valid or test: nothing comes before train")
    pool, split = dataset.pool, dataset.split
    rows = rows_of(dataset, part)
    rows = rows[_first_of_pair(pool.person[rows], pool.item[rows])]
    person, first = np.unique(pool.person[rows], return_index=True)
    if split.kind is SplitKind.global_time:
        moment = split.train_until_us if part == "valid" else split.valid_until_us
        now = np.full(len(person), moment, np.int64)
        start, end = point_in_time(pool, person, now)
    else:
        now = pool.at[rows[first]]
        start, end = pool.offsets[person], rows[first]
    seen_indptr, seen_item = history_items(pool, start, end)
    return Queries(
        person=person,
        start=start,
        end=end,
        now=now,
        target_indptr=np.append(first, len(rows)).astype(np.int64),
        target_item=pool.item[rows],
        seen_indptr=seen_indptr,
        seen_item=seen_item,
    )


def history_items(pool: EventPool, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (indptr [B + 1], item [S]) int64 of whole histories, oldest first, unknown items left out."""
    lengths = end - start
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = np.arange(indptr[-1]) - np.repeat(indptr[:-1] - start, lengths)
    item = pool.item[rows]
    known = np.concatenate([[0], np.cumsum(item > 0)])
    return known[indptr].astype(np.int64), item[item > 0]


def rows_before(dataset: Dataset, part: str) -> np.ndarray:
    """Return the pool rows, in pool order, that a model to be tested on the part may learn from.

    Args:
        part: valid (training rows) or test (training and validation rows).
    """
    number, item, parts = part_number(part), dataset.pool.item, dataset.split.part
    found = [b.start + np.flatnonzero((parts[b] < number) & (item[b] > 0)) for b in blocks(len(item))]
    return np.concatenate([np.zeros(0, np.int64), *found])


def _lists(indptr: np.ndarray, item: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return some lists of a CSR, as a CSR."""
    lengths = indptr[rows + 1] - indptr[rows]
    chosen = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return chosen, item[np.arange(chosen[-1]) - np.repeat(chosen[:-1] - indptr[rows], lengths)]


def _first_of_pair(person: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Return positions, ascending, of the first row of each (person, item)."""
    if not len(person):
        return np.zeros(0, np.int64)
    _, first = np.unique(person * (int(item.max()) + 1) + item, return_index=True)
    return np.sort(first)
