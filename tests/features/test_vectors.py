"""Vector columns as features of items, in the spec, in the arrays, and for items that came after training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from playbill.dataset.dataset import Dataset, open_dataset
from playbill.dataset.settings import SplitSettings
from playbill.errors import FeatureError
from playbill.features.build import read_features, write_features
from playbill.features.encoder import encode_fields, encode_items
from playbill.features.settings import FeatureSettings
from playbill.features.spec import Encoding, Field, Side
from playbill.tables.folder import write_folder
from playbill.tables.schema import Column, EventKind, Kind
from playbill.tables.vectors import fixed_size

NAN = float("nan")
PLOT = Field(name="plot", side=Side.ITEM, encoding=Encoding.VECTOR, width=2, std=0.5)
ALL = SplitSettings(train=1.0, valid=0.0)


def make(path: Path, plot: pa.Array, **more: Any) -> Path:
    """Tables of as many items as vectors; only the last item has no event."""
    n = len(plot)
    items = pa.table({"item_id": range(10, 10 + n), "plot": plot} | more)
    at = pa.array(range(n - 1), pa.timestamp("us", tz="UTC"))
    events = pa.table({"event_id": range(n - 1), "user_id": [1] * (n - 1), "event": ["view"] * (n - 1), "at": at})
    events = events.append_column("item_id", pa.array(range(10, 9 + n)))
    kinds = {"item_id": Kind.ID, "plot": Kind.VECTOR, "photo": Kind.VECTOR}
    columns = {
        "items": [Column(name=c, kind=kinds.get(c, Kind.TEXT)) for c in items.column_names],
        "events": [
            *(Column(name=c, kind=Kind.ID) for c in ("event_id", "user_id")),
            *(Column(name="event", kind=Kind.TEXT), Column(name="at", kind=Kind.TIME)),
            Column(name="item_id", kind=Kind.ID),
        ],
    }
    tables = {"items": items, "events": events}
    write_folder(path, tables, source="made", columns=columns, events=[EventKind(name="view")])
    return path


def opened(path: Path, **features: Any) -> Dataset:
    return open_dataset(path, FeatureSettings(context=[], **features), ALL)


def test_a_vector_column_is_a_feature_scaled_by_what_may_teach(tmp_path: Path) -> None:
    # the last item has no event: its numbers do not enter the scale
    rows = np.asarray([[3, 0], [0, 4], [0, 0], [9, 9]], np.float32)
    dataset = opened(make(tmp_path / "t", fixed_size(rows, np.asarray([True, True, False, True]))))
    (field,) = dataset.spec.fields
    assert (field.array, field.encoding, field.width) == ("item_plot", Encoding.VECTOR, 2)
    assert field.std == pytest.approx((25 / 4) ** 0.5)
    array = dataset.item_arrays["item_plot"]
    assert array.dtype == np.float32 and array.shape == (5, 2)
    np.testing.assert_allclose(array, np.asarray([[0, 0], [3, 0], [0, 4], [0, 0], [9, 9]]) / 2.5)


def test_vectors_that_are_not_finite_are_missing_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [[1.0, 1.0], [NAN, 1.0], [float("inf"), 1.0], [1.0, 1.0]]
    dataset = opened(make(tmp_path / "t", pa.array(rows, pa.list_(pa.float32(), 2))))
    assert "items.plot: 2 of 4 vectors hold NaN or infinity and count as missing" in capsys.readouterr().err
    assert dataset.item_arrays["item_plot"].tolist() == [[0, 0], [1, 1], [0, 0], [0, 0], [1, 1]]


def test_ragged_vectors_are_refused_with_column_and_row(tmp_path: Path) -> None:
    ragged = make(tmp_path / "t", pa.array([[1.0, 2.0], [], None, [1.0, 2.0, 3.0]]))
    with pytest.raises(FeatureError, match="column 'plot', row 3: a vector of 3 numbers, expected 2"):
        opened(ragged)
    assert [f.name for f in opened(ragged, item=[]).spec.fields] == []


def test_columns_can_be_chosen_and_empty_ones_say_so(tmp_path: Path) -> None:
    photo = pa.array([None] * 3, pa.list_(pa.float32(), 7))
    path = make(tmp_path / "t", fixed_size(np.eye(3), np.ones(3, bool)), photo=photo)
    assert [f.name for f in opened(path).spec.fields] == ["plot"]
    assert [f.name for f in opened(path, item=["plot"]).spec.fields] == ["plot"]
    with pytest.raises(FeatureError, match="column 'photo' of items holds no vector at all"):
        opened(path, item=["photo"])
    with pytest.raises(FeatureError, match="features.text names 'plot', which holds vector, expected text"):
        opened(path, text=["plot"])


def test_vectors_of_people_are_no_features(make_tables: Callable[..., Path]) -> None:
    with pytest.raises(FeatureError, match="no column 'face' in table users"):
        users = [{"user_id": 1, "city": "Rome"}]
        events = [{"event_id": 1, "user_id": 1, "item_id": 1, "event": "view", "at": 1}]
        path = make_tables(events=events, items=[{"item_id": 1}], users=users)
        open_dataset(path, FeatureSettings(user=["face"]), ALL)


def test_later_items_are_encoded_as_the_dataset_encodes_its_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    there = np.asarray([True, False, True, True])
    path = make(tmp_path / "t", fixed_size(rng.normal(size=(4, 3)), there), mood=["sad", "sad", "sad", "gay"])
    dataset = opened(path)
    write_features(tmp_path / "bundle", dataset.spec, dataset.vocabularies)
    spec, vocabularies = read_features(tmp_path / "bundle")
    assert spec == dataset.spec and spec.hash() == dataset.spec.hash()
    columns = {name: dataset.items[name].to_list() for name in dataset.items.columns}
    found = encode_items(columns, spec, vocabularies)
    assert found["item_index"].tolist() == [1, 2, 3, 4]
    for name, array in dataset.item_arrays.items():
        np.testing.assert_array_equal(found[name], array[1:])
    # one that came later has no number of its own, and its content all the same
    new = encode_items({"item_id": [99], "plot": [columns["plot"][2]], "mood": ["sad"]}, spec, vocabularies)
    assert new["item_index"].tolist() == [0]
    np.testing.assert_array_equal(new["item_plot"][0], dataset.item_arrays["item_plot"][3])
    bare = encode_items({"item_id": [99]}, spec, vocabularies)
    assert bare["item_plot"].tolist() == [[0, 0, 0]] and bare["item_mood"].tolist() == [0]
    with pytest.raises(FeatureError, match="no column item_id; they have: plot"):
        encode_items({"plot": [[1.0, 2.0, 3.0]]}, spec, vocabularies)
    with pytest.raises(FeatureError, match="column 'plot', row 1: a vector of 1 numbers, expected 3"):
        encode_items({"item_id": [99, 98], "plot": [None, [1.0]]}, spec, vocabularies)


def test_a_spec_without_vectors_keeps_its_hash(make_tables: Callable[..., Path]) -> None:
    events = [{"event_id": i, "user_id": 1, "item_id": 1, "event": "view", "at": i} for i in range(3)]
    path = make_tables(events=events, items=[{"item_id": 1, "mood": "sad"}])
    spec = open_dataset(path, FeatureSettings(), SplitSettings(train=1.0, valid=0.0)).spec
    # as it was before there were vectors: bundles of that time must open
    assert spec.hash() == "8868ff892cb45900f705fdb832b78df51d52be0226b4c140a0ad1d311e37d5fd"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(st.none(), st.lists(st.floats(width=32), min_size=2, max_size=2)), min_size=1, max_size=6))
@example([[0.0, 1.7014118346046923e38]])  # finite, and not after it is divided
def test_every_form_of_a_column_gives_the_same_array(rows: list[list[float] | None]) -> None:
    forms: list[Any] = [
        rows,
        pa.array(rows, pa.list_(pa.float32())),
        pa.array(rows, pa.list_(pa.float32(), 2)),
        pa.chunked_array(
            [pa.array(rows[:1], pa.list_(pa.float64(), 2)), pa.array(rows[1:], pa.list_(pa.float64(), 2))]
        ),
    ]
    arrays = [encode_fields({"plot": form}, len(rows), [PLOT], {})["item_plot"] for form in forms]
    for array in arrays:
        assert array.shape == (len(rows), 2) and array.dtype == np.float32
        np.testing.assert_array_equal(array, arrays[0])
    for row, array in zip(rows, arrays[0], strict=True):
        there = row is not None and np.isfinite(row).all()
        with np.errstate(over="ignore"):
            expected = np.asarray(row if there else [0, 0], np.float32) / np.float32(0.5)
        np.testing.assert_array_equal(array, expected if np.isfinite(expected).all() else [0, 0])
