"""Settings of `playbill measure question=drift`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from playbill.errors import ConfigError


class Control(Enum):
    """What the error rate counts over the columns of a reading."""

    HOLM = "holm"
    FDR = "fdr"


@dataclass(slots=True, kw_only=True)
class DriftQuestion:
    """Have features, scores or outcomes changed between two windows of a log, or between two logs?

    Alarms are calibrated: two windows of one process alarm in at most 1 - level of readings, over all columns together.
    """

    before: str = ""
    """Window START..END (ISO 8601, END not included); with `after` empty too: the first half of the log."""
    after: str = ""
    """Window START..END; with `before` empty too: the second half of the log."""
    before_tables: str = ""
    """Name or path of another table folder that `before` is read from; the windows may then be empty: all of each."""
    columns: list[str] = field(default_factory=list)
    """Columns to compare: users.X, items.X (of the items people dealt with), events.X, events.value[EVENT],
    decisions.X, outcome.EVENT, people.events; empty means all that can be compared."""
    outcomes: list[str] = field(default_factory=list)
    """Event names whose rate is an outcome; empty means all."""
    outcome_hours: float = 24.0
    """Hours after a decision within which an event is its outcome; decisions too young for that are left out."""
    kind: str = "item"
    """Kind of the decisions that are compared."""
    scores: list[str] = field(default_factory=lambda: ["propensity", "score"])
    """Columns of decisions that are a model's scores."""
    before_scores: str = ""
    """Parquet file or folder with user_id and `score_column` (a number or a list of them), such as a batch's output."""
    after_scores: str = ""
    """The same for the window after."""
    score_column: str = "scores"
    """Column of those files."""
    min_distance: float = 0.05
    """Smallest distance (Kolmogorov-Smirnov, total variation) worth an alarm, 0..1."""
    min_change: float = 0.05
    """Smallest relative change of an outcome's rate worth an alarm."""
    control: Control = Control.HOLM
    """HOLM: at most 1 - level of readings without drift have any alarm; FDR: that share of the alarms is false."""
    min_people: int = 100
    """Columns with fewer people in a window are refused."""
    resamples: int = 1999
    """Resamples of people behind every p value."""

    def __post_init__(self) -> None:
        if bool(self.before) != bool(self.after):
            raise ConfigError(f"give both windows or none, got before={self.before!r} and after={self.after!r}")
        if bool(self.before_scores) != bool(self.after_scores):
            raise ConfigError("give both before_scores and after_scores or none")
        for name, low, high in (("min_distance", 0, 1), ("min_change", 0, 100), ("outcome_hours", 0.01, 10_000)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} must lie in {low:g}..{high:g}, got {getattr(self, name)}")
        for name, low, high in (("min_people", 20, 1_000_000), ("resamples", 199, 100_000)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} must lie in {low:,}..{high:,}, got {getattr(self, name)}")
