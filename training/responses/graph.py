"""The model of answers as one graph, held against its module before anybody may ask it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from playbill.features.encoder import Arrays
from playbill.features.spec import FeatureSpec
from playbill.training.exporting.graphs import Graph, example_sizes, write_graph
from playbill.training.exporting.parity import compare, open_session
from playbill.training.exporting.rows import item_rows, query_rows
from playbill.training.responses.plain import TALLIES, PlainResponse
from playbill.training.retrieval.plain import query_inputs

FILE = "response.onnx"
_SEED = 20_260
_CASES = ((1, 1), (1, 40), (7, 23))  # people, candidates


def write_response(whole: PlainResponse, folder: Path) -> None:
    """Write response.onnx.

    Args:
        whole: finished. folder: of the run.
    Raises:
        ParityError: the graph answers differently from its module.
    """
    spec, rng = whole.encoder.spec, np.random.default_rng(_SEED)
    of_people = {*query_inputs(spec), TALLIES[1]}
    sizes = {name: "users" if name in of_people else "candidates" for name in whole.inputs}
    graph = Graph("response", whole, sizes, whole.outputs, "candidates")
    fixed = {spec.history_length, *(f.width for f in spec.fields), *whole.widths}
    example = example_sizes(["users", "candidates"], fixed)
    path = folder / FILE
    write_graph(
        graph, _rows(spec, example["users"], example["candidates"], whole.widths, rng), {"model": "response"}, path
    )
    cases = [(f"{u} people, {n} items", _rows(spec, u, n, whole.widths, rng)) for u, n in _CASES]
    compare(graph, open_session(path), cases)


def _rows(spec: FeatureSpec, users: int, items: int, widths: Sequence[int], rng: np.random.Generator) -> Arrays:
    rows = zip(TALLIES, (items, users, items), widths, strict=True)
    return {
        **query_rows(spec, users, rng),
        "cand_user": np.sort(rng.integers(0, users, items)),
        **item_rows(spec, items, rng),
        **{name: rng.normal(size=(size, width)).astype(np.float32) for name, size, width in rows},
    }
