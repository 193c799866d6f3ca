"""Data that training cannot use, or can: empty sides of a split, people with one event, items that nobody touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from playbill.cli import main
from playbill.dataset.dataset import open_dataset
from playbill.features.settings import FeatureSettings
from playbill.training.retrieval.plain import load_plain
from playbill.training.runs import read_record, read_run

SMALL = (
    "tables=shop",
    "features.history_length=5",
    "model.dim=8",
    "model.field_dim=4",
    "model.hidden=8",
    "model.heads=2",
    "model.max_epochs=1",
    "threads=1",
)


@pytest.fixture
def shop(make_tables: Callable[..., Path]) -> Callable[..., list[str]]:
    """A function that writes tables from (user, item, time) and returns the arguments that train on them."""

    def make(events: list[tuple[int, int, int]], items: int = 12) -> list[str]:
        rows = [
            {"event_id": i, "user_id": u, "item_id": item, "event": "view", "at": at}
            for i, (u, item, at) in enumerate(events)
        ]
        catalogue: list[dict[str, Any]] = [{"item_id": i, "categories": [f"c{i % 3}"]} for i in range(items)]
        tables = make_tables(items=catalogue, events=rows, name="tables/shop")
        return ["train", f"home={tables.parents[1]}", *SMALL]

    return make


EVENTS = [(u, (u + 3 * k) % 10, 100 * k + u) for u in range(30) for k in range(6)]


def test_an_empty_side_of_the_split_says_what_to_change(
    shop: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    train = shop(EVENTS)
    assert main([*train, "split.train=1", "split.valid=0"]) == 1
    assert "nobody has events in validation time; raise split.valid or lower split.train" in _said(capsys)
    # everything at one moment falls on one side, whatever the shares
    train = shop([(u, item, 500) for u, item, _ in EVENTS])
    assert main(train) == 1
    assert "nobody has events in validation time" in _said(capsys)
    # all items of training time are unknown
    train = shop([(u, item if at >= 200 else 77, at) for u, item, at in EVENTS])
    assert main([*train, "split.train=0.3"]) == 1
    assert "no event to learn from in training time; raise split.train" in _said(capsys)


def test_single_events_unknown_items_and_unseen_ones_are_counted_and_trained_with(
    shop: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    lonely = [(100 + u, u % 10, 3 * u) for u in range(20)]
    strange = [(u, 500 + u, 250 + u) for u in range(30)]
    train = shop([*EVENTS, *lonely, *strange])
    assert main(train) == 0
    said = _said(capsys)
    assert "30 events name an item that the items table does not know" in said
    assert "20 people have one event only" in said and "2 of 12 items have no event in training time" in said
    home = Path(train[1].removeprefix("home="))
    record = read_record(home / "runs" / "shop-two_tower")
    assert record is not None and record.data is not None
    assert (record.data.events_of_unknown_items, record.data.people_with_one_event) == (30, 20)
    # items that nobody touched have vectors, of their content: unlike where the content differs
    run = read_run(home / "runs" / "shop-two_tower", "two_tower")
    dataset = open_dataset(home / "tables" / "shop", FeatureSettings(history_length=5), run.settings.split)
    arrays = {name: array[[11, 12]] for name, array in dataset.item_arrays.items()}
    index = {"item_index": np.asarray([11, 12])}
    with torch.no_grad():
        tower = load_plain([home / "runs" / "shop-two_tower"], dataset.item_arrays)[1]
        vectors = tower({n: torch.from_numpy(a) for n, a in (index | arrays).items()})
    assert torch.isfinite(vectors).all() and not torch.allclose(vectors[0], vectors[1])


def _said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())
