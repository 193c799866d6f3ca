"""Columns that give a label away: looked for before training, each alone, and named.

A column that holds the stars of the very event whose liking is to be predicted makes every figure of validation
perfect, and serves nothing: at the time of a request it is not there yet.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from playbill.dataset.dataset import Dataset
from playbill.dataset.tasks import Task, parents
from playbill.errors import TrainingError
from playbill.features.encoder import Arrays
from playbill.features.spec import Encoding, Field, Side
from playbill.measure.binary import auc
from playbill.training.batches.rows import queries_of, take
from playbill.training.ranking.data import EventRows, RankerRows, slate_batch

_MOST = 20_000  # rows that are looked at
_CUTS = 256  # parts of a number's range that are told apart where it has more values
_LEAST = 50  # of each label: below it a perfect column may be chance


def refuse_leaks(dataset: Dataset, data: RankerRows, tasks: list[Task], most_auc: float) -> None:
    """Raise TrainingError where one column alone tells the label of a task apart better than `most_auc`.

    Raises:
        TrainingError: names task, column, table and AUC.
    """
    if most_auc >= 1:
        return
    some = np.linspace(0, len(data) - 1, min(len(data), _MOST)).astype(np.int64)
    for task, arrays, label in _labelled(dataset, data, tasks, some):
        if min(label.sum(), (~label).sum()) < _LEAST:
            continue
        for field in dataset.spec.fields:
            if field.array not in arrays or field.encoding is Encoding.CYCLE:
                continue
            found = max(_tells(field, column, label) for column in _columns(field, arrays[field.array]))
            if found > most_auc:
                where = {Side.USER: "users", Side.ITEM: "items", Side.CONTEXT: "events"}[field.side]
                raise TrainingError(
                    f"column {field.name!r} of {where} alone tells the label of task {task!r} apart with AUC "
                    f"{found:.4f}: it equals or encodes what is to be predicted, and will not be known when it is "
                    f"asked for. Take it out of features.{field.side} and train the towers and the ranker again; where "
                    f"it is known beforehand, raise model.leak_auc (now {most_auc})"
                )


def _labelled(
    dataset: Dataset, data: RankerRows, tasks: list[Task], some: np.ndarray
) -> Iterator[tuple[str, Arrays, np.ndarray]]:
    """Yield each task with the encoded columns of the rows that teach it, and their labels [n] bool."""
    above = parents(tasks)
    if isinstance(data, EventRows):
        rows = take(data.rows, some)
        target = dataset.pool.item[rows.target_row]
        arrays = queries_of(dataset, rows) | {name: a[target] for name, a in dataset.item_arrays.items()}
        label, known = data.label[some], data.known[some]
    else:
        queries, item, rest = slate_batch(dataset, data, some)
        row, _ = there = np.nonzero(item > 0)
        arrays = {name: a[row] for name, a in queries.items()}
        arrays |= {name: a[item[there]] for name, a in dataset.item_arrays.items()}
        label, known = rest["label"][there], rest["known"][there]
    for t, task in enumerate(tasks):
        taught = known[:, t] > 0
        if above[t] >= 0:
            taught &= (label[:, above[t]] > 0) & (known[:, above[t]] > 0)
        rows_of = np.flatnonzero(taught)
        yield task.name, {name: a[rows_of] for name, a in arrays.items()}, label[rows_of, t] > 0


def _columns(field: Field, array: np.ndarray) -> list[np.ndarray]:
    return list(array.T) if field.encoding is Encoding.VECTOR else [array]


def _tells(field: Field, column: np.ndarray, label: np.ndarray) -> float:
    """Return the AUC of one column in the better direction; of a category by the mean label of other rows with it."""
    if field.encoding in (Encoding.CATEGORY, Encoding.CATEGORIES):
        return _by_value(column.reshape(len(column), -1), label, field.size)
    found = auc(label, column)
    # codes of a label need not stand in its order: whoever reads a number may cut it wherever it likes
    values, place = np.unique(column, return_inverse=True)
    if len(values) > _CUTS:
        cuts = min(_CUTS, len(column) // 20)  # enough rows in each to learn from
        values = np.unique(np.quantile(column, np.linspace(0, 1, cuts + 1)[1:], method="higher"))
        place = np.searchsorted(values, column)
    return max(found, 1 - found, _by_value(place[:, None], label, len(values)))


def _by_value(values: np.ndarray, label: np.ndarray, size: int) -> float:
    """Return the AUC of the mean label of other rows with the same values, [n, width] int, below 0 where missing."""
    score = np.zeros(len(values))
    fold = np.arange(len(values)) % 2
    for half in (0, 1):
        others = values[fold != half]
        there = others >= 0
        yes = np.broadcast_to(label[fold != half, None], others.shape)[there]
        counts = np.bincount(others[there], minlength=size)
        shares = (np.bincount(others[there], yes, size) + label.mean()) / (counts + 1)
        mine = values[fold == half]
        known = mine >= 0
        score[fold == half] = (shares[np.maximum(mine, 0)] * known).sum(1) / np.maximum(known.sum(1), 1)
    return auc(label, score)
