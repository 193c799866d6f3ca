"""The table of decisions: what a campaign decided is what a log of mails and the caps of the next read of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest

from playbill.bundle.open import Bundle
from playbill.campaign.copy_file import Variant
from playbill.campaign.decide import Material, decide
from playbill.campaign.decisions import SCHEMA, decisions_of
from playbill.campaign.mail_log import read_mail_log
from playbill.campaign.restraint import read_contact
from playbill.campaign.settings import Block, Campaign, Cap, Holdouts, QuietHours, Window
from playbill.campaign.variants import Choice
from playbill.engine.engine import Engine
from playbill.state.store import Store

AT = 893_419_200_000_000  # a Friday, 1998-04-24T12:00Z
BLOCKS = [Block(name="picks", k=3), Block(name="more", k=2, least=0, filter="title = 'no film of this name'")]
FIRST = Campaign(
    name="first", blocks=BLOCKS, subjects="s.json", quiet=QuietHours(from_hour=22, to_hour=6),
    window=Window(explore=1.0), holdouts=Holdouts(everywhere=0.1, campaign=0.2),
)  # fmt: skip


@pytest.fixture(scope="module")
def home(ml100k_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables whose people live in three zones."""
    import shutil

    folder = tmp_path_factory.mktemp("zones") / "tables"
    shutil.copytree(ml100k_tables, folder)
    users = pl.read_parquet(folder / "users.parquet")
    zones = ["Europe/Rome", "America/Bogota", "Asia/Kolkata"]
    users.with_columns(timezone=pl.Series([zones[u % 3] for u in users["user_id"]])).write_parquet(
        folder / "users.parquet"
    )
    return folder


@pytest.fixture
def rows(home: Path, mail_bundle: Bundle, mail_store: Store) -> pl.DataFrame:
    subjects = [Variant(name="v1", text="Films", proposed_by="ada", state="approved")]
    contact = read_contact(home, FIRST, AT)
    material = Material(Engine.open(mail_bundle, mail_store), contact, Choice(subjects), None)
    return decide(FIRST, material, list(range(1, 201)), AT)


def test_hours_are_read_as_they_were_meant_in_each_zone(rows: pl.DataFrame, home: Path, tmp_path: Path) -> None:
    found = decisions_of(FIRST, rows)
    assert found.columns == list(SCHEMA) and found["decision_id"].is_unique().all()
    for name in ("users", "events"):
        (tmp_path / f"{name}.parquet").symlink_to(home / f"{name}.parquet")
    found.write_parquet(tmp_path / "decisions.parquet")
    log = read_mail_log(tmp_path, open_event="open", not_there=[])
    sent = rows.filter("send")
    place = {user: at for at, user in enumerate(log.user_ids)}
    assert log.sent.sum() == len(sent) > 100 and len(set(sent["hour"])) > 50
    for row in sent.iter_rows(named=True):
        assert log.sent[place[row["user_id"]], row["hour"]] == 1, row["send_local"]
    assert sorted(log.arrived.tolist()) == sorted(sent["send_at"].dt.epoch("us").to_list())


def test_whoever_is_held_back_has_one_decision_and_nothing_else(rows: pl.DataFrame) -> None:
    found, held = decisions_of(FIRST, rows), rows.filter(~pl.col("send"))
    mine = found.filter(pl.col("user_id").is_in(held["user_id"].implode()))
    assert set(mine["kind"]) == {"hold"} and len(mine) == len(held) > 20
    assert set(mine["arm"]) == {"global_holdout", "campaign_holdout"}
    assert set(found.filter(pl.col("kind") != "hold")["arm"]) == {"campaign"}
    # whom chance held out of this campaign stands beside whom it did not, with how likely each was
    drawn = found.filter((pl.col("kind") == "hold") & (pl.col("propensity") < 1))
    assert set(drawn.select("chosen", "arm").iter_rows()) == {("hold", "campaign_holdout"), ("send", "campaign")}
    assert drawn.filter(pl.col("chosen") == "send")["user_id"].to_list() == rows.filter("send")["user_id"].to_list()
    share = FIRST.holdouts.campaign
    for chosen, propensity in drawn.select("chosen", "propensity").unique().iter_rows():
        assert propensity == pytest.approx(share if chosen == "hold" else 1 - share, abs=1e-4)
    # an empty block has no decisions, and offers none were decided on
    assert set(found["kind"]) == {"hold", "channel", "subject", "send_hour", "item"}
    items = found.filter(pl.col("kind") == "item")
    assert len(items) == 3 * rows["send"].sum() and set(items["position"]) == {0.0, 1.0, 2.0}
    assert items["propensity"].is_between(0, 1).all() and (items["eligible_count"] > 3).all()


def test_an_offer_is_a_decision_where_there_is_one(rows: pl.DataFrame) -> None:
    level = pl.when(pl.col("send") & (pl.col("user_id") % 2 == 0))
    offered = rows.with_columns(
        offer=level.then(pl.lit("ten")), offer_propensity=level.then(pl.lit(0.25)), offers=level.then(pl.lit(4))
    )
    found = decisions_of(FIRST, offered).filter(pl.col("kind") == "offer")
    assert len(found) == offered["offer"].is_not_null().sum() > 50
    assert set(found.select("chosen", "propensity", "eligible_count").rows()) == {("ten", 0.25, 4.0)}


def test_the_next_campaigns_caps_count_what_is_still_to_arrive(rows: pl.DataFrame, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    decisions_of(FIRST, rows).write_parquet(path)
    next_ = Campaign(name="second", blocks=BLOCKS, subjects="s.json", caps=[Cap(most=1, days=3)])
    sends = read_contact(home, next_, AT + 1, [path]).sends
    assert set(sends["user_id"]) == set(rows.filter("send")["user_id"]) and set(sends["channel"]) == {"email"}
    late = sends.filter(pl.col("at") > AT + timedelta(days=1) // timedelta(microseconds=1))
    assert len(late) > 50  # decided on, and not arrived yet
    assert read_contact(home, FIRST, AT + 1, [path]).sends.is_empty()  # its own: it may be run again
    context = msgspec.json.decode(decisions_of(FIRST, rows).filter(pl.col("kind") == "send_hour")["context"][0])
    assert (context["campaign"], context["channel"]) == ("first", "email")
