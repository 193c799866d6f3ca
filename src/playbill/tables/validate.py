"""Validation at the edge: raw rows in, the five tables out, every fault named and no row lost.

Rows are read once, in batches. Memory holds a few batches (and the row group that the parquet reader is in) plus the
ids seen so far, 16 bytes each (`ids.py`): what makes a row a duplicate, or a reference unknown, cannot be told from
the batch alone. All else is written as it comes.
Tables are read in the order users, items, creatives, events, decisions, so that whatever is referred to is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from playbill.errors import TableError
from playbill.tables.cells import NAN
from playbill.tables.convert import convert
from playbill.tables.faults import FaultGroup, FaultLog, show
from playbill.tables.files import write_atomic
from playbill.tables.ids import Bools, IdSet, Numbers, codes, valid
from playbill.tables.incoming import BATCH_ROWS, Incoming
from playbill.tables.quarantine import Quarantine
from playbill.tables.rules import OWN_ID, Breach, Known, actions, breaches
from playbill.tables.schema import CONTRACT, TABLES, Column, EventKind, Kind, arrow_type
from playbill.tables.settings import Action, ValidationSettings
from playbill.tables.vectors import vector_width

REPORT = "report"


class TableRows(msgspec.Struct, kw_only=True):
    """What became of the rows of one table: `rows_in == rows_kept + rows_quarantined`, always."""

    rows_in: int = 0
    rows_kept: int = 0
    rows_quarantined: int = 0
    files: list[str] = msgspec.field(default_factory=list)


class Validation(msgspec.Struct, kw_only=True):
    """The outcome, also in `report/validation.json`; each single fault stands in `report/faults.parquet`.

    Attributes:
        rejected: a rule whose action is `reject` was broken: the tables must not be used.
        columns: every column that was written, by table.
    """

    tables: dict[str, TableRows]
    faults: list[FaultGroup]
    rejected: bool
    columns: dict[str, list[Column]]


@dataclass(slots=True)
class _Job:
    out: Path
    settings: ValidationSettings
    actions: dict[str, Action]
    known: Known
    log: FaultLog
    advance: Callable[[str, int], None]
    id_types: dict[str, pa.DataType] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)  # of the vector columns of the table at hand

    def type_of(self, column: Column) -> pa.DataType:
        """Return the Arrow type in which a column is written."""
        return arrow_type(column.kind, self.id_types.get(column.name), self.widths.get(column.name, 1))

    def whole(self, rule: str, table: str, detail: str, *, file: str = "", column: str = "", value: str = "") -> None:
        """Record one fault of a whole column, file or table."""
        action = self.actions[rule]
        self.log.add(table=table, file=file, column=column, rule=rule, action=action, detail=detail, values=[value])


def validate(
    incoming: Sequence[Incoming],
    out: Path,
    *,
    events: Sequence[EventKind],
    settings: ValidationSettings,
    needed: Sequence[str] = ("items", "events"),
    advance: Callable[[str, int], None] = lambda table, rows: None,
    now_us: int | None = None,
) -> Validation:
    """Write the rows that hold into `out/<table>.parquet`, the others into `out/quarantine/`, and the report.

    Args:
        incoming: the files, several a table if need be, in any order.
        out: an existing folder; its tables may be used only if the result is not `rejected`.
        events: the declared event names.
        needed: tables without which the source is no use.
        advance: called with the table and the number of rows that were just read.
        now_us: the present, microseconds UTC; None takes the clock.
    Raises:
        ConfigError: the settings name an unknown rule, or soften one too far.
    """
    now = time.time_ns() // 1000 if now_us is None else now_us
    job = _Job(
        out=out,
        settings=settings,
        actions=actions(settings),
        known=Known(events=events, settings=settings, now_us=now),
        log=FaultLog(out / REPORT, settings.examples),
        advance=advance,
        id_types=_id_types(incoming),
    )
    tables: dict[str, TableRows] = {}
    columns: dict[str, list[Column]] = {}
    try:
        for name in TABLES:
            files = [file for file in incoming if file.table == name]
            if files:
                columns[name] = _all_columns(name, files)
                tables[name] = _table(job, name, files, columns[name])
            elif name in needed:
                job.whole("missing_table", name, f"the source gives no {name}")
    finally:
        job.log.close()
    result = Validation(
        tables=tables,
        faults=job.log.groups,
        rejected=any(group.action is Action.reject for group in job.log.groups),
        columns=columns,
    )
    write_atomic(out / REPORT / "validation.json", msgspec.json.format(msgspec.json.encode(result), indent=2))
    return result


def _id_types(incoming: Sequence[Incoming]) -> dict[str, pa.DataType]:
    """Return int64 or string by id column: one type over all tables, so that an id means the same everywhere."""
    types: dict[str, pa.DataType] = {}
    for file in incoming:
        for column in file.columns:
            place = file.schema.get_field_index(file.names.get(column.name, ""))
            if column.kind is not Kind.ID or place < 0:
                continue
            dtype = file.schema.field(place).type
            dtype = dtype.value_type if pa.types.is_dictionary(dtype) else dtype
            number = pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_decimal(dtype)
            if not number and not pa.types.is_null(dtype):
                types[column.name] = pa.string()
            elif number:
                types.setdefault(column.name, pa.int64())
    return types


def _all_columns(table: str, files: Sequence[Incoming]) -> list[Column]:
    """Return the columns of a table: the contract's in its order, then features as they come."""
    found: dict[str, Column] = {}
    for file in files:
        for column in file.columns:
            other = found.setdefault(column.name, column)
            if other != column:
                raise TableError(
                    f"{table}.{column.name} is declared in two ways: {other} and {column}; make them equal"
                )
    order = {column.name: place for place, column in enumerate(CONTRACT[table])}
    for contract in CONTRACT[table]:
        if contract.needed:
            found.setdefault(contract.name, contract)
        if contract.name in found and found[contract.name].kind is not contract.kind:
            raise TableError(
                f"{table}.{contract.name} is declared as {found[contract.name].kind}, it is {contract.kind}"
            )
    return sorted(found.values(), key=lambda column: order.get(column.name, len(order)))


