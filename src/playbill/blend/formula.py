"""How several lists become one order: the one place where it is computed, for the fit, for measuring and for requests.

Each member gives a list of at most `depth` items to a query. An item that stands on any of them is a candidate, and has
from each member, r being its 0-based place there, s its score, s_0 the first and s_n the last score of that list:

    standard    (s - mean) / standard deviation, over the list
    share       log(0.01 + (s - s_n) / (s_0 - s_n))
    rank        -log(1 + r)
    listed      1
    reciprocal  1 / (61 + r)

An item that a member does not list counts as standing one place below the list's end, with its last score, `listed` 0
and `reciprocal` 0. A member with no list for a query gives 0 everywhere, so it has no say. All of these stay the same
when a member's scores are shifted or stretched: what a fit on one log found holds for the same model fitted again on a
longer one, whose scores have another scale.

The blended score is the weighted sum; the weights stand in a `model.Blend`. Weights that change with the length of a
person's past were tried and left out: on MovieLens they gained less than chance could.

Source: D. McFadden (1974), Conditional logit analysis of qualitative choice behavior, for the form that `fit` gives
weights to; G. Cormack, C. Clarke, S. Buettcher (2009), Reciprocal rank fusion, for `reciprocal`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from playbill.blend.lists import Lists

FEATURES = ("standard", "share", "rank", "listed", "reciprocal")
SHARE_FLOOR = 0.01
RECIPROCAL_FROM = 61.0  # the 60 of the source, whose ranks begin at 1


@dataclass(slots=True)
class Candidates:
    """What all members together propose to Q queries, CSR, by item within a query.

    Attributes:
        indptr: [Q + 1] int64.
        item: [M] int64 item_index, ascending within a query.
        columns: [M, members x features] float32, members outermost.
        unlisted: [Q, members x features] float32, what an item has that no member lists.
    """

    indptr: np.ndarray
    item: np.ndarray
    columns: np.ndarray
    unlisted: np.ndarray

    @property
    def query(self) -> np.ndarray:
        """[M] int64, whose candidate it is."""
        query: np.ndarray = np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))
        return query


def candidates(members: Sequence[Lists], features: Sequence[str], num_items: int) -> Candidates:
    """Return the union of the members' lists with the features that a blend asks for.

    Args:
        members: lists of the same Q queries.
        features: of FEATURES.
        num_items: N.
    """
    queries = len(members[0])
    keys = [np.repeat(np.arange(queries), m.lengths()) * (num_items + 1) + m.item for m in members]
    union, place = np.unique(np.concatenate(keys), return_inverse=True)
    query, item = np.divmod(union, num_items + 1)
    indptr = np.searchsorted(query, np.arange(queries + 1)).astype(np.int64)
    columns = np.empty((len(union), len(members) * len(features)), np.float32)
    nowhere = np.empty((queries, columns.shape[1]), np.float32)
    low = 0
    for number, (member, key) in enumerate(zip(members, keys, strict=True)):
        rows = place[low : low + len(key)]
        low += len(key)
        listed, unlisted = values(member, features)
        mine = slice(number * len(features), (number + 1) * len(features))
        nowhere[:, mine] = unlisted
        columns[:, mine] = nowhere[query, mine]
        columns[rows, mine] = listed
    return Candidates(indptr=indptr, item=item, columns=columns, unlisted=nowhere)


def blended(found: Candidates, weights: np.ndarray) -> np.ndarray:
    """Return [M] float64 blended scores of candidates, higher is better.

    Args:
        weights: [members x features].
    """
    # a matrix product rounds by how many rows it has: then an order could hang on who else is answered together
    score = np.zeros(len(found.item))
    for place, weight in enumerate(weights.tolist()):
        if weight:
            score += weight * found.columns[:, place].astype(np.float64)
    return score


def owed(found: Candidates, weights: np.ndarray, num_members: int) -> np.ndarray:
    """Return [M, members] float64, how much of each blended score an item owes to standing on each member's list.

    It is what the score would fall by, were the item taken off that list: 0 where it is not on it, below 0 where the
    member speaks against it.

    Args:
        weights: [members x features].
    """
    over = (found.columns - found.unlisted[found.query]) * weights
    shares: np.ndarray = over.reshape(len(found.item), num_members, -1).sum(axis=2)
    return shares


def order(found: Candidates, score: np.ndarray) -> Lists:
    """Return the candidates as lists, best first; equal scores keep the lower index first."""
    by_score = np.lexsort((found.item, -score, found.query))
    return Lists(found.indptr, found.item[by_score], score[by_score])


def values(lists: Lists, features: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return ([R, F], [Q, F]): the features of what is listed, and of whatever is not, by query.

    Args:
        lists: one member's, of Q queries.
        features: of FEATURES.
    """
    lengths = lists.lengths()
    full = lengths > 0
    owner = np.repeat(np.arange(len(lists)), lengths)
    rank = np.arange(len(owner)) - lists.indptr[:-1][owner]
    first, last, mean, deviation = (np.zeros(len(lists)) for _ in range(4))
    starts = lists.indptr[:-1][full]
    if len(starts):
        first[full], last[full] = lists.score[starts], lists.score[lists.indptr[1:][full] - 1]
        mean[full] = np.add.reduceat(lists.score, starts) / lengths[full]
        square = np.add.reduceat((lists.score - mean[owner]) ** 2, starts) / lengths[full]
        deviation[full] = np.sqrt(square)
    flat = first - last <= 1e-12 * np.maximum(np.abs(first), np.abs(last))  # all alike: nothing to be read from scores
    stretch = np.where(flat, 0.0, 1.0 / np.where(flat, 1.0, deviation))
    span = np.where(flat, 0.0, 1.0 / np.where(flat, 1.0, first - last))
    lowest = np.where(full & ~flat, np.log(SHARE_FLOOR), 0.0)
    listed, unlisted = [], []
    for name in features:
        if name == "standard":
            listed.append((lists.score - mean[owner]) * stretch[owner])
            unlisted.append((last - mean) * stretch)
        elif name == "share":
            share = np.log(SHARE_FLOOR + (lists.score - last[owner]) * span[owner])
            listed.append(np.where(flat[owner], 0.0, share))
            unlisted.append(lowest)
        elif name == "rank":
            listed.append(-np.log1p(rank))
            unlisted.append(-np.log1p(lengths))
        elif name == "listed":
            listed.append(np.ones(len(owner)))
            unlisted.append(np.zeros(len(lists)))
        elif name == "reciprocal":
            listed.append(1.0 / (RECIPROCAL_FROM + rank))
            unlisted.append(np.zeros(len(lists)))
        else:
            raise ValueError(f"no feature {name!r}; there are {', '.join(FEATURES)}")
    return np.stack(listed, 1), np.stack(unlisted, 1)
