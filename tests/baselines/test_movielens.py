"""Known figures on MovieLens: what these baselines reach where others have measured them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from playbill.baselines.ease import fit_ease, score_ease
from playbill.baselines.ials import fit_ials, score_ials
from playbill.baselines.item_knn import fit_cooccurrence, fit_transitions
from playbill.baselines.neighbours import score_histories
from playbill.baselines.popularity import popularity, repeat_scores
from playbill.dataset.boundary import boundary_queries, rows_before
from playbill.dataset.dataset import open_dataset
from playbill.dataset.settings import SplitKind, SplitSettings
from playbill.features.settings import FeatureSettings
from playbill.measure.ranking import Targets, user_metrics

Scorer = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _figures(
    scorer: Scorer, indptr: np.ndarray, item: np.ndarray, targets: Targets, n: int, k: int
) -> dict[str, float]:
    """Return the mean of each metric at k over everybody, with what was had struck out of the whole catalogue."""
    parts = []
    for low in range(0, len(indptr) - 1, 1000):
        mine = indptr[low : low + 1001]
        scores = np.array(scorer(mine, item))
        scores[np.repeat(np.arange(len(mine) - 1), np.diff(mine)), item[mine[0] : mine[-1]]] = -np.inf
        best = np.argpartition(-scores, k, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        parts.append(np.take_along_axis(best, order, axis=1))
    return {
        name: float(of_users.mean()) for name, of_users in user_metrics(np.concatenate(parts), targets, [k], n).items()
    }


def test_ease_on_the_last_tenth_of_movielens_100k(ml100k_tables: Path) -> None:
    dataset = open_dataset(ml100k_tables, FeatureSettings(), SplitSettings())
    queries, rows = boundary_queries(dataset, "test"), rows_before(dataset, "test")
    person, item, n = dataset.pool.person[rows], dataset.pool.item[rows], dataset.spec.num_items
    counted, ease = popularity(item, n), fit_ease(person, item, n, l2=500)

    def scorer(indptr: np.ndarray, item: np.ndarray) -> np.ndarray:
        # 76 of the 166 people are new at the boundary; the published figure gives them what is popular
        new = np.diff(indptr) == 0
        return np.where(new[:, None], counted, score_ease(ease, indptr, item))

    targets = Targets(queries.target_indptr, queries.target_item)
    figures = _figures(scorer, queries.seen_indptr, queries.seen_item, targets, n, k=20)
    assert figures["recall_at_20"] == pytest.approx(0.136, abs=0.002)
    assert figures["ndcg_at_20"] == pytest.approx(0.302, abs=0.003)


def test_ials_finds_the_last_item_of_movielens_100k(ml100k_tables: Path) -> None:
    split = SplitSettings(kind=SplitKind.leave_last_out)
    dataset = open_dataset(ml100k_tables, FeatureSettings(), split)
    queries, rows = boundary_queries(dataset, "test"), rows_before(dataset, "test")
    n = dataset.spec.num_items
    # the best of a grid on validation
    model = fit_ials(dataset.pool.person[rows], dataset.pool.item[rows], n, factors=32, alpha=1, l2=0.001)
    targets = Targets(queries.target_indptr, queries.target_item)
    figures = _figures(
        lambda indptr, item: score_ials(model, indptr, item), queries.seen_indptr, queries.seen_item, targets, n, k=10
    )
    assert len(queries) == 943
    assert figures["hit_rate_at_10"] == pytest.approx(0.154, abs=0.01)  # 0.1548 on the day of writing
    assert figures["ndcg_at_10"] == pytest.approx(0.078, abs=0.008)  # 0.0803


def test_order_carries_movielens_1m(shared_data: Path) -> None:
    path = shared_data / "ml-1m" / "interactions.parquet"
    if not path.is_file():
        pytest.skip(f"no {path}")
    rows = pl.read_parquet(path).drop_nulls("sasrec_pos").sort("user_id", "sasrec_pos")
    person = rows["user_id"].to_numpy().astype(np.int64)
    item = rows["item_id"].rank("dense").to_numpy().astype(np.int64)
    n = int(item.max())
    assert n == 3416
    last = np.append(person[1:] != person[:-1], True)
    targets = Targets(np.arange(6041), item[last])
    log_person, log_item = person[~last], item[~last]
    indptr = np.append(0, np.flatnonzero(np.append(log_person[1:] != log_person[:-1], True)) + 1)

    def reached(scorer: Scorer) -> tuple[float, float]:
        figures = _figures(scorer, indptr, log_item, targets, n, k=10)
        return figures["hit_rate_at_10"], figures["ndcg_at_10"]

    counted = popularity(log_item, n)
    assert reached(lambda p, _: repeat_scores(counted, len(p) - 1)) == pytest.approx((0.0363, 0.0178), abs=0.0005)
    together = fit_cooccurrence(log_person, log_item, n)
    assert reached(lambda p, i: score_histories(together, p, i)) == pytest.approx((0.071, 0.037), abs=0.003)
    following = fit_transitions(log_person, log_item, n)
    hit_rate, ndcg = reached(lambda p, i: score_histories(following, p, i))
    # 0.2866 and 0.1687 on the day of writing, untuned
    assert hit_rate > 0.28 and ndcg > 0.165
