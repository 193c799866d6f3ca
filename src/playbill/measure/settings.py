"""Settings of `playbill measure`; each question's own stand beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from playbill.errors import ConfigError


@dataclass(slots=True, kw_only=True)
class MeasureSettings:
    """Read a log and say what is true: one question a call.

    playbill measure question=experiment tables=my_shop question.experiment=checkout-button
    playbill measure question=off_policy tables=my_shop question.policy=softmax

    Prints the statements with their intervals, what they assume and what speaks against them, and writes the same as
    json, text and a plot to {home}/measure/{tables}-{question}/.
    """

    home: str = "var"
    """Root of all that Playbill writes."""
    tables: str = ""
    """Name of the table folder below home/tables, or a path to one."""
    question: Any = None
    """What is asked; `playbill measure question=NAME --help` lists the fields of that choice."""
    level: float = 0.95
    """Nominal coverage of the intervals."""
    seed: int = 0
    """Of every resampling."""
    out: str = ""
    """Folder for json, text and plot; empty means {home}/measure/{tables}-{question}."""

    def __post_init__(self) -> None:
        if not 0.5 <= self.level < 1:
            raise ConfigError(f"level must lie in 0.5..1, got {self.level}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed must lie in 0..2^63 - 1, got {self.seed}")
