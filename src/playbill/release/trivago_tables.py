"""trivago's log as tables for the towers: sessions as people, touches as events, and a code that tells hotels apart.

Of the hotels that are taken in test time, four in five were never touched before. A tower that knew hotels by their id
alone could not tell two of those apart, nor that one of them is the hotel that was looked at a minute ago; so each has
a code besides, 64 signs drawn by its number, which means nothing and is unlike every other's.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import polars as pl

from playbill.dataset.settings import SplitSettings
from playbill.features.shown_lists import ShownLists, Touches
from playbill.tables.files import write_atomic

_CODE_WIDTH, _CODE_SEED = 64, 7
_SECOND_US = 1_000_000


def moments(touches: Touches) -> np.ndarray:
    """Return [T] int64 UTC microseconds: the log's seconds, and in their order the events of a session's same second.

    The log names seconds alone, and half of its events share theirs with the event before.
    """
    frame = pl.DataFrame({"order": touches.order, "session": touches.session, "at": touches.at}).with_row_index("row")
    within = frame.sort("order").with_columns(pl.int_range(pl.len()).over("session", "at").alias("place")).sort("row")
    at: np.ndarray = touches.at * _SECOND_US + within["place"].to_numpy()
    return at


def asked_at(lists: ShownLists, touches: Touches) -> np.ndarray:
    """Return [R] int64 UTC microseconds of the lists' own clicks: what came strictly before was known."""
    order = np.argsort(touches.order)
    at: np.ndarray = moments(touches)[order[np.searchsorted(touches.order[order], lists.order)]]
    return at


def first_of_runs(touches: Touches) -> np.ndarray:
    """Return [n] int64 rows of touches that do not repeat the touch before them, in the order of the log.

    Leafing through one hotel's pictures is one event, not twenty: towers then learn where people went next.
    """
    order = np.argsort(touches.order)
    columns = (touches.session[order], touches.item[order], touches.kind[order])
    new = np.ones(len(order), bool)
    new[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return order[new]


def write_raw(folder: Path, touches: Touches, kinds: list[str], num_items: int, rows: np.ndarray) -> None:
    """Write parquet files and the mapping that `playbill prepare source=parquet` reads.

    Args:
        kinds: name of each kind of touch.
        num_items: hotels 0..N-1, those that were only shown included.
        rows: [n] int64 touches that become events.
    """
    events = pl.DataFrame(
        {
            "event_id": touches.order[rows],
            "session_id": touches.session[rows],
            "item_id": touches.item[rows],
            "event": np.asarray(kinds)[touches.kind[rows]],
            "at": moments(touches)[rows],
        }
    )
    signs = np.random.default_rng(_CODE_SEED).integers(0, 2, (num_items, _CODE_WIDTH)) * 2.0 - 1
    items = pl.DataFrame({"item_id": np.arange(num_items), "code": signs.astype(np.float32)})
    _write(folder / "events.parquet", events)
    _write(folder / "items.parquet", items.with_columns(pl.col("code").cast(pl.List(pl.Float32))))
    declared = "\n".join(f"  {kind}: {{meaning: {kind} of a hotel}}" for kind in kinds)
    write_atomic(folder / "mapping.yaml", f"{_MAPPING}{declared}\n".encode())


def split_at(at: np.ndarray, train_until: int, valid_until: int) -> SplitSettings:
    """Return the split that ends training and validation at these moments.

    Args:
        at: [n] int64 of all events, in the moments' unit.
    """
    train, valid = at < train_until, (at >= train_until) & (at < valid_until)
    return SplitSettings(train=float(train.mean()), valid=float(valid.mean()))


def _write(path: Path, frame: pl.DataFrame) -> None:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    write_atomic(path, buffer.getvalue())


_MAPPING = """items:
  hotels: {file: items.parquet, columns: {item_id: item_id}, features: {code: {kind: vector}}}
events:
  touches:
    file: events.parquet
    columns: {event_id: event_id, session_id: session_id, item_id: item_id, event: event, at: at}
    times: {at: us}
event_names:
"""
