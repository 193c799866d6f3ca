"""Rungs: how much personalisation a bundle carries, and which files each rung stands on.

`rungs.json` holds one `Rung` a name: what the data was judged for, less what was not trained, each with its reason.
"""

from __future__ import annotations

from playbill.tables.sufficiency import Rung

__all__ = ["PROPOSERS", "RETRIEVERS", "RETRIEVER_FILES", "RUNG_FILES", "Rung"]

# A bundle that claims a rung holds these; the engine walks down this list when something is missing or late.
RUNG_FILES: dict[str, tuple[str, ...]] = {
    "creative_heads": (
        "creatives.parquet",
        "creatives.json",
        "creative_arrays.npz",
        "creative_head.onnx",
        "creative_prior.npz",
    ),
    "ranker": ("ranker.onnx",),
    "towers": ("query_tower.onnx", "item_tower.onnx", "item_embeddings.npy", "items.faiss"),
    "item_knn": ("neighbours.npz", "transitions.npz"),
    "popularity": ("popularity.npy", "trending.npy"),
}

# Who may propose candidates, in the order in which they do; quotas of a policy are by these names.
RETRIEVERS = ("tower", "item_knn", "transitions", "ease", "ials", "trending", "new", "popularity")

# Who else brings items to an answer, where its surface asks for that; a slate has no quotas for them.
PROPOSERS = (*RETRIEVERS, "similar", "list", "again")

# The files of retrievers that stand on a file alone, for bundles whose manifest does not name them.
RETRIEVER_FILES: dict[str, str] = {
    "item_knn": "neighbours.npz",
    "transitions": "transitions.npz",
    "trending": "trending.npy",
    "popularity": "popularity.npy",
}
