"""A first mapping for files nobody has mapped yet, guessed from their names, types and first rows.

A guess is a start, never used unseen: it is printed, and the user saves, corrects and owns it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from playbill.tables.convert import convert
from playbill.tables.schema import CONTRACT, TABLES, Kind
from playbill.tables.vectors import is_vector

_SAMPLE_ROWS = 20_000

_TABLE_WORDS = {
    "users": ("user", "customer", "people", "person", "member", "client", "visitor", "account", "profile", "household"),
    "items": ("item", "product", "movie", "film", "article", "catalog", "sku", "book", "track", "song", "asset"),
    "creatives": ("creative", "banner", "image", "artwork", "headline"),
    "decisions": ("decision", "impression", "exposure", "recommendation", "assignment"),
    "events": (
        *(
            "event",
            "interaction",
            "rating",
            "order",
            "click",
            "view",
            "purchase",
            "transaction",
            "log",
            "play",
            "watch",
        ),
        *("sale", "basket", "session"),
    ),
}

# other people's words for the contract's columns, in lower case without separators; the contract's own name goes first
_WORDS: dict[str, tuple[str, ...]] = {
    "user_id": (
        *("user", "uid", "customerid", "customer", "customerno", "customernumber", "memberid", "clientid", "personid"),
        *("visitorid", "householdid", "accountid"),
    ),
    "session_id": ("session", "sessionkey", "visitid", "visit", "cookie", "cookieid"),
    "item_id": (
        "item",
        "productid",
        "product",
        "sku",
        "movieid",
        "filmid",
        "articleid",
        "trackid",
        "asin",
        "contentid",
    ),
    "event_id": ("id", "eventkey", "orderline", "orderlineid", "transactionid", "logid"),
    "event": ("eventtype", "eventname", "action", "actiontype", "type", "behavior", "behaviour", "activity"),
    "at": (
        "timestamp",
        "time",
        "ts",
        "datetime",
        "eventtime",
        "createdat",
        "created",
        "date",
        "orderdate",
        "occurredat",
    ),
    "value": ("rating", "score", "stars", "amount", "quantity", "qty", "revenue", "total", "watchtime", "duration"),
    "device": ("devicetype", "platform", "useragent"),
    "title": ("name", "movietitle", "productname", "itemname", "label", "headline"),
    "text": ("description", "desc", "plot", "summary", "body", "abstract"),
    "categories": ("category", "genres", "genre", "class", "tags", "tag", "department"),
    "price": ("unitprice", "cost", "listprice"),
    "published_at": ("published", "releasedate", "released", "publicationdate", "createdat", "launchdate"),
    "available": ("instock", "active", "isactive", "isavailable", "enabled"),
    "provider": ("brand", "seller", "vendor", "publisher", "supplier", "manufacturer"),
    "timezone": ("tz", "timezonename"),
    "creative_id": ("creative", "bannerid", "imageid"),
    "decision_id": ("decision", "impressionid"),
    "request_id": ("request",),
    "chosen": ("choice", "shown", "action"),
    "position": ("rank", "slot", "pos"),
    "propensity": ("pscore", "propensityscore", "probability"),
}
_PROTECTED = (
    "age",
    "gender",
    "sex",
    "birth",
    "race",
    "ethnic",
    "religion",
    "zip",
    "postcode",
    "income",
    "marital",
    "health",
)


def propose(folder: Path) -> str:
    """Return a mapping in YAML for the parquet files of a folder."""
    found: dict[str, list[str]] = {table: [] for table in TABLES}
    events: dict[str, tuple[float, float] | None] = {}
    files = sorted(folder.glob("*.parquet")) or sorted(folder.rglob("*.parquet"))[:20]
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                schema = file.schema_arrow
                sample = next(file.iter_batches(batch_size=_SAMPLE_ROWS), pa.RecordBatch.from_pylist([], schema))
        except (pa.ArrowException, OSError):
            continue
        table = _table(path, sample)
        found[table].append(_file(table, path.relative_to(folder).as_posix(), sample, events))
    if not any(found.values()):
        return f"# {folder} holds no parquet file\n"
    parts = [f"{table}:\n" + "".join(blocks) for table, blocks in found.items() if blocks]
    if events:
        lines = ["event_names:  # say what each means, its unit and range, and what it is worth"]
        for name, span in events.items():
            bounds = f", low: {span[0]:g}, high: {span[1]:g}" if span else ""
            lines.append(f'  {_key(name)}: {{meaning: "", unit: ""{bounds}, utility: 1}}')
        parts.append("\n".join(lines) + "\n")
    missing = [table for table in ("items", "events") if not found[table]]
    if missing:
        parts.append(f"# no file looks like {' or '.join(missing)}: add it, the contract needs it\n")
    return "".join(parts)


def _table(path: Path, sample: pa.RecordBatch) -> str:
    """Guess the table: by the file's name, else by which contract its columns fit best."""
    word = path.stem.lower()
    for table, words in _TABLE_WORDS.items():
        if any(w in word for w in words):
            return table
    matched = {table: _match(table, sample) for table in TABLES}
    if {"user_id", "item_id"} <= matched["events"].keys():
        return "events"  # someone met something
    fits = {table: len(matched[table]) - sum(column.needed for column in CONTRACT[table]) for table in TABLES}
    return max(fits, key=lambda table: fits[table])


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _match(table: str, sample: pa.RecordBatch) -> dict[str, str]:
    """Return raw column by contract column, each used once, exact names before synonyms."""
    matched: dict[str, str] = {}
    free = list(sample.schema.names)
    for exact in (True, False):
        for column in CONTRACT[table]:
            if column.name in matched:
                continue
            words = (_plain(column.name),) if exact else _WORDS.get(column.name, ())
            for word in words:
                raw = next((n for n in free if _plain(n) == word), None)
                if raw is not None and _fits(sample.column(raw), column.kind):
                    matched[column.name] = raw
                    free.remove(raw)
                    break
    return matched