def _table(job: _Job, name: str, files: Sequence[Incoming], columns: Sequence[Column]) -> TableRows:
    rows = TableRows(files=[file.file for file in files])
    job.widths = {c.name: vector_width(files, c.name) for c in columns if c.kind is Kind.VECTOR}
    schema = pa.schema([(c.name, job.type_of(c)) for c in columns])
    quarantine = Quarantine(job.out, name, [_without_row_column(file) for file in files])
    own = IdSet()
    path = job.out / f"{name}.parquet"
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        pending: list[pa.RecordBatch] = []
        for file in files:
            broken = _structure(job, file, columns)
            for batch, places in _batches(job, file):
                kept, raw, bad = _rows(job, file, columns, broken, batch, places, own, quarantine)
                rows.rows_in += raw
                rows.rows_quarantined += bad
                rows.rows_kept += kept.num_rows
                pending.append(kept)
                if sum(b.num_rows for b in pending) >= BATCH_ROWS:
                    writer.write_table(pa.Table.from_batches(pending, schema))
                    pending = []
                job.advance(name, raw)
        writer.write_table(pa.Table.from_batches(pending, schema))
    quarantine.close()
    job.known.ids[name] = own
    written = pq.ParquetFile(path).metadata.num_rows
    assert (
        rows.rows_kept == written
        and rows.rows_in == rows.rows_kept + rows.rows_quarantined == written + quarantine.rows
    )
    if rows.rows_kept == 0:
        job.whole("empty_table", name, f"0 of {rows.rows_in} rows are left", file=", ".join(rows.files))
    if rows.rows_quarantined > job.settings.max_quarantined_share * rows.rows_in:
        share = f"{rows.rows_quarantined} of {rows.rows_in} rows broke a rule; is the mapping right?"
        job.whole("mostly_quarantined", name, share, file=", ".join(rows.files))
    return rows


def _structure(job: _Job, file: Incoming, columns: Sequence[Column]) -> set[str]:
    """Record what is wrong with a file's columns; return those that cannot be read from it."""
    broken: set[str] = set()
    there = ", ".join(n for n in file.schema.names if n != file.row_column)
    for column in columns:
        raw = file.names.get(column.name)
        if raw is None:
            if column.needed:
                broken.add(column.name)
                job.whole(
                    "missing_column",
                    file.table,
                    f"needed, and not mapped; the file has: {there}",
                    file=file.file,
                    column=column.name,
                )
            continue
        place = file.schema.get_field_index(raw)
        if place < 0:
            broken.add(column.name)
            detail = f"mapped to {raw!r}, which the file does not have; it has: {there}"
            job.whole("missing_column", file.table, detail, file=file.file, column=column.name, value=raw)
            continue
        try:
            _convert(job, file, column, pa.array([], file.schema.field(place).type))
        except (TableError, pa.ArrowException) as error:
            broken.add(column.name)
            detail = f"{raw!r} {error}"
            job.whole("impossible_type", file.table, detail, file=file.file, column=column.name)
    return broken


