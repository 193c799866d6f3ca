"""Settings of validation and of the sufficiency report."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from playbill.errors import ConfigError


class Action(StrEnum):
    """What a rule does with a row that breaks it. Lower case: these are the words of the YAML."""

    reject = "reject"  # the job fails after every fault was collected
    quarantine = "quarantine"  # the row goes to quarantine/<table>.parquet, counted
    warn = "warn"  # the row stays, the fault is reported


@dataclass(slots=True, kw_only=True)
class ValidationSettings:
    """How strictly rows are held to the contract."""

    actions: dict[str, Action] = field(default_factory=dict)
    """reject, quarantine or warn by rule name; conf/prepare.yaml explains each. A rule not named keeps its own."""
    examples: int = 5
    """Faults printed for each rule; every fault stands in report/faults.parquet."""
    max_text_chars: int = 100_000
    """Longest text a cell may hold, characters."""
    max_id_bytes: int = 256
    """Longest text id, bytes of UTF-8; the state store keys by ids and cannot hold more than 511."""
    future_slack_s: float = 86_400.0
    """How far in the future an event may lie, seconds; clocks of devices run ahead."""

    max_quarantined_share: float = 0.5
    """Largest part of a table that may go to quarantine; above it a mapping is wrong rather than some rows. 1: any."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_quarantined_share <= 1:
            raise ConfigError(f"validation.max_quarantined_share={self.max_quarantined_share}: expected 0..1")
        if self.examples < 0:
            raise ConfigError(f"validation.examples={self.examples}: expected 0 or more")
        if self.max_text_chars < 1:
            raise ConfigError(f"validation.max_text_chars={self.max_text_chars}: expected 1 or more")
        if not 1 <= self.max_id_bytes <= 500:
            raise ConfigError(f"validation.max_id_bytes={self.max_id_bytes}: expected 1..500")
        if self.future_slack_s < 0:
            raise ConfigError(f"validation.future_slack_s={self.future_slack_s}: expected 0 or more")


@dataclass(slots=True, kw_only=True)
class SufficiencySettings:
    """How much data each rung of answers needs before it is worth building."""

    item_knn_events: int = 100
    """Events with a person and a known item before item-to-item neighbours mean anything."""
    towers_events: int = 10_000
    """Such events before towers are trained; below it they lose to item-to-item."""
    towers_people: int = 50
    """People with such events before towers or a ranker are trained: many events of few people teach no taste."""
    ranker_events: int = 10_000
    """Such events before a ranker is trained."""
    creative_decisions: int = 10_000
    """Logged creative choices with a propensity before creative heads are trained."""
    send_time_decisions: int = 10_000
    """Logged send hours before send times are learned."""
    uplift_people: int = 10_000
    """People in logged experiment arms before uplift is learned."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if (value := getattr(self, name)) < 0:
                raise ConfigError(f"sufficiency.{name}={value}: expected 0 or more")
