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
    order = np.argsort(gone, axis=1, kind="stable")
    there = np.arange(len(history)) < (np.count_nonzero(history != PAD) - gone.sum(1))[:, None]
    found = {name: np.broadcast_to(array[row], (len(items), *array.shape[1:])) for name, array in arrays.items()}
    found["history_item"] = np.where(there, history[order], PAD)
    for name in ("history_event", "history_value"):
        found[name] = np.where(there, arrays[name][row][order], arrays[name].dtype.type(0))
    days = np.expm1(arrays["history_age"][row].astype(np.float64))[order]
    # age counts from the newest event, which may be the one that is gone
    age = np.log1p(np.maximum(days - days[:, :1], 0))
    found["history_age"] = np.where(there, age, 0).astype(np.float32)
    return {name: np.ascontiguousarray(array) for name, array in found.items()}
