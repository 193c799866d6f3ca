"""Building the feature spec: which columns become features, their vocabularies, and the statistics that scale them.

Everything that is learned from data here (values known, means, deviations) is learned from the events of the training
time by people who consented, and from the users and items that those events touch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from rich.console import Console

from playbill.errors import FeatureError, TableError
from playbill.features.facts import ColumnFacts, EventFacts, has_range, value_moments
from playbill.features.item_table import make_item_table
from playbill.features.people import People, number_people
from playbill.features.settings import FeatureSettings
from playbill.features.spec import Encoding, EventCode, FeatureSpec, Field, Side, read_spec, write_spec
from playbill.features.text import join_texts, learn_words
from playbill.features.vectors import vector_field
from playbill.features.vocabulary import Vocabulary, read_vocabularies, write_vocabularies
from playbill.tables.files import write_atomic
from playbill.tables.folder import read_folder, read_table
from playbill.tables.schema import CONSENT_PREFIX, Column, Kind, TableFolder

CYCLES = {"hour": 24, "weekday": 7}
SPEC_FILE = "features.json"
VOCABULARY_FOLDER = "vocab"
TEXT = "words"  # the feature made of the columns that `features.text` names

_SIDE_OF = {"users": Side.USER, "items": Side.ITEM, "events": Side.CONTEXT}
# about delivery, display or bookkeeping: never a feature on their own account, though a user may name the text ones
_NOT_BY_DEFAULT = {"timezone", "contactable", "title", "text", "available"}
# an event's own name, value and decision are what models predict
_NEVER_CONTEXT = {"event", "value", "at"}


def build_features(
    tables_path: Path | str, settings: FeatureSettings, until_us: int | None = None
) -> tuple[FeatureSpec, dict[str, Vocabulary]]:
    """Return the spec and the vocabularies for a folder of tables.

    Args:
        tables_path: folder of validated tables.
        settings: which columns.
        until_us: only events strictly before this moment (UTC microseconds) teach anything; None means all.
    Raises:
        FeatureError: a named column or event does not exist, does not fit, or is protected.
    """
    folder = read_folder(tables_path)
    tables = read_tables(tables_path, folder)
    events = tables["events"]
    people, person = number_people(tables.get("users"), events)
    known = person >= 0
    if until_us is not None:
        known &= times(events) < until_us
    items = Vocabulary(tables["items"]["item_id"])
    facts = facts_of(folder, tables, settings, known, people, person, items.indices(events["item_id"]))
    return make_features(folder, tables, events.schema, settings, facts, items)


def read_tables(tables_path: Path | str, folder: TableFolder, events: bool = True) -> dict[str, pa.Table]:
    """Return the tables that features are made of: items and events, and users where there is one.

    Args:
        events: False leaves the events where they are, for whoever streams them.
    Raises:
        TableError: no items, no events, or events that name no items.
    """
    if "events" in folder.columns and "item_id" not in [column.name for column in folder.columns["events"]]:
        raise TableError(f"events in {tables_path} have no column item_id: there is nothing to learn a taste from")
    names = ["users", "items"] if "users" in folder.rows else ["items"]
    return {name: read_table(tables_path, name) for name in (*names, *(["events"] if events else []))}


def times(events: pa.Table) -> np.ndarray:
    """Return [N] int64 UTC microseconds of an events table."""
    return np.asarray(events["at"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()))


def facts_of(
    folder: TableFolder,
    tables: Mapping[str, pa.Table],
    settings: FeatureSettings,
    known: np.ndarray,
    people: People,
    person: np.ndarray,
    item: np.ndarray,
) -> EventFacts:
    """Return what the events of tables in memory teach.

    Args:
        tables: with events.
        known: [N] bool, rows of events that may teach anything.
        people, person: of `number_people`.
        item: [N] int64 item_index of each row, 0 where unknown or none.
    """
    facts = no_facts(folder, settings)
    rows = np.flatnonzero(known)
    facts.add(tables["events"].select(facts.reads).take(pa.array(rows)), people.users_row[person[rows]], item[rows])
    return facts


def no_facts(folder: TableFolder, settings: FeatureSettings) -> EventFacts:
    """Return facts of no events yet, for columns that may be features.

    Raises:
        FeatureError: a context column does not exist, does not fit, or is protected.
    """
    columns = folder.columns["events"]
    context = [n for n in settings.context if n not in CYCLES]
    for name in context:
        _refuse("events", name, {c.name: c for c in columns}, settings)
    return EventFacts(columns, folder.events, context, folder.rows.get("users", 0), folder.rows["items"])


def make_features(
    folder: TableFolder,
    tables: Mapping[str, pa.Table],
    events: pa.Schema,
    settings: FeatureSettings,
    facts: EventFacts,
    item_ids: Vocabulary,
) -> tuple[FeatureSpec, dict[str, Vocabulary]]:
    """Return the spec and the vocabularies.

    Args:
        folder: what the tables' manifest says.
        tables: items, and users where there is one.
        events: the events table's schema.
        facts: what the events teach.
        item_ids: of the items table, in its order.
    Raises:
        FeatureError: see `build_features`.
    """
    fields: list[Field] = []
    vocabularies = {"item": item_ids}
    touched = {"users": (facts.users, settings.user), "items": (facts.items[1:], settings.item)}
    for name, (there, wanted) in touched.items():
        if name in tables:
            fields += _fields(name, folder.columns[name], (tables[name], there), wanted, settings, vocabularies)
        elif wanted:
            raise FeatureError(f"{name} features {list(wanted)} were asked for, but there is no table {name!r}")
    if settings.text:
        fields.append(_text_field(folder, tables["items"], facts.items[1:], settings, vocabularies))
    moment = [n for n in settings.context if n in CYCLES]
    fields += [Field(name=n, side=Side.CONTEXT, encoding=Encoding.CYCLE, size=CYCLES[n]) for n in moment]
    others = [n for n in settings.context if n not in CYCLES]
    fields += _fields("events", folder.columns["events"], facts, others, settings, vocabularies)
    _say_lifted(fields)
    users = tables.get("users")
    holder = users.schema if users is not None else events
    spec = FeatureSpec(
        user_id_type=_id_type(holder, "user_id"),
        item_id_type=_id_type(tables["items"].schema, "item_id"),
        history_length=settings.history_length,
        events=event_codes(folder, facts, settings),
        fields=fields,
        num_items=len(vocabularies["item"]),
        item_table=make_item_table(facts.item_counts, settings) or msgspec.UNSET,
        vocabularies={name: vocabulary.hash() for name, vocabulary in vocabularies.items()},
        purposes=[] if users is None else sorted(_purposes(users.column_names)),
    )
    return spec, vocabularies


def event_codes(folder: TableFolder, facts: EventFacts | None, settings: FeatureSettings) -> list[EventCode]:
    """Return the events that enter a history, coded 1.. in the order of their declaration.

    A value's declared range is mapped to -1..1; without a range it is scaled by the mean and deviation of the events
    that may teach.

    Args:
        facts: None where they are not known yet: names and codes are right then, the scales are not.
    """
    declared = {e.name: e for e in folder.events}
    names = list(declared) or sorted(facts.names if facts is not None else ())
    if settings.history_events is not None:
        unknown = [n for n in settings.history_events if n not in names]
        if unknown:
            raise FeatureError(f"history_events names {unknown}, the tables have: {', '.join(names)}")
        names = [n for n in names if n in settings.history_events]
    codes = []
    for code, name in enumerate(names, start=1):
        event = declared.get(name)
        if event is not None and has_range(event):
            low, high = event.low, event.high
            assert low is not None and high is not None
            middle, scale = (low + high) / 2, 2 / (high - low)
        elif any(c.name == "value" for c in folder.columns["events"]):
            mean, std = value_moments(facts, name)
            middle, scale = mean, 1 / std
        else:
            middle, scale = 0.0, 1.0
        codes.append(EventCode(name=name, code=code, middle=middle, scale=scale))
    return codes


def write_features(folder: Path | str, spec: FeatureSpec, vocabularies: Mapping[str, Vocabulary]) -> None:
    """Write `features.json` and `vocab/` into a folder; the spec last, since it vouches for the others."""
    write_vocabularies(dict(vocabularies), Path(folder) / VOCABULARY_FOLDER)
    write_atomic(Path(folder) / SPEC_FILE, write_spec(spec))


def read_features(folder: Path | str) -> tuple[FeatureSpec, dict[str, Vocabulary]]:
    """Return what `write_features` wrote, the vocabularies checked against the spec.

    Raises:
        FeatureError: a file is missing, altered, or newer than this Playbill.
    """
    path = Path(folder) / SPEC_FILE
    if not path.is_file():
        raise FeatureError(f"no feature spec: {path} is missing")
    spec = read_spec(path.read_bytes())
    return spec, read_vocabularies(Path(folder) / VOCABULARY_FOLDER, spec.vocabularies)


def _fields(
    table: str,
    columns: Sequence[Column],
    rows: tuple[pa.Table, np.ndarray] | EventFacts,
    wanted: Sequence[str] | None,
    settings: FeatureSettings,
    vocabularies: dict[str, Vocabulary],
) -> list[Field]:
    """Return the fields of one table and add their vocabularies; `rows` say which may teach, or what they taught."""
    declared = {c.name: c for c in columns}
    if wanted is None:
        chosen = [c for c in columns if _by_default(table, c, settings)]
    else:
        for name in wanted:
            _refuse(table, name, declared, settings)
        chosen = [declared[name] for name in wanted]
    fields = []
    for column in chosen:
        vocabulary: Vocabulary | None = None
        if isinstance(rows, EventFacts):
            field, vocabulary = _field(table, column, rows.columns[column.name], settings, by_name=wanted is not None)
        elif column.kind is Kind.VECTOR:
            field = vector_field(column, rows[0][column.name], rows[1])
            if field is None and wanted is not None:
                raise FeatureError(
                    f"column {column.name!r} of {table} holds no vector at all; take it out of the features"
                )
        else:
            facts = ColumnFacts(column.kind)
            facts.add(rows[0][column.name].filter(pa.array(rows[1])))
            field, vocabulary = _field(table, column, facts, settings, by_name=wanted is not None)
        if field is not None:
            fields.append(field)
            if vocabulary is not None:
                vocabularies[field.array] = vocabulary
    return fields


def _text_field(
    folder: TableFolder,
    items: pa.Table,
    teaches: np.ndarray,
    settings: FeatureSettings,
    vocabularies: dict[str, Vocabulary],
) -> Field:
    """Return the field of the items' texts and add its vocabulary, learned from the rows that may teach ([N] bool)."""
    declared = {c.name: c for c in folder.columns["items"]}
    for name in settings.text:
        _refuse("items", name, declared, settings)
        if declared[name].kind is not Kind.TEXT:
            raise FeatureError(f"features.text names {name!r}, which holds {declared[name].kind.value}, expected text")
    if TEXT in declared:
        raise FeatureError(f"the items table has a column {TEXT!r}, the name of the feature made of texts; rename it")
    texts = join_texts({name: items[name] for name in settings.text}, settings.text, items.num_rows)
    words = learn_words(texts.filter(pa.array(teaches)), settings.text_width)
    assert words.vectors is not None
    width = words.vectors.shape[1]
    field = Field(
        name=TEXT,
        side=Side.ITEM,
        encoding=Encoding.VECTOR,
        width=width,
        std=width**-0.5,  # of unit length, so this is the root of the mean square
        protected=any(declared[name].protected for name in settings.text),
        columns=list(settings.text),
    )
    vocabularies[field.array] = words
    return field


