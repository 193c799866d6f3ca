"""Raw columns become contract columns; what cannot is named cell by cell."""

from __future__ import annotations

import decimal
import uuid
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from playbill.errors import TableError
from playbill.tables.convert import convert
from playbill.tables.schema import Kind, arrow_type

INT, TEXT = pa.int64(), pa.string()


def broken_text(*cells: bytes) -> pa.Array:
    """A string column whose bytes nobody checked, as parquet readers return it."""
    return pa.array(cells, pa.binary()).cast(pa.string(), safe=False)


def outcome(array: pa.Array, kind: Kind, **options: object) -> tuple[list[object], list[tuple[str, list[int]]]]:
    result = convert(array, kind, **options)  # type: ignore[arg-type]  # one helper for every option
    assert result.values.type == arrow_type(kind, options.get("id_type"))
    result.values.validate(full=True)
    faults = [(rule, [row for row, bad in enumerate(mask) if bad]) for rule, _, mask in result.faults]
    return result.values.to_pylist(), faults


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")

CASES = [
    # ids: kept as given; whole floats (a column of numbers with gaps) are numbers
    (pa.array([1, None], pa.int32()), Kind.ID, {"id_type": INT}, [1, None], []),
    (pa.array([1.0, None, float("nan")]), Kind.ID, {"id_type": INT}, [1, None, None], []),
    (pa.array([2.5, 1e17]), Kind.ID, {"id_type": INT}, [None, None], [("wrong_type", [0, 1])]),
    (pa.array([1, 2**63], pa.uint64()), Kind.ID, {"id_type": INT}, [1, None], [("wrong_type", [1])]),
    (pa.array([decimal.Decimal(7), None]), Kind.ID, {"id_type": INT}, [7, None], []),
    (pa.array([7, None]), Kind.ID, {"id_type": TEXT}, ["7", None], []),
    (pa.array(["a", "", None]), Kind.ID, {"id_type": TEXT}, ["a", None, None], []),
    (pa.array(["a", "b"]).dictionary_encode(), Kind.ID, {"id_type": TEXT}, ["a", "b"], []),
    (pa.array([UUID.bytes], pa.uuid()), Kind.ID, {"id_type": TEXT}, [str(UUID)], []),
    (broken_text(b"a", b"\xff"), Kind.ID, {"id_type": TEXT}, ["a", None], [("bad_utf8", [1])]),
    # texts
    (pa.array(["a", None], pa.large_string()), Kind.TEXT, {}, ["a", None], []),
    (pa.array(["a", None], pa.string_view()), Kind.TEXT, {}, ["a", None], []),
    (pa.array([b"a", b"\xff"]), Kind.TEXT, {}, ["a", None], [("bad_utf8", [1])]),
    (broken_text(b"a\xff", b"caf\xc3\xa9").cast(pa.large_string()), Kind.TEXT, {}, [None, "café"], [("bad_utf8", [0])]),
    (pa.array([85711.0, 2.5, None]), Kind.TEXT, {}, ["85711", "2.5", None], []),
    # numbers
    (pa.array([1, None]), Kind.NUMBER, {}, [1.0, None], []),
    (pa.array([decimal.Decimal("1.50")]), Kind.NUMBER, {}, [1.5], []),
    (pa.array(["1", "+2.5", " 3 ", "", "1e5"]), Kind.NUMBER, {}, [1.0, 2.5, 3.0, None, 100000.0], []),
    (pa.array(["x", "1_0", "1,5"]), Kind.NUMBER, {}, [None] * 3, [("wrong_type", [0, 1, 2])]),
    (pa.array([float("nan"), 1.0]), Kind.NUMBER, {}, [None, 1.0], [("not_finite", [0])]),
    (pa.array(["-inf", "1"]), Kind.NUMBER, {}, [None, 1.0], [("not_finite", [0])]),
    # flags
    (pa.array([1, 0, None]), Kind.FLAG, {}, [True, False, None], []),
    (pa.array(["Yes", "f", ""]), Kind.FLAG, {}, [True, False, None], []),
    (pa.array(["maybe", "2"]), Kind.FLAG, {}, [None, None], [("wrong_type", [0, 1])]),
    # times
    (pa.array([881250949]), Kind.TIME, {"time_unit": "s"}, [at("1997-12-04T15:55:49")], []),
    (pa.array([881250949000]), Kind.TIME, {"time_unit": "ms"}, [at("1997-12-04T15:55:49")], []),
    (pa.array(["881250949"]), Kind.TIME, {"time_unit": "s"}, [at("1997-12-04T15:55:49")], []),
    (
        pa.array([881250949.5, float("nan")]),
        Kind.TIME,
        {"time_unit": "s"},
        [at("1997-12-04T15:55:49.500000"), None],
        [],
    ),
    (pa.array([2**62, None]), Kind.TIME, {"time_unit": "s"}, [None, None], [("time_out_of_range", [0])]),
    (pa.array([float("inf"), 1e300]), Kind.TIME, {"time_unit": "s"}, [None, None], [("time_out_of_range", [0, 1])]),
    (pa.array([2**62], pa.timestamp("s")), Kind.TIME, {}, [None], [("time_out_of_range", [0])]),
    (pa.array(["2024-05-01T18:30:00Z"]), Kind.TIME, {}, [at("2024-05-01T18:30:00")], []),
    (pa.array(["2024-05-01 20:30+02:00", "2024-05-01"]), Kind.TIME, {}, [at("2024-05-01T18:30"), at("2024-05-01")], []),
    (pa.array(["881250949", "soon"]), Kind.TIME, {}, [None, None], [("wrong_type", [0, 1])]),
    (pa.array([date(2024, 5, 1)]), Kind.TIME, {}, [at("2024-05-01")], []),
    (pa.array([1_500], pa.timestamp("ns", tz="Europe/Berlin")), Kind.TIME, {}, [at("1970-01-01T00:00:00.000001")], []),
    # categories
    (pa.array([["a", " b "], [], None]), Kind.CATEGORIES, {}, [["a", "b"], [], None], []),
    (pa.array([["x"], ["a", None], ["b"]]).slice(1), Kind.CATEGORIES, {}, [["a"], ["b"]], [("empty_category", [0])]),
    (pa.array(["a|b", "", None]), Kind.CATEGORIES, {"separator": "|"}, [["a", "b"], [], None], []),
    (pa.array(["a|b"]), Kind.CATEGORIES, {}, [["a|b"]], []),
    (pa.array([[1, 2]]), Kind.CATEGORIES, {}, [["1", "2"]], []),
    # a column of nothing fits everywhere
    (pa.nulls(2), Kind.TIME, {}, [None, None], []),
    (pa.nulls(2), Kind.ID, {"id_type": INT}, [None, None], []),
]


@pytest.mark.parametrize(("array", "kind", "options", "values", "faults"), CASES)
def test_cells(
    array: pa.Array, kind: Kind, options: dict[str, object], values: list[object], faults: list[tuple[str, list[int]]]
) -> None:
    assert outcome(array, kind, **options) == (values, faults)


@pytest.mark.parametrize(
    ("array", "kind", "expected"),
    [
        (pa.array([{"a": 1}]), Kind.ID, "is struct<a: int64>; expected whole numbers or text"),
        (pa.array([{"a": 1}]), Kind.TEXT, "is struct<a: int64>; expected text"),
        (pa.array([True]), Kind.ID, "is bool; expected whole numbers or text"),
        (
            pa.array([881250949]),
            Kind.TIME,
            "is int64; expected a time, or numbers with a declared unit: s, ms, us or ns",
        ),
        (pa.array([1]), Kind.CATEGORIES, "is int64; expected a list of texts, or text with a declared separator"),
    ],
)
def test_a_type_that_cannot_become_the_kind(array: pa.Array, kind: Kind, expected: str) -> None:
    with pytest.raises(TableError) as caught:
        convert(array, kind, id_type=INT)
    assert str(caught.value) == expected
