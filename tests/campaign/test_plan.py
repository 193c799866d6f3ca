"""What a plan says of offers and holdouts; its waterfall, on real people: tests/serving/test_campaign_run.py."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from playbill.campaign.budget import plan
from playbill.campaign.offer_run import Settled
from playbill.campaign.plan import plan_of
from playbill.campaign.plan_waves import rehearsed
from playbill.campaign.settings import Block, Campaign, Holdouts, Waves
from playbill.measure.statement import Reading, Statement
from playbill.tables.folder import write_folder
from playbill.tables.schema import CONTRACT, Column, EventKind, Kind

AT = datetime(2026, 3, 2, tzinfo=UTC)
PEOPLE, RATE = 5_000, 0.1


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tenth of them bought for 20 within the last two weeks."""
    buyers = np.arange(1, round(PEOPLE * RATE) + 1)
    events = pl.DataFrame(
        {"event_id": buyers, "user_id": buyers, "event": "purchase", "at": AT - timedelta(days=3), "value": 20.0},
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    )
    users = pl.DataFrame({"user_id": np.arange(1, PEOPLE + 1)})
    known = {c.name: c for c in CONTRACT["events"]}
    columns = {"users": [Column(name="user_id", kind=Kind.ID)], "events": [known[n] for n in events.columns]}
    folder = tmp_path_factory.mktemp("tables") / "shop"
    found = {"users": users.to_arrow(), "events": events.to_arrow()}
    write_folder(folder, found, source="parquet", columns=columns, events=[EventKind(name="purchase")])
    return folder


def planned(tables: Path, people: int = PEOPLE, lift: float = 0.5, settled: Settled | None = None) -> Reading:
    campaign = Campaign(
        name="spring", blocks=[Block(name="picks")], subjects="s.json", holdouts=Holdouts(everywhere=0, campaign=0.1)
    )
    users = np.arange(1, people + 1)
    reason = np.where(users % 10 == 0, "campaign_holdout", "")
    rows = pl.DataFrame({"user_id": users, "reason": reason, "open_probability": np.where(reason == "", 0.2, np.nan)})
    at = round(AT.timestamp() * 1e6)
    return plan_of(campaign, rows.fill_nan(None), tables, at, 14, 0.95, lift=lift, settled=settled)


def said(reading: Reading, start: str) -> Statement:
    return next(s for s in reading.statements if s.name.startswith(start))


def test_the_smallest_holdout_shows_the_lift_and_one_that_is_smaller_does_not(tables: Path) -> None:
    found = said(planned(tables), "smallest holdout").estimate
    assert found is not None and 0.01 < found < 0.5
    dice, shown = np.random.default_rng(1), {}
    for share in (found, found / 3):  # 0.8 of tests of such campaigns find it
        held, rest = round(PEOPLE * share), PEOPLE - round(PEOPLE * share)
        a, b = dice.binomial(held, RATE, 4000) / held, dice.binomial(rest, 1.5 * RATE, 4000) / rest
        pooled = (a * held + b * rest) / PEOPLE
        shown[share] = float((np.abs(b - a) / np.sqrt(pooled * (1 - pooled) * (1 / held + 1 / rest)) > 1.96).mean())
    assert shown[found] > 0.76 and shown[found / 3] < 0.7


def test_a_lift_that_no_holdout_shows_is_said_with_the_people_it_needs(tables: Path) -> None:
    small = said(planned(tables, lift=0.02), "smallest holdout")
    assert small.estimate is None and "half of them held out would need" in small.refused