def _fits(array: pa.Array, kind: Kind) -> bool:
    dtype = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    text = pa.types.is_string(dtype) or pa.types.is_large_string(dtype)
    if kind is Kind.TIME and text:
        return not convert(array.slice(0, 100), kind).faults
    number = pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_decimal(dtype)
    fitting = {
        Kind.ID: text or pa.types.is_integer(dtype),
        Kind.TEXT: text,
        Kind.NUMBER: number,
        Kind.FLAG: pa.types.is_boolean(dtype) or pa.types.is_integer(dtype),
        Kind.TIME: pa.types.is_timestamp(dtype) or pa.types.is_date(dtype) or number,
        Kind.CATEGORIES: text or pa.types.is_list(dtype),
    }
    return bool(fitting[kind])


def _file(table: str, name: str, sample: pa.RecordBatch, events: dict[str, tuple[float, float] | None]) -> str:
    schema = sample.schema
    matched = _match(table, sample)
    lines = [f"  {_key(Path(name).stem)}:", f"    file: {_key(name)}", "    columns:"]
    lines += [f"      {ours}: {_key(raw)}" for ours, raw in matched.items()]
    times = {ours: unit for ours, raw in matched.items() if (unit := _unit(table, ours, sample, raw))}
    if times:
        lines.append("    times: {" + ", ".join(f"{n}: {u}" for n, u in times.items()) + "}")
    separators = {ours: s for ours, raw in matched.items() if (s := _separator(table, ours, sample, raw))}
    if separators:
        lines.append("    separators: {" + ", ".join(f'{n}: "{s}"' for n, s in separators.items()) + "}")
    if table == "events":
        lines += _event_lines(name, sample, matched, events)
    needed = [c.name for c in CONTRACT[table] if c.needed and c.name not in matched]
    if table == "events":
        needed = [n for n in needed if n not in ("event", "event_id")]
    lines += [f"    # {n}: needed, and no column looks like it" for n in needed]
    rest = [n for n in schema.names if n not in matched.values()]
    if rest:
        lines.append("    features:  # columns beyond the contract; delete what nobody needs")
        lines += [f"      {_key(n)}: {_feature(n, schema.field(n).type, table)}" for n in rest]
    return "\n".join(lines) + "\n"


def _event_lines(
    name: str, sample: pa.RecordBatch, matched: Mapping[str, str], events: dict[str, tuple[float, float] | None]
) -> list[str]:
    lines = []
    if "event_id" not in matched:
        lines.append("    number_rows: [event_id]  # the file has no id of its own for a row")
    span = _span(sample, matched["value"]) if "value" in matched else None
    if "event" in matched:
        words = sample.column(matched["event"]).unique().to_pylist()
        # a guessed range over all names says nothing about one of them
        events.update({str(word): None for word in words[:20] if word is not None})
    else:
        word = {"ratings": "rate", "orders": "purchase", "clicks": "click", "views": "view"}.get(Path(name).stem, "did")
        lines.append(f"    constants: {{event: {word}}}  # one kind of event a file: call it by its name")
        events[word] = span
    return lines


def _span(sample: pa.RecordBatch, raw: str) -> tuple[float, float] | None:
    values = [v for v in sample.column(raw).to_pylist() if v is not None]
    return (float(min(values)), float(max(values))) if values else None


def _kind_of(table: str, name: str) -> Kind:
    return next(column.kind for column in CONTRACT[table] if column.name == name)


def _unit(table: str, name: str, sample: pa.RecordBatch, raw: str) -> str:
    """Guess the unit of numeric times: the one in which they fall between 1990 and 2100."""
    column = sample.column(raw)
    number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if _kind_of(table, name) is not Kind.TIME or not number:
        return ""
    values = [v for v in column.to_pylist() if v is not None]
    middle = sorted(values)[len(values) // 2] if values else 0
    for unit, factor in (("s", 1), ("ms", 1_000), ("us", 1_000_000), ("ns", 1_000_000_000)):
        if 631_152_000 <= middle / factor < 4_102_444_800:
            return unit
    return "s"


def _separator(table: str, name: str, sample: pa.RecordBatch, raw: str) -> str:
    column = sample.column(raw)
    if _kind_of(table, name) is not Kind.CATEGORIES or pa.types.is_nested(column.type):
        return ""
    texts = [str(v) for v in column.to_pylist() if v is not None]
    for separator in ("|", ";", ",", " "):
        if sum(separator in text for text in texts) * 4 > len(texts) > 0:
            return separator
    return ""


def _feature(name: str, dtype: pa.DataType, table: str) -> str:
    if pa.types.is_boolean(dtype):
        kind = "flag"
    elif pa.types.is_temporal(dtype):
        kind = "time"
    elif pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_decimal(dtype):
        kind = "number"
    elif pa.types.is_nested(dtype):
        # lists of whole numbers are codes of categories; an embedding has fractions
        kind = "vector" if is_vector(dtype) and pa.types.is_floating(dtype.value_type) else "categories"
    else:
        kind = "text"
    provenance = "declared" if table in ("users", "items") else "observed"
    protected = table == "users" and any(word in name.lower() for word in _PROTECTED)
    return f"{{kind: {kind}, provenance: {provenance}" + (", protected: true}" if protected else "}")


def _key(name: str) -> str:
    return (
        name if re.fullmatch(r"[A-Za-z_][\w./-]*", name) else '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    )
