"""Settings of what a server shows of itself beside its figures. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from playbill.errors import ConfigError
from playbill.serving.slatelog.settings import SlateLogSettings


class LogForm(Enum):
    """What a server says of itself."""

    text = "text"  # warnings and errors
    json = "json"  # those, and a line for each request, as lines of json on standard output


@dataclass(slots=True, kw_only=True)
class WatchSettings:
    """By what a server is seen from outside, beside its figures."""

    slates: SlateLogSettings = field(default_factory=SlateLogSettings)
    """What is kept of answers, in <home>/slates."""
    log: LogForm = LogForm.text
    """text: warnings and errors; json: those and a line for each request, as lines of json on standard output."""
    traces: str | None = None
    """Where a collector takes OpenTelemetry's traces by OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces; null:
    nothing is traced, or loaded for it."""
    traces_share: float = 0.01
    """Share of requests that are traced, 0..1; where a request has a `traceparent`, that decides instead."""

    def __post_init__(self) -> None:
        if not 0 <= self.traces_share <= 1:
            raise ConfigError(f"watch.traces_share is {self.traces_share}, expected 0..1")
        if self.traces is not None and not self.traces.startswith(("http://", "https://")):
            raise ConfigError(f"watch.traces: expected an http(s) address, got {self.traces!r}")
