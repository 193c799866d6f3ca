"""The creative heads into a bundle folder: the graph with its cases, and what stands beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from playbill.bundle.creatives import HEAD, QUERY, write_creatives
from playbill.dataset.dataset import Dataset
from playbill.features.creatives import CREATIVE_INDEX
from playbill.features.encoder import Arrays
from playbill.training.creative.plain import HISTORY, HeadFiles, PlainCreativeHead, load_plain_head, read_head
from playbill.training.exporting.graphs import Graph, example_sizes
from playbill.training.exporting.rows import creative_rows, query_rows
from playbill.training.retrieval.plain import QueryTower
from playbill.training.runs import Run


@dataclass(slots=True)
class HeadExport:
    """The graph of a run's creative heads, and the inputs that it is held against its module on.

    Attributes:
        tower: of the bundle, whose vectors the graph reads; `query_width` columns.
    """

    graph: Graph
    files: HeadFiles
    dataset: Dataset
    tower: QueryTower
    query_width: int

    def example(self, rng: np.random.Generator) -> Arrays:
        """Return inputs of which every varying size is another."""
        taken = {self.query_width, self.dataset.spec.history_length, *(field.width for field in self.files.spec.fields)}
        sizes = example_sizes(("users", "candidates"), taken)
        return self._rows(sizes["users"], sizes["candidates"], rng)

    def made_up(self, rng: np.random.Generator) -> list[tuple[str, Arrays]]:
        """Return cases of many sizes; the last is small, for the stored sample."""
        sizes = ((1, 1), (1, 800), (7, 64), (3, 6))
        return [(f"{users} users, {rows} creatives", self._rows(users, rows, rng)) for users, rows in sizes]

    def real(self, queries: Arrays, rng: np.random.Generator) -> tuple[str, Arrays]:
        """Return one case of every creative of the table and real queries, by name of array."""
        users = len(queries["history_item"])
        rows = len(self.files.arrays[CREATIVE_INDEX])
        case = {
            HISTORY: queries[HISTORY],
            QUERY: _vectors(self.tower, queries),
            **self.files.arrays,
            "cand_user": np.sort(rng.integers(0, users, rows)),
            "item_index": rng.integers(0, self.dataset.spec.num_items + 1, rows),
        }
        return f"{users} real queries, {rows} real creatives", case

    def write(self, folder: Path) -> None:
        """Write what stands beside the graph."""
        write_creatives(folder, self.files.spec, self.files.arrays, self.files.vocabularies, self.files.prior)

    def _rows(self, users: int, rows: int, rng: np.random.Generator) -> Arrays:
        num_creatives = len(self.files.arrays[CREATIVE_INDEX]) - 1
        made = creative_rows(self.dataset.spec, self.files.spec.fields, num_creatives, users, rows, rng)
        queries = {name: made.pop(name) for name in self.tower.inputs}
        return {HISTORY: queries[HISTORY], QUERY: _vectors(self.tower, queries), **made}


def head_export(run: Run, towers: Run, dataset: Dataset, tower: QueryTower) -> HeadExport:
    """Return the export of a finished run of creative heads.

    Args:
        run, towers: of the heads, and of the towers that they were trained on.
        tower: of the bundle; that run's, and those of other runs behind it.
    """
    module: PlainCreativeHead = load_plain_head(run.path, towers.path, dataset.item_arrays)
    sizes = {name: "users" if name in (HISTORY, QUERY) else "candidates" for name in module.inputs}
    nobody = query_rows(dataset.spec, 1, np.random.default_rng(0))
    width = _vectors(tower, nobody).shape[1]
    graph = Graph(HEAD, module, sizes, module.outputs, "candidates")
    return HeadExport(graph, read_head(run.path), dataset, tower, width)


@torch.no_grad()
def _vectors(tower: QueryTower, queries: Arrays) -> np.ndarray:
    found: np.ndarray = tower({name: torch.from_numpy(queries[name]) for name in tower.inputs}).numpy()
    return found
