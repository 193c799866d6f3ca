"""On which rows a ranker's probabilities are held against what happened: fitted on `valid`, reported on `test`.

Where it learned from impressions, these are the items that were shown in the part. Where it learned from events alone,
they are, for everybody with an event in the part, the items nearest to them at the moment at which it begins that they
had not had: what a ranker is asked to order. An item comes true there by what the person does with it in the part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from playbill.dataset.boundary import boundary_queries
from playbill.dataset.dataset import Dataset, Examples, query_arrays, rows_of
from playbill.dataset.impressions import read_impressions
from playbill.dataset.labels import row_labels
from playbill.dataset.settings import SplitKind
from playbill.dataset.tasks import Task, parents
from playbill.features.encoder import Arrays, point_in_time

_PEOPLE_AT_ONCE = 128
MOST_SLATES = 20_000  # newest slates of a part that are looked at

Answers = Callable[[Arrays], np.ndarray]
Ranks = Callable[[Arrays], dict[str, np.ndarray]]


@dataclass(slots=True)
class Judged:
    """Candidates with what was said of them and what came true, n of them.

    Attributes:
        person: [n] int64.
        row: [n] int64, number of the slate or list that the candidate stands on.
        answers: by output name, [n] float32: what the ranker said.
        label, known: [n, T] float32 of 0 and 1: a task came true together with its parents; whether that can be said.
    """

    person: np.ndarray
    row: np.ndarray
    answers: dict[str, np.ndarray]
    label: np.ndarray
    known: np.ndarray


@dataclass(slots=True)
class _Rows:
    """R people at a moment with C candidates each; item 0 where there is none."""

    person: np.ndarray
    start: np.ndarray
    end: np.ndarray
    now: np.ndarray
    context: Arrays
    item: np.ndarray
    label: np.ndarray
    known: np.ndarray


def judge(
    tables: Path,
    dataset: Dataset,
    part: str,
    tasks: Sequence[Task],
    *,
    impressions: bool,
    query: Answers,
    items: np.ndarray,
    rank: Ranks,
    nearest: int = 100,
    slates: int = MOST_SLATES,
) -> Judged:
    """Return the candidates of a part, ranked, with their labels.

    Args:
        tables: folder that the dataset was opened from.
        part: valid or test.
        tasks: declared ones.
        impressions: whether the ranker learned from impressions; leave-last-out splits have none.
        query: query-side arrays of B people -> [B, d] float32.
        items: [N + 1, d] float32 item vectors.
        rank: arrays of a ranker's call -> its outputs by name, [n] each.
        nearest: candidates of a person where there are no impressions.
        slates: newest ones of the part that are looked at, where there are.
    """
    if impressions and dataset.split.kind is SplitKind.global_time:
        rows = _shown(tables, dataset, part, tasks, slates)
    else:
        rows = _listed(tables, dataset, part, tasks, query, items, nearest)
    there = rows.item > 0
    found: dict[str, list[np.ndarray]] = {}
    for low in range(0, len(rows.person), _PEOPLE_AT_ONCE):
        some = slice(low, low + _PEOPLE_AT_ONCE)
        arrays = _arrays(dataset, rows, some)
        cand_user, place = np.nonzero(there[some])
        item = rows.item[some][cand_user, place]
        vectors = query(arrays)
        arrays |= {"cand_user": cand_user, "item_index": item}
        arrays |= {name: array[item] for name, array in dataset.item_arrays.items()}
        arrays["retrieval_score"] = np.einsum("rc,rc->r", vectors[cand_user], items[item]).astype(np.float32)
        for name, values in rank(arrays).items():
            found.setdefault(name, []).append(values)
    return Judged(
        person=np.broadcast_to(rows.person[:, None], there.shape)[there],
        row=np.nonzero(there)[0],
        answers={name: np.concatenate(values) for name, values in found.items()},
        label=rows.label[there],
        known=rows.known[there],
    )


def joined(label: np.ndarray, known: np.ndarray, tasks: Sequence[Task]) -> tuple[np.ndarray, np.ndarray]:
    """Return (label, known) of tasks together with their parents: what p_<task> speaks of.

    Where a parent did not come true, neither did its child, whatever else is known; but one with a window is known
    where that is over alone: near the end of the log the others are left out, and those that failed already would stay.

    Args:
        label, known: [..., T] float32, each task by itself.
    """
    label, known = label.copy(), known.copy()
    for t, parent in enumerate(parents(tasks)):
        if parent >= 0:
            label[..., t] *= label[..., parent]
            failed = known[..., parent] * (1 - label[..., parent])
            waits = tasks[t].within_days is not None and tasks[t].threshold is None
            known[..., t] = np.maximum(known[..., t] * known[..., parent], 0 if waits else failed)
    return label, known


def _arrays(dataset: Dataset, rows: _Rows, some: slice) -> Arrays:
    arrays = query_arrays(dataset, rows.person[some], rows.start[some], rows.end[some], rows.now[some])
    return arrays | {name: array[some] for name, array in rows.context.items()}


def _shown(tables: Path, dataset: Dataset, part: str, tasks: Sequence[Task], slates: int) -> _Rows:
    """Return the slates of a part, of people who are known."""
    split = dataset.split
    begin, end = split.train_until_us, split.valid_until_us
    if part == "test":
        begin, end = end, _after(dataset)
    shown = read_impressions(tables, dataset, tasks, begin, end, slates)
    known = np.flatnonzero(shown.person >= 0)
    person, now = shown.person[known], shown.now[known]
    start, stop = point_in_time(dataset.pool, person, now)
    item = np.where(shown.there, shown.item, 0)[known]
    label, sure = joined(shown.label[known], shown.known[known], tasks)
    moment = query_arrays(dataset, person[:0], start[:0], stop[:0], now[:0])
    context = {name: array[known] for name, array in shown.context.items() if name in moment}
    return _Rows(person, start, stop, now, context, item, label, sure)


def _listed(
    tables: Path,
    dataset: Dataset,
    part: str,
    tasks: Sequence[Task],
    query: Answers,
    items: np.ndarray,
    nearest: int,
) -> _Rows:
    """Return everybody with an event in the part, and the unseen items nearest to them when it begins."""
    asked = boundary_queries(dataset, part)
    width = dataset.spec.num_items + 1
    lists = np.zeros((len(asked), min(nearest, width - 1)), np.int64)
    for low in range(0, len(asked), _PEOPLE_AT_ONCE):
        few = slice(low, low + _PEOPLE_AT_ONCE)
        scores = query(query_arrays(dataset, asked.person[few], asked.start[few], asked.end[few], asked.now[few]))
        scores = scores @ items.T
        scores[:, 0] = -np.inf
        lengths = np.diff(asked.seen_indptr)[few]
        seen = asked.seen_item[asked.seen_indptr[low] : asked.seen_indptr[low + len(lengths)]]
        scores[np.repeat(np.arange(len(lengths)), lengths), seen] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, : lists.shape[1]]
        lists[few] = np.where(np.isfinite(np.take_along_axis(scores, order, 1)), order, 0)
    rows = rows_of(dataset, part)
    pool = dataset.pool
    none = np.zeros(len(rows), np.int64)
    until = _after(dataset) if part == "test" else int(pool.at[rows].max(initial=0)) + 1
    own = Examples(pool.person[rows], rows, none, none, pool.at[rows])
    label, known = joined(*row_labels(tables, dataset, own, tasks, until), tasks)
    pair, where = np.unique(pool.person[rows] * width + pool.item[rows], return_inverse=True)
    best = np.zeros((2, len(pair), len(tasks)), np.float32)
    np.maximum.at(best[0], where, label * known)
    np.maximum.at(best[1], where, known)
    wanted = asked.person[:, None] * width + lists
    place = np.minimum(np.searchsorted(pair, wanted), max(len(pair) - 1, 0))
    hit = (pair[place] == wanted if len(pair) else np.zeros(wanted.shape, bool))[..., None]
    return _Rows(
        person=asked.person,
        start=asked.start,
        end=asked.end,
        now=asked.now,
        context={},
        item=lists,
        label=np.where(hit, best[0][place], 0.0) if len(pair) else np.zeros((*wanted.shape, len(tasks)), np.float32),
        # of an item without any event it is known that nothing came of it
        known=np.where(hit, best[1][place], 1.0) if len(pair) else np.ones((*wanted.shape, len(tasks)), np.float32),
    )


def _after(dataset: Dataset) -> int:
    """Return the moment after the last event."""
    return int(np.asarray(dataset.pool.at).max(initial=0)) + 1
