"""Step 3, rank: probabilities by task for the candidates of a whole batch, and one utility for each candidate."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from playbill.engine.elsewhere import Graph
from playbill.engine.retrieve import Candidates
from playbill.features.encoder import Arrays

PREFIX = "p_"  # outputs of the ranker that are probabilities

# Scores below the ranker's rung. The last term only orders what the others leave equal.
RETRIEVAL = {"tower": 1.0, "popularity": 1e-6}
# what follows what says more than what goes together: of eleven mixtures the best on validation of MovieLens-100K, both
# for each person's last event and across a moment
ITEM_KNN = {"item_knn": 0.2, "transitions": 0.8, "popularity": 1e-3}
POPULAR = {"trending": 0.5, "popularity": 0.5}


def tasks(ranker: Graph) -> list[str]:
    """Return the tasks for which a ranker gives a probability, such as `interact`."""
    return [name.removeprefix(PREFIX) for name in ranker.outputs if name.startswith(PREFIX)]


def rank(
    ranker: Graph,
    queries: Arrays,
    rows: Sequence[int],
    candidates: Sequence[Candidates],
    item_arrays: Mapping[str, Any],
    most: int,
    within_s: float | None = None,
) -> list[dict[str, np.ndarray]]:
    """Return each request's probabilities by task, [M] float32 in 0..1.

    Args:
        queries: query-side arrays of a batch.
        rows: U rows of it, one for each of `candidates`.
        item_arrays: [N + 1, ...] by name; `item_index` among them where the graph knows fewer items.
        most: candidates in one run, where one request's do not need more.
        within_s: seconds for a ranker in another process, which raises where they do not do.
    """
    began = time.perf_counter()
    found: list[dict[str, np.ndarray]] = []
    names = tasks(ranker)
    outputs = [PREFIX + name for name in names]
    for low, high in _chunks([len(c) for c in candidates], most):
        mine = candidates[low:high]
        lengths = [len(c) for c in mine]
        item = mine[0].item if len(mine) == 1 else np.concatenate([c.item for c in mine])
        cosine = [c.scores["tower"] for c in mine]
        arrays: Arrays = {
            "cand_user": np.repeat(np.arange(len(mine)), lengths),
            "item_index": item,
            "retrieval_score": (cosine[0] if len(mine) == 1 else np.concatenate(cosine)).astype(np.float32, copy=False),
        }
        chosen = list(rows[low:high])
        for name in ranker.inputs:
            if name in queries:
                arrays[name] = queries[name] if len(chosen) == len(queries[name]) else queries[name][chosen]
            elif name in item_arrays:
                arrays[name] = item_arrays[name][item]
        answers = ranker.run(arrays, outputs, None if within_s is None else within_s - (time.perf_counter() - began))
        ends = np.cumsum(lengths).tolist()
        for low_row, high_row in zip([0, *ends], ends, strict=False):
            found.append({task: values[low_row:high_row] for task, values in zip(names, answers, strict=True)})
    return found


def utility(weights: dict[str, float], terms: dict[str, np.ndarray], size: int) -> np.ndarray:
    """Return [size] float64 sum of weight * term; a term that is not there counts nothing."""
    total = np.zeros(size)
    for name, weight in weights.items():
        if name in terms:
            total += weight * terms[name]
    return total


def _chunks(lengths: list[int], most: int) -> list[tuple[int, int]]:
    chunks, low, size = [], 0, 0
    for i, length in enumerate(lengths):
        if size and size + length > most:
            chunks.append((low, i))
            low, size = i, 0
        size += length
    if low < len(lengths):
        chunks.append((low, len(lengths)))
    return chunks
