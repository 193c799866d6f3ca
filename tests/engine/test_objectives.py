"""Other objectives on one bundle: nothing is trained, and held-out time says what each buys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from playbill.bundle.open import Bundle
from playbill.dataset.dataset import Dataset, open_dataset
from playbill.dataset.settings import SplitSettings
from playbill.dataset.tasks import Task
from playbill.features.settings import FeatureSettings
from playbill.release.calibrating import tasks_of
from playbill.release.objectives import measure_objectives, sweep_in_words, task_targets
from playbill.release.protocol import ask
from playbill.tables.schema import EventKind


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


def test_a_child_of_another_event_comes_true_where_its_parent_did(make_tables: Callable[..., Path]) -> None:
    hour = 3_600_000_000
    log = [("click", 9, None)] * 9 + [("click", 1, None), ("play", 1, 0.9), ("click", 2, None), ("play", 2, 0.2)]
    log += [("play", 3, 1.0), ("click", 4, None), ("buy", 4, None), ("buy", 5, None)]
    events = [
        {"event_id": n, "user_id": 1, "event": name, "at": n * hour, "item_id": item, "value": value}
        for n, (name, item, value) in enumerate(log)
    ]
    declared = [EventKind(name="click"), EventKind(name="play", low=0, high=1), EventKind(name="buy")]
    items = [{"item_id": n, "price": float(n)} for n in range(1, 10)]
    tables = make_tables(events=events, items=items, users=[{"user_id": 1}], declared=declared)
    dataset = open_dataset(tables, FeatureSettings(), SplitSettings(train=0.45, valid=0.05))
    tasks = [
        Task(name="click", events=["click"]),
        Task(name="finish", parent="click", events=["play"], threshold=0.8),
        Task(name="pay", parent="click", events=["buy"], within_days=0.05),
    ]
    found = task_targets(tables, dataset, ask(dataset, "test"), tasks)
    told = [[dataset.vocabularies["item"].values[i - 1] for i in sorted(t.item.tolist())] for t in found]
    # 3 was finished and 5 bought by somebody who never clicked on them
    assert told == [[1, 2, 3, 4, 5], [1], [4]]
