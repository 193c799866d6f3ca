"""The feature spec: what enters a model, in which order, dtype and shape. Saved in the bundle and known by its hash."""

from __future__ import annotations

import hashlib
from enum import StrEnum

import msgspec
import numpy as np

from playbill.errors import FeatureError
from playbill.features.item_table import ItemTable, item_rows

SPEC_VERSION = 1

# Row 0 of every vocabulary and of every embedding table stands for "unknown"; padding in a history is PAD.
UNKNOWN = 0
PAD = -1


class Side(StrEnum):
    """Whom a feature describes."""

    USER = "user"
    ITEM = "item"
    CONTEXT = "context"
    CREATIVE = "creative"  # never in a feature spec: a creative head has a spec of its own


class Encoding(StrEnum):
    """How a raw value becomes an array: see `encoder.encode_fields`."""

    CATEGORY = "category"  # int64 [B], 0 = unknown
    CATEGORIES = "categories"  # int64 [B, width], PAD where there are fewer
    NUMBER = "number"  # float32 [B], (x - mean) / std, 0 where missing
    VECTOR = "vector"  # float32 [B, width], values / std, all 0 where missing; of items alone
    CYCLE = "cycle"  # int64 [B], hour (0..23) or weekday (0 = Monday), computed from the request's time


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One feature; its array is named `<side>_<name>`.

    Attributes:
        size: rows of its embedding table (known values + 1 for unknown) for CATEGORY and CATEGORIES; period for CYCLE.
        width: most values kept per row, for CATEGORIES; numbers in each row, for VECTOR.
        mean, std: of the training rows, for NUMBER; std for VECTOR: the root of the mean square of their numbers.
        protected: the column is protected and the preset lifted that.
        columns: text columns that a VECTOR is made of, see `text.py`; unset for a column that holds vectors, and left
            out of the json then, so that specs from before there were any keep their hash.
    """

    name: str
    side: Side
    encoding: Encoding
    size: int = 0
    width: int = 0
    mean: float = 0.0
    std: float = 1.0
    protected: bool = False
    columns: list[str] | msgspec.UnsetType = msgspec.UNSET

    @property
    def reads(self) -> list[str]:
        """Columns of the table that the feature is made of."""
        return [self.name] if self.columns is msgspec.UNSET else self.columns

    @property
    def array(self) -> str:
        return f"{self.side}_{self.name}"


class EventCode(msgspec.Struct, frozen=True, kw_only=True):
    """How one event name enters a history: its code (>= 1) and the map of its value, `(value - middle) * scale`."""

    name: str
    code: int
    middle: float = 0.0
    scale: float = 1.0


class FeatureSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that must be equal between training and serving for the arrays to mean the same.

    Attributes:
        history_length: L, events of a history that models see.
        events: event names that enter a history; others are stored but never encoded.
        fields: features in the order in which models read them.
        num_items: known items; item_index runs 1..num_items, 0 is the unknown item.
        vocabularies: hash by vocabulary name (`item`, and one for the array name of each field that is CATEGORY,
            CATEGORIES or a VECTOR made of texts).
        purposes: consent purposes for which the users table has a column; absent consent denies (see tables.consent).
        item_table: how items share the rows of the item table; unset, and left out of the json, where each has its own.
    """

    version: int = SPEC_VERSION
    user_id_type: str  # "int64" or "string"
    item_id_type: str
    history_length: int
    events: list[EventCode]
    fields: list[Field]
    num_items: int
    vocabularies: dict[str, str]
    purposes: list[str] = []
    item_table: ItemTable | msgspec.UnsetType = msgspec.UNSET

    @property
    def num_item_rows(self) -> int:
        """Rows of the item table, the unknown item's included."""
        return self.num_items + 1 if self.item_table is msgspec.UNSET else self.item_table.num_rows

    def item_rows(self) -> np.ndarray | None:
        """Return [N + 1, hashes] int64 rows whose mean is each item's vector; None where item i reads row i."""
        return None if self.item_table is msgspec.UNSET else item_rows(self.item_table, self.num_items)

    def hash(self) -> str:
        """Return sha256 of the canonical json of this spec."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()

    def side(self, side: Side) -> list[Field]:
        return [f for f in self.fields if f.side is side]

    def code_of(self) -> dict[str, EventCode]:
        return {e.name: e for e in self.events}


def check_version(spec: FeatureSpec) -> None:
    """Raise FeatureError when the spec was written by a newer Playbill."""
    if spec.version > SPEC_VERSION:
        raise FeatureError(
            f"feature spec has version {spec.version}, this Playbill reads up to {SPEC_VERSION}; upgrade"
        )


def write_spec(spec: FeatureSpec) -> bytes:
    """Return the spec as indented json, for `features.json`."""
    return msgspec.json.format(msgspec.json.encode(spec, order="sorted"), indent=1) + b"\n"


def read_spec(data: bytes) -> FeatureSpec:
    """Return the spec in `data`.

    Raises:
        FeatureError: not a spec, or written by a newer Playbill.
    """
    try:
        spec = msgspec.json.decode(data, type=FeatureSpec)
    except msgspec.MsgspecError as error:
        raise FeatureError(f"not a feature spec: {error}") from error
    check_version(spec)
    return spec
