"""The model of answers into a bundle folder: the graph with its cases, and what stands beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from playbill.bundle.answers import write_answers
from playbill.dataset.boundary import boundary_queries, rows_before
from playbill.dataset.dataset import Dataset, open_dataset, query_arrays
from playbill.errors import TrainingError
from playbill.features.encoder import Arrays
from playbill.features.tallies import ItemTallies
from playbill.features.tally_file import TallyBook, read_tallies
from playbill.training.exporting.graphs import Graph
from playbill.training.responses.graph import example, made_up, response_graph
from playbill.training.responses.plain import PlainResponse, load_plain
from playbill.training.runs import Run

_REAL = 4_096  # items of the real case


@dataclass(slots=True)
class ResponseExport:
    """The graph of a run's model of answers, and the inputs that it is held against its module on.

    Attributes:
        dataset: of the run's own features.
        book: items are counted until test time begins, as all that a bundle counts is.
    """

    graph: Graph
    whole: PlainResponse
    dataset: Dataset
    book: TallyBook

    def example(self, rng: np.random.Generator) -> Arrays:
        """Return inputs of which every varying size is another."""
        return example(self.whole, rng)

    def made_up(self, rng: np.random.Generator) -> list[tuple[str, Arrays]]:
        """Return cases of many sizes; the last is small, for the stored sample."""
        return made_up(self.whole, rng)

    def real(self) -> tuple[str, Arrays]:
        """Return one case of a real person, the one with the longest history, and real items with their tallies."""
        asked, data = boundary_queries(self.dataset, "test"), self.dataset
        whose = np.argmax(asked.end - asked.start, keepdims=True) if len(asked) else np.zeros(0, np.int64)
        start, end, now = asked.start[whose], asked.end[whose], asked.now[whose]
        if not len(whose):
            return "nobody", made_up(self.whole, np.random.default_rng(0))[-1][1]
        item = np.arange(min(data.spec.num_items + 1, _REAL))
        case = {
            **query_arrays(data, asked.person[whose], start, end, now),
            **self.book.arrays(data.pool, start, end, np.zeros(len(item), np.int64), item),
            **{name: array[item] for name, array in data.item_arrays.items()},
            "item_index": item,
            "item_tallies": self.book.frozen()[item],
        }
        return f"{int(end[0] - start[0])} real answers, {len(item)} real items", case

    def write(self, folder: Path) -> None:
        """Write what stands beside the graph."""
        write_answers(folder, self.dataset.spec, self.dataset.vocabularies, self.book)


def response_export(run: Run, tables: Path) -> ResponseExport:
    """Return the export of a finished run of model=response.

    Raises:
        TrainingError: the tables give other features by now.
    """
    dataset = open_dataset(tables, run.settings.features, run.settings.split)
    if run.spec.hash() != dataset.spec.hash():
        raise TrainingError(f"{run.path} has another feature spec than its tables give now; train again")
    whole, book = load_plain(run, dataset), read_tallies(run.path)
    counted, pool = ItemTallies(book.items.spec, np.zeros_like(book.items.sums)), dataset.pool
    rows = rows_before(dataset, "test")
    counted.add(pool.item[rows], pool.value[rows], pool.at[rows])
    book = TallyBook(counted, book.tastes, book.length, dataset.split.valid_until_us)
    return ResponseExport(response_graph(whole), whole, dataset, book)
