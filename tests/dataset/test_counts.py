"""What a dataset says of rows that it cannot use: nothing is left out, or taken for the unknown item, in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from playbill.dataset.counts import in_words
from playbill.dataset.dataset import examples, item_counts, open_dataset
from playbill.dataset.ends import learning_ends
from playbill.dataset.settings import SplitKind, SplitSettings
from playbill.features.settings import FeatureSettings

LAST = SplitSettings(kind=SplitKind.leave_last_out)


def _event(event_id: int, user_id: Any, item_id: Any, at: int, **more: Any) -> dict[str, Any]:
    return {"event_id": event_id, "user_id": user_id, "item_id": item_id, "event": "view", "at": at} | more


@pytest.fixture
def shop(make_tables: Callable[..., Path]) -> Path:
    events = [
        _event(1, 1, 10, 1),
        _event(2, 1, 11, 2),
        _event(3, 1, 99, 3),  # an item that the items table does not know
        _event(4, 1, 11, 4),
        _event(4, 1, 11, 4),  # delivered twice
        _event(5, 1, None, 5),  # nothing was touched
        _event(6, 1, 10, 6, event="visit"),  # no event of a history
        _event(7, 2, 12, 7),  # one event only
        _event(8, 3, 10, 8),  # no consent
        _event(9, None, 10, 9),  # nobody
    ]
    users = [{"user_id": u, "consent_training": u != 3} for u in (1, 2, 3, 4)]
    return make_tables(users=users, items=[{"item_id": i} for i in (10, 11, 12, 13)], events=events)


@pytest.mark.parametrize("stream_above", [0, 1000], ids=["files", "memory"])
def test_every_row_is_accounted_for(shop: Path, stream_above: int) -> None:
    dataset = open_dataset(shop, FeatureSettings(), LAST, stream_above)
    counts = dataset.counts
    assert counts.rows == 10
    assert (counts.rows_of_nobody, counts.rows_of_no_history, counts.rows_delivered_twice, counts.events) == (
        2,
        2,
        1,
        5,
    )
    assert counts.events_of_unknown_items == 1
    assert (counts.people, counts.people_without_events, counts.people_with_one_event) == (3, 1, 1)
    # the unknown item would be the validation answer of person 1: it stands in the history, and is no answer
    assert (counts.train, counts.valid, counts.test) == (3, 0, 1)
    assert len(examples(dataset, "valid")) == 0 and item_counts(dataset).tolist() == [0, 1, 1, 1, 0]
    assert (counts.items, counts.items_never_seen) == (4, 1)
    said = in_words(counts)
    assert said.startswith("5 events of 2 people; 2 rows of nobody who may be learned from left out; 1 delivered twice")
    assert "1 events name an item that the items table does not know" in said
    assert "1 people have one event only" in said and "1 of 4 items have no event in training time" in said


def test_training_ends_where_the_split_says(ml100k_tables: Path) -> None:
    for split in (SplitSettings(), LAST):
        dataset = open_dataset(ml100k_tables, FeatureSettings(), split)
        ends, offsets = learning_ends(dataset), dataset.pool.offsets
        for person in np.random.default_rng(1).integers(0, len(dataset.people), 40):
            mine = dataset.split.part[offsets[person] : offsets[person + 1]]
            assert ends[person] - offsets[person] == (mine == 0).sum()
            assert (mine[: (mine == 0).sum()] == 0).all()
