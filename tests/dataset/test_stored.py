"""Logs folded through files: bit for bit what the fold in memory gives, kept, and reopened."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from playbill.cli import compose
from playbill.dataset import arrays, log, stored
from playbill.dataset.arrays import ArrayWriter, map_array, read_blocks
from playbill.dataset.dataset import Dataset, examples, item_counts, open_dataset, pools_of, query_arrays
from playbill.dataset.order import epoch_order
from playbill.dataset.settings import SplitKind, SplitSettings
from playbill.dataset.splits import smallest
from playbill.errors import FeatureError, TableError
from playbill.features.facts import Moments
from playbill.features.settings import FeatureSettings
from playbill.tables.folder import read_folder as read_manifest
from playbill.tables.folder import read_table, write_folder
from playbill.tables.schema import EventKind
from playbill.world.generate import run as generate

MakeTables = Callable[..., Path]
LAST = SplitSettings(kind=SplitKind.leave_last_out)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches and parts so small that little data makes many of them."""
    monkeypatch.setattr(arrays, "BLOCK", 997)
    monkeypatch.setattr(log, "_SMALLEST_PART", 1500)


def same(one: Dataset, other: Dataset) -> None:
    """Assert that two datasets are equal, array for array and type for type."""
    assert one.fingerprint == other.fingerprint and one.spec == other.spec and one.counts == other.counts
    pairs = {f"pool.{f.name}": (getattr(one.pool, f.name), getattr(other.pool, f.name)) for f in fields(one.pool)}
    pairs["part"] = (one.split.part, other.split.part)
    pairs["users_row"] = (one.people.users_row, other.people.users_row)
    for kind in ("user_arrays", "context_arrays", "item_arrays"):
        mine, theirs = getattr(one, kind), getattr(other, kind)
        assert mine.keys() == theirs.keys()
        pairs |= {name: (mine[name], theirs[name]) for name in mine}
    for name, (mine, theirs) in pairs.items():
        assert mine.dtype == theirs.dtype, name
        np.testing.assert_array_equal(mine, theirs, err_msg=name)
    assert one.people.user_ids == other.people.user_ids and one.people.session_ids == other.people.session_ids
    assert one.user_columns == other.user_columns
    assert (one.split.kind, one.split.train_until_us) == (other.split.kind, other.split.train_until_us)
    assert one.split.valid_until_us == other.split.valid_until_us
    assert {n: v.values for n, v in one.vocabularies.items()} == {n: v.values for n, v in other.vocabularies.items()}
    assert one.items.equals(other.items)


def both(tables: Path, features: FeatureSettings, split: SplitSettings) -> tuple[Dataset, Dataset]:
    return open_dataset(tables, features, split), open_dataset(tables, features, split, stream_above_events=0)


