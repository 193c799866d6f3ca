"""The space of a sweep: its dimensions as they are written, and points drawn from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from playbill.errors import ConfigError

KINDS = ("choice", "uniform", "log_uniform", "integers", "log_integers")


@dataclass(frozen=True, slots=True)
class Dimension:
    """One field that varies.

    Attributes:
        key: of `playbill train`, dotted.
        kind: one of KINDS.
        values: of a choice; else the lowest and the highest value, both included.
    """

    key: str
    kind: str
    values: list[Any]

    def edges(self) -> list[Any]:
        """Return the values that a check must see: all of a choice, both ends of a range."""
        return list(self.values)

    def draw(self, rng: np.random.Generator) -> Any:
        """Return one value."""
        if self.kind == "choice":
            return self.values[int(rng.integers(len(self.values)))]
        low, high = self.values
        if self.kind == "uniform":
            return float(rng.uniform(low, high))
        if self.kind == "integers":
            return int(rng.integers(low, high + 1))
        if self.kind == "log_uniform":
            return float(min(max(math.exp(rng.uniform(math.log(low), math.log(high))), low), high))
        # each whole number owns the interval up to the next, so that both ends are as likely as their width
        return min(int(math.exp(rng.uniform(math.log(low), math.log(high + 1)))), high)


def flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one with dotted keys; a mapping whose only key is a kind of dimension is a value."""
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and not (len(value) == 1 and next(iter(value)) in KINDS):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def read_space(space: Mapping[str, Any]) -> list[Dimension]:
    """Return the dimensions in the order they are written.

    Raises:
        ConfigError: one is none of the kinds, or its values cannot be drawn from; names it.
    """
    dimensions = [_dimension(key, value) for key, value in flatten(space).items()]
    twice = [d.key for i, d in enumerate(dimensions) if d.key in {e.key for e in dimensions[:i]}]
    if twice:
        raise ConfigError(f"space.{twice[0]} is written twice; give it once")
    return dimensions


def grid(dimensions: list[Dimension]) -> Iterator[dict[str, Any]]:
    """Yield every combination of choices; the last dimension changes first."""
    for values in product(*(d.values for d in dimensions)):
        yield {d.key: value for d, value in zip(dimensions, values, strict=True)}


def grid_size(dimensions: list[Dimension]) -> int:
    """Return how many combinations of choices there are."""
    return math.prod(len(d.values) for d in dimensions)


def random_point(dimensions: list[Dimension], seed: int, number: int) -> dict[str, Any]:
    """Return the point of trial `number`: the same for the same seed, whatever was drawn before."""
    rng = np.random.default_rng([seed, number])
    return {d.key: d.draw(rng) for d in dimensions}


def _dimension(key: str, value: Any) -> Dimension:
    parent, _, last = key.rpartition(".")
    if last in KINDS and parent:  # typed as space.model.dim.choice=[32,64]
        key, value = parent, {last: value}
    if isinstance(value, list):
        value = {"choice": value}
    kind = next(iter(value)) if isinstance(value, Mapping) and len(value) == 1 else None
    if kind not in KINDS:
        raise ConfigError(
            f"space.{key}: expected one of {', '.join(f'{{{k}: [...]}}' for k in KINDS)}, or a list of choices, "
            f"got {value!r}"
        )
    values = value[kind]
    if not isinstance(values, list) or not values:
        raise ConfigError(f"space.{key}: expected {{{kind}: [...]}} with at least one value, got {values!r}")
    if kind == "choice":
        if len({repr(v) for v in values}) < len(values):
            raise ConfigError(f"space.{key}: a value stands twice in {values}")
        return Dimension(key, kind, values)
    numbers = int if kind in ("integers", "log_integers") else (int, float)
    if len(values) != 2 or any(isinstance(v, bool) or not isinstance(v, numbers) for v in values):
        what = "whole numbers" if numbers is int else "numbers"
        raise ConfigError(f"space.{key}: {kind} needs two {what}, the lowest and the highest, got {values}")
    low, high = values
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"space.{key}: {kind} needs the lower number first, got {values}")
    if kind.startswith("log_") and low <= 0:
        raise ConfigError(f"space.{key}: {kind} needs numbers above 0, got {values}")
    return Dimension(key, kind, values)
