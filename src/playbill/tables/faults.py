"""The faults of a validation: all of them to a file, counts and a few examples in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from playbill.tables.ids import Numbers
from playbill.tables.settings import Action

FAULTS_FILE = "faults.parquet"

_SCHEMA = pa.schema(
    [
        pa.field("table", pa.string()),
        pa.field("file", pa.string()),
        pa.field("column", pa.string()),
        pa.field("row", pa.int64()),  # 0-based in the file; null: the fault is the whole column's or file's
        pa.field("value", pa.string()),
        pa.field("rule", pa.string()),
        pa.field("action", pa.string()),
        pa.field("detail", pa.string()),
    ]
)
_FLUSH_ROWS = 50_000
_VALUE_CHARS = 200


class Example(msgspec.Struct, frozen=True):
    """One faulty cell: 0-based row of its file (None: the whole file), and the value as it stands there."""

    row: int | None
    value: str


class FaultGroup(msgspec.Struct, kw_only=True):
    """All faults of one rule in one column of one file."""

    table: str
    file: str
    column: str
    rule: str
    action: Action
    detail: str
    count: int = 0
    examples: list[Example] = msgspec.field(default_factory=list)


class FaultLog:
    """Takes every fault; writes `faults.parquet` as it goes, so that memory does not grow with their number."""

    def __init__(self, folder: Path, examples: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(folder / FAULTS_FILE, _SCHEMA, compression="zstd")
        self._examples = examples
        self._groups: dict[tuple[str, str, str, str, str], FaultGroup] = {}
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0

    @property
    def groups(self) -> list[FaultGroup]:
        return list(self._groups.values())

    def add(
        self,
        *,
        table: str,
        file: str,
        column: str,
        rule: str,
        action: Action,
        detail: str,
        rows: Numbers | None = None,
        values: Sequence[str] = ("",),
    ) -> None:
        """Record faults of one rule in one column.

        Args:
            rows: [n] int64, 0-based numbers in the file; None for one fault of the whole column or file.
            values: [n] what stands in each cell.
        """
        count = 1 if rows is None else len(rows)
        if count == 0:
            return
        key = (table, file, column, rule, detail)
        group = self._groups.get(key)
        if group is None:
            group = FaultGroup(table=table, file=file, column=column, rule=rule, action=action, detail=detail)
            self._groups[key] = group
        group.count += count
        shown = [value[:_VALUE_CHARS] for value in values]
        for place in range(min(count, self._examples - len(group.examples))):
            group.examples.append(Example(None if rows is None else int(rows[place]), shown[place]))
        same = [pa.repeat(text, count) for text in (table, file, column)]
        why = [pa.repeat(text, count) for text in (rule, action.value, detail)]
        places = pa.array([None], pa.int64()) if rows is None else pa.array(rows, pa.int64())
        self._pending.append(pa.record_batch([*same, places, pa.array(shown, pa.string()), *why], schema=_SCHEMA))
        self._pending_rows += count
        if self._pending_rows >= _FLUSH_ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._pending:
            self._writer.write_table(pa.Table.from_batches(self._pending, schema=_SCHEMA))
        self._pending, self._pending_rows = [], 0


def show(array: pa.Array, rows: Numbers) -> list[str]:
    """Return the cells at `rows` as text, whatever they hold: broken UTF-8 and impossible dates included."""
    shown = []
    for row in rows:
        cell = array[int(row)]
        try:
            value = cell.as_py()
            shown.append("null" if value is None else str(value))
        except UnicodeDecodeError:
            shown.append(repr(cell.as_buffer().to_pybytes()) if hasattr(cell, "as_buffer") else "broken UTF-8")
        except (ValueError, OverflowError, pa.ArrowException):
            shown.append(str(cell.value) if hasattr(cell, "value") else "not readable")
    return shown
