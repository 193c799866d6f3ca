"""One person, one moment, two roads: the arrays that training sees and those that serving sees are the same bytes.

Both sides start from the raw tables. Offline: fold_table and the dataset. Online: the store, filled in whatever order
and in whatever pieces, read back and encoded the way the engine does it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from playbill.dataset.dataset import Dataset, open_dataset, query_arrays
from playbill.dataset.settings import SplitSettings
from playbill.engine.profile import encode_people, people_of
from playbill.engine.types import Request
from playbill.features.encoder import point_in_time
from playbill.features.settings import FeatureSettings
from playbill.state.events import Event
from playbill.state.ingest import ingest
from playbill.state.settings import IngestSettings, StoreSettings
from playbill.state.store import Store

# a quarter of the time in, in the middle, and after everything
MOMENTS = [879_000_000_000_000, 886_000_000_000_000, 900_000_000_000_000]


@pytest.fixture(scope="module")
def dataset(ml100k_tables: Path) -> Dataset:
    # protected columns too: they exercise numbers and categories of people
    return open_dataset(ml100k_tables, FeatureSettings(lift_protected=True), SplitSettings())


def _offline(dataset: Dataset, people: np.ndarray, now: int) -> dict[str, np.ndarray]:
    moments = np.full(len(people), now)
    return query_arrays(dataset, people, *point_in_time(dataset.pool, people, moments), moments)


def _online(dataset: Dataset, store: Store, people: np.ndarray, now: int) -> dict[str, np.ndarray]:
    requests = [Request(user_id=dataset.user_ids[p], request_id="r", at=now) for p in people]
    with store.view() as view:
        known = people_of(requests, view, dataset.spec)
    return encode_people(known, requests, np.full(len(people), now), dataset.spec, dataset.vocabularies).arrays


def _same(offline: dict[str, np.ndarray], online: dict[str, np.ndarray]) -> None:
    assert offline.keys() == online.keys()
    for name, expected in offline.items():
        assert online[name].dtype == expected.dtype, name
        np.testing.assert_array_equal(online[name], expected, err_msg=name)


@pytest.mark.parametrize("now", MOMENTS)
def test_loaded_tables_give_the_arrays_of_training(
    dataset: Dataset, ml100k_tables: Path, tmp_path: Path, now: int
) -> None:
    people = np.arange(len(dataset.user_ids))
    with Store.open(tmp_path / "state") as store:
        ingest(ml100k_tables, store, IngestSettings(until=str(now), batch_rows=9_000), Console(stderr=True))
        online = _online(dataset, store, people, now)
    _same(_offline(dataset, people, now), online)
    assert (online["history_item"] >= 0).any() and (online["user_age"] != 0).any()


def test_events_sent_late_twice_and_out_of_order_give_the_arrays_of_training(
    dataset: Dataset, ml100k_tables: Path, tmp_path: Path
) -> None:
    users = pa.array([196, 405, 13, 655, 1])  # few events and many (405: 737)
    events = pq.read_table(ml100k_tables / "events.parquet")
    rows = events.filter(pa.compute.is_in(events["user_id"], value_set=users)).to_pylist()
    sent = [
        Event(
            event_id=r["event_id"],
            event=r["event"],
            user_id=str(r["user_id"]),  # as a web page would send it
            item_id=r["item_id"],
            at=int(r["at"].timestamp()) * 1_000_000,
            value=r["value"],
        )
        for r in rows
    ]
    dice = np.random.default_rng(5)
    order = dice.permutation(np.concatenate([np.arange(len(sent)), dice.integers(0, len(sent), 300)]))
    people = np.asarray([dataset.user_ids.index(u) for u in users.to_pylist()])
    with Store.open(tmp_path / "state", settings=StoreSettings(keep=60)) as store:
        ingest(ml100k_tables, store, IngestSettings(until="0"), Console(stderr=True))  # users only
        new = []
        for chunk in np.array_split(order, 97):
            new += store.append([sent[i] for i in chunk])
        assert sum(new) == len(sent)
        _same(_offline(dataset, people, MOMENTS[2]), _online(dataset, store, people, MOMENTS[2]))
