"""The dataset: tables, folded and encoded once, from which any row can be seen as it was at its moment."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from playbill.dataset.settings import SplitKind, SplitSettings
from playbill.dataset.splits import Split, part_number, split_pool
from playbill.errors import ConfigError
from playbill.features.build import event_codes, make_features, read_tables, times
from playbill.features.encoder import Arrays, encode_fields, encode_history, encode_moment, offsets, point_in_time
from playbill.features.fold import EventPool, fold_table, map_values
from playbill.features.people import People, number_people
from playbill.features.settings import FeatureSettings
from playbill.features.spec import Encoding, FeatureSpec, Side
from playbill.features.vocabulary import Vocabulary
from playbill.tables.folder import read_folder

DATASET_VERSION = 1  # grows when the same tables and settings come to mean other rows


@dataclass(slots=True)
class Dataset:
    """Events of consenting people, and what is known of people and items.

    Attributes:
        spec, vocabularies: built from training time alone.
        pool: all their events, in each person's order.
        people: who person 0..P-1 is.
        user_columns: raw columns of the users table by name, [P] each, None where missing.
        user_arrays: encoded user fields, [P, ...] each.
        context_arrays: encoded context fields that come from the events table, [E, ...] each.
        items: the items table with `item_index` first, sorted by it.
        item_arrays: encoded item fields, [N + 1, ...] each; row 0 is the unknown item.
        split: which part each event belongs to.
        fingerprint: equal for equal tables and settings.
    """

    spec: FeatureSpec
    vocabularies: dict[str, Vocabulary]
    pool: EventPool
    people: People
    user_columns: dict[str, list[Any]]
    user_arrays: Arrays
    context_arrays: Arrays
    items: pl.DataFrame
    item_arrays: Arrays
    split: Split
    fingerprint: str

    @property
    def user_ids(self) -> list[Any]:
        """[P] ids, None for a session that belongs to nobody known."""
        return self.people.user_ids


@dataclass(slots=True)
class Examples:
    """Rows to predict, each with what was known before it; the history is pool rows start .. end.

    Attributes:
        person: [R] int64.
        target_row: [R] int64 row in the pool.
        start, end: [R] int64.
        now: [R] int64 UTC microseconds of the event to predict.
    """

    person: np.ndarray
    target_row: np.ndarray
    start: np.ndarray
    end: np.ndarray
    now: np.ndarray

    def __len__(self) -> int:
        return len(self.person)


def dataset_fingerprint(tables_path: Path | str, features: FeatureSettings, split: SplitSettings) -> str:
    """Return the sha256 that a dataset of these tables and settings has; reads the manifest alone."""
    parts = [DATASET_VERSION, read_folder(tables_path).fingerprint, asdict(features), asdict(split)]
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


def open_dataset(tables_path: Path | str, features: FeatureSettings, split: SplitSettings) -> Dataset:
    """Return the dataset of a folder of tables.

    People without consent for the purpose `training` are not in it, where the users table has that column.

    Raises:
        TableError: no such folder, or a broken one.
        FeatureError: the features asked for cannot be had.
        ConfigError: `order_column` is no numeric column of the events table.
    """
    folder = read_folder(tables_path)
    tables = read_tables(tables_path, folder)
    events = tables["events"]
    people = number_people(tables.get("users"), events)
    person = people.of_event
    order = None
    if split.order_column is not None:
        order = _order(events, split.order_column)
        person = np.where(np.isnan(order), -1, person)

    # The split must be known before the spec, which learns from training time alone, and the fold needs the event codes
    # of the spec: so fold first, and map the values when the spec is there.
    draft = FeatureSpec(
        user_id_type="",
        item_id_type="",
        history_length=features.history_length,
        events=event_codes(folder, events.slice(0, 0), features),
        fields=[],
        num_items=0,
        vocabularies={},
    )
    pool = fold_table(events, person, len(people), draft, Vocabulary(tables["items"]["item_id"].to_pylist()))
    if order is not None:
        pool = _take(pool, np.lexsort((order[pool.source_row], pool.person)))
    elif split.kind is SplitKind.leave_last_out:
        # The fold settles ties by event id, since a stream has no rows. Here a tie decides what is held out, and an id
        # may be made from the item's: "the highest item comes last" would be a pattern of the ids, not of the people.
        pool = _take(pool, np.lexsort((pool.source_row, pool.at, pool.person)))
    parts = split_pool(pool, split)
    if split.kind is SplitKind.global_time:
        known = (person >= 0) & (times(events) < parts.train_until_us)
    else:
        known = np.zeros(events.num_rows, bool)
        known[pool.source_row[parts.part == 0]] = True
    spec, vocabularies = make_features(folder, tables, features, known)
    if "value" in events.column_names:
        value = np.asarray(events["value"].cast(pa.float64()).fill_null(float("nan")))
        pool.value = map_values(value[pool.source_row], pool.code, spec)

    users = _people_rows(tables.get("users"), people)
    moments = {f.name for f in spec.side(Side.CONTEXT) if f.encoding is Encoding.CYCLE}
    context = {
        f.name: events[f.name].take(pa.array(pool.source_row)).to_pylist()
        for f in spec.side(Side.CONTEXT)
        if f.name not in moments
    }
    items = tables["items"].to_pydict()
    with_unknown = {name: [None, *column] for name, column in items.items()}
    return Dataset(
        spec=spec,
        vocabularies=vocabularies,
        pool=pool,
        people=people,
        user_columns=users,
        user_arrays=encode_fields(users, len(people), spec.side(Side.USER), vocabularies),
        context_arrays=encode_fields(context, len(pool), spec.side(Side.CONTEXT), vocabularies),
        items=_items_frame(tables["items"]),
        item_arrays=encode_fields(with_unknown, spec.num_items + 1, spec.side(Side.ITEM), vocabularies),
        split=parts,
        fingerprint=dataset_fingerprint(tables_path, features, split),
    )


def examples(dataset: Dataset, part: str, min_history: int = 0) -> Examples:
    """Return every event of a part as a row to predict, in pool order.

    For a global split, the history of a row is what the person did strictly earlier, so events of one moment do not see
    each other; for leave-last-out it is the rows before it in the person's order.

    Args:
        part: train, valid or test.
        min_history: rows with fewer earlier events than this are left out.
    """
    pool, split = dataset.pool, dataset.split
    rows = np.flatnonzero((split.part == part_number(part)) & (pool.item > 0))
    person, now = pool.person[rows], pool.at[rows]
    if split.kind is SplitKind.global_time:
        start, end = point_in_time(pool, person, now)
    else:
        start, end = pool.offsets[person], rows
    kept = end - start >= min_history
    return Examples(person[kept], rows[kept], start[kept], end[kept], now[kept])


def query_arrays(
    dataset: Dataset,
    person: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    now: np.ndarray,
    target_row: np.ndarray | None = None,
) -> Arrays:
    """Return the query-side arrays of B rows, equal to `encoder.encode_queries` over the raw columns.

    Args:
        person, start, end, now: [B] int64, see `Examples`.
        target_row: [B] int64 pool rows whose event gives the context columns (its device, say); None leaves those
            missing.
    """
    spec, fields = dataset.spec, dataset.spec.side(Side.CONTEXT)
    zones = dataset.user_columns.get("timezone")
    offset = np.zeros(len(now), np.int64) if zones is None else offsets([zones[p] for p in person], now)
    return {
        **encode_history(dataset.pool, start, end, spec),
        **{name: array[person] for name, array in dataset.user_arrays.items()},
        **(
            encode_fields({}, len(now), fields, dataset.vocabularies)
            if target_row is None
            else {name: array[target_row] for name, array in dataset.context_arrays.items()}
        ),
        **encode_moment(now, offset, fields),
    }


def item_counts(dataset: Dataset, part: str = "train") -> np.ndarray:
    """Return [N + 1] int64, how often each item occurs in a part; row 0 (unknown) is 0. Negatives are drawn by it."""
    rows = dataset.split.part == part_number(part)
    counts = np.bincount(dataset.pool.item[rows], minlength=dataset.spec.num_items + 1).astype(np.int64)
    counts[0] = 0
    return counts


def _order(events: pa.Table, name: str) -> np.ndarray:
    if name not in events.column_names:
        raise ConfigError(f"order_column {name!r} is not in the events table; it has: {', '.join(events.column_names)}")
    kind = events[name].type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise ConfigError(f"order_column {name!r} must be numeric, it is {kind}")
    return np.asarray(events[name].cast(pa.float64()).fill_null(float("nan")))


def _take(pool: EventPool, rows: np.ndarray) -> EventPool:
    """Return the pool with the rows of each person in another order; the people's own order must not change."""
    return EventPool(
        item=pool.item[rows],
        code=pool.code[rows],
        value=pool.value[rows],
        at=pool.at[rows],
        person=pool.person[rows],
        offsets=pool.offsets,
        source_row=pool.source_row[rows],
    )


def _people_rows(users: pa.Table | None, people: People) -> dict[str, list[Any]]:
    if users is None:
        return {}
    rows = pa.array(people.users_row, mask=people.users_row < 0)
    return {name: users[name].take(rows).to_pylist() for name in users.column_names}


def _items_frame(items: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(items)
    assert isinstance(frame, pl.DataFrame)
    index = pl.Series("item_index", np.arange(1, frame.height + 1))
    return frame.with_columns(index).select("item_index", *frame.columns)
