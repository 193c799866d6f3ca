"""Step 2, retrieve: each retriever proposes items, up to its quota; every candidate keeps who proposed it first.

Retrievers propose in the order of RETRIEVERS, and an item that is proposed already does not use up another's quota.
What must not be shown (seen, excluded, not available) is never proposed. Popularity comes last, and fills up to k.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from playbill.baselines.ials import FoldingIals
from playbill.baselines.neighbours import Evidence, Neighbours, gather_evidence, score_evidence
from playbill.blend.model import Blend
from playbill.bundle.rungs import RETRIEVERS
from playbill.engine.catalogue import DAY_US, Catalogue, Offer
from playbill.index.filters import exact
from playbill.index.live import Living, search_live
from playbill.index.sharded import Patience

TOWER, IALS, TRENDING, NEW, POPULARITY = (
    RETRIEVERS.index(name) for name in ("tower", "ials", "trending", "new", "popularity")
)


@dataclass(slots=True)
class Candidates:
    """Candidates of one request, M of them, in the order in which they were proposed.

    Attributes:
        item: [M] int64 item_index.
        retriever: [M] int8, place in RETRIEVERS.
        scores: [M] float32 by retriever, for every candidate whoever proposed it: `tower` is the cosine of query and
            item; all others are shares of the best item's score, at most 1; `ease` and `ials` may be below 0. Tables of
            neighbours, and `ials`, are there only where they were wanted.
        best: by table of neighbours, and `ials`, the item_index with the best score, whether it may be shown or not.
        evidence: what `item_knn`, `transitions` and `ease` rest on.
        lists: where the bundle has a blend: by member, its best items that may be shown and their scores, best first.
        owed_to: [M] int8, where they are blended: place in RETRIEVERS of the member to which each owes most.
    """

    item: np.ndarray
    retriever: np.ndarray
    scores: dict[str, np.ndarray]
    evidence: dict[str, Evidence] = field(default_factory=dict)
    lists: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    owed_to: np.ndarray | None = None
    best: dict[str, int] = field(default_factory=dict)

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
    index: Living | None,
    quota: int,
    left_out: list[np.ndarray],
    offer: Offer,
    patience: Patience | None = None,
) -> list[np.ndarray]:
    """Return the nearest items of B queries, B arrays of item_index, best first; exact search where there is no index.

    At least `quota` items each that are not left out, where there are so many; a single query's answer may still hold
    what is left out.

    Args:
        query: [B, d] float32 of unit length.
        index: in which what the offer cannot show has a tombstone.
        left_out: B arrays of item_index.
        patience: with an index in parts; see `search_live`.
    """
    if index is not None:
        if len(query) == 1:  # `candidates_of` drops what is blocked anyway, and quicker than a search that filters
            return search_live(index, query, quota + len(left_out[0]), patience=patience)[1]
        return search_live(index, query, quota, left_out, patience=patience)[1]
    found = []
    for row, out in enumerate(left_out):
        mine = offer.available.copy()
        mine[out] = False
        found.append(exact(embeddings, query[row : row + 1], quota, mine)[1][0])
    return found


def cold_items(catalogue: Catalogue, offer: Offer, at: int, days: float, most: int) -> np.ndarray:
    """Return [C] int64, the newest `most` items that came out within so many days before `at`, newest first."""
    order, published = offer.newest_order, catalogue.published

    def age(place: int) -> int:
        return at - int(published[order[place]])

    # by bisection: only a few of a large catalogue are looked at
    first = bisect_left(range(len(order)), 0, key=age)
    end = bisect_left(range(len(order)), round(days * DAY_US), key=age)
    young: np.ndarray = order[first : min(end, first + most)]
    return young


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
    blend: Blend | None = None,
    ials: FoldingIals | None = None,
    wanted: Collection[str] = (),
    newest: np.ndarray | None = None,
    newcomers: np.ndarray | None = None,
    brought: np.ndarray | None = None,
) -> Candidates:
    """Return one person's candidates: at least k, or all that is eligible.

    Args:
        left_out, blocked: what `blocked_items` gave; what is proposed is marked in `blocked` as well.
        k: least number wanted.
        quotas: most items by retriever; one that is not named proposes nothing.
        tables: neighbours by retriever; empty where nothing personal may be used, and `ials` None. Those that nobody
            asks, by a quota or a weight, are left alone.
        history: [H] int64 known items, newest first, each once.
        nearest: what `search_tower` found, and `query` [d] and `embeddings` with it.
        blend: whose members propose their lists of its depth and nothing beyond, so that it may order them.
        wanted: retrievers whose scores are needed though they have no quota.
        newest: [C] int64 cold items, newest first, where they have a quota; see `cold_items`.
        newcomers: [n] int64 items that places are kept for, see `newcomers_of`.
        brought: [n] int64 items that rules want proposed, see `rules.brought_in`.
    """
    members = dict.fromkeys(() if blend is None else blend.members, 0 if blend is None else blend.depth)
    free = ~blocked if members else blocked  # what may be shown, whoever has proposed it
    lists: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    asked = {*wanted, *members, *(name for name, quota in quotas.items() if quota)}
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
        if "tower" in members and query is not None:
            near = nearest[free[nearest]]
            lists["tower"] = _listed(near, embeddings[near] @ query, members["tower"])
            nearest = lists["tower"][0]
        propose(TOWER, nearest, quotas.get("tower", 0))
    dense: dict[str, np.ndarray] = {}
    evidence: dict[str, Evidence] = {}

    def take(name: str, code: int) -> None:
        quota = quotas.get(name, 0)
        if name in members:
            best = _best(dense[name], ~free, members[name])
            lists[name] = best, dense[name][best]
            propose(code, best, quota)
        elif quota:
            propose(code, _best(dense[name], blocked, quota), quota)

    for name, table in tables.items():
        if len(history) and name in asked:
            evidence[name] = gather_evidence(table, history[: table.length])
            dense[name] = score_evidence(evidence[name], table.decay, catalogue.num_items)
            take(name, RETRIEVERS.index(name))
    person = None
    if ials is not None and len(history) and "ials" in asked:
        person = ials.person(history[: ials.length])
        dense["ials"] = np.zeros(catalogue.num_items + 1, np.float32)  # items that came later are of no factors
        dense["ials"][: len(ials.item_factors)] = ials.item_factors @ person
        dense["ials"][0] = -np.inf
        take("ials", IALS)
    quota = quotas.get("trending", 0)
    for name, order, share in (
        ("trending", offer.trending_order, catalogue.trending),
        ("popularity", offer.popular_order, catalogue.popular),
    ):
        if name in members:
            first = order[: members[name] + spare]
            first = first[free[first] & (share[first] > 0)][: members[name]]
            lists[name] = first, share[first]
    propose(TRENDING, offer.trending_order[: quota + spare + total], quota)
    if newest is not None:
        propose(NEW, newest, quotas.get("new", 0))
    if newcomers is not None:
        propose(NEW, newcomers, len(newcomers))
    if brought is not None:
        propose(POPULARITY, brought, len(brought))
    quota = max(quotas.get("popularity", 0), k - total)
    propose(POPULARITY, offer.popular_order[: quota + spare + total], quota)

    item = np.concatenate([items for _, items in found])
    best = {name: int(values.argmax()) for name, values in dense.items()}  # row 0 is -inf, or 0
    scores = {name: _normal(values, best[name], item) for name, values in dense.items()}
    if query is not None and embeddings is not None:
        scores["tower"] = embeddings[item] @ query
    scores["trending"], scores["popularity"] = catalogue.trending[item], catalogue.popular[item]
    retriever = np.repeat(np.asarray([c for c, _ in found], np.int8), [len(items) for _, items in found])
    return Candidates(item=item, retriever=retriever, scores=scores, evidence=evidence, lists=lists, best=best)


def _listed(item: np.ndarray, score: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the best `depth` items with their scores; an index may have found near equals in another order."""
    best = np.lexsort((item, -score))[:depth]
    return item[best], score[best]


def _best(scores: np.ndarray, blocked: np.ndarray, quota: int) -> np.ndarray:
    """Return the items with the best positive scores, best first; equal scores keep the lower index first."""
    rows = np.flatnonzero(scores > 0)
    rows = rows[~blocked[rows]]
    if len(rows) > quota:
        cut = np.partition(scores[rows], len(rows) - quota)[len(rows) - quota]
        rows = rows[scores[rows] >= cut]
    best: np.ndarray = rows[np.argsort(-scores[rows], kind="stable")][:quota]
    return best


def _normal(scores: np.ndarray, best: int, item: np.ndarray) -> np.ndarray:
    most = scores[best]
    share: np.ndarray = scores[item] / most if most > 0 else np.zeros(len(item), np.float32)
    return share
