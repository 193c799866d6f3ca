"""The creatives at one moment: the bundle's, less what was withdrawn since, and those that came after it.

A row noted in the store under a creative id that the bundle does not know is a new creative as soon as it names an item
that there is. The head has no row for it (creative_index 0) and scores it by its content, beside its like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from playbill.bundle.creatives import Creatives
from playbill.creative.eligibility import APPROVED, Shelf, make_shelf
from playbill.engine.catalogue import WITHDRAWN, Catalogue
from playbill.features.encoder import Arrays, encode_fields

_COLUMNS = ("creative_id", "item_id", "kind", "status", "approved_until", "locale", "channel", "is_default")

Changes = Mapping[int | str, Mapping[str, Any]]


@dataclass(slots=True)
class CreativeStock:
    """What can be shown of items at one moment. Never changed, only replaced.

    Attributes:
        version, catalogue_version: of the store, that it was made for.
        shelf: of the items of the catalogue at that moment.
        num_built: creatives of the bundle; rows of `arrays` from num_built + 1 on are of later ones.
        arrays: by name, row `shelf.source + 1`, row 0 is an unknown creative.
        refused: why later creatives could not be encoded; they are scored as unknown ones.
        changes: what the store notes of creatives, by id.
    """

    version: int
    catalogue_version: int
    shelf: Shelf
    num_built: int
    arrays: Mapping[str, np.ndarray]
    refused: str = ""
    changes: Changes = field(default_factory=dict)

    def arrays_of(self, rows: np.ndarray) -> Arrays:
        """Return what the head reads of rows [M] of the shelf."""
        place = self.shelf.source[rows] + 1
        arrays = {name: array[place] for name, array in self.arrays.items()}
        return {"creative_index": np.where(place <= self.num_built, place, 0), **arrays}


def creative_stock(
    parts: Creatives, catalogue: Catalogue, catalogue_version: int, version: int, changes: Changes
) -> CreativeStock:
    """Return the creatives as they stand after the store's changes.

    Args:
        parts: of the bundle.
        catalogue: items at that moment, later ones included.
        changes: by creative id.
    """
    built = {name: parts.columns[name] for name in _COLUMNS if name in parts.columns}
    rows = {creative_id: row for row, creative_id in enumerate(built["creative_id"])}
    kinds = {type(creative_id) for creative_id in rows}
    late = {i: r for i, r in changes.items() if i not in rows and type(i) in kinds and r.get("item_id") is not None}
    columns: dict[str, list[Any]] = {n: [*values, *(r.get(n) for r in late.values())] for n, values in built.items()}
    size = len(rows)
    columns["creative_id"] = [*built["creative_id"], *late]
    for name in _COLUMNS:
        named = [row for row in changes.values() if name in row]
        if named and name not in columns:
            # without a column nobody asked for approval; one row that names a status does not change that for others
            default = APPROVED if name == "status" else None
            columns[name] = [*[default] * size, *(row.get(name, default) for row in late.values())]
    for creative_id, change in changes.items():
        if creative_id in rows:
            for name in _COLUMNS[1:]:
                if name in change:
                    columns[name][rows[creative_id]] = change[name]
    arrays, refused = _arrays(parts, list(late.values()))
    item = catalogue.indices([i if isinstance(i, int | str) else None for i in columns["item_id"]])
    shelf = make_shelf(columns, item, catalogue.num_items)
    withdrawn = {creative_id for creative_id, change in changes.items() if change.get(WITHDRAWN) is True}
    if withdrawn:
        shelf.approved &= np.asarray([creative_id not in withdrawn for creative_id in shelf.ids], bool)
    return CreativeStock(version, catalogue_version, shelf, size, arrays, refused, changes)


def _arrays(parts: Creatives, late: list[Mapping[str, Any]]) -> tuple[dict[str, np.ndarray], str]:
    if parts.spec is None or not late:
        return parts.arrays, ""
    names = {name for field in parts.spec.fields for name in field.reads}
    columns = {name: [row.get(name) for row in late] for name in names}
    unknown = {name: np.repeat(array[:1], len(late), axis=0) for name, array in parts.arrays.items()}
    refused = ""
    try:
        encoded = encode_fields(columns, len(late), parts.spec.fields, parts.vocabularies)
    except Exception as error:  # whatever a feed of creatives writes there must not stop answers
        encoded, refused = {}, f"{type(error).__name__}: {error}"
    behind = {**unknown, **encoded}
    return {name: np.concatenate([array, behind[name]]) for name, array in parts.arrays.items()}, refused
