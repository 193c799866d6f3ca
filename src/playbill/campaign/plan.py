"""What a campaign would do, before it does: whom it would reach, what they would open, what its holdout could show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from playbill.campaign.offer_run import Settled
from playbill.campaign.plan_waves import learning, untold, waves
from playbill.campaign.restraint import DAY_US, REASONS, counts
from playbill.campaign.settings import Campaign
from playbill.measure.disparity.parity import Family, compare, correct
from playbill.measure.disparity.settings import Correction
from playbill.measure.power.plan import Design, effect_found, people_needed, rate_after, rate_effect_size
from playbill.measure.statement import Reading, Statement
from playbill.tables.folder import read_folder

POWER = 0.8
_LEAST_GROUP = 30  # people of a group that is compared


def plan_of(
    campaign: Campaign,
    people: pl.DataFrame,
    tables: Path,
    at: int,
    days: float,
    level: float,
    *,
    lift: float = 0.1,
    settled: Settled | None = None,
    why_no_offers: str = "no offers declared",
    variants: Mapping[str, int] | None = None,
    click_rate: float | None = None,
) -> Reading:
    """Return the plan of a campaign.

    Args:
        people: a row a recipient: user_id, reason ("" where it would be sent), open_probability (null without a model).
            What is found only when items are chosen is not in it: those would be fewer.
        at: UTC microseconds of the run.
        days: that the report will count; what people bought in as many days before `at` is what they are expected to
            buy without any message.
        level: of intervals.
        lift: relative: of buyers, that a holdout is suggested for; of a variant's answers, that waves are rehearsed
            with.
        settled: the audience's offers, None where none can be told.
        why_no_offers: what is said then.
        variants: by kind (subject, hero), how many may be sent.
        click_rate: of heroes, share of messages that is clicked; None: not known.
    """
    from scipy.stats import norm

    z = float(norm.isf((1 - level) / 2))
    sent, held = people.filter(pl.col("reason") == ""), people.filter(pl.col("reason") == "campaign_holdout")
    statements = [_opens(sent, z, level)]
    money = _money(pl.concat([sent, held])["user_id"], tables, at, days)
    statements += _revenue(sent["user_id"], money, z, level, days)
    statements += [_holdout(len(sent) + len(held), money, lift, level)]
    statements += [_spend(campaign, sent["user_id"], settled, level, why_no_offers)]
    chance = people["open_probability"].drop_nulls()
    rates = {"subject": float(chance.to_numpy().mean())} if len(chance) else {}
    rates |= {} if click_rate is None else {"hero": click_rate}
    shares = (campaign.holdouts.campaign, 1 - campaign.holdouts.campaign)
    return Reading(
        title=f"Campaign {campaign.name}, before it is sent",
        statements=statements,
        tables={
            "audience after each reason to hold back": _waterfall(people),
            "what the holdout can show": _power(len(sent) + len(held), shares, money, level),
            "whom it would reach, by group (for audits)": _reached(people, tables, level),
            "offers": _offers(sent["user_id"], settled),
            "waves, and what they could learn": waves(campaign, people, variants or {}, rates, level),
            "what learning would cost": learning(campaign, people, variants or {}, rates, lift),
        },
        warnings=[
            *([] if settled is None else [f"unequal offers: {line}" for line in settled.flagged]),
            *untold(campaign, variants or {}, rates),
        ],
        verdict=f"{len(sent):,} of {len(people):,} recipients would be sent it",
    )


def _waterfall(people: pl.DataFrame) -> list[dict[str, Any]]:
    left, rows = len(people), [{"reason": "audience", "held back": 0, "left": len(people)}]
    found = counts(people["reason"].to_list())
    for reason in REASONS:
        if reason in found:
            left -= found[reason]
            rows.append({"reason": reason, "held back": found[reason], "left": left})
    return rows


def _opens(sent: pl.DataFrame, z: float, level: float) -> Statement:
    chance = sent["open_probability"].drop_nulls().to_numpy()
    given: dict[str, Any] = {"name": "messages opened", "n": len(sent), "unit": "messages", "level": level}
    if not len(chance):
        return Statement(
            **given, estimate=None, method="sum of each recipient's probability at their hour",
            refused="no model of send times: `playbill train-campaign` learns one from messages and opens",
        )  # fmt: skip
    total, spread = float(chance.sum()), z * float(np.sqrt((chance * (1 - chance)).sum()))
    return Statement(
        **given, estimate=total, low=total - spread, high=total + spread,
        method="sum of each recipient's probability at their hour",
        assumptions=["the model's probabilities are true, and one person's opening is not another's: a model that is "
                     "off for everybody at once moves the figure further than the interval"],
    )  # fmt: skip


def _money(users: pl.Series, tables: Path, at: int, days: float) -> np.ndarray:
    """Return [n] float64, what each person bought in so many days before the run."""
    moment = pl.col("at").dt.epoch("us")
    names = pl.scan_parquet(tables / "events.parquet").collect_schema().names()
    value = pl.col("value").cast(pl.Float64).fill_null(0) if "value" in names else pl.lit(0.0)
    bought = (
        pl.scan_parquet(tables / "events.parquet")
        .filter((pl.col("event") == "purchase") & (moment <= at) & (moment > at - round(days * DAY_US)))
        .group_by("user_id")
        .agg(value.sum().alias("spent"))
        .collect()
    )
    spent: np.ndarray = (
        users.to_frame("user_id").join(bought, on="user_id", how="left")["spent"].fill_null(0).to_numpy()
    )
    return spent


def _revenue(sent: pl.Series, money: np.ndarray, z: float, level: float, days: float) -> list[Statement]:
    method = f"what they bought in the {days:g} days before"
    given: dict[str, Any] = {"name": "revenue of the recipients without any message", "n": len(sent), "unit": "money"}
    mine = money[: len(sent)]
    if not mine.any():
        why = f"none of them bought anything in the {days:g} days before: events of the name purchase, with a value"
        return [Statement(**given, level=level, estimate=None, method=method, refused=why)]
    total, spread = float(mine.sum()), z * float(mine.std() * np.sqrt(len(mine)))
    return [
        Statement(
            **given, level=level, estimate=total, low=total - spread, high=total + spread, method=method,
            assumptions=["the days to come are like those before; what the message adds is not in it: no campaign "
                         "before showed that yet"],
        )
    ]  # fmt: skip


def _power(people: int, shares: tuple[float, float], money: np.ndarray, level: float) -> list[dict[str, Any]]:
    """Return the smallest effects that holdouts of several sizes would show with probability 0.8."""
    if people < 100:
        return []
    rate, mean, sd = float((money > 0).mean()), float(money.mean()), float(money.std())
    rows = []
    for held in dict.fromkeys([shares[0], 0.05, 0.1, 0.2, 0.5]):
        if not 0 < held < 1:
            rows.append({"holdout": held, "people held out": 0, "buyers +": None, "revenue a recipient +": None})
            continue
        design = Design(shares=(held, 1 - held), alpha=1 - level, power=POWER)
        size = effect_found(people, design, rate=True)
        rows.append(
            {
                "holdout": held,
                "people held out": round(people * held),
                "buyers +": rate_after(rate, size) - rate if rate else None,
                "buyers now": rate,
                "revenue a recipient +": effect_found(people, design, rate=False) * sd if sd else None,
                "revenue a recipient now": mean,
            }
        )
    return rows


def _holdout(people: int, money: np.ndarray, lift: float, level: float) -> Statement:
    """Return the smallest holdout that shows a relative lift of buyers with probability 0.8."""
    given: dict[str, Any] = {
        "name": f"smallest holdout that shows {lift:+.0%} of buyers", "n": people, "unit": "share", "level": level,
        "method": f"two-sided test of two rates, power {POWER}",
    }  # fmt: skip
    rate = float((money > 0).mean()) if len(money) else 0.0
    if not rate or rate * (1 + lift) >= 1:
        return Statement(**given, estimate=None, refused="how many of them buy is not known, so neither is what shows")
    size = rate_effect_size(rate, rate * (1 + lift))
    for held in np.arange(1, 51) / 100:  # of half, both arms are alike: no holdout shows more
        design = Design(shares=(float(held), float(1 - held)), alpha=1 - level, power=POWER)
        if people_needed(size, design, rate=True) <= people:
            return Statement(**given, estimate=float(held), assumptions=["people buy as often as in the days before"])
    return Statement(
        **given, estimate=None,
        refused=f"none does among {people:,} people: half of them held out would need "
                f"{people_needed(size, Design(shares=(0.5, 0.5), alpha=1 - level, power=POWER), rate=True):,}",
    )  # fmt: skip


def _spend(campaign: Campaign, sent: pl.Series, settled: Settled | None, level: float, why: str) -> Statement:
    given: dict[str, Any] = {"name": "money for offers, at most", "n": len(sent), "unit": "money", "level": level}
    method = "each recipient's level as the run would settle it, each redeemed at its dearest"
    if settled is None:
        return Statement(**given, estimate=None, method=method, refused=why)
    theirs = sent.to_frame("user_id").join(settled.table, on="user_id", how="left")["offer_cost"]
    details = {"settled for the whole audience, at most": settled.worst, "as expected": settled.expected}
    return Statement(
        **given, estimate=float(theirs.sum()), method=method, details={**details, "budget": campaign.offers.budget}
    )


def _offers(sent: pl.Series, settled: Settled | None) -> list[dict[str, Any]]:
    if settled is None:
        return []
    theirs = sent.to_frame("user_id").join(settled.table, on="user_id", how="left")
    made = theirs.group_by("offer").agg(pl.len().alias("people"), pl.col("offer_cost").sum().alias("money, at most"))
    return made.sort("people", descending=True).to_dicts()


def _reached(people: pl.DataFrame, tables: Path, level: float) -> list[dict[str, Any]]:
    """Return for each group of each protected column which share would be sent the campaign."""
    columns = [c.name for c in read_folder(tables).columns.get("users", []) if c.protected]
    if not columns:
        return []
    users = people.join(
        pl.read_parquet(tables / "users.parquet", columns=["user_id", *columns]), on="user_id", how="left"
    )
    reached = (users["reason"] == "").cast(pl.Float64).to_numpy()
    found = []
    for column in columns:
        named = users[column].cast(pl.String)
        groups = [str(g) for g in named.value_counts(sort=True)[column].drop_nulls().to_list()]
        code = np.asarray([groups.index(v) if v is not None else -1 for v in named], np.int64)
        if 2 <= len(groups) <= 30:
            family = Family(name=column, code=code, groups=groups, reference=0)
            one = np.ones(len(users))
            found += compare("sent", family, reached, one, min_people=_LEAST_GROUP, level=level)
    correct(found, Correction.HOLM, 1 - level)
    return [
        {
            "group": f"{c.family} = {c.group}", "people": c.people, "sent": c.rate, "of": c.reference,
            "sent of it": c.reference_rate, "ratio": c.ratio, "low": c.ratio_low, "high": c.ratio_high,
            "p, corrected": c.adjusted, "differs": c.flagged,
        }
        for c in found
    ]  # fmt: skip
