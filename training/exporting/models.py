"""Towers, ranker and index into a bundle folder, each graph held against its module on made-up and on real rows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.progress import Progress

from playbill.bundle.manifest import ModelSignature
from playbill.bundle.onnx_file import read_onnx
from playbill.bundle.verify import LABEL_MODEL, LABEL_SPEC, LABEL_VERSION
from playbill.dataset.boundary import boundary_queries
from playbill.dataset.dataset import Dataset, examples, query_arrays
from playbill.features.encoder import Arrays
from playbill.features.spec import FeatureSpec
from playbill.index.build import build_index
from playbill.index.item_index import write_index
from playbill.index.settings import IndexSettings
from playbill.index.tune import tune_index
from playbill.training.exporting.creatives import head_export
from playbill.training.exporting.graphs import Graph, example_sizes, write_graph
from playbill.training.exporting.lighter import lighten
from playbill.training.exporting.parity import ATOL, LOGIT_ATOL, LOGIT_RTOL, Difference, compare, open_session, sample
from playbill.training.exporting.plan import Plan
from playbill.training.exporting.responses import response_export
from playbill.training.exporting.rows import EDGES, candidate_rows, item_rows, query_rows
from playbill.training.ranking.plain import PlainRanker
from playbill.training.ranking.plain import load_plain as load_ranker
from playbill.training.retrieval.plain import ItemTower, QueryTower
from playbill.training.retrieval.plain import load_plain as load_towers
from playbill.training.settings import Weights

SEED = 20_240
_BLOCK = 4_096  # rows of one call when the whole catalogue is embedded
_REAL = 512  # real queries at most, for parity and for tuning the index


class ParityReport(msgspec.Struct, frozen=True, kw_only=True):
    """report/parity.json: what was allowed, and what was seen in each case."""

    atol: float = ATOL
    logit_rtol: float = LOGIT_RTOL
    logit_atol: float = LOGIT_ATOL
    worst_share: float
    differences: list[Difference]


def write_models(
    folder: Path, dataset: Dataset, plan: Plan, index: IndexSettings, progress: Progress
) -> dict[str, ModelSignature]:
    """Write every graph, item_embeddings.npy, items.faiss, parity.npz and their reports; return the signatures.

    Raises:
        ParityError: a graph answers differently from its module.
        SearchError: the index misses its recall floor.
    """
    spec, task = dataset.spec, progress.task_ids[0]
    rng = np.random.default_rng(SEED)
    differences: list[Difference] = []
    samples: dict[str, np.ndarray] = {}
    signatures: dict[str, ModelSignature] = {}
    sessions = {}
    real_queries = _real_queries(dataset)
    assert plan.towers is not None
    ranker = None if plan.ranker is None else load_ranker(plan.ranker.path)

    def add(graph: Graph, example: Arrays, cases: list[tuple[str, Arrays]], real: tuple[str, Arrays]) -> None:
        progress.update(task, description=f"exporting {graph.name}")
        path = folder / f"{graph.name}.onnx"
        labels = {LABEL_MODEL: graph.name, LABEL_VERSION: plan.version, LABEL_SPEC: spec.hash()}
        write_graph(graph, example, labels, path)
        signatures[graph.name] = read_onnx(path).signature
        sessions[graph.name] = session = open_session(path)
        progress.update(task, description=f"holding {graph.name} against its module")
        differences.extend(compare(graph, session, [*cases, real]))
        samples.update(sample(graph, session, cases[-1][1]))

    towers = load_towers([run.path for run in (plan.towers, *plan.beside)], dataset.item_arrays)
    for graph in graphs_from(*towers, ranker):
        example, cases = _example(graph, spec, rng), made_up(graph.name, spec, rng)
        add(graph, example, cases, _real(graph.name, dataset, real_queries, rng))
        if graph.name == "ranker" and plan.ranker_weights is not Weights.float32:
            progress.update(task, description=f"asking validation time what {plan.ranker_weights.value} would lose")
            report = folder / "report" / "lighter.json"
            lighter = lighten(folder / "ranker.onnx", plan, dataset, towers, report)
            samples.update(sample(graph, lighter or sessions["ranker"], cases[-1][1]))
    if plan.creative is not None:
        head = head_export(plan.creative, plan.towers, dataset, towers[0])
        add(head.graph, head.example(rng), head.made_up(rng), head.real(real_queries, rng))
        head.write(folder)
    if plan.response is not None:
        response = response_export(plan.response, plan.tables)
        add(response.graph, response.example(rng), response.made_up(rng), response.real())
        response.write(folder)
    parity = ParityReport(worst_share=max(d.share for d in differences), differences=differences)
    _write(folder / "report" / "parity.json", parity)
    np.savez(folder / "parity.npz", allow_pickle=False, **samples)  # type: ignore[arg-type]  # numpy's stub takes `**samples` for the flag
    progress.update(task, description="embedding the catalogue and building the index")
    embeddings = _embed(sessions["item_tower"], dataset, signatures["item_tower"])
    np.save(folder / "item_embeddings.npy", embeddings, allow_pickle=False)
    names = signatures["query_tower"].inputs
    queries = sessions["query_tower"].run(["query"], {n: real_queries[n] for n in names})[0]
    started = time.monotonic()
    built = build_index(embeddings, np.arange(1, spec.num_items + 1), index)
    tuned, told = tune_index(built, queries, index, time.monotonic() - started)
    _write(folder / "report" / "index.json", told)
    write_index(tuned, folder / "items.faiss")
    return signatures


def graphs_from(query: QueryTower, item: ItemTower, ranker: PlainRanker | None) -> list[Graph]:
    """Return the graphs of these modules, which must be in eval mode."""
    graphs = [
        Graph("query_tower", query, dict.fromkeys(query.inputs, "queries"), ["query"], "queries"),
        Graph("item_tower", item, dict.fromkeys(item.inputs, "items"), ["embedding"], "items"),
    ]
    if ranker is not None:
        sizes = {name: "users" if name in query.inputs else "candidates" for name in ranker.inputs}
        graphs.append(Graph("ranker", ranker, sizes, ranker.outputs, "candidates"))
    return graphs


def made_up(name: str, spec: FeatureSpec, rng: np.random.Generator) -> list[tuple[str, Arrays]]:
    """Return cases of many sizes with the rows on which exports break; the last is small, for the stored sample."""
    if name == "query_tower":
        edges = query_rows(spec, len(EDGES), rng)
        alone = [(f"{edge} alone", {n: a[row : row + 1] for n, a in edges.items()}) for row, edge in enumerate(EDGES)]
        return alone + [(f"{rows} queries", query_rows(spec, rows, rng)) for rows in (7, 256, 5)]
    if name == "item_tower":
        return [(f"{rows} items", item_rows(spec, rows, rng)) for rows in (1, 7, 1000, 5)]
    sizes = ((1, 1), (1, 200), (7, 64), (2, 500), (3, 6))
    return [(f"{users} users, {rows} candidates", candidate_rows(spec, users, rows, rng)) for users, rows in sizes]


def _example(graph: Graph, spec: FeatureSpec, rng: np.random.Generator) -> Arrays:
    fixed = {spec.history_length, *(field.width for field in spec.fields)}
    sizes = example_sizes(("users", "candidates"), fixed)
    return candidate_rows(spec, sizes["users"], sizes["candidates"], rng)


def _real_queries(dataset: Dataset) -> Arrays:
    """Return real query arrays: everybody at the start of validation, or training rows where nobody is there."""
    asked = boundary_queries(dataset, "valid")
    if not len(asked):
        rows = examples(dataset, "train")
        return query_arrays(dataset, rows.person[:_REAL], rows.start[:_REAL], rows.end[:_REAL], rows.now[:_REAL])
    return query_arrays(dataset, asked.person[:_REAL], asked.start[:_REAL], asked.end[:_REAL], asked.now[:_REAL])


def _real(name: str, dataset: Dataset, queries: Arrays, rng: np.random.Generator) -> tuple[str, Arrays]:
    """Return one case of real rows."""
    num_queries = len(queries["history_item"])
    if name == "query_tower":
        return f"{num_queries} real queries", queries
    index = np.arange(dataset.spec.num_items + 1)[:_BLOCK]
    items = {"item_index": index, **{n: a[index] for n, a in dataset.item_arrays.items()}}
    if name == "item_tower":
        return f"{len(index)} real items", items
    scores = rng.uniform(-1, 1, len(index)).astype(np.float32)
    users = np.sort(rng.integers(0, num_queries, len(index)))
    case = {**queries, **items, "cand_user": users, "retrieval_score": scores}
    return f"{num_queries} real queries, {len(index)} real items", case


def _embed(session: Any, dataset: Dataset, signature: ModelSignature) -> np.ndarray:
    """Return [N + 1, d] float32, what serving would compute: every item through the exported graph."""
    parts = []
    for start in range(0, dataset.spec.num_items + 1, _BLOCK):
        index = np.arange(start, min(start + _BLOCK, dataset.spec.num_items + 1))
        arrays = {"item_index": index, **{n: a[index] for n, a in dataset.item_arrays.items()}}
        inputs = {name: arrays[name] for name in signature.inputs}
        parts.append(session.run(["embedding"], inputs)[0])
    return np.concatenate(parts)


def _write(path: Path, report: object) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
