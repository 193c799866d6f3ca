"""The baselines that everything is held against, and the numbers of each that validation picks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from playbill.baselines.search import Dimension, Scale
from playbill.release.rival_settings import RivalSettings


@dataclass(frozen=True, slots=True)
class Rival:
    """One baseline.

    Attributes:
        name, label: see `report.ModelReport`.
        file: what its fit is written as, in a run and in a bundle.
        dimensions: the numbers to tune, those that matter most first.
        personal: whether it needs a history; without one a person gets popularity.
    """

    name: str
    label: str
    file: str
    dimensions: Sequence[Dimension] = ()
    personal: bool = True


def rivals(settings: RivalSettings, num_items: int) -> tuple[list[Rival], list[str]]:
    """Return the baselines for a catalogue of this size, and notes on those that are left out."""
    found = [
        Rival("popularity", "popularity", "popularity.npy", personal=False),
        Rival(
            "trending",
            "trending",
            "trending.npy",
            [Dimension("half_life_days", settings.half_life_days, 7.0, Scale.LOG, low=0.01, high=3650.0)],
            personal=False,
        ),
        Rival("item_knn", "item-kNN", "neighbours.npz", _item_knn(settings)),
        Rival("order_knn", "order-aware item-kNN", "transitions.npz", _order_knn(settings)),
    ]
    notes = []
    if num_items <= settings.ease_items:
        dimensions = [
            Dimension("l2", settings.ease_l2, 200.0, Scale.LOG, low=0.1, high=1e6),
            _only("length", settings.model_length),
            _only("most", [settings.ease_most]),
        ]
        found.append(Rival("ease", "EASE", "ease.npz", dimensions))
    else:
        notes.append(f"EASE was left out: {num_items} items, at most {settings.ease_items} (rivals.ease_items)")
    found.append(Rival("ials", "iALS", "ials.npz", _ials(settings)))
    return found, notes


def _item_knn(settings: RivalSettings) -> list[Dimension]:
    return [
        Dimension("shrink", settings.knn_shrink, 20.0, Scale.LOG, high=1e4),
        Dimension("weight_power", settings.knn_weight_power, 1.0, Scale.LOG, low=0.05, high=8.0),
        Dimension("decay", settings.knn_decay, 0.5, high=4.0),
        _only("length", settings.knn_length),
        _only("most", settings.knn_most),
    ]


def _order_knn(settings: RivalSettings) -> list[Dimension]:
    return [
        Dimension("weight_power", settings.order_weight_power, 0.7, low=0.05, high=4.0),
        Dimension("target_power", settings.order_target_power, 0.3, low=-0.5, high=1.5),
        Dimension("source_power", settings.order_source_power, 0.6, low=-0.5, high=1.5),
        Dimension("decay", settings.order_decay, 1.0, high=4.0),
        Dimension("smooth", settings.order_smooth, 10.0, Scale.LOG, high=1e3),
        _only("most", settings.order_most),
        _only("length", settings.order_length),
        Dimension("distance_power", settings.order_distance_power, 1.0, high=4.0),
        Dimension("window", settings.order_window, 20, Scale.LOG, low=1, high=200, whole=True),
        Dimension("backward", settings.order_backward, 0.0, high=1.0),
    ]


def _ials(settings: RivalSettings) -> list[Dimension]:
    return [
        Dimension("alpha", settings.ials_alpha, 1.0, Scale.LOG, low=0.01, high=100.0),
        Dimension("l2", settings.ials_l2, 0.003, Scale.LOG, low=1e-6, high=10.0),
        _only("nu", settings.ials_nu),
        _only("factors", settings.ials_factors),
        _only("rounds", [settings.ials_rounds]),
        _only("length", settings.model_length),
    ]


def _only(name: str, values: Sequence[float]) -> Dimension:
    """Return a number of which these values alone are tried, beginning with the first."""
    return Dimension(name, values, values[0], fixed=True)
