"""Decisions for the people of MovieLens-100K, each held against what the tables, the calendar and the engine say."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from playbill.bundle.open import Bundle
from playbill.campaign.brand import BrandRules
from playbill.campaign.copy_file import Copy, propose, read_copy, sendable, write_copy
from playbill.campaign.copy_file import decide as approve
from playbill.campaign.decide import Material, decide
from playbill.campaign.mail_log import read_mail_log
from playbill.campaign.restraint import DAY_US, Contact, counts, read_contact
from playbill.campaign.rhythm import HOURS, fit_week
from playbill.campaign.rhythm import people as believed
from playbill.campaign.send_time import SendTimes
from playbill.campaign.settings import Block, Campaign, Cap, Holdouts, QuietHours, Sensitive, Window
from playbill.campaign.variants import Choice, schema_of
from playbill.engine.engine import Engine
from playbill.engine.types import Request
from playbill.errors import ConfigError, RequestError, StateError
from playbill.state.store import Store

AT = round(datetime(1998, 4, 24, 12, tzinfo=UTC).timestamp() * 1e6)  # a Friday, a day and a half after the last rating
ZONES = ["Europe/Rome", "America/Bogota", "Asia/Kolkata", "Nowhere/Land"]


def campaign(**fields: Any) -> Campaign:
    blocks = [Block(name="picks", k=6, surface="mail", novelty_days=60), Block(name="more", k=4, surface="trending")]
    given = {"name": "weekly", "blocks": blocks, "subjects": "s.json", "bought_events": [], **fields}
    return Campaign(**given)


@pytest.fixture(scope="module")
def contact(ml100k_tables: Path) -> Contact:
    found = read_contact(ml100k_tables, campaign(), AT)
    zones = pl.Series("timezone", [ZONES[user % 4] for user in found.users["user_id"]])
    return Contact(found.users.with_columns(zones), found.words, found.sends)


@pytest.fixture(scope="module")
def send_times(ml100k_tables: Path) -> SendTimes:
    """Learned from the hours in which people rated films; no mail was ever sent to them."""
    log = read_mail_log(ml100k_tables, open_event="open", not_there=[])
    nobody = np.zeros(len(log.user_ids), np.int64)
    week = fit_week(log.there, log.sent, log.opened, nobody, 1, rounds=2)
    known = believed(week, log.there, log.sent, log.opened, nobody)
    unsure = known.covariance[:, 0, 0].astype(np.float32)
    none = np.zeros(0)
    return SendTimes(week, [""], none, none, 40, log.user_ids.to_numpy(), known.value.astype(np.float32), unsure,
                     log.there.sum(1))  # fmt: skip


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("copy") / "subjects.json"
    write_copy(path, Copy(facts=[], rules=BrandRules()))
    assert (
        propose(path, ["Films for your week", "What to see now", "Your films are here", "Nobody approved it"], "ada")
        == []
    )
    for name in ("v1", "v2", "v3"):
        approve(path, name, "ada", True)
    return sendable(read_copy(path))[0]


@pytest.fixture
def engine(mail_bundle: Bundle, mail_store: Store) -> Engine:
    return Engine.open(mail_bundle, mail_store)


@pytest.fixture
def material(engine: Engine, contact: Contact, subjects: Any, send_times: SendTimes) -> Material:
    return Material(engine, contact, Choice(subjects), send_times)


IDS = list(range(1, 301))


def test_a_row_a_recipient_and_of_whom_is_held_nothing_is_decided(material: Material) -> None:
    mine = campaign(holdouts=Holdouts(everywhere=0.1, campaign=0.2), reasons=True)
    rows = decide(mine, material, IDS, AT)
    assert rows["user_id"].to_list() == IDS
    held, sent = rows.filter(~pl.col("send")), rows.filter("send")
    counted = counts(rows["reason"].to_list())
    assert counted["sent"] == len(sent) > 150 and counted["global_holdout"] > 10 and counted["campaign_holdout"] > 20
    kept = {"campaign", "user_id", "send", "reason", "global_holdout", "campaign_holdout", "timezone", "seed", "at",
            "code_version"}  # fmt: skip
    none = ("hero_creative", "hero_creative_propensity", "offer", "offer_propensity", "offers", "offer_reason",
            *schema_of("hero"))  # fmt: skip
    for name in rows.columns:
        if name not in kept:
            assert held[name].is_null().all(), name
            assert name in none or not sent[name].is_null().any(), name
    assert (rows["send"] == (rows["reason"] == "")).all()
    assert not (sent["global_holdout"] | sent["campaign_holdout"]).any()


def test_run_again_and_in_other_batches_it_decides_alike(material: Material) -> None:
    mine = campaign(holdouts=Holdouts(campaign=0.1))
    whole = decide(mine, material, IDS, AT)
    parts = [decide(mine, material, IDS[low : low + 70][::-1], AT) for low in range(0, len(IDS), 70)]
    assert pl.concat(parts).sort("user_id").equals(whole)
    other = decide(campaign(holdouts=Holdouts(campaign=0.1), seed=1), material, IDS, AT)
    assert (other["reason"] == whole["reason"]).all() and not other["subject"].equals(whole["subject"])


def test_no_item_stands_twice_and_none_that_is_not_new(material: Material, ml100k_tables: Path) -> None:
    rows = decide(campaign(), material, IDS, AT)
    events = pl.read_parquet(ml100k_tables / "events.parquet").with_columns(us=pl.col("at").dt.epoch("us"))
    lately: dict[int, set[int]] = {}
    ever: dict[int, set[int]] = {}
    for user, item, us in events.select("user_id", "item_id", "us").iter_rows():
        ever.setdefault(user, set()).add(item)
        if us > AT - 60 * DAY_US:
            lately.setdefault(user, set()).add(item)
    again = 0
    for row in rows.iter_rows(named=True):
        both = row["picks_items"] + row["more_items"]
        assert len(both) == len(set(both)) == 10
        assert not set(row["picks_items"]) & lately.get(row["user_id"], set())
        again += len(set(row["picks_items"]) & ever[row["user_id"]])
    assert again > 0, "the window hid everything that was ever seen"
    assert sum(len(lately.get(user, ())) for user in IDS) > 1000


def test_what_was_bought_lately_stands_in_no_block(material: Material, ml100k_tables: Path) -> None:
    blocks = [Block(name="picks", surface="mail", k=10)]
    free = decide(campaign(blocks=blocks), material, IDS, AT)
    kept = decide(campaign(blocks=blocks, bought_events=["rate"], bought_days=30), material, IDS, AT)
    events = pl.read_parquet(ml100k_tables / "events.parquet").filter(
        (pl.col("at").dt.epoch("us") > AT - 30 * DAY_US) & pl.col("user_id").is_in(IDS)
    )
    bought = set(events.select("user_id", "item_id").iter_rows())

    def pairs(rows: pl.DataFrame) -> set[Any]:
        return {(user, item) for user, items in rows.select("user_id", "picks_items").iter_rows() for item in items}

    assert pairs(free) & bought and not pairs(kept) & bought


def test_a_block_is_the_slate_that_the_engine_answers_online(material: Material) -> None:
    rows = decide(campaign(blocks=[Block(name="picks", k=5)], reasons=True), material, IDS[:50], AT)
    for row in rows.iter_rows(named=True):
        request = Request(user_id=row["user_id"], request_id=row["picks_request_id"], k=5, at=AT)
        [slate] = material.engine.recommend([request])
        assert row["picks_items"] == [item.item_id for item in slate.items]
        assert row["picks_propensities"] == [item.propensity for item in slate.items]
        assert row["picks_reasons"] == [item.reason.text for item in slate.items] and row["picks_rung"] == slate.rung


def test_what_is_sensitive_stands_in_messages_of_those_alone_who_asked_for_it(material: Material) -> None:
    items = material.engine.bundle.items
    dramas = set(items.filter(pl.col("categories").list.contains("Drama"))["item_id"])
    users = material.contact.users.with_columns(wants=pl.col("user_id") % 2 == 0)
    told = replace(material, contact=replace(material.contact, users=users))
    kind = Sensitive(filter="categories contains 'Drama'", declared="wants")
    free, kept = decide(campaign(), told, IDS, AT), decide(campaign(sensitive=[kind]), told, IDS, AT)
    even = pl.col("user_id") % 2 == 0
    assert kept.filter(even).equals(free.filter(even)) and kept["user_id"].to_list() == IDS
    for name in ("picks_items", "more_items"):
        assert set(free.filter(~even)[name].explode(empty_as_null=True)) & dramas
        assert not set(kept.filter(~even)[name].explode(empty_as_null=True)) & dramas
    assert (kept.filter(~even)["picks_items"].list.len() == 6).all()


def test_stock_is_that_of_now(material: Material, mail_store: Store) -> None:
    mine = campaign(blocks=[Block(name="picks", k=5)])
    before = decide(mine, material, IDS, AT)
    shown = Counter(item for items in before["picks_items"] for item in items)
    gone = {item for item, _ in shown.most_common(5)}
    mail_store.set_items({item: {"available": False} for item in gone})
    after = decide(mine, material, IDS, AT)
    assert not {item for items in after["picks_items"] for item in items} & gone and after["send"].all()


def test_who_gets_too_few_items_is_held_and_counts_after_the_holdouts(material: Material) -> None:
    narrow = "title = 'no film of this name'"
    rows = decide(campaign(blocks=[Block(name="picks", filter=narrow)]), material, IDS[:20], AT)
    assert counts(rows["reason"].to_list()) == {"sent": 0, "too_few_items": 20} and rows["subject"].is_null().all()
    without = [Block(name="picks"), Block(name="more", filter=narrow, least=0)]
    rows = decide(campaign(blocks=without), material, IDS[:20], AT)
    assert rows["send"].all() and set(rows["more_items"].list.len()) == {0}


@pytest.mark.parametrize("explore", [0.0, 1.0])
def test_it_arrives_in_everybodys_own_monday_morning(material: Material, explore: float) -> None:
    window = Window(weekdays=[0], hours=[6, 7, 8, 9], explore=explore, timezone="Asia/Tokyo")
    rows = decide(campaign(window=window, quiet=QuietHours(from_hour=22, to_hour=7)), material, IDS, AT)
    for row in rows.iter_rows(named=True):
        zone = "Asia/Tokyo" if row["user_id"] % 4 == 3 else ZONES[row["user_id"] % 4]
        local = row["send_at"].astimezone(ZoneInfo(zone))
        assert row["timezone"] == zone and (local.weekday(), local.minute) == (0, 0) and local.hour in (7, 8, 9)
        assert row["hour"] == local.hour and datetime.fromisoformat(row["send_local"]) == row["send_at"]
        assert 0 < (row["send_at"].timestamp() * 1e6 - AT) / DAY_US <= 7
        assert row["hour_propensity"] == pytest.approx(1 / 3 if explore else 1.0)
    assert len(set(rows["hour"])) > 1


def test_whose_hours_they_are_and_none_of_their_own_without_consent(material: Material, send_times: SendTimes) -> None:
    mine = campaign(window=Window(explore=0.0), quiet=QuietHours(from_hour=0, to_hour=0))
    rows = decide(mine, material, IDS, AT)
    assert set(rows["hour_reason"]) == {"person", "everybody"}
    chances, _ = send_times.chances(list(IDS), [""] * len(IDS))
    assert rows["hour"].to_list() == chances.argmax(1).tolist()
    np.testing.assert_allclose(rows["open_probability"], chances.max(1), rtol=1e-6)
    users = material.contact.users.with_columns(consent_personalisation=pl.col("user_id") > 100)
    asked = Material(material.engine, Contact(users, material.contact.words, material.contact.sends),
                     material.subjects, send_times)  # fmt: skip
    rows = decide(mine, asked, IDS, AT)
    assert set(rows["hour_reason"][:100]) == {"everybody"} and len(set(rows["hour"][:100])) == 1
    assert rows["hour"][100:].to_list() == chances.argmax(1)[100:].tolist()


def test_without_a_model_the_first_hour_that_may_be(material: Material) -> None:
    none = Material(material.engine, material.contact, material.subjects, None)
    rows = decide(campaign(window=Window(explore=0.0)), none, IDS[:8], AT)
    assert set(rows["hour_reason"]) == {"no_model"} and rows["open_probability"].is_null().all()
    expected = {  # Friday 12:00 UTC; quiet from 21 to 8
        "Europe/Rome": "1998-04-24T14:00+02:00", "America/Bogota": "1998-04-24T08:00-05:00",
        "Asia/Kolkata": "1998-04-24T18:00+05:30", "UTC": "1998-04-24T12:00+00:00",
    }  # fmt: skip
    for row in rows.iter_rows(named=True):
        assert row["send_local"] == expected[row["timezone"]]


def test_where_only_quiet_hours_are_left_nobody_is_written_to(material: Material) -> None:
    window = Window(hours=[22, 23], weekdays=[0])
    rows = decide(campaign(window=window), material, IDS[:10], AT)
    assert counts(rows["reason"].to_list()) == {"sent": 0, "quiet_hours": 10}
    over = Window(start="1998-04-01", days=7)
    rows = decide(campaign(window=over), material, IDS[:10], AT)
    assert counts(rows["reason"].to_list()) == {"sent": 0, "quiet_hours": 10}


def test_each_approved_subject_is_as_likely_as_the_others(material: Material) -> None:
    everybody = material.contact.users["user_id"].to_list()
    rows = decide(campaign(blocks=[Block(name="picks", k=1)]), material, everybody, AT)
    times = rows["subject"].value_counts()
    assert set(times["subject"]) == {"v1", "v2", "v3"} and set(rows["subject_propensity"]) == {1 / 3}
    assert (times["count"] - 943 / 3).abs().max() < 4 * np.sqrt(943 * 2 / 9)
    assert set(rows["subject_text"]) == {"Films for your week", "What to see now", "Your films are here"}
    late = rows.filter(pl.col("subject") == "v1")["hour"]
    assert abs(late.mean() - rows["hour"].mean()) < 4 * rows["hour"].std() / np.sqrt(len(late))


def test_the_cap_is_of_all_campaigns(material: Material) -> None:
    sends = pl.DataFrame({"user_id": [1, 1, 2], "at": [AT - DAY_US] * 3, "channel": ["email"] * 3})
    capped = Material(material.engine, Contact(material.contact.users, material.contact.words, sends),
                      material.subjects, None)  # fmt: skip
    rows = decide(campaign(caps=[Cap(most=2, days=7)]), capped, [1, 2, 3], AT)
    assert rows["reason"].to_list() == ["frequency_cap", "", ""]


def test_what_is_missing_is_said(material: Material, mail_bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="subjects: none may be sent"):
        decide(campaign(), Material(material.engine, material.contact, Choice([]), None), [1], AT)
    with pytest.raises(StateError, match="needs the store"):
        decide(campaign(), Material(Engine.open(mail_bundle), material.contact, material.subjects, None), [1], AT)
    with pytest.raises(RequestError, match=r"blocks\[0\].filter"):
        decide(campaign(blocks=[Block(name="a", filter="colour = 'red'")]), material, [1], AT)
    with pytest.raises(ConfigError, match="window.segment: users has no column 'tier'"):
        decide(campaign(window=Window(segment="tier")), material, [1], AT)
    rows = decide(campaign(), material, [], AT)
    assert len(rows) == 0 and "picks_items" in rows.columns and HOURS == 168
