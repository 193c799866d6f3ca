"""The slate log as the tables' decisions: one row for each item that was shown, and for each creative if wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from playbill.engine.types import Page, Slate, SlateItem
from playbill.errors import TableError
from playbill.serving.slatelog import files
from playbill.serving.slatelog.lines import Logged, answer_of
from playbill.state.rows import schema_of
from playbill.tables.files import atomic_folder

_ROWS = 50_000  # in one row group
FILE = "decisions.parquet"


def export(paths: Sequence[Path], out: Path, creatives: bool) -> int:
    """Write `decisions.parquet` into a folder, whole or not at all; return how many rows it has.

    Args:
        paths: files of the log.
        out: folder; what stood there is replaced.
        creatives: also the choices of creatives, as decisions of their own.
    Raises:
        Damaged: a byte of a file is another than was written.
        TableError: people's ids are numbers in one place and text in another.
    """
    rows = _rows(paths, creatives)
    first = list(islice(rows, _ROWS))
    known = next((row["user_id"] for row in first if row["user_id"] is not None), 0)
    schema = schema_of("decisions", {"user_id": pa.string() if isinstance(known, str) else pa.int64()})
    count = 0
    with (
        atomic_folder(out) as folder,
        pq.ParquetWriter(folder / FILE, schema, compression="zstd") as writer,
    ):
        part = first
        while part or not count:
            try:
                writer.write_table(pa.Table.from_pylist(part, schema))
            except pa.ArrowInvalid as error:
                raise TableError(f"{out}: the people of these files have ids of different types: {error}") from None
            count += len(part)
            part = list(islice(rows, _ROWS))
            if not part:
                break
    return count


def _rows(paths: Sequence[Path], creatives: bool) -> Iterator[dict[str, Any]]:
    for path in paths:
        for number, line in files.read(path):
            if isinstance(line, Logged):
                yield from decision_rows(line, answer_of(line, f"{path} line {number}"), creatives)


def decision_rows(line: Logged, answer: Slate | Page, creatives: bool) -> Iterator[dict[str, Any]]:
    """Yield the rows of one answer.

    `decision_id` of an item is `<request_id>:<place>:item`, its place counted over the whole answer; events that name
    the decision of its creative, or this one, are about it. `position` is that within its shelf, where there are any.
    `context` holds what else is known: score, probabilities, retriever, reason, rung, surface, shelf.
    """
    place = 0
    arm = ",".join(f"{name}={value}" for name, value in sorted(line.arms.items()))
    for shelf, kind, items in _lists(answer):
        for item in items:
            context: dict[str, Any] = {
                "surface": answer.surface,
                "rung": answer.rung,
                "score": item.score,
                "probabilities": item.probabilities,
                "retriever": item.retriever,
                "reason": item.reason.kind,
                **({} if shelf is None else {"shelf": shelf, "shelf_kind": kind}),
                **({} if item.rules is msgspec.UNSET else {"rules": item.rules}),
            }
            row = {
                "decision_id": f"{answer.request_id}:{place}:item",
                "request_id": answer.request_id,
                "kind": "item",
                "chosen": str(item.item_id),
                "at": answer.at,
                "user_id": answer.user_id,
                "session_id": None if answer.session_id is None else str(answer.session_id),
                "position": item.position,
                "propensity": item.propensity,
                "policy": answer.policy,
                "bundle": answer.bundle,
                "arm": arm or None,
                "eligible_count": answer.eligible_count,
                "context": msgspec.json.encode(context).decode(),
            }
            yield row
            if creatives and item.creative_id is not None and isinstance(item.decision_id, str):
                yield {
                    **row,
                    "decision_id": item.decision_id,
                    "kind": "creative",
                    "chosen": str(item.creative_id),
                    "propensity": item.creative_propensity,
                    "eligible_count": None,
                    "context": msgspec.json.encode({"item_id": item.item_id, "surface": answer.surface}).decode(),
                }
            place += 1


def _lists(answer: Slate | Page) -> list[tuple[int | None, str, Sequence[SlateItem]]]:
    if isinstance(answer, Slate):
        return [(None, "", answer.items)]
    return [(shelf.position, shelf.kind, shelf.items) for shelf in answer.shelves]
