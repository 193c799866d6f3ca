"""What an evaluation says: the structs behind report/evaluation.json, built from lists and targets, and the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from playbill.measure.bootstrap import Interval, intervals
from playbill.measure.ranking import Targets, coverage, user_metrics

EVALUATION_VERSION = 3
FILE = "evaluation.json"

# the one model that a person would meet: all others stand beside it
SERVED = "served"
# the bundle in use, through the same engine on the same people
CURRENT_MODEL = "current"


class Figures(msgspec.Struct, kw_only=True):
    """One model on one slice of the users.

    Attributes:
        users: how many the means are over.
        metrics: mean over users with its interval, by `<metric>_at_<k>`.
        coverage: share of the catalogue shown to at least one of these users, by k.
        against_best: this model less the best rival on the same users, by metric; empty for that rival itself.
        against: this model less a named one, by name and metric: what the gate's paired rules read.
    """

    users: int
    metrics: dict[str, Interval] = {}
    coverage: dict[int, float] = {}
    against_best: dict[str, Interval] = {}
    against: dict[str, dict[str, Interval]] = {}


class ModelReport(msgspec.Struct, kw_only=True):
    """One row of the evaluation.

    Attributes:
        name: `served`, `tower`, `ease`, ...
        label: for people.
        rival: true for a baseline fitted and tuned here, false for what the bundle carries.
        about: what it is and which settings validation picked.
        slices: `all`, `known` (people with a history at the boundary), `new`; a slice without users is absent.
        rungs: for roads through the engine: answers by rung.
    """

    name: str
    label: str
    rival: bool
    about: str
    slices: dict[str, Figures]
    rungs: dict[str, int] = {}


class Evaluation(msgspec.Struct, kw_only=True):
    """`report/evaluation.json`.

    Attributes:
        fingerprint: over the bundle's files, the tables and the settings; equal fingerprints need no second run.
        content: sha256 over all that answers in the bundle, so that a gate knows what was measured.
        protocol: in words and figures, how this was measured.
        best_rival: the baseline with the highest ndcg at the longest cut-off over all users: chosen on the test users
            themselves, which favours the rival.
        against: version of the bundle in use, asked the same beside it; empty where there was none.
        notes: what was left out, and why.
    """

    version: int = EVALUATION_VERSION
    fingerprint: str
    content: str
    bundle: str
    tables: str
    protocol: dict[str, str | int | float]
    ks: list[int]
    users: dict[str, int]
    best_rival: str | None
    models: list[ModelReport]
    against: str = ""
    notes: list[str] = []
    seconds: float = 0.0

    def model(self, name: str) -> ModelReport | None:
        return next((m for m in self.models if m.name == name), None)


@dataclass(slots=True)
class Road:
    """One model's lists before they are measured: `lists` [U, K] int64 item_index, padded with -1.

    Attributes:
        scores: of the engine, those of the first `scores.PLACES` of every list, by rung.
    """

    name: str
    label: str
    rival: bool
    about: str
    lists: np.ndarray
    rungs: dict[str, int]
    scores: dict[str, list[float]] = field(default_factory=dict)


def measure(
    roads: Sequence[Road],
    targets: Targets,
    known: np.ndarray,
    num_items: int,
    ks: Sequence[int],
    *,
    resamples: int,
    seed: int,
    level: float,
) -> tuple[list[ModelReport], str | None]:
    """Return every road measured on every slice, and the name of the best rival.

    Args:
        roads: lists of the same U users.
        targets: of these users.
        known: [U] bool, whether the person had a history at the boundary.
        num_items: of the catalogue.
        ks: cut-offs.
        resamples, seed, level: of the intervals.
    """
    if not len(targets):
        return [ModelReport(name=r.name, label=r.label, rival=r.rival, about=r.about, slices={}) for r in roads], None
    scores = {road.name: user_metrics(road.lists, targets, ks, num_items) for road in roads}
    headline = f"ndcg_at_{max(ks)}"
    rivals = [road.name for road in roads if road.rival]
    best = max(rivals, key=lambda name: scores[name][headline].mean(), default=None)
    rows = {"all": np.ones(len(known), bool), "known": known, "new": ~known}
    reports = []
    for road in roads:
        reports.append(
            ModelReport(
                name=road.name, label=road.label, rival=road.rival, about=road.about, slices={}, rungs=road.rungs
            )
        )
    for name, chosen in rows.items():
        if not chosen.any():
            continue
        found = _slice(roads, scores, chosen, best, num_items, ks, resamples, seed, level)
        for report, figures in zip(reports, found, strict=True):
            report.slices[name] = figures
    return reports, best


def _slice(
    roads: Sequence[Road],
    scores: Mapping[str, Mapping[str, np.ndarray]],
    chosen: np.ndarray,
    best: str | None,
    num_items: int,
    ks: Sequence[int],
    resamples: int,
    seed: int,
    level: float,
) -> list[Figures]:
    """Return the figures of all roads on some users; one bootstrap for all columns, so differences are paired."""
    ours = [road.name for road in roads if not road.rival]
    columns: dict[str, np.ndarray] = {}
    for name, metrics in scores.items():
        for metric, values in metrics.items():
            columns[f"{name}|{metric}"] = values[chosen]
            others = [best] if name not in ours else [r.name for r in roads]
            for other in others:
                if other is not None and other != name:
                    columns[f"{name}|{metric}|{other}"] = (values - scores[other][metric])[chosen]
    found = intervals(columns, resamples=resamples, seed=seed, level=level)
    out = []
    for road in roads:
        means = {metric: found[f"{road.name}|{metric}"] for metric in scores[road.name]}
        against: dict[str, dict[str, Interval]] = {}
        for key, interval in found.items():
            name, _, rest = key.partition("|")
            metric, _, other = rest.partition("|")
            if name == road.name and other:
                against.setdefault(other, {})[metric] = interval
        out.append(
            Figures(
                users=int(chosen.sum()),
                metrics=means,
                coverage={k: coverage(road.lists[chosen], k, num_items) for k in ks},
                against_best=against.get(best, {}) if best else {},
                against=against if road.name in ours else {},
            )
        )
    return out


def wide_console() -> Console:
    """Return a console that does not fold tables where nobody looks at a screen: in a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=140)


