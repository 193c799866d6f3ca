"""trivago: which of 25 listed hotels people click out to; how much lower places are looked at.

A hotel stands first because the site expects it to be wanted, so clicks by position mix being seen with being good.
Three things are done about it: searches in which the clicked hotel had been touched or named before are left out (they
are no choice from the list); the curve is read from lists whose order the *person* chose (by price, distance or
rating), where the site's guess has no part; and in those the pull of the price (beside the list's mean) and of the
hotel itself (over all lists that show it) are estimated beside it.

    P(click on place k of a list) = exp(e_k + b * log price_k + g_hotel_k) / sum over the list

a conditional logit: the position-based model given that one click happened. exp(e_k - e_0) is the examination of
place k beside that of place 0. The curve is then made monotone (least squares on logs, weighted by clicks).

Source: McFadden (1974), Conditional logit analysis; Craswell et al. (2008), WSDM (position-based examination).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from scipy import optimize
from threadpoolctl import threadpool_limits

from playbill.world.fitting.found import Estimate, Found, Sample

DATA = "trivago-100k"
PLACES = 25
CHOSEN_ORDERS = ("Sort by Price", "Focus on Distance", "Sort By Distance", "Sort By Rating", "Focus on Rating")
HOTEL_SD = 0.6
"""Of the hotels' own log-odds: the value of 0.01, 0.3, 0.6, 1, 1.5, 2.5 that predicts held-out lists best (a fifth of
the lists of the site's own order: mean log-likelihood -2.4311 against -2.4324 at 0.01 and -2.6354 at 2.5)."""


@dataclass(slots=True)
class Lists:
    """Lists that were clicked, rows laid end to end.

    Attributes:
        length: [n] int64, places of each list.
        clicked: [n] int64, the place that was clicked.
        hotel: [rows] int64, 0-based.
        log_price: [rows] float64, less the list's mean.
    """

    length: np.ndarray
    clicked: np.ndarray
    hotel: np.ndarray
    log_price: np.ndarray

    def take(self, rows: np.ndarray) -> Lists:
        """Return these lists only, repeated where an index is."""
        start = np.cumsum(self.length) - self.length
        length = self.length[rows]
        flat = np.repeat(start[rows] - (np.cumsum(length) - length), length) + np.arange(length.sum())
        return Lists(length, self.clicked[rows], self.hotel[flat], self.log_price[flat])


def fit(folder: Path, seed: int, draws: int = 60) -> Found:
    """Estimate the examination curve; `seed` is of the bootstrap over lists, of so many `draws`."""
    clickouts = read(folder)
    chosen, own = (_lists(clickouts.filter(pl.col("chosen_order") == flag)) for flag in (True, False))
    raw, price = examination(chosen)
    curve = monotone(raw, np.bincount(chosen.clicked, minlength=PLACES)[:PLACES])
    rng = np.random.default_rng(seed)
    curves = []
    for _ in range(draws):
        again = chosen.take(rng.integers(0, len(chosen.length), len(chosen.length)))
        drawn, _ = examination(again)
        curves.append(monotone(drawn, np.bincount(again.clicked, minlength=PLACES)[:PLACES]))
    low, high = np.quantile(curves, [0.025, 0.975], axis=0)
    confounded, _ = examination(own)
    caution = "people who sort by price may look further down than others; beyond that see clicks by position"
    found = Found(data=DATA)
    found.estimates.append(
        Estimate(
            parameter="clicks.examination",
            name="examination by position",
            value=[round(float(v), 4) for v in curve],
            data=DATA,
            n=len(chosen.length),
            of="lists",
            method="conditional logit of position, price and hotel over lists whose order the person chose, "
            "made monotone; bootstrap over lists",
            caution=caution,
        )
    )
    for place in (1, 2, 5, 11):
        found.estimates.append(
            Estimate(
                parameter="",
                name=f"examination of position {place}",
                value=float(curve[place]),
                low=float(low[place]),
                high=float(high[place]),
                data=DATA,
                n=len(chosen.length),
                of="lists",
                method="as the whole curve",
                caution=f"by the site's own order, confounded with relevance: {confounded[place]:.3f}",
            )
        )
    counts = np.zeros((len(chosen.length), PLACES), np.int64)
    counts[np.arange(len(chosen.length)), chosen.clicked] = 1
    found.samples["clicks by position"] = Sample(
        values=counts,
        distance="total variation",
        about="a list whose order the person chose; share of clicks by position",
    )
    found.curves["examination"] = {
        "curve": curve,
        "low": low,
        "high": high,
        "unsmoothed": raw,
        "confounded": confounded,
    }
    found.notes.append(
        f"{len(chosen.length)} lists in an order the person chose, {len(own.length)} in the site's own; "
        f"log-odds of a click for one unit of log price in the chosen orders: {price:.2f}"
    )
    return found


