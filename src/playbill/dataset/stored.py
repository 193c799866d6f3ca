"""The fold of a log that is larger than memory: through sorted parts into mapped arrays, kept for the next time.

    <home>/cache/pools/<dataset fingerprint>/
        item.npy code.npy value.npy at.npy person.npy source_row.npy    the pool, one row an event
        offsets.npy users_row.npy people.arrow                          one row a person
        part.npy                                                        the split
        context/<array>.npy                                             encoded context columns
        features.json vocab/ pool.json                                  spec, vocabularies, moments of the split, counts

Three passes over the events table: who the people are; every event into the part that its person belongs to; what the
events of training time teach the features. Memory holds ids of people and items, a batch, and one part at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from playbill.dataset.arrays import ArrayWriter, map_array, read_blocks, release
from playbill.dataset.counts import DataCounts, count
from playbill.dataset.folded import Folded, check_order, context_columns, draft_spec
from playbill.dataset.log import Parts, log_schema, read_log
from playbill.dataset.settings import SplitKind, SplitSettings
from playbill.dataset.splits import Split, global_time, leave_last_out
from playbill.features.build import CYCLES, make_features, no_facts, read_features, times, write_features
from playbill.features.column import Column
from playbill.features.encoder import encode_fields
from playbill.features.facts import EventFacts
from playbill.features.fold import EventPool, fold_rows, map_values, tie_keys
from playbill.features.people import People, PeopleNumbers
from playbill.features.settings import FeatureSettings
from playbill.features.spec import FeatureSpec
from playbill.features.vocabulary import Vocabulary
from playbill.tables.files import alone, atomic_folder, write_atomic
from playbill.tables.ids import IdNumbers
from playbill.tables.schema import TableFolder

FORMAT = 1
_COLUMNS = {"item": np.int64, "code": np.int64, "at": np.int64, "person": np.int64, "source_row": np.int64}


class PoolRecord(msgspec.Struct, frozen=True, kw_only=True):
    """pool.json."""

    format: int = FORMAT
    kind: SplitKind
    train_until_us: int
    valid_until_us: int
    counts: DataCounts


def fold_on_disk(
    path: Path,
    tables_path: Path,
    folder: TableFolder,
    tables: Mapping[str, pa.Table],
    features: FeatureSettings,
    split: SplitSettings,
) -> Folded:
    """Return the fold of a log that is streamed, from `path` where it stands already. Equal to `fold_in_memory`.

    Args:
        path: the folder of this fold; made whole or not at all, by one process while others wait.
        tables_path: where events.parquet stands.
        tables: users, where there is one, and items.
    Raises:
        TableError: the log cannot be read.
        FeatureError: the features asked for cannot be had.
        ConfigError: `order_column` is no numeric column of the events table.
    """
    with alone(path):
        record = _read_record(path)
        if record is None:
            with atomic_folder(path) as new:
                _write(new, tables_path, folder, tables, features, split)
            record = _read_record(path)
            assert record is not None
    spec, vocabularies = read_features(path)
    return Folded(
        spec=spec,
        vocabularies=vocabularies,
        pool=_open_pool(path),
        people=_read_people(path),
        context_arrays={f.array: map_array(path / "context" / f"{f.array}.npy") for f in context_columns(spec)},
        split=Split(record.kind, map_array(path / "part.npy"), record.train_until_us, record.valid_until_us),
        counts=record.counts,
    )


def _write(
    path: Path,
    tables_path: Path,
    folder: TableFolder,
    tables: Mapping[str, pa.Table],
    features: FeatureSettings,
    split: SplitSettings,
) -> None:
    schema = log_schema(tables_path)
    if split.order_column is not None:
        check_order(schema, split.order_column)
    facts = no_facts(folder, features)
    work = path / "work"
    work.mkdir()
    numbers, rows_of_person = _number(tables_path, schema, tables.get("users"), work)
    people = numbers.people()
    items = Vocabulary(tables["items"]["item_id"])
    log = _Log(tables_path, schema, numbers, work, items)
    draft = draft_spec(folder, features)
    context = [n for n in features.context if n not in CYCLES]
    eligible, of_nobody = _part(log, Parts(work, rows_of_person), draft, split, context, path, len(people))
    pool = _open_pool(path, values=False)
    parts = _split(pool, split, path)
    _learn(log, facts, pool, parts, split)
    spec, vocabularies = make_features(folder, tables, schema, features, facts, items)
    _map_values(path, pool, spec)
    _encode_context(path, spec, vocabularies)
    counts = count(folder.rows["events"], of_nobody, eligible, pool, parts, spec.num_items)
    _write_people(path, people)
    write_features(path, spec, vocabularies)
    shutil.rmtree(work)
    record = PoolRecord(
        kind=split.kind, train_until_us=parts.train_until_us, valid_until_us=parts.valid_until_us, counts=counts
    )
    write_atomic(path / "pool.json", msgspec.json.format(msgspec.json.encode(record), indent=1))


class _Log:
    """The events table once people have their numbers: batches with the person and the item of each row."""

    def __init__(
        self, tables_path: Path, schema: pa.Schema, numbers: PeopleNumbers, work: Path, items: Vocabulary
    ) -> None:
        self.tables_path, self.schema, self.numbers = tables_path, schema, numbers
        self.person, self.items = map_array(work / "person.npy"), items
        # hashes all items once, not anew in every batch as `Vocabulary.indices` does
        self.item_numbers = IdNumbers(items.arrow)

    def read(self, columns: list[str]) -> Iterator[tuple[slice, pa.Table, np.ndarray]]:
        """Yield (rows of the table, these columns, person [n] int64 or -1)."""
        start = 0
        kept = [c for c in dict.fromkeys(columns) if c in self.schema.names]
        for batch in read_log(self.tables_path, kept):
            rows = slice(start, start + batch.num_rows)
            yield rows, batch, self.numbers.settle(self.person[rows])
            start = rows.stop
            release(self.person)

    def item(self, batch: pa.Table) -> np.ndarray:
        """Return [n] int64 item_index, 0 where unknown or none."""
        return self.item_numbers.look_up(self.items.typed(batch["item_id"]).combine_chunks()) + 1


def _number(
    tables_path: Path, schema: pa.Schema, users: pa.Table | None, work: Path
) -> tuple[PeopleNumbers, np.ndarray]:
    """Number the people, leave the number of each row in person.npy, and return [P] int64 rows of each person."""
    numbers = PeopleNumbers(users, schema)
    columns = [n for n in ("user_id", "session_id") if n in schema.names]
    users_rows, session_rows = np.zeros(0, np.int64), np.zeros(0, np.int64)
    with ArrayWriter(work / "person.npy", np.int64) as writer:
        for batch in read_log(tables_path, columns):
            number = numbers.add(batch)
            writer.append(number)
            users_rows = _add_counts(users_rows, number[number >= 0], len(numbers.users))
            session_rows = _add_counts(session_rows, -2 - number[number <= -2], len(numbers.sessions))
    return numbers, np.concatenate([users_rows, session_rows])


def _add_counts(counts: np.ndarray, values: np.ndarray, length: int) -> np.ndarray:
    if length > len(counts):
        counts = np.concatenate([counts, np.zeros(length - len(counts), np.int64)])
    if len(values):
        first = int(values.min())
        more = np.bincount(values - first)
        counts[first : first + len(more)] += more
    return counts


def _part(
    log: _Log, parts: Parts, draft: FeatureSpec, split: SplitSettings, context: list[str], path: Path, num_people: int
) -> tuple[int, int]:
    """Write the pool's arrays; return the rows that entered the fold and the rows of nobody.

    Raw values, which only the finished spec can map, are left in work/, and so are the raw context columns.
    """
    codes = np.asarray([0, *(e.code for e in draft.events)], np.int64)
    names = Vocabulary([e.name for e in draft.events])
    eligible = of_nobody = 0
    wanted = ["event_id", "event", "at", "item_id", "value", *context]
    if split.order_column is not None:
        wanted.append(split.order_column)
    for rows, batch, person in log.read(wanted):
        order = None
        if split.order_column is not None:
            order = np.asarray(batch[split.order_column].cast(pa.float64()).fill_null(float("nan")))
            person = np.where(np.isnan(order), -1, person)
        code = codes[names.indices(batch["event"])]
        kept = np.flatnonzero((code > 0) & (person >= 0) & np.asarray(batch["item_id"].is_valid()))
        eligible, of_nobody = eligible + len(kept), of_nobody + int((person < 0).sum())
        columns = {
            "person": person[kept],
            "source_row": rows.start + kept,
            "item": log.item(batch)[kept],
            "code": code[kept],
            "at": times(batch)[kept],
        }
        taken = batch.take(pa.array(kept))
        spilled = pa.table({**columns, "event_id": taken["event_id"], **{f"raw_{n}": taken[n] for n in context}})
        if "value" in log.schema.names:
            value = taken["value"].cast(pa.float64()).fill_null(float("nan"))
            spilled = spilled.append_column("value", value)
        if order is not None:
            spilled = spilled.append_column("order", pa.array(order[kept]))
        parts.add(spilled, columns["person"])
    parts.close()
    _sort(parts, split, path, num_people)
    return eligible, of_nobody


def _sort(parts: Parts, split: SplitSettings, path: Path, num_people: int) -> None:
    """Write every part in the order of its people's histories, each event once."""
    lengths = np.zeros(num_people, np.int64)
    writers = {name: ArrayWriter(path / f"{name}.npy", dtype) for name, dtype in _COLUMNS.items()}
    value_writer = ArrayWriter(path / "work" / "value.npy", np.float64)
    context: pa.ipc.RecordBatchStreamWriter | None = None
    for part in parts.read():
        column = {name: part[name].to_numpy() for name in _COLUMNS}
        person, at = column["person"], column["at"]
        rows = fold_rows(person, at, tie_keys(part["event_id"]), np.ones(len(person), bool))
        if split.order_column is not None:
            rows = rows[np.lexsort((part["order"].to_numpy()[rows], person[rows]))]
        elif split.kind is SplitKind.leave_last_out:
            rows = rows[np.lexsort((column["source_row"][rows], at[rows], person[rows]))]
        for name, writer in writers.items():
            writer.append(column[name][rows])
        value_writer.append(
            part["value"].to_numpy()[rows] if "value" in part.column_names else np.full(len(rows), np.nan)
        )
        first = int(person.min())
        counted = np.bincount(person[rows] - first)
        lengths[first : first + len(counted)] += counted
        raw = part.select([n for n in part.column_names if n.startswith("raw_")])
        if raw.num_columns:
            if context is None:
                context = pa.ipc.new_stream(pa.OSFile(str(path / "work" / "context.arrow"), "wb"), raw.schema)
            context.write_table(raw.take(pa.array(rows)))
    for writer in (*writers.values(), value_writer):
        writer.close()
    if context is not None:
        context.close()
    np.save(path / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def _split(pool: EventPool, settings: SplitSettings, path: Path) -> Split:
    """Write part.npy and return the split."""
    if settings.kind is SplitKind.global_time:
        train_until, valid_until = global_time(pool.at, settings.train, settings.valid)
        with ArrayWriter(path / "part.npy", np.int8) as writer:
            for at in read_blocks(pool.at):
                writer.append((at >= train_until).astype(np.int8) + (at >= valid_until).astype(np.int8))
    else:
        train_until = valid_until = max((int(at.max()) for at in read_blocks(pool.at)), default=-1) + 1
        np.save(path / "part.npy", leave_last_out(pool.offsets))
    return Split(settings.kind, map_array(path / "part.npy"), train_until, valid_until)


def _learn(log: _Log, facts: EventFacts, pool: EventPool, parts: Split, split: SplitSettings) -> None:
    """Let the facts see every event that may teach."""
    users_row = log.numbers.people().users_row
    teaches = None if split.kind is SplitKind.global_time else _training_rows(pool, parts, len(log.person))
    for rows, batch, person in log.read(["item_id", "at", *facts.reads]):
        if teaches is None:
            known = np.flatnonzero((person >= 0) & (times(batch) < parts.train_until_us))
        else:
            known = np.flatnonzero(teaches[rows])
        item = log.item(batch)[known]
        facts.add(batch.select(facts.reads).take(pa.array(known)), users_row[person[known]], item)


def _training_rows(pool: EventPool, parts: Split, num_rows: int) -> np.ndarray:
    """Return [num_rows] bool, rows of the events table that train."""
    teaches = np.zeros(num_rows, bool)
    for row, part in zip(read_blocks(pool.source_row), read_blocks(parts.part), strict=True):
        teaches[row[part == 0]] = True
    return teaches


def _map_values(path: Path, pool: EventPool, spec: FeatureSpec) -> None:
    raw = map_array(path / "work" / "value.npy")
    with ArrayWriter(path / "value.npy", np.float32) as writer:
        for value, code in zip(read_blocks(raw), read_blocks(pool.code), strict=True):
            writer.append(map_values(value, code, spec))


def _encode_context(path: Path, spec: FeatureSpec, vocabularies: dict[str, Vocabulary]) -> None:
    """Write one array for each context column of the events table."""
    fields = context_columns(spec)
    (path / "context").mkdir()
    raw = path / "work" / "context.arrow"
    if not fields:
        return
    empty = encode_fields({}, 0, fields, vocabularies)
    widths = {name: array.shape[1] if array.ndim == 2 else None for name, array in empty.items()}
    writers = {n: ArrayWriter(path / "context" / f"{n}.npy", a.dtype, widths[n]) for n, a in empty.items()}
    if raw.is_file():  # nobody has an event otherwise
        with pa.OSFile(str(raw), "rb") as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                columns = {f.name: batch.column(f"raw_{f.name}") for f in fields}
                for name, array in encode_fields(columns, batch.num_rows, fields, vocabularies).items():
                    writers[name].append(array)
    for writer in writers.values():
        writer.close()


def _open_pool(path: Path, values: bool = True) -> EventPool:
    arrays = {name: map_array(path / f"{name}.npy") for name in _COLUMNS}
    value = map_array(path / "value.npy") if values else np.zeros(0, np.float32)
    return EventPool(**arrays, value=value, offsets=np.load(path / "offsets.npy"))


def _write_people(path: Path, people: People) -> None:
    np.save(path / "users_row.npy", people.users_row)
    table = pa.table({"user_id": people.user_ids.array, "session_id": people.session_ids.array})
    with pa.OSFile(str(path / "people.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _read_people(path: Path) -> People:
    with pa.memory_map(str(path / "people.arrow")) as file:
        table = pa.ipc.open_file(file).read_all()
    return People(Column(table["user_id"]), Column(table["session_id"]), np.load(path / "users_row.npy"))


def _read_record(path: Path) -> PoolRecord | None:
    """Return pool.json, or None where there is none that this Playbill wrote."""
    try:
        record = msgspec.json.decode((path / "pool.json").read_bytes(), type=PoolRecord)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    return record if record.format == FORMAT else None
