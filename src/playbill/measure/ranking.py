"""How good ranked lists are against what people went on to do: full catalogue, binary relevance, one list a user.

Every metric is higher-is-better and names its k. For one user with targets T and list r_0, r_1, ...:

    recall_at_k     |T in the first k| / |T|              (not / min(k, |T|): 60 targets cannot all fit in 20 places)
    hit_rate_at_k   1 if any of T is in the first k
    ndcg_at_k       sum over hits of 1 / log2(position + 2), over the same sum for the best list of k places
    mrr_at_k        1 / (position + 1) of the first hit, 0 if there is none in the first k
    map_at_k        mean over min(k, |T|) of the precision at each hit

    list [7, 3, 9], T {3, 9, 4}, k = 3: recall 2/3, hit rate 1, mrr 1/2, map (1/2 + 2/3) / 3,
    ndcg (1/log2(3) + 1/log2(4)) / (1 + 1/log2(3) + 1/log2(4))

A user who was given no list has a row of -1 and scores 0: leaving such users out would reward silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from playbill.errors import MeasureError

NO_ITEM = -1

METRICS = ("recall", "ndcg", "hit_rate", "mrr", "map")


@dataclass(slots=True)
class Targets:
    """What each user went on to do, as CSR: the targets of user u are item[indptr[u] : indptr[u + 1]].

    Attributes:
        indptr: [U + 1] int64.
        item: [T] int64 item_index, unique within a user.
    """

    indptr: np.ndarray
    item: np.ndarray

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def counts(self) -> np.ndarray:
        """Return [U] int64, the number of targets of each user."""
        return np.diff(self.indptr)

    def take(self, users: np.ndarray) -> Targets:
        """Return the targets of some users, in the order given ([V] int64 rows)."""
        counts = self.counts()[users]
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        within = np.arange(indptr[-1]) - np.repeat(indptr[:-1], counts)
        return Targets(indptr, self.item[np.repeat(self.indptr[:-1][users], counts) + within])


def targets_from_pairs(user: np.ndarray, item: np.ndarray, num_users: int) -> Targets:
    """Return the targets in (user, item) pairs; a pair that stands twice counts once.

    Args:
        user: [N] int64, 0 <= user < num_users.
        item: [N] int64 item_index.
        num_users: U; users without a pair get no targets.
    Raises:
        MeasureError: lengths differ, or a user is out of range; names the row.
    """
    user, item = _integers(user, "user"), _integers(item, "item")
    if user.shape != item.shape or user.ndim != 1:
        raise MeasureError(f"user and item are parallel [N] arrays, got shapes {user.shape} and {item.shape}")
    _refuse((user < 0) | (user >= num_users), f"user is outside 0..{num_users - 1}", user)
    order = np.lexsort((item, user))
    user, item = user[order], item[order]
    first = np.ones(len(user), bool)
    first[1:] = (user[1:] != user[:-1]) | (item[1:] != item[:-1])
    return Targets(np.searchsorted(user[first], np.arange(num_users + 1)).astype(np.int64), item[first])


def user_metrics(recommended: np.ndarray, targets: Targets, ks: Sequence[int], num_items: int) -> dict[str, np.ndarray]:
    """Return every metric of every user, by name such as `ndcg_at_20`; its mean is the figure, its rows are the sample.

    Args:
        recommended: [U, K] integer item_index, best first, padded at the end with -1.
        targets: of the same U users, at least one each, items 1..num_items.
        ks: cut-offs, each 1 <= k <= K.
        num_items: N; the catalogue is 1..N.
    Returns:
        [U] float64 by `<metric>_at_<k>`.
    Raises:
        MeasureError: shapes that do not fit, NaN, an item outside 1..N, an item twice in a list, a gap in a list, a
            user without targets; names the first such row.
    Source:
        ndcg: Jarvelin and Kekalainen 2002, with binary gains.
    """
    recommended = check_lists(recommended, num_items)
    _check_targets(targets, len(recommended), num_items)
    if not ks or min(ks) < 1 or max(ks) > recommended.shape[1]:
        raise MeasureError(f"cut-offs must lie in 1..{recommended.shape[1]}, the length of the lists, got {list(ks)}")
    hits = _hits(recommended, targets, num_items)
    length = hits.shape[1]
    gain = 1.0 / np.log2(np.arange(length) + 2.0)
    best = np.concatenate([[0.0], np.cumsum(gain)])
    counts = targets.counts()
    found: dict[str, np.ndarray] = {}
    for k in ks:
        top = hits[:, :k]
        number = top.sum(1)
        possible = np.minimum(counts, k)
        any_hit = number > 0
        precision = np.cumsum(top, 1) / np.arange(1, k + 1)
        found[f"recall_at_{k}"] = number / counts
        found[f"ndcg_at_{k}"] = top @ gain[:k] / best[possible]
        found[f"hit_rate_at_{k}"] = any_hit.astype(np.float64)
        found[f"mrr_at_{k}"] = np.where(any_hit, 1.0 / (top.argmax(1) + 1.0), 0.0)
        found[f"map_at_{k}"] = np.einsum("uk,uk->u", precision, top, dtype=np.float64) / possible
    return found


def coverage(recommended: np.ndarray, k: int, num_items: int) -> float:
    """Return the share of the catalogue that stands in the first k places of at least one list.

    It is a count over these very lists and grows with their number, so it has no interval over users.

    Args:
        recommended: [U, K] integer item_index, padded with -1.
        k: 1 <= k <= K.
        num_items: N.
    Raises:
        MeasureError: see `user_metrics`.
    """
    recommended = check_lists(recommended, num_items)
    if not 1 <= k <= recommended.shape[1]:
        raise MeasureError(f"cut-offs must lie in 1..{recommended.shape[1]}, the length of the lists, got {k}")
    shown = np.zeros(num_items + 1, bool)
    shown[np.maximum(recommended[:, :k], 0)] = True  # column 0 takes the padding
    return float(shown[1:].sum() / num_items) if num_items else 0.0


def check_lists(recommended: np.ndarray, num_items: int) -> np.ndarray:
    """Return the lists as [U, K] int64, or raise MeasureError naming the first row that is not a list."""
    lists = _integers(recommended, "recommended")
    if lists.ndim != 2:
        raise MeasureError(f"recommended must be [users, k], got shape {lists.shape}")
    _refuse(((lists < 1) & (lists != NO_ITEM)) | (lists > num_items), f"an item is outside 1..{num_items}", lists)
    _refuse((lists[:, 1:] != NO_ITEM) & (lists[:, :-1] == NO_ITEM), "-1 may stand only at the end of a list", lists)
    ordered = np.sort(lists, axis=1)
    _refuse((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NO_ITEM), "an item stands twice in a list", lists)
    return lists


def _hits(recommended: np.ndarray, targets: Targets, num_items: int) -> np.ndarray:
    """Return [U, K] bool: whether the item at each place is one of its user's targets."""
    if not len(targets.item):
        return np.zeros(recommended.shape, bool)
    width = num_items + 2  # -1 takes a cell of its own, where no target can be
    wanted = np.sort(np.repeat(np.arange(len(targets)), targets.counts()) * width + targets.item + 1)
    asked = (np.arange(len(recommended))[:, None] * width + recommended + 1).ravel()
    at = np.searchsorted(wanted, asked)
    found: np.ndarray = wanted[np.minimum(at, len(wanted) - 1)] == asked
    return found.reshape(recommended.shape)


