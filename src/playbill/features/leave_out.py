"""Encoded histories without one of their items: what the encoder would have given, had it never been chosen."""

from __future__ import annotations

import numpy as np

from playbill.features.encoder import Arrays
from playbill.features.spec import PAD


def leave_out(arrays: Arrays, row: int, items: np.ndarray) -> Arrays:
    """Return the arrays of T queries: those of one query, each without one item, all of its events.

    What is older moves up; what had left the encoded history for its length does not come back. Other arrays stay.

    Args:
        arrays: of B queries, see `features.encoder`.
        row: the query.
        items: [T] int64 item_index, each once.
    """
    history = arrays["history_item"][row]
    gone = history == items[:, None]
    order = _without(gone)
    there = np.arange(len(history)) < (np.count_nonzero(history != PAD) - gone.sum(1))[:, None]
    times = len(items)
    found = {n: array[row : row + 1].repeat(times, 0) for n, array in arrays.items() if not n.startswith("history_")}
    found["history_item"] = np.where(there, history[order], PAD)
    for name in ("history_event", "history_value"):
        found[name] = np.where(there, arrays[name][row][order], arrays[name].dtype.type(0))
    days = np.expm1(arrays["history_age"][row].astype(np.float64))[order]
    # age counts from the newest event, which may be the one that is gone
    age = np.log1p(np.maximum(days - days[:, :1], 0))
    found["history_age"] = np.where(there, age, 0).astype(np.float32)
    return found


def _without(gone: np.ndarray) -> np.ndarray:
    """Return [T, L] places in their order, those that are gone behind the others."""
    times, length = gone.shape
    if (gone.sum(1) == 1).all():  # nearly always, and a sort takes longer than all else here
        places = np.arange(length)
        later = places >= gone.argmax(1)[:, None]
        moved: np.ndarray = np.minimum(places + later, length - 1)
        return moved
    order: np.ndarray = np.argsort(gone, axis=1, kind="stable")
    return order
