"""A user's own parquet files, read through a mapping of their columns to the contract."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from playbill.errors import ConfigError, SourceError
from playbill.sources.propose import propose
from playbill.sources.settings import EventDeclaration, Feature, FileMapping, ParquetFiles
from playbill.tables.incoming import BATCH_ROWS, Incoming
from playbill.tables.schema import CONSENT_PREFIX, CONTRACT, TABLES, Column, EventKind, Kind, Provenance

MAPPING_FILE = "mapping.yaml"

# added columns (constants, numbered rows) take names that no file of a user's has
_ADDED = "playbill added "

# who says so, for columns of the contract that a mapping does not mark otherwise
_DECLARED = ("timezone", "contactable", "title", "text", "categories", "price", "published_at", "available", "provider")


def complete(source: ParquetFiles) -> tuple[ParquetFiles, Path | None]:
    """Return the settings with the mapping filled in, and the mapping file that was read.

    Raises:
        SourceError: no folder; or no mapping anywhere: the message proposes one, guessed from the files.
        ConfigError: the mapping file names something that does not exist; says which, and the nearest name.
    """
    if not source.folder:
        raise SourceError("source.folder is not set: give the folder that holds your parquet files")
    folder = Path(source.folder)
    if not folder.is_dir():
        raise SourceError(f"source.folder={folder}: no such folder")
    if source.mapping is None and any(getattr(source, table) for table in TABLES):
        return source, None
    path = Path(source.mapping) if source.mapping else folder / MAPPING_FILE
    if not path.is_file():
        if source.mapping:
            raise SourceError(f"source.mapping={path}: no such file")
        raise SourceError(
            f"no mapping: which of your columns is the user, the item, the time? {path} does not exist.\n"
            f"A proposal, guessed from the files. Save it as {path}, correct it, and run again:\n\n{propose(folder)}"
        )
    merged = _read_mapping(path, ParquetFiles)
    merged.folder, merged.mapping = source.folder, str(path)
    if source.name != ParquetFiles().name:
        merged.name = source.name
    return merged, path


def _read_mapping(path: Path, cls: type[ParquetFiles]) -> ParquetFiles:
    try:
        raw = msgspec.yaml.decode(path.read_bytes())
        if not isinstance(raw, dict):
            raise ConfigError(
                f"{path}: expected `users:`, `items:`, `events:` and `event_names:`, got {type(raw).__name__}"
            )
        _refuse_unknown(raw, cls, str(path))
        return msgspec.convert(raw, cls)
    except (msgspec.DecodeError, OSError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _refuse_unknown(raw: Any, kind: Any, where: str) -> None:
    """Walk the mapping beside its dataclasses: a word nobody reads is a typo, and a typo is an error."""
    if is_dataclass(kind) and isinstance(raw, dict):
        known = [f.name for f in fields(kind)]
        hints = get_type_hints(kind)
        for name, value in raw.items():
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)[0]
                raise ConfigError(f"{where}: no field {name!r}; nearest is {near!r}; fields: {', '.join(known)}")
            _refuse_unknown(value, hints[name], f"{where}: {name}")
    elif isinstance(raw, dict) and get_args(kind):
        for name, value in raw.items():
            _refuse_unknown(value, get_args(kind)[1], f"{where}.{name}")


def files_of(source: ParquetFiles) -> list[Path]:
    """Return every file that a complete mapping reads, missing ones included, in a fixed order."""
    return [path for table in TABLES for mapping in getattr(source, table).values() for path in _paths(source, mapping)]


def _paths(source: ParquetFiles, mapping: FileMapping) -> list[Path]:
    folder = Path(source.folder or "")
    if any(character in mapping.file for character in "*?["):
        # the plain name stands for "nothing matches": it is reported as a missing file
        return sorted(folder.glob(mapping.file)) or [folder / mapping.file]
    return [folder / mapping.file]


def read(source: ParquetFiles) -> tuple[list[Incoming], list[EventKind], list[str]]:
    """Return the rows of every mapped file, the declared events, and notes for the user.

    Raises:
        ConfigError: the mapping names a contract column that does not exist, maps one twice, or declares no events.
        SourceError: a file is missing, is no parquet, or lacks a mapped column; every fault of every file is listed.
    """
    incoming: list[Incoming] = []
    faults: list[str] = []
    notes: list[str] = []
    for table in TABLES:
        for label, mapping in getattr(source, table).items():
            columns = _columns(table, label, mapping)
            for path in _paths(source, mapping):
                try:
                    rows, unused = _open(table, label, path, mapping, columns)
                except SourceError as error:
                    faults.append(str(error))
                    continue
                incoming.append(rows)
                if unused:
                    notes.append(f"{path}: columns that the mapping leaves out: {', '.join(unused)}")
    if source.events and not source.event_names:
        raise ConfigError(
            "source.event_names is empty: declare every event name with its meaning, such as\n"
            "event_names:\n  purchase: {meaning: bought, unit: EUR, low: 0, utility: 5}"
        )
    if faults:
        raise SourceError("\n".join(faults))
    return incoming, [_event(name, declared) for name, declared in source.event_names.items()], notes


def _event(name: str, declared: EventDeclaration) -> EventKind:
    return EventKind(
        name=name,
        meaning=declared.meaning,
        unit=declared.unit,
        low=declared.low,
        high=declared.high,
        utility=declared.utility,
    )


def _columns(table: str, label: str, mapping: FileMapping) -> tuple[Column, ...]:
    """Return the contract's columns that a mapping fills, marked as it says."""
    contract = {column.name: column for column in CONTRACT[table]}
    plain = [*mapping.columns, *mapping.constants, *mapping.number_rows]
    where = f"source.{table}.{label}"
    for name in plain:
        if name not in contract:
            near = difflib.get_close_matches(name, contract, n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"{where}: {name!r} is no column of {table}; nearest is {near!r}; they are: {', '.join(contract)}. "
                "A column beyond these goes under `features`"
            )
    twice = {name for name in [*plain, *mapping.features] if [*plain, *mapping.features].count(name) > 1}
    if twice:
        raise ConfigError(f"{where}: {', '.join(sorted(twice))} is given more than once; keep one")
    for name in [*mapping.times, *mapping.separators]:
        if name not in mapping.columns and name not in mapping.features:
            raise ConfigError(f"{where}: {name!r} has a unit or separator, and is not mapped")
    found = [_contract_column(contract[name]) for name in plain]
    for name, feature in mapping.features.items():
        if name in contract and contract[name].kind != feature.kind:
            raise ConfigError(
                f"{where}.features.{name}: kind={feature.kind}, in the contract it is {contract[name].kind}"
            )
        if name.startswith(CONSENT_PREFIX) and feature.kind != Kind.FLAG:
            raise ConfigError(f"{where}.features.{name}: kind={feature.kind}; consent is a flag")
        found.append(_feature_column(name, feature, needed=name in contract and contract[name].needed))
    return tuple(found)