def _check_targets(targets: Targets, num_users: int, num_items: int) -> None:
    item, indptr = _integers(targets.item, "targets.item"), _integers(targets.indptr, "targets.indptr")
    if indptr.ndim != 1 or len(indptr) != num_users + 1:
        raise MeasureError(
            f"recommended has {num_users} users, so targets.indptr must be [{num_users + 1}], got {list(indptr.shape)}"
        )
    if indptr[0] != 0 or indptr[-1] != len(item) or np.any(np.diff(indptr) < 0):
        raise MeasureError(f"targets.indptr must rise from 0 to {len(item)}, the number of targets")
    _refuse(np.diff(indptr) == 0, "the user has no targets; leave such users out", indptr[:-1])
    owner = np.repeat(np.arange(num_users), np.diff(indptr))
    bad = np.flatnonzero((item < 1) | (item > num_items))
    if len(bad):
        raise MeasureError(
            f"row {owner[bad[0]]}: target {item[bad[0]]} is outside 1..{num_items}, so nobody could rank it"
        )
    key = np.sort(owner * (num_items + 1) + item)
    twice = np.flatnonzero(key[1:] == key[:-1])
    if len(twice):
        raise MeasureError(f"row {key[twice[0]] // (num_items + 1)}: a target stands twice; use targets_from_pairs")


def _integers(array: np.ndarray, name: str) -> np.ndarray:
    """Return the array as int64; floats are refused, for a NaN among them would become an item."""
    array = np.asarray(array)
    if array.dtype.kind in "iu" or (array.dtype.kind == "f" and array.size == 0):
        return array.astype(np.int64, copy=False)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise MeasureError(f"{name}, row {row}: expected integers, got {array[row]}")
    raise MeasureError(f"{name} must hold integers, got dtype {array.dtype}")


def _refuse(bad: np.ndarray, reason: str, rows: np.ndarray) -> None:
    if bad.any():  # far cheaper than to look where, and mostly all there is to do
        row = int(np.argwhere(bad)[0][0])
        shown = np.array2string(np.atleast_1d(rows[row]), threshold=12)
        raise MeasureError(f"row {row}: {reason}: {shown}")
