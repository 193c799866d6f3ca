"""Settings of `playbill train-offers`. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field

from playbill.campaign.offer_settings import Offers
from playbill.errors import ConfigError


@dataclass(slots=True, kw_only=True)
class OfferModelSettings:
    """Learn, from a log of offers drawn at random, what each offer does to each person; leave it in <home>/runs.

    Several learners are fitted on one part of the people and earlier offers, and judged on the others' later offers. Of
    those whose plan surely earns less than no other's within the same budget a head, the one that tells best who buys
    (by likelihood) is kept.

        playbill train-offers tables=my_shop offers.levels=[{name: ten_percent, discount: 0.1, most: 5}]
    """

    home: str = "var"
    """Root of all that Playbill writes."""
    tables: str = "ml-100k"
    """Name of prepared tables: <home>/tables/<tables>."""
    run: str | None = None
    """Name of the run's folder; null = <tables>-offers."""
    offers: Offers = field(default_factory=Offers)
    """Levels, what they cost, the budget (for as many people as the table has) and the margin; see Offers."""
    inputs: list[str] = field(default_factory=list)
    """Columns of users that an offer may rest on: declared or observed, none that is protected or sensitive."""
    events: list[str] = field(default_factory=lambda: ["purchase"])
    """Events whose counts an offer may rest on."""
    none: str = "none"
    """What the log calls an offer that was not made."""
    kind: str = "offer"
    """Kind of the decisions."""
    purchase: str = "purchase"
    """Event that redeems an offer."""
    opening: str = "open"
    """Event that shows that a mail was read."""
    window_h: float = 72.0
    """Hours after an offer in which a purchase redeems it, where the log does not say which offer it is about."""
    learn_days: float = 56.0
    """Latest days of the log whose offers teach the trees and judge all; what came before is known of people."""
    trees: int = 100
    """Of each ensemble."""
    classes: int = 16
    """Kinds of people at most, where each kind is free in how often it answers each level."""
    kinds: int = 5
    """Kinds of people where all levels work alike and differ in strength alone."""
    folds: int = 3
    """Parts of the people of whom each is judged by models of the others."""
    seed: int = 0
    """Of folds and fits."""
    force: bool = False
    """Learn again although nothing changed."""

    def __post_init__(self) -> None:
        for name, least in (("trees", 1), ("classes", 1), ("kinds", 1), ("folds", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("learn_days", "window_h"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
