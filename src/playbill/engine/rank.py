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
    for low, high in _chunks([len(c) for c in candidates], most):
        mine = candidates[low:high]
        lengths = [len(c) for c in mine]
        item, cosine = np.concatenate([c.item for c in mine]), np.concatenate([c.scores["tower"] for c in mine])
        owner = np.repeat(np.arange(len(mine)), lengths)
        left_s = None if within_s is None else within_s - (time.perf_counter() - began)
        answers = _run(ranker, queries, list(rows[low:high]), owner, item, cosine, item_arrays, left_s)
        end = 0
        for length in lengths:
            start, end = end, end + length
            found.append({task: values[start:end] for task, values in zip(names, answers, strict=True)})
    return found


def rank_matrix(
    ranker: Graph, queries: Arrays, item: np.ndarray, cosine: np.ndarray, item_arrays: Mapping[str, Any], most: int
) -> dict[str, np.ndarray]:
    """Return the probabilities by task of B people's candidates, [B, M] float32 each.

    Args:
        queries: query-side arrays of the B people.
        item: [B, M] int64 item_index; `cosine` [B, M] float32.
        most: candidates in one run, where one person's do not need more.
    """
    size, width = item.shape
    step = max(1, most // max(1, width))
    parts = []
    for low in range(0, size, step):
        rows = slice(low, low + step)
        count = len(item[rows])
        mine = {name: array[rows] for name, array in queries.items()}
        owner = np.repeat(np.arange(count), width)
        parts.append(_run(ranker, mine, range(count), owner, item[rows].ravel(), cosine[rows].ravel(), item_arrays))
    whole = [np.concatenate(values).reshape(item.shape) for values in zip(*parts, strict=True)]
    return dict(zip(tasks(ranker), whole, strict=True))


def _run(
    ranker: Graph,
    queries: Arrays,
    rows: Sequence[int],
    owner: np.ndarray,
    item: np.ndarray,
    cosine: np.ndarray,
    item_arrays: Mapping[str, Any],
    within_s: float | None = None,
) -> list[np.ndarray]:
    """Return the probabilities of C candidates, [C] a task.

    Args:
        rows: of `queries`, those of the U people.
        owner: [C] int64, place in `rows`; `item`, `cosine` [C].
    """
    arrays: Arrays = {
        "cand_user": owner,
        "item_index": item,
        "retrieval_score": cosine.astype(np.float32, copy=False),
    }
    for name in ranker.inputs:
        if name in queries:
            arrays[name] = queries[name] if len(rows) == len(queries[name]) else queries[name][list(rows)]
        elif name in item_arrays:
            arrays[name] = item_arrays[name][item]
    return ranker.run(arrays, [PREFIX + name for name in tasks(ranker)], within_s)


def utility(weights: dict[str, float], terms: Mapping[str, np.ndarray], size: int | tuple[int, ...]) -> np.ndarray:
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
