"""Who serves: each chooser gives every visit a score for every item, and the best ones that may be shown are taken.

    bestsellers   clicks so far, the same for everyone
    segments      clicks so far within the visitor's declared segment, ties by all clicks: ten hand-made lists
    uniform       a draw
    trending      clicks, an older one counting less
    item_knn      order-aware transitions from what the person clicked; bestsellers for whom nothing is known
    ease, ials    the same, linear autoencoder and factorisation

The oracle is in `rounds.best_slate`, the engine in `serving.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from playbill.baselines.ease import fit_ease, score_ease
from playbill.baselines.ials import fit_ials, score_ials
from playbill.baselines.item_knn import fit_transitions
from playbill.baselines.neighbours import score_histories
from playbill.baselines.popularity import trending
from playbill.rehearsal.memory import Memory

# (indptr, item_index) of histories -> scores [n, I + 1]; the column 0 is the unknown item
Scorer = Callable[[np.ndarray, np.ndarray], np.ndarray]


def top(scores: np.ndarray, open_to: np.ndarray, k: int) -> np.ndarray:
    """Return [n, k] int64 item rows, best first, equal scores by lower row; -1 where fewer than k may be shown.

    Args:
        scores: [n, I] or [1, I] float, higher is better.
        open_to: [n, I] bool, what each visit may be shown.
        k: length of the slates.
    """
    masked = np.where(open_to, scores, -np.inf)
    k = min(k, masked.shape[1])
    order = np.argsort(-masked, axis=1, kind="stable")[:, :k]
    return np.where(np.take_along_axis(open_to, order, 1), order, -1)


def scores_of(name: str, memory: Memory, person: np.ndarray, fitted: Scorer | None, draw: np.ndarray) -> np.ndarray:
    """Return [n, I] or [1, I] scores of a chooser that knows only the log.

    Args:
        name: one of the choosers above.
        memory: of this policy's own log.
        person: [n] int64 rows of the visitors.
        fitted: what `fit` returned for it.
        draw: [n, I] uniform draws, for `uniform`.
    """
    if name == "uniform":
        return draw
    everyone = memory.clicks.astype(np.float64)
    if name == "bestsellers":
        return everyone[None, :]
    if name == "segments":
        # all clicks decide among items that a segment never clicked; they weigh less than one click of its own
        own = memory.by_segment[memory.segment[person]]
        mixed: np.ndarray = own + everyone / (everyone.max(initial=0) + 1)
        return mixed
    if fitted is None:
        raise AssertionError(f"{name} was not fitted")  # our own mistake, no user's
    indptr, item = memory.histories(person)
    found = fitted(indptr, item)[:, 1:].astype(np.float64)
    nothing = np.diff(indptr) == 0 if name != "trending" else np.zeros(len(person), bool)
    # where a history says nothing of an item, all clicks decide: below every item of which it says something
    floor = np.minimum(found.min(1, keepdims=True, initial=0), 0) - 1
    filled = np.where(found == 0, floor + everyone / (everyone.max(initial=0) + 1), found)
    return np.where(nothing[:, None], everyone, filled)


def fit(name: str, memory: Memory, num_items: int, now_us: int, seed: int) -> Scorer | None:
    """Return the scorer of a baseline, fitted on the log as it stands; None for those that need none."""
    person, item, _ = memory.log()
    if name == "trending":
        counted = trending(
            np.concatenate([np.zeros(0, np.int64), *memory.all_item]) + 1,
            np.concatenate([np.zeros(0, np.int64), *memory.all_at]),
            num_items,
            now_us,
            half_life_days=7.0,
        )
        return lambda indptr, items: np.broadcast_to(counted, (len(indptr) - 1, len(counted)))
    if name == "item_knn":
        neighbours = fit_transitions(person, item + 1, num_items)
        return lambda indptr, items: score_histories(neighbours, indptr, items)
    if name == "ease":
        ease = fit_ease(person, item + 1, num_items, l2=200.0)
        return lambda indptr, items: score_ease(ease, indptr, items)
    if name == "ials":
        ials = fit_ials(person, item + 1, num_items, factors=32, seed=seed)
        return lambda indptr, items: score_ials(ials, indptr, items)
    return None
