"""The five tables: which columns a row has, of which type, and what each may be used for."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec
import pyarrow as pa


class Kind(StrEnum):
    """What a column holds. `ID` is int64 or string, kept as the user gave it."""

    ID = "id"
    TEXT = "text"
    NUMBER = "number"
    FLAG = "flag"
    TIME = "time"  # timestamp[us, UTC]
    CATEGORIES = "categories"  # list<string>
    VECTOR = "vector"  # fixed-size list of float32, such as the embedding of a text or an image


class Provenance(StrEnum):
    """How a value came to be known."""

    DECLARED = "declared"  # the person or the shop said so
    OBSERVED = "observed"  # it happened
    INFERRED = "inferred"  # a model says so
    THIRD_PARTY = "third-party"  # bought or borrowed


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One column of one table.

    `protected` columns serve audits only and are never a model input unless a benchmark preset lifts that; `sensitive`
    ones need a purpose of their own.
    """

    name: str
    kind: Kind
    needed: bool = False
    provenance: Provenance = Provenance.OBSERVED
    protected: bool = False
    sensitive: bool = False


class EventKind(msgspec.Struct, frozen=True, kw_only=True):
    """One declared event name: what its value means and how much it is worth.

    Attributes:
        name: as it stands in `events.event`.
        meaning: one line for people, e.g. "stars given, a statement of taste".
        unit: of `value`; empty when the event carries none.
        low, high: allowed range of `value`, inclusive; None leaves that side open.
        utility: worth of one such event to the person, in the project's own unit.
    """

    name: str
    meaning: str = ""
    unit: str = ""
    low: float | None = None
    high: float | None = None
    utility: float = 1.0


TABLES = ("users", "items", "creatives", "events", "decisions")

DECISION_KINDS = ("item", "creative", "subject", "send_hour", "offer", "channel", "hold", "experiment_arm", "hero")

CONSENT_PREFIX = "consent_"


def _columns(*rows: tuple[str, Kind, bool]) -> tuple[Column, ...]:
    return tuple(Column(name=name, kind=kind, needed=needed) for name, kind, needed in rows)


# Columns the contract knows by name. Any other column is a feature and is declared in the table folder's manifest.
CONTRACT: dict[str, tuple[Column, ...]] = {
    "users": _columns(
        ("user_id", Kind.ID, True),
        ("timezone", Kind.TEXT, False),
        ("contactable", Kind.FLAG, False),
    ),
    "items": _columns(
        ("item_id", Kind.ID, True),
        ("title", Kind.TEXT, False),
        ("text", Kind.TEXT, False),
        ("categories", Kind.CATEGORIES, False),
        ("price", Kind.NUMBER, False),
        ("published_at", Kind.TIME, False),
        ("available", Kind.FLAG, False),
        ("provider", Kind.TEXT, False),
    ),
    "creatives": _columns(
        ("creative_id", Kind.ID, True),
        ("kind", Kind.TEXT, True),
        ("item_id", Kind.ID, False),
        ("uri", Kind.TEXT, False),
        ("text", Kind.TEXT, False),
        ("status", Kind.TEXT, False),
        ("approved_by", Kind.TEXT, False),
        ("approved_until", Kind.TIME, False),
        ("locale", Kind.TEXT, False),
        ("channel", Kind.TEXT, False),
        ("is_default", Kind.FLAG, False),  # shown where no other of its item may be; else an item's first is
    ),
    "events": _columns(
        ("event_id", Kind.ID, True),
        ("user_id", Kind.ID, False),  # user_id or session_id: one of them in every row
        ("session_id", Kind.ID, False),
        ("event", Kind.TEXT, True),
        ("at", Kind.TIME, True),
        ("item_id", Kind.ID, False),
        ("creative_id", Kind.ID, False),
        ("decision_id", Kind.ID, False),
        ("value", Kind.NUMBER, False),
        ("device", Kind.TEXT, False),
    ),
    "decisions": _columns(
        ("decision_id", Kind.ID, True),
        ("request_id", Kind.ID, True),
        ("kind", Kind.TEXT, True),
        ("chosen", Kind.ID, True),
        ("at", Kind.TIME, True),
        ("user_id", Kind.ID, False),
        ("session_id", Kind.ID, False),
        ("position", Kind.NUMBER, False),
        ("propensity", Kind.NUMBER, False),
        ("policy", Kind.TEXT, False),
        ("bundle", Kind.TEXT, False),
        ("arm", Kind.TEXT, False),
        ("eligible_count", Kind.NUMBER, False),
        ("context", Kind.TEXT, False),  # json object
    ),
}


class TableFolder(msgspec.Struct, frozen=True, kw_only=True):
    """`tables.json`: what stands in one folder of validated tables.

    Attributes:
        source: name of the source the rows came from.
        fingerprint: sha256 over the sha256 of every table file; a dataset is known by it.
        rows: row count by table.
        files: sha256 by file name.
        columns: every column by table, feature columns included.
        events: the declared event names.
        licence: what the source's licence allows, shown once.
    """

    source: str
    fingerprint: str
    rows: dict[str, int]
    files: dict[str, str]
    columns: dict[str, list[Column]]
    events: list[EventKind]
    licence: str = ""


def arrow_type(kind: Kind, id_type: pa.DataType | None = None, width: int = 1) -> pa.DataType:
    """Return the Arrow type in which a column of this kind is stored.

    Args:
        id_type: int64 or string, for ids.
        width: numbers in each vector, for vectors.
    """
    fixed: dict[Kind, Any] = {
        Kind.TEXT: pa.string(),
        Kind.NUMBER: pa.float64(),
        Kind.FLAG: pa.bool_(),
        Kind.TIME: pa.timestamp("us", tz="UTC"),
        Kind.CATEGORIES: pa.list_(pa.string()),
        Kind.VECTOR: pa.list_(pa.float32(), width),
    }
    if kind is Kind.ID:
        return id_type if id_type is not None else pa.string()
    return fixed[kind]