def read(folder: Path) -> pl.DataFrame:
    """Return first choices from a list: columns impressions, prices (lists), place, chosen_order."""
    session = pl.col("session_id")
    actions = pl.read_parquet(
        folder / "sessions.parquet",
        columns=["session_id", "step", "action_type", "reference", "current_filters", "impressions", "prices"],
    )
    named = pl.col("action_type").str.starts_with("interaction item") | pl.col("action_type").is_in(
        ["search for item", "clickout item"]
    )
    touched = (
        actions.filter(named)
        .group_by("session_id", "reference", maintain_order=True)
        .agg(pl.col("step").min().alias("touched"))
    )
    searched = (
        actions.filter(pl.col("action_type") == "search for item")
        .group_by("session_id", maintain_order=True)
        .agg(pl.col("step").min().alias("searched"))
    )
    clickouts = (
        actions.filter(pl.col("action_type") == "clickout item")
        .join(touched, on=["session_id", "reference"], how="left")
        .join(searched, on="session_id", how="left")
        .filter(
            (pl.col("touched").fill_null(2**62) >= pl.col("step"))
            & (pl.col("searched").fill_null(2**62) >= pl.col("step"))
        )
        .sort("session_id", "step")
        .unique(["session_id", "impressions"], keep="first", maintain_order=True)
        .with_columns(pl.col("impressions").str.split("|"), pl.col("prices").str.split("|").cast(pl.List(pl.Float64)))
        .with_row_index("list")
    )
    place = (
        clickouts.select("list", "reference", "impressions")
        .explode("impressions", empty_as_null=True)
        .with_columns(pl.int_range(pl.len()).over("list").alias("place"))
        .filter(pl.col("impressions") == pl.col("reference"))
        .group_by("list", maintain_order=True)
        .agg(pl.col("place").min())
    )
    order = pl.any_horizontal(
        pl.col("current_filters").fill_null("").str.contains(o, literal=True) for o in CHOSEN_ORDERS
    )
    return (
        clickouts.join(place, on="list", maintain_order="left")
        .with_columns(order.alias("chosen_order"))
        .filter((pl.col("impressions").list.len() > 1) & (pl.col("place") < PLACES))
        .select(session, "impressions", "prices", "place", "chosen_order")
    )


def examination(lists: Lists) -> tuple[np.ndarray, float]:
    """Return each place's examination beside place 0, [PLACES] float64, and the log-odds of one unit of log price.

    Maximises the conditional likelihood with a normal penalty on hotels (sd HOTEL_SD) and a weak one on places
    (sd 10), which keeps a place that nobody clicked finite.
    """
    count = len(lists.length)
    of_list = np.repeat(np.arange(count), lists.length)
    start = np.cumsum(lists.length) - lists.length
    place = np.arange(len(of_list)) - start[of_list]
    chosen = start + lists.clicked
    hotels, hotel = np.unique(lists.hotel, return_inverse=True)

    def minus(theta: np.ndarray) -> tuple[float, np.ndarray]:
        seen, price, own = theta[: PLACES - 1], theta[PLACES - 1], theta[PLACES:]
        score = np.concatenate([[0.0], seen])[place] + price * lists.log_price + own[hotel]
        top = np.maximum.reduceat(score, start)
        weight = np.exp(score - top[of_list])
        total = np.add.reduceat(weight, start)
        rest = weight / total[of_list]
        rest[chosen] -= 1
        value = -np.sum(score[chosen] - top - np.log(total)) + own @ own / (2 * HOTEL_SD**2) + seen @ seen / 200
        slope = np.concatenate(
            [
                np.bincount(place, rest, minlength=PLACES)[1:] + seen / 100,
                [rest @ lists.log_price],
                np.bincount(hotel, rest, minlength=len(hotels)) + own / HOTEL_SD**2,
            ]
        )
        return float(value), slope

    # vectors of some 15,000 numbers: threads that share them wait for each other up to fifty times as long as they add
    with threadpool_limits(1, "blas"):
        best = optimize.minimize(minus, np.zeros(PLACES + len(hotels)), jac=True, method="L-BFGS-B")
    return np.exp(np.concatenate([[0.0], best.x[: PLACES - 1]])), float(best.x[PLACES - 1])


def monotone(curve: np.ndarray, clicks: np.ndarray) -> np.ndarray:
    """Return the falling curve nearest in logs, each place weighted by its clicks, with place 0 at 1."""
    fitted = optimize.isotonic_regression(np.log(curve), weights=clicks + 0.5, increasing=False).x
    return np.asarray(np.exp(fitted - fitted[0]))


def _lists(clickouts: pl.DataFrame) -> Lists:
    length = clickouts["impressions"].list.len().to_numpy().astype(np.int64)
    rows = clickouts.select("impressions", "prices").explode("impressions", "prices", empty_as_null=True)
    _, hotel = np.unique(rows["impressions"].to_numpy(), return_inverse=True)
    log_price = np.log(np.maximum(rows["prices"].to_numpy(), 1.0))
    of_list = np.repeat(np.arange(len(length)), length)
    log_price -= (np.bincount(of_list, log_price) / length)[of_list]
    return Lists(length, clickouts["place"].to_numpy().astype(np.int64), hotel.astype(np.int64), log_price)
