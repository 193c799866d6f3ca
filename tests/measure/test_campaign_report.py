"""What a campaign did, in a shop whose truth is known: receivers buy more anyway, and the message adds a little."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from playbill.errors import ConfigError, MeasureError
from playbill.measure.campaigns.dealt import CAMPAIGN, EVERYWHERE, HELD, arms, read_dealt
from playbill.measure.campaigns.report import run
from playbill.measure.campaigns.settings import CampaignReportSettings
from playbill.measure.statement import Reading
from playbill.tables.folder import write_folder
from playbill.tables.schema import CONTRACT, Column, EventKind, Kind

AT = datetime(2026, 3, 2, 6, tzinfo=UTC)
PEOPLE, HELD_SHARE, GLOBAL_SHARE = 12_000, 0.3, 0.1


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shop(tmp_path_factory.mktemp("shop"))


def make_shop(home: Path, seed: int = 5, effect: float = 0.05, people: int = PEOPLE, capped: float = 0.0) -> Path:
    """A quarter never consented and buys little; keen people buy 30 % of the time, others 10 %, a message adds 5 %.

    `capped` of the keen ones had enough messages from earlier campaigns, which nobody of the global holdout gets.
    """
    dice = np.random.default_rng(seed)
    users = np.arange(1, people + 1)
    keen, consents = dice.random(people) < 0.4, dice.random(people) < 0.75
    everywhere, mine = dice.random(people) < GLOBAL_SHARE, dice.random(people) < HELD_SHARE
    late = dice.random(people) < 0.02
    reason = np.where(late, "too_few_items", "")
    reason = np.where(mine, HELD, reason)
    reason = np.where(everywhere, "global_holdout", reason)
    full = ~everywhere & keen & (np.random.default_rng([seed, 1]).random(people) < capped)
    reason = np.where(full, "frequency_cap", reason)
    reason = np.where(~consents, "no_consent", reason)
    sent = reason == ""
    buys = dice.random(people) < np.where(keen, 0.3, 0.1) * np.where(consents, 1, 0.3) + effect * sent
    opens = sent & (dice.random(people) < 0.4)
    folder = home / "campaigns" / "spring"
    (folder / "rows").mkdir(parents=True)
    rows = pl.DataFrame({"user_id": users, "reason": reason, "send": sent, "global_holdout": everywhere}).with_columns(
        at=pl.lit(AT)
    )
    rows.write_parquet(folder / "rows" / "part-00000.parquet")
    declared = {"holdouts": {"campaign": HELD_SHARE, "everywhere": GLOBAL_SHARE}}
    (folder / "plan.json").write_text(json.dumps({"declaration": declared}))
    (folder / "success.json").write_text("{}")
    leaves = sent & (np.random.default_rng([seed, 2]).random(people) < 0.02)
    earlier = users[keen & ~everywhere]  # they opened what earlier campaigns sent them
    who = np.concatenate([users[buys], users[opens], users[leaves], [1], earlier])
    kinds = ["purchase"] * int(buys.sum()) + ["open"] * int(opens.sum()) + ["unsubscribe"] * int(leaves.sum())
    kinds += ["visit"] + ["open"] * len(earlier)
    since = dice.uniform(0.1, 7, len(who))
    since[-len(earlier) :] = -5
    since[-len(earlier) - 1] = 20  # the log goes on until every window is over
    events = pl.DataFrame(
        {
            "event_id": np.arange(len(who)),
            "user_id": who,
            "event": kinds,
            "at": [AT + timedelta(days=float(d)) for d in since],
            "value": [10.0 if kind == "purchase" else None for kind in kinds],
        }
    )
    table = pl.DataFrame(
        {"user_id": users, "kind": np.where(keen, "keen", "idle"), "sex": np.where(users % 2, "f", "m")}
    )
    known = {c.name: c for c in CONTRACT["events"]}
    columns = {
        "users": [Column(name="user_id", kind=Kind.ID), Column(name="kind", kind=Kind.TEXT),
                  Column(name="sex", kind=Kind.TEXT, protected=True)],
        "events": [known[name] for name in events.columns],
    }  # fmt: skip
    names = [EventKind(name=name) for name in ("purchase", "open", "visit", "message_click", "unsubscribe")]
    tables = {"users": table.to_arrow(), "events": events.to_arrow()}
    write_folder(home / "tables" / "shop", tables, source="parquet", columns=columns, events=names)
    return home


def report(shop: Path, **fields: Any) -> Reading:
    return run(
        CampaignReportSettings(**{"home": str(shop), "name": "spring", "tables": "shop", "pre_days": 0, **fields})
    )


def figure(reading: Reading, metric: str, control: str) -> Any:
    [found] = [s for s in reading.statements if s.name.startswith(f"{metric}, lift of {CAMPAIGN} over {control}")]
    return found


def test_the_lift_is_the_messages_own_and_receivers_are_not_held_against_the_others(shop: Path) -> None:
    reading = report(shop)
    share = 0.98  # of a hundred who were dealt a message two got none: they count all the same
    # the global holdout is of the whole audience: those without consent and in the campaign's own holdout count too
    for control, truth in ((HELD, 0.05 * share), (EVERYWHERE, 0.05 * share * 0.75 * (1 - HELD_SHARE))):
        buyers = figure(reading, "buyers", control)
        error = (buyers.high - buyers.low) / 2 / 1.96
        assert buyers.randomised and abs(buyers.estimate - truth) < 3 * error
        spent = figure(reading, "revenue_per_recipient", control)
        assert abs(spent.estimate - 10 * truth) < 3 * (spent.high - spent.low) / 2 / 1.96
    assert figure(reading, "opens", HELD).low > 0.3 and figure(reading, "buyers", HELD).low > 0
    rows = pl.read_parquet(shop / "campaigns/spring/rows/*.parquet")
    bought = pl.read_parquet(shop / "tables/shop/events.parquet").filter(pl.col("event") == "purchase")["user_id"]
    rate = rows.group_by("send").agg(pl.col("user_id").is_in(bought.implode()).mean().alias("rate"))
    naive = dict(rate.iter_rows())
    assert naive[True] - naive[False] > figure(reading, "buyers", HELD).high  # what a receiver-against-others says
    left = figure(reading, "unsubscribes", HELD)
    assert left.low < 0.02 * share < left.high and left.low > 0


def test_figures_stand_a_thousand_people_and_relative(shop: Path) -> None:
    reading = report(shop)
    [rows] = [rows for name, rows in reading.tables.items() if name.startswith("what this campaign did")]
    [buyers] = [row for row in rows if row["metric"] == "buyers"]
    said = figure(reading, "buyers", HELD)
    assert [buyers[k] for k in ("more", "low", "high")] == pytest.approx(
        [1000 * v for v in (said.estimate, said.low, said.high)]
    )
    assert buyers["with"] - buyers["without"] == pytest.approx(buyers["more"])
    assert buyers["relative_low"] < buyers["relative"] < buyers["relative_high"]
    assert buyers["relative"] == pytest.approx(buyers["more"] / buyers["without"])
    assert {row["metric"] for row in rows} >= {"opens", "revenue_per_recipient", "unsubscribes"}


def test_caps_of_earlier_campaigns_take_nobody_out_of_the_global_comparison(tmp_path: Path) -> None:
    """Only those who get messages can be capped, and they are keen: leaving them out would take away from the arm."""
    home = make_shop(tmp_path, effect=0, people=30_000, capped=0.6)
    found = figure(report(home), "buyers", EVERYWHERE)
    assert found.randomised and found.low < 0 < found.high  # nothing was done, and nothing is found
    rows = pl.read_parquet(home / "campaigns/spring/rows/*.parquet")
    bought = pl.read_parquet(home / "tables/shop/events.parquet").filter(pl.col("event") == "purchase")["user_id"]
    left = rows.filter(pl.col("reason").is_in(["", "too_few_items", "global_holdout"]))
    rate = dict(left.group_by("global_holdout").agg(pl.col("user_id").is_in(bought.implode()).mean()).iter_rows())
    assert rate[False] - rate[True] < found.low  # what leaving the capped out would have said


def test_days_before_narrow_nothing_against_a_holdout_that_is_older_than_they(shop: Path) -> None:
    narrowed, plain = report(shop, pre_days=28), report(shop, pre_days=0)
    assert "CUPED" in figure(narrowed, "opens", HELD).method
    both = [figure(reading, "opens", EVERYWHERE) for reading in (narrowed, plain)]
    assert "CUPED" not in both[0].method and both[0].estimate == both[1].estimate


def test_the_deal_is_checked_against_its_plan(shop: Path) -> None:
    dealt = read_dealt(shop / "campaigns" / "spring")
    people = arms(dealt, HELD)
    assert (
        set(people["arm"]) == {CAMPAIGN, HELD} and people.filter(pl.col("arm") == HELD)["share"].unique().item() == 0.3
    )
    late = dealt.rows.filter(pl.col("reason") == "too_few_items")["user_id"]
    assert set(late) <= set(people.filter(pl.col("arm") == CAMPAIGN)["user_id"])
    folder = shop / "campaigns" / "broken"
    (folder / "rows").mkdir(parents=True)
    lost = dealt.rows.filter((pl.col("reason") != HELD) | (pl.col("user_id") % 5 > 0))
    lost.write_parquet(folder / "rows" / "part-00000.parquet")
    for name in ("plan.json", "success.json"):
        (folder / name).write_text((shop / "campaigns" / "spring" / name).read_text())
    reading = report(shop, name="broken")
    assert any("SAMPLE RATIO" in warning for warning in reading.warnings)
    assert not [s for s in reading.statements if "lift" in s.name and HELD in s.name]


def test_segments_are_corrected_and_protected_ones_are_for_audits(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="'sex' is protected"):
        report(shop, segments=["sex"])
    with pytest.raises(ConfigError, match="no column 'color'"):
        report(shop, segments=["color"])
    reading = report(shop, segments=["kind", "sex"], audit=True)
    [rows] = [rows for name, rows in reading.tables.items() if name.startswith("segments, corrected")]
    assert {row["segment"] for row in rows} == {"kind = keen", "kind = idle", "sex = f", "sex = m"}
    assert all(row["q_value"] >= row["p_value"] for row in rows)
    page = (shop / "campaigns/spring/report/report.html").read_text()
    assert "kind = keen" in page and "data:image/png;base64," in page and "http" not in page
    small = report(shop, segments=["kind"], least_segment=4_000)
    assert {row["segment"] for row in small.tables["segments, too small to be read"]} == {"kind = keen"}


def test_what_the_sender_did_stands_beside_what_was_decided(shop: Path, tmp_path: Path) -> None:
    file = tmp_path / "sent.csv"
    file.write_text(
        "user_id,sent\n" + "".join(f"{user},{'true' if user % 2 else 'false'}\n" for user in range(1, 6001))
    )
    rows = {row["decided"]: row for row in report(shop, delivered=str(file)).tables["delivered"]}
    assert rows[HELD]["delivered"] > 500  # a holdout that was written to shows
    assert sum(row["not in the file"] for row in rows.values()) == 6000


def test_waves_are_read_together(shop: Path) -> None:
    whole = read_dealt(shop / "campaigns" / "spring").rows
    for number in (1, 2):
        folder = shop / "campaigns" / f"parted-wave{number:02}"
        (folder / "rows").mkdir(parents=True)
        whole.filter(pl.col("user_id") % 2 == number - 1).write_parquet(folder / "rows" / "part-00000.parquet")
        for name in ("plan.json", "success.json"):
            (folder / name).write_text((shop / "campaigns" / "spring" / name).read_text())
    (shop / "campaigns" / "parted").mkdir()  # where what is believed of subjects stands
    mine, theirs = (figure(report(shop, name=name), "buyers", HELD) for name in ("parted", "spring"))
    assert (mine.estimate, mine.n) == (theirs.estimate, theirs.n)


def test_what_cannot_be_read_is_said(shop: Path) -> None:
    with pytest.raises(MeasureError, match="holds no campaign; decided are: .*spring"):
        report(shop, name="summer")
    with pytest.raises(ConfigError, match="expected the name of a campaign"):
        report(shop, name="")
    folder = shop / "campaigns" / "everybody"
    (folder / "rows").mkdir(parents=True)
    read_dealt(shop / "campaigns" / "spring").rows.write_parquet(folder / "rows" / "part-00000.parquet")
    (folder / "plan.json").write_text('{"declaration": {"holdouts": {"campaign": 0, "everywhere": 0}}}')
    with pytest.raises(MeasureError, match="not decided to its end"):
        report(shop, name="everybody")
    (folder / "success.json").write_text("{}")
    with pytest.raises(MeasureError, match="held nobody out"):
        report(shop, name="everybody")


def test_what_was_learned_of_variants_stands_in_the_report(tmp_path: Path) -> None:
    home = make_shop(tmp_path, people=3_000)
    told = {"method": "weights", "early": True, "heroes": [{"hero": "v1", "messages": 9, "rate": 0.2, "best": 0.9}]}
    file = home / "campaigns" / "spring" / "heroes_report.json"
    file.write_text(json.dumps(told))
    tables = report(home).tables
    assert tables["heroes, had everybody got one (weights, some messages are younger than 72 hours)"] == told["heroes"]
    file.write_text("{}")
    with pytest.raises(MeasureError, match=r"heroes_report.json cannot be read .* run `playbill campaign subjects`"):
        report(home)
