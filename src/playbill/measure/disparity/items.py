"""Do groups of items, such as providers, get the exposure that their share of the eligible items would give them?"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, sqrt
from pathlib import Path

import numpy as np
import polars as pl

from playbill.measure.disparity.log import item_column, rows_of, weight_of
from playbill.measure.disparity.parity import Comparison
from playbill.measure.disparity.settings import DisparityQuestion, Measure
from playbill.measure.people import WHO, with_who
from playbill.measure.scan import columns_of, refuse, scan

ELIGIBLE = "share of eligible items"


def item_exposure(question: DisparityQuestion, tables: Path, level: float) -> tuple[list[Comparison], list[str], str]:
    """Return one comparison for each group of items, warnings, and what is missing; `parity.correct` then flags.

    A group's share of impressions stands against its share of the items that were eligible when each impression was
    made: published by that day, and not marked unavailable. Everything an account or a session was shown is one unit.

    Raises:
        MeasureError: an item shown that is not in items, or shown to nobody; names the count and the first rows.
    """
    rows = rows_of(tables, "decisions", ["kind", "chosen", "at"], "kind", "item", ["user_id", "session_id", "position"])
    if isinstance(rows, str):
        return [], [], rows
    items = _items(tables, question.item_column)
    if isinstance(items, str):
        return [], [], items
    warnings: list[str] = []
    unnamed = items[question.item_column].null_count()
    if unnamed:
        warnings.append(f"items.{question.item_column} is empty for {unnamed:,} of {len(items):,} items: a group '?'")
    items = items.with_columns(pl.col(question.item_column).cast(pl.String).fill_null("?").alias("group"))
    names = sorted(items["group"].unique().to_list())
    number = {name: g for g, name in enumerate(names)}
    group = np.asarray(items["group"].replace_strict(number, return_dtype=pl.Int64))
    place = {item: i for i, item in enumerate(items["item_id"].to_list())}
    shown = rows["chosen"].cast(pl.String).replace_strict(place, default=None, return_dtype=pl.Int64)
    rows = rows.with_columns(shown.alias("shown"))
    refuse(rows, pl.col("shown").is_null(), "decisions.chosen", "chosen", "an item shown must stand in items")
    weight = weight_of(rows, question.position_weighted).to_numpy()
    unit = with_who(rows, "decisions")[WHO].rank("dense").cast(pl.Int64).to_numpy() - 1
    units = int(unit.max()) + 1
    of_group = group[shown.to_numpy()]
    weights = np.bincount(unit, weight, units)
    eligible = _eligible_shares(items, group, len(names), rows["at"])
    found = []
    for g, name in enumerate(names):
        observed = np.bincount(unit, weight * (of_group == g), units)
        fair = np.bincount(unit, weight * eligible(g), units)
        found.append(judge_items(question, name, observed, fair, weights, level))
    return found, warnings, ""


def _items(tables: Path, column: str) -> pl.DataFrame | str:
    items = item_column(tables, column)
    if isinstance(items, str):
        return items
    there = columns_of(tables, "items")
    more = [c for c in ("published_at", "available") if c in there]
    if more:
        items = items.hstack(scan(tables, "items", more).select(more).collect())
    if "available" in more:
        items = items.with_columns(pl.col("available").fill_null(True))
    else:
        items = items.with_columns(pl.lit(True).alias("available"))
    return items


def _eligible_shares(items: pl.DataFrame, group: np.ndarray, groups: int, at: pl.Series) -> Callable[[int], np.ndarray]:
    """Return a function: group -> [rows] float64, its share of the items eligible on the day of each impression."""
    day = at.dt.epoch("d").to_numpy()
    days, index = np.unique(day, return_inverse=True)
    published = np.full(len(items), np.iinfo(np.int64).min)
    if "published_at" in items.columns:
        given = items["published_at"].dt.epoch("d")
        published[given.is_not_null().to_numpy()] = given.drop_nulls().to_numpy()
    usable = items["available"].to_numpy()
    counts = np.stack(
        [np.searchsorted(np.sort(published[usable & (group == g)]), days, side="right") for g in range(groups)]
    )
    every = np.maximum(counts.sum(0), 1)

    def shares(g: int) -> np.ndarray:
        by_day: np.ndarray = counts[g] / every
        return by_day[index]

    return shares


def judge_items(
    question: DisparityQuestion,
    name: str,
    observed: np.ndarray,
    fair: np.ndarray,
    weights: np.ndarray,
    level: float,
) -> Comparison:
    """Return the comparison of one group of items.

    Args:
        question: names the column of groups and the fewest people that are judged.
        name: of the group.
        observed: [units] float64, weighted impressions of the group's items by person or session.
        fair: [units] float64, what they would be at the group's share of the eligible items.
        weights: [units] float64, weighted impressions of all items.
        level: of the intervals.
    """
    from scipy.special import ndtri
    from scipy.stats import norm

    units, whole = len(weights), float(weights.sum())
    share, expected = float(observed.sum() / whole), float(fair.sum() / whole)

    def error(residual: np.ndarray) -> float:
        return float(np.sqrt(residual @ residual * units / max(units - 1, 1)) / whole)

    z = float(ndtri((1 + level) / 2))
    own = error(observed - share * weights)
    one = Comparison(
        measure=Measure.ITEM_EXPOSURE.value,
        family=question.item_column,
        group=f"{question.item_column}={name}",
        reference=ELIGIBLE,
        people=units,
        opportunities=whole,
        rate=share,
        rate_low=share - z * own,
        rate_high=share + z * own,
        reference_rate=expected,
    )
    if units < question.min_people:
        one.not_judged = f"{units:,} people were shown anything, fewer than {question.min_people:,}"
        return one
    if expected * whole < 5:
        one.not_judged = f"{expected * whole:.2g} impressions expected, fewer than 5"
        return one
    spread = error((observed - fair) - (share - expected) * weights)
    # what a group varies by grows with its share, so it is taken at its own and carried to the one that is tested:
    # taken as found it is smallest where by chance little was shown, and the rarest groups would differ too often
    null = sqrt(expected * (1 - expected) / whole)
    if 0 < share < 1:
        ratio = expected * (1 - expected) / (share * (1 - share))
        null = error(observed - fair * (share / expected)) * sqrt(ratio)
    one.difference = share - expected
    one.low, one.high = one.difference - z * spread, one.difference + z * spread
    one.p_value = float(2 * norm.sf(abs(one.difference) / null)) if null > 0 else 1.0
    one.detectable = (z + float(ndtri(0.8))) * null
    if share > 0:
        one.ratio = share / expected
        one.ratio_low, one.ratio_high = (one.ratio * exp(s * z * own / share) for s in (-1, 1))
    return one
