"""Rivals of the model of answers: logistic regression on ids and columns, and a boosted tree on the same tallies.

The tree reads what the tallies say and no ids; its rounds are picked on validation, then it learns again from training
and validation rows together. The regression reads a column for each person, item, category and declared value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from playbill.dataset.dataset import Dataset, Examples, examples
from playbill.dataset.tallied import rows_at, stale, tally_rows, tastes_of
from playbill.features.person_tallies import PAIR_NAMES, person_names
from playbill.features.spec import PAD, UNKNOWN, Encoding, Side
from playbill.features.tallies import ItemTallies

_TREE: dict[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.06,
    "num_leaves": 63,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "max_bin": 127,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}
_ROUNDS, _PATIENCE = 800, 40


def logistic_regression(dataset: Dataset, label: np.ndarray, teach: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return [Q] probabilities of a like, by ids and columns alone: nothing of it changes with time.

    Args:
        label: [E] bool of all events.
        teach, asked: [R], [Q] int64 pool rows.
    """
    from sklearn.linear_model import LogisticRegression  # late: the base install has no scikit-learn

    model = LogisticRegression(C=0.3, max_iter=200, tol=1e-3)
    model.fit(_one_hot(dataset, teach), label[teach])
    found: np.ndarray = model.predict_proba(_one_hot(dataset, asked))[:, 1]
    return found


def boosted_tree(
    dataset: Dataset, tallies: ItemTallies, label: np.ndarray, running: bool, length: int, seed: int
) -> tuple[np.ndarray, int]:
    """Return [Q] probabilities of a like for the rows of the test part, and the rounds that validation picked.

    Args:
        tallies: of training time; gives the level of counting.
        label: [E] bool of all events.
        running: whether test rows know what came before them in the test part.
        length: newest events of a history that tallies look at.
        seed: of the tree, and of where histories end while it learns from frozen ones.
    """
    import lightgbm  # late: the base install has none

    tastes, draw = tastes_of(dataset, tallies), np.random.default_rng(seed)

    def table(rows: Examples) -> np.ndarray:
        found = tally_rows(dataset, tallies, tastes, rows, length)
        return np.concatenate([found.item, found.person, found.pair, _columns(dataset, rows)], 1)

    def taught(parts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = [examples(dataset, part) for part in parts]
        rows = rows if running else [stale(r, draw)[0] for r in rows for _ in range(2)]
        return np.concatenate([table(r) for r in rows]), np.concatenate([label[r.target_row] for r in rows])

    names = [*tallies.spec.item_names, *person_names(tallies.spec), *PAIR_NAMES]
    names = [f"{i}_{name}" for i, name in enumerate(names)]
    valid, asked = (rows_at(dataset, part, running) for part in ("valid", "test"))
    settings = _TREE | {"seed": seed, "num_threads": 1}
    data = lightgbm.Dataset(*taught(["train"]))
    held_out = lightgbm.Dataset(table(valid), label[valid.target_row], reference=data)
    stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
    rounds = lightgbm.train(settings, data, _ROUNDS, valid_sets=[held_out], callbacks=[stop]).best_iteration
    again = lightgbm.train(settings, lightgbm.Dataset(*taught(["train", "valid"])), rounds)
    return np.asarray(again.predict(table(asked))), int(rounds)


def _columns(dataset: Dataset, rows: Examples) -> np.ndarray:
    """Return declared columns of people and items that are numbers or one value, [R, n] float32."""
    item = dataset.pool.item[rows.target_row]
    parts = [dataset.user_arrays[f.array][rows.person] for f in dataset.spec.side(Side.USER)]
    for field in dataset.spec.side(Side.ITEM):
        if field.encoding in (Encoding.CATEGORY, Encoding.NUMBER):
            parts.append(dataset.item_arrays[field.array][item])
    return np.stack(parts, 1).astype(np.float32) if parts else np.zeros((len(rows), 0), np.float32)


def _one_hot(dataset: Dataset, rows: np.ndarray) -> sparse.csr_matrix:
    person, item = dataset.pool.person[rows], dataset.pool.item[rows]
    blocks = [_flags(person, len(dataset.people)), _flags(item, dataset.spec.num_items + 1)]
    for field in dataset.spec.fields:
        if field.side is Side.CONTEXT or field.encoding not in (Encoding.CATEGORY, Encoding.CATEGORIES):
            continue
        whose, arrays = (person, dataset.user_arrays) if field.side is Side.USER else (item, dataset.item_arrays)
        blocks.append(_flags(arrays[field.array][whose], field.size))
    return sparse.hstack(blocks, format="csr")


def _flags(index: np.ndarray, size: int) -> sparse.csr_matrix:
    """Return [R, size] flags of an index [R] or of lists [R, width]; PAD and unknown have none."""
    index = index.reshape(len(index), -1)
    row, place = np.nonzero((index != PAD) & (index != UNKNOWN))
    column = index[row, place]
    return sparse.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=(len(index), size))