def test_offers_are_counted_of_those_who_would_be_sent_them(tables: Path) -> None:
    assert said(planned(tables), "money for offers").refused == "no offers declared"
    users = np.arange(1, PEOPLE + 1)
    table = pl.DataFrame(
        {"user_id": users, "offer": np.where(users % 2 == 0, "ten", "none"), "offer_cost": np.where(users % 2, 0, 10.0)}
    )
    cost = np.tile([0.0, 10.0], (PEOPLE, 1))
    best = plan(np.where(users % 2 == 0, 5.0, -5.0)[:, None] * [0, 1], cost, budget=1e9)
    assert (best.level == (users % 2 == 0)).all()
    settled = Settled(
        table, best, expected=9_000.0, worst=25_000.0, flagged=["offers a person: f 0.1, m 0.5"], left_out=[]
    )
    reading = planned(tables, settled=settled)
    spend = said(reading, "money for offers")
    assert spend.estimate == 10 * (PEOPLE // 2 - PEOPLE // 10)  # every tenth is held out, and all of those are even
    assert {row["offer"]: row["people"] for row in reading.tables["offers"]} == {"none": 2500, "ten": 2000}
    assert reading.warnings == ["unequal offers: offers a person: f 0.1, m 0.5"]


def test_opens_are_the_sum_of_chances(tables: Path) -> None:
    opens = said(planned(tables), "messages opened")
    assert opens.estimate == pytest.approx(0.2 * 4500) and opens.low is not None and opens.low < 900


def test_waves_say_what_they_could_learn(tables: Path) -> None:
    campaign = Campaign(
        name="spring", blocks=[Block(name="picks")], subjects="s.json", waves=Waves(count=4, floor=0.05),
        holdouts=Holdouts(everywhere=0, campaign=0.1),
    )  # fmt: skip
    users = np.arange(1, PEOPLE + 1)
    reason = np.where(users % 10 == 0, "campaign_holdout", "")
    rows = pl.DataFrame({"user_id": users, "reason": reason, "open_probability": np.where(reason == "", 0.2, np.nan)})
    rows = rows.with_columns(pl.col("open_probability").fill_nan(None))
    found = plan_of(campaign, rows, tables, round(AT.timestamp() * 1e6), 14, 0.95,
                    variants={"subject": 3, "hero": 2}, click_rate=0.02)  # fmt: skip
    told = found.tables["waves, and what they could learn"]
    assert [row["wave"] for row in told] == [1, 2, 3, 4] and sum(row["recipients"] for row in told) == PEOPLE
    assert sum(row["would be sent"] for row in told) == 4_500
    first, second = told[:2]
    assert first["messages of each subject, at least"] == first["would be sent"] // 3
    assert second["messages of each hero, at least"] == int(second["would be sent"] * 0.05)
    shown = [row["difference of opens that would show"] for row in told]
    assert shown == sorted(shown, reverse=True)
    # two rates of 0.2 and 0.2 + shown: a test of 0.8 power, by the usual normal formula
    of_each = first["would be sent"] // 3
    expected = 2.8 * np.sqrt(2 * 0.2 * 0.8 / of_each)
    assert shown[0] == pytest.approx(expected, rel=0.15)
    clicks = [row["difference of clicks that would show"] for row in told]
    assert clicks == sorted(clicks, reverse=True) and clicks[0] < shown[0]
    subject, hero = found.tables["what learning would cost"]
    assert subject["of"] == "subject" and subject["sent alike it would be"] == 3_000
    # a difference of 0.02 of 0.2 shows in 4,500 messages more often than not, one of 0.002 of 0.02 hardly
    assert 1_200 < subject["messages to the others"] < 2_700
    assert subject["chance that the better one leads at the end"] > 0.7
    assert 0.4 < hero["chance that the better one leads at the end"] < 0.85
    assert said(found, "messages opened").estimate == pytest.approx(900) and found.warnings == []
    silent = plan_of(campaign, rows, tables, round(AT.timestamp() * 1e6), 14, 0.95, variants={"subject": 3, "hero": 2})
    assert [row["of"] for row in silent.tables["what learning would cost"]] == ["subject"]
    assert len(silent.warnings) == 1 and "each hero is not known (2 variants): click_rate=SHARE" in silent.warnings[0]


def test_waves_learn_at_the_least_cost_that_the_floor_leaves() -> None:
    """Of what is plain after the first wave only the floor is given to the others, and nothing is told of equals."""
    given, leads = rehearsed(np.asarray([0.9, 0.1, 0.1]), [300, 1_000], 0.05, 0)
    assert given == pytest.approx(100 + 900, abs=5) and leads == 1.0
    given, leads = rehearsed(np.full(4, 0.2), [500, 500, 500], 0.05, 0)
    assert given == pytest.approx(375, abs=40) and 0.15 < leads < 0.35
