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
    order = _without(history == items[:, None])
    times = len(items)
    found = {n: array[row : row + 1].repeat(times, 0) for n, array in arrays.items() if not n.startswith("history_")}
    found["history_item"] = _moved(history, order, PAD)
    for name in ("history_event", "history_value"):
        found[name] = _moved(arrays[name][row], order, 0)
    days = _moved(np.expm1(arrays["history_age"][row].astype(np.float64)), order, 0)
    # age counts from the newest event, which may be the one that is gone
    found["history_age"] = np.log1p(np.maximum(days - days[:, :1], 0)).astype(np.float32)
    return found


def _moved(values: np.ndarray, order: np.ndarray, empty: int) -> np.ndarray:
    """Return values [L] in another order [T, L], in which place L is an empty one."""
    whole = np.empty(len(values) + 1, values.dtype)
    whole[:-1], whole[-1] = values, empty
    moved: np.ndarray = whole[order]
    return moved


def _without(gone: np.ndarray) -> np.ndarray:
    """Return [T, L] places in their order without those that are gone; L, which is none, at the end instead."""
    times, length = gone.shape
    places = np.arange(length)
    if np.count_nonzero(gone) == times and gone.any(1).all():  # nearly always, and a sort takes longer than all else
        moved: np.ndarray = places + (places >= gone.argmax(1)[:, None])
        return moved
    order: np.ndarray = np.argsort(gone, axis=1, kind="stable")
    order[places >= length - gone.sum(1)[:, None]] = length
    return order
