"""Settings of `playbill measure question=interleaving`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from playbill.errors import ConfigError


class TeamColumn(Enum):
    """The column of decisions that says which ranker placed an item."""

    arm = "arm"
    policy = "policy"


@dataclass(slots=True, kw_only=True)
class InterleavingQuestion:
    """Which of two rankers do people prefer, when each list is made by both in turn (team draft)?

    playbill measure question=interleaving tables=my_shop question.ours=tower question.theirs=item_knn

    Lists: decisions of kind item; request_id is one list, and arm (or policy) the ranker that placed the item, empty
    where none earns credit. Credit: events that name the decision (events.decision_id) and do not come before it.
    Who had not signed in is told apart by session_id, and without one by request_id.
    """

    ours: str = ""
    """Ranker whose wins are counted as such; empty: the first by name of the two in the log."""
    theirs: str = ""
    """The other ranker; empty: the other one in the log."""
    team_column: TeamColumn = TeamColumn.arm
    """Column of decisions with the ranker's name: arm or policy."""
    kind: str = "item"
    """Kind of the decisions that make up the lists."""
    event: str = "click"
    """Event that earns credit; a placement earns it once, however often it is clicked."""
    resamples: int = 2000
    """Bootstrap draws of people for the interval."""

    def __post_init__(self) -> None:
        if self.resamples < 100:
            raise ConfigError(f"resamples must be >= 100, got {self.resamples}")
        if self.ours and self.ours == self.theirs:
            raise ConfigError(f"ours and theirs must be two rankers, got {self.ours!r} twice")
        for name in ("kind", "event"):
            if not getattr(self, name):
                raise ConfigError(f"{name} must be named, got nothing")
