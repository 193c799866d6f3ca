"""Fewer rows than items: who has one of their own, who shares, and that the map follows from the spec."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from playbill.errors import ConfigError
from playbill.features.build import build_features
from playbill.features.item_table import item_rows, make_item_table
from playbill.features.settings import FeatureSettings
from playbill.features.spec import read_spec, write_spec

COUNTS = np.asarray([99, 5, 0, 3, 3, 7, 1])  # of the unknown item, then of items 1..6


def rows(**settings: int) -> list[list[int]] | None:
    table = make_item_table(COUNTS, FeatureSettings(**settings))
    return None if table is None else item_rows(table, 6).tolist()


def test_frequent_items_have_a_row_of_their_own() -> None:
    assert rows() is None and rows(max_item_rows=6) is None
    assert rows(min_item_events=3) == [[0], [1], [0], [2], [3], [4], [0]]
    # of items 3 and 4 with three events each the first has it
    assert rows(max_item_rows=3) == [[0], [1], [0], [2], [0], [3], [0]]
    assert rows(max_item_rows=1, min_item_events=4) == [[0], [0], [0], [0], [0], [1], [0]]
    # an item without any event is the last to get a row, and gets none while min_item_events asks for one
    assert rows(min_item_events=1) == [[0], [1], [0], [2], [3], [4], [5]]


def test_the_others_share_rows_evenly() -> None:
    num_items, buckets = 200_000, 1000
    counts = np.zeros(num_items + 1, np.int64)
    counts[1::4] = 10
    settings = FeatureSettings(min_item_events=10, item_buckets=buckets, item_hashes=2)
    table = make_item_table(counts, settings)
    assert table is not None and table.num_rows == 1 + 50_000 + buckets
    found = item_rows(table, num_items)
    own = counts >= 10
    assert (found[0] == 0).all() and (found[own][:, 0] == found[own][:, 1]).all()
    assert found[own][:, 0].tolist() == list(range(1, 50_001))
    shared = found[1:][~own[1:]] - 50_001
    assert shared.min() == 0 and shared.max() == buckets - 1
    for column in shared.T:
        load = np.bincount(column, minlength=buckets)
        # 150 items a bucket, as even as by chance: within six deviations of the binomial
        assert np.abs(load - 150).max() < 6 * 150**0.5
    # the two functions are no copies of each other: pairs meet in both about once in a million
    pairs = shared[:, 0] * buckets + shared[:, 1]
    assert len(np.unique(pairs)) > 0.9 * len(pairs)
    assert abs(np.corrcoef(shared.T)[0, 1]) < 0.02
    # the same in every process, and after the spec was written and read
    np.testing.assert_array_equal(
        item_rows(msgspec.json.decode(msgspec.json.encode(table), type=type(table)), num_items), found
    )


def test_the_map_stands_in_the_spec(make_tables: Callable[..., Path]) -> None:
    events: list[dict[str, Any]] = [
        {"event_id": i, "user_id": i % 3, "item_id": 1 + i % 4 % 3, "event": "view", "at": i} for i in range(20)
    ]
    tables = make_tables(items=[{"item_id": i} for i in range(1, 6)], events=events)
    plain, _ = build_features(tables, FeatureSettings())
    assert plain.item_rows() is None and plain.num_item_rows == 6 and b"item_table" not in write_spec(plain)
    spec, _ = build_features(tables, FeatureSettings(min_item_events=6, item_buckets=2))
    assert spec.num_item_rows == 1 + 1 + 2 and spec.hash() != plain.hash()
    again = read_spec(write_spec(spec))
    assert again == spec and again.hash() == spec.hash()
    found = spec.item_rows()
    assert found is not None and found[1].tolist() == [1] and set(found[2:, 0].tolist()) <= {2, 3}
    with pytest.raises(ValueError, match="the spec has 50"):
        item_rows(spec.item_table, 50)  # type: ignore[arg-type]  # set above


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_item_rows": -1}, "max_item_rows must be >= 0, got -1"),
        ({"item_hashes": 3}, "item_hashes must be 1 or 2, got 3"),
        ({"item_buckets": 10}, "item_buckets=10 has no effect while every item has a row of its own"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        FeatureSettings(**settings)  # type: ignore[arg-type]  # wrong on purpose
