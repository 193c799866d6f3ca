"""How everything here is measured: who is asked, at which moment, knowing what, and what counts as a hit.

The model is frozen after validation. Everybody with an event in the held-out part is asked once, at the moment at which
that part begins, over the whole catalogue; all that they did before is removed from every list, and so is no target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.baselines.fits import Log
from playbill.dataset.boundary import Queries, boundary_queries, rows_before
from playbill.dataset.dataset import Dataset
from playbill.measure.ranking import NO_ITEM, Targets, targets_from_pairs

_SCORES_AT_ONCE = 20_000_000  # scores held at once, 80 MB


@dataclass(slots=True)
class Asked:
    """The people asked about one part.

    Attributes:
        queries: their histories, [U] of them.
        rows: [U] int64, their place in the queries of the part, which hold more people than can be measured.
        targets: items of the part that they had not had before, at least one each.
        known: [U] bool, whether there is any history.
        repeats: targets left out because the person had had the item before.
        nothing_new: people left out because no target remained.
    """

    queries: Queries
    rows: np.ndarray
    targets: Targets
    known: np.ndarray
    repeats: int
    nothing_new: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def person(self) -> np.ndarray:
        person: np.ndarray = self.queries.person[self.rows]
        return person

    @property
    def now(self) -> np.ndarray:
        now: np.ndarray = self.queries.now[self.rows]
        return now

    def histories(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (indptr, item) of the known items of people low..high, oldest first, repeats kept."""
        seen = Targets(self.queries.seen_indptr, self.queries.seen_item).take(self.rows[low:high])
        return seen.indptr, seen.item


def ask(dataset: Dataset, part: str) -> Asked:
    """Return the people to be asked about `valid` or `test`."""
    queries = boundary_queries(dataset, part)
    width = dataset.spec.num_items + 1
    owner = np.repeat(np.arange(len(queries)), np.diff(queries.target_indptr))
    seen_owner = np.repeat(np.arange(len(queries)), np.diff(queries.seen_indptr))
    had = np.isin(owner * width + queries.target_item, seen_owner * width + queries.seen_item)
    targets = targets_from_pairs(owner[~had], queries.target_item[~had], len(queries))
    rows = np.flatnonzero(targets.counts())
    return Asked(
        queries=queries,
        rows=rows,
        targets=targets.take(rows),
        known=np.diff(queries.seen_indptr)[rows] > 0,
        repeats=int(had.sum()),
        nothing_new=len(queries) - len(rows),
    )


def log_before(dataset: Dataset, part: str) -> Log:
    """Return all events that come before the part."""
    rows = rows_before(dataset, part)
    pool = dataset.pool
    at = pool.at[rows]
    now = int(at.max()) + 1 if len(at) else 0
    return Log(pool.person[rows], pool.item[rows], at, dataset.spec.num_items, now)


def batches(num_users: int, num_items: int) -> list[tuple[int, int]]:
    """Return ranges of users whose dense scores fit in memory together."""
    step = max(1, _SCORES_AT_ONCE // (num_items + 1))
    return [(low, min(low + step, num_users)) for low in range(0, num_users, step)]


def best_unseen(scores: np.ndarray, indptr: np.ndarray, item: np.ndarray, k: int) -> np.ndarray:
    """Return [B, k] int64 the best items that a person has not had, -1 where there are fewer.

    Args:
        scores: [B, N + 1] float, higher is better, -inf: cannot be shown; of equals the lower index first.
        indptr, item: CSR of what each person had.
        k: length of the lists.
    """
    scores = scores.astype(np.float64)  # a copy: what was had is struck out in it
    scores[:, 0] = -np.inf
    scores[np.repeat(np.arange(len(scores)), np.diff(indptr)), item] = -np.inf
    width = scores.shape[1]
    lists = np.full((len(scores), k), NO_ITEM, np.int64)
    if not len(scores):
        return lists
    cut = np.partition(scores, width - min(k, width), axis=1)[:, width - min(k, width)]
    for row, least in enumerate(cut):  # all that tie with the last place take part, so that ties go by index
        near = np.flatnonzero((scores[row] >= least) & np.isfinite(scores[row]))
        chosen = near[np.argsort(-scores[row, near], kind="stable")][:k]
        lists[row, : len(chosen)] = chosen
    return lists
