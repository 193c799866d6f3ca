"""The Complete Journey: a year of purchases of 2,469 households, and coupon campaigns sent to 1,559 of them.

Campaigns went to chosen households, so what a coupon *changes* cannot be read here: only how often sent coupons are
redeemed, how much households differ in it, and how often they shop.

Times are UTC; the shops follow the American east coast, which puts the fewest trips at 3 in the morning.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from scipy import optimize, stats
from scipy.special import gammaln, logsumexp

from playbill.world.fitting.found import Estimate, Found, Sample
from playbill.world.parameters import Parameters

DATA = "complete-journey"
DAYS = 365
UTC_OFFSET_H = -5
DRAWS = 200


def fit(folder: Path, world: Parameters, seed: int) -> Found:
    """Estimate shopping activity, prices, and the answer to offers.

    Args:
        folder: holds transactions, campaigns, campaign_descriptions and coupon_redemptions.
        world: its kinds of buyers, which are assumed, and how far apart its mails are.
        seed: of the bootstraps.
    """
    found = Found(data=DATA)
    rng = np.random.default_rng(seed)
    lines = pl.read_parquet(
        folder / "transactions.parquet",
        columns=[
            *("household_id", "basket_id", "product_id", "quantity", "sales_value", "retail_disc"),
            "transaction_timestamp",
        ],
    )
    trips = (
        lines.group_by("household_id", maintain_order=True)
        .agg(pl.col("basket_id").n_unique().alias("trips"))["trips"]
        .to_numpy()
    )
    sd, margin = poisson_lognormal(trips)
    draws = rng.choice(trips, (DRAWS, len(trips))).mean(1) / DAYS
    caution = "a panel of frequent shoppers of one grocery chain; the size's `activity` scales it"
    found.estimates += [
        Estimate(
            parameter="population.activity_mean",
            name="shopping trips a day",
            value=float(trips.mean() / DAYS),
            low=float(np.quantile(draws, 0.025)),
            high=float(np.quantile(draws, 0.975)),
            data=DATA,
            n=len(trips),
            of="households",
            method="baskets over 365 days, bootstrap over households",
            caution=caution,
        ),
        Estimate(
            parameter="",
            name="spread of the log of trips",
            value=sd,
            low=sd - margin,
            high=sd + margin,
            data=DATA,
            n=len(trips),
            of="households",
            method="maximum likelihood of Poisson counts with log-normal means; Wald interval",
            caution="beside the spread of MovieLens, which sets population.activity_sd",
        ),
    ]
    _weekdays(found, lines)
    _prices(found, lines, rng)
    _offers(found, folder, world, rng)
    found.samples["purchases per person"] = Sample(
        values=trips.astype(np.float64),
        distance="wasserstein of logs",
        about="a household that bought at least once; purchases over the mean of such households",
    )
    return found


def poisson_lognormal(counts: np.ndarray) -> tuple[float, float]:
    """Return the standard deviation of log means behind Poisson counts, counted only where >= 1, and its half-width.

    counts ~ Poisson(exp(mu + sd * z)), z standard normal, given counts >= 1.

    Source: Bulmer (1974), Biometrics 30 (truncated Poisson log-normal); quadrature about each count's mode.
    """
    distinct, times = np.unique(counts, return_counts=True)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    log_weights = np.log(weights / weights.sum())

    def minus(theta: np.ndarray) -> float:
        mu, sd = theta[0], np.exp(theta[1])
        z = (np.log(np.concatenate([[0.3], distinct + 0.5])) - mu) / sd
        n = np.concatenate([[0.0], distinct])
        for _ in range(50):
            rate = np.exp(mu + sd * z)
            z += np.clip((sd * (n - rate) - z) / (sd * sd * rate + 1), -0.5, 0.5)
        width = 1 / np.sqrt(sd * sd * np.exp(mu + sd * z) + 1)
        at = z[:, None] + width[:, None] * nodes
        log_rate = mu + sd * at
        terms = n[:, None] * log_rate - np.exp(log_rate) - gammaln(n + 1)[:, None] - at**2 / 2 + nodes**2 / 2
        log_chance = logsumexp(terms + log_weights + np.log(width)[:, None], axis=1)
        return -float(times @ log_chance[1:] - times.sum() * np.log1p(-np.exp(log_chance[0])))

    start = np.array([np.mean(np.log(counts)), np.log(max(np.std(np.log(counts)), 0.1))])
    best = optimize.minimize(minus, start, method="BFGS")
    step = 1e-3
    bend = (minus(best.x + [0, step]) - 2 * best.fun + minus(best.x - [0, step])) / step**2
    sd = float(np.exp(best.x[1]))
    return sd, float(stats.norm.ppf(0.975)) * sd / bend**0.5


def redemption(
    campaigns: np.ndarray, redeemed: np.ndarray, shares: np.ndarray, bases: np.ndarray
) -> tuple[float, float, float]:
    """Return log-odds of redeeming for kind base 0, its spread within a kind over households, and its half-width.

    redeemed ~ Binomial(campaigns, sigmoid(base + bases[kind] + sd * z)) with kind drawn by `shares`: what households
    differ beyond the assumed kinds.

    Args:
        campaigns, redeemed: [households] int64.
        shares, bases: [kinds] float64, and the log-odds that a kind adds with an offer in hand.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    cells, times = np.unique(np.stack([campaigns, redeemed], 1), axis=0, return_counts=True)

    def minus(theta: np.ndarray) -> float:
        log_odds = theta[0] + bases[:, None] + np.exp(theta[1]) * nodes  # [kinds, nodes]
        no = np.logaddexp(0, log_odds)
        log_chance = cells[:, 1, None, None] * log_odds - cells[:, 0, None, None] * no
        return -float(times @ np.log(np.einsum("ckn,k,n->c", np.exp(log_chance), shares, weights)))

    best = optimize.minimize(minus, np.array([-2.0, -0.5]), method="L-BFGS-B", bounds=[(-12, 5), (-5, 2)])
    sd = float(np.exp(best.x[1]))
    step = 1e-2
    bend = (minus(best.x + [0, step]) - 2 * best.fun + minus(best.x - [0, step])) / step**2
    return float(best.x[0]), sd, float(stats.norm.ppf(0.975)) * sd / max(bend, 1e-9) ** 0.5


