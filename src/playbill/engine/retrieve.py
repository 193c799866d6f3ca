"""Step 2, retrieve: each retriever proposes items, up to its quota; every candidate keeps who proposed it first.

Retrievers propose in the order of RETRIEVERS, and an item that is proposed already does not use up another's quota.
What must not be shown (seen, excluded, not available) is never proposed. Popularity comes last, and fills up to k.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from playbill.baselines.neighbours import Evidence, Neighbours, gather_evidence, score_evidence
from playbill.engine.catalogue import Catalogue, Offer
from playbill.index.filters import exact
from playbill.index.live import LiveIndex, search_live

RETRIEVERS = ("tower", "item_knn", "transitions", "trending", "popularity")
TOWER, TRENDING, POPULARITY = 0, 3, 4
NEWEST = 50  # items of a history that item-kNN reads; the default of baselines.score_neighbours, by which it was tuned


@dataclass(slots=True)
class Candidates:
    """Candidates of one request, M of them, in the order in which they were proposed.

    Attributes:
        item: [M] int64 item_index.
        retriever: [M] int8, place in RETRIEVERS.
        scores: [M] float32 by retriever, for every candidate whoever proposed it: `tower` is the cosine of query and
            item; `item_knn`, `transitions`, `trending`, `popularity` are shares of the best item's score, 0..1.
        evidence: what `item_knn` and `transitions` rest on.
    """

    item: np.ndarray
    retriever: np.ndarray
    scores: dict[str, np.ndarray]
    evidence: dict[str, Evidence] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.item)


def no_candidates() -> Candidates:
    return Candidates(item=np.zeros(0, np.int64), retriever=np.zeros(0, np.int8), scores={})


def blocked_items(
    catalogue: Catalogue, offer: Offer, seen: list[int | str], exclude: list[int | str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return what must not be shown: ([S] int64 item_index seen or excluded, [N + 1] bool of those and unavailable)."""
    rows = catalogue.indices([*seen, *exclude])
    blocked = ~offer.available
    blocked[rows] = True
    return rows[rows > 0], blocked


def search_tower(
    query: np.ndarray,
    embeddings: Any,
    index: LiveIndex | None,
    quota: int,
    left_out: list[np.ndarray],
    offer: Offer,
) -> list[np.ndarray]:
    """Return the nearest items of B queries, B arrays of item_index, best first; exact search where there is no index.

    At least `quota` items each that are not left out, where there are so many; a single query's answer may still hold
    what is left out.

    Args:
        query: [B, d] float32 of unit length.
        index: in which what the offer cannot show has a tombstone.
        left_out: B arrays of item_index.
    """
    if index is not None:
        if len(query) == 1:  # `candidates_of` drops what is blocked anyway, and quicker than a search that filters
            return search_live(index, query, quota + len(left_out[0]))[1]
        return search_live(index, query, quota, left_out)[1]
    found = []
    for row, out in enumerate(left_out):
        mine = offer.available.copy()
        mine[out] = False
        found.append(exact(embeddings, query[row : row + 1], quota, mine)[1][0])
    return found


def candidates_of(
    catalogue: Catalogue,
    offer: Offer,
    left_out: np.ndarray,
    blocked: np.ndarray,
    k: int,
    quotas: dict[str, int],
    tables: dict[str, Neighbours],
    history: np.ndarray,
    nearest: np.ndarray | None = None,
    query: np.ndarray | None = None,
    embeddings: Any = None,
) -> Candidates:
    """Return one person's candidates: at least k, or all that is eligible.

    Args:
        left_out, blocked: what `blocked_items` gave; what is proposed is marked in `blocked` as well.
        k: least number wanted.
        quotas: most items by retriever; one that is not named proposes nothing.
        tables: neighbours by retriever; empty where nothing personal may be used.
        history: [H] int64 known items, newest first, each once.
        nearest: what `search_tower` found, and `query` [d] and `embeddings` with it.
    """
    spare = len(left_out)  # so many of the first places of an order may be taken
    found: list[tuple[int, np.ndarray]] = []
    total = 0

    def propose(code: int, items: np.ndarray, quota: int) -> None:
        nonlocal total
        items = items[~blocked[items]][:quota]
        blocked[items] = True
        found.append((code, items))
        total += len(items)

    if nearest is not None:
        propose(TOWER, nearest, quotas.get("tower", 0))
    dense: dict[str, np.ndarray] = {}
    evidence: dict[str, Evidence] = {}
    for name, table in tables.items():
        if len(history):
            evidence[name] = gather_evidence(table, history[:NEWEST])
            dense[name] = score_evidence(evidence[name], table.decay, catalogue.num_items)
            quota = quotas.get(name, 0)
            if quota:
                propose(RETRIEVERS.index(name), _best(dense[name], blocked, quota), quota)
    quota = quotas.get("trending", 0)
    propose(TRENDING, offer.trending_order[: quota + spare + total], quota)
    quota = max(quotas.get("popularity", 0), k - total)
    propose(POPULARITY, offer.popular_order[: quota + spare + total], quota)

    item = np.concatenate([items for _, items in found])
    scores = {name: _normal(values, item) for name, values in dense.items()}
    if query is not None and embeddings is not None:
        scores["tower"] = embeddings[item] @ query
    scores["trending"], scores["popularity"] = catalogue.trending[item], catalogue.popular[item]
    retriever = np.repeat(np.asarray([c for c, _ in found], np.int8), [len(items) for _, items in found])
    return Candidates(item=item, retriever=retriever, scores=scores, evidence=evidence)


def _best(scores: np.ndarray, blocked: np.ndarray, quota: int) -> np.ndarray:
    """Return the items with the best positive scores, best first; equal scores keep the lower index first."""
    rows = np.flatnonzero(scores > 0)
    rows = rows[~blocked[rows]]
    if len(rows) > quota:
        cut = np.partition(scores[rows], len(rows) - quota)[len(rows) - quota]
        rows = rows[scores[rows] >= cut]
    best: np.ndarray = rows[np.argsort(-scores[rows], kind="stable")][:quota]
    return best


def _normal(scores: np.ndarray, item: np.ndarray) -> np.ndarray:
    most = scores.max(initial=0)  # row 0 is -inf
    share: np.ndarray = scores[item] / most if most > 0 else np.zeros(len(item), np.float32)
    return share
