"""An index whose catalogue changes: a built, read-only one, fresh vectors beside it, and tombstones.

A `LiveIndex` is one state and never changes: `with_items` and `without` return the next one. Whoever holds it lets
readers take the reference and puts the next in its place, one plain assignment, so that any number of threads search
while one writes, without a lock. What a search finds is what a rebuilt index would find: exactly so for flat ones.

Every search walks all fresh vectors, and every change copies them; `rebuild_due` says when to build anew.

The functions take an index in parts (`Sharded`) as well, whose parts stand elsewhere and are `LiveIndex`es there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from playbill.errors import SearchError
from playbill.index.filters import Eligible, exact_rows, prepare
from playbill.index.item_index import ItemIndex
from playbill.index.search import Found, check_queries, search
from playbill.index.sharded import Patience, Sharded, changed, make_ready, search_parts

DUE_SHARE = 0.1  # of the built index, fresh items or tombstones
MOST_FRESH = 200_000


@dataclass(frozen=True, slots=True, eq=False)
class LiveIndex:
    """One state; use `live` for the first.

    Attributes:
        main: the built index.
        fresh_ids: [F] int64 ascending item_index; any >= 1, beyond the built ones or in the place of one of them.
        fresh: [F, d] float32, their vectors.
        hidden: [N + 1] bool, items of `main` that were removed or replaced; row 0 always.
        kept: the others, ready to search; None where nothing is hidden.
        version: grows by one with each change.
    """

    main: ItemIndex
    fresh_ids: np.ndarray
    fresh: np.ndarray
    hidden: np.ndarray
    kept: Eligible | None = None
    version: int = 0

    def __len__(self) -> int:
        return len(self.fresh_ids) + (len(self.main) if self.kept is None else len(self.kept.rows))

    @property
    def built(self) -> int:
        """Items of the built index, hidden ones among them."""
        return len(self.main)

    @property
    def width(self) -> int:
        return self.main.width

    @property
    def nbytes(self) -> int:
        """Memory that this state takes beside the built index."""
        kept = self.kept
        arrays = [self.fresh_ids, self.fresh, self.hidden]
        arrays += [] if kept is None else [kept.rows, kept.mask, *([] if kept.vectors is None else [kept.vectors])]
        return sum(array.nbytes for array in arrays)

    @property
    def size(self) -> int:
        """Rows that a filter by item_index must have: the largest item_index + 1."""
        return max(len(self.hidden), int(self.fresh_ids[-1]) + 1 if len(self.fresh_ids) else 0)


Living = LiveIndex | Sharded
_L = TypeVar("_L", LiveIndex, Sharded, LiveIndex | Sharded)


def live(main: ItemIndex) -> LiveIndex:
    """Return the first state: the built index as it is."""
    hidden = np.zeros(len(main.embeddings), bool)
    hidden[0] = True
    return LiveIndex(main, np.empty(0, np.int64), np.empty((0, main.width), np.float32), hidden)


def with_items(state: _L, ids: np.ndarray, vectors: np.ndarray) -> _L:
    """Return the state with these items added, each in the place of what stood under its item_index.

    Args:
        ids: [M] int64, each once, >= 1.
        vectors: [M, d] float32, from the item tower that made the index's; copied.
    Raises:
        SearchError: shapes that do not fit, an item_index twice or below 1, a vector that is not finite, or more fresh
            items than a search can walk.
    """
    ids = np.asarray(ids, np.int64)
    vectors = np.asarray(vectors, np.float32)
    if ids.ndim != 1 or vectors.shape != (len(ids), state.width):
        raise SearchError(
            f"{ids.shape} ids and vectors of shape {vectors.shape}; expected [M] and [M, {state.width}], as the index "
            "holds"
        )
    if not len(ids):
        return state
    values, counts = np.unique(ids, return_counts=True)
    if counts.max() > 1:
        raise SearchError(f"{int((counts > 1).sum())} ids stand twice, first item_index {values[counts > 1][0]}")
    if values[0] < 1:
        raise SearchError(f"item_index must be at least 1, got {values[0]}; 0 is the unknown item")
    finite = np.isfinite(vectors).all(1)
    if not finite.all():
        raise SearchError(
            f"{int((~finite).sum())} item vectors are not finite, first item_index {ids[~finite][0]}; nothing was added"
        )
    stay = ~np.isin(state.fresh_ids, ids)
    all_ids = np.concatenate([state.fresh_ids[stay], ids])
    if len(all_ids) > MOST_FRESH:
        raise SearchError(f"{len(all_ids):,} fresh items, at most {MOST_FRESH:,} are searched; build the index anew")
    order = np.argsort(all_ids)
    fresh = np.concatenate([state.fresh[stay], vectors])[order]
    return _hide(state, ids[ids < len(state.hidden)], fresh_ids=all_ids[order], fresh=fresh)


def without(state: _L, ids: np.ndarray) -> _L:
    """Return the state with these items removed; those that are not there change nothing.

    Args:
        ids: [M] int64 item_index.
    """
    ids = np.asarray(ids, np.int64)
    stay = ~np.isin(state.fresh_ids, ids)
    known = ids[(ids > 0) & (ids < len(state.hidden))]
    if stay.all() and state.hidden[known].all():
        return state
    return _hide(state, known, fresh_ids=state.fresh_ids[stay], fresh=state.fresh[stay])


def rebuild_due(state: Living, share: float = DUE_SHARE) -> str:
    """Return why the index should be built anew, empty while it need not be.

    Args:
        share: fresh items, or tombstones, as a share of the built index, 0..1.
    """
    built = state.built
    gone = built + len(state.fresh_ids) - len(state)
    told = [
        f"{count:,} {what}"
        for count, what in ((len(state.fresh_ids), "fresh"), (gone, "removed"))
        if count > share * built
    ]
    return f"{' and '.join(told)} items beside {built:,} built ones: export again" if told else ""


def ready(state: _L) -> _L:
    """Return the state, made known where it is searched, so that the first search need not wait for that."""
    if isinstance(state, Sharded):
        make_ready(state)
    return state


def search_live(
    state: Living,
    queries: np.ndarray,
    k: int,
    exclude: Sequence[np.ndarray] | None = None,
    allowed: np.ndarray | None = None,
    patience: Patience | None = None,
) -> Found:
    """Return the k nearest eligible items of each query, best first, fresh and built ones alike.

    Args:
        queries, k, exclude: as `search` takes them.
        allowed: [size] bool by item_index; None allows everything that is there.
        patience: for an index in parts, how long to wait for them; it is told who did not answer.
    Returns:
        as `search`; equal scores keep the lower item_index first.
    Raises:
        SearchError: shapes that do not fit, names both; no part of an index in parts answers, and there is no patience
            to tell.
    """
    queries = np.ascontiguousarray(queries, np.float32)
    check_queries(queries, state.width, k, exclude)
    if allowed is not None and (allowed.dtype != np.bool_ or allowed.shape != (state.size,)):
        raise SearchError(f"allowed must be bool [{state.size}] by item_index, got {allowed.dtype} {allowed.shape}")
    if isinstance(state, Sharded):
        return search_parts(state, queries, k, exclude, allowed, patience)
    built = state.kept
    if allowed is not None:
        built = prepare(state.main, allowed[: len(state.hidden)] & ~state.hidden)
    scores, items = search(state.main, queries, k, exclude, built)
    some = slice(None) if allowed is None else allowed[state.fresh_ids]
    ids, vectors = state.fresh_ids[some], state.fresh[some]
    if not len(ids):
        return scores, items
    left_out = [_NOTHING] * len(queries) if exclude is None else exclude
    wanted = k + max(map(len, left_out), default=0)
    for i, (score, item) in enumerate(zip(*exact_rows(vectors, queries, wanted, ids, together=True), strict=True)):
        keep = ~np.isin(item, left_out[i]) if len(left_out[i]) else slice(None)
        scores[i], items[i] = _merged(scores[i], items[i], score[keep], item[keep], k)
    return scores, items


def _hide(state: _L, ids: np.ndarray, fresh_ids: np.ndarray, fresh: np.ndarray) -> _L:
    """Return the next state, with these of the built items hidden as well."""
    if isinstance(state, Sharded):
        hidden = state.hidden.copy()
        hidden[ids] = True
        return changed(state, fresh_ids, fresh, hidden)
    new = replace(state, fresh_ids=fresh_ids, fresh=fresh, version=state.version + 1)
    if state.hidden[ids].all():
        return new
    hidden = state.hidden.copy()
    hidden[ids] = True
    return replace(new, hidden=hidden, kept=prepare(state.main, ~hidden))


def _merged(
    scores: np.ndarray, items: np.ndarray, fresh_scores: np.ndarray, fresh_items: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    both, ids = np.concatenate([scores, fresh_scores]), np.concatenate([items, fresh_items])
    order = np.lexsort((ids, -both))[:k]
    return both[order], ids[order]


_NOTHING = np.empty(0, np.int64)