@pytest.mark.parametrize("split", [SplitSettings(), LAST], ids=["global", "last"])
def test_movielens_is_the_same_through_files(
    ml100k_tables: Path, tmp_path: Path, small_pieces: None, split: SplitSettings
) -> None:
    tables = tmp_path / "tables" / "ml-100k"
    shutil.copytree(ml100k_tables, tables)
    in_memory, streamed = both(tables, FeatureSettings(lift_protected=True), split)
    same(in_memory, streamed)
    np.testing.assert_array_equal(item_counts(in_memory), item_counts(streamed))
    rows, others = examples(in_memory, "valid"), examples(streamed, "valid")
    asked = (rows.person, rows.start, rows.end, rows.now, rows.target_row)
    again = (others.person, others.start, others.end, others.now, others.target_row)
    for name, array in query_arrays(in_memory, *asked).items():
        np.testing.assert_array_equal(array, query_arrays(streamed, *again)[name], err_msg=name)
    kept = pools_of(tables) / in_memory.fingerprint
    assert kept.is_relative_to(tmp_path / "cache" / "pools") and not (kept / "work").exists()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated service of 300 people, anonymous ones and such without consent among them."""
    home = tmp_path_factory.mktemp("world")
    small = ["size.people=300", "size.items=120", "size.days=20", "name=tiny", f"home={home}"]
    generate(compose("generate", small))
    return home / "tables" / "tiny"


@pytest.mark.parametrize("split", [SplitSettings(), LAST], ids=["global", "last"])
def test_a_generated_world_is_the_same_through_files(world: Path, small_pieces: None, split: SplitSettings) -> None:
    # with its consent column, sessions of strangers, visits without items, and a device beside every event
    in_memory, streamed = both(world, FeatureSettings(context=["hour", "device"]), split)
    same(in_memory, streamed)
    assert 0 < in_memory.counts.rows_of_nobody < in_memory.counts.rows
    assert in_memory.counts.rows_of_no_history > 0 and len(set(in_memory.context_arrays["context_device"])) > 2


@pytest.mark.parametrize("text_ids", [False, True], ids=["int", "text"])
@pytest.mark.parametrize("order", [None, "place"])
def test_awkward_logs_are_the_same_through_files(
    make_tables: MakeTables, small_pieces: None, text_ids: bool, order: str | None
) -> None:
    """Duplicates, ties, strangers, sessions, unknown items, values without a range, every kind of context."""
    draw = np.random.default_rng(5)

    def name(kind: str, number: int) -> Any:
        return f"{kind}{number}" if text_ids else number

    events: list[dict[str, Any]] = []
    for i in range(3000):
        known, session = draw.random() < 0.7, draw.random() < 0.9
        events.append(
            {
                "event_id": name("e", int(draw.integers(0, 2000))),
                "user_id": name("u", int(draw.integers(0, 60))) if known else None,
                "session_id": f"s{draw.integers(0, 50)}" if session or not known and i % 9 else None,
                "item_id": name("i", int(draw.integers(0, 90))) if draw.random() < 0.95 else None,
                "event": str(draw.choice(["rate", "view", "heard", "other"])),
                "at": int(draw.integers(0, 500)),
                "value": float(draw.normal()) if draw.random() < 0.8 else None,
                "place": float(draw.integers(0, 99)) if draw.random() < 0.9 else None,
                "device": str(draw.choice(["a", "b", "c"])) if draw.random() < 0.9 else None,
                "tags": [str(t) for t in draw.choice(["x", "y", "z"], draw.integers(0, 3))],
                "score": float(draw.normal()),
            }
        )
    tables = make_tables(
        users=[{"user_id": name("u", u), "city": f"c{u % 4}"} for u in range(40)],
        items=[{"item_id": name("i", i), "categories": [f"k{i % 5}"]} for i in range(70)],
        events=events,
        declared=[EventKind(name="rate", low=1, high=5), EventKind(name="view"), EventKind(name="heard")],
    )
    features = FeatureSettings(context=["weekday", "device", "tags", "score"])
    for split in (
        [SplitSettings(), LAST] if order is None else [SplitSettings(kind=SplitKind.leave_last_out, order_column=order)]
    ):
        in_memory, streamed = both(tables, features, split)
        same(in_memory, streamed)
        counts = in_memory.counts
        assert counts.rows_delivered_twice and counts.events_of_unknown_items and counts.rows_of_nobody
        assert counts.events + counts.rows_delivered_twice + counts.rows_of_no_history + counts.rows_of_nobody == 3000
        assert streamed.context_arrays["context_tags"].shape == (counts.events, 2)


def test_files_of_many_row_groups_are_read_in_step(ml100k_tables: Path, tmp_path: Path, small_pieces: None) -> None:
    manifest = read_manifest(ml100k_tables)
    tables = {n: read_table(ml100k_tables, n) for n in ("users", "items", "events")}
    tables["events"] = tables["events"].slice(0, 5000)
    path = tmp_path / "tables" / "pieces"
    write_folder(path, tables, source="pieces", columns=manifest.columns, events=manifest.events)
    pq.write_table(tables["events"], path / "events.parquet", row_group_size=777)
    same(*both(path, FeatureSettings(), SplitSettings()))


def test_a_fold_is_kept_and_reopened(ml100k_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = tmp_path / "tables" / "ml-100k"
    shutil.copytree(ml100k_tables, tables)
    first = open_dataset(tables, FeatureSettings(), LAST, stream_above_events=0)
    monkeypatch.setattr(stored, "_write", lambda *_: pytest.fail("written again"))
    same(first, open_dataset(tables, FeatureSettings(), LAST, stream_above_events=0))
    monkeypatch.undo()
    # of a newer Playbill, or cut short: made anew
    record = pools_of(tables) / first.fingerprint / "pool.json"
    record.write_text(record.read_text().replace('"format": 1', '"format": 99'))
    same(first, open_dataset(tables, FeatureSettings(), LAST, stream_above_events=0))
    assert '"format": 1' in record.read_text()


def test_a_fold_that_fails_leaves_nothing(make_tables: MakeTables, monkeypatch: pytest.MonkeyPatch) -> None:
    event = {"event_id": 1, "user_id": 1, "item_id": 1, "event": "rate", "at": 1, "device": "tv"}
    tables = make_tables(items=[{"item_id": 1}], events=[event])
    with pytest.raises(FeatureError, match="no column 'colour' in table events"):
        open_dataset(tables, FeatureSettings(context=["colour"]), LAST, stream_above_events=0)
    file = tables / "events.parquet"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(TableError, match=r"events.parquet cannot be read .*playbill prepare"):
        open_dataset(tables, FeatureSettings(), LAST, stream_above_events=0)
    assert [p for p in pools_of(tables).iterdir() if not p.name.endswith(".lock")] == []


def test_a_log_without_usable_events_is_an_empty_dataset(make_tables: MakeTables) -> None:
    users = [{"user_id": 1, "consent_training": False}]
    event = {"event_id": 1, "user_id": 1, "item_id": 1, "event": "rate", "at": 1, "device": "tv"}
    tables = make_tables(users=users, items=[{"item_id": 1}], events=[event])
    for split in (SplitSettings(), LAST):
        same(*both(tables, FeatureSettings(context=["device"]), split))


def test_ranks_are_those_of_a_sort() -> None:
    draw = np.random.default_rng(1)
    for values in (
        draw.integers(-(2**62), 2**62, 5000),
        np.repeat(draw.integers(0, 30, 50), 20),
        np.asarray([7]),
        np.asarray([2**60, -(2**60)]),
    ):
        ordered = np.sort(values)
        for rank in {0, len(values) // 3, len(values) - 1}:
            assert smallest(values, rank) == ordered[rank]


def test_moments_hang_on_no_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa

    from playbill.features import facts

    draw = np.random.default_rng(2)
    values = draw.normal(1e6, 1, 10_000)
    values[::50] = np.nan

    def moments(cuts: list[int]) -> tuple[float, float]:
        gathered = Moments()
        for piece in np.split(values, cuts):
            gathered.add(pa.array(piece))
        return gathered.result()

    finite = values[np.isfinite(values)]
    assert moments([]) == moments([1, 77, 5000]) == (finite.mean(), finite.std())
    monkeypatch.setattr(facts, "_BLOCK", 256)
    assert moments([]) == moments([3, 4000]) == moments(list(range(0, 10_000, 7)))
    assert moments([]) == pytest.approx((finite.mean(), finite.std()), rel=1e-12)
    assert Moments().result() == (0.0, 1.0)


def test_arrays_grow_on_disk(tmp_path: Path, small_pieces: None) -> None:
    with ArrayWriter(tmp_path / "a.npy", np.int8, width=3) as writer:
        for i in range(5):
            writer.append(np.full((700, 3), i))
    whole = np.load(tmp_path / "a.npy")
    assert whole.shape == (3500, 3) and whole.dtype == np.int8 and whole[:, 0].tolist() == sorted(whole[:, 0])
    np.testing.assert_array_equal(np.concatenate(list(read_blocks(map_array(tmp_path / "a.npy")))), whole)
    with ArrayWriter(tmp_path / "empty.npy", np.int64):
        pass
    assert np.load(tmp_path / "empty.npy").shape == (0,)
    assert len(map_array(tmp_path / "empty.npy")) == 0


def test_an_epoch_is_random_at_large_and_sequential_in_small() -> None:
    lengths = np.random.default_rng(3).integers(0, 40, 2000)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    there = np.flatnonzero(lengths)
    orders = [epoch_order(offsets, seed=1, epoch=e, block=500, mixed=m) for e, m in ((0, 1), (0, 4), (1, 4), (0, 4))]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), there)
    assert (orders[1] == orders[3]).all() and (orders[1] != orders[2]).any()
    # one block: the next person is the next one with events, but for the ends of blocks
    place = np.searchsorted(there, orders[0])
    assert np.mean(np.diff(place) == 1) > 0.9 and abs(np.corrcoef(place, np.arange(len(place)))[0, 1]) < 0.5
    # mixed: whoever reads 4 blocks' worth of people at a time touches few blocks
    window = len(there) // (len(np.unique(offsets[there] // 500)) // 4)
    touched = [len(np.unique(offsets[orders[1][i : i + window]] // 500)) for i in range(0, len(there), window)]
    assert max(touched) <= 9 and len(np.unique(offsets[there] // 500)) > 60
    # a small pool is shuffled whole
    tiny = epoch_order(offsets[:50], seed=1, epoch=0)
    assert sorted(tiny.tolist()) == np.flatnonzero(lengths[:49]).tolist() != tiny.tolist()
