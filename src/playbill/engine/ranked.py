"""Step 3 for the rows of a batch: who is ranked, and what becomes of those whose model fails."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from playbill.bundle.answers import ENJOY, NAME
from playbill.engine.answers import enjoyment
from playbill.engine.fresh import Stock
from playbill.engine.ladder import Ladder, first_line
from playbill.engine.parts import Parts
from playbill.engine.profile import People
from playbill.engine.rank import rank
from playbill.engine.row import Row


def rank_rows(
    rows: Sequence[Row],
    encoded: People | None,
    stocked: Stock,
    parts: Parts,
    ladder: Ladder,
    most: int,
    within_s: float | None = None,
) -> bool:
    """Fill in the probabilities of the rows on the best rung; a model that they need and that fails lowers them.

    Return False where the ranker was not waited for to its end.

    Args:
        most: candidates in one run of the ranker.
        within_s: seconds for a ranker in another process; one that needs longer fails, with TimeoutError.
    """
    wanted = [i for i, row in enumerate(rows) if row.rung == "full" and len(row.candidates)]
    if not wanted or parts.ranker is None or encoded is None:
        return True
    try:
        found = rank(
            parts.ranker,
            encoded.arrays,
            wanted,
            [rows[i].candidates for i in wanted],
            stocked.item_arrays,
            most,
            within_s,
        )
    except Exception as error:
        ladder.fault("ranker", error)
        ladder.lower([rows[i] for i in wanted], "full", f"the ranker failed: {first_line(error)}")
        return not isinstance(error, TimeoutError)
    for i, probabilities in zip(wanted, found, strict=True):
        if all(np.isfinite(values).all() for values in probabilities.values()):
            rows[i].probabilities = probabilities
        else:
            ladder.fault("ranker", ValueError("a probability is not finite"))
            ladder.lower([rows[i]], "full", "the ranker failed: a probability is not finite")
    # at a price of its own, so only where a surface weighs it, be it with 0
    asked = [row for row in rows if row.probabilities and ENJOY in row.surface.weights]
    if not asked or parts.response is None:
        return True
    people, requests = [row.person for row in asked], [row.request for row in asked]
    try:
        items = [row.candidates.item for row in asked]
        enjoyed = enjoyment(parts.response, people, requests, items, stocked.item_arrays)
    except Exception as error:
        ladder.fault(NAME, error)
        ladder.lower(asked, "full", f"the model of answers failed: {first_line(error)}")
        return True
    for row, p in zip(asked, enjoyed, strict=True):
        row.probabilities[ENJOY] = p
    return True
