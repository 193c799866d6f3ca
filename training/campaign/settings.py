"""Settings of `playbill train-campaign`. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field

from playbill.errors import ConfigError


@dataclass(slots=True, kw_only=True)
class CampaignModelSettings:
    """Learn, from a log of mails, when each person reads them; leave it in <home>/runs/<tables>-campaign.

    A mail is a decision of kind `send_hour`; that it was opened an event says. What people did besides tells when they
    are there. The latest part of the mails judges: its report says how much likelier they are than under the list's
    own hours, and whether probabilities came true.

        playbill train-campaign tables=my_shop segment=segment
    """

    home: str = "var"
    """Root of all that Playbill writes."""
    tables: str = "ml-100k"
    """Name of prepared tables: <home>/tables/<tables>."""
    run: str | None = None
    """Name of the run's folder; null = <tables>-campaign."""
    segment: str | None = None
    """Column of the users table by which people of whom little is known are taken to be like; null: like everybody."""
    open_event: str = "open"
    """Event that is an opening."""
    not_there: list[str] = field(default_factory=lambda: ["message_click"])
    """Other events that say nothing of when a person is there by themselves, such as clicks in mails."""
    within_h: float = 72.0
    """Hours after its arrival in which a mail may be opened."""
    machine_s: float = 120.0
    """Whoever's mails are mostly opened so many seconds after they arrive is read by a machine: not counted."""
    least: int = 10
    """Events and openings that somebody must have shown before their own hours count; fewer take their segment's."""
    held_out: float = 0.2
    """Share of the mails, the latest, that judges."""
    rounds: int = 15
    """Passes in which the week, the taste and how people differ are learned."""
    seed: int = 0
    """Of the intervals' resamples."""
    force: bool = False
    """Learn again although nothing changed."""

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise ConfigError(f"held_out must be above 0 and below 1, got {self.held_out}")
        for name in ("within_h", "machine_s", "rounds"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.least < 1:
            raise ConfigError(f"least must be at least 1, got {self.least}")
