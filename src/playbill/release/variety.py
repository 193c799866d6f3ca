"""What variety costs: the same bundle asked with more and more diversity, and with a mix like the person's own.

Each point is the whole road through the engine. Held-out time says what the lists lose of what people took up, and the
lists themselves how different their items are, how near their mix of categories is to the person's, and how much of
their lists two people share.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from playbill.bundle.open import Bundle
from playbill.bundle.policy import Mix, Surface
from playbill.dataset.dataset import Dataset
from playbill.engine.catalogue import open_catalogue
from playbill.engine.conditions import Conditions
from playbill.engine.engine import Engine
from playbill.engine.variety import divergence, wanted_mix
from playbill.measure.bootstrap import Interval, intervals
from playbill.measure.ranking import NO_ITEM, user_metrics
from playbill.measure.spread import diversity, shared
from playbill.release.plots import png
from playbill.release.protocol import Asked
from playbill.release.roads import CPU, fill, request_of
from playbill.state.store import Store

_STRENGTHS = (0.0, 0.1, 0.2, 0.35, 0.5)
_MOST_PEOPLE = 1000
_BY = "categories"
_ASKED_AT_ONCE = 256


class VarietyPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One setting of the slate's surface.

    Attributes:
        kind: diversity (unlike those above it) or mix (like the person's history).
        utility: metric of the lists against what people took up; `loss` is this less its value at strength 0, paired.
        diversity: 1 - cosine over the pairs of a list, by the catalogue's vectors.
        mismatch: Kullback-Leibler divergence in nats of a list's categories from the person's; null where the items
            have none.
        shared: of their lists, by two people on average.
        best: no other point has more of both utility and diversity.
    """

    kind: str
    strength: float
    utility: Interval
    loss: Interval
    diversity: float
    mismatch: float | None
    shared: float
    best: bool = False


class VarietyReport(msgspec.Struct, kw_only=True):
    """`report/variety.json`. Attributes: people: asked, at most 1,000 of them."""

    metric: str
    people: int
    points: list[VarietyPoint]


def measure_variety(
    bundle: Bundle,
    tables: Path,
    dataset: Dataset,
    asked: Asked,
    *,
    k: int,
    resamples: int,
    seed: int,
    level: float,
) -> VarietyReport | None:
    """Return what variety costs on the test part; None where items cannot be compared.

    Args:
        bundle: with the features of `dataset`.
        tables: folder that the dataset was opened from.
        asked: who is asked, and what they went on to do.
        k: length of the lists.
        resamples, seed, level: of the intervals over people.
    """
    embeddings = bundle.array("item_embeddings") if "towers" in bundle.rungs else None
    vectors = open_catalogue(bundle, embeddings).vectors
    if vectors is None:
        return None
    chosen = np.sort(np.random.default_rng(seed).permutation(len(asked))[:_MOST_PEOPLE])
    name = f"ndcg_at_{k}"
    asked = replace(asked, rows=asked.rows[chosen], targets=asked.targets.take(chosen), known=asked.known[chosen])
    mixed = Conditions(bundle, 1).names(_BY)
    plain = bundle.policy.surfaces["slate"]
    surfaces = [("diversity", s, msgspec.structs.replace(plain, diversity=s, mix=msgspec.UNSET)) for s in _STRENGTHS]
    if mixed:
        surfaces += [
            ("mix", s, msgspec.structs.replace(plain, diversity=0.0, mix=Mix(by=_BY, strength=s)))
            for s in _STRENGTHS[1:]
        ]
    columns: dict[str, np.ndarray] = {}
    found: list[tuple[str, float, float, float | None, float]] = []
    unit = np.asarray(vectors[np.arange(1, dataset.spec.num_items + 1)], np.float64)
    with (
        tempfile.TemporaryDirectory(prefix="playbill-variety-") as folder,
        Store.open(Path(folder) / "state") as store,
    ):
        fill(store, tables, dataset, asked)
        for place, (kind, strength, surface) in enumerate(surfaces):
            lists, mismatch = _lists(bundle, store, dataset, asked, k, surface, mixed)
            columns[str(place)] = user_metrics(lists, asked.targets, [k], dataset.spec.num_items)[name]
            spread = diversity(lists, k, unit)
            found.append((kind, strength, float(np.nanmean(spread)), mismatch, shared(lists, k)))
    losses = {f"loss{name}": column - columns["0"] for name, column in columns.items()}
    told = intervals(columns | losses, resamples=resamples, seed=seed, level=level)
    points = [
        VarietyPoint(
            kind=kind, strength=strength, utility=told[str(n)], loss=told[f"loss{n}"], diversity=spread,
            mismatch=mismatch, shared=same,
        )
        for n, (kind, strength, spread, mismatch, same) in enumerate(found)
    ]  # fmt: skip
    return VarietyReport(metric=name, people=len(asked), points=pareto(points))


