"""Upworthy: randomised tests of headlines and images; how much creatives of one story differ.

Every test split one story's traffic at random among packages that differ in headline, image or both. The true spread
between packages of a test is what a creative's title or image does to a whole audience. Single people were not logged,
so how much *persons* differ in what draws them cannot be seen here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from playbill.world.fitting.found import Estimate, Found, Sample
from playbill.world.fitting.spread import Spread, log_odds_spread, spread_estimate

DATA = "upworthy-exploratory"
BROKEN_WEEKS = (201325, 201402)
"""Weeks whose randomisation the archive's authors withdrew (2013-06-25 to 2014-01-10)."""
ITEMS = "spread over items"
FEW_CLICKS = (
    "the middling package has 31 to 48 clicks, at which the estimator reads some 2 % too low (made-up logs); with the "
    "noise taken from a test's pooled rate it gives 7 to 8 % more here; the interval knows of neither"
)
MOST_PACKAGES = 8
"""Tests with more packages than a world's item has artworks are estimated from, and not compared with."""


def fit(folder: Path, aspects: int, seed: int) -> Found:
    """Estimate how much titles and images move clicks.

    Args:
        folder: holds packages.parquet.
        aspects: length of the world's taste vectors; the scale of `clicks.title_taste` depends on it.
        seed: of the bootstrap.
    """
    packages = read(folder)
    spreads = {kind: _spread(packages, kind, seed) for kind in ("image", "headline", "both", "neither")}
    clicks, shown = packages["clicks"].to_numpy(), packages["impressions"].to_numpy()
    found = Found(data=DATA)
    method = "Paule-Mandel on log-odds within tests, bootstrap over tests"
    for kind, spread in spreads.items():
        found.estimates.append(_estimate("", f"spread between packages, {kind} differs", spread, method))
    both = spreads["both"]
    found.estimates.append(
        _estimate(
            "catalogue.pull_sd", "creatives' own log-odds", both, f"{method}; tests in which headline and image differ"
        )
    )
    # a unit vector of D aspects has components of sd 1/sqrt(D): title_taste * sqrt(1/D) is the effect's sd over people
    for kind, parameter in (("headline", "clicks.title_taste"), ("image", "clicks.image_taste")):
        scaled = spreads[kind]
        root = aspects**0.5
        found.estimates.append(
            Estimate(
                parameter=parameter,
                name=f"{kind} effect, personal part",
                value=scaled.sd * root,
                low=scaled.low * root,
                high=scaled.high * root,
                data=DATA,
                n=scaled.groups,
                of="tests",
                method=f"sd between packages of which only the {kind} differs, times sqrt({aspects} aspects)",
                caution="the log has no persons: that an effect differs between people as much as it does between "
                f"packages is assumed; that a {kind} has this size against the other is measured. "
                f"Besides, {FEW_CLICKS}",
            )
        )
    rate = float(clicks.sum() / shown.sum())
    by_test = packages.group_by("clickability_test_id", maintain_order=True).agg(
        pl.col("clicks").sum(), pl.col("impressions").sum(), pl.col("test_week").first()
    )
    # within a week: the site's own rate moved over the years
    week = by_test["test_week"].to_numpy().astype(np.int64)
    stories = log_odds_spread(by_test["clicks"].to_numpy(), by_test["impressions"].to_numpy(), week, seed)
    found.estimates.append(
        spread_estimate(
            stories,
            parameter="",
            name=ITEMS,
            data=DATA,
            n=stories.units,
            of="stories",
            method="Paule-Mandel on log-odds of a test's packages together, within weeks; Q-profile",
        )
    )
    low, high = _ratio_interval(by_test["clicks"].to_numpy(), by_test["impressions"].to_numpy(), seed)
    found.estimates.append(
        Estimate(
            parameter="",
            name="click rate",
            value=rate,
            low=low,
            high=high,
            data=DATA,
            n=by_test.height,
            of="tests",
            method="clicks over impressions, bootstrap over tests",
        )
    )
    found.samples["creatives"] = Sample(
        values=_residuals(packages),
        distance="kolmogorov-smirnov",
        about="log-odds of a package less its test's mean, packages differing in headline and image",
    )
    kept, tests = _compared(packages)
    found.curves["creatives"] = {
        "test": tests,
        "clicks": kept["clicks"].to_numpy(),
        "impressions": kept["impressions"].to_numpy(),
    }
    found.notes.append(
        f"weeks {BROKEN_WEEKS[0]}-{BROKEN_WEEKS[1]} left out: their randomisation was withdrawn by the log's authors"
    )
    return found


def read(folder: Path) -> pl.DataFrame:
    """Return the packages of sound weeks, with `kind`: what differs within the test."""
    test = pl.col("clickability_test_id")
    packages = pl.read_parquet(
        folder / "packages.parquet",
        columns=["clickability_test_id", "headline", "eyecatcher_id", "impressions", "clicks", "test_week"],
    ).filter(~pl.col("test_week").is_between(*BROKEN_WEEKS) & (pl.col("impressions") >= pl.col("clicks")))
    headlines, images = pl.col("headline").n_unique().over(test) > 1, pl.col("eyecatcher_id").n_unique().over(test) > 1
    kind = (
        pl.when(headlines & images)
        .then(pl.lit("both"))
        .when(headlines)
        .then(pl.lit("headline"))
        .when(images)
        .then(pl.lit("image"))
        .otherwise(pl.lit("neither"))
    )
    return packages.with_columns(kind.alias("kind")).filter(pl.len().over(test) > 1)


def within_residuals(clicks: np.ndarray, shown: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return each unit's log-odds less the mean of its test's units: [n] float64."""
    y = np.log((clicks + 0.5) / (shown - clicks + 0.5))
    return np.asarray(y - (np.bincount(test, y) / np.maximum(np.bincount(test), 1))[test])


def _compared(packages: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray]:
    """Return the packages that a world is held against, and each one's test as 0, 1, ..."""
    test = pl.col("clickability_test_id")
    kept = packages.filter((pl.col("kind") == "both") & (pl.len().over(test) <= MOST_PACKAGES))
    _, tests = np.unique(kept["clickability_test_id"].to_numpy(), return_inverse=True)
    return kept, tests


def _residuals(packages: pl.DataFrame) -> np.ndarray:
    kept, test = _compared(packages)
    return within_residuals(kept["clicks"].to_numpy(), kept["impressions"].to_numpy(), test)


def _spread(packages: pl.DataFrame, kind: str, seed: int) -> Spread:
    kept = packages.filter(pl.col("kind") == kind)
    _, test = np.unique(kept["clickability_test_id"].to_numpy(), return_inverse=True)
    return log_odds_spread(kept["clicks"].to_numpy(), kept["impressions"].to_numpy(), test, seed)


def _estimate(parameter: str, name: str, spread: Spread, method: str) -> Estimate:
    return spread_estimate(
        spread,
        parameter=parameter,
        name=name,
        data=DATA,
        n=spread.groups,
        of="tests",
        method=method,
        caution=FEW_CLICKS,
    )


def _ratio_interval(top: np.ndarray, bottom: np.ndarray, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(top), np.full(len(top), 1 / len(top)), 400)
    low, high = np.quantile((draws @ top) / (draws @ bottom), [0.025, 0.975])
    return float(low), float(high)
