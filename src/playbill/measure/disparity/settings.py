"""Settings of `playbill measure question=disparity`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from playbill.errors import ConfigError


class Measure(Enum):
    """What is compared between groups of people; ITEM_EXPOSURE compares groups of items."""

    EXPOSURE = "exposure"
    OUTCOME = "outcome"
    OFFER = "offer"
    PRICE_SHOWN = "price_shown"
    PRICE_PAID = "price_paid"
    EVENTS = "events"
    ITEM_EXPOSURE = "item_exposure"


class Correction(Enum):
    """How p values are adjusted for the number of comparisons."""

    HOLM = "holm"
    BH = "benjamini_hochberg"


@dataclass(slots=True, kw_only=True)
class DisparityQuestion:
    """Do groups of people get the same slates, answers, offers and prices, and groups of items the same exposure?

    playbill measure question=disparity tables=shop question.columns=[gender,age] question.event=click

    A difference is a fact about the log. What caused it, and whether it is wrong, the audit does not say.
    """

    columns: list[str] = field(default_factory=list)
    """Columns of users whose groups are compared; empty: every column that is marked protected."""
    intersections: int = 2
    """Columns that are combined at most: 1 compares each column by itself, 2 also every pair of columns."""
    reference: dict[str, str] = field(default_factory=dict)
    """Group that others are compared with, by column; a column that is not named takes its largest group."""
    cuts: dict[str, Any] = field(default_factory=dict)
    """Borders that turn a column of numbers into groups, such as {age: [18, 30, 50]}; a border belongs to the upper."""
    measures: list[Measure] = field(default_factory=list)
    """EXPOSURE, OUTCOME, OFFER, PRICE_SHOWN, PRICE_PAID, EVENTS, ITEM_EXPOSURE; empty: all that the tables hold."""
    event: str = "click"
    """Event that counts as the outcome of a decision, and that EVENTS counts."""
    kind: str = "item"
    """Kind of decision whose outcome is compared: item, subject, offer, ..."""
    window_h: float = 72.0
    """Hours after a decision in which its outcome counts."""
    no_offer: str = "none"
    """What a decision of kind offer chose when it made none."""
    purchase: str = "purchase"
    """Event whose value is the price paid."""
    item_column: str = "provider"
    """Column of items whose groups are compared by ITEM_EXPOSURE."""
    position_weighted: bool = False
    """Exposure of position p counts 1 / log2(p + 2) instead of 1."""
    min_people: int = 100
    """Smaller groups are named and not judged."""
    correction: Correction = Correction.HOLM
    """HOLM: a fair log is flagged at all with probability `false_alarms`; BH: of the flags that share is false."""
    false_alarms: float = 0.04
    """What `correction` keeps to, over all comparisons of the reading together, item exposure included: a margin under
    1 - level, since errors are estimated and 5 % is to hold."""

    def __post_init__(self) -> None:
        if not 1 <= self.intersections <= 3:
            raise ConfigError(f"intersections must lie in 1..3, got {self.intersections}")
        if not 0 < self.window_h < 1e9:
            raise ConfigError(f"window_h must be hours from 0 to 1e9, got {self.window_h}")
        if not 0 < self.false_alarms < 1:
            raise ConfigError(f"false_alarms must lie between 0 and 1, got {self.false_alarms}")
        if self.min_people < 2:
            raise ConfigError(f"min_people must be >= 2, got {self.min_people}")
        for name, cuts in self.cuts.items():
            # a list of whole numbers is no list of floats to OmegaConf, so the type is checked here
            numbers = isinstance(cuts, list) and all(isinstance(c, int | float) for c in cuts)
            if not numbers or not cuts or sorted(set(cuts)) != cuts:
                raise ConfigError(f"cuts.{name} must be numbers that rise, such as [18, 30, 50], got {cuts}")
