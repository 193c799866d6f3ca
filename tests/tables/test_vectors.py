"""Vector columns at the edge: lists of numbers of one width become float32 of a fixed size, anything else is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.errors import TableError
from playbill.tables.convert import convert
from playbill.tables.incoming import Incoming
from playbill.tables.quality import measure_quality
from playbill.tables.schema import Column, EventKind, Kind
from playbill.tables.settings import Action, ValidationSettings
from playbill.tables.validate import Validation, validate
from playbill.tables.vectors import fixed_size

NAN, INF = float("nan"), float("inf")


def items(column: pa.Array, *, cut: int = 2, file: str = "items.parquet", first_id: int = 1) -> Incoming:
    raw = pa.table({"item_id": range(first_id, first_id + len(column)), "plot": column})

    def batches() -> Iterator[pa.RecordBatch]:
        yield from raw.to_batches(max_chunksize=cut)

    columns = (Column(name="item_id", kind=Kind.ID, needed=True), Column(name="plot", kind=Kind.VECTOR))
    names = {"item_id": "item_id", "plot": "plot"}
    return Incoming(table="items", file=file, schema=raw.schema, batches=batches, columns=columns, names=names)


def check(out: Path, *files: Incoming, **options: Any) -> tuple[Validation, list[tuple[int, str]], pa.Table]:
    """Validate alone; return the outcome, every fault as (row, rule), and the items as written."""
    rules = ValidationSettings(max_quarantined_share=1.0, **options)
    result = validate(files, out, events=[EventKind(name="view")], settings=rules, needed=("items",))
    faults = pq.read_table(out / "report" / "faults.parquet").to_pylist()
    return result, [(f["row"], f["rule"]) for f in faults], pq.ParquetFile(out / "items.parquet").read()


@pytest.mark.parametrize(
    "dtype",
    [
        *(pa.list_(pa.float64()), pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_(pa.int32())),
        pa.list_(pa.float64(), 3),
    ],
)
def test_lists_of_numbers_are_stored_at_a_fixed_width(tmp_path: Path, dtype: pa.DataType) -> None:
    empty = None if pa.types.is_fixed_size_list(dtype) else []
    column = pa.array([None, [1, 2, 3], empty, [4, 5, 6], [-7, 0, 9]], dtype)
    result, faults, table = check(tmp_path, items(column))
    assert not faults and not result.rejected
    assert table["plot"].type == pa.list_(pa.float32(), 3)
    assert table["plot"].to_pylist() == [None, [1, 2, 3], None, [4, 5, 6], [-7, 0, 9]]
    assert measure_quality(tmp_path).tables["items"].nulls["plot"] == 2


def test_a_vector_that_is_no_number_or_of_another_width_is_named(tmp_path: Path) -> None:
    column = pa.array([[1.0, 2.0], [NAN, 1.0], [1.0], [3.0, None], [0.0, -INF], [1e300, 1.0], [1.0, 2.0, 3.0], [5, 6]])
    result, faults, table = check(tmp_path, items(column))
    broken = [(row, "nan_feature") for row in (1, 3, 4, 5)]
    assert sorted(faults) == sorted([*broken, (2, "wrong_type"), (6, "wrong_type")])
    # NaN is counted and missing, its item stays; a vector of another width is in quarantine unless the rule is softened
    assert table["item_id"].to_pylist() == [1, 2, 4, 5, 6, 8]
    assert table["plot"].to_pylist() == [[1, 2], None, None, None, None, [5, 6]]
    assert {g.detail for g in result.faults if g.rule == "wrong_type"} == {"not 2 numbers, as the first vector has"}
    _, _, table = check(tmp_path / "soft", items(column), actions={"wrong_type": Action.warn})
    assert table["item_id"].to_pylist() == list(range(1, 9)) and table["plot"].null_count == 6


def test_the_width_is_the_first_vectors_over_all_files(tmp_path: Path) -> None:
    nothing, first = items(pa.array([None, []], pa.list_(pa.float32()))), pa.array([[1.0, 2.0]], pa.list_(pa.float64()))
    other = pa.array([[1.0, 2.0, 3.0], [3.0, 4.0]])
    files = [nothing, items(first, file="b", first_id=3), items(other, file="c", first_id=4)]
    _, faults, table = check(tmp_path, *files)
    assert faults == [(0, "wrong_type")] and table["plot"].to_pylist() == [None, None, [1, 2], [3, 4]]
    _, faults, table = check(tmp_path / "none", nothing)
    assert not faults and table["plot"].null_count == 2


def test_texts_are_no_vectors(tmp_path: Path) -> None:
    result, faults, _ = check(tmp_path, items(pa.array(["0.1 0.2"])))
    assert result.rejected and faults == [(None, "impossible_type")]
    with pytest.raises(TableError, match="expected a list of numbers, the same count in every row"):
        convert(pa.array([[["a"]]]), Kind.VECTOR, width=1)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_cut_and_any_gaps_survive(data: st.DataObject) -> None:
    width, rows = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    numbers = np.random.default_rng(rows).normal(size=(rows, width)).astype(np.float32)
    there = np.asarray(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    start = data.draw(st.integers(0, rows - 1))
    column = fixed_size(numbers, there).slice(start)  # a slice's values do not start at its own first row
    for given_as in (column, column.cast(pa.list_(pa.float32()))):
        kept = convert(given_as, Kind.VECTOR, width=width)
        assert not kept.faults and kept.values.to_pylist() == column.to_pylist()
