"""LightFM (WARP) and implicit's iALS on MovieLens-1M, global time split: Recall@20 and NDCG@20, a list a person.

    VENV/bin/python factorisation_quality.py model=lightfm|ials seed=1 [data=../shared/data] [out=var/peers] [threads=1]

Settings are chosen on the validation part by NDCG@20, and the model is trained again on train and validation rows. Seen
items are removed, all 3,706 items stand to choose from; a person without an earlier row has no list and scores 0. Each
seed is a job of its own: where its result with the same settings is there, it is printed.
Writes <out>/<model>-global-seed<seed>.json and .parquet (user_id, position, item_id).
"""

from __future__ import annotations

import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from implicit.als import AlternatingLeastSquares
from lightfm import LightFM
from ml1m import Rows, arguments, figures, finished, global_split, parts, peak_mib, write_lists, write_result
from scipy.sparse import csr_matrix

K = 20
GRIDS: dict[str, dict[str, list[Any]]] = {
    "lightfm": {"width": [32, 64, 128], "rate": [0.02, 0.05], "epochs": [10, 30]},
    "ials": {"width": [16, 32, 64, 128], "regularization": [0.01, 1.0, 10.0], "alpha": [1.0, 10.0], "epochs": [15]},
}


def scores_of(kind: str, chosen: dict[str, Any], seen: csr_matrix, seed: int, threads: int) -> np.ndarray:
    """Return [U, N] scores of a model trained on `seen`."""
    if kind == "ials":
        model = AlternatingLeastSquares(
            factors=chosen["width"],
            regularization=chosen["regularization"],
            alpha=chosen["alpha"],
            iterations=chosen["epochs"],
            num_threads=threads,
            random_state=seed,
        )
        model.fit(seen.astype(np.float32), show_progress=False)
        return np.asarray(model.user_factors @ model.item_factors.T)
    model = LightFM(no_components=chosen["width"], learning_rate=chosen["rate"], loss="warp", random_state=seed)
    model.fit(seen.tocoo(), epochs=chosen["epochs"], num_threads=threads)
    (user_bias, user), (item_bias, item) = model.get_user_representations(), model.get_item_representations()
    return np.asarray(user @ item.T + user_bias[:, None] + item_bias)


def lists_of(scores: np.ndarray, seen: csr_matrix, users: np.ndarray, items: np.ndarray) -> dict[int, list[int]]:
    """Return the K best items, not seen, of every person who has seen something."""
    scores = scores.astype(np.float64)
    scores[seen.nonzero()] = -np.inf
    top = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    known = np.flatnonzero(seen.getnnz(axis=1))
    return {int(users[row]): items[top[row]].tolist() for row in known}


def main(given: list[str]) -> None:
    """Choose, train, test, write."""
    defaults = {"data": "../shared/data", "model": "lightfm", "seed": 1, "threads": 1, "choices": 0, "out": "var/peers"}
    settings = arguments(given, defaults)
    kind = settings["model"]
    path = Path(settings["out"]) / f"{kind}-global-seed{settings['seed']}.json"
    if finished(path, settings):
        return
    rows = global_split(settings["data"])
    users, items = np.unique(rows["user_id"]), np.unique(rows["item_id"])

    def matrix(some: Rows) -> csr_matrix:
        at = np.searchsorted(users, some["user_id"]), np.searchsorted(items, some["item_id"])
        return csr_matrix((np.ones(len(at[0]), np.float32), at), shape=(len(users), len(items)))

    def lists(chosen: dict[str, Any], seen: csr_matrix) -> dict[int, list[int]]:
        scores = scores_of(kind, chosen, seen, settings["seed"], settings["threads"])
        return lists_of(scores, seen, users, items)

    choices = [dict(zip(GRIDS[kind], values, strict=True)) for values in product(*GRIDS[kind].values())]
    train, looks = matrix(parts(rows, "train")), []
    for chosen in choices[: settings["choices"] or None]:
        begun = time.perf_counter()
        looks.append(figures(lists(chosen, train), parts(rows, "valid"), K) | {"chosen": chosen})
        print(f"{chosen}: {looks[-1]}, {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    best = max(looks, key=lambda look: look[f"ndcg_at_{K}"])
    found = lists(best["chosen"], matrix(parts(rows, "train", "valid")))
    test = parts(rows, "test")
    asked = set(test["user_id"].tolist())
    found = {user: ranked for user, ranked in found.items() if user in asked}
    write_lists(path.with_suffix(".parquet"), found)
    result = {"settings": settings, "test": figures(found, test, K), "users_with_a_list": len(found)}
    write_result(path, result | {"valid": best, "looks": looks, "peak_memory_mib": peak_mib()})


if __name__ == "__main__":
    main(sys.argv[1:])
