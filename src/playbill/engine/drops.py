"""How the score of a retriever falls when one item is taken out of the history, for every item of it at once.

Source of the step from one system of equations to that of a history without an item: J. Sherman, W. Morrison (1950),
Adjustment of an inverse matrix.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from playbill.baselines.ials import FoldingIals
from playbill.baselines.neighbours import Evidence
from playbill.engine.retrieve import Candidates

_FIRST = 8  # candidates with the best scores, of which one is the best when the best falls


def drops(evidence: Evidence, decay: float, items: np.ndarray, num_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how a neighbour score falls when one item is taken out of the history.

    Args:
        evidence: of the whole history, newest first.
        decay: of the table.
        items: [C] int64 item_index.
        num_items: N.
    Returns:
        drop: [H, C] float64, score with the whole history less score without that item; score: [C] float64.
    """
    once, where = np.unique(items, return_inverse=True)
    place = np.full(num_items + 1, -1, np.int32)
    place[once] = np.arange(len(once))
    column = place[evidence.item]
    hits = np.flatnonzero(column >= 0)
    row = np.searchsorted(np.cumsum(evidence.lengths), hits, side="right")
    weight = np.zeros((len(evidence.lengths), len(once)))
    weight[row, column[hits]] = evidence.weight[hits]
    # older items move up one place when a newer one goes
    power = (1.0 + np.arange(len(weight))) ** -decay
    moved = np.concatenate([[0.0], power[:-1]])[:, None] * weight
    now = power[:, None] * weight
    older = moved[::-1].cumsum(0)[::-1]
    without = now.cumsum(0) - now + older - moved
    score = now.sum(0)
    return (score - without)[:, where], score[where]


def ials_drops(model: FoldingIals, history: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how the score of iALS falls when one item is taken out of the history.

    Exact but for the ridge, which with one item less is smaller by `l2 * alpha` where nu is 1.

    Args:
        history: [H] int64 item_index, newest first; those beyond the model's length count for nothing.
        items: [C] int64 item_index.
    Returns:
        drop: [H', C] float64 for the newest H' items; score: [C] float64.
    """
    left, mine = model.system(history[: model.length])
    right = np.concatenate([model.alpha * mine.sum(0)[:, None], mine.T], axis=1)
    solved = np.linalg.solve(left, right)
    person, each = solved[:, 0], solved[:, 1:].T
    own = (mine * each).sum(1)
    pull = model.alpha * (mine @ person - model.alpha * own) / (1 - model.alpha * own)
    moved = (model.alpha - pull)[:, None] * each  # person less the person without the item
    factors = np.zeros((len(items), len(left)))
    known = items < len(model.item_factors)  # items that came later are of no factors
    factors[known] = model.item_factors[items[known]]
    return moved @ factors.T, factors @ person


def of_shares(
    candidates: Candidates,
    name: str,
    chosen: np.ndarray,
    without: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> np.ndarray:
    """Return [H, n] float64, how the share of the best item's score falls, which the best one's own fall may raise.

    Args:
        name: of the retriever.
        chosen: [n] places among the candidates.
        without: gives `drops` of some items.
    """
    shares, n = candidates.scores[name], len(chosen)
    first = np.argpartition(-shares, min(_FIRST, len(shares) - 1))[:_FIRST]
    items = np.concatenate([candidates.item[chosen], candidates.item[first], [candidates.best[name]]])
    drop, score = without(items)
    left = score - drop
    most = np.maximum(left[:, n:].max(1, keepdims=True), 1e-12)
    found: np.ndarray = score[:n] / max(float(score[n:].max()), 1e-12) - left[:, :n] / most
    return found
