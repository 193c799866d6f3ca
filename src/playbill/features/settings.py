"""What a person, an item and a moment may look like to a model."""

from __future__ import annotations

from dataclasses import dataclass, field

from playbill.errors import ConfigError


@dataclass(slots=True, kw_only=True)
class FeatureSettings:
    """Which columns become features, and how much of the past is seen. Columns marked protected are refused."""

    history_length: int = 50
    """Newest events of a history that models see, 1 to 4096."""

    history_events: list[str] | None = None
    """Event names that enter a history; null takes every declared one."""

    user: list[str] | None = None
    """Columns of the users table; null takes every unprotected one that fits, [] none."""

    item: list[str] | None = None
    """Columns of the items table; null takes every unprotected one that fits, vectors too, [] none."""

    context: list[str] = field(default_factory=lambda: ["hour", "weekday"])
    """`hour` and `weekday` of the request in the person's time zone, and columns of the events table (`device`)."""

    text: list[str] = field(default_factory=list)
    """Text columns of the items table, such as [title,text], read together as one vector of hashed words; needs no
    language model, and is not wanted beside a vector column of `playbill embed`, which says more."""

    text_width: int = 64
    """Numbers of that vector, 1 to 1024."""

    lift_protected: bool = False
    """Let protected columns be features. For benchmarks on public data only; said aloud on every use."""

    max_categories: int = 8
    """Most values kept of a list column such as `categories`, for each row."""

    max_values: int = 1000
    """Most values known of one text or list column, the most frequent first; the others count as unknown."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("history_length", 1, 4096),
            ("max_categories", 1, 64),
            ("max_values", 1, 1_000_000),
            ("text_width", 1, 1024),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} must be {low} to {high}, got {value}")
        for name in ("history_events", "user", "item", "context", "text"):
            values = getattr(self, name)
            if values is not None and len(set(values)) != len(values):
                raise ConfigError(f"{name} names a column twice: {list(values)}")
        if self.history_events is not None and not self.history_events:
            raise ConfigError("history_events is empty: name at least one event, or null for all")