def table(evaluation: Evaluation, k: int, slice_name: str = "all") -> Table:
    """Return the rich table of one cut-off on one slice: means with intervals, and the difference to the best rival."""
    best = evaluation.model(evaluation.best_rival) if evaluation.best_rival else None
    who = {"all": "everybody", "known": "people with a history", "new": "people without a history"}[slice_name]
    grid = Table(
        title=f"{who} ({evaluation.users[slice_name]}), first {k} of the whole catalogue",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    grid.add_column("model")
    for name in (
        "ndcg",
        "recall",
        "hit rate",
        "mrr",
        "coverage",
        f"ndcg less {best.label}" if best else "ndcg less best",
    ):
        grid.add_column(name, justify="right")
    for model in evaluation.models:
        figures = model.slices.get(slice_name)
        if figures is None:
            continue
        cells = [_cell(figures.metrics[f"{m}_at_{k}"]) for m in ("ndcg", "recall", "hit_rate", "mrr")]
        difference = figures.against_best.get(f"ndcg_at_{k}")
        shown = "" if difference is None else _cell(difference, "+.3f")
        grid.add_row(model.label, *cells, _short(figures.coverage[k]), shown, style=None if model.rival else "bold")
    return grid


def _cell(interval: Interval, form: str = ".3f") -> str:
    low, high = _short(interval.low, form), _short(interval.high, form)
    return f"{_short(interval.value, form)} [{low} {high}]"


def _short(value: float, form: str = ".3f") -> str:
    """Return the number without the 0 before its point: seven columns must fit on a screen."""
    return f"{value:{form}}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:{form}}"