def _weekdays(found: Found, lines: pl.DataFrame) -> None:
    baskets = lines.select("household_id", "basket_id", "transaction_timestamp").unique(
        "basket_id", maintain_order=True
    )
    local = baskets["transaction_timestamp"].dt.offset_by(f"{UTC_OFFSET_H}h")
    day = local.dt.weekday().to_numpy().astype(np.int64) - 1
    _, household = np.unique(baskets["household_id"].to_numpy(), return_inverse=True)
    week = np.bincount(household * 7 + day, minlength=(int(household.max()) + 1) * 7).reshape(-1, 7)
    share = week.sum(0) / week.sum() * 7
    found.estimates.append(
        Estimate(
            parameter="population.weekdays",
            name="trips by day of the week, Monday first",
            value=[round(float(v), 4) for v in share],
            data=DATA,
            n=int(week.sum()),
            of="trips",
            method="share of trips, mean 1",
            caution="of shops; the days of mail opens (Dito) are the sender's choice rather than the people's",
        )
    )
    found.samples["visits by weekday"] = Sample(
        values=week, distance="total variation", about="a household; share of trips by weekday"
    )


def _prices(found: Found, lines: pl.DataFrame, rng: np.random.Generator) -> None:
    price = (pl.col("sales_value") + pl.col("retail_disc")) / pl.col("quantity")
    products = (
        lines.filter((pl.col("quantity") > 0) & (pl.col("sales_value") > 0))
        .group_by("product_id", maintain_order=True)
        .agg(price.median().alias("price"), pl.len())
        .filter((pl.col("len") >= 3) & (pl.col("price") > 0))
    )
    log_price = np.log(products["price"].to_numpy())
    drawn = rng.choice(log_price, (DRAWS, len(log_price)))
    for parameter, name, value, draws in (
        ("catalogue.price_median", "median price, dollars", np.exp(np.median(log_price)), np.exp(np.median(drawn, 1))),
        ("catalogue.price_sd", "spread of the log price", log_price.std(), drawn.std(1)),
    ):
        found.estimates.append(
            Estimate(
                parameter=parameter,
                name=name,
                value=float(value),
                low=float(np.quantile(draws, 0.025)),
                high=float(np.quantile(draws, 0.975)),
                data=DATA,
                n=len(log_price),
                of="products",
                method="median shelf price of each product bought at least three times; bootstrap over products",
            )
        )
    found.samples["prices"] = Sample(
        values=np.exp(log_price), distance="wasserstein of logs", about="a product; price over the mean price"
    )


