"""Settings of the state store and of the job that fills it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from playbill.errors import ConfigError

SCHEMES = ("redis://", "rediss://", "unix://")  # of stores that are no folder


@dataclass(slots=True, kw_only=True)
class StoreSettings:
    """How much a store may hold, and what it keeps of a person."""

    map_size_gb: float = 64.0
    """Largest size of the store in GB: address space, not disk; the file grows as it fills. It may be raised later."""
    max_readers: int = 1024
    """Read transactions that may be open at once, over all processes."""
    keep: int = 256
    """Events kept in a profile's history, the newest ones, for each event name. At least a bundle's history length."""
    seen: int = 10_000
    """Item ids remembered as seen, the newest ones."""
    max_skew_s: float = 5.0
    """How far in the future an event may lie, in seconds, since senders' clocks run ahead; later ones are cut to it."""
    redis_timeout_s: float = 3.0
    """Seconds to wait for a connection to Redis and for what it writes."""
    redis_read_timeout_s: float = 0.05
    """Seconds that an answer waits for what Redis knows of a person; then it goes out without. Well below the
    deadline of answers (`serve deadline_ms`): a server that hangs would else take the time of all that wait behind."""
    redis_unsafe: bool = False
    """Take a Redis server that may lose acknowledged events: one that does not sync every write, or evicts."""

    def __post_init__(self) -> None:
        lows = {"map_size_gb": 0.0001, "max_readers": 1, "keep": 1, "seen": 0, "max_skew_s": 0}
        for name, low in {**lows, "redis_timeout_s": 0.01, "redis_read_timeout_s": 0.01}.items():
            if not getattr(self, name) >= low:
                raise ConfigError(f"store.{name} is {getattr(self, name)}, expected at least {low}")


@dataclass(slots=True, kw_only=True)
class IngestSettings:
    """Fold the tables' users and events into the state store. Doing so again adds what is new, and nothing else."""

    home: str = "var"
    """Root of all that Playbill writes."""
    tables: str = "ml-100k"
    """Name of a source prepared with `playbill prepare`."""
    state: str | None = None
    """Folder of the store, or redis://host:port/0?prefix=shop; null means <home>/state."""
    until: str | None = None
    """Only events strictly before this: ISO 8601 (UTC where no zone is given) or UTC microseconds; null takes all."""
    batch_rows: int = 50_000
    """Events a transaction; a killed run goes on after the last whole one."""
    force: bool = False
    """Walk over all rows again though nothing changed; events that are there already stay as they are."""
    store: StoreSettings = field(default_factory=StoreSettings)
    """Limits of the store."""

    def __post_init__(self) -> None:
        if self.batch_rows < 1:
            raise ConfigError(f"batch_rows is {self.batch_rows}, expected at least 1")
        parse_moment(self.until)


@dataclass(slots=True, kw_only=True)
class UnloadSettings:
    """Write the store's log, events and decisions, to <home>/log as parquet files in the form of the tables.

    playbill unload home=shop
    playbill unload home=shop by_day=true

    What people did and what they were shown comes back this way: `playbill prepare source=parquet` takes the files in,
    and `playbill measure question=off_policy question.kind=creative` values other policies on them.
    """

    home: str = "var"
    """Root of all that Playbill writes."""
    state: str | None = None
    """Folder of the store, or redis://host:port/0?prefix=shop; null means <home>/state."""
    by_day: bool = False
    """Add what is new to <home>/days/<table>/day=YYYY-MM-DD/, instead of writing <home>/log anew."""
    batch_rows: int = 50_000
    """Rows held in memory at once; by day also the most that a killed run does again."""
    force: bool = False
    """Write all of it again: though nothing was stored since, or over what another store left."""
    store: StoreSettings = field(default_factory=StoreSettings)
    """How Redis is reached, where the store is there."""

    def __post_init__(self) -> None:
        if self.batch_rows < 1:
            raise ConfigError(f"batch_rows is {self.batch_rows}, expected at least 1")


def state_place(home: Path | str, state: str | None) -> Path | str:
    """Return where the store of a home is: a URL as it was given, else a folder, absolute."""
    if state is not None and state.startswith(SCHEMES):
        return state
    return Path(state or Path(home) / "state").absolute()


def parse_moment(text: str | None) -> int | None:
    """Return UTC microseconds of an ISO 8601 text or of a number of microseconds in text; None for None.

    Raises:
        ConfigError: neither of the two.
    """
    if text is None:
        return None
    if text.lstrip("-").isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"expected a moment in ISO 8601 (1998-03-08T12:00:00) or in UTC microseconds, got {text!r}"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    # not timestamp(): a float loses microseconds
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
