"""What a trained model of answers says: its graph, asked as serving asks, with what was known at each moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from playbill.dataset.dataset import Dataset, Examples, query_arrays
from playbill.dataset.tallied import item_numbers_at
from playbill.engine.answers import ask_people
from playbill.engine.runtime import Model, open_model
from playbill.engine.settings import EngineSettings
from playbill.errors import PlaybillError
from playbill.features.build import read_features
from playbill.features.tally_file import TallyBook, read_tallies

_AT_ONCE = 512  # rows


def ask_answers(run: Path, dataset: Dataset, rows: Examples) -> np.ndarray:
    """Return [R] float64 probabilities of a like.

    Args:
        run: folder of a finished run of model=response.
        rows: `now` is the moment up to which tallies of items count; `start`, `end` are the histories.
    Raises:
        PlaybillError: the run was trained on other features.
    """
    spec, _ = read_features(run)
    if spec.hash() != dataset.spec.hash():
        raise PlaybillError(f"{run} was trained on other features than this data set has; train it again")
    book, graph = read_tallies(run), open_model(run / "response.onnx", EngineSettings())
    of_items = item_numbers_at(dataset, book.items, dataset.pool.item[rows.target_row], rows.now)
    return ask_rows(graph, book, dataset, rows, of_items)


def ask_rows(graph: Model, book: TallyBook, dataset: Dataset, rows: Examples, of_items: np.ndarray) -> np.ndarray:
    """Return [R] float64 probabilities of a like.

    Args:
        dataset: of the features that the model reads.
        rows: `start`, `end` are the histories.
        of_items: [R, K] float32 tallies of the rows' items.
    """
    item, p = dataset.pool.item[rows.target_row], np.zeros(len(rows))
    order = np.lexsort((rows.end, rows.start))
    for low in range(0, len(rows), _AT_ONCE):
        some = order[low : low + _AT_ONCE]
        # rows of one person share a history where they know the same, and then they share its moment
        first = np.flatnonzero(
            (np.diff(rows.start[some], prepend=-1) != 0) | (np.diff(rows.end[some], prepend=-1) != 0)
        )
        people = some[first]
        start, end = rows.start[people], rows.end[people]
        queries = query_arrays(dataset, rows.person[people], start, end, rows.now[people], rows.target_row[people])
        items, tallies = (np.split(a[some], first[1:]) for a in (item, of_items))
        found = ask_people(graph, book, dataset.pool, start, end, queries, items, tallies, dataset.item_arrays)
        p[some] = np.concatenate(found)
    return p
