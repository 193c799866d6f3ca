"""Settings of `playbill campaign audience`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from playbill.errors import ConfigError
from playbill.state.settings import StoreSettings, parse_moment


class Trigger(StrEnum):
    """On what people are written to."""

    re_engagement = "re_engagement"  # they are likely to stay away
    basket = "basket"  # they put something in and did not buy


@dataclass(slots=True, kw_only=True)
class AudienceSettings:
    """`playbill campaign audience trigger=re_engagement` lists whom a trigger writes to, and why not the others.

    People who would come back anyway are left alone: their chance to return without a mail stands above
    `return_at_most`. Where mails were held back at random that chance is the one without a mail, and `least_uplift`
    may ask that a mail changes something. Written to <home>/audiences/<name>/: audience.parquet (what `playbill
    campaign run campaign.audience.file=` takes), held.parquet (everybody else who was looked at, with the reason) and
    success.json with the counts by reason.

        playbill campaign audience trigger=basket basket_events=[add_to_cart] hours=4
    """

    home: str = "var"
    """Root of all that Playbill writes."""
    tables: str = "ml-100k"
    """Name of prepared tables: <home>/tables/<tables>."""
    trigger: Trigger = Trigger.re_engagement
    """re_engagement or basket."""
    name: str = ""
    """Of the folder; empty: the trigger's."""
    state: str | None = None
    """Folder of the store, or redis://host:port/0?prefix=shop, for who took a consent back since the tables were made;
    null: <home>/state, where it is there."""
    acts: str | None = None
    """Folder of a run of `playbill train-acts`, or a bundle's folder campaign; null: <home>/runs/<tables>-acts."""
    at: str | None = None
    """Moment that is decided for: ISO 8601 or UTC microseconds; null: just after the last event of the tables."""
    return_at_most: float = 0.3
    """Whoever is likelier than this to return without a mail is left alone."""
    least_uplift: float = 0.0
    """How much likelier a mail must make a return; above 0 it needs mails that were held back at random."""
    churn_at_least: float = 0.5
    """re_engagement: probability of the act below at which somebody counts as likely to stay away."""
    churn: str = "churn_30"
    """re_engagement: which act, churn_30 or churn_90."""
    basket_events: list[str] = field(default_factory=lambda: ["add_to_cart"])
    """basket: events, declared by the tables, that put an item in."""
    hours: float = 4.0
    """basket: hours since the last item was put in, before which nobody is asked."""
    within_hours: float = 72.0
    """basket: hours after which a basket is forgotten."""
    store: StoreSettings = field(default_factory=StoreSettings)
    """How Redis is reached, where the store is there."""
    sensitive: str | None = None
    """basket: condition over columns of the items table; an item that meets it reminds nobody."""

    def __post_init__(self) -> None:
        for name in ("return_at_most", "churn_at_least"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie in 0..1, got {getattr(self, name)}")
        if not -1 <= self.least_uplift <= 1:
            raise ConfigError(f"least_uplift must lie in -1..1, got {self.least_uplift}")
        if self.churn not in ("churn_30", "churn_90"):
            raise ConfigError(f"churn: expected churn_30 or churn_90, got {self.churn!r}")
        if not 0 <= self.hours < self.within_hours:
            got = f"{self.hours} and {self.within_hours}"
            raise ConfigError(f"hours and within_hours: expected 0 <= hours < within_hours, got {got}")
        if not self.basket_events:
            raise ConfigError("basket_events: expected the name of an event at least, got none")
        if self.name and (Path(self.name).name != self.name or self.name.startswith(".")):
            raise ConfigError(f"name is the name of one folder, not a path, got {self.name!r}; home= says where")
        parse_moment(self.at)
