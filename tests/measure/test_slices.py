from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from playbill.errors import MeasureError
from playbill.measure.ranking import targets_from_pairs
from playbill.measure.slices import by_value, head, of_items


def test_the_head_is_the_fewest_items_that_hold_the_share() -> None:
    counts = np.array([1, 5, 0, 3, 1])
    assert np.flatnonzero(head(counts, 0.5)).tolist() == [1]
    assert np.flatnonzero(head(counts, 0.51)).tolist() == [1, 3]
    assert np.flatnonzero(head(counts, 0.85)).tolist() == [0, 1, 3]  # of equal items, the first
    assert not head(np.zeros(3), 0.5).any()
    with pytest.raises(MeasureError, match="between 0 and 1, got 1"):
        head(counts, 1.0)


def test_values_by_name_and_the_rest_together() -> None:
    column = pl.Series("city", ["a", "b", None, "a", "c"])
    assert {k: np.flatnonzero(v).tolist() for k, v in by_value(column, most=2).items()} == {
        "city=a": [0, 3],
        "city=b": [1],
        "city=other": [4],
        "city=none": [2],
    }


def test_a_row_is_in_the_slice_of_each_of_its_categories() -> None:
    column = pl.Series("categories", [["x", "y"], [], ["y"], None])
    assert {k: np.flatnonzero(v).tolist() for k, v in by_value(column).items()} == {
        "categories=x": [0],
        "categories=y": [0, 2],
        "categories=none": [1, 3],
    }


def test_numbers_with_many_values_are_cut_in_quarters() -> None:
    column = pl.Series("age", [float(v) for v in range(40)] + [None])
    masks = by_value(column)
    assert [int(m.sum()) for m in masks.values()] == [10, 10, 10, 10, 1]
    assert np.sum(list(masks.values()), axis=0).tolist() == [1] * 41
    assert list(by_value(pl.Series("kids", [0, 1, 1]))) == ["kids=0", "kids=1"]


def test_targets_among_some_items_only() -> None:
    targets = targets_from_pairs(np.array([0, 0, 1, 2]), np.array([1, 2, 3, 2]), 3)
    users, kept = of_items(targets, np.array([False, True, False]))
    assert users.tolist() == [0, 2]
    assert kept.indptr.tolist() == [0, 1, 2] and kept.item.tolist() == [2, 2]
    assert len(of_items(targets, np.zeros(3, bool))[0]) == 0
