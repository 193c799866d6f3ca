"""The rows of one window of a log: events, decisions with their outcomes, and who was there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from playbill.errors import MeasureError
from playbill.measure.people import WHO, with_who
from playbill.measure.times import iso
from playbill.tables.folder import has_table, read_table

_HOUR_US = 3_600_000_000
# what names a row, or differs between windows by its very nature
NEVER = {
    "users": {"user_id"},
    "items": {"item_id", "title", "text", "published_at"},
    "events": {"event_id", "user_id", "session_id", "at", "item_id", "creative_id", "decision_id", "value"},
    "decisions": {
        "decision_id", "request_id", "kind", "chosen", "at", "user_id", "session_id", "bundle", "context", "position",
    },
}  # fmt: skip
# what windows, outcomes and values are told by
_NEEDED = {
    "events": ("user_id", "session_id", "at", "event", "decision_id", "item_id", "value"),
    "decisions": ("user_id", "session_id", "at", "kind", "decision_id"),
}


@dataclass(slots=True)
class Log:
    """A table folder as a log.

    Attributes:
        folder: where it stands.
        events, decisions: rows with `who` and `at` (int64 us); None where the folder has no such table. Decisions are
            of one kind; events keep `decision_id` where there is one. Only what was asked for was read.
        columns: all columns of both tables that could be compared, such as `events.device`.
    """

    folder: Path
    events: pl.DataFrame | None
    decisions: pl.DataFrame | None
    columns: set[str]

    def span(self) -> tuple[int, int]:
        """Return the first moment of the log and the one just after its last, microseconds since 1970.

        Raises:
            MeasureError: nothing has a time.
        """
        there = [f["at"] for f in (self.events, self.decisions) if f is not None and len(f)]
        if not there:
            raise MeasureError(f"{self.folder} has neither events nor decisions, so it has no windows of time")
        return min(int(t.min()) for t in there), max(int(t.max()) for t in there) + 1  # type: ignore[arg-type]  # ints

    def window(self, low: int, high: int, name: str) -> Log:
        """Return the rows with low <= at < high.

        Raises:
            MeasureError: there are none; names the window and the span of the log.
        """
        inside = pl.col("at").is_between(low, high, closed="left")
        cut = Log(
            self.folder,
            None if self.events is None else self.events.filter(inside),
            None if self.decisions is None else self.decisions.filter(inside),
            self.columns,
        )
        if not any(f is not None and len(f) for f in (cut.events, cut.decisions)):
            first, last = self.span()
            raise MeasureError(
                f"the window {name} ({iso(low)}..{iso(high)}) is empty: the log of {self.folder} runs from "
                f"{iso(first)} to {iso(last)}"
            )
        return cut


def open_log(folder: Path, kind: str, asked: Sequence[str] = ()) -> Log:
    """Return the log of a folder, with the decisions of one kind.

    Args:
        folder: of tables.
        kind: of the decisions.
        asked: columns to compare, such as `events.device`; none means all that can be.
    Raises:
        MeasureError: rows that belong to nobody or have no time; names table, count and first rows.
    """
    columns: set[str] = set()
    events = _rows(folder, "events", asked, columns) if has_table(folder, "events") else None
    decisions = _rows(folder, "decisions", asked, columns) if has_table(folder, "decisions") else None
    if decisions is not None:
        kinds = decisions["kind"].unique().to_list()
        decisions = decisions.filter(pl.col("kind") == kind)
        if not len(decisions) and events is None:
            raise MeasureError(f"decisions.kind is never {kind!r}; it is: {', '.join(sorted(map(str, kinds)))}")
    if events is None and decisions is None:
        raise MeasureError(f"{folder} has neither events nor decisions: drift is read from a log")
    return Log(folder, events, decisions, columns)


def with_outcomes(log: Log, window: pl.DataFrame, names: list[str], hours: float) -> tuple[pl.DataFrame, int]:
    """Return decisions with a column 0/1 an event name: whether it followed in time; and how many are left out.

    Args:
        log: the whole log, whose events answer the decisions.
        window: decisions of one window; those that the log ends too early for are left out.
    """
    assert log.events is not None
    _, end = log.span()
    old = window.filter(pl.col("at") + int(hours * _HOUR_US) <= end)
    answers = log.events.filter(pl.col("decision_id").is_not_null()).select("decision_id", "event", then="at")
    joined = old.select("decision_id", "at").join(answers, on="decision_id", how="inner")
    joined = joined.filter((pl.col("then") - pl.col("at")).is_between(0, int(hours * _HOUR_US)))
    columns = [
        old["decision_id"]
        .is_in(joined.filter(pl.col("event") == name)["decision_id"].implode())
        .cast(pl.Float64)
        .alias(name)
        for name in names
    ]
    return old.select(WHO).with_columns(columns), len(window) - len(old)


def read_scores(path: str, column: str) -> pl.DataFrame:
    """Return who and `score` of a parquet file or a folder of them; a list of scores becomes a row each.

    Raises:
        MeasureError: no such file or column.
    """
    where = Path(path)
    files = sorted(p for p in where.glob("*.parquet") if p.name[0] not in "._") if where.is_dir() else [where]
    if not files or not files[0].is_file():
        raise MeasureError(f"no scores at {path}: name a parquet file, or a folder with some")
    there = pq.read_schema(files[0]).names
    if column not in there:
        raise MeasureError(f"{path} has no column {column!r} (question.score_column); it has: {', '.join(there)}")
    wanted = [c for c in ("user_id", "session_id", column) if c in there]
    rows = with_who(
        pl.concat([pl.DataFrame(pl.from_arrow(pq.ParquetFile(f).read(columns=wanted))) for f in files]), path
    )
    if isinstance(rows[column].dtype, pl.List):
        of = np.repeat(np.arange(len(rows)), rows[column].list.len().fill_null(0).to_numpy())
        rows = pl.DataFrame({WHO: rows[WHO][of], column: pl.Series(pl.from_arrow(rows[column].to_arrow().flatten()))})
    return rows.select(WHO, score=pl.col(column).cast(pl.Float64))


def _rows(folder: Path, table: str, asked: Sequence[str], columns: set[str]) -> pl.DataFrame:
    """Return the rows of a table with who and at; adds the columns that it could compare to `columns`."""
    there = pq.read_schema(folder / f"{table}.parquet").names
    comparable = [c for c in there if c not in NEVER[table]]
    columns |= {f"{table}.{c}" for c in comparable}
    wanted = {*_NEEDED[table], *(c for c in comparable if not asked or f"{table}.{c}" in asked)}
    rows = pl.DataFrame(pl.from_arrow(read_table(folder, table, [c for c in there if c in wanted])))
    rows = with_who(rows, table).drop("user_id", "session_id", strict=False)
    late = rows["at"].is_null()
    if late.any():
        first = ", ".join(f"row {i}" for i in late.arg_true()[:5].to_list())
        raise MeasureError(f"{table}.at: {late.sum():,} of {len(rows):,} rows have no time, first {first}")
    return rows.with_columns(pl.col("at").cast(pl.Int64))
