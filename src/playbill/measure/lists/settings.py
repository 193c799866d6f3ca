"""Settings of `playbill measure question=ranking`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from playbill.errors import ConfigError
from playbill.measure.ranking import METRICS


class Per(Enum):
    """What one list is."""

    REQUEST = "request"
    PERSON = "person"


@dataclass(slots=True, kw_only=True)
class RankingQuestion:
    """How good are lists against what people did next, and how do they use the catalogue?

    Lists come from the decisions of kind item or from parquet files (those of `playbill batch`, say), targets from the
    events after each list. Two sources are compared on the same people.

    playbill measure question=ranking tables=ml-100k question.lists=var/batch/everybody question.split=1998-03-01
    playbill measure question=ranking tables=my_shop 'question.lists="decisions:policy=softmax"'
    """

    lists: str = "decisions"
    """`decisions`, `decisions:COLUMN=VALUE` (in quotes: 'question.lists="decisions:policy=softmax"'), or a parquet file
    or folder with user_id and item_ids (a list), or user_id, item_id and position (0-based)."""
    versus: str = ""
    """A second source in the same form, compared with the first on the same people; empty for none."""
    per: Per = Per.REQUEST
    """REQUEST: every list counts against what followed it, and people weigh equally; PERSON: each person's last list
    before `split`."""
    split: str = ""
    """Moment (ISO 8601) that ends the past and starts the targets of files, and from which on lists of decisions
    count; empty: each list's own time, for which a file needs a column `at`."""
    window_days: float = 0.0
    """Days after the list in which an event is a target; 0 means to the end of the log."""
    events: list[str] = field(default_factory=list)
    """Event names that make an item a target; empty means every event with an item."""
    unseen: bool = False
    """Whether an item counts as a target only where the person never dealt with it before the list."""
    silence: bool = False
    """Whether people with targets and no list count with zero; otherwise they are left out and counted."""
    ks: list[int] = field(default_factory=list)
    """Cut-offs of every metric, none beyond the longest list; empty means 10, or the longest list where it is
    shorter."""
    slices: list[str] = field(default_factory=list)
    """Columns to cut by: users.COLUMN or items.COLUMN; new and known, head and tail are always there."""
    slice_metrics: list[str] = field(default_factory=lambda: ["recall", "ndcg"])
    """Metrics of the table of slices, at the first cut-off: recall, ndcg, hit_rate, mrr, map."""
    known_events: int = 1
    """A person or an item with fewer events than this before the split is new."""
    head_share: float = 0.5
    """The head is the fewest items that hold this share of the events before the split; the rest is the tail."""
    vectors: str = ""
    """Path of an .npy array [items, width] in the order of the items table, for diversity; empty: `diversity`
    instead."""
    diversity: str = "categories"
    """Column of items for intra-list diversity; left out where the items table has none of that name."""
    resamples: int = 2000
    """Bootstrap resamples of people."""

    def __post_init__(self) -> None:
        if not self.lists:
            raise ConfigError("lists is empty; name `decisions` or a parquet file with user_id and item_ids")
        if min(self.ks, default=1) < 1:
            raise ConfigError(f"ks must be cut-offs >= 1, got {self.ks}")
        for name, low, high in (("window_days", 0, 1e5), ("known_events", 1, 1e9), ("resamples", 100, 100_000)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} must lie in {low:g}..{high:g}, got {getattr(self, name)}")
        if not 0 < self.head_share < 1:
            raise ConfigError(f"head_share must lie between 0 and 1, got {self.head_share}")
        for column in self.slices:
            if column.partition(".")[0] not in ("users", "items") or not column.partition(".")[2]:
                raise ConfigError(f"slices: {column!r} is not users.COLUMN or items.COLUMN")
        for metric in self.slice_metrics:
            if metric not in METRICS:
                raise ConfigError(f"slice_metrics: no metric {metric!r}; there are: {', '.join(METRICS)}")
        if self.per is Per.PERSON and not self.split:
            raise ConfigError("per=PERSON needs split: the moment before which each person's last list is taken")
