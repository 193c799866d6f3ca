"""Settings of `playbill fit`."""

from __future__ import annotations

from dataclasses import dataclass

from playbill.errors import ConfigError


@dataclass(slots=True, kw_only=True)
class FitSettings:
    """Estimate the simulated service's numbers from real logs, and say how far the world is from them.

    playbill fit data=../shared/data
    playbill generate parameters=var/fit/parameters.yaml

    Reads the logs that are there, names those that are not, and writes {home}/fit/: parameters.yaml (usable by
    `playbill generate parameters=FILE`), fit.json, fit.txt, fit.png and index.html. Only fitted numbers and aggregates
    are written, never rows of a log.
    """

    home: str = "var"
    """Root of all that Playbill writes."""
    data: str = "../shared/data"
    """Folder that holds the logs, one folder each: upworthy-exploratory, open-bandit-small, trivago-100k,
    dito-email-opens, complete-journey, ml-1m, ml-100k."""
    out: str = ""
    """Folder for the report; empty means {home}/fit."""
    seed: int = 0
    """Of every resampling, and of the worlds that are generated for comparison."""
    compare: bool = True
    """Generate worlds with the fitted numbers and with the presets easy and hard, and measure their distances."""
    force: bool = False
    """Fit again although the report is there and belongs to these logs and settings."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}")
