"""Broken tables at random: each injected fault is named where it is, no row is lost, no exception is unexpected."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from playbill.errors import ConfigError, TableError
from playbill.tables.incoming import Incoming
from playbill.tables.schema import CONTRACT, TABLES, Column, EventKind, Kind
from playbill.tables.settings import Action, ValidationSettings
from playbill.tables.validate import Validation, validate

NOW_S = 1_700_000_000
EVENTS = [EventKind(name="rate", low=1, high=5), EventKind(name="view")]
LENIENT = ValidationSettings(max_quarantined_share=1.0, actions={"empty_table": Action.warn}, max_text_chars=50)

BROKEN = b"caf\xe9"  # Latin-1 among UTF-8
# what may stand in a cell instead of the right thing: rule, bytes or None
INJECTIONS: dict[tuple[str, str], list[tuple[str, bytes | None]]] = {
    ("users", "user_id"): [("null_value", None), ("bad_utf8", BROKEN), ("too_long", b"u" * 257)],
    ("users", "age"): [("wrong_type", b"forty"), ("nan_feature", b"nan"), ("not_finite", b"inf")],
    ("users", "consent_training"): [("wrong_type", b"perhaps")],
    ("items", "item_id"): [("null_value", None), ("bad_utf8", BROKEN)],
    ("items", "title"): [("bad_utf8", BROKEN), ("too_long", b"t" * 51)],
    ("items", "categories"): [("bad_utf8", b"a|" + BROKEN)],
    ("items", "price"): [("negative_price", b"-1"), ("wrong_type", b"free")],
    ("events", "event_id"): [("null_value", None), ("bad_utf8", BROKEN)],
    ("events", "event"): [("null_value", None), ("undeclared_event", b"buy"), ("bad_utf8", BROKEN)],
    ("events", "at"): [
        *(("null_value", None), ("wrong_type", b"soon"), ("time_out_of_range", b"-1")),
        *(("time_out_of_range", b"1700086401"), ("time_out_of_range", b"1e300")),
    ],
    ("events", "value"): [
        *(("wrong_type", b"five"), ("not_finite", b"NaN"), ("not_finite", b"-inf")),
        *(("value_out_of_range", b"0.99"), ("value_out_of_range", b"5.01")),
    ],
    ("events", "user_id"): [("no_person", None), ("bad_utf8", BROKEN)],
    ("events", "item_id"): [("unknown_item", b"nowhere"), ("bad_utf8", BROKEN)],
    ("decisions", "propensity"): [("propensity_out_of_range", b"0"), ("propensity_out_of_range", b"1.5")],
    ("decisions", "position"): [("bad_position", b"-1"), ("bad_position", b"1.5")],
    ("decisions", "kind"): [("unknown_decision_kind", b"banner"), ("null_value", None)],
    ("decisions", "chosen"): [("null_value", None)],
}
WARNS = {"nan_feature", "negative_price", "unknown_item", "unknown_user"}
KINDS = {"age": Kind.NUMBER, "consent_training": Kind.FLAG}
CASCADES = {"unknown_item", "unknown_user"}  # follow from a quarantined row of another table

Cells = dict[str, list[bytes | None]]


def good_rows(table: str, count: int) -> Cells:
    """Rows that break no rule, every cell as text, the way a careless export writes them."""

    def each(form: str) -> list[bytes | None]:
        return [form.format(row).encode() for row in range(count)]

    rows: dict[str, Cells] = {
        "users": {"user_id": each("u{}"), "age": each("{}"), "consent_training": each("true")},
        "items": {"item_id": each("i{}"), "title": each("film {}"), "categories": each("a|b{}"), "price": each("{}.5")},
        "events": {
            "event_id": each("e{}"),
            "user_id": each("u0"),
            "event": each("rate"),
            "at": each(f"{NOW_S - 1000}"),
            "item_id": each("i0"),
            "value": each("3"),
        },
        "decisions": {
            **{"decision_id": each("d{}"), "request_id": each("r{}"), "kind": each("item"), "chosen": each("i0")},
            **{"at": each(f"{NOW_S}"), "position": each("{}"), "propensity": each("0.5")},
        },
    }
    return rows[table]


def incoming(table: str, cells: Cells, batch_rows: int) -> Incoming:
    arrays = {name: pa.array(column, pa.binary()).cast(pa.string(), safe=False) for name, column in cells.items()}
    raw = pa.table(arrays)
    contract = {column.name: column for column in CONTRACT[table]}

    def batches() -> Iterator[pa.RecordBatch]:
        yield from raw.to_batches(max_chunksize=batch_rows)

    return Incoming(
        table=table,
        file=f"{table}.parquet",
        schema=raw.schema,
        batches=batches,
        columns=tuple(contract.get(name) or Column(name=name, kind=KINDS[name]) for name in cells),
        names={name: name for name in cells},
        time_units={"at": "s"},
        separators={"categories": "|"},
    )


def run(files: list[Incoming], folder: Path, needed: tuple[str, ...] = ()) -> Validation:
    """Validate and check what must hold whatever comes in."""
    result = validate(files, folder, events=EVENTS, settings=LENIENT, needed=needed, now_us=NOW_S * 1_000_000)
    for name, rows in result.tables.items():
        kept = pq.ParquetFile(folder / f"{name}.parquet").metadata.num_rows
        path = folder / "quarantine" / f"{name}.parquet"
        quarantined = pq.read_table(path).to_pylist() if path.exists() else []
        assert rows.rows_in == rows.rows_kept + rows.rows_quarantined == kept + len(quarantined)
        assert all(row["playbill_rules"] for row in quarantined)
        pq.read_table(folder / f"{name}.parquet").validate(full=True)
    assert pq.ParquetFile(folder / "report/faults.parquet").metadata.num_rows == sum(g.count for g in result.faults)
    return result


@st.composite
def broken_tables(draw: st.DrawFn) -> tuple[dict[str, Cells], set[tuple[str, str, int, str]], int]:
    """Good tables with at most one fault a row, and the faults that must be found."""
    tables: dict[str, Cells] = {}
    expected: set[tuple[str, str, int, str]] = set()
    for table in ("users", "items", "events", "decisions"):
        count = draw(st.integers(2, 12), label=f"rows of {table}")
        cells = good_rows(table, count)
        places = [(column, fault) for (name, column), faults in INJECTIONS.items() if name == table for fault in faults]
        own = f"{table[:-1]}_id"
        # row 0 stays good: it is what others refer to, and what a duplicate repeats
        for row in draw(st.sets(st.integers(1, count - 1)), label=f"bad rows of {table}"):
            column, (rule, value) = draw(st.sampled_from([*places, (own, ("duplicate_id", cells[own][0]))]))
            cells[column][row] = value
            expected.add((table, column, row, rule))
        tables[table] = cells
    return tables, expected, draw(st.integers(1, 13), label="rows a batch")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(broken_tables())
def test_each_injected_fault_is_found_where_it_is_and_nothing_else(
    case: tuple[dict[str, Cells], set[tuple[str, str, int, str]], int],
) -> None:
    tables, expected, batch_rows = case
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run([incoming(table, cells, batch_rows) for table, cells in tables.items()], folder)
        faults = pq.read_table(folder / "report/faults.parquet").to_pylist()
        found = {(f["table"], f["column"], f["row"], f["rule"]) for f in faults}
        assert expected <= found
        assert {fault for fault in found - expected if fault[3] not in CASCADES} == set()
        for table, cells in tables.items():
            bad = {row for of, _, row, rule in expected if of == table and rule not in WARNS}
            path = folder / "quarantine" / f"{table}.parquet"
            quarantined = pq.read_table(path)["playbill_row"].to_pylist() if path.exists() else []
            assert quarantined == sorted(bad)
            own = f"{table[:-1]}_id"
            kept = pq.read_table(folder / f"{table}.parquet")[own].to_pylist()
            assert kept == [c.decode() for row, c in enumerate(cells[own]) if row not in bad and c is not None]


TYPES = st.sampled_from(
    [
        *(pa.int8(), pa.int64(), pa.uint64(), pa.float16(), pa.float64(), pa.bool_(), pa.string(), pa.large_string()),
        *(pa.binary(), pa.string_view(), pa.timestamp("s"), pa.timestamp("ns", tz="Asia/Tokyo"), pa.date32()),
        *(pa.date64(), pa.time32("s"), pa.duration("us"), pa.decimal128(12, 2), pa.null(), pa.list_(pa.string())),
        *(pa.large_list(pa.binary()), pa.list_(pa.int32(), 2), pa.struct([("a", pa.int64())]), pa.uuid()),
        *(pa.dictionary(pa.int8(), pa.string()), pa.map_(pa.string(), pa.int64()), pa.list_(pa.list_(pa.string()))),
        *(pa.binary(4), pa.month_day_nano_interval(), pa.decimal256(60, 3), pa.dictionary(pa.int32(), pa.int64())),
    ]
)


@st.composite
def any_array(draw: st.DrawFn, rows: int) -> pa.Array:
    """A column of any type, filled from raw bytes: numbers, dates and texts that no program would write."""
    dtype = draw(TYPES)
    data = [draw(st.none() | st.binary(min_size=8, max_size=8)) for _ in range(rows)]
    numbers = [None if d is None else int.from_bytes(d, "little", signed=True) for d in data]
    if pa.types.is_uint64(dtype):
        return pa.array([None if n is None else n % 2**64 for n in numbers], dtype)
    if pa.types.is_timestamp(dtype) or pa.types.is_duration(dtype) or dtype == pa.date64():
        return pa.array(numbers, pa.int64()).view(dtype)
    if pa.types.is_float64(dtype):
        return pa.array(numbers, pa.int64()).view(dtype)
    if pa.types.is_date32(dtype):
        return pa.array([None if n is None else n % 2**31 for n in numbers], pa.int32()).view(dtype)
    if pa.types.is_int64(dtype):
        return pa.array(numbers, dtype)
    texts = pa.array(data, pa.binary())
    if pa.types.is_binary(dtype):
        return texts
    if pa.types.is_string(dtype) or pa.types.is_string_view(dtype):
        return (
            texts.cast(pa.string(), safe=False).cast(dtype, safe=False)
            if pa.types.is_string(dtype)
            else texts.view(pa.binary()).cast(pa.binary_view()).cast(pa.string_view(), safe=False)
        )
    if pa.types.is_large_string(dtype):
        return texts.cast(pa.large_binary()).cast(dtype, safe=False)
    if dtype == pa.list_(pa.string()):
        flat = texts.cast(pa.string(), safe=False)
        return pa.ListArray.from_arrays(pa.array(range(rows + 1), pa.int32()), flat)
    return pa.nulls(rows, dtype)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_comes_in_only_known_exceptions_come_out(data: st.DataObject) -> None:
    files = []
    for table in data.draw(st.lists(st.sampled_from(TABLES), min_size=1, max_size=4), label="files"):
        rows = data.draw(st.integers(0, 6))
        names = data.draw(st.lists(st.sampled_from([c.name for c in CONTRACT[table]]), min_size=1, unique=True))
        raw = pa.table({name: data.draw(any_array(rows), label=f"{table}.{name}") for name in names})
        contract = {column.name: column for column in CONTRACT[table]}
        mapped = [name for name in names if data.draw(st.integers(0, 9)) > 0]
        files.append(
            Incoming(
                table=table,
                file="f.parquet",
                schema=raw.schema,
                batches=lambda raw=raw: iter(raw.to_batches(max_chunksize=2)),  # type: ignore[misc]  # binds raw now
                columns=tuple(contract[name] for name in mapped),
                names={name: name for name in mapped},
                time_units=data.draw(st.sampled_from([{}, {"at": "s", "published_at": "ms", "approved_until": "ns"}])),
                separators=data.draw(st.sampled_from([{}, {"categories": "|"}])),
            )
        )
    with tempfile.TemporaryDirectory() as name:
        try:
            run(files, Path(name))
        except (TableError, ConfigError):
            pass


def test_every_rule_of_a_row_is_thrown_by_these_tests_or_by_hand() -> None:
    """A rule that no test breaks could be dead."""
    from playbill.tables.rules import RULES

    by_hand = Path(__file__).with_name("test_validate.py").read_text()
    thrown = {rule for faults in INJECTIONS.values() for rule, _ in faults}
    missing = [name for name in RULES if name not in thrown and f'"{name}"' not in by_hand]
    assert missing == []
