"""Settings of the slate log and of the jobs that read it. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from playbill.errors import ConfigError


@dataclass(slots=True, kw_only=True)
class SlateLogSettings:
    """What a server keeps of its answers, in <home>/slates."""

    on: bool = True
    """Log every answered slate and page."""
    durable: bool = False
    """Let an answer wait until its line is on the disk. Without it lines are written a moment later, and a process
    that is killed in between loses them; those of an answer that cannot be written are dropped and counted."""
    queue: int = 2_000
    """Answers that may wait for the disk; more are dropped and counted."""
    file_mb: float = 64.0
    """A file of this size is closed, compressed and checksummed, and the next one begun."""
    file_minutes: float = 60.0
    """So is one of this age."""
    keep_days: float = 30.0
    """Closed files older than this are removed; 0: never."""
    keep_gb: float = 20.0
    """The oldest closed files are removed beyond this size of all of them; 0: never."""
    leave_gb: float = 1.0
    """Log nothing while the disk has less room than this: it is the events that must not be lost."""
    visits: bool = False
    """Also keep what visitors without any id tell of their visit (`recent`, `context`), and the reasons that rest
    on it, so that their slates can be answered again. It names nobody, and is kept nowhere otherwise."""

    def __post_init__(self) -> None:
        for name, low in {"queue": 1, "file_mb": 0.001, "file_minutes": 0.001, "keep_days": 0, "keep_gb": 0,
                          "leave_gb": 0}.items():  # fmt: skip
            if not getattr(self, name) >= low:
                raise ConfigError(f"watch.slates.{name} is {getattr(self, name)}, expected at least {low}")


@dataclass(slots=True, kw_only=True)
class ReplaySettings:
    """`playbill replay var/slates/20240501T183000Z-a-1.jsonl.zst` answers again what a file of the slate log says.

    Each slate is made anew by the bundle that made it, from what it knew then, and held against what was answered:
    items, creatives, scores, propensities. The first difference is named, and the exit code is 1.
    """

    home: str = "var"
    """Folder of everything Playbill writes: the bundles are there."""
    file: str = ""
    """A file of <home>/slates, closed or open; empty: all closed ones, oldest first."""
    tolerance: float = 1e-6
    """How far a score or a probability may be off, relative to itself, on another machine, runtime or batch of
    fresh items; 0: not at all. What is exactly equal is counted by itself."""
    most: int = 0
    """Slates to replay; 0: all."""

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise ConfigError(f"tolerance: expected a number from 0 to below 1, got {self.tolerance}")
        if self.most < 0:
            raise ConfigError(f"most: expected at least 0, got {self.most}")


class Action(Enum):
    """What `playbill slates` does."""

    list = "list"
    export = "export"
    erase = "erase"


@dataclass(slots=True, kw_only=True)
class SlatesSettings:
    """`playbill slates` lists the files of the slate log.

    `playbill slates export` writes closed files as the tables' decisions, one row an item shown, to
    <home>/slates/decisions/decisions.parquet; `playbill slates erase user_id=196` takes everything of a person out.
    """

    home: str = "var"
    """Folder of everything Playbill writes."""
    action: Action = Action.list
    """list, export or erase."""
    creatives: bool = False
    """Export also the creatives that were chosen, as decisions of their own. `playbill unload` writes those too,
    with all that could have been chosen: take them from one of the two."""
    user_id: str | None = None
    """Whom to erase."""
    session_ids: list[str] = field(default_factory=list)
    """Visits to erase."""

    def __post_init__(self) -> None:
        named = self.user_id is not None or bool(self.session_ids)
        if self.action is Action.erase and not named:
            raise ConfigError("user_id, session_ids: whom to erase? expected at least one of them")
        if self.action is not Action.erase and named:
            raise ConfigError("user_id, session_ids: have a meaning with `playbill slates erase` alone")
