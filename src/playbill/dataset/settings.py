"""How the past is split into what is learned from and what is held out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from playbill.errors import ConfigError

# events of a table that are folded in memory by default: up to some 4 GB of it, and faster than through files
STREAM_ABOVE_EVENTS = 10_000_000


class SplitKind(StrEnum):
    """By one moment for everybody, or by each person's last events. Lower case: these are the words of the YAML."""

    global_time = "global_time"
    leave_last_out = "leave_last_out"


@dataclass(slots=True, kw_only=True)
class SplitSettings:
    """Which events are for training, validation and test."""

    kind: SplitKind = SplitKind.global_time
    """global_time: the earliest events train, the latest test; leave_last_out: each person's last event tests."""

    train: float = 0.8
    """Share of all events that come first and train; global_time only."""

    valid: float = 0.1
    """Share of all events that come next and validate, the rest tests; global_time only."""

    order_column: str | None = None
    """Numeric column of the events table that orders each person's events, rows without it dropped; null orders by
    time, then as the table's rows stand. leave_last_out only."""

    def __post_init__(self) -> None:
        if not 0 < self.train <= 1:
            raise ConfigError(f"train must be a share above 0 and at most 1, got {self.train}")
        if self.valid < 0 or self.train + self.valid > 1 + 1e-9:
            raise ConfigError(f"valid must be 0 to 1 - train, got train={self.train}, valid={self.valid}")
        if self.order_column is not None and self.kind is not SplitKind.leave_last_out:
            raise ConfigError(f"order_column={self.order_column} has no effect with kind={self.kind.value}; remove it")