def _offers(found: Found, folder: Path, world: Parameters, rng: np.random.Generator) -> None:
    households = pl.read_parquet(folder / "campaigns.parquet")
    redeemed = (
        pl.read_parquet(folder / "coupon_redemptions.parquet")
        .select("household_id", "campaign_id")
        .unique(maintain_order=True)
    )
    days = pl.read_parquet(folder / "campaign_descriptions.parquet").select(
        "campaign_id",
        "campaign_type",
        (pl.col("end_date") - pl.col("start_date")).dt.total_days().cast(pl.Float64).alias("days"),
    )
    sent = (
        households.join(
            redeemed.with_columns(pl.lit(1).alias("won")),
            on=["household_id", "campaign_id"],
            how="left",
            maintain_order="left",
        )
        .with_columns(pl.col("won").fill_null(0))
        .join(days, on="campaign_id", maintain_order="left")
    )
    each = sent.group_by("household_id", maintain_order=True).agg(
        pl.len().alias("sent"), pl.col("won").sum(), pl.col("days").sum()
    )
    count, won, exposed = each["sent"].to_numpy(), each["won"].to_numpy(), each["days"].to_numpy()
    for kind in ("A", "B", "C"):
        of_kind = sent.filter(pl.col("campaign_type") == f"Type {kind}")
        interval = stats.binomtest(int(of_kind["won"].sum()), of_kind.height).proportion_ci(0.95, method="wilson")
        found.estimates.append(
            Estimate(
                parameter="",
                name=f"redemption rate, campaigns of type {kind}",
                value=float(of_kind["won"].mean()),  # type: ignore[arg-type]  # a number: the column is an integer
                low=float(interval.low),
                high=float(interval.high),
                data=DATA,
                n=of_kind.height,
                of="households x campaigns",
                method="households that redeemed a coupon of the campaign, Wilson interval",
                caution="type A coupons were picked for the household from what it had bought",
            )
        )
    purchases = world.purchases
    shares = np.array(list(purchases.kinds.values()))
    bases = np.array([purchases.kind_base[k] + purchases.kind_offer[k] for k in purchases.kinds])
    _, sd, margin = redemption(count, won, shares, bases)
    found.estimates.append(
        Estimate(
            parameter="purchases.inclination_sd",
            name="spread over households of log-odds of redeeming, within a kind",
            value=sd,
            low=max(sd - margin, 0.0),
            high=sd + margin,
            data=DATA,
            n=len(count),
            of="households",
            method="maximum likelihood of campaigns redeemed of those sent, the world's kinds and a normal spread",
            caution="the kinds' shares and log-odds are assumed",
        )
    )
    mail_days = world.messages.every_days or 7
    draws = rng.multinomial(len(won), np.full(len(won), 1 / len(won)), DRAWS)
    rates = np.concatenate([[won.sum() / exposed.sum()], (draws @ won) / (draws @ exposed)]) * mail_days
    values = np.array([mean_log_odds(float(r), shares, bases, sd) for r in rates])
    found.estimates += [
        Estimate(
            parameter="",
            name=f"campaigns redeemed in {mail_days} days of a running campaign",
            value=float(rates[0]),
            low=float(np.quantile(rates[1:], 0.025)),
            high=float(np.quantile(rates[1:], 0.975)),
            data=DATA,
            n=len(won),
            of="households",
            method="redemptions over days that campaigns ran, bootstrap over households",
        ),
        Estimate(
            parameter="messages.purchase_base",
            name="log-odds of a purchase after a mail, kind base 0",
            value=float(values[0]),
            low=float(np.quantile(values[1:], 0.025)),
            high=float(np.quantile(values[1:], 0.975)),
            data=DATA,
            n=len(won),
            of="households",
            method=f"where people of all kinds with a full offer in hand buy as often as households redeem in "
            f"{mail_days} days, the time between two mails of the world",
            caution="coupons run for some six weeks; the world's mail works for three days, so a week's worth is given "
            "to each weekly mail",
        ),
    ]


def mean_log_odds(rate: float, shares: np.ndarray, bases: np.ndarray, sd: float) -> float:
    """Return the log-odds b at which sigmoid(b + bases[kind] + sd * z) is `rate` on average over kinds and z."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()

    def excess(b: float) -> float:
        chance = 1 / (1 + np.exp(-(b + bases[:, None] + sd * nodes)))
        return float(shares @ chance @ weights) - rate

    return float(optimize.brentq(excess, -20, 10))
