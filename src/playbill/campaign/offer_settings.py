"""What a campaign declares of its offers: the levels, what each costs, and what all may cost together."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from playbill.errors import ConfigError

NONE = "none"


class Guard(StrEnum):
    """How a plan is kept within its budget."""

    worst = "worst"  # as if everybody redeemed at the most: it cannot be passed, and much of it stays unspent
    reserve = "reserve"  # as is expected, with a reserve that is passed with a probability of `risk` at most


@dataclass(slots=True, kw_only=True)
class OfferLevel:
    """One offer."""

    name: str
    """As it stands in the log's decisions of kind offer; "none" is always there and is not declared."""
    cost: float = 0.0
    """Money that giving it to one person costs for certain, such as a gift or a mail."""
    redeemed: float = 0.0
    """Money that it costs once it is redeemed."""
    discount: float = 0.0
    """Share of the purchase that it takes off once it is redeemed."""
    most: float | None = None
    """Money that the discount takes off at most, as its terms say; needed where there is one."""


@dataclass(slots=True, kw_only=True)
class Offers:
    """Which offer each recipient gets; without levels none is made.

    Each person's level is the one that earns most beyond what they would buy anyway, within the budget and the margin.
    It is settled once for the whole audience and kept in the campaign's folder, so every channel and every rerun makes
    the same offer.
    """

    levels: list[OfferLevel] = field(default_factory=list)
    """See OfferLevel."""
    budget: float | None = None
    """Money for all offers of the campaign together; null: no limit."""
    guard: Guard = Guard.worst
    """worst or reserve."""
    risk: float = 1e-6
    """reserve: probability with which the budget may be passed if people redeem as often as was calibrated."""
    margin: float = 1.0
    """Share of a purchase's value that is earned before any offer."""
    least_margin: float | None = None
    """Share of all expected purchases that must be left as profit, offers paid; null: no limit."""
    explore: float = 0.05
    """Share of people whose level is drawn from all, so that offers can be learned from; paid from the same budget."""
    audit: list[str] = field(default_factory=list)
    """Columns of users by whose groups offers are compared before the file is released; empty: every protected one."""
    cuts: dict[str, Any] = field(default_factory=dict)
    """Borders that turn such a column of numbers into groups, such as {age: [18, 30, 50]}."""
    release_unequal: bool = False
    """Release the file though groups get offers unequally often; the report says so all the same."""

    def __post_init__(self) -> None:
        names = [level.name for level in self.levels]
        if len(set(names)) < len(names) or NONE in names or "" in names:
            raise ConfigError(f"offers.levels: expected names, each once and none of them {NONE!r}, got {names}")
        for at, level in enumerate(self.levels):
            for name in ("cost", "redeemed", "discount"):
                if not 0 <= getattr(level, name) < float("inf"):
                    raise ConfigError(
                        f"offers.levels[{at}].{name}: expected 0 or more, got {getattr(level, name)}; a share is 0..1"
                    )
            if level.discount > 1 or (level.discount and not (level.most is not None and 0 < level.most < 1e12)):
                raise ConfigError(
                    f"offers.levels[{at}]: a discount is a share up to 1 and needs `most`, the money that it takes off "
                    f"at most, got discount {level.discount} and most {level.most}"
                )
        if self.budget is not None and not self.budget >= 0:
            raise ConfigError(f"offers.budget: expected 0 or more, or null, got {self.budget}")
        for name, low, high in (("explore", 0.0, 1.0), ("margin", 0.0, 1.0), ("risk", 1e-12, 0.1)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"offers.{name}: expected {low:g} to {high:g}, got {getattr(self, name)}")
        if self.least_margin is not None and not 0 <= self.least_margin <= self.margin:
            raise ConfigError(f"offers.least_margin: expected 0 to the margin {self.margin}, got {self.least_margin}")
