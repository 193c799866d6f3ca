"""Settings of `playbill measure question=experiment`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from playbill.errors import ConfigError


class Unit(Enum):
    """What was assigned to an arm."""

    user_id = "user_id"
    session_id = "session_id"


class Correction(Enum):
    """How false discoveries are kept rare over all metrics and arms."""

    bh = "bh"  # Benjamini-Hochberg: tests independent or positively dependent, as metrics of one log mostly are
    by = "by"  # Benjamini-Yekutieli: any dependence, at the price of a factor of about log(tests)


@dataclass(slots=True, kw_only=True)
class ExperimentQuestion:
    """What did each arm of an experiment do to every declared metric?

    playbill measure question=experiment tables=my_shop question.experiment=checkout-button

    Assignment: decisions of kind experiment_arm (request_id = the experiment, chosen = the arm, propensity = the share
    planned for that arm). What people did: events and decisions after their assignment. Metrics are declared in YAML,
    those that ship in playbill/measure/experiments/metrics.yaml, yours in a file of the same form.
    """

    experiment: str = ""
    """Its name, the request_id of its decisions; empty: the only experiment in the log."""
    control: str = "control"
    """The arm that all others are compared with."""
    arms: list[str] = field(default_factory=list)
    """Arms that must have people in the log, control included; empty: those found there."""
    shares: dict[str, float] = field(default_factory=dict)
    """Planned share by arm, summing to 1; empty: the decisions' propensities, which alone show that arms were drawn."""
    unit: Unit = Unit.user_id
    """What was assigned: user_id, or session_id for visitors without a name."""
    cluster: str = ""
    """Column of users (household, group, region) within which people are not independent; empty: people are."""
    metrics: str = ""
    """YAML file with metrics of your own, beside the shipped ones; one of the same name replaces the shipped one."""
    only: list[str] = field(default_factory=list)
    """Read these metrics alone; empty: all that are declared."""
    until: str = ""
    """End of the log, ISO 8601 (UTC where no zone is given); empty: the last event or decision in it."""
    window_days: float = 0.0
    """Count all metrics this many days from assignment; 0: each as it is declared."""
    pre_days: float = 28.0
    """Days before assignment from which CUPED takes each metric's earlier values; 0: no CUPED."""
    sequential: bool = False
    """Always-valid intervals and p values: the log may be read again and again, and the reading stopped at any time."""
    planned_people: int = 0
    """With sequential: people of all arms at which the experiment was planned to end, chosen before the first look."""
    correction: Correction = Correction.bh
    """False-discovery control over metrics and arms: bh (Benjamini-Hochberg) or by (Benjamini-Yekutieli)."""
    false_discovery_rate: float = 0.05
    """Expected share of false ones among the effects that are called found."""
    sample_ratio_alpha: float = 0.001
    """The arms' sizes contradict the plan where the sample-ratio check's p value (sequential: ever) is below this."""
    exposure: str = "exposure"
    """Name of the events that say that a person met what was tested; they alone count in the per-protocol reading."""
    exposure_decision: str = ""
    """Kind of decision that says so instead, such as item: whoever was served a slate met it."""

    def __post_init__(self) -> None:
        for name in ("window_days", "pre_days"):
            value = getattr(self, name)
            if not 0 <= value < 36_500:
                raise ConfigError(f"{name} must lie in 0..36500 days, got {value}")
        for name in ("false_discovery_rate", "sample_ratio_alpha"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ConfigError(f"{name} must lie between 0 and 1, got {value}")
        if self.sequential and self.planned_people < 2:
            raise ConfigError(
                "sequential=true needs planned_people, the people of all arms at which the experiment was planned to "
                f"end: the interval is narrowest there; got {self.planned_people}"
            )
        if not self.control:
            raise ConfigError("control must name the arm that the others are compared with")
        if self.shares:
            bad = {arm: share for arm, share in self.shares.items() if not 0 < share <= 1}
            total = sum(self.shares.values())
            if bad or abs(total - 1) > 1e-6:
                raise ConfigError(f"shares must lie in (0, 1] and sum to 1, got {self.shares} with sum {total:g}")
