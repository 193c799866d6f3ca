"""Figures of parts: of some people, or of some of the items that people went on to choose.

A slice of people keeps their lists and targets. A slice of items keeps the lists as they are and only those targets
that lie in it: it asks how well the lists serve people when they want such an item, over the people who wanted one.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow.compute as pc

from playbill.errors import MeasureError
from playbill.measure.ranking import Targets

_MOST_VALUES = 10


def head(counts: np.ndarray, share: float) -> np.ndarray:
    """Return [N] bool: the fewest items that hold at least this share of all events; equal counts, lower row first.

    Args:
        counts: [N] >= 0, events of each item.
        share: 0 < share < 1.
    Raises:
        MeasureError: share out of range.
    """
    if not 0 < share < 1:
        raise MeasureError(f"the head's share of events must lie between 0 and 1, got {share}")
    order = np.argsort(-counts, kind="stable")
    running = np.cumsum(counts[order])
    chosen = np.zeros(len(counts), bool)
    if len(running) and running[-1] > 0:
        chosen[order[: int(np.searchsorted(running, share * running[-1])) + 1]] = True
    return chosen


def by_value(column: pl.Series, most: int = _MOST_VALUES) -> dict[str, np.ndarray]:
    """Return a mask for every value of a column, by label: quarters where it is a number with many values.

    Args:
        column: [N] of any plain type, a list column too (a row is in the slice of each of its values).
        most: values shown by name, the most frequent ones; the others together are `other`.
    Returns:
        [N] bool by `<column>=<value>`; rows without a value are `<column>=none`.
    """
    name, rows = column.name, len(column)
    masks: dict[str, np.ndarray] = {}
    if column.dtype.is_numeric() and column.n_unique() > most:
        values = column.cast(pl.Float64).to_numpy()
        edges = np.unique(np.nanquantile(values, [0, 0.25, 0.5, 0.75, 1]))
        for i, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
            last = i == len(edges) - 2
            inside = (values >= low) & ((values <= high) if last else (values < high))
            masks[f"{name} {low:.4g}..{high:.4g}"] = inside
        if np.isnan(values).any():
            masks[f"{name}=none"] = np.isnan(values)
        return masks
    long = long_form(column)
    counted = long.drop_nulls().group_by("value").len().sort(["len", "value"], descending=[True, False])
    shown = counted["value"][:most].to_list()
    for value in sorted(shown):
        masks[f"{name}={value}"] = _rows(long.filter(pl.col("value") == value), rows)
    masks[f"{name}=other"] = _rows(long.filter(pl.col("value").is_not_null() & ~pl.col("value").is_in(shown)), rows)
    masks[f"{name}=none"] = _rows(long.filter(pl.col("value").is_null()), rows)
    return {label: mask for label, mask in masks.items() if mask.any()}


def long_form(column: pl.Series) -> pl.DataFrame:
    """Return a column as rows (row, value as text): one row a value of a list, one without value for an empty list."""
    if not isinstance(column.dtype, pl.List):
        return pl.DataFrame({"row": np.arange(len(column)), "value": column.cast(pl.String)})
    arrow = column.to_arrow()
    row = pc.list_parent_indices(arrow).to_numpy()
    value = pl.Series("value", pl.from_arrow(pc.list_flatten(arrow))).cast(pl.String)
    empty = np.setdiff1d(np.arange(len(column)), row)
    nothing = pl.Series("value", [None] * len(empty), pl.String)
    return pl.DataFrame({"row": np.concatenate([row, empty]), "value": pl.concat([value, nothing])})


def of_items(targets: Targets, items: np.ndarray) -> tuple[np.ndarray, Targets]:
    """Return who has a target among some items, and those targets alone.

    Args:
        targets: of U users, item_index 1..N.
        items: [N] bool, row i - 1 is item i.
    Returns:
        [V] int64 rows of users; their targets, in that order.
    """
    user = np.repeat(np.arange(len(targets)), targets.counts())
    kept = items[targets.item - 1]
    counts = np.bincount(user[kept], minlength=len(targets))
    users = np.flatnonzero(counts)
    indptr = np.concatenate([[0], np.cumsum(counts[users])]).astype(np.int64)
    return users, Targets(indptr, targets.item[kept])


def _rows(long: pl.DataFrame, rows: int) -> np.ndarray:
    mask = np.zeros(rows, bool)
    mask[long["row"].to_numpy()] = True
    return mask
