"""Whom a trigger writes to: those who would stay away, and baskets left behind; nobody who would come back anyway.

Everybody looked at has one reason, the first that holds:

    no_consent      to be judged by what they did (consent_personalisation of the users table)
    unknown         nothing done in the window that answers rest on
    too_new         too little is known of them
    active          re_engagement: they are not likely to stay away
    would_return    they would come back without a mail
    little_uplift   a mail would change too little

Who is chosen may still be held back by a campaign's own restraint: consent to marketing, caps, holdouts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from playbill.campaign.act_features import ActLog
from playbill.campaign.acts import TOO_NEW, UNKNOWN, Acts
from playbill.errors import FeatureError

NO_CONSENT, ACTIVE, WOULD_RETURN, LITTLE = "no_consent", "active", "would_return", "little_uplift"
REASONS = (NO_CONSENT, UNKNOWN, TOO_NEW, ACTIVE, WOULD_RETURN, LITTLE)
_HOUR_US = 3_600_000_000


def baskets(
    events: pl.DataFrame, put_in: Sequence[str], bought: Sequence[str], at: int, hours: float, within_hours: float
) -> pl.DataFrame:
    """Return who left a basket: user_id, item_id (the last put in), items (all, the latest first), left_at (UTC).

    A basket is what was put in after the last purchase. It is left when nothing was put in for so many hours, and
    forgotten after `within_hours`. Of an event at the moment of the purchase the purchase is taken to be the later.

    Args:
        events: user_id, event, at (int64 UTC microseconds), item_id.
        at: UTC microseconds; later events are not looked at.
    """
    past = events.filter((pl.col("at") <= at) & pl.col("user_id").is_not_null())
    last = past.filter(pl.col("event").is_in(list(bought))).group_by("user_id").agg(paid=pl.col("at").max())
    put = past.filter(pl.col("event").is_in(list(put_in)) & pl.col("item_id").is_not_null())
    fresh = put.join(last, on="user_id", how="left").filter(
        (pl.col("paid").is_null() | (pl.col("at") > pl.col("paid"))) & (pl.col("at") >= at - within_hours * _HOUR_US)
    )
    return (
        fresh.sort("at", "item_id", descending=True)
        .group_by("user_id", maintain_order=True)
        .agg(
            item_id=pl.col("item_id").first(),
            items=pl.col("item_id").unique(maintain_order=True),
            left_at=pl.col("at").max(),
        )
        .filter(pl.col("left_at") <= at - hours * _HOUR_US)
        .with_columns(left_at=pl.from_epoch("left_at", "us").dt.replace_time_zone("UTC"))
        .sort("user_id")
    )


def decide(
    acts: Acts,
    log: ActLog,
    at: int,
    people: pl.DataFrame,
    allowed: np.ndarray,
    *,
    churn: str | None,
    churn_at_least: float,
    return_at_most: float,
    least_uplift: float,
) -> pl.DataFrame:
    """Return the rows of people with what is believed of them and `reason`, "" for whoever is written to.

    `would_return` is the chance by which that was decided, without a mail where held-back mails could tell it.

    Args:
        people: user_id, each once, and any columns.
        allowed: [n] bool, who may be judged by what they did.
        churn: act by which somebody is likely to stay away; None: no matter.
        least_uplift: 0 asks for none.
    Raises:
        FeatureError: an act that the data did not carry; says what was missing.
    """
    names = [act.name for act in acts.spec.acts]
    returns = next((name for name in names if name.startswith("return")), None)
    for wanted in ([churn] if churn else []) + ([] if returns else ["return"]):
        if wanted not in names:
            lacking = [text for name, text in acts.spec.lacking.items() if name.startswith(wanted)]
            raise FeatureError(f"{wanted} is not among what was learned: {'; '.join(lacking) or ', '.join(names)}")
    without = bool(acts.spec.without[0])
    if least_uplift > 0 and not without:
        raise FeatureError(
            "least_uplift: what a mail changes was not learned; it needs mails held back at random (decisions of kind "
            "hold with a propensity), see report.json of the run of `playbill train-acts`"
        )
    answered = acts.answer(log, at, people["user_id"].to_list())
    found = people.join(answered, on="user_id", how="left", maintain_order="left")
    back = pl.col("return_without_mail" if without else str(returns))
    checks: list[tuple[pl.Expr, str]] = [
        (~pl.lit(pl.Series("may", allowed, dtype=pl.Boolean)), NO_CONSENT),
        (pl.col("reason") == UNKNOWN, UNKNOWN),
        (pl.col("reason") != "", TOO_NEW),
    ]
    if churn:
        checks.append((pl.col(churn) < churn_at_least, ACTIVE))
    checks.append((back > return_at_most, WOULD_RETURN))
    if least_uplift > 0:
        checks.append((pl.col("return_with_mail") - back < least_uplift, LITTLE))
    reason: pl.Expr = pl.lit("")
    for holds, code in reversed(checks):
        reason = pl.when(holds).then(pl.lit(code)).otherwise(reason)
    kept = found.with_columns(reason=reason, would_return=back)
    # nothing is said of people who do not allow it
    told = [name for name in answered.columns if name not in ("user_id", "reason")]
    hidden = pl.col("reason") == NO_CONSENT
    return kept.with_columns(
        pl.when(hidden).then(None).otherwise(pl.col(name)).alias(name) for name in [*told, "would_return"]
    )
