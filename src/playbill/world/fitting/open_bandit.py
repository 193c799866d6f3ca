"""Open Bandit (ZOZO): a fashion shop's home page, three items side by side, arms drawn with known propensities.

The uniformly random files give click rates by position free of any choice. 10,000 impressions hold some 40 clicks,
too few for the spread over arms; the counts behind the shop's own Thompson sampler (clicks and non-clicks of each arm,
published with the data) hold 13,977, and give it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from scipy import stats

from playbill.world.fitting.found import Estimate, Found
from playbill.world.fitting.spread import Spread, binomial_normal, spread_estimate

DATA = "open-bandit-small"
CAMPAIGNS = ("all", "men", "women")
ITEMS = "spread over items"


def fit(folder: Path) -> Found:
    """Estimate click rate, spread over arms, and rates by position (positions are reported from 0)."""
    found = Found(data=DATA)
    random = pl.concat(
        pl.read_parquet(folder / f"random_{c}.parquet", columns=["item_id", "position", "click"]).with_columns(
            pl.lit(c).alias("campaign")
        )
        for c in CAMPAIGNS
    )
    clicks, shown = int(random["click"].sum()), random.height
    interval = stats.binomtest(clicks, shown).proportion_ci(0.95, method="wilson")
    found.estimates.append(
        Estimate(
            parameter="",
            name="click rate",
            value=clicks / shown,
            low=float(interval.low),
            high=float(interval.high),
            data=DATA,
            n=shown,
            of="impressions",
            method="clicks over impressions of the uniformly random policy, Wilson interval",
        )
    )
    by_position = random.group_by("position", maintain_order=True).agg(pl.col("click").sum(), pl.len()).sort("position")
    won, seen = by_position["click"].to_numpy(), by_position["len"].to_numpy()
    for place in (1, 2):
        ratio = (won[place] / seen[place]) / (won[0] / seen[0])
        error = (1 / won[place] - 1 / seen[place] + 1 / won[0] - 1 / seen[0]) ** 0.5
        found.estimates.append(
            Estimate(
                parameter="",
                name=f"click rate at position {place} over position 0",
                value=float(ratio),
                low=float(ratio * np.exp(-1.96 * error)),
                high=float(ratio * np.exp(1.96 * error)),
                data=DATA,
                n=int(won[place] + won[0]),
                of="clicks",
                method="ratio of rates under the uniformly random policy, interval on the log (Katz 1978)",
                caution="three tiles side by side, all seen at once: no decay to be expected here; "
                "the curve of a list comes from trivago",
            )
        )
    arms = random.group_by("campaign", "item_id", maintain_order=True).agg(pl.col("click").sum(), pl.len())
    noisy = _spread(arms["click"].to_numpy(), arms["len"].to_numpy(), arms["campaign"].to_numpy())
    found.estimates.append(
        _estimate("spread over arms, random files alone", noisy, "too few clicks to exclude 0; shown for honesty")
    )
    prior = pl.read_parquet(folder / "bts_prior.parquet")
    won_arm = prior["alpha"].to_numpy()
    spread = _spread(won_arm, won_arm + prior["beta"].to_numpy(), prior["campaign"].to_numpy())
    found.estimates.append(
        _estimate(
            ITEMS,
            spread,
            "the sampler gave good arms more impressions, and arms with an unlucky start kept their low rate; "
            "arms of one shop's campaign, chosen by its buyers, differ less than a whole catalogue",
        )
    )
    found.curves["position"] = {"clicks": won, "shown": seen}
    return found


def _spread(clicks: np.ndarray, shown: np.ndarray, campaign: np.ndarray) -> Spread:
    _, group = np.unique(campaign, return_inverse=True)
    return binomial_normal(clicks.astype(float), shown.astype(float), group)


def _estimate(name: str, spread: Spread, caution: str) -> Estimate:
    return spread_estimate(
        spread,
        parameter="",
        name=name,
        data=DATA,
        n=spread.units,
        of="arms",
        method="maximum likelihood of binomial counts with normal log-odds, a mean for each campaign; profile interval",
        caution=caution,
    )
