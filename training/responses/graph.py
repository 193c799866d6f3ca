"""The model of answers as one graph, and the inputs that it is held against its module on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from playbill.features.encoder import Arrays
from playbill.features.spec import FeatureSpec
from playbill.training.exporting.graphs import Graph, example_sizes, write_graph
from playbill.training.exporting.parity import compare, open_session
from playbill.training.exporting.rows import EDGES, item_rows, query_rows
from playbill.training.responses.plain import TALLIES, PlainResponse
from playbill.training.retrieval.plain import query_inputs

NAME = "response"
_SEED = 20_260
_ITEMS = (1, 40, 500, 7, 23)  # of each case


def write_response(whole: PlainResponse, folder: Path) -> None:
    """Write response.onnx.

    Args:
        whole: finished. folder: of the run.
    Raises:
        ParityError: the graph answers differently from its module.
    """
    rng, graph, path = np.random.default_rng(_SEED), response_graph(whole), folder / f"{NAME}.onnx"
    write_graph(graph, example(whole, rng), {"model": NAME}, path)
    compare(graph, open_session(path), made_up(whole, rng))


def response_graph(whole: PlainResponse) -> Graph:
    """Return the graph of a finished module: one person, any number of candidates."""
    of_person = {*query_inputs(whole.encoder.spec), TALLIES[1]}
    sizes = {name: 1 if name in of_person else "candidates" for name in whole.inputs}
    return Graph(NAME, whole, sizes, whole.outputs, "candidates")


def example(whole: PlainResponse, rng: np.random.Generator) -> Arrays:
    """Return inputs of which every varying size is another."""
    spec = whole.encoder.spec
    fixed = {spec.history_length, *(f.width for f in spec.fields), *whole.widths}
    return _rows(spec, len(EDGES), example_sizes(["candidates"], fixed)["candidates"], whole.widths, rng)


def made_up(whole: PlainResponse, rng: np.random.Generator) -> list[tuple[str, Arrays]]:
    """Return cases of many sizes with the people and items on which exports break; the last is small."""
    people = (*EDGES, "any")
    return [
        (f"{people[row]}, {items} items", _rows(whole.encoder.spec, row, items, whole.widths, rng))
        for row, items in enumerate(_ITEMS)
    ]


def _rows(spec: FeatureSpec, row: int, items: int, widths: Sequence[int], rng: np.random.Generator) -> Arrays:
    """Return inputs of one made-up person, that of a row of `query_rows`."""
    tallies = zip(TALLIES, (items, 1, items), widths, strict=True)
    return {
        **{name: array[row : row + 1] for name, array in query_rows(spec, len(EDGES) + 1, rng).items()},
        **item_rows(spec, items, rng),
        **{name: rng.normal(size=(size, width)).astype(np.float32) for name, size, width in tallies},
    }
