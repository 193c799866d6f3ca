from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.dataset.dataset import open_dataset
from playbill.dataset.settings import SplitKind, SplitSettings
from playbill.features.settings import FeatureSettings
from playbill.release.protocol import ask, best_unseen, log_before

DAY_US = 86_400_000_000


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_lists_equal_a_full_sort(data: st.DataObject) -> None:
    num_items = data.draw(st.integers(1, 25))
    users = data.draw(st.integers(1, 5))
    k = data.draw(st.integers(1, 30))
    few = st.sampled_from([0.0, 1.0, 2.0, -np.inf])  # ties, and items that cannot be shown
    scores = np.asarray([[data.draw(few) for _ in range(num_items + 1)] for _ in range(users)])
    seen = [data.draw(st.lists(st.integers(1, num_items), max_size=8)) for _ in range(users)]
    indptr = np.concatenate([[0], np.cumsum([len(s) for s in seen])])
    item = np.asarray([i for s in seen for i in s], np.int64)
    before = scores.copy()
    found = best_unseen(scores, indptr, item, k)
    np.testing.assert_array_equal(scores, before)  # the caller's scores stay as they are
    for row in range(users):
        free = [i for i in range(1, num_items + 1) if i not in seen[row] and np.isfinite(scores[row, i])]
        expected = sorted(free, key=lambda i: (-scores[row, i], i))[:k]
        assert found[row].tolist() == expected + [-1] * (k - len(expected))


def test_what_was_had_before_is_no_target(make_tables: Callable[..., Path]) -> None:
    """Ten days, one event a day each; the last is test time: somebody repeats, somebody is new, somebody goes on."""
    events = [(0, day, day % 3) for day in range(9)] + [(0, 9, 1)]  # has had item 1
    events += [(1, day, day % 2) for day in range(9)] + [(1, 9, 7), (1, 9, 0)]  # 7 is new, 0 was had
    events += [(2, 9, 5)]  # nobody saw them before
    rows = [
        {"event_id": n, "user_id": user, "event": "view", "at": day * DAY_US, "item_id": f"i{item}"}
        for n, (user, day, item) in enumerate(events)
    ]
    tables = make_tables(events=rows, items=[{"item_id": f"i{i}"} for i in range(8)])
    dataset = open_dataset(tables, FeatureSettings(), SplitSettings(train=0.7, valid=0.12))
    asked = ask(dataset, "test")
    ids = [dataset.user_ids[p] for p in asked.person]
    assert ids == [1, 2]
    assert (asked.nothing_new, asked.repeats) == (1, 2)
    assert asked.known.tolist() == [True, False]
    names = dataset.items["item_id"].to_list()
    assert [names[i - 1] for i in asked.targets.item] == ["i7", "i5"]
    assert asked.histories(0, 2)[0].tolist() == [0, 9, 9]
    assert (asked.now == dataset.split.valid_until_us).all()
    log = log_before(dataset, "test")
    assert len(log.item) == 18 and log.at.max() < log.now_us <= dataset.split.valid_until_us


@pytest.mark.parametrize("kind", list(SplitKind))
def test_movielens_asks_whom_it_should(ml100k_tables: Path, kind: SplitKind) -> None:
    dataset = open_dataset(ml100k_tables, FeatureSettings(), SplitSettings(kind=kind))
    asked = ask(dataset, "test")
    counts = (len(asked), int(asked.known.sum()), asked.repeats)
    assert counts == ((166, 90, 0) if kind is SplitKind.global_time else (943, 943, 0))
    for row in range(0, len(asked), 37):
        indptr, item = asked.histories(row, row + 1)
        assert not set(item.tolist()) & set(asked.targets.take(np.array([row])).item.tolist())