def _by_default(table: str, column: Column, settings: FeatureSettings) -> bool:
    if column.kind is Kind.VECTOR and table != "items":
        return False
    if column.name in _NOT_BY_DEFAULT or column.name.startswith(CONSENT_PREFIX) or column.sensitive:
        return False
    return column.kind not in (Kind.ID, Kind.TIME) and (settings.lift_protected or not column.protected)


def _refuse(table: str, name: str, declared: Mapping[str, Column], settings: FeatureSettings) -> None:
    """Raise FeatureError when a column asked for by name cannot be a feature."""
    column = declared.get(name)
    if column is None:
        cycles = f"{', '.join(CYCLES)}, " if table == "events" else ""
        raise FeatureError(f"no column {name!r} in table {table}; it has: {cycles}{', '.join(declared)}")
    if column.protected and not settings.lift_protected:
        raise FeatureError(
            f"column {name!r} of {table} is protected: it serves audits and is no model input; take it out of the "
            "features, or, for a benchmark on public data, set lift_protected=true in the feature settings"
        )
    if column.sensitive:
        raise FeatureError(f"column {name!r} of {table} is sensitive and cannot be a model input; take it out")
    if column.kind in (Kind.ID, Kind.TIME) or name.startswith(CONSENT_PREFIX):
        raise FeatureError(f"column {name!r} of {table} holds {column.kind.value}, which cannot be a feature")
    if column.kind is Kind.VECTOR and table != "items":
        raise FeatureError(
            f"column {name!r} of {table} holds vectors, which can be features of items alone; take it out"
        )
    if table == "events" and name in _NEVER_CONTEXT:
        raise FeatureError(f"column {name!r} of events is what models predict and cannot be context")


