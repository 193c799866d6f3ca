"""Validation by hand: each rule, its row, its column, its value, and what becomes of the row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from playbill.errors import ConfigError
from playbill.tables.incoming import Incoming
from playbill.tables.schema import CONTRACT, Column, EventKind, Kind
from playbill.tables.settings import Action, ValidationSettings
from playbill.tables.validate import Validation, validate

DAY_US = 86_400_000_000
NOW_US = 20_000 * DAY_US  # 2024-10-04
EVENTS = [EventKind(name="rate", low=1, high=5), EventKind(name="view")]

Rows = dict[str, list[Any]]


def incoming(table: str, rows: Rows | pa.Table, *, file: str = "", cut: int = 3, **options: Any) -> Incoming:
    """Rows as a source would hand them on, in batches of `cut`; columns beyond the contract are features."""
    raw = rows if isinstance(rows, pa.Table) else pa.table(rows)
    contract = {column.name: column for column in CONTRACT[table]}
    kinds: dict[str, Kind] = options.pop("kinds", {})
    columns = tuple(
        contract.get(n) or Column(name=n, kind=kinds.get(n, Kind.TEXT)) for n in options.pop("names", raw.schema.names)
    )

    def batches() -> Iterator[pa.RecordBatch]:
        yield from raw.to_batches(max_chunksize=cut)

    return Incoming(
        table=table,
        file=file or f"{table}.parquet",
        schema=raw.schema,
        batches=batches,
        columns=columns,
        names={c.name: c.name for c in columns},
        time_units={"at": "us"},
        **options,
    )


ITEMS: Rows = {"item_id": [10, 11, 12]}
GOOD_EVENTS: Rows = {
    "event_id": [1, 2, 3, 4],
    "user_id": [5, 5, 6, None],
    "session_id": [None, None, "s", "t"],
    "event": ["rate", "rate", "view", "view"],
    "at": [NOW_US - DAY_US] * 4,
    "item_id": [10, 11, 10, 12],
    "value": [1.0, 5.0, None, None],
}


def events(**changes: list[Any]) -> Rows:
    return GOOD_EVENTS | changes


def check(
    out: Path, *files: Incoming, **options: Any
) -> tuple[Validation, list[tuple[str, str, int | None, str, str]]]:
    """Validate, check that no row was lost, and return every fault as (table, column, row, value, rule)."""
    settings = ValidationSettings(max_quarantined_share=1.0, **options.pop("settings", {}))
    options = {"events": EVENTS, "now_us": NOW_US} | options
    result = validate(files, out, settings=settings, **options)
    for name, rows in result.tables.items():
        kept = pq.ParquetFile(out / f"{name}.parquet").metadata.num_rows
        quarantined = out / "quarantine" / f"{name}.parquet"
        lost = pq.ParquetFile(quarantined).metadata.num_rows if quarantined.exists() else 0
        assert (rows.rows_kept, rows.rows_quarantined) == (kept, lost)
        assert rows.rows_in == kept + lost
    faults = pq.read_table(out / "report" / "faults.parquet").to_pylist()
    assert len(faults) == sum(group.count for group in result.faults)
    return result, [(f["table"], f["column"], f["row"], f["value"], f["rule"]) for f in faults]


def test_good_rows_pass_in_order(tmp_path: Path) -> None:
    result, faults = check(tmp_path, incoming("events", GOOD_EVENTS), incoming("items", ITEMS))
    assert faults == [] and not result.rejected
    table = pq.read_table(tmp_path / "events.parquet")
    assert table["event_id"].to_pylist() == [1, 2, 3, 4]
    assert table.schema.field("at").type == pa.timestamp("us", tz="UTC")
    assert table.column_names == ["event_id", "user_id", "session_id", "event", "at", "item_id", "value"]
    assert not (tmp_path / "quarantine").exists()


ROW_FAULTS = [
    (events(event=["rate", None, "view", "view"]), ("events", "event", 1, "null", "null_value")),
    (events(at=[NOW_US, NOW_US, None, NOW_US]), ("events", "at", 2, "null", "null_value")),
    (events(event_id=[1, 2, 1, 4]), ("events", "event_id", 2, "1", "duplicate_id")),
    (events(event_id=[1, 2, 3, 3]), ("events", "event_id", 3, "3", "duplicate_id")),  # in another batch
    (
        events(user_id=[5, 5, 6, None], session_id=[None, None, "s", None]),
        ("events", "user_id", 3, "null", "no_person"),
    ),
    (events(event=["rate", "buy", "view", "view"]), ("events", "event", 1, "buy", "undeclared_event")),
    (events(value=[0.5, 5.0, None, None]), ("events", "value", 0, "0.5", "value_out_of_range")),
    (events(value=[1.0, 6.0, None, None]), ("events", "value", 1, "6.0", "value_out_of_range")),
    (events(value=[1.0, float("nan"), None, None]), ("events", "value", 1, "nan", "not_finite")),
    (events(value=[1.0, 2.0, float("inf"), None]), ("events", "value", 2, "inf", "not_finite")),
    (events(value=["1", "2", "3", "many"]), ("events", "value", 3, "many", "wrong_type")),
    (events(at=[-1, NOW_US, NOW_US, NOW_US]), ("events", "at", 0, "-1", "time_out_of_range")),
    (
        events(at=[NOW_US, NOW_US, NOW_US, NOW_US + DAY_US + 1]),
        ("events", "at", 3, str(NOW_US + DAY_US + 1), "time_out_of_range"),
    ),
    (events(session_id=[None, "x" * 257, "s", "t"]), ("events", "session_id", 1, "x" * 200, "too_long")),
]


@pytest.mark.parametrize(("rows", "fault"), ROW_FAULTS)
def test_a_bad_row_goes_to_quarantine(tmp_path: Path, rows: Rows, fault: tuple[str, str, int, str, str]) -> None:
    result, faults = check(tmp_path, incoming("events", rows), incoming("items", ITEMS))
    assert faults == [fault] and not result.rejected
    row = pq.read_table(tmp_path / "quarantine" / "events.parquet").to_pylist()[0]
    assert row["playbill_rules"] == [fault[4]]
    assert (row["playbill_file"], row["playbill_row"]) == ("events.parquet", fault[2])
    for name, cells in rows.items():  # the row as it came
        assert str(row[name]) == str(cells[fault[2]])
    kept = pq.read_table(tmp_path / "events.parquet")["event_id"].to_pylist()
    assert kept == [n for row_number, n in enumerate(rows["event_id"]) if row_number != fault[2]]


@pytest.mark.parametrize(
    ("table", "rows", "fault"),
    [
        ("users", {"user_id": [5, 6], "timezone": ["Europe/Berlin", "Atlantis"]}, ("timezone", 1, "unknown_timezone")),
        ("items", ITEMS | {"categories": [["a"], ["b", None], []]}, ("categories", 1, "empty_category")),
        ("items", {"item_id": [10, 11, 12], "price": [-1.0, 0.0, None]}, ("price", 0, "negative_price")),
        ("events", events(item_id=[10, 99, None, 12]), ("item_id", 1, "unknown_item")),
        ("events", events(creative_id=["c", "x", None, "c"]), ("creative_id", 1, "unknown_creative")),
        ("events", events(user_id=[5, 7, 6, None]), ("user_id", 1, "unknown_user")),
    ],
)
def test_a_warning_keeps_the_row(tmp_path: Path, table: str, rows: Rows, fault: tuple[str, int, str]) -> None:
    files = {
        "users": incoming("users", {"user_id": [5, 6]}),
        "items": incoming("items", ITEMS),
        "creatives": incoming("creatives", {"creative_id": ["c"], "kind": ["poster"]}),
        "events": incoming("events", GOOD_EVENTS),
    } | {table: incoming(table, rows)}
    result, faults = check(tmp_path, *files.values())
    column, row, rule = fault
    assert [(f[0], f[1], f[2], f[4]) for f in faults] == [(table, column, row, rule)]
    assert result.tables[table].rows_quarantined == 0


DECISIONS: Rows = {
    "decision_id": ["a", "b", "c"],
    "request_id": ["r", "r", "r"],
    "kind": ["item", "item", "hold"],
    "chosen": [10, 11, 0],
    "at": [NOW_US] * 3,
    "position": [0, 1, None],
    "propensity": [1.0, 0.25, None],
    "context": ['{"hour": 3}', None, "{}"],
}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"propensity": [0.0, 0.25, None]}, ("propensity", 0, "propensity_out_of_range")),
        ({"propensity": [1.0, 1.01, None]}, ("propensity", 1, "propensity_out_of_range")),
        ({"position": [0, -1, None]}, ("position", 1, "bad_position")),
        ({"position": [0.5, 1.0, None]}, ("position", 0, "bad_position")),
        ({"kind": ["item", "banner", "hold"]}, ("kind", 1, "unknown_decision_kind")),
        ({"context": ["[1]", None, "{}"]}, ("context", 0, "bad_context")),
        ({"context": ["{", None, "{}"]}, ("context", 0, "bad_context")),
    ],
)
def test_decisions(tmp_path: Path, change: Rows, fault: tuple[str, int, str]) -> None:
    _, faults = check(tmp_path, incoming("decisions", DECISIONS | change), needed=())
    assert [(f[1], f[2], f[4]) for f in faults] == [fault]


def test_a_creative_of_no_item_goes_to_quarantine_and_one_without_an_item_stays(tmp_path: Path) -> None:
    creatives = {"creative_id": ["a", "b"], "kind": ["poster", "subject"], "item_id": [99, None]}
    _, faults = check(tmp_path, incoming("creatives", creatives), incoming("items", ITEMS), needed=())
    assert faults == [("creatives", "item_id", 0, "99", "creative_without_item")]


def test_every_fault_of_one_row_is_named_and_the_row_counts_once(tmp_path: Path) -> None:
    rows = events(event=["buy", "rate", "view", "view"], at=[-1, NOW_US, NOW_US, NOW_US], event_id=[1, 2, 3, 4])
    result, faults = check(tmp_path, incoming("events", rows), incoming("items", ITEMS))
    assert {f[4] for f in faults} == {"undeclared_event", "time_out_of_range"}
    assert result.tables["events"].rows_quarantined == 1
    row = pq.read_table(tmp_path / "quarantine" / "events.parquet").to_pylist()[0]
    assert set(row["playbill_rules"]) == {"undeclared_event", "time_out_of_range"}


@pytest.mark.parametrize("ids", [[1, 1, 3, 4], [1, 2, 3, 1]])  # in the same batch, and in the next
def test_the_repaired_row_after_a_broken_one_is_no_duplicate(tmp_path: Path, ids: list[int]) -> None:
    rows = events(event_id=ids, event=["buy", "rate", "view", "view"])
    _, faults = check(tmp_path, incoming("events", rows), incoming("items", ITEMS))
    assert [f[4] for f in faults] == ["undeclared_event"]
    assert pq.read_table(tmp_path / "events.parquet")["event_id"].to_pylist() == ids[1:]


def test_an_item_in_quarantine_is_unknown_to_its_events(tmp_path: Path) -> None:
    items = {"item_id": [10, 11, 12], "price": [1.0, float("inf"), 2.0]}
    _, faults = check(tmp_path, incoming("items", items), incoming("events", GOOD_EVENTS))
    assert [(f[0], f[2], f[4]) for f in faults] == [("items", 1, "not_finite"), ("events", 1, "unknown_item")]


def test_ids_of_one_column_have_one_type_everywhere(tmp_path: Path) -> None:
    """Numbers in one file, text in another: the same id stays the same id."""
    items = incoming("items", {"item_id": ["10", "11", "x"]})
    result, faults = check(tmp_path, items, incoming("events", events(item_id=[10, 11, 10, 11])))
    assert faults == [] and not result.rejected
    assert pq.read_table(tmp_path / "events.parquet")["item_id"].to_pylist() == ["10", "11", "10", "11"]
    assert pq.read_table(tmp_path / "events.parquet")["user_id"].type == pa.int64()


def test_several_files_make_one_table(tmp_path: Path) -> None:
    first = incoming("events", GOOD_EVENTS, file="a.parquet")
    second = incoming(
        "events",
        {"event_id": [4, 5], "user_id": [5, 5], "event": ["view", "buy"], "at": [NOW_US] * 2, "hue": ["red", "blue"]},
        file="b.parquet",
    )
    result, faults = check(tmp_path, incoming("items", ITEMS), first, second)
    assert [(f[1], f[2], f[4]) for f in faults] == [("event", 1, "undeclared_event"), ("event_id", 0, "duplicate_id")]
    assert [group.file for group in result.faults] == ["b.parquet", "b.parquet"]
    table = pq.read_table(tmp_path / "events.parquet")
    assert table["hue"].to_pylist() == [None] * 4
    quarantine = pq.read_table(tmp_path / "quarantine" / "events.parquet")
    assert quarantine["playbill_row"].to_pylist() == [0, 1]
    assert quarantine["session_id"].to_pylist() == [None, None]


def test_rows_keep_the_number_they_have_in_their_file(tmp_path: Path) -> None:
    rows = events(event=["rate", "rate", "view", "buy"]) | {"line": [17, 3, 8, 42]}
    names = [name for name in rows if name != "line"]
    _, faults = check(tmp_path, incoming("items", ITEMS), incoming("events", rows, row_column="line", names=names))
    assert faults == [("events", "event", 42, "buy", "undeclared_event")]
    assert "line" not in pq.read_table(tmp_path / "quarantine" / "events.parquet").column_names


def test_structural_faults_reject_and_do_not_hide_the_others(tmp_path: Path) -> None:
    rows = events(event=["buy", "rate", "view", "view"])
    del rows["at"]
    rows["value"] = [{"a": 1}] * 4
    result, faults = check(tmp_path, incoming("events", rows))
    assert result.rejected
    assert [(f[0], f[1], f[2], f[4]) for f in faults] == [
        ("items", "", None, "missing_table"),
        ("events", "at", None, "missing_column"),
        ("events", "value", None, "impossible_type"),
        ("events", "event", 0, "undeclared_event"),
    ]


def test_an_empty_table_is_rejected(tmp_path: Path) -> None:
    empty = pa.table({"item_id": pa.array([], pa.int64())})
    result, faults = check(tmp_path, incoming("items", empty), incoming("events", GOOD_EVENTS))
    assert result.rejected
    assert ("items", "", None, "", "empty_table") in faults


def test_a_table_that_is_mostly_bad_is_rejected(tmp_path: Path) -> None:
    rows = events(event=["buy", "buy", "buy", "view"])
    files = [incoming("items", ITEMS), incoming("events", rows)]
    result = validate(files, tmp_path, events=EVENTS, settings=ValidationSettings(), now_us=NOW_US)
    assert result.rejected
    found = [(group.rule, group.detail) for group in result.faults]
    assert ("mostly_quarantined", "3 of 4 rows broke a rule; is the mapping right?") in found


def test_actions_can_be_changed(tmp_path: Path) -> None:
    rows = events(item_id=[10, 99, None, 12], value=[1.0, float("nan"), None, None])
    files = [incoming("items", ITEMS), incoming("events", rows)]
    (tmp_path / "strict").mkdir()
    actions = {"unknown_item": Action.reject, "not_finite": Action.warn}
    result, faults = check(tmp_path / "strict", *files, settings={"actions": actions})
    assert result.rejected
    assert [f[4] for f in faults] == ["not_finite", "unknown_item"]
    (tmp_path / "mild").mkdir()
    result, _ = check(tmp_path / "mild", *files, settings={"actions": {"not_finite": Action.warn}})
    assert not result.rejected
    assert pq.read_table(tmp_path / "mild" / "events.parquet")["value"].to_pylist() == [1.0, None, None, None]


def test_a_rule_cannot_be_softened_too_far_nor_misspelt(tmp_path: Path) -> None:
    actions = {"duplicate_id": Action.warn, "unknwon_item": Action.warn}
    with pytest.raises(ConfigError) as caught:
        check(tmp_path, incoming("items", ITEMS), settings={"actions": actions})
    assert "validation.actions.duplicate_id=warn: the mildest possible is quarantine" in str(caught.value)
    assert "validation.actions.unknwon_item: no such rule" in str(caught.value)


def test_nan_in_a_feature_is_null_and_counted(tmp_path: Path) -> None:
    items = ITEMS | {"weight": [1.0, float("nan"), float("inf")]}
    files = [incoming("items", items, kinds={"weight": Kind.NUMBER}), incoming("events", GOOD_EVENTS)]
    result, faults = check(tmp_path, *files)
    assert [(f[1], f[2], f[4]) for f in faults if f[0] == "items"] == [
        ("weight", 1, "nan_feature"),
        ("weight", 2, "not_finite"),
    ]
    assert pq.read_table(tmp_path / "items.parquet")["weight"].to_pylist() == [1.0, None]
    assert result.tables["items"].rows_quarantined == 1


def test_a_file_that_breaks_off_is_reported_with_the_row(tmp_path: Path) -> None:
    whole = incoming("events", GOOD_EVENTS)

    def broken() -> Iterator[pa.RecordBatch]:
        yield next(whole.batches())
        raise OSError("Unexpected end of stream")

    file = Incoming(
        table="events",
        file="e.parquet",
        schema=whole.schema,
        batches=broken,
        columns=whole.columns,
        names=whole.names,
        time_units=whole.time_units,
    )
    result, _ = check(tmp_path, incoming("items", ITEMS), file)
    assert result.rejected
    found = [(group.rule, group.detail) for group in result.faults]
    assert ("unreadable_file", "after 3 rows: Unexpected end of stream") in found


def test_examples_are_capped_and_every_fault_is_counted(tmp_path: Path) -> None:
    rows = {"item_id": list(range(100)), "price": [-1.0] * 100}
    result, faults = check(tmp_path, incoming("items", rows, cut=7), settings={"examples": 3}, needed=())
    (group,) = result.faults
    assert group.count == 100 == len(faults)
    assert [example.row for example in group.examples] == [0, 1, 2]
    assert [f[2] for f in faults] == list(range(100))


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """What Arrow holds after the hundredth batch is what it held after the tenth: everything was written."""
    columns = tuple(c for c in CONTRACT["events"] if c.name in ("event_id", "user_id", "event", "at"))
    rows = 20_000

    def batch(number: int) -> pa.RecordBatch:
        ids = pa.array(range(number * rows, (number + 1) * rows))
        # every third name is not declared: faults and quarantine must not pile up either
        names = pa.array(["view", "rate", "buy"] * (rows // 3) + ["view"] * (rows % 3))
        return pa.record_batch([ids, ids, names, pa.repeat(NOW_US, rows)], names=[c.name for c in columns])

    file = Incoming(
        table="events",
        file="e.parquet",
        schema=batch(0).schema,
        batches=lambda: (batch(number) for number in range(60)),
        columns=columns,
        names={c.name: c.name for c in columns},
        time_units={"at": "us"},
    )
    held: list[int] = []
    settings = ValidationSettings(max_quarantined_share=1.0)
    validate(
        [file],
        tmp_path,
        events=EVENTS,
        settings=settings,
        needed=(),
        now_us=NOW_US,
        advance=lambda table, count: held.append(pa.total_allocated_bytes()),
    )
    assert len(held) == 60
    # the level swings with what waits to be written, and must not climb
    assert max(held[40:]) < 1.3 * max(held[:20])