def _convert(job: _Job, file: Incoming, column: Column, raw: pa.Array) -> tuple[pa.Array, list[Breach]]:
    result = convert(
        raw,
        column.kind,
        id_type=job.id_types.get(column.name),
        time_unit=file.time_units.get(column.name, ""),
        separator=file.separators.get(column.name, ""),
        width=job.widths.get(column.name, 1),
    )
    feature = column.name not in {c.name for c in CONTRACT[file.table]}
    return result.values, [
        ("nan_feature" if feature and rule == "not_finite" and detail == NAN else rule, column.name, detail, mask)
        for rule, detail, mask in result.faults
    ]


def _batches(job: _Job, file: Incoming) -> Iterator[tuple[pa.RecordBatch, Numbers]]:
    """Yield batches with the 0-based numbers of their rows; a file that breaks off is a fault, and the others go on."""
    start = 0
    try:
        for batch in file.batches():
            if file.row_column is None:
                places = np.arange(start, start + batch.num_rows)
            else:
                places = batch.column(batch.schema.get_field_index(file.row_column)).to_numpy()
            start += batch.num_rows
            yield batch, places
    except (pa.ArrowException, OSError) as error:
        job.whole("unreadable_file", file.table, f"after {start} rows: {error}", file=file.file)


def _rows(
    job: _Job,
    file: Incoming,
    columns: Sequence[Column],
    broken: set[str],
    batch: pa.RecordBatch,
    places: Numbers,
    own: IdSet,
    quarantine: Quarantine,
) -> tuple[pa.RecordBatch, int, int]:
    """Check one batch; return the rows that stay, how many came, and how many went to quarantine."""
    total = batch.num_rows
    cells: dict[str, pa.Array] = {}
    faulty: dict[str, Bools] = {}
    found: list[Breach] = []
    for column in columns:
        place = batch.schema.get_field_index(file.names.get(column.name, ""))
        if place < 0 or column.name in broken:
            cells[column.name] = pa.nulls(total, job.type_of(column))
            faulty[column.name] = np.full(total, column.name in broken)
            continue
        try:
            cells[column.name], faults = _convert(job, file, column, batch.column(place))
        except (TableError, pa.ArrowException) as error:
            # the type promised more than these cells keep
            job.whole("impossible_type", file.table, str(error), file=file.file, column=column.name)
            cells[column.name] = pa.nulls(total, job.type_of(column))
            faulty[column.name] = np.ones(total, dtype=np.bool_)
            continue
        faulty[column.name] = np.any([mask for _, _, _, mask in faults] or [np.zeros(total, np.bool_)], axis=0)
        found += faults
    found += list(breaches(file.table, columns, cells, faulty, job.known))
    out = np.zeros(total, dtype=np.bool_)
    for rule, _, _, mask in found:
        if job.actions[rule] is not Action.warn:
            out |= mask
    name = OWN_ID[file.table]
    again = _duplicates(cells[name], ~out, own)
    found.append(("duplicate_id", name, "", again))
    out |= again
    own.add(cells[name].filter(pa.array(~out)))
    _record(job, file, batch, places, found)
    index = np.flatnonzero(out)
    why: list[list[str]] = [[] for _ in index]
    for rule, _, _, mask in found:
        if job.actions[rule] is not Action.warn:
            for place in np.flatnonzero(mask[index]):
                if rule not in why[place]:
                    why[place].append(rule)
    quarantine.add(batch, index, file.file, places[index], why)
    kept = pa.record_batch([cells[c.name] for c in columns], names=[c.name for c in columns])
    return kept.filter(pa.array(~out)), total, len(index)


def _duplicates(ids: pa.Array, good: Bools, own: IdSet) -> Bools:
    """Return [n] bool: an earlier row that was kept, in this batch or before it, has the same id.

    Args:
        good: [n] rows that break no other rule: a row that goes to quarantine does not make its successor a duplicate.
    """
    code, count = codes(ids)
    first = np.full(count, len(ids), dtype=np.int64)
    before = own.contains(ids)
    keepable = np.flatnonzero(good & valid(ids) & ~before)
    np.minimum.at(first, code[keepable], keepable)
    return valid(ids) & (before | (first[code] < np.arange(len(ids))))


def _record(job: _Job, file: Incoming, batch: pa.RecordBatch, places: Numbers, found: Sequence[Breach]) -> None:
    for rule, column, detail, mask in found:
        index = np.flatnonzero(mask)
        if len(index) == 0:
            continue
        place = batch.schema.get_field_index(file.names.get(column, ""))
        job.log.add(
            table=file.table,
            file=file.file,
            column=column,
            rule=rule,
            action=job.actions[rule],
            detail=detail,
            rows=places[index],
            values=show(batch.column(place), index) if place >= 0 else [""] * len(index),
        )


def _without_row_column(file: Incoming) -> pa.Schema:
    return pa.schema([f for f in file.schema if f.name != file.row_column])
