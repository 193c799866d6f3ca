"""The encoder: histories, declared columns and the moment -> the arrays that models read. One code for every road.

Names and shapes, B queries, L = spec.history_length:

    history_item   int64   [B, L]   item_index, newest first; 0 unknown item, PAD (-1) where the history is shorter
    history_event  int64   [B, L]   event code, 0 where padded
    history_value  float32 [B, L]   mapped value, 0 where missing or padded
    history_age    float32 [B, L]   log(1 + days) back from the newest event of the history, 0 where padded
    <side>_<name>                   one array for each field of the spec, see `Encoding`

Age counts from the newest event and not from the request, so that somebody who comes back after a year looks as they
did when they left; the moment of the request is in the context fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from playbill.errors import FeatureError
from playbill.features.fold import LARGEST, EventPool
from playbill.features.spec import PAD, Encoding, FeatureSpec, Field, Side
from playbill.features.text import encode_texts, join_texts
from playbill.features.vectors import encode_vectors
from playbill.features.vocabulary import Vocabulary

Arrays = dict[str, np.ndarray]

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
MINUTE_US = 60_000_000
_LISTED_US = 2_145_916_800_000_000  # 2038: zones list their changes until then; Arrow and Python go on differently


def encode_history(pool: EventPool, start: np.ndarray, end: np.ndarray, spec: FeatureSpec) -> Arrays:
    """Return the history arrays of B queries.

    Args:
        pool: folded events.
        start: [B] int64, first row of each query's person in the pool.
        end: [B] int64, one past the last event the query may know (`point_in_time` finds it).
        spec: gives L.
    """
    length = spec.history_length
    rows = end[:, None] - 1 - np.arange(length)
    there = rows >= start[:, None]
    rows = np.where(there, rows, 0)
    if not len(pool):
        empty = np.zeros(there.shape, np.float32)
        return {
            "history_item": np.full(there.shape, PAD, np.int64),
            "history_event": np.zeros(there.shape, np.int64),
            "history_value": empty,
            "history_age": empty.copy(),
        }
    at = pool.at[rows]
    days = np.maximum(at[:, :1] - at, 0) / DAY_US
    return {
        "history_item": np.where(there, pool.item[rows], PAD),
        "history_event": np.where(there, pool.code[rows], 0),
        "history_value": np.where(there, pool.value[rows], 0).astype(np.float32),
        "history_age": np.where(there, np.log1p(days), 0).astype(np.float32),
    }


def point_in_time(pool: EventPool, person: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (start, end) [B] int64 of what each person had done strictly before `now` [B] (UTC microseconds)."""
    start, stop = pool.offsets[person], pool.offsets[person + 1]
    low, high = start.copy(), stop.copy()
    while np.any(low < high):  # one binary search for all queries at once
        middle = (low + high) // 2
        before = (low < high) & (pool.at[np.minimum(middle, len(pool) - 1)] < now)
        low, high = np.where(before, middle + 1, low), np.where(before | (low >= high), high, middle)
    return start, low


def encode_fields(
    columns: Mapping[str, Sequence[Any] | np.ndarray | pa.Array | pa.ChunkedArray],
    num_rows: int,
    fields: Sequence[Field],
    vocabularies: Mapping[str, Vocabulary],
) -> Arrays:
    """Return the arrays of one side's declared columns.

    Args:
        columns: by column name (`Field.reads`), [B] raw values; None or NaN is missing, and so is a column that is not
            there. Arrow arrays take no Python per row.
        num_rows: B.
        fields: of one side; CYCLE fields are left to `encode_moment`.
        vocabularies: by array name.
    Raises:
        FeatureError: a vector has another width than the spec says.
    """
    arrays: Arrays = {}
    for field in fields:
        if field.encoding is Encoding.CYCLE:
            continue
        raw: Any = columns.get(field.name)
        if field.encoding is Encoding.CATEGORY:
            indices = np.zeros(num_rows, np.int64) if raw is None else vocabularies[field.array].indices(_text(raw))
            arrays[field.array] = indices
        elif field.encoding is Encoding.CATEGORIES:
            arrays[field.array] = _categories(raw, num_rows, field, vocabularies[field.array])
        elif field.encoding is Encoding.VECTOR and field.reads != [field.name]:
            unit = encode_texts(join_texts(columns, field.reads, num_rows), vocabularies[field.array], field.width)
            arrays[field.array] = (unit / field.std).astype(np.float32)
        elif field.encoding is Encoding.VECTOR:
            arrays[field.array] = encode_vectors(raw, num_rows, field)
        else:
            arrays[field.array] = _numbers(raw, num_rows, field)
    return arrays


def encode_items(
    columns: Mapping[str, Sequence[Any] | np.ndarray | pa.Array | pa.ChunkedArray],
    spec: FeatureSpec,
    vocabularies: Mapping[str, Vocabulary],
) -> Arrays:
    """Return the item-side arrays of rows of the items table, such as items that came after training.

    An item that training did not know has item_index 0 and its content, and the item tower, which learned what content
    alone says (`unknown_share`), puts it near its like. Equal to the dataset's rows for items that it knew.

    Args:
        columns: item_id and the items table's columns, [n] each; one that is not there is missing in every row.
        spec, vocabularies: of the bundle or run.
    Returns:
        item_index [n] int64, and one array for each field of side ITEM.
    Raises:
        FeatureError: no item_id, ids of the wrong type, or a vector of another width than training saw.
    """
    if "item_id" not in columns:
        raise FeatureError(f"items to encode have no column item_id; they have: {', '.join(columns) or 'none'}")
    index = vocabularies["item"].indices(columns["item_id"])
    return {"item_index": index, **encode_fields(columns, len(index), spec.side(Side.ITEM), vocabularies)}