def _field(
    table: str, column: Column, facts: ColumnFacts, settings: FeatureSettings, by_name: bool
) -> tuple[Field | None, Vocabulary | None]:
    """Return the field and vocabulary of one column; (None, None) for a column that was not named and does not fit."""
    side, name, protected = _SIDE_OF[table], column.name, column.protected
    if column.kind in (Kind.NUMBER, Kind.FLAG):
        if facts.missing == facts.rows and not by_name:
            return None, None
        mean, std = facts.moments.result()
        return Field(name=name, side=side, encoding=Encoding.NUMBER, mean=mean, std=std, protected=protected), None
    vocabulary = Vocabulary(sorted(facts.counts, key=lambda v: (-facts.counts[v], v))[: settings.max_values])
    if column.kind is Kind.CATEGORIES:
        width = min(settings.max_categories, facts.width)
        if not (width and len(vocabulary)) and not by_name:
            return None, None
        field = Field(
            name=name,
            side=side,
            encoding=Encoding.CATEGORIES,
            size=vocabulary.size,
            width=max(width, 1),
            protected=protected,
        )
        return field, vocabulary
    # a text column whose values hardly ever repeat is a name or a sentence, not a category
    if not by_name and not 2 * len(facts.counts) <= facts.rows - facts.missing:
        return None, None
    if not len(vocabulary) and not by_name:
        return None, None
    return Field(
        name=name, side=side, encoding=Encoding.CATEGORY, size=vocabulary.size, protected=protected
    ), vocabulary


def _id_type(table: pa.Schema, name: str) -> str:
    if name not in table.names:
        return "string"
    return "int64" if pa.types.is_integer(table.field(name).type) else "string"


def _purposes(columns: Iterable[str]) -> list[Any]:
    return [c.removeprefix(CONSENT_PREFIX) for c in columns if c.startswith(CONSENT_PREFIX)]


def _say_lifted(fields: Sequence[Field]) -> None:
    lifted = [f.array for f in fields if f.protected]
    if lifted:
        Console(stderr=True).print(
            f"[bold white on red] PROTECTED COLUMNS ARE MODEL INPUTS [/] {', '.join(lifted)}: lift_protected=true is "
            "for benchmarks on public data; a model trained so must not decide about people",
            soft_wrap=True,
        )
