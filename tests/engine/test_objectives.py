"""Other objectives on one bundle: nothing is trained, and held-out time says what each buys."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from playbill.bundle.open import Bundle
from playbill.dataset.dataset import Dataset
from playbill.release.calibrating import tasks_of
from playbill.release.objectives import measure_objectives, sweep_in_words, task_targets
from playbill.release.protocol import ask


def test_an_objective_moves_the_lists_its_way(bundle: Bundle, ml100k_tables: Path, dataset: Dataset) -> None:
    asked = ask(dataset, "test")
    report = measure_objectives(bundle, ml100k_tables, dataset, asked, k=20, resamples=200, seed=0, level=0.95)
    [sweep] = report.sweeps
    assert (sweep.first, sweep.other, report.notes) == ("interact", "like", [])
    first, last = sweep.points[0], sweep.points[-1]
    assert first.weights == {"interact": 1.0} and list(last.weights) == ["like"]
    assert first.first_gain.value == first.other_gain.value == 0
    # the graph's chance of an interaction knows what is popular, its chance of a like does not
    assert last.first_gain.high < 0 and last.first.value < first.first.value
    assert [p.share for p in sweep.points] == [0, 0.25, 0.5, 0.75, 1]
    middle = [p.first.value for p in sweep.points]
    assert middle == sorted(middle, reverse=True)
    assert sweep_in_words(sweep, report.metric).startswith("objective like in place of interact: ndcg_at_20")


def test_targets_of_a_task_are_what_it_came_true_for(bundle: Bundle, ml100k_tables: Path, dataset: Dataset) -> None:
    from playbill.tables.folder import read_table

    asked = ask(dataset, "test")
    taken, liked = task_targets(ml100k_tables, dataset, asked, tasks_of(bundle))
    assert len(taken) == len(liked) == len(asked) and 0 < len(liked.item) < len(taken.item)
    stars = np.asarray(read_table(ml100k_tables, "events")["value"])[dataset.pool.source_row]
    test = dataset.split.part == 2
    for u in (0, 7, 20):
        mine = test & (dataset.pool.person == asked.person[u])
        good = set(dataset.pool.item[mine & (stars >= 4)].tolist())
        told = set(liked.item[liked.indptr[u] : liked.indptr[u + 1]].tolist())
        assert told == good & set(taken.item[taken.indptr[u] : taken.indptr[u + 1]].tolist())
