"""Settings of the baselines' tuning, shared by `tune`, `evaluate` and `reproduce`."""

from __future__ import annotations

from dataclasses import dataclass, field

from playbill.errors import ConfigError
from playbill.measure.ranking import METRICS


@dataclass(slots=True, kw_only=True)
class RivalSettings:
    """What the baselines are tuned over: a few values of each number to begin with, finer round the best.

    A list of one value fixes that number. Validation picks.
    """

    tune_for: str = "ndcg_at_10"
    """Metric that picks, on the validation part; its k is one of the list lengths up to the longest cut-off."""
    refine: int = 2
    """How often the distance between values is halved round the best; 0 = the listed values alone."""
    most_tries: int = 80
    """Fits of each baseline at most."""
    half_life_days: list[float] = field(default_factory=lambda: [1.0, 7.0, 30.0, 90.0])
    """Trending: days after which an event counts half."""
    knn_shrink: list[float] = field(default_factory=lambda: [0.0, 20.0, 100.0])
    """Item-kNN: people added to the denominator of the cosine."""
    knn_weight_power: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])
    """Item-kNN: power of the cosine; below 1 makes neighbours more alike, above 1 trusts the nearest most."""
    knn_most: list[int] = field(default_factory=lambda: [50, 200])
    """Item-kNN: neighbours kept of each item; these values alone."""
    knn_decay: list[float] = field(default_factory=lambda: [0.0, 0.5, 1.0])
    """Item-kNN: power by which older items of a history count less."""
    knn_length: list[int] = field(default_factory=lambda: [50, 200])
    """Item-kNN: newest distinct items of a history that count; these values alone."""
    order_window: list[int] = field(default_factory=lambda: [10, 20, 50])
    """Order-aware item-kNN: places that are looked ahead."""
    order_distance_power: list[float] = field(default_factory=lambda: [0.5, 1.0, 1.5])
    """Order-aware item-kNN: how much a transition counts less for each place between."""
    order_source_power: list[float] = field(default_factory=lambda: [0.4, 0.6, 0.8])
    """Order-aware item-kNN: how much a transition counts less from a popular item."""
    order_target_power: list[float] = field(default_factory=lambda: [0.1, 0.3, 0.5])
    """Order-aware item-kNN: how much a transition counts less to a popular item."""
    order_weight_power: list[float] = field(default_factory=lambda: [0.4, 0.7, 1.0, 1.3])
    """Order-aware item-kNN: power of the weight; see src/playbill/baselines/item_knn.py."""
    order_smooth: list[float] = field(default_factory=lambda: [0.0, 10.0])
    """Order-aware item-kNN: events added to the count of every item."""
    order_backward: list[float] = field(default_factory=lambda: [0.0, 0.15])
    """Order-aware item-kNN: how much a transition counts the other way round."""
    order_most: list[int] = field(default_factory=lambda: [200, 500])
    """Order-aware item-kNN: neighbours kept of each item; these values alone."""
    order_decay: list[float] = field(default_factory=lambda: [0.7, 1.0, 1.3])
    """Order-aware item-kNN: power by which older items of a history count less."""
    order_length: list[int] = field(default_factory=lambda: [50])
    """Order-aware item-kNN: newest distinct items of a history that count; these values alone."""
    ease_l2: list[float] = field(default_factory=lambda: [50.0, 200.0, 1000.0, 5000.0])
    """EASE: ridge penalty."""
    ease_items: int = 20_000
    """Largest catalogue for EASE, which inverts items x items; above, it is left out, and the report says so."""
    ease_most: int = 500
    """EASE in a bundle: weights kept of each item, those below 0 included."""
    ials_factors: list[int] = field(default_factory=lambda: [32, 64])
    """iALS: width of the factors; these values alone, since time grows with their square."""
    ials_l2: list[float] = field(default_factory=lambda: [0.001, 0.003, 0.01])
    """iALS: ridge penalty."""
    ials_alpha: list[float] = field(default_factory=lambda: [0.3, 1.0, 3.0])
    """iALS: extra weight of an event over a non-event."""
    ials_nu: list[float] = field(default_factory=lambda: [1.0])
    """iALS: how much the ridge grows with activity, 0..1."""
    ials_rounds: int = 12
    """iALS: passes over people and items."""
    model_length: list[int] = field(default_factory=lambda: [200, 50, 20])
    """EASE and iALS: newest distinct items of a history that count, at most as many as a profile keeps; these values
    alone."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            values = getattr(self, name)
            if isinstance(values, list) and not values:
                raise ConfigError(f"rivals.{name} lists nothing to try; give at least one value")
        for name in ("half_life_days", "knn_weight_power", "knn_most", "knn_length", "order_window"):
            _check_above(name, getattr(self, name))
        for name in ("order_weight_power", "order_most", "order_length", "ease_l2", "ials_factors", "ials_l2"):
            _check_above(name, getattr(self, name))
        for name in ("ials_alpha", "model_length"):
            _check_above(name, getattr(self, name))
        for name in ("knn_shrink", "order_smooth", "order_backward"):
            if min(getattr(self, name)) < 0:
                raise ConfigError(f"rivals.{name} must hold values >= 0, got {getattr(self, name)}")
        for name in ("most_tries", "ease_most", "ials_rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"rivals.{name} must be >= 1, got {getattr(self, name)}")
        if self.refine < 0:
            raise ConfigError(f"rivals.refine must be >= 0, got {self.refine}")
        check_metric(self.tune_for, "rivals.tune_for")


def check_metric(name: str, where: str) -> None:
    """Raise ConfigError unless `name` is `<metric>_at_<k>`."""
    metric, _, k = name.rpartition("_at_")
    if metric not in METRICS or not k.isdigit() or int(k) < 1:
        raise ConfigError(
            f"{where}={name} is not a metric; write one of {', '.join(METRICS)} and its k, as in ndcg_at_10"
        )


def _check_above(name: str, values: list[float] | list[int]) -> None:
    if min(values) <= 0:
        raise ConfigError(f"rivals.{name} must hold values above 0, got {values}")
