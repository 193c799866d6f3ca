"""How far apart two windows are in one column, and how far chance alone would take them.

A column becomes shares of cells: a category each, or intervals between quantiles. With p the shares before and q after:

    numbers      largest gap between the two distribution functions (Kolmogorov-Smirnov, at up to 64 quantiles)
    categories   half the sum of |q - p| (total variation): the share of rows that would have to move
    rates        |q - p| of the share of ones

Rows of one person go together, and many people stand in both windows. So chance is read from people: each person's
contribution to q - p (its influence) keeps or changes its sign at random, and the same distance is taken of the sum.
This needs no independence of the windows, no equal length, and no independence of a person's rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import polars as pl

from playbill.errors import MeasureError

_Values = np.ndarray | pl.Series
_MOST_CELLS = 64
_FEWEST_ROWS = 20  # of a category with a cell of its own: of fewer, chance is not normal
_MOST_GROUPS = 2_000  # people beyond that are put together at random, which costs nothing but bounds the work


class Kind(Enum):
    """What a column holds."""

    NUMBER = "number"
    CATEGORY = "category"
    RATE = "rate"


@dataclass(slots=True)
class Sample:
    """A column in one window.

    Attributes:
        values: [N] float64 numbers (NaN where missing), 0 or 1 for a rate; or [N] text (missing: None or null), which a
            polars series holds in far less room than an array of objects.
        person: [N] int64, whose each row is; the same person has one code in both windows.
    """

    values: np.ndarray | pl.Series
    person: np.ndarray


@dataclass(slots=True)
class Distance:
    """A distance and what is known of it. The interval holds for the worst cell, so it is never too narrow for others.

    Attributes:
        value: 0..1.
        half: of the interval value +- half at the level asked for: the distance that chance alone stays below.
        p_value: how often chance alone goes as far.
        cells: labels of the cells.
        before, after: [C] shares.
    """

    value: float
    half: float
    p_value: float
    cells: list[str]
    before: np.ndarray
    after: np.ndarray

    @property
    def psi(self) -> float:
        """Population stability index: sum of (q - p) log(q / p), empty cells as if they had one row in 10,000."""
        p, q = np.maximum(self.before, 1e-4), np.maximum(self.after, 1e-4)
        return float(((q - p) * np.log(q / p)).sum())


def check_sample(name: str, sample: Sample) -> None:
    """Raise MeasureError where a window of a column has no rows, or rows that do not fit together."""
    shapes = sample.values.shape, sample.person.shape
    if len(shapes[0]) != 1 or shapes[0] != shapes[1]:
        raise MeasureError(f"{name}: values and person are parallel [N] arrays, got {shapes[0]} and {shapes[1]}")
    if not len(sample.values):
        raise MeasureError(f"{name}: a window has no rows; move or widen it")


def distance(
    kind: Kind, before: Sample, after: Sample, *, level: float = 0.95, resamples: int = 1999, seed: int = 0
) -> Distance:
    """Return the distance between two windows in one column, with its interval and p value.

    Args:
        kind: of the column.
        before, after: its rows.
        level: of the interval.
        resamples: R; the smallest possible p value is 1 / (R + 1).
        seed: of the signs; columns with the same people and seed share their draws.
    Raises:
        MeasureError: no rows, or a rate that is not 0 or 1.
    Source:
        Wild bootstrap over clusters, Wu 1986 and Cameron, Gelbach and Miller 2008, of an empirical process
        (van der Vaart and Wellner 1996, ch. 2.9).
    """
    check_sample("before", before)
    check_sample("after", after)
    labels, cells_before, cells_after = _cells(kind, before.values, after.values)
    num_people = int(max(before.person.max(), after.person.max())) + 1
    group = np.arange(num_people)
    if num_people > _MOST_GROUPS:
        group = np.random.default_rng([seed, 1]).permutation(num_people) % _MOST_GROUPS
    groups = min(num_people, _MOST_GROUPS)
    p, influence_before = _shares(cells_before, group[before.person], groups, len(labels))
    q, influence_after = _shares(cells_after, group[after.person], groups, len(labels))
    influence = influence_after - influence_before
    there = influence.any(1)
    signs = np.random.default_rng([seed, 2]).integers(0, 2, size=(resamples, groups), dtype=np.int8) * 2 - 1
    number = max(2, int(there.sum()))
    chance = signs[:, there].astype(np.float32) @ influence[there].astype(np.float32) * np.sqrt(number / (number - 1))
    found = float(_norm(kind, (q - p)[None])[0])
    by_chance = _norm(kind, chance.astype(np.float64))
    return Distance(
        value=found,
        half=float(np.quantile(by_chance, level)),
        p_value=float((1 + (by_chance >= found - 1e-12).sum()) / (1 + resamples)),
        cells=labels,
        before=p,
        after=q,
    )


def _norm(kind: Kind, difference: np.ndarray) -> np.ndarray:
    """Return the distance that each row [R, C] of differences of shares amounts to."""
    if kind is Kind.NUMBER:
        # the last cell holds what is missing: it counts as the share that is below no number
        reached: np.ndarray = np.abs(np.cumsum(difference[:, :-1], axis=1)).max(1)
        return reached
    moved: np.ndarray = np.abs(difference).sum(1) / 2
    return moved


def _shares(cells: np.ndarray, group: np.ndarray, groups: int, num_cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of each cell, [C], and what it changes by when a group is left out, [G, C].

    Leaving out is the safe form: it gives the few very active people the weight that they have in small windows.
    """
    counts = np.bincount(group * num_cells + cells, minlength=groups * num_cells).reshape(groups, num_cells)
    rows, total = counts.sum(1, keepdims=True), len(cells)
    share = counts.sum(0) / total
    return share, (counts - rows * share) / np.maximum(total - rows, 1)


