"""Settings of the world: its size, and `playbill generate`. The numbers of the response model are in parameters.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from playbill.errors import ConfigError

_FIRST_DAY, _LAST_DAY = date(1970, 1, 1), date(2262, 1, 1)


@dataclass(slots=True, kw_only=True)
class Size:
    """How large a world is, and for how long it runs."""

    name: str = "tiny"
    """Of this size."""
    people: int = 200
    """People, anonymous ones included."""
    items: int = 100
    """Items, those published later included."""
    days: int = 21
    """Days that are simulated."""
    start: str = "2025-01-06"
    """First day, yyyy-mm-dd, UTC, 1970 or later; day 0 of the world."""
    slate_length: int = 6
    """Positions of a slate."""
    pool: int = 8
    """Candidates that the logging policy chooses from at each position."""
    activity: float = 1.0
    """Factor on everybody's visits a day (`population.activity_mean`)."""
    decisions_share: float = 1.0
    """Share of people whose decisions are written; their events are always written."""
    contexts: bool = True
    """Write into each decision's `context` what could have been chosen, and when and for whom it was chosen."""

    def __post_init__(self) -> None:
        bounds = {"people": 2, "items": 2, "days": 1, "slate_length": 1, "pool": 1}
        for name, least in bounds.items():
            if getattr(self, name) < least:
                raise ConfigError(f"size.{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 < self.activity < float("inf"):
            raise ConfigError(f"size.activity must be a number above 0, got {self.activity}")
        if not 0 <= self.decisions_share <= 1:
            raise ConfigError(f"size.decisions_share must lie in 0..1, got {self.decisions_share}")
        try:
            start = date.fromisoformat(self.start)
        except ValueError as error:
            raise ConfigError(f"size.start must be a day such as 2025-01-06, got {self.start!r}") from error
        # pandas and numpy count nanoseconds in 64 bits, which end in 2262; responses come some days after the last day
        if start < _FIRST_DAY or (_LAST_DAY - start).days < self.days:
            raise ConfigError(
                f"size.start and size.days must lie in {_FIRST_DAY}..{_LAST_DAY}, got {self.days:,} days from {start}"
            )


def start_us(size: Size) -> int:
    """Return the first moment of day 0, microseconds since 1970 UTC."""
    return int(datetime.fromisoformat(size.start).replace(tzinfo=UTC).timestamp()) * 1_000_000


def first_weekday(size: Size) -> int:
    """Return the weekday of day 0: 0 is Monday."""
    return date.fromisoformat(size.start).weekday()


class PolicyKind(StrEnum):
    """How a logging policy chooses; each knows only what a shop knows."""

    uniform = "uniform"  # every candidate is as likely
    popularity = "popularity"  # as likely as its share of the clicks so far
    epsilon_greedy = "epsilon-greedy"  # the best by counts, except for a share of the time
    softmax = "softmax"  # more likely the better by counts, by a temperature


@dataclass(slots=True, kw_only=True)
class LoggingPolicy:
    """One logging policy and its numbers."""

    kind: PolicyKind = PolicyKind.uniform
    """uniform, popularity, epsilon_greedy or softmax."""
    epsilon: float = 0.2
    """epsilon_greedy: share of choices made uniformly."""
    temperature: float = 1.0
    """softmax: of the standardised scores; small is greedy, large is uniform."""

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon <= 1:
            raise ConfigError(f"a logging policy's epsilon must lie in 0..1, got {self.epsilon}")
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"a logging policy's temperature must be above 0, got {self.temperature}")


@dataclass(slots=True, kw_only=True)
class GenerateSettings:
    """Write a simulated service whose truth is known, as the five tables.

    playbill generate world=fitted size=small seed=1        three months of 2,000 people, in seconds
    playbill generate size=shop                             18 months of 400,000 people, in minutes
    playbill generate item.kind=softmax item.temperature=1 creative.kind=epsilon_greedy creative.epsilon=0.1
    playbill generate world=hard parameters=mine.yaml name=mine   numbers of your own over the chosen world's

    Written to {home}/tables/{name}: the tables, tables.json, mapping.yaml (for `playbill prepare source=parquet`), and
    truth/, which no shop could know. The logging policies know counts up to yesterday and what people declare; each of
    their choices is a row of `decisions` with its exact probability, its policy's name written `mail:...` where it is
    about a mail. The folder appears in one step, complete or not at
    all. Run again with nothing changed, the job says so and stops.
    """

    home: str = "var"
    """Root of all that Playbill writes."""
    world: Any = None
    """The response model's numbers: easy, fitted or hard."""
    size: Any = None
    """tiny, small or shop."""
    parameters: str = ""
    """A YAML file in the form of conf/world/*.yaml whose numbers replace the chosen world's; empty for none."""
    seed: int = 0
    """Of every draw."""
    name: str = ""
    """Of the table folder below home/tables; empty means <world>-<size>."""
    item: LoggingPolicy = field(default_factory=lambda: LoggingPolicy(kind=PolicyKind.popularity))
    """Chooses the item of each position."""
    creative: LoggingPolicy = field(default_factory=LoggingPolicy)
    """Chooses the artwork of each item shown."""
    subject: LoggingPolicy = field(default_factory=LoggingPolicy)
    """Chooses a mail's subject line."""
    hero: LoggingPolicy = field(default_factory=LoggingPolicy)
    """Chooses a mail's hero picture."""
    send_hour: LoggingPolicy = field(default_factory=LoggingPolicy)
    """Chooses the local hour at which a mail goes out."""
    offer: LoggingPolicy = field(default_factory=LoggingPolicy)
    """Chooses a mail's offer."""
    hold_share: float = 0.05
    """Share of mails that are held back at random, as a `hold` decision, so that what mails do can be told."""
    chunk: int = 100_000
    """People worked on at once; changes memory and speed, never the result."""
    threads: int = 2
    """Chunks worked on at the same time; changes memory and speed, never the result."""
    force: bool = False
    """Write again what is up to date."""

    def __post_init__(self) -> None:
        if not 0 <= self.hold_share < 1:
            raise ConfigError(f"hold_share must be at least 0 and below 1, got {self.hold_share}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed must lie in 0..2^63 - 1, got {self.seed}")
        if Path(self.name).name != self.name:
            raise ConfigError(f"name is the name of one folder, not a path, got {self.name!r}; home= says where")
        if self.chunk < 1:
            raise ConfigError(f"chunk must be at least 1, got {self.chunk}")
        if self.threads < 1:
            raise ConfigError(f"threads must be at least 1, got {self.threads}")
