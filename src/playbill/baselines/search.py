"""From coarse to fine: a search over the few numbers of a baseline, each try a fit that validation judges.

Every number has a few values to begin with. They are all tried, one number after the other, the others standing where
they were best. Then the values move closer together round the best, half the distance each time, and where the best
stands at an end the values go on beyond it. It finds what a grid of the last distance would find wherever one number's
best does not hang much on the others', in dozens of tries instead of thousands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

Choice = dict[str, float]


class Scale(Enum):
    """How the values of a number are spaced."""

    LINEAR = "linear"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class Dimension:
    """One number of a baseline.

    Attributes:
        name: as its fit calls it.
        values: to begin with; a single one stays as it is.
        start: of them, where the search begins; the nearest is taken.
        scale: whether distances are differences or ratios.
        low, high: values beyond are never tried.
        whole: only whole numbers.
        fixed: only the values given are tried, nothing between or beyond.
    """

    name: str
    values: Sequence[float]
    start: float
    scale: Scale = Scale.LINEAR
    low: float = 0.0
    high: float = math.inf
    whole: bool = False
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a search.

    Attributes:
        choice: the best; the first of equals.
        figure: what it reached; 0 where nothing was to be chosen.
        tries: figures asked for.
    """

    choice: Choice
    figure: float
    tries: int


def search(
    dimensions: Sequence[Dimension], figure: Callable[[Choice], float], refine: int = 2, most_tries: int = 100
) -> Found:
    """Return the choice with the highest figure that was found.

    Args:
        dimensions: in the order in which they are searched.
        figure: quality of a choice, higher is better; asked once for each.
        refine: how often the distance is halved; 0 tries the given values alone.
        most_tries: the search ends there.
    """
    points = {d.name: sorted(set(d.values)) for d in dimensions}
    best: Choice = {d.name: min(points[d.name], key=lambda v: abs(v - d.start)) for d in dimensions}
    known: dict[tuple[float, ...], float] = {}

    def ask(choice: Choice) -> float:
        key = tuple(choice[d.name] for d in dimensions)
        if key not in known:
            if len(known) >= most_tries:
                return -math.inf
            known[key] = figure(choice)
        return known[key]

    reached = ask(best)
    for level in range(refine + 1):
        for dimension in dimensions:
            name, fixed = dimension.name, dimension.fixed or len(dimension.values) == 1
            if level and not fixed:
                points[name] = sorted({*points[name], *_between(dimension, points[name])})
            around = points[name] if not level else _around(points[name], best[name])
            for value in around:
                if (found := ask(best | {name: value})) > reached:
                    best, reached = best | {name: value}, found
            while refine and not fixed:  # uphill, beyond the ends where it leads there
                beside = _around(_stretched(dimension, points[name]), best[name])
                points[name] = sorted({*points[name], *beside})
                found, value = max((ask(best | {name: v}), v) for v in beside)
                if not found > reached:
                    break
                best, reached = best | {name: value}, found
    return Found(best, reached, len(known))


def _between(dimension: Dimension, points: Sequence[float]) -> list[float]:
    middles = [_middle(dimension, low, high) for low, high in zip(points, points[1:], strict=False)]
    return [float(round(m)) if dimension.whole else m for m in middles]


def _middle(dimension: Dimension, low: float, high: float) -> float:
    geometric = dimension.scale is Scale.LOG and low > 0
    return float(f"{math.sqrt(low * high) if geometric else (low + high) / 2:.4g}")


def _stretched(dimension: Dimension, points: list[float]) -> list[float]:
    """Return the points with one more at either end, as far from it as its neighbour, where that is allowed."""
    first, second, last, before = points[0], points[1], points[-1], points[-2]
    if dimension.scale is Scale.LOG:
        low = first * first / second
        high = last * last / before if before > 0 else 2 * last
    else:
        low, high = 2 * first - second, 2 * last - before
    low, high = (float(f"{min(max(v, dimension.low), dimension.high):.4g}") for v in (low, high))
    if dimension.whole:
        low, high = float(round(low)), float(round(high))
    return sorted({low, *points, high})


def _around(points: list[float], value: float) -> list[float]:
    at = points.index(value)
    return points[max(at - 1, 0) : at + 2]


def as_numbers(choice: Mapping[str, float]) -> dict[str, float | int]:
    """Return a choice with whole numbers as such, as a fit takes them and as they are written."""
    return {name: int(value) if float(value).is_integer() else value for name, value in choice.items()}
