"""What an objective buys: the same bundle asked again and again, from the first task's wish to another's, untrained.

Each point is the whole road through the engine with other weights in the policy. Held-out time says what came of it:
how well the lists meet what people took up, and how well they meet the part of it for which the other task came true.
An objective that moves the lists and not what comes of them would show here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from playbill.bundle.answers import ENJOY
from playbill.bundle.open import Bundle
from playbill.dataset.dataset import Dataset, Examples, rows_of
from playbill.dataset.labels import row_labels
from playbill.dataset.tasks import Task, parents
from playbill.engine.engine import Engine
from playbill.measure.bootstrap import Interval, intervals
from playbill.measure.ranking import NO_ITEM, Targets, targets_from_pairs, user_metrics
from playbill.release.calibrating import enjoy_task, tasks_of
from playbill.release.protocol import Asked
from playbill.release.roads import CPU, fill, request_of
from playbill.state.store import Store

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_ASKED_AT_ONCE = 256


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One objective.

    Attributes:
        share: of the other task in the objective, 0..1, both tasks measured in units of their usual probability.
        weights: that the policy had.
        first, other: metric of the lists against what people took up, and against what the other task came true for.
        first_gain, other_gain: these less their values at share 0, paired over people.
    """

    share: float
    weights: dict[str, float]
    first: Interval
    other: Interval
    first_gain: Interval
    other_gain: Interval


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """From the first task to one other. Attributes: people: with something the other task came true for."""

    first: str
    other: str
    people: int
    points: list[Point]


class ObjectivesReport(msgspec.Struct, kw_only=True):
    """`report/objectives.json`.

    Attributes:
        metric: of each person's list.
        sweeps: one for each task besides the first of which held-out time says anything.
        notes: tasks that it says nothing of.
    """

    metric: str
    sweeps: list[Sweep]
    notes: list[str] = []


def measure_objectives(
    bundle: Bundle,
    tables: Path,
    dataset: Dataset,
    asked: Asked,
    *,
    k: int,
    resamples: int,
    seed: int,
    level: float,
) -> ObjectivesReport:
    """Return what moving the slate's objective from the first task to each other does on the test part.

    Args:
        bundle: carries a ranker, with the features of `dataset`.
        tables: folder that the dataset was opened from.
        asked: who is asked, and what they went on to do.
        k: length of the lists.
        resamples, seed, level: of the intervals over people.
    """
    tasks = [*tasks_of(bundle), *enjoy_task(bundle)]
    name = f"ndcg_at_{k}"
    report = ObjectivesReport(metric=name, sweeps=[])
    targets = task_targets(tables, dataset, asked, tasks)
    with (
        tempfile.TemporaryDirectory(prefix="playbill-objectives-") as folder,
        Store.open(Path(folder) / "state") as store,
    ):
        fill(store, tables, dataset, asked)
        usual: dict[str, float] = {}
        for t, task in enumerate(tasks[1:], start=1):
            people = np.flatnonzero(targets[t].counts())
            if not len(people):
                report.notes.append(f"{task.name}: came true for nobody in the test part")
                continue
            columns, weighed = {}, []
            usual = usual if task.name in usual else {}
            for share in SHARES:
                weights = {
                    tasks[0].name: (1 - share) / usual.get(tasks[0].name, 1.0),
                    task.name: share / usual.get(task.name, 1.0),
                }
                # what is enjoyed is said where it is weighed, and what it usually is must be known before it is
                weights = {n: w for n, w in weights.items() if w or n == ENJOY}
                lists, seen = objective_lists(bundle, store, dataset, asked, k, weights)
                usual = usual or seen  # of the first task's own lists
                weighed.append(weights)
                for place, wanted in ((0, targets[0]), (t, targets[t])):
                    found = user_metrics(lists[people], wanted.take(people), [k], dataset.spec.num_items)
                    columns[f"{place > 0:d}{share}"] = found[name]
            report.sweeps.append(
                Sweep(
                    first=tasks[0].name,
                    other=task.name,
                    people=len(people),
                    points=_points(columns, weighed, resamples, seed, level),
                )
            )
    return report


