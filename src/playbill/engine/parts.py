"""What an engine found in its bundle and on its machine, and why it lacks the rest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from playbill.baselines.ials import FoldingIals, read_ials
from playbill.baselines.near import FILE as NEAR
from playbill.baselines.near import Near, read_near
from playbill.baselines.neighbours import Neighbours, read_neighbours
from playbill.blend.model import FILE, Blend, read_blend
from playbill.bundle.answers import ENJOY, NAME
from playbill.bundle.creatives import HEAD
from playbill.bundle.open import Bundle
from playbill.bundle.policy import check_weights as check_policy_weights
from playbill.bundle.rungs import RETRIEVER_FILES
from playbill.engine.answers import Answers, open_answers
from playbill.engine.blending import BLEND
from playbill.engine.elsewhere import HERE, Elsewhere, Graph
from playbill.engine.runtime import Model, NoRuntime, open_model
from playbill.engine.settings import EngineSettings
from playbill.errors import BlendError, BundleError, FeatureError, ProviderError, SearchError
from playbill.index.item_index import ItemIndex, read_index, set_threads
from playbill.index.sharded import Sharded, sharded

KNN = ("item_knn", "transitions")  # of which a rung is made
TABLES = (*KNN, "ease")  # retrievers that are a table of neighbours
HOW_TO_ENJOY = f"; for {ENJOY} run `playbill train model=response`, then export"


@dataclass(slots=True)
class Parts:
    """Parts by which requests are answered; None where one is not there.

    Attributes:
        embeddings: [N + 1, d] float32 item vectors of unit length, row 0 unused.
        tables: `item_knn` (co-occurrence), `transitions` (what came next) and `ease`.
        ials: factors that fold a person in.
        creative_head: scores the creatives of items, where the bundle has one.
        blend: orders what the retrievers propose, where the bundle has one and all its members work here.
        response: says how likely a person enjoys what they try, where the bundle can.
        near: what is trending by place, where the bundle has it.
        missing: why, by part: query_tower, ranker, creative_head, index, item_knn, transitions, blend, and ease, ials,
            near and response where the bundle names them.
    """

    query_tower: Model | None = None
    ranker: Graph | None = None
    embeddings: np.ndarray | None = None
    index: ItemIndex | Sharded | None = None
    tables: dict[str, Neighbours] = field(default_factory=dict)
    ials: FoldingIals | None = None
    creative_head: Model | None = None
    blend: Blend | None = None
    response: Answers | None = None
    near: Near | None = None
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def models(self) -> list[Graph]:
        response = None if self.response is None else self.response.graph
        return [m for m in (self.query_tower, self.ranker, self.creative_head, response) if m is not None]

    def newest(self, asked: Collection[str]) -> int:
        """Return how many of the newest items of a history the retrievers read that are asked.

        Args:
            asked: names with a quota or a weight; the item-kNNs are asked always.
        """
        lengths = [t.length for name, t in self.tables.items() if name in KNN or name in asked]
        if self.ials is not None and "ials" in asked:
            lengths.append(self.ials.length)
        return max(lengths, default=1)

    def rungs(self) -> dict[str, str]:
        """Return every rung, best first, with the reason why it cannot be reached; empty where it can."""
        tower = self.missing.get("query_tower", "")
        told = [self.missing[name] for name in TABLES if name in self.missing]
        tables = "" if self.tables else "; ".join(told)
        return {
            "full": tower or self.missing.get("ranker", ""),
            "retrieval": tower,
            "item_knn": tables,
            "popularity": "",
        }


def open_parts(bundle: Bundle, settings: EngineSettings, elsewhere: Elsewhere = HERE) -> Parts:
    """Return all parts of a bundle that work here, and those that other processes hold.

    Raises:
        ProviderError: `require_gpu`, and a graph of the bundle would not run on one.
    """
    parts = _retrievers(bundle, settings, elsewhere)
    if bundle.creatives is not None and bundle.creatives.spec is not None:
        parts.creative_head = _graph(bundle, "creative_heads", HEAD, settings, parts)
    if bundle.has(FILE):
        try:
            parts.blend = read_blend(bundle.file(FILE))
            absent = [m for m in parts.blend.members if not _works(m, parts)]
            if absent:
                parts.blend, parts.missing["blend"] = None, f"the blend needs {', '.join(absent)}"
        except BlendError as error:
            parts.missing["blend"] = str(error)
    if NAME in bundle.manifest.models:
        try:
            parts.response = open_answers(bundle, settings)
        except ProviderError:
            raise
        except Exception as error:  # as in `_graph`
            parts.missing[NAME] = f"the model of answers does not load: {_first_line(error)}"
    return parts


def asked(bundle: Bundle, parts: Parts) -> set[str]:
    """Return the retrievers that any surface of the policy, or the blend, asks."""
    surfaces = bundle.policy.surfaces.values()
    named = {name for s in surfaces for name in (*s.weights, *(n for n, quota in s.quotas.items() if quota))}
    return named | set(parts.blend.members if parts.blend is not None else ())


def check_weights(bundle: Bundle, known: list[str]) -> None:
    """Do nothing where every weight of the policy is of something that gives a score.

    Args:
        known: tasks of the ranker.
    Raises:
        BundleError: names the surface and the weights.
    """
    answers = [ENJOY] if NAME in bundle.manifest.models else []
    try:
        check_policy_weights(bundle.policy, [*known, *answers, *([BLEND] if bundle.has(FILE) else [])])
    except BundleError as error:
        unheard = not answers and any(ENJOY in surface.weights for surface in bundle.policy.surfaces.values())
        raise BundleError(f"bundle {bundle.version}: {error}{HOW_TO_ENJOY if unheard else ''}") from None


def try_out(parts: Parts, runs: Mapping[str, Callable[[], object]]) -> None:
    """Run each graph once, by part; one that cannot answer here is left out from the start, with its reason."""
    for name, run in runs.items():
        try:
            run()
        except Exception as error:  # onnxruntime raises its own classes, straight below Exception
            setattr(parts, name, None)
            parts.missing[name] = f"{name}.onnx does not run: {_first_line(error)}"


def _works(member: str, parts: Parts) -> bool:
    if member == "tower":
        return parts.query_tower is not None
    if member == "ials":
        return parts.ials is not None
    return member in parts.tables or member in ("trending", "popularity")


def _retrievers(bundle: Bundle, settings: EngineSettings, elsewhere: Elsewhere) -> Parts:
    parts = Parts()
    for name in TABLES:
        if (table := _table(bundle, name, parts)) is not None:
            parts.tables[name] = table
    if file := bundle.retriever_file("ials"):
        try:
            parts.ials = read_ials(bundle.file(file))
        except (BundleError, FeatureError, OSError) as error:
            parts.missing["ials"] = str(error)
    if bundle.has(NEAR):
        try:
            parts.near = read_near(bundle.file(NEAR), bundle.spec.num_items)
        except (FeatureError, OSError) as error:
            parts.missing["near"] = str(error)
    if elsewhere.ranker is not None and bundle.has("ranker.onnx"):
        parts.ranker = elsewhere.ranker
    else:
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
            index = read_index(bundle.file("items.faiss"), parts.embeddings)
            parts.index = index if elsewhere.index is None else sharded(index, elsewhere.parts, elsewhere.index)
        else:
            parts.missing["index"] = _absent(bundle, "towers", "items.faiss")
    except SearchError as error:
        parts.missing["index"] = str(error)
    return parts


def _table(bundle: Bundle, name: str, parts: Parts) -> Neighbours | None:
    file = bundle.retriever_file(name)
    if not file and name not in RETRIEVER_FILES:
        return None  # one that a bundle may do without
    if not file or not bundle.has(file):
        parts.missing[name] = _absent(bundle, "item_knn", file or RETRIEVER_FILES[name])
        return None
    try:
        return read_neighbours(bundle.file(file))
    except (FeatureError, OSError) as error:
        parts.missing[name] = str(error)
        return None


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