def encode_moment(now: np.ndarray, offset_minutes: np.ndarray, fields: Sequence[Field]) -> Arrays:
    """Return the CYCLE fields (`hour`, `weekday`) of the local time of each query.

    Args:
        now: [B] int64 UTC microseconds.
        offset_minutes: [B] int64 minutes by which local time is ahead of UTC, see `offsets`.
        fields: of side CONTEXT.
    """
    local = now + offset_minutes * MINUTE_US
    parts = {"hour": local // HOUR_US % 24, "weekday": (local // DAY_US + 3) % 7}  # 1970-01-01 was a Thursday
    return {f.array: parts[f.name].astype(np.int64) for f in fields if f.encoding is Encoding.CYCLE}


def offsets(timezones: Sequence[str | None] | np.ndarray, now: np.ndarray) -> np.ndarray:
    """Return [B] int64 minutes by which each local time is ahead of UTC at that moment, daylight saving included.

    Args:
        timezones: [B] IANA names such as "Europe/Rome"; one that is missing or unknown counts as UTC.
        now: [B] int64 UTC microseconds.
    """
    minutes = np.zeros(len(now), np.int64)
    if len(now) == 1 and 0 <= now[0] < _LISTED_US:  # one request: Arrow takes 100 us, mostly to find the zone
        known = _zone(timezones[0]) if isinstance(timezones[0], str) else None
        if known is not None:
            ahead = datetime.fromtimestamp(int(now[0]) // 1_000_000, known).utcoffset()
            minutes[0] = 0 if ahead is None else ahead.total_seconds() // 60
            return minutes
    numbers: dict[str, int] = {}
    named = (z if isinstance(z, str) else "" for z in timezones)
    number = np.fromiter((numbers.setdefault(z, len(numbers)) for z in named), np.int64, len(now))
    for zone, mine in numbers.items():
        rows = np.flatnonzero(number == mine)
        try:
            moments = pa.array(now[rows], pa.timestamp("us")).cast(pa.timestamp("us", tz=zone))
            local = np.asarray(pc.local_timestamp(moments).cast(pa.int64()))
        except pa.ArrowInvalid:  # none, or no such zone: a bad profile must not stop a request
            continue
        minutes[rows] = (local - now[rows]) // MINUTE_US
    return minutes


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # Arrow knows a few more, such as +02:00
        return None


def encode_queries(
    pool: EventPool,
    start: np.ndarray,
    end: np.ndarray,
    now: np.ndarray,
    users: Mapping[str, Any],
    context: Mapping[str, Any],
    spec: FeatureSpec,
    vocabularies: Mapping[str, Vocabulary],
    offset_minutes: np.ndarray | None = None,
) -> Arrays:
    """Return all query-side arrays of B queries: history, user fields and context fields.

    Args:
        pool, start, end: see `encode_history`.
        now: [B] int64 UTC microseconds of each request.
        users: raw users-table columns by name, [B] each.
        context: raw context columns by name, [B] each.
        offset_minutes: [B] local time zone; None takes it from the users' column `timezone`, UTC where there is none.
    """
    num_rows = len(now)
    if offset_minutes is None:
        zones = users.get("timezone")
        offset_minutes = np.zeros(num_rows, np.int64) if zones is None else offsets(zones, now)
    return {
        **encode_history(pool, start, end, spec),
        **encode_fields(users, num_rows, spec.side(Side.USER), vocabularies),
        **encode_fields(context, num_rows, spec.side(Side.CONTEXT), vocabularies),
        **encode_moment(now, offset_minutes, spec.side(Side.CONTEXT)),
    }


def _text(raw: Any) -> Any:
    if isinstance(raw, (pa.Array, pa.ChunkedArray)) and pa.types.is_string(raw.type):
        return raw
    raw = raw.to_pylist() if isinstance(raw, (pa.Array, pa.ChunkedArray)) else raw
    return [v if isinstance(v, str) else None if v is None or v != v else str(v) for v in raw]


def _numbers(raw: Any, num_rows: int, field: Field) -> np.ndarray:
    if raw is None:
        return np.zeros(num_rows, np.float32)
    if isinstance(raw, (pa.Array, pa.ChunkedArray)):
        numeric = pa.types.is_integer(raw.type) or pa.types.is_floating(raw.type) or pa.types.is_boolean(raw.type)
        raw = np.asarray(raw.cast(pa.float64(), safe=False).fill_null(float("nan"))) if numeric else raw.to_pylist()
    if isinstance(raw, np.ndarray) and raw.dtype.kind in "iufb":
        number = raw.astype(np.float64)
    else:
        number = np.fromiter((_number(v) for v in raw), np.float64, num_rows)
    scaled = (np.where(np.isfinite(number), number, np.nan) - field.mean) / field.std
    return np.clip(np.nan_to_num(scaled, nan=0.0), -LARGEST, LARGEST).astype(np.float32)


def _number(value: Any) -> float:
    try:
        return float("nan") if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _categories(raw: Any, num_rows: int, field: Field, vocabulary: Vocabulary) -> np.ndarray:
    out = np.full((num_rows, field.width), PAD, np.int64)
    if raw is None:
        return out
    for row, values in enumerate(raw.to_pylist() if isinstance(raw, (pa.Array, pa.ChunkedArray)) else raw):
        if isinstance(values, str):  # one category, not its letters
            values = [values]
        if not isinstance(values, (list, tuple, np.ndarray)):
            continue
        kept = [vocabulary.index(v) for v in values[: field.width]]
        out[row, : len(kept)] = kept
    return out
