"""More vectors than there are, by sampling around real ones; and how alike the two clouds are.

A new vector is a real one plus a Gaussian step in the span of its way to its near neighbours, as long as they are far:

    new = unit(x + sum_j g_j (x_j - x) / sqrt(K)),  g_j ~ N(0, 1), x_j the K = 20 nearest of x

So a new vector lies in the surface on which its neighbours lie and is as far from its origin as they are. That keeps
clusters, hubs and the local dimension, which decide how hard a catalogue is to index; `likeness` measures whether it
does, on a size that is held out: a tenth of the real vectors is scaled up to all of them, and the real cloud compared.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

NEIGHBOURS = 20
_BLOCK = 16_384


def scaled(items: np.ndarray, size: int, seed: int = 0) -> np.ndarray:
    """Return [size + 1, d] float32: all the given items, and new ones around evenly drawn items of them.

    Args:
        items: [N + 1, d] float32 of unit length, row 0 the unknown item.
        size: at least N.
    """
    rng = np.random.default_rng(seed)
    real = items[1:]
    near = neighbours(real)
    out = np.empty((size + 1, items.shape[1]), np.float32)
    out[: len(items)] = items
    for low in range(len(items), size + 1, _BLOCK):
        high = min(low + _BLOCK, size + 1)
        base = rng.integers(len(real), size=high - low)
        steps = rng.normal(size=(high - low, NEIGHBOURS)).astype(np.float32) / np.float32(NEIGHBOURS**0.5)
        around = real[near[base]] - real[base][:, None]
        new = real[base] + np.einsum("bk,bkd->bd", steps, around)
        out[low:high] = new / np.maximum(np.linalg.norm(new, axis=1, keepdims=True), 1e-9)
    return out


def neighbours(vectors: np.ndarray) -> np.ndarray:
    """Return [N, K] int64, the nearest others of each."""
    index = faiss.IndexFlatIP(vectors.shape[1]) if len(vectors) <= 20_000 else _lists(vectors)
    index.add(vectors)
    _, found = index.search(vectors, NEIGHBOURS + 1)
    found[found < 0] = 0
    near: np.ndarray = found[:, 1:]
    return near


def likeness(items: np.ndarray, queries: np.ndarray, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Return, for the real vectors and for a tenth of them scaled up to as many, what makes an index's life hard."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(items) - 1)[: (len(items) - 1) // 10]) + 1
    made = scaled(np.concatenate([items[:1], items[rows]]), len(items) - 1, seed)
    return {"real": portrait(items, queries), "scaled from a tenth": portrait(made, queries)}


def portrait(items: np.ndarray, queries: np.ndarray) -> dict[str, Any]:
    """Return local intrinsic dimension, mean scores of the best by rank, hubs, and recall@200 by lists visited."""
    vectors, asked = items[1:], np.ascontiguousarray(queries[:200])
    sample = np.random.default_rng(1).permutation(len(vectors))[:500]
    cosine = np.sort(vectors[sample] @ vectors.T, 1)[:, -101:-1][:, ::-1]
    distance = np.sqrt(np.maximum(2 - 2 * cosine, 1e-12))
    # Levina and Bickel (2004), maximum likelihood from the distances to the 100 nearest
    dimension = 1 / np.maximum(np.log(distance[:, -1:] / distance[:, :-1]).mean(1), 1e-9)
    scores = asked @ vectors.T
    best = np.argpartition(-scores, 200, axis=1)[:, :200]
    ranked = -np.sort(-scores, axis=1)[:, :1000]
    counts = np.sort(np.bincount(best.ravel(), minlength=len(vectors)))[::-1]
    index = _lists(vectors)
    index.add(vectors)
    recall = {}
    for lists in (8, 32, 128, 512):
        index.nprobe = min(lists, index.nlist)
        found = index.search(asked, 200)[1]
        recall[str(lists)] = round(float(np.mean([np.isin(b, f).mean() for b, f in zip(best, found, strict=True)])), 4)
    return {
        "intrinsic_dimension_median": round(float(np.median(dimension)), 2),
        "score_at_rank": {str(r): round(float(ranked[:, r - 1].mean()), 4) for r in (1, 10, 100, 200, 1000)},
        "share_of_answers_by_the_200_commonest": round(float(counts[:200].sum() / counts.sum()), 4),
        "recall_at_200_by_lists": recall,
    }


def _lists(vectors: np.ndarray) -> Any:
    lists = max(1, min(int(4 * len(vectors) ** 0.5), len(vectors) // 39))
    index = faiss.index_factory(vectors.shape[1], f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid = 64
    index.train(vectors)
    index.nprobe = 32
    return index
