"""Settings of `playbill train-acts`. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from playbill.errors import ConfigError


@dataclass(slots=True, kw_only=True)
class ActSettings:
    """Learn how likely people are to stay away, to come back, to buy, when, and for how much.

    Acts: churn_30 and churn_90 (nothing done in so many days), return_<return_days> (of their own accord),
    purchase_30, next_purchase (its date), value_30 and value_90 (money paid). Each is learned as of moments in the
    past, calibrated on later ones and judged on the latest, beside a rule by recency, a line and BG/NBD; what is
    likeliest is kept in <home>/runs/<tables>-acts. An act that the data does not carry is left out, and the report
    says what is missing.

        playbill train-acts tables=my_shop
    """

    home: str = "var"
    """Root of all that Playbill writes."""
    tables: str = "ml-100k"
    """Name of prepared tables: <home>/tables/<tables>."""
    run: str | None = None
    """Name of the run's folder; null = <tables>-acts."""
    until: str | None = None
    """Moment up to which the log is whole, ISO 8601, UTC unless it says otherwise; null: the last event."""
    purchases: list[str] = field(default_factory=lambda: ["purchase"])
    """Events that are a purchase; their value is money where its declared unit is three capitals, such as EUR."""
    opens: list[str] = field(default_factory=lambda: ["open"])
    """Events that mail programs make as well as people: they show nobody there."""
    mail: list[str] = field(default_factory=lambda: ["message_click"])
    """Other events that answer a mail: no return of one's own accord."""
    history_days: float = 90.0
    """Window before each moment from which everything about a person is taken."""
    return_days: int = 14
    """Days within which somebody comes back or does not."""
    edges: list[float] = field(default_factory=lambda: [1, 2, 3, 5, 7, 10, 14, 21, 28, 42, 60])
    """Days ahead between which the date of the next purchase is told apart, ascending."""
    step_days: float = 7.0
    """Between the moments as of which is learned."""
    most_people: int = 50_000
    """People that are learned from, drawn evenly where there are more."""
    cutoffs: int = 8
    """Moments that are learned from, at most; the latest that may be."""
    least_events: int = 3
    """Events in the window below which a person is too new."""
    least_days: float = 14.0
    """Days since the first event below which a person is too new."""
    least_people: int = 200
    """People at the moments that judge, below which an act is not learned."""
    least_cases: int = 100
    """Cases of an act, and of its contrary, below which it is not learned; where it is calibrated and judged too."""
    seed: int = 0
    """Of trees and of the intervals' resamples."""
    force: bool = False
    """Learn again although nothing changed."""

    def __post_init__(self) -> None:
        for name in (
            "history_days",
            "return_days",
            "step_days",
            "cutoffs",
            "least_events",
            "least_people",
            "least_cases",
            "most_people",
        ):
            if not getattr(self, name) >= 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.least_days < 0:
            raise ConfigError(f"least_days must be at least 0, got {self.least_days}")
        self.until_us()
        if not self.purchases:
            raise ConfigError("purchases: expected the name of an event at least, got none")
        rising = all(low < high for low, high in zip([0.0, *self.edges], self.edges, strict=False))
        if not self.edges or not rising:
            raise ConfigError(f"edges: expected days above 0, ascending, got {self.edges}")

    def until_us(self) -> int | None:
        """Return `until` in UTC microseconds; None for null. Raises: ConfigError: it is no time."""
        if self.until is None:
            return None
        try:
            moment = datetime.fromisoformat(self.until)
        except ValueError:
            raise ConfigError(f"until: expected a time such as 2026-11-23T06:00Z, got {self.until!r}") from None
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e6)
