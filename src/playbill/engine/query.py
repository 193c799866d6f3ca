"""Step 2, the towers' part of it: query vectors of a batch, and the items nearest to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from playbill.engine.alike import like
from playbill.engine.fresh import Stock
from playbill.engine.ladder import Ladder, first_line
from playbill.engine.parts import Parts
from playbill.engine.profile import People
from playbill.engine.retrieve import search_tower
from playbill.engine.row import Row
from playbill.errors import SearchError
from playbill.index.sharded import Patience

_NONE = np.zeros(0, np.int64)


def query_rows(
    rows: list[Row],
    encoded: People | None,
    stocked: Stock,
    parts: Parts,
    ladder: Ladder,
    within_s: float | None = None,
) -> tuple[np.ndarray | None, dict[int, np.ndarray]]:
    """Return the query vectors of the batch [B, d] and, by row, the nearest items of those who have a tower: to the
    person, or to the item whose like is wanted. A list that is to be put in order has its items already.

    Args:
        within_s: seconds for an index in parts; rows found without one of them say so.
    """
    wanted = [i for i, row in enumerate(rows) if row.rung in ("full", "retrieval")]
    tower, embeddings = parts.query_tower, stocked.embeddings
    if not wanted or tower is None or embeddings is None or encoded is None:
        return None, {}
    try:
        query = tower.run(encoded.arrays, tower.outputs[:1])[0]
        most = max(rows[i].surface.quotas.get("tower", 0) for i in wanted)
        if parts.blend is not None and "tower" in parts.blend.members:
            most = max(most, parts.blend.depth)
        nearest: dict[int, np.ndarray] = {}
        searching = [i for i in wanted if rows[i].listed is None and not rows[i].anchor]
        for mine in _by_stock(rows, searching):
            left_out, stock = [rows[i].left_out for i in mine], rows[mine[0]].stock
            patience = Patience(within_s)
            found = search_tower(query[mine], embeddings, stock.index, most, left_out, stock.offer, patience)
            nearest.update(zip(mine, found, strict=True))
            if patience.nobody:
                raise SearchError(patience.told())
            _note([rows[i] for i in mine], patience)
        nearest.update({i: _NONE for i in wanted if rows[i].listed is not None})
        for i in wanted:
            if rows[i].anchor:
                row = rows[i]
                quota = max(row.surface.quotas.get("tower", 0), row.request.k)
                patience = Patience(within_s)
                nearest[i] = like([row.anchor], row.stock, parts.tables, quota, row.left_out, patience)[0]
                _note([row], patience)
    except Exception as error:  # onnxruntime raises its own classes, straight below Exception
        ladder.fault("query_tower", error)
        ladder.lower([rows[i] for i in wanted], "retrieval", f"the query tower failed: {first_line(error)}")
        return None, {}
    for i in np.flatnonzero(~np.isfinite(query).all(1)).tolist():
        if nearest.pop(i, None) is not None:
            ladder.fault("query_tower", ValueError("a query vector is not finite"))
            ladder.lower([rows[i]], "retrieval", "the query tower failed: a query vector is not finite")
    return query, nearest


def _note(rows: Sequence[Row], patience: Patience) -> None:
    """Say in rows what their candidates were found without."""
    for row in rows:
        row.why += [patience.told()] if patience.lost else []


def _by_stock(rows: Sequence[Row], wanted: Sequence[int]) -> list[list[int]]:
    """Return the wanted rows in groups that search the same catalogue."""
    groups: dict[int, list[int]] = {}
    for i in wanted:
        groups.setdefault(id(rows[i].stock), []).append(i)
    return list(groups.values())
