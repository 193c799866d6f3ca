"""The order of a bundle's blend: the formula of `blend.formula`, on the lists that the retrievers gave a request."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from playbill.blend.formula import blended, candidates, owed
from playbill.blend.lists import Lists, from_arrays
from playbill.blend.model import SCORE, Blend, weights_of
from playbill.bundle.rungs import RETRIEVERS
from playbill.engine.catalogue import Catalogue
from playbill.engine.retrieve import Candidates

BLEND = SCORE
BLENDED = ("retrieval", "item_knn")  # rungs on which it orders the slate


def blend_candidates(blend: Blend, catalogue: Catalogue, many: Sequence[Candidates]) -> None:
    """Give candidates their blended score, and the retriever that each owes most of it to.

    Requests that a member had nothing to say to (its graph failed, say) are left without; so they are ordered as if
    there were no blend.

    Args:
        blend: of the bundle.
        many: of some requests; those with every member's list are changed in place.
    """
    mine = [c for c in many if all(m in c.lists for m in blend.members) and len(c)]
    if not mine:
        return
    weights, members = weights_of(blend), len(blend.members)
    lists = [_lists([c.lists[m] for c in mine]) for m in blend.members]
    found = candidates(lists, blend.features, catalogue.num_items)
    score, shares = blended(found, weights), owed(found, weights, members)
    codes = np.asarray([RETRIEVERS.index(m) for m in blend.members], np.int8)
    for place, request in enumerate(mine):
        rows = slice(found.indptr[place], found.indptr[place + 1])
        if rows.start < rows.stop:
            _give(request, catalogue, found.item[rows], score[rows], shares[rows], codes)


def _give(
    request: Candidates,
    catalogue: Catalogue,
    item: np.ndarray,
    score: np.ndarray,
    shares: np.ndarray,
    codes: np.ndarray,
) -> None:
    at = np.minimum(np.searchsorted(item, request.item), len(item) - 1)
    listed = item[at] == request.item
    # what no member lists only fills the slate up: below all that is listed, the more popular first
    lowest = score.min() - 2
    request.scores[BLEND] = np.where(listed, score[at], lowest + catalogue.popular[request.item])
    best = shares[at].argmax(axis=1)
    spoken = listed & (shares[at, best] > 0)
    request.owed_to = np.where(spoken, codes[best], request.retriever).astype(np.int8)


def _lists(given: Sequence[tuple[np.ndarray, np.ndarray]]) -> Lists:
    return from_arrays([item for item, _ in given], [score for _, score in given])