def sweep_in_words(sweep: Sweep, metric: str) -> str:
    """Return what the far end of a sweep gains and loses, as a line for a screen."""
    last = sweep.points[-1]
    gain, loss = (f"{i.value:+.4f} [{i.low:+.4f} {i.high:+.4f}]" for i in (last.other_gain, last.first_gain))
    return (
        f"objective {sweep.other} in place of {sweep.first}: {metric} on what {sweep.other} came true for {gain}, on "
        f"all that was taken up {loss}, {sweep.people} people"
    )


def task_targets(tables: Path, dataset: Dataset, asked: Asked, tasks: Sequence[Task]) -> list[Targets]:
    """Return for each task the items of the test part for which it came true, of those the people had not had.

    The first task's are all that they took up.
    """
    rows = rows_of(dataset, "test")
    pool = dataset.pool
    none = np.zeros(len(rows), np.int64)
    until = int(pool.at[rows].max(initial=0)) + 1
    own = Examples(pool.person[rows], rows, none, none, pool.at[rows])
    label, known = row_labels(tables, dataset, own, tasks, until)
    width = dataset.spec.num_items + 1
    owner = np.repeat(np.arange(len(asked)), asked.targets.counts())
    wanted = asked.person[owner] * width + asked.targets.item
    pair = pool.person[rows] * width + pool.item[rows]
    found, true = [asked.targets], [(label[:, 0] * known[:, 0]) > 0]
    for t, (task, parent) in enumerate(zip(tasks, parents(tasks), strict=True)):
        if not t:
            continue
        came = (label[:, t] * known[:, t]) > 0
        if parent >= 0:
            # without a window the parent may be another event of that person with that item: a click, then a play
            came &= true[parent] if task.within_days is not None else np.isin(pair, pair[true[parent]])
        true.append(came)
        there = np.isin(wanted, pair[came])
        found.append(targets_from_pairs(owner[there], asked.targets.item[there], len(asked)))
    return found


def objective_lists(
    bundle: Bundle, store: Store, dataset: Dataset, asked: Asked, k: int, weights: dict[str, float]
) -> tuple[np.ndarray, dict[str, float]]:
    """Return the lists under an objective of the slate's surface, and the mean probability of each task on them.

    Args:
        store: filled with what the people asked had done.
        weights: that the policy gets in place of its own.
    Returns:
        [U, k] int64 item_index, NO_ITEM where a list is short; means by task.
    """
    surface = msgspec.structs.replace(bundle.policy.surfaces["slate"], weights=weights)
    policy = msgspec.structs.replace(bundle.policy, surfaces={"slate": surface})
    engine = Engine.open(replace(bundle, policy=policy), store, CPU)
    items = dataset.vocabularies["item"]
    lists = np.full((len(asked), k), NO_ITEM, np.int64)
    sums: dict[str, float] = {}
    places = 0
    for low in range(0, len(asked), _ASKED_AT_ONCE):
        requests = [request_of(dataset, asked, row, k) for row in range(low, min(low + _ASKED_AT_ONCE, len(asked)))]
        for row, slate in enumerate(engine.recommend(requests), low):
            lists[row, : len(slate.items)] = items.indices([item.item_id for item in slate.items])
            for item in slate.items:
                places += bool(item.probabilities)
                for name, p in item.probabilities.items():
                    sums[name] = sums.get(name, 0.0) + p
    return lists, {name: max(total / places, 1e-9) for name, total in sums.items()}


def _points(
    columns: dict[str, np.ndarray], weighed: Sequence[dict[str, float]], resamples: int, seed: int, level: float
) -> list[Point]:
    gains = {f"gain{name}": column - columns[f"{name[0]}{SHARES[0]}"] for name, column in columns.items()}
    found = intervals(columns | gains, resamples=resamples, seed=seed, level=level)
    return [
        Point(
            share=share,
            weights=weights,
            first=found[f"0{share}"],
            other=found[f"1{share}"],
            first_gain=found[f"gain0{share}"],
            other_gain=found[f"gain1{share}"],
        )
        for share, weights in zip(SHARES, weighed, strict=True)
    ]
