"""Rungs: how much personalisation a bundle carries, and which files each rung stands on."""

from __future__ import annotations

import msgspec

# A bundle that claims a rung holds these; the engine walks down this list when something is missing or late.
RUNG_FILES: dict[str, tuple[str, ...]] = {
    "ranker": ("ranker.onnx",),
    "towers": ("query_tower.onnx", "item_tower.onnx", "item_embeddings.npy", "items.faiss"),
    "item_knn": ("neighbours.npz", "transitions.npz"),
    "popularity": ("popularity.npy", "trending.npy"),
}


class Rung(msgspec.Struct, frozen=True, kw_only=True):
    """One rung in `rungs.json`.

    Attributes:
        carried: whether the bundle has it.
        have, need: what the data has and what the rung needs, in the unit that `missing` names.
        missing: why it is not carried, with the number that is missing; empty when it is.
    """

    carried: bool
    have: int
    need: int
    missing: str = ""
