"""What an answer stands on beside the store's rows: the catalogue, creatives and lessons that an engine held then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from playbill.state.decisions import Learned

Changes = Mapping[int | str, Mapping[str, Any]]


@dataclass(slots=True)
class Held:
    """An engine's knowledge at one answer. Nothing here is changed later, only replaced.

    Attributes:
        catalogue_version, catalogue: of the store, and what it notes of items, by id.
        creatives_version, creatives: likewise; 0 and empty where the bundle has none.
        learned_version: of the store when it was last asked for lessons; `learned` are those of `head`.
        remembered: whether what the person is shown may be kept under their own id.
    """

    catalogue_version: int
    catalogue: Changes
    creatives_version: int
    creatives: Changes
    learned_version: int
    head: str
    learned: Learned | None
    remembered: bool
