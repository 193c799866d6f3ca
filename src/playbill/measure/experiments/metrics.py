"""Declared metrics: what is counted, of whom, for how long, and which direction is better."""

from __future__ import annotations

import difflib
import math
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from playbill.errors import ConfigError
from playbill.tables.schema import DECISION_KINDS

ROW_COLUMNS = ("session_id", "decision_id", "item_id", "creative_id")
ANY = "*"


class Kind(StrEnum):
    """How people's counts become one figure of an arm."""

    PROPORTION = "proportion"
    MEAN = "mean"
    RATIO = "ratio"
    TIME = "time"


class Take(StrEnum):
    """What is taken of a person's rows."""

    COUNT = "count"
    VALUE = "value"
    DAYS = "days"
    SESSIONS = "sessions"


class Better(StrEnum):
    """The direction that is good for the shop or the person."""

    HIGHER = "higher"
    LOWER = "lower"
    NEITHER = "neither"


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows of a person are counted, and what is taken of them; fields as metrics.yaml explains them."""

    events: list[str] = []
    decisions: list[str] = []
    take: Take = Take.COUNT
    needs: list[str] = []


class Guardrail(msgspec.Struct, frozen=True, kw_only=True):
    """The harm that is tolerated, as a positive number: `limit` in the metric's unit, or a share of the control."""

    limit: float | None = None
    relative_limit: float | None = None


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One declared metric; fields as metrics.yaml explains them."""

    kind: Kind
    count: Count
    meaning: str = ""
    unit: str = ""
    per: Count | None = None
    at_least: float = 1
    absent: bool = False
    from_days: float = 0
    window_days: float | None = 14
    cap: float | None = None
    better: Better = Better.HIGHER
    guardrail: Guardrail | None = None

    @property
    def counts(self) -> list[Count]:
        """What is counted: one thing, or two of a ratio."""
        return [self.count] if self.per is None else [self.count, self.per]


def declared(own: str = "", only: list[str] | None = None) -> dict[str, Metric]:
    """Return the shipped metrics, and those of the file `own`, by name.

    Args:
        own: path of a YAML file in the form of metrics.yaml; empty for none.
        only: keep these names, in this order; empty keeps all.
    Raises:
        ConfigError: no such file, an unknown word (the nearest is named), a declaration that contradicts itself, or a
            name in `only` that nobody declares.
    """
    metrics = parse(files(__package__).joinpath("metrics.yaml").read_bytes(), "metrics.yaml")
    if own:
        try:
            metrics |= parse(Path(own).read_bytes(), own)
        except OSError as error:
            raise ConfigError(f"question.metrics: {own} cannot be read ({error.strerror or error})") from error
    for name in only or []:
        if name not in metrics:
            raise ConfigError(
                f"question.only: no metric {name!r}; {_nearest(name, metrics)}; there are: {_list(metrics)}"
            )
    return {name: metrics[name] for name in only} if only else metrics


def parse(text: bytes, where: str) -> dict[str, Metric]:
    """Return the metrics that a YAML text declares.

    Args:
        where: name of the file, for messages.
    Raises:
        ConfigError: as `declared`.
    """
    try:
        raw = msgspec.yaml.decode(text)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{where} is no YAML: {error}") from error
    if not isinstance(raw, dict) or not all(isinstance(v, dict) for v in raw.values()):
        raise ConfigError(f"{where}: expected a name, and below it kind, count, ... for every metric")
    metrics = {}
    for name, given in raw.items():
        label = f"{where}: {name}"
        _refuse_unknown(given, Metric, label)
        for field, cls in (("count", Count), ("per", Count), ("guardrail", Guardrail)):
            if isinstance(given.get(field), dict):
                _refuse_unknown(given[field], cls, f"{label}.{field}")
        try:
            metric = msgspec.convert(given, Metric)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{label}: {error}") from error
        faults = _faults(metric)
        if faults:
            raise ConfigError(f"{label}: {'; '.join(faults)}")
        metrics[str(name)] = metric
    return metrics


def _faults(metric: Metric) -> list[str]:
    rail = metric.guardrail
    numbers = {"window_days": metric.window_days, "from_days": metric.from_days, "cap": metric.cap}
    numbers |= {"at_least": metric.at_least}
    if rail is not None:
        numbers |= {"guardrail.limit": rail.limit, "guardrail.relative_limit": rail.relative_limit}
    faults = [f"`{name}` is no number: {x}" for name, x in numbers.items() if x is not None and not math.isfinite(x)]
    if (metric.kind is Kind.RATIO) != (metric.per is not None):
        faults.append("`per`, the denominator, belongs to kind: ratio and to no other")
    for count in metric.counts:
        if bool(count.events) == bool(count.decisions):
            faults.append("count `events` or `decisions`, one of the two")
        if unknown := [k for k in count.decisions if k not in DECISION_KINDS]:
            faults.append(f"no decisions of kind {unknown[0]!r}; {_nearest(unknown[0], DECISION_KINDS)}")
        if unknown := [c for c in count.needs if c not in ROW_COLUMNS]:
            faults.append(f"needs: {unknown[0]!r} is none of {_list(ROW_COLUMNS)}; {_nearest(unknown[0], ROW_COLUMNS)}")
        if count.decisions and count.take is Take.VALUE:
            faults.append("decisions carry no value; take: count, days or sessions")
    if metric.kind is not Kind.PROPORTION and (metric.absent or metric.at_least != 1):
        faults.append("`at_least` and `absent` belong to kind: proportion")
    if metric.kind is Kind.TIME and (metric.window_days is None or metric.count.take is not Take.COUNT):
        faults.append("kind: time needs window_days, and takes the first row, so `take` has no meaning")
    if metric.kind is Kind.TIME and metric.from_days:
        faults.append("kind: time starts at the assignment; from_days has no meaning")
    if metric.cap is not None and (metric.kind is not Kind.MEAN or metric.cap <= 0):
        faults.append("`cap` is a number > 0 and belongs to kind: mean")
    if metric.from_days < 0 or (metric.window_days is not None and metric.window_days <= metric.from_days):
        faults.append(
            f"the days counted end at window_days={metric.window_days} and start at from_days={metric.from_days}"
        )
    if rail is not None:
        given = [x for x in (rail.limit, rail.relative_limit) if x is not None]
        if len(given) != 1 or given[0] < 0:
            faults.append("a guardrail has `limit` or `relative_limit`, one of the two, >= 0")
        if metric.better is Better.NEITHER:
            faults.append("a guardrail needs to know which direction is worse: better: higher or lower")
    return faults


def _refuse_unknown(given: dict[Any, Any], cls: type[msgspec.Struct], where: str) -> None:
    known = cls.__struct_fields__
    for word in given:
        if word not in known:
            raise ConfigError(f"{where}: no field {str(word)!r}; {_nearest(str(word), known)}; fields: {_list(known)}")


def _nearest(word: str, known: Any) -> str:
    return f"nearest is {difflib.get_close_matches(word, list(known), n=1, cutoff=0.0)[0]!r}"


def _list(names: Any) -> str:
    return ", ".join(names)
