"""The dataset: tables, folded and encoded once, from which any row can be seen as it was at its moment."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from playbill.dataset.arrays import blocks, read_blocks
from playbill.dataset.counts import DataCounts
from playbill.dataset.folded import fold_in_memory
from playbill.dataset.settings import STREAM_ABOVE_EVENTS, SplitKind, SplitSettings
from playbill.dataset.splits import Split, part_number
from playbill.dataset.stored import fold_on_disk
from playbill.features.build import read_tables
from playbill.features.column import Column
from playbill.features.encoder import Arrays, encode_fields, encode_history, encode_moment, offsets, point_in_time
from playbill.features.fold import EventPool
from playbill.features.people import People
from playbill.features.settings import FeatureSettings
from playbill.features.spec import FeatureSpec, Side
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
        user_columns: raw columns of the users table by name, [P] each, None where missing; list-like.
        user_arrays: encoded user fields, [P, ...] each.
        context_arrays: encoded context fields that come from the events table, [E, ...] each.
        items: the items table with `item_index` first, sorted by it.
        item_arrays: encoded item fields, [N + 1, ...] each; row 0 is the unknown item.
        split: which part each event belongs to.
        counts: what went in, and what was left out.
        fingerprint: equal for equal tables and settings.
    """

    spec: FeatureSpec
    vocabularies: dict[str, Vocabulary]
    pool: EventPool
    people: People
    user_columns: dict[str, Column]
    user_arrays: Arrays
    context_arrays: Arrays
    items: pl.DataFrame
    item_arrays: Arrays
    split: Split
    counts: DataCounts
    fingerprint: str

    @property
    def user_ids(self) -> Column:
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


def open_dataset(
    tables_path: Path | str,
    features: FeatureSettings,
    split: SplitSettings,
    stream_above_events: int = STREAM_ABOVE_EVENTS,
) -> Dataset:
    """Return the dataset of a folder of tables.

    People without consent for the purpose `training` are not in it, where the users table has that column.

    A log of more than `stream_above_events` rows is never in memory: it is folded through files into
    <home>/cache/pools (`pools` beside a folder of tables that is in no home), once for each dataset fingerprint, and
    its arrays are read from there where they are touched. Both roads give the same arrays, bit for bit.

    Args:
        stream_above_events: 0 streams any log; changes no result.
    Raises:
        TableError: no such folder, or a broken one.
        FeatureError: the features asked for cannot be had.
        ConfigError: `order_column` is no numeric column of the events table.
    """
    folder, tables_path = read_folder(tables_path), Path(tables_path)
    fingerprint = dataset_fingerprint(tables_path, features, split)
    streamed = folder.rows.get("events", 0) > stream_above_events
    tables = read_tables(tables_path, folder, events=not streamed)
    if streamed:
        folded = fold_on_disk(pools_of(tables_path) / fingerprint, tables_path, folder, tables, features, split)
    else:
        folded = fold_in_memory(folder, tables, features, split)
    spec, vocabularies, people = folded.spec, folded.vocabularies, folded.people
    users = _people_rows(tables.get("users"), people)
    return Dataset(
        spec=spec,
        vocabularies=vocabularies,
        pool=folded.pool,
        people=people,
        user_columns=users,
        user_arrays=encode_fields(
            {name: column.array for name, column in users.items()}, len(people), spec.side(Side.USER), vocabularies
        ),
        context_arrays=folded.context_arrays,
        items=_items_frame(tables["items"]),
        item_arrays=_item_arrays(tables["items"], spec, vocabularies),
        split=folded.split,
        counts=folded.counts,
        fingerprint=fingerprint,
    )


def pools_of(tables_path: Path) -> Path:
    """Return the folder in which folded logs of these tables are kept."""
    parent = tables_path.absolute().parent
    return parent.parent / "cache" / "pools" if parent.name == "tables" else parent / "pools"


def examples(dataset: Dataset, part: str, min_history: int = 0) -> Examples:
    """Return every event of a part as a row to predict, in pool order.

    For a global split, the history of a row is what the person did strictly earlier, so events of one moment do not see
    each other; for leave-last-out it is the rows before it in the person's order.

    Args:
        part: train, valid or test.
        min_history: rows with fewer earlier events than this are left out.
    """
    pool, split = dataset.pool, dataset.split
    rows = rows_of(dataset, part)
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
    return {
        **encode_history(dataset.pool, start, end, dataset.spec),
        **field_arrays(dataset, person, now, target_row),
    }


def field_arrays(dataset: Dataset, person: np.ndarray, now: np.ndarray, target_row: np.ndarray | None = None) -> Arrays:
    """Return the fields of B people at B moments: the query-side arrays without the history. Args: `query_arrays`."""
    fields = dataset.spec.side(Side.CONTEXT)
    zones = dataset.user_columns.get("timezone")
    offset = np.zeros(len(now), np.int64) if zones is None else offsets(zones.take(person), now)
    return {
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
    counts, number = np.zeros(dataset.spec.num_items + 1, np.int64), part_number(part)
    for item, parts in zip(read_blocks(dataset.pool.item), read_blocks(dataset.split.part), strict=True):
        counts += np.bincount(item[parts == number], minlength=len(counts))
    counts[0] = 0
    return counts


def rows_of(dataset: Dataset, part: str) -> np.ndarray:
    """Return [R] int64 pool rows of a part whose item is known, ascending."""
    number, pool, split = part_number(part), dataset.pool, dataset.split
    found = [
        b.start + np.flatnonzero((split.part[b] == number) & (pool.item[b] > 0)) for b in blocks(len(dataset.pool))
    ]
    return np.concatenate([np.zeros(0, np.int64), *found])


def _people_rows(users: pa.Table | None, people: People) -> dict[str, Column]:
    if users is None:
        return {}
    rows = pa.array(people.users_row, mask=people.users_row < 0)
    return {name: Column(users[name].take(rows)) for name in users.column_names}


def _item_arrays(items: pa.Table, spec: FeatureSpec, vocabularies: dict[str, Vocabulary]) -> Arrays:
    """Return the encoded item fields, [N + 1, ...] each, the unknown item first."""
    fields = spec.side(Side.ITEM)
    unknown = pa.nulls(1)
    names = {name for field in fields for name in field.reads}
    columns = {n: pa.chunked_array([unknown.cast(items[n].type), *items[n].chunks]) for n in sorted(names)}
    return encode_fields(columns, spec.num_items + 1, fields, vocabularies)


def _items_frame(items: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(items)
    assert isinstance(frame, pl.DataFrame)
    index = pl.Series("item_index", np.arange(1, frame.height + 1))
    return frame.with_columns(index).select("item_index", *frame.columns)