def _cells(kind: Kind, before: _Values, after: _Values) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return labels of the cells and the cell of each row of both windows."""
    if kind is Kind.CATEGORY:
        return _named_cells(before, after)
    before, after = np.asarray(before), np.asarray(after)
    pooled = np.concatenate([before, after]).astype(np.float64)
    if kind is Kind.RATE:
        bad = np.flatnonzero((pooled != 0) & (pooled != 1))
        if len(bad):
            raise MeasureError(f"a rate is of zeros and ones; {len(bad):,} rows are not, first {pooled[bad[0]]}")
        return ["no", "yes"], before.astype(np.int64), after.astype(np.int64)
    known = pooled[~np.isnan(pooled)]
    edges = (
        np.unique(np.quantile(known, np.linspace(0, 1, _MOST_CELLS + 1)[1:], method="inverted_cdf"))
        if len(known)
        else known
    )
    cell = np.where(np.isnan(pooled), len(edges), np.searchsorted(edges, pooled, side="left"))
    labels = [f"<= {e:.4g}" if i == 0 else f"{edges[i - 1]:.4g} < x <= {e:.4g}" for i, e in enumerate(edges)] + [
        "missing"
    ]
    return labels, cell[: len(before)], cell[len(before) :]


def _named_cells(before: _Values, after: _Values) -> tuple[list[str], np.ndarray, np.ndarray]:
    # the dictionary of texts of polars is far faster than numpy's sort of objects
    pooled = pl.concat([pl.Series("value", v, pl.String) for v in (before, after)])
    counts = pooled.drop_nulls().value_counts(sort=True).sort(["count", "value"], descending=[True, False])
    names = counts.filter(pl.col("count") >= _FEWEST_ROWS)["value"][: _MOST_CELLS - 2].to_list()
    codes = pl.DataFrame({"value": names, "cell": np.arange(len(names))}, schema={"value": pl.String, "cell": pl.Int64})
    cell = pl.DataFrame({"value": pooled}).join(codes, on="value", how="left", maintain_order="left")["cell"]
    other = pl.Series(np.where(pooled.is_null().to_numpy(), len(names) + 1, len(names)))
    found = cell.fill_null(other).to_numpy()
    return [*names, "other", "missing"], found[: len(before)], found[len(before) :]
