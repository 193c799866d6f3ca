"""Settings of `playbill measure question=feedback`."""

from __future__ import annotations

from dataclasses import dataclass

from playbill.errors import ConfigError
from playbill.measure.feedback.trend import CARRY


@dataclass(slots=True, kw_only=True)
class FeedbackQuestion:
    """Does the loop of showing, logging and retraining narrow what people are shown?

    Reads the decisions of kind item, cuts them into rounds, and tracks reached items, effective items, evenness (and
    diversity) of what was shown, with an alarm for a catalogue that shrinks.
    """

    by: str = "bundle"
    """Column of decisions whose values are the rounds, ordered by their first decision; empty means windows of time."""
    days: float = 7.0
    """Length of a round in days, where `by` is empty; a last round that is not full is left out."""
    k: int = 0
    """Only the first k positions of every list; 0 means all that was shown."""
    skip: int = 0
    """Rounds at the beginning that are left out: a policy that has just changed settles first."""
    horizon: int = 20
    """Rounds that will be watched; a stable loop alarms in at most 1 - level of such horizons."""
    carry: float = CARRY
    """How much of a stable loop's wobble lasts into the next round, as a correlation in [0, 1): more widens intervals
    and alarms later, too little alarms falsely (0.5 where 0.7 is true: 12 % instead of 5 %)."""
    min_fall: float = 0.05
    """Smallest fall worth an alarm, relative to the value at which it began."""
    diversity: str = "categories"
    """Column of items for the intra-list diversity; empty leaves diversity out, as does a folder without the column."""
    groups: int = 20
    """Groups of people, drawn at random, for the intervals of each round."""

    def __post_init__(self) -> None:
        for name, low, high in (("days", 1e-3, 1e4), ("k", 0, 1e6), ("skip", 0, 1e4), ("horizon", 5, 200)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} must lie in {low:g}..{high:g}, got {getattr(self, name)}")
        if not 0 <= self.carry < 1:
            raise ConfigError(f"carry must lie in [0, 1), got {self.carry}")
        if not 0 <= self.min_fall < 1:
            raise ConfigError(f"min_fall must lie in [0, 1), got {self.min_fall}")
        if not 10 <= self.groups <= 1000:
            raise ConfigError(f"groups must lie in 10..1000, got {self.groups}")
