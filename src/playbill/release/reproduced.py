"""What a reproduction found: rows of models on the same people, the json, and the table."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from playbill.measure.bootstrap import Interval, compare, intervals
from playbill.measure.ranking import Targets, user_metrics
from playbill.release.protocols import Protocol
from playbill.release.report import Road


class Row(msgspec.Struct, kw_only=True):
    """One model of the result; `first_less_this` is the first row less this one on the same people.

    Attributes:
        new: metrics of people without a history alone, with the interval.
        cold: share of the test rows of items with few events that stand in the person's list, by k.
    """

    name: str
    label: str
    about: str
    metrics: dict[str, Interval]
    first_less_this: dict[str, Interval] = {}
    by_seed: dict[int, dict[str, float]] = {}
    new: dict[str, Interval] = {}
    cold: dict[str, float] = {}


class Result(msgspec.Struct, kw_only=True):
    """The json of one reproduction, in the form of all benchmark results.

    Attributes:
        newcomers_less_plain: the engine with places kept for newcomers, less towers without content, same people.
        cold_rows: test rows of items with at most `cold_events` events before the test part.
        aims: figures that the first row is held against, and whether it reached them.
        training_seconds: by run, as the training itself counted them, in this run of the job or an earlier one.
        models: settings that the trainings ran with, by run.
        seconds: of this run of the job; a resumed one does only what was left.
    """

    theme: str
    at: str
    commit: str
    machine: dict[str, str | int | float | None]
    versions: dict[str, str]
    protocol: str
    effort: str
    people: int
    new_people: int
    cold_events: int
    cold_rows: int
    newcomers_less_plain: dict[str, Interval]
    train: list[str]
    rows: list[Row]
    published: list[dict[str, object]]
    aims: dict[str, dict[str, float | bool]]
    training_seconds: dict[str, float]
    models: dict[str, dict[str, object]]
    notes: list[str]
    seconds: float


class Measured:
    """Measures rows against the first, each person's metrics averaged over seeds.

    Args:
        targets: of U people. known: [U] bool, whether they have a history.
        cold: [N + 1] bool items with few events.
    """

    def __init__(
        self, targets: Targets, known: np.ndarray, cold: np.ndarray, ks: list[int], resamples: int, level: float
    ) -> None:
        self.targets, self.known, self.cold, self.ks = targets, known, cold, ks
        self.boot: dict[str, Any] = {"resamples": resamples, "level": level}
        self.means: dict[str, dict[str, np.ndarray]] = {}

    def row(self, name: str, label: str, about: str, lists: dict[int, np.ndarray]) -> Row:
        """Return the row of one model. Args: lists, by seed [U, K] int64 item_index, padded with -1."""
        items, boot = len(self.cold) - 1, self.boot
        by_seed = {seed: user_metrics(found, self.targets, self.ks, items) for seed, found in lists.items()}
        mean = {m: np.mean([metrics[m] for metrics in by_seed.values()], axis=0) for m in next(iter(by_seed.values()))}
        row = Row(name=name, label=label, about=about, metrics=intervals(mean, **boot))
        if len(by_seed) > 1:
            row.by_seed = {s: {m: float(v.mean()) for m, v in metrics.items()} for s, metrics in by_seed.items()}
        if self.means:
            row.first_less_this = compare(next(iter(self.means.values())), mean, **boot)
        self.means[name] = mean
        new = ~self.known
        if new.any():
            row.new = intervals({m: v[new] for m, v in mean.items()}, **boot)
        if self.cold.any():
            row.cold = {f"recall_at_{k}": float(np.mean([self._found(f, k) for f in lists.values()])) for k in self.ks}
        return row

    def less(self, one: str, other: str) -> dict[str, Interval]:
        """Return the metrics of one row less those of another, by name; empty where there is not both."""
        if not {one, other} <= set(self.means):
            return {}
        return compare(self.means[one], self.means[other], **self.boot)

    def cold_rows(self) -> int:
        """Return how many test rows are of items with few events."""
        return int(self.cold[self.targets.item].sum())

    def _found(self, lists: np.ndarray, k: int) -> float:
        owner = np.repeat(np.arange(len(lists)), np.diff(self.targets.indptr))
        rows = np.flatnonzero(self.cold[self.targets.item])
        return float((lists[owner[rows], :k] == self.targets.item[rows, None]).any(1).mean())


def table(result: Result, protocol: Protocol) -> Table:
    """Return the table of the two headline metrics."""
    grid = Table(title=protocol.about, title_justify="left", box=SIMPLE_HEAD)
    one, other = protocol.headline
    for name in ("model", one.replace("_", " "), other.replace("_", " "), f"{other.split('_')[0]}: first less this"):
        grid.add_column(name)
    if result.cold_rows:
        grid.add_column(f"items with <= {result.cold_events} events")
    for place, row in enumerate(result.rows):
        less = _cell(row.first_less_this[other], "+.4f") if row.first_less_this else ""
        cells = [row.label, _cell(row.metrics[one]), _cell(row.metrics[other]), less]
        if result.cold_rows:
            cells.append(f"{row.cold['recall_at_20']:.4f}")
        grid.add_row(*cells, style=None if place else "bold")
    for figure in protocol.published:
        cells = [figure.label, f"{figure.metrics[one]:.4f}", f"{figure.metrics[other]:.4f}", "published"]
        grid.add_row(*cells, *[""] * bool(result.cold_rows), style="dim")
    return grid


def _cell(interval: Interval, form: str = ".4f") -> str:
    return f"{interval.value:{form}} [{interval.low:{form}} {interval.high:{form}}]"


def rival_row(measured: Measured, road: Road) -> Row:
    """Return the row of a tuned baseline."""
    return measured.row(road.name, road.label, road.about, {0: road.lists})
