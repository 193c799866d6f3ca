"""What a trained model of answers says: its graph, asked as serving would, with what was known at each moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from playbill.dataset.dataset import Dataset, Examples, query_arrays
from playbill.dataset.tallied import item_numbers_at
from playbill.engine.runtime import open_model
from playbill.engine.settings import EngineSettings
from playbill.errors import PlaybillError
from playbill.features.build import read_features
from playbill.features.tally_file import read_tallies

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
    item = dataset.pool.item[rows.target_row]
    of_items = item_numbers_at(dataset, book.items, item, rows.now)
    p = np.zeros(len(rows))
    for low in range(0, len(rows), _AT_ONCE):
        some = np.arange(low, min(low + _AT_ONCE, len(rows)))
        # rows of one person share a history where they know the same
        _, first, whose = np.unique(
            np.stack([rows.start[some], rows.end[some]], 1), axis=0, return_index=True, return_inverse=True
        )
        people = some[first]
        start, end = rows.start[people], rows.end[people]
        arrays = query_arrays(dataset, rows.person[people], start, end, rows.now[people], rows.target_row[people])
        arrays |= {name: array[item[some]] for name, array in dataset.item_arrays.items()}
        arrays |= book.arrays(dataset.pool, start, end, whose, item[some], rows.now[some])
        arrays |= {"cand_user": whose, "item_index": item[some], "item_tallies": of_items[some]}
        p[some] = graph.run(arrays, ["p_like"])[0]
    return p
