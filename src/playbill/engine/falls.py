"""How the scores of a slate fall when one item is taken out of the history, by which its reasons are chosen.

Each term of a score gives its part:

tables of neighbours    exact, for every item of the history, from what they say of it anyway
iALS                    exact but for a little of the ridge, from one system of equations
query tower             asked again without an item: one run for the newest few of them, or for all
ranker                  asked again of the shown items alone, with that history and that cosine
blend                   the formula again, over each member's list in the order that it would have

Which few: the newest, since in the demo's tower the newest of fifty items moves a score seven times as much as the
mean, the sixth twice, those from the tenth on no more than the mean; and those that most of what is shown is nearest
to, since they move a tower that counts all items alike. The rest is heard where a request asks for exact reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from playbill.baselines.ials import FoldingIals
from playbill.blend.formula import values
from playbill.blend.lists import Lists
from playbill.blend.model import weights_of
from playbill.engine.blending import BLEND
from playbill.engine.drops import drops, ials_drops, of_shares
from playbill.engine.parts import Parts
from playbill.engine.rank import rank_matrix
from playbill.engine.row import Row
from playbill.engine.runtime import Model
from playbill.features.leave_out import leave_out

NEWEST = 4  # of five tries; with all five, reasons are a little truer for such towers, and less for others


@dataclass(frozen=True, slots=True)
class Falls:
    """How scores fall.

    Attributes:
        place: [T] int64, of the items of the history that were left out, one at a time; 0 is the newest.
        fall: [T, n] float64, of each chosen item; below 0 where its score would rise.
    """

    place: np.ndarray
    fall: np.ndarray


def falls(row: Row, chosen: np.ndarray, weights: dict[str, float], parts: Parts) -> Falls | None:
    """Return how the scores of chosen candidates fall; None where nothing that they are made of reads a history, or
    there was no time to ask.

    Args:
        chosen: [n] places among the candidates.
        weights: what scores are made of, see `slate.weights_of`.
    """
    if not len(chosen) or not len(row.history) or row.anchor:
        return None
    terms = {name: weight for name, weight in weights.items() if weight}
    found = _Terms(row, chosen, parts)
    if BLEND in terms:
        parts_of = found.blended(terms[BLEND])
    else:
        parts_of = [(found.table(name), terms[name]) for name in row.candidates.evidence if name in terms]
        if "ials" in terms and parts.ials is not None and "ials" in row.candidates.scores:
            parts_of.append((found.ials(parts.ials), terms["ials"]))
        if "tower" in terms and "tower" in row.candidates.scores:
            parts_of.append((found.tower(), terms["tower"]))
        parts_of += [(fall, terms[task]) for task, fall in found.tasks(set(terms)).items()]
    there = [(fall, weight) for fall, weight in parts_of if fall is not None]
    if not there or len(there) < len(parts_of):
        return None
    # what every term has heard of: of the tables and iALS all that they read, of graphs the few they were asked without
    place = found.place if found.place is not None else np.arange(min(len(fall) for fall, _ in there))
    total = np.zeros((len(place), len(chosen)))
    for fall, weight in there:
        if fall.shape[0] == len(place):
            total += weight * fall
        else:
            read = place < len(fall)
            total[read] += weight * fall[place[read]]
    return Falls(place, total)


class _Terms:
    """The falls of each term for one request; the tower is asked once for all that read it."""

    def __init__(self, row: Row, chosen: np.ndarray, parts: Parts) -> None:
        self.row, self.chosen, self.parts = row, chosen, parts
        self.item = row.candidates.item[chosen]
        self.place: np.ndarray | None = None  # of the items that graphs were asked without
        self._left: tuple[dict[str, np.ndarray], np.ndarray] | None = None

    def table(self, name: str) -> np.ndarray:
        """Return [H, n] of one table's score, the share of its best."""
        return of_shares(self.row.candidates, name, self.chosen, partial(self._drops, name))

    def ials(self, model: FoldingIals) -> np.ndarray:
        """Return [H, n] of the score of iALS, the share of its best."""
        return of_shares(self.row.candidates, "ials", self.chosen, partial(ials_drops, model, self.row.history))

    def tower(self) -> np.ndarray | None:
        """Return [T, n] of the cosine; None where the tower is not asked."""
        left = self._queries()
        return None if left is None else self._cosines(self.item) - left[1] @ self._vectors(self.item).T

    def tasks(self, wanted: set[str]) -> dict[str, np.ndarray | None]:
        """Return [T, n] of each probability that is wanted; None where the ranker, or the tower, is not asked."""
        names = [name for name in self.row.probabilities if name in wanted]
        left, ranker = self._queries() if names else None, self.parts.ranker
        if left is None or not isinstance(ranker, Model):
            return dict.fromkeys(names)
        arrays, query = left
        cosines = query @ self._mine.T
        asked = self.item[None].repeat(len(cosines), 0)
        given = rank_matrix(ranker, arrays, asked, cosines, self.row.stock.item_arrays, asked.size)
        now = self.row.probabilities
        return {n: now[n][self.chosen] - given[n] if n in given else None for n in names}

    def blended(self, weight: float) -> list[tuple[np.ndarray | None, float]]:
        """Return [T, n] of the blended score by member: its list in the order that it would have, the formula again.

        What would come onto a list then, in place of its last, is left out of account.
        """
        candidates, blend = self.row.candidates, self.parts.blend
        if blend is None:
            return [(None, weight)]
        found: list[tuple[np.ndarray | None, float]] = []
        weights = weights_of(blend).reshape(len(blend.members), -1)
        for member, mine in zip(blend.members, weights, strict=True):
            listed, score = candidates.lists[member]
            if not len(listed) or not mine.any():
                continue
            if member == "tower":
                left = self._queries()
                fall = None if left is None else self._cosines(listed) - left[1] @ self._vectors(listed).T
            elif member in candidates.evidence:
                fall = self._drops(member, listed)[0]
            elif member == "ials" and self.parts.ials is not None:
                fall = ials_drops(self.parts.ials, self.row.history, listed)[0]
            else:
                continue  # what is popular or trending reads no history
            if fall is None:
                return [(None, weight)]
            found.append((_listed_falls(listed, score, fall, blend.features, mine, self.item), weight))
        return found

    def _drops(self, name: str, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        num_items, table = self.row.stock.catalogue.num_items, self.parts.tables[name]
        return drops(self.row.candidates.evidence[name], table.decay, items, num_items)

    def _queries(self) -> tuple[dict[str, np.ndarray], np.ndarray] | None:
        """Return the arrays and the query vectors [T, d] without each of a few items of the history."""
        row, tower = self.row, self.parts.query_tower
        if self._left is None and row.tries and row.encoded is not None and tower is not None:
            arrays, place = row.encoded
            encoded = set(arrays["history_item"][place].tolist())
            read = sum(item in encoded for item in row.history.tolist())  # older ones no tower reads
            if read:
                self.place = self._tried(read)
                left = leave_out(arrays, place, row.history[self.place])
                self._left = left, tower.run(left, tower.outputs[:1])[0]
        return self._left

    def _tried(self, read: int) -> np.ndarray:
        """Return places of the history that graphs are asked without, of the first `read`."""
        tries = self.row.tries
        if tries >= read:
            return np.arange(read)
        newest = -(-tries * NEWEST // 5)
        near = self._mine @ self._vectors(self.row.history[newest:read]).T
        votes = np.bincount(near.argmax(1), minlength=read - newest)
        return np.concatenate(
            [np.arange(newest), newest + np.sort(np.argsort(-votes, kind="stable")[: tries - newest])]
        )

    @cached_property
    def _mine(self) -> np.ndarray:
        """The vectors of what is shown, [n, d] float32."""
        return self._vectors(self.item)

    def _vectors(self, items: np.ndarray) -> np.ndarray:
        assert self.row.stock.embeddings is not None  # there is a tower
        return np.asarray(self.row.stock.embeddings[items], np.float32)

    def _cosines(self, items: np.ndarray) -> np.ndarray:
        assert self.row.query is not None
        found: np.ndarray = self._vectors(items) @ self.row.query
        return found


def _listed_falls(
    listed: np.ndarray,
    score: np.ndarray,
    fall: np.ndarray,
    features: Sequence[str],
    weights: np.ndarray,
    items: np.ndarray,
) -> np.ndarray:
    """Return [T, n], how much less one member gives to some items where what it lists [D] falls by [T, D].

    Args:
        weights: [F] of the features.
    """
    given = np.concatenate([score[None], score - fall])
    order = np.argsort(-given, axis=1, kind="stable")
    times, depth = given.shape
    indptr = np.arange(times + 1) * depth
    of_listed, of_others = values(
        Lists(indptr, listed[order].ravel(), np.take_along_axis(given, order, 1).ravel()), features
    )
    place = np.argsort(order, axis=1)
    by_item = np.argsort(listed)
    at = by_item[np.minimum(np.searchsorted(listed, items, sorter=by_item), depth - 1)]
    whole = (of_listed @ weights).reshape(times, depth)
    mine = np.take_along_axis(whole, place[:, at], 1)
    said = np.where(listed[at] == items, mine, (of_others @ weights)[:, None])
    found: np.ndarray = said[0] - said[1:]
    return found
