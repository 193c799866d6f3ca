"""`playbill items`: tells a running server what a file says of items, in batches; told twice, nothing changes."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from playbill.ask import address, post
from playbill.errors import ConfigError, PlaybillError, RefusedError

_PLACE = re.compile(r"items\[(\d+)\]")
_TRIES, _SHOWN = 10, 50
Numbered = tuple[int, dict[str, Any]]  # of a file: the number of a row, from 1, and what it says


@dataclass(slots=True, kw_only=True)
class FeedSettings:
    """Tell a running server of items: new ones, changed ones, withdrawn ones.

    playbill items file=feed.parquet

    One row an item: `item_id` and any columns of the items table, `withdrawn` and `creatives` included. Cells that are
    empty in a .parquet or .csv file say nothing; a null in a .jsonl file takes back what was told. Rows that the server
    does not understand are listed with their numbers, the others are noted.
    """

    file: str = ""
    """A .parquet, .csv or .jsonl file."""
    home: str = "var"
    """Root of all that Playbill writes; a server that runs from here is found without its address."""
    url: str | None = None
    """Address of the server; null: of the one that runs from `home`, else http://127.0.0.1:8000."""
    key: str | None = None
    """API key with the scope `items`; null: of the environment variable PLAYBILL_KEY."""
    start: int = 1
    """Row to begin with, the first being 1; what came to an end early says where to go on."""
    batch_rows: int = 500
    """Rows of one request, at most 1000."""
    batch_kb: int = 200
    """Most kilobytes of one request, below the server's `max_body_bytes`."""
    lists: list[str] = field(default_factory=lambda: ["categories"])
    """Columns of a .csv file that hold lists."""
    separator: str = "|"
    """What stands between the values of a list in a .csv file."""
    texts: list[str] = field(default_factory=list)
    """Columns of a .csv file that are text though they look like numbers."""
    timeout_s: float = 60.0
    """Seconds to wait for each answer."""

    def __post_init__(self) -> None:
        if not 1 <= self.batch_rows <= 1000:
            raise ConfigError(f"batch_rows: expected 1 to 1000, got {self.batch_rows}")
        for name in ("start", "batch_kb"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, got {getattr(self, name)}")


def run(settings: FeedSettings) -> None:
    """Tell the server what the file says; see `FeedSettings`.

    Raises:
        PlaybillError: the file cannot be read, rows were not understood, or the server cannot take more; says where to
            go on.
    """
    path = Path(settings.file)
    if not settings.file or not path.is_file():
        raise ConfigError(f"file: no {settings.file!r}; expected a .parquet, .csv or .jsonl file of items")
    url = settings.url or address(Path(settings.home))
    console = Console(stderr=True)
    changes: Counter[str] = Counter()
    hidden: Counter[str] = Counter()
    faults: list[str] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("items", total=_num_rows(path))
        for batch in _batches(_rows(path, settings), settings):
            try:
                told = _tell(url, batch, settings, faults)
            except PlaybillError as error:
                raise PlaybillError(
                    f"{error}; rows before {batch[0][0]} are noted: go on with start={batch[0][0]}"
                ) from error
            changes.update(note["change"] for note in told)
            hidden.update(note["reason"] for note in told if not note["shown"])
            progress.update(bar, completed=batch[-1][0])
    counts = ", ".join(f"{changes[what]:,} {what}" for what in ("new", "changed", "withdrawn", "unchanged"))
    console.print(f"items of {path.name}: {counts}", highlight=False)
    for reason, count in hidden.most_common(_SHOWN):
        console.print(f"  {count:,} cannot be shown: {escape(reason)}", highlight=False, soft_wrap=True)
    for fault in faults[:_SHOWN]:
        console.print(f"  {escape(fault)}", highlight=False, soft_wrap=True)
    if faults:
        more = f", the first {_SHOWN} are named above" if len(faults) > _SHOWN else ""
        raise PlaybillError(f"{len(faults):,} rows of {path.name} were not understood{more}; all others are noted")


def _tell(url: str, batch: list[Numbered], settings: FeedSettings, faults: list[str]) -> list[dict[str, Any]]:
    """Return the server's notes of a batch; rows that it does not understand are left out and put among the faults."""
    batch, waited = list(batch), 0
    while batch:
        try:
            body = {"items": [row for _, row in batch]}
            notes: list[dict[str, Any]] = post(url, "/v1/items", body, settings.timeout_s, settings.key)[0]["items"]
            return notes
        except RefusedError as error:
            place = _PLACE.match(error.field)
            if error.status == 422 and place:
                reason = _PLACE.sub(lambda found: f"row {batch[int(found[1])][0]}", error.reason)
                number = batch.pop(int(place[1]))[0] if int(place[1]) < len(batch) else 0
                faults.append(f"row {number}: {error.field[place.end() :].lstrip('.')}: {reason}".replace(": :", ":"))
            elif error.status in (429, 503) and waited < _TRIES:
                waited += 1
                time.sleep(error.retry_after_s)
            else:
                raise
    return []


def _batches(rows: Iterator[Numbered], settings: FeedSettings) -> Iterator[list[Numbered]]:
    batch: list[Numbered] = []
    size = 0
    for number, row in rows:
        mine = len(json.dumps(row).encode()) + 2
        if batch and (len(batch) == settings.batch_rows or size + mine > settings.batch_kb * 1_000):
            yield batch
            batch, size = [], 0
        batch.append((number, row))
        size += mine
    if batch:
        yield batch


def _rows(path: Path, settings: FeedSettings) -> Iterator[Numbered]:
    """Yield rows from the first that is wanted on, in the form of json."""
    read = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}.get(path.suffix)
    if read is None:
        raise ConfigError(f"file: expected .parquet, .csv or .jsonl, got {path.name!r}")
    for number, row in enumerate(read(path, settings), 1):
        if number >= settings.start:
            yield number, row


def _num_rows(path: Path) -> int | None:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return int(pq.ParquetFile(path).metadata.num_rows)
    return None


def _parquet(path: Path, settings: FeedSettings) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path).iter_batches(settings.batch_rows):
            yield from map(_told, batch.to_pylist())
    except pa.ArrowInvalid as error:
        raise PlaybillError(f"{path} cannot be read: {error}") from error


def _csv(path: Path, settings: FeedSettings) -> Iterator[dict[str, Any]]:
    import polars as pl

    try:
        names = pl.read_csv(path, n_rows=0).columns
        text = {name: pl.String for name in ("item_id", *settings.texts, *settings.lists) if name in names}
        table = pl.read_csv(path, schema_overrides=text, infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        raise PlaybillError(f"{path} cannot be read: {error}") from error
    for row in table.iter_rows(named=True):
        told = _told(row)
        yield {n: v.split(settings.separator) if n in settings.lists else v for n, v in told.items()}


def _jsonl(path: Path, settings: FeedSettings) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise PlaybillError(f"{path}: row {number} is no json: {error}") from error


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """Return what a row says, in values that json knows."""
    return {name: _plain(value) for name, value in row.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return _told(value)
    if isinstance(value, date):
        return value.isoformat()
    return float(value) if isinstance(value, Decimal) else value
