"""Orders of shown lists: by the trained graph, by rules, and by a boosted tree on the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from playbill.engine.runtime import open_model
from playbill.engine.settings import EngineSettings

_TREE: dict[str, Any] = {
    "objective": "lambdarank",
    "lambdarank_truncation_level": 10,
    "metric": "ndcg",
    "eval_at": [25],
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}
_ROUNDS, _PATIENCE = 600, 50


def by_graph(path: Path, numbers: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return [R, C] float32 logits of a graph of `playbill train-lists`."""
    graph = open_model(path, EngineSettings())
    logits: np.ndarray = graph.run({"numbers": numbers, "there": there}, ["logit"])[0]
    return logits


def by_tree(numbers: np.ndarray, there: np.ndarray, taken: np.ndarray, part: np.ndarray, seed: int) -> np.ndarray:
    """Return [R, C] scores of a boosted tree; validation picks its rounds, then it learns from both parts again.

    Args:
        numbers: [R, C, F]. there: [R, C]. taken: [R]. part: [R] 0 train, 1 valid, 2 test.
    """
    import lightgbm  # late: the base install has none

    label = np.zeros(there.shape, np.int64)
    label[np.arange(len(taken)), taken] = 1

    def data(rows: np.ndarray, beside: Any = None) -> Any:
        mine = there[rows]
        sizes = mine.sum(1)
        return lightgbm.Dataset(numbers[rows][mine], label[rows][mine], group=sizes, reference=beside)

    settings = _TREE | {"seed": seed, "num_threads": 1}
    train = data(np.flatnonzero(part == 0))
    stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
    held_out = data(np.flatnonzero(part == 1), train)
    rounds = lightgbm.train(settings, train, _ROUNDS, valid_sets=[held_out], callbacks=[stop]).best_iteration
    model = lightgbm.train(settings, data(np.flatnonzero(part < 2)), rounds)
    scores = np.full(there.shape, -np.inf)
    scores[there] = model.predict(numbers[there])
    return scores


def reciprocal_ranks(scores: np.ndarray, there: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Return [R] float64: 1 / rank of what was taken, in the order of the scores; of equals the first place."""
    order = np.argsort(np.where(there, -scores, np.inf), axis=1, kind="stable")
    found: np.ndarray = 1 / (1 + (order == taken[:, None]).argmax(1))
    return found