def pareto(points: list[VarietyPoint]) -> list[VarietyPoint]:
    """Return the points, marked where no other has as much of utility and of diversity, and more of one."""

    def beaten(a: VarietyPoint) -> bool:
        mine = (a.utility.value, a.diversity)
        return any(
            b.utility.value >= mine[0] and b.diversity >= mine[1] and (b.utility.value, b.diversity) != mine
            for b in points
        )

    return [msgspec.structs.replace(point, best=not beaten(point)) for point in points]


def variety_in_words(report: VarietyReport) -> str:
    """Return what variety costs as a line for a screen."""
    first = report.points[0]
    point = max((p for p in report.points if p.kind == "diversity"), key=lambda p: p.strength)
    return (
        f"variety: diversity {point.strength:g} makes lists {first.diversity:.3f} -> {point.diversity:.3f} different "
        f"for {report.metric} {point.loss.value:+.4f} [{point.loss.low:+.4f} {point.loss.high:+.4f}]; two people share "
        f"{100 * first.shared:.0f} % of their lists"
    )


def variety_png(report: VarietyReport) -> bytes:
    """Return a PNG of utility against diversity, a line a kind; points that nothing beats are filled."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.6), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    for kind, colour, mark in (("diversity", "#0b6e99", "o"), ("mix", "#8a5a00", "s")):
        mine = [p for p in report.points if p.kind == kind or p.strength == 0]
        if len(mine) < 2:
            continue
        axes.plot([p.diversity for p in mine], [p.utility.value for p in mine], color=colour, linewidth=1)
        for p in mine:
            axes.plot([p.diversity] * 2, [p.utility.low, p.utility.high], color=colour, linewidth=0.8, alpha=0.5)
            axes.plot(p.diversity, p.utility.value, mark, color=colour, markerfacecolor=colour if p.best else "white")
            axes.annotate(f"{p.strength:g}", (p.diversity, p.utility.value), textcoords="offset points", xytext=(5, 5),
                          fontsize=8)  # fmt: skip
        label = {"diversity": "unlike those above", "mix": "like the history"}[kind]
        axes.plot([], [], mark, color=colour, label=label)
    axes.set_xlabel("how different a list's items are (1 - cosine over its pairs)")
    axes.set_ylabel(report.metric.replace("_", " "))
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"what variety costs, {report.people} people (filled: no other has more of both)", fontsize=10)
    return png(canvas)


def _lists(
    bundle: Bundle, store: Store, dataset: Dataset, asked: Asked, k: int, surface: Surface, mixed: bool
) -> tuple[np.ndarray, float | None]:
    """Return the lists [U, k] of a surface, and how far their mixes are from the people's own."""
    policy = msgspec.structs.replace(bundle.policy, surfaces={"slate": surface})
    engine = Engine.open(replace(bundle, policy=policy), store, CPU)
    items = dataset.vocabularies["item"]
    lists = np.full((len(asked), k), NO_ITEM, np.int64)
    for low in range(0, len(asked), _ASKED_AT_ONCE):
        requests = [request_of(dataset, asked, row, k) for row in range(low, min(low + _ASKED_AT_ONCE, len(asked)))]
        for row, slate in enumerate(engine.recommend(requests), low):
            lists[row, : len(slate.items)] = items.indices([item.item_id for item in slate.items])
    return lists, _mismatch(engine, asked, lists) if mixed else None


def _mismatch(engine: Engine, asked: Asked, lists: np.ndarray) -> float | None:
    stock, conditions = engine.stock, engine.conditions
    far = []
    for row, shown in enumerate(lists):
        past = asked.histories(row, row + 1)[1]
        shown = shown[shown != NO_ITEM]
        if not len(past) or not len(shown):
            continue
        mix = wanted_mix(conditions.values(_BY, past, stock), conditions.values(_BY, shown, stock), 1.0)
        if mix is not None:
            far.append(float(divergence(mix.share, mix.of.mean(0))))
    return float(np.mean(far)) if far else None
