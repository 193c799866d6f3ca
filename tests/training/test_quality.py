"""What the models learn from MovieLens-100K: more than popularity knows, and a ranker that does no harm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from playbill.baselines.popularity import popularity
from playbill.cli import main
from playbill.dataset.boundary import rows_before
from playbill.dataset.dataset import open_dataset
from playbill.training.runs import read_run
from playbill.training.validation import Validation, seen_mask


@pytest.mark.slow
def test_towers_beat_popularity_and_the_ranker_keeps_up(ml100k_tables: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "ml-100k").symlink_to(ml100k_tables)
    shorter = ["train", f"home={tmp_path}", "threads=1"]
    assert main([*shorter, "model.max_epochs=5"]) == 0
    towers = read_run(tmp_path / "runs" / "ml-100k-two_tower", "two_tower")
    dataset = open_dataset(ml100k_tables, towers.settings.features, towers.settings.split)
    known = rows_before(dataset, "valid")
    scores = popularity(dataset.pool.item[known], dataset.spec.num_items)[1:]
    validation = Validation(dataset, 10)
    sums = np.zeros(len(validation.names) + 1)
    for batch in validation.batches(0, 1):
        q = validation.queries
        hidden = seen_mask(q.seen_indptr, q.seen_item, batch.rows, len(scores))
        lists = np.argsort(-np.where(hidden, -np.inf, scores), axis=1, kind="stable")[:, :100] + 1
        sums += validation.metrics(lists, batch)
    alone = sums[validation.names.index("ndcg_at_10")] / sums[-1]
    assert alone == pytest.approx(0.1176, abs=0.002)  # of people with a history
    assert towers.record.best > alone + 0.04  # 0.075 today
    assert main([*shorter, "model.max_epochs=3", "model=ranker"]) == 0
    ranker = read_run(tmp_path / "runs" / "ml-100k-ranker", "ranker").record
    assert ranker.best > ranker.report["retrieval_ndcg_at_10"] - 0.01  # 0.005 below it today
    assert ranker.report["retrieval_ndcg_at_10"] == pytest.approx(towers.record.best)
