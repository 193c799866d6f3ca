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
    """`hour` and `weekday` of the request in the person's time zone, and columns that the events table has (such as
    device): a request tells them in its `context`. A column of it that is called surface is told by the request's own
    surface."""

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

    max_item_rows: int = 0
    """Most items with a row of their own in the item table, the most frequent first; 0 = no limit."""

    min_item_events: int = 0
    """Items with fewer events in training time have no row of their own; 0 gives every item one."""

    item_buckets: int = 0
    """Rows shared, by hashing, by the items without one of their own; 0 leaves those to their content alone."""

    item_hashes: int = 1
    """Shared rows that each of those items reads, 1 or 2; two tell more items apart in as many rows."""

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
        for name in ("max_item_rows", "min_item_events", "item_buckets"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be >= 0, got {getattr(self, name)}")
        if self.item_hashes not in (1, 2):
            raise ConfigError(f"item_hashes must be 1 or 2, got {self.item_hashes}")
        if self.item_buckets and not (self.max_item_rows or self.min_item_events):
            raise ConfigError(
                f"item_buckets={self.item_buckets} has no effect while every item has a row of its own; "
                "set max_item_rows or min_item_events too"
            )
        for name in ("history_events", "user", "item", "context", "text"):
            values = getattr(self, name)
            if values is not None and len(set(values)) != len(values):
                raise ConfigError(f"{name} names a column twice: {list(values)}")
        if self.history_events is not None and not self.history_events:
            raise ConfigError("history_events is empty: name at least one event, or null for all")