def _contract_column(column: Column) -> Column:
    provenance = Provenance.DECLARED if column.name in _DECLARED else Provenance.OBSERVED
    return Column(name=column.name, kind=column.kind, needed=column.needed, provenance=provenance)


def _feature_column(name: str, feature: Feature, *, needed: bool) -> Column:
    return Column(
        name=name,
        kind=Kind(feature.kind),
        needed=needed,
        provenance=Provenance(feature.provenance),
        protected=feature.protected,
        sensitive=feature.sensitive,
    )


def _open(
    table: str, label: str, path: Path, mapping: FileMapping, columns: tuple[Column, ...]
) -> tuple[Incoming, list[str]]:
    where = f"source.{table}.{label}"
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.parquet"))[:20] if path.parent.is_dir() else []
        raise SourceError(f"{where}: {path} does not exist; parquet files there: {', '.join(near) or 'none'}")
    if path.stat().st_size == 0:
        raise SourceError(f"{where}: {path} is empty (0 bytes); write it again")
    try:
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{where}: {path} is no whole parquet file ({error}); write it again") from error
    names = dict(mapping.columns) | {name: f.column or name for name, f in mapping.features.items()}
    missing = {raw: name for name, raw in names.items() if raw not in schema.names}
    if missing:
        said = ", ".join(f"{raw!r} (for {name}){_near(raw, schema.names)}" for raw, name in missing.items())
        raise SourceError(f"{where}: {path} has no column {said}; it has: {', '.join(schema.names)}")
    needed = sorted(set(names.values()))
    unused = [name for name in schema.names if name not in needed]
    raw_schema = pa.schema([schema.field(name) for name in schema.names if name in needed])
    for name in [*mapping.constants, *mapping.number_rows]:
        raw_schema = raw_schema.append(pa.field(_ADDED + name, pa.string()))
        names[name] = _ADDED + name

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=needed):
                yield _with_added(batch, raw_schema, mapping.constants, mapping.number_rows, label, path, start)
                start += batch.num_rows

    incoming = Incoming(
        table=table,
        file=str(path),
        schema=raw_schema,
        batches=batches,
        columns=columns,
        names=names,
        time_units=mapping.times,
        separators=mapping.separators,
        num_rows=rows,
    )
    return incoming, unused


def _near(name: str, known: Sequence[str]) -> str:
    found = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {found[0]!r}?" if found else ""


def _with_added(
    batch: pa.RecordBatch,
    schema: pa.Schema,
    constants: Mapping[str, str],
    numbered: Sequence[str],
    label: str,
    path: Path,
    start: int,
) -> pa.RecordBatch:
    arrays = [batch.column(batch.schema.get_field_index(n)) for n in schema.names if not n.startswith(_ADDED)]
    arrays += [pa.repeat(word, batch.num_rows) for word in constants.values()]
    ids = [f"{label}/{path.stem}/{row}" for row in range(start, start + batch.num_rows)] if numbered else []
    arrays += [pa.array(ids, pa.string()) for _ in numbered]
    return pa.record_batch(arrays, names=schema.names)
