"""Every baseline behind one call: learn from a log with these numbers, then score histories.

A fit is prepared once for a log, so that tries which differ in few numbers share what they have in common: pairs that
were counted, X'X, a table whose decay alone changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from playbill.baselines.ease import Ease, count_pairs, ease_neighbours, score_ease, solve_ease
from playbill.baselines.history import binary
from playbill.baselines.ials import Ials, fit_ials, score_ials, write_ials
from playbill.baselines.item_knn import (
    Counted,
    count_cooccurrence,
    count_transitions,
    weigh_cooccurrence,
    weigh_transitions,
)
from playbill.baselines.neighbours import Neighbours, score_histories, write_neighbours
from playbill.baselines.popularity import popularity, repeat_scores, trending, write_scores
from playbill.baselines.search import Choice

_KEPT_PAIRS = 60_000_000  # counted pairs that are kept for the next try, 0.7 GB; more are counted again


@dataclass(slots=True)
class Log:
    """What a model may learn from: events in each person's order, one person after the other.

    Attributes:
        person, item: [E] int64.
        at: [E] int64 UTC microseconds.
        num_items: N.
        now_us: first moment after the log.
    """

    person: np.ndarray
    item: np.ndarray
    at: np.ndarray
    num_items: int
    now_us: int


@dataclass(slots=True)
class CutEase:
    """EASE with the length of the histories that it reads and of the table that it is written as."""

    ease: Ease
    length: int
    most: int


@dataclass(slots=True)
class CutIals:
    """iALS with the length of the histories that it reads."""

    ials: Ials
    length: int


Fitted = np.ndarray | Neighbours | CutEase | CutIals
Fit = Callable[[Choice], Fitted]


def prepare(name: str, log: Log) -> Fit:
    """Return how one baseline is fitted to a log: popularity, trending, item_knn, order_knn, ease or ials."""
    return _PREPARE[name](log)


def score(fitted: Fitted, indptr: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Return [B, N + 1] float, higher is better, column 0 is -inf; it must not be written to.

    Args:
        indptr, item: B histories, CSR, oldest first.
    """
    if isinstance(fitted, Neighbours):
        return score_histories(fitted, indptr, item)
    if isinstance(fitted, CutEase):
        return score_ease(fitted.ease, indptr, item, fitted.length)
    if isinstance(fitted, CutIals):
        # thousands of small products: on two threads BLAS spends four times the processor on waking the second one
        with threadpool_limits(1, "blas"):
            return score_ials(fitted.ials, indptr, item, fitted.length)
    return repeat_scores(fitted, len(indptr) - 1)


def write(path: Path, fitted: Fitted) -> None:
    """Write a fitted baseline as bundles hold it; EASE becomes a table of neighbours."""
    if isinstance(fitted, Neighbours):
        write_neighbours(path, fitted)
    elif isinstance(fitted, CutEase):
        write_neighbours(path, ease_neighbours(fitted.ease, fitted.most, fitted.length))
    elif isinstance(fitted, CutIals):
        write_ials(path, fitted.ials, fitted.length)
    else:
        write_scores(path, fitted)


def _popularity(log: Log) -> Fit:
    return lambda choice: popularity(log.item, log.num_items)


def _trending(log: Log) -> Fit:
    return lambda choice: trending(log.item, log.at, log.num_items, log.now_us, choice["half_life_days"])


def _item_knn(log: Log) -> Fit:
    had = binary(log.person, log.item, log.num_items)
    count = np.asarray(had.sum(axis=0)).ravel()
    counted = _Kept(lambda: count_cooccurrence(had))

    def fit(choice: Choice) -> Neighbours:
        return weigh_cooccurrence(
            counted.all(),
            count,
            choice["shrink"],
            choice["weight_power"],
            int(choice["most"]),
            choice["decay"],
            int(choice["length"]),
        )

    return fit


def _order_knn(log: Log) -> Fit:
    count = np.bincount(log.item[log.item > 0], minlength=log.num_items + 1)
    counted: dict[tuple[float, ...], _Kept] = {}

    def fit(choice: Choice) -> Neighbours:
        key = (choice["window"], choice["distance_power"], choice["backward"])
        if key not in counted:
            counted.clear()
            window, power, backward = key
            counted[key] = _Kept(
                lambda: count_transitions(log.person, log.item, log.num_items, int(window), power, backward)
            )
        return weigh_transitions(
            counted[key].all(),
            count,
            choice["source_power"],
            choice["target_power"],
            choice["weight_power"],
            choice["smooth"],
            most=int(choice["most"]),
            decay=choice["decay"],
            length=int(choice["length"]),
        )

    return fit


def _ease(log: Log) -> Fit:
    pairs = count_pairs(log.person, log.item, log.num_items, max_items=log.num_items)
    solved: dict[float, Ease] = {}

    def fit(choice: Choice) -> CutEase:
        if choice["l2"] not in solved:
            solved.clear()
            solved[choice["l2"]] = solve_ease(pairs, choice["l2"])
        return CutEase(solved[choice["l2"]], int(choice["length"]), int(choice["most"]))

    return fit


def _ials(log: Log) -> Fit:
    fitted: dict[tuple[float, ...], Ials] = {}

    def fit(choice: Choice) -> CutIals:
        key = tuple(choice[name] for name in ("factors", "alpha", "l2", "nu", "rounds"))
        if key not in fitted:
            fitted.clear()
            factors, alpha, l2, nu, rounds = key
            with threadpool_limits(1, "blas"):  # see `score`
                fitted[key] = fit_ials(log.person, log.item, log.num_items, int(factors), alpha, l2, nu, int(rounds))
        return CutIals(fitted[key], int(choice["length"]))

    return fit


class _Kept:
    """Blocks of counted pairs, kept after the first time where they are few enough."""

    def __init__(self, count: Callable[[], Iterator[Counted]]) -> None:
        self._count = count
        self._blocks: list[Counted] | None = None

    def all(self) -> Iterator[Counted]:
        if self._blocks is not None:
            yield from self._blocks
            return
        blocks: list[Counted] = []
        pairs = 0
        for block in self._count():
            pairs += block.sums.nnz
            if pairs <= _KEPT_PAIRS:
                blocks.append(block)
            yield block
        if pairs <= _KEPT_PAIRS:
            self._blocks = blocks


_PREPARE: dict[str, Callable[[Log], Fit]] = {
    "popularity": _popularity,
    "trending": _trending,
    "item_knn": _item_knn,
    "order_knn": _order_knn,
    "ease": _ease,
    "ials": _ials,
}
