"""What one real log says: estimates of parameters, and the aggregates that a world is held against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(slots=True, kw_only=True)
class Estimate:
    """One number, or one curve, of the world as a real log gives it.

    Attributes:
        parameter: dotted name in `Parameters`; empty for a figure that is shown and sets nothing.
        value: a number, or a list of numbers for a curve.
        low, high: 95 % interval; None where the data set holds one realisation (a population's curve).
        data: the folder of the log.
        n: independent units behind it, counted in `of`.
        method: how, with the formula's source.
        caution: what speaks against reading it as the parameter.
    """

    parameter: str
    name: str
    value: float | list[float]
    low: float | None = None
    high: float | None = None
    data: str
    n: int
    of: str
    method: str
    caution: str = ""


@dataclass(slots=True, kw_only=True)
class Sample:
    """Aggregates of a log that a world is compared with: one row a unit (person, item, list, test), so that it splits.

    Attributes:
        values: [n] float64, one number a unit, or [n, bins] int64, counts of a unit in each bin.
        distance: name of the distance, a key of `distances.DISTANCES`.
        about: what a unit is and what its number means.
    """

    values: np.ndarray
    distance: str
    about: str


@dataclass(slots=True, kw_only=True)
class Found:
    """All that one log gave."""

    data: str
    estimates: list[Estimate] = field(default_factory=list)
    samples: dict[str, Sample] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def number(self, name: str) -> float:
        """Return the estimate called `name`, which must be a number."""
        [found] = [e.value for e in self.estimates if e.name == name]
        assert isinstance(found, float)
        return found
