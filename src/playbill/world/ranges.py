"""What each number of the parameters may be; one place, so that a preset, an overlay and a fit meet the same limits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from playbill.errors import ConfigError

_SHARE = (0.0, 1.0)
_SPREAD = (0.0, 10.0)
_LOG_ODDS = (-50.0, 50.0)

# field or mapping -> lowest and highest allowed value, both included
RANGES: dict[str, tuple[float, float]] = {
    "population.aspects": (2, 16),
    "population.segments": (1, 1000),
    "population.taste_spread": _SPREAD,
    "population.segment_error": _SHARE,
    "population.anonymous_share": _SHARE,
    "population.activity_mean": (1e-6, 100),
    "population.activity_sd": (0, 5),
    "population.hours": (1e-6, 1e6),
    "population.weekdays": (1e-6, 1e6),
    "population.rhythms": (1, 10_000),
    "population.rhythm_concentration": _SPREAD,
    "population.timezones": (0, 1e9),
    "population.device_share": (1e-6, 1e6),
    "population.device_spread": _SPREAD,
    "population.price_sensitivity_mean": _SPREAD,
    "population.price_sensitivity_sd": _SPREAD,
    "population.contactable_share": _SHARE,
    "population.consent_share": _SHARE,
    "population.drift_per_year": (0, 1000),
    "catalogue.categories": (1, 1000),
    "catalogue.aspect_spread": _SPREAD,
    "catalogue.second_category_share": _SHARE,
    "catalogue.new_share": _SHARE,
    "catalogue.popularity_exponent": (0, 20),
    "catalogue.popularity_offset": (0, 100),
    "catalogue.popularity_appeal": (-1, 1),
    "catalogue.appeal_sd": _SPREAD,
    "catalogue.quality_sd": _SPREAD,
    "catalogue.price_median": (0.01, 1e9),
    "catalogue.price_sd": (0, 5),
    "catalogue.providers": (1, 30_000),
    "catalogue.creatives_min": (1, 1000),
    "catalogue.creatives_max": (1, 1000),
    "catalogue.pull_sd": _SPREAD,
    "catalogue.subjects": (1, 1000),
    "catalogue.heroes": (1, 1000),
    "clicks.examination": _SHARE,
    "clicks.delay_mean_s": (0, 86_400),
    "outcomes.completion_precision": (0.01, 1e6),
    "outcomes.rating_share": (1e-9, 1 - 1e-9),
    "outcomes.leniency_sd": _SPREAD,
    "outcomes.organic_visits_share": _SHARE,
    "outcomes.organic_candidates": (1, 1000),
    "outcomes.play_minutes": (0, 1440),
    "purchases.inclination_sd": _SPREAD,
    "purchases.kinds": _SHARE,
    "messages.every_days": (0, 100_000),
    "messages.send_hours": (0, 23),
    "messages.offers": _SHARE,
    "messages.openness_sd": _SPREAD,
    "messages.machine_share": _SHARE,
    "delays.machine_open_mean_s": (0, 3600),
    "delays.open_mean_h": (0, 1000),
    "delays.purchase_mean_h": (0, 1000),
    "delays.rating_mean_h": (0, 1000),
    "delays.most_h": (0, 72),
    "feedback_rate": _SHARE,
    "unfairness.relative": _SHARE,
}


def check_ranges(parameters: Any) -> None:
    """Check that every number of a settings dataclass is finite and in its range.

    Raises:
        ConfigError: names every field that is not, with its value and what is allowed.
    """
    wrong = []
    for name, owner, value in _numbers(parameters):
        low, high = RANGES.get(owner, _LOG_ODDS)
        if not (math.isfinite(value) and low <= value <= high):
            wrong.append(f"{name}={value} (allowed {low:g}..{high:g})")
    if wrong:
        raise ConfigError(f"parameters out of range: {'; '.join(wrong)}")


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, str, float]]:
    """Yield (dotted name, the field's own dotted name, number) for every number below a settings dataclass."""
    for f in fields(value):
        inner = getattr(value, f.name)
        dotted = f"{name}.{f.name}" if name else f.name
        if is_dataclass(inner):
            yield from _numbers(inner, dotted)
        elif isinstance(inner, dict):
            yield from ((f"{dotted}.{k}", dotted, v) for k, v in inner.items())
        elif isinstance(inner, list):
            yield from ((f"{dotted}[{k}]", dotted, v) for k, v in enumerate(inner) if not isinstance(v, str))
        elif isinstance(inner, int | float) and not isinstance(inner, bool):
            yield dotted, dotted, inner
