"""What an engine found in its bundle and on its machine, and why it lacks the rest."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from playbill.baselines.neighbours import Neighbours, read_neighbours
from playbill.bundle.open import Bundle
from playbill.engine.runtime import Model, NoRuntime, open_model
from playbill.engine.settings import EngineSettings
from playbill.errors import FeatureError, ProviderError, SearchError
from playbill.index.item_index import ItemIndex, read_index, set_threads

TABLES = {"item_knn": "neighbours.npz", "transitions": "transitions.npz"}


@dataclass(slots=True)
class Parts:
    """Parts by which requests are answered; None where one is not there.

    Attributes:
        embeddings: [N + 1, d] float32 item vectors of unit length, row 0 unused.
        tables: `item_knn` (co-occurrence) and `transitions` (what came next).
        missing: why, by part: query_tower, ranker, index, item_knn, transitions.
    """

    query_tower: Model | None = None
    ranker: Model | None = None
    embeddings: np.ndarray | None = None
    index: ItemIndex | None = None
    tables: dict[str, Neighbours] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def models(self) -> list[Model]:
        return [m for m in (self.query_tower, self.ranker) if m is not None]

    def rungs(self) -> dict[str, str]:
        """Return every rung, best first, with the reason why it cannot be reached; empty where it can."""
        tower = self.missing.get("query_tower", "")
        tables = "" if self.tables else "; ".join(self.missing[name] for name in TABLES)
        return {
            "full": tower or self.missing.get("ranker", ""),
            "retrieval": tower,
            "item_knn": tables,
            "popularity": "",
        }


def open_parts(bundle: Bundle, settings: EngineSettings) -> Parts:
    """Return all parts of a bundle that work here.

    Raises:
        ProviderError: `require_gpu`, and a graph of the bundle would not run on one.
    """
    parts = Parts()
    for name, file in TABLES.items():
        try:
            if bundle.has(file):
                parts.tables[name] = read_neighbours(bundle.file(file))
            else:
                parts.missing[name] = _absent(bundle, "item_knn", file)
        except (FeatureError, OSError) as error:
            parts.missing[name] = str(error)
    parts.ranker = _graph(bundle, "ranker", "ranker", settings, parts)
    parts.query_tower = _graph(bundle, "towers", "query_tower", settings, parts)
    if parts.query_tower is None:
        return parts
    if not bundle.has("item_embeddings.npy"):
        parts.query_tower, parts.missing["query_tower"] = None, _absent(bundle, "towers", "item_embeddings.npy")
        return parts
    # a plain view: every index into a np.memmap would pay for wrapping its result
    parts.embeddings = np.asarray(bundle.array("item_embeddings"))
    try:
        set_threads(settings.threads)
        if bundle.has("items.faiss"):
            parts.index = read_index(bundle.file("items.faiss"), parts.embeddings)
        else:
            parts.missing["index"] = _absent(bundle, "towers", "items.faiss")
    except SearchError as error:
        parts.missing["index"] = str(error)
    return parts


def _graph(bundle: Bundle, rung: str, name: str, settings: EngineSettings, parts: Parts) -> Model | None:
    file = f"{name}.onnx"
    if not bundle.has(file):
        parts.missing[name] = _absent(bundle, rung, file)
        if settings.require_gpu and rung in bundle.rungs:
            raise ProviderError(f"a GPU is required, and {parts.missing[name]}")
        return None
    try:
        return open_model(bundle.file(file), settings)
    except ProviderError:
        raise
    except Exception as error:  # onnxruntime raises its own classes, straight below Exception
        reason = str(error) if isinstance(error, NoRuntime) else f"{file} does not load: {_first_line(error)}"
        if settings.require_gpu:
            raise ProviderError(f"a GPU is required, and {reason}") from error
        parts.missing[name] = reason
        return None


def _absent(bundle: Bundle, rung: str, file: str) -> str:
    """Return why a file is not there: the data do not carry its rung, or it got lost."""
    told = bundle.sufficiency.get(rung)
    if told is not None and not told.carried:
        return f"the bundle carries no {rung}: {told.missing or 'not exported'}"
    return f"{file} is not in bundle {bundle.version}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
