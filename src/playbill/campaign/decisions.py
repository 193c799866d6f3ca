"""What a campaign decided, as rows of the decisions table: all that measuring it later needs.

A recipient who is held back has one decision, of kind `hold`, whose choice is the reason. Where the campaign holds a
share out at random, that is `hold` for those and `send` for the others, with its propensity: what a mail changes is
learned from the two. Of a message there is one of kind `channel`, `subject` and `send_hour` each, and `hero` and
`offer` where there is one, under the request `<campaign>:<user id>`, and one of kind `item` and `creative` for each
place of a block, under the block's own request.
`context` names the campaign and the channel, by which later campaigns keep to their caps.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from playbill.campaign.restraint import share_drawn
from playbill.campaign.settings import Block, Campaign

_MOMENT = pl.Datetime("us", "UTC")
SCHEMA: dict[str, Any] = {
    "decision_id": pl.String, "request_id": pl.String, "kind": pl.String, "chosen": pl.String,
    "at": _MOMENT, "user_id": pl.String, "position": pl.Float64, "propensity": pl.Float64,
    "policy": pl.String, "bundle": pl.String, "arm": pl.String, "eligible_count": pl.Float64, "context": pl.String,
}  # fmt: skip


def decisions_of(campaign: Campaign, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the decisions behind rows of `decide`, in the columns of SCHEMA; user_id is of the type that rows have.

    `at` of a send_hour is when the message arrives and its choice the local hour of the day, as whoever learns send
    times reads it (`mail_log`); of all others `at` is the moment of the run.
    """
    message = pl.concat_str(pl.lit(f"{campaign.name}:"), pl.col("user_id").cast(pl.String))
    rows = rows.with_columns(
        message=message,
        context=pl.struct(campaign=pl.lit(campaign.name), channel="channel").struct.json_encode(),
        arm=pl.when("global_holdout").then(pl.lit("global_holdout")).when("campaign_holdout")
        .then(pl.lit("campaign_holdout")).otherwise(pl.lit("campaign")),
    )  # fmt: skip
    sent, held = rows.filter("send"), rows.filter(~pl.col("send"))
    one = pl.lit(1.0)
    whole = f"campaign:{campaign.name}"
    share = share_drawn(campaign.holdouts.campaign)
    out = pl.col("reason") == "campaign_holdout"
    parts = [
        _plain(held.filter(~out), "hold", pl.col("reason"), pl.col("at"), one, one, whole),
        _plain(held.filter(out), "hold", pl.lit("hold"), pl.col("at"), pl.lit(share), pl.lit(2.0), whole),
        _plain(sent.filter(share > 0), "hold", pl.lit("send"), pl.col("at"), pl.lit(1 - share), pl.lit(2.0), whole),
        _plain(sent, "channel", pl.col("channel"), pl.col("at"), one, one, whole),
        _plain(
            sent, "subject", pl.col("subject"), pl.col("at"), pl.col("subject_propensity"), pl.col("subjects"), whole
        ),
        _plain(
            sent, "send_hour", pl.col("hour") % 24, pl.col("send_at"), pl.col("hour_propensity"), pl.col("hours"), whole
        ),
    ]
    headed = sent.filter(pl.col("hero_variant").is_not_null())
    chance, count = pl.col("hero_variant_propensity"), pl.col("hero_variants")
    parts.append(_plain(headed, "hero", pl.col("hero_variant"), pl.col("at"), chance, count, whole))
    offered = sent.filter(pl.col("offer").is_not_null())
    parts.append(
        _plain(offered, "offer", pl.col("offer"), pl.col("at"), pl.col("offer_propensity"), pl.col("offers"), whole)
    )
    for block in campaign.blocks:
        parts += _of_block(block, sent)
    return pl.concat(parts)


def _plain(
    rows: pl.DataFrame, kind: str, chosen: pl.Expr, at: pl.Expr, propensity: pl.Expr, eligible: pl.Expr, policy: str
) -> pl.DataFrame:
    return rows.select(
        decision_id=pl.concat_str("message", pl.lit(f":{kind}")),
        request_id="message",
        kind=pl.lit(kind),
        chosen=chosen.cast(pl.String),
        at=at.cast(_MOMENT),
        user_id="user_id",
        position=pl.lit(None, pl.Float64),
        propensity=propensity.cast(pl.Float64),
        policy=pl.lit(policy),
        bundle="bundle",
        arm="arm",
        eligible_count=eligible.cast(pl.Float64),
        context="context",
    )


def _of_block(block: Block, sent: pl.DataFrame) -> list[pl.DataFrame]:
    """Return the decisions about the places of a block: items, and creatives where there is one."""
    name = block.name
    lists = ["items", "propensities", "creatives", "creative_propensities", "creative_counts"]
    asked = sent.filter(pl.col(f"{name}_items").list.len() > 0).with_columns(
        place=pl.int_ranges(0, pl.col(f"{name}_items").list.len(), dtype=pl.Int64)
    )
    every = asked.select(
        "user_id", "at", "policy", "bundle", "arm", "context", "place", request_id=f"{name}_request_id",
        count=f"{name}_eligible_count", **{of: f"{name}_{of}" for of in lists},
    ).explode("place", *lists, empty_as_null=True)  # fmt: skip
    shown = every.filter(pl.col("creatives").is_not_null())
    return [
        _of_places(every, "item", pl.col("items"), pl.col("propensities"), pl.col("count")),
        _of_places(shown, "creative", pl.col("creatives"), pl.col("creative_propensities"), pl.col("creative_counts")),
    ]


def _of_places(rows: pl.DataFrame, kind: str, chosen: pl.Expr, propensity: pl.Expr, eligible: pl.Expr) -> pl.DataFrame:
    return rows.select(
        decision_id=pl.concat_str("request_id", pl.lit(":"), pl.col("place").cast(pl.String), pl.lit(f":{kind}")),
        request_id="request_id",
        kind=pl.lit(kind),
        chosen=chosen.cast(pl.String),
        at=pl.col("at").cast(_MOMENT),
        user_id="user_id",
        position=pl.col("place").cast(pl.Float64),
        propensity=propensity.cast(pl.Float64),
        policy="policy",
        bundle="bundle",
        arm="arm",
        eligible_count=eligible.cast(pl.Float64),
        context="context",
    )
