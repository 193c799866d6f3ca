"""Settings of `playbill load`. Imports nothing heavy."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from playbill.engine.types import MAX_K
from playbill.errors import ConfigError
from playbill.serving.settings import at_least

_TARGET = re.compile(r"p(\d+(?:\.\d+)?)_ms:(\d+(?:\.\d+)?)")


@dataclass(slots=True, kw_only=True)
class LoadSettings:
    """`playbill load rates=[50,100,200]` sends requests at these rates to a running server and says how long they took.

    Each request has a moment that was drawn before, and its latency counts from then, whatever the server does.
    `find=p99_ms:20` looks for the highest rate at which 99 of 100 requests are answered within 20 ms. The API key is
    that of the environment variable PLAYBILL_KEY.
    """

    home: str = "var"
    """Folder of everything Playbill writes; the server that runs from it is asked, and the report goes there."""
    url: str | None = None
    """Address of the server, http://host[:port]; null: of the one that runs from `home`, else http://127.0.0.1:8000."""
    name: str | None = None
    """Name of the report's folder, <home>/load/<name>; null: the moment at which it began."""
    rates: list[float] = field(default_factory=lambda: [50.0, 100.0, 200.0, 400.0])
    """Requests a second, one step each; their moments are a Poisson process. With `find` the first one alone counts."""
    find: str | None = None
    """Look for the highest rate that keeps a percentile under so many milliseconds: p99_ms:20; null: go by `rates`."""
    precision: float = 0.05
    """How near the found rate and the lowest that was too high come to each other, as a share."""
    duration_s: float = 10.0
    """Seconds of a step that count."""
    warmup_s: float = 2.0
    """Seconds at the same rate before them, which do not."""
    connections: int = 128
    """Most connections; a request for which none is free waits, and its latency counts meanwhile."""
    timeout_s: float = 10.0
    """A request without an answer so long after its moment is given up, and counts with that time."""
    seed: int = 0
    """Of the moments and of who asks: the same seed sends the same requests."""
    tables: str = "ml-100k"
    """Name of a source prepared with `playbill prepare`: its users are those who ask, or whoever did something."""
    audience: str | None = None
    """Parquet file with a column `user_id`; null: every user of the tables."""
    unknown: float = 0.05
    """Share of requests for people of whom nobody has heard."""
    anonymous: float = 0.05
    """Share of requests without a user; the rest are of the audience."""
    k: int = 20
    """Items a slate."""
    surface: str = "slate"
    """Surface that slates are asked for."""
    filter: str | None = None
    """Condition over columns of the items table, the same for every slate; null for none."""
    events_share: float = 0.0
    """Share of requests that report an event in place of asking. They are stored, and learned from: not on a store that
    matters."""
    event: str | None = None
    """Name of that event; null: the first that the tables declare."""

    def __post_init__(self) -> None:
        at_least(self, 1, "k", "connections")
        if self.k > MAX_K:
            raise ConfigError(f"k: expected at most {MAX_K}, got {self.k}")
        for name in ("duration_s", "timeout_s", "precision"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name}: expected a number above 0, got {getattr(self, name)}")
        if not 0 <= self.warmup_s < math.inf:
            raise ConfigError(f"warmup_s: expected at least 0, got {self.warmup_s}")
        at_least(self, 0, "seed")
        if not self.rates:
            raise ConfigError("rates: expected at least one, got []")
        for rate in self.rates:
            if not 0 < rate <= 1e6:
                raise ConfigError(f"rates: expected requests a second above 0 and up to 1000000, got {rate:g}")
            if rate * self.duration_s < 10:
                raise ConfigError(
                    f"rates: expected at least ten requests a step, got {rate:g} a second over duration_s "
                    f"{self.duration_s:g}"
                )
        for name in ("unknown", "anonymous", "events_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: expected a share from 0 to 1, got {getattr(self, name)}")
        if self.unknown + self.anonymous > 1:
            raise ConfigError(
                f"unknown and anonymous: expected at most 1 together, got {self.unknown:g} + {self.anonymous:g}"
            )
        if self.url is not None and not self.url.startswith("http://"):
            raise ConfigError(f"url: expected http://, got {self.url!r}; what ends TLS is measured by itself")
        if self.name is not None and (not self.name or "/" in self.name or self.name.startswith(".")):
            raise ConfigError(f"name: expected the name of a folder, got {self.name!r}")
        target = parse_target(self.find)
        if target is not None and target[1] >= self.timeout_s * 1e3:
            raise ConfigError(f"find: expected less than timeout_s, {self.timeout_s:g} s, got {self.find}")


def parse_target(text: str | None) -> tuple[float, float] | None:
    """Return the percentile, above 0 and below 100, and the milliseconds of `p99_ms:20`; None for None.

    Raises:
        ConfigError: another form, or numbers out of range.
    """
    if text is None:
        return None
    found = _TARGET.fullmatch(text)
    percentile, limit_ms = (float(found[1]), float(found[2])) if found else (0.0, 0.0)
    if not 0 < percentile < 100 or not 0 < limit_ms < math.inf:
        raise ConfigError(f"find: expected a percentile and milliseconds, such as p99_ms:20, got {text!r}")
    return percentile, limit_ms
