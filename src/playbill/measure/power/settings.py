"""Settings of `playbill measure question=power`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from playbill.errors import ConfigError

_USUAL_EFFECT = 0.1


@dataclass(slots=True, kw_only=True)
class PowerQuestion:
    """How many people and days does a test need, or what can it find with the people there are? Needs no tables.

    playbill measure question=power question.baseline=0.05 question.relative_effect=0.1 question.daily_people=8000
    playbill measure question=power question.baseline=40 question.standard_deviation=120 question.people=50000

    Without question.people it plans for the effect; with it, it says which effect can be found, and with which power
    the effect that was named. The level is that of the job (level=0.95: false alarms in 5 % of tests without effect).
    """

    baseline: float = 0.05
    """Rate (0..1) or mean of the metric in the control arm, as measured before."""
    standard_deviation: float = 0.0
    """Of one person's value of the metric; 0 means that the baseline is a rate."""
    relative_effect: float = 0.0
    """Smallest effect worth finding, as a part of the baseline: 0.1 is ten percent of it, and is planned for where
    neither this nor the next one nor people are given."""
    absolute_effect: float = 0.0
    """Smallest effect worth finding, in the unit of the baseline: 0.005 is half a percentage point."""
    power: float = 0.8
    """Probability of finding that effect where it is real."""
    people: int = 0
    """People that there are in all arms together; 0 asks how many are needed."""
    shares: list[float] = field(default_factory=lambda: [0.5, 0.5])
    """Part of the people in each arm, control first; the rest is in none. Each arm is tested against control."""
    metrics: int = 1
    """Metrics that each may decide the test; the level is divided by all comparisons (Bonferroni)."""
    cuped_correlation: float = 0.0
    """Correlation of the metric with the same metric before the test, used for CUPED; 0 means none."""
    cluster_size: float = 1.0
    """People of one household, shop or session, where those are assigned as a whole; 1 means each for himself."""
    cluster_correlation: float = 0.0
    """Correlation of two people of one cluster (intra-cluster correlation), 0..1."""
    sequential: bool = False
    """The test shall be read while it runs and may stop at any time (always-valid intervals)."""
    daily_people: float = 0.0
    """New people a day, in the arms or not; 0 leaves the days out."""

    def __post_init__(self) -> None:
        for f in fields(self):
            given = getattr(self, f.name)
            if not all(math.isfinite(value) for value in (given if isinstance(given, list) else [given])):
                raise ConfigError(f"{f.name} must be finite, got {given}")
        rate = self.standard_deviation == 0
        for name, ok, range_ in (
            ("baseline", 0 < self.baseline < 1 or not rate, "(0, 1) for a rate"),
            ("standard_deviation", self.standard_deviation >= 0, ">= 0"),
            ("power", 0.05 < self.power < 1, "0.05..1"),
            ("people", self.people == 0 or self.people >= 2 * len(self.shares), "0, or at least two an arm"),
            ("metrics", self.metrics >= 1, ">= 1"),
            ("cuped_correlation", -1 < self.cuped_correlation < 1, "(-1, 1)"),
            ("cluster_size", self.cluster_size >= 1, ">= 1"),
            ("cluster_correlation", 0 <= self.cluster_correlation <= 1, "0..1"),
            ("daily_people", self.daily_people >= 0, ">= 0"),
        ):
            if not ok:
                raise ConfigError(f"{name} must lie in {range_}, got {getattr(self, name)}")
        if len(self.shares) < 2 or not all(s > 0 for s in self.shares) or sum(self.shares) > 1 + 1e-9:
            raise ConfigError(f"shares must be two or more numbers > 0 that add up to 1 at most, got {self.shares}")
        if self.relative_effect and self.absolute_effect:
            raise ConfigError("give relative_effect or absolute_effect, not both")
        if rate and not 0 < self.baseline + self.effect < 1:
            raise ConfigError(f"a rate of {self.baseline} cannot change by {self.effect:g}: it would leave 0..1")

    @property
    def effect(self) -> float:
        """The smallest effect worth finding, in the unit of the baseline; 0 where people were named and no effect."""
        usual = 0.0 if self.people else _USUAL_EFFECT
        return self.absolute_effect or (self.relative_effect or usual) * self.baseline
