"""`playbill campaign run` for the people of MovieLens-100K: killed and run again, refused, set aside, looked at."""

from __future__ import annotations

import html
import subprocess
import sys
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from playbill.campaign.brand import BrandRules
from playbill.campaign.copy_file import Copy, decide, propose, write_copy
from playbill.campaign.decisions import SCHEMA
from playbill.campaign.offer_facts import FactSpec
from playbill.campaign.offers import About
from playbill.campaign.restraint import read_contact
from playbill.campaign.settings import Campaign
from playbill.serving import processes
from playbill.serving.campaigns.folder import read_plan
from playbill.serving.campaigns.shards import put_contact
from playbill.state.events import Event
from playbill.state.store import Store
from playbill.tables.schema import EventKind

from .campaign_runs import campaign_command, kill_after, rows_of, run_campaign

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TOLD = ("campaign.holdouts={everywhere: 0.05, campaign: 0.2}", "preview=10")
FIELDS = (
    "campaign.blocks=[{name: picks, k: 4, surface: trending}, {name: more, k: 3}]", "shard_users=100",
    "campaign.tokens=[{name: number, column: user_id, default: none}]", "campaign.caps=[]",
)  # fmt: skip
command, ran = partial(campaign_command, FIELDS), partial(run_campaign, FIELDS)


@pytest.fixture(scope="module")
def mailing(home: Path) -> Path:
    """A home with subjects that somebody approved."""
    path = home / "subjects.json"
    write_copy(path, Copy(facts=[], rules=BrandRules(tokens=("number",))))
    assert propose(path, ["Films for your week", "For member {number}", "Nobody approved it"], "ada") == []
    for name in ("v1", "v2"):
        decide(path, name, "ada", True)
    return home


@pytest.fixture(scope="module")
def told(mailing: Path) -> Path:
    """A campaign that was decided, with holdouts."""
    done = ran(mailing, "told", *TOLD)
    assert done.returncode == 0, done.stderr
    return mailing


def test_killed_again_and_again_it_decides_what_it_would_have(mailing: Path) -> None:
    folder = mailing / "campaigns" / "killed"
    for parts in (2, 6):
        kill_after(parts, command(mailing, "killed", "workers=2"), folder)
    mark = (folder / ".owner").read_text()
    again = ran(mailing, "killed", "workers=2")
    assert again.returncode == 0 and "going on" in again.stderr, again.stderr
    assert processes.marked(mark) == [], "the killed run's workers live on"
    assert sorted(p.name for p in folder.iterdir()) == [
        "aside.parquet", "decisions", "plan.json", "preview.html", "rows", "success.json",
    ]  # fmt: skip
    killed = {what: rows_of(mailing, "killed", what) for what in ("rows", "decisions")}
    assert killed["rows"]["user_id"].to_list() == list(range(1, 944))
    undisturbed = ran(mailing, "killed", "force=true")
    assert undisturbed.returncode == 0, undisturbed.stderr
    for what, before in killed.items():
        assert rows_of(mailing, "killed", what).equals(before)
    third = ran(mailing, "killed")
    assert third.returncode == 0 and "is decided" in third.stderr


def test_a_basket_left_behind_stands_in_its_owners_message(mailing: Path, tmp_path: Path) -> None:
    """Not what they bought since, and nothing twice in a message."""
    baskets = {1: [300, 301], 2: [50], 3: [], 4: [9999, 302, 303, 304, 305], 5: [306, 307]}
    with Store.open(mailing / "state") as store:
        assert store.declared is not None
        kinds = [*store.declared.events, EventKind(name="purchase")]
        store.declare(msgspec.structs.replace(store.declared, events=kinds))
        at = round(datetime(1998, 4, 24, 9).timestamp() * 1e6)
        assert all(store.append([Event(event_id="bought", user_id=5, event="purchase", item_id=306, at=at)]))
    file = tmp_path / "left.parquet"
    pl.DataFrame({"user_id": list(baskets), "left": list(baskets.values())}).write_parquet(file)
    blocks = "campaign.blocks=[{name: left, k: 3, surface: rerank}, {name: more, k: 4, surface: trending}]"
    given = (f"campaign.audience={{file: {file}, items: left}}", blocks, "preview=5")
    done = ran(mailing, "basket", *given)
    assert done.returncode == 0, done.stderr
    rows = {row["user_id"]: row for row in rows_of(mailing, "basket").iter_rows(named=True)}
    assert not rows[3]["send"] and rows[3]["reason"] == "too_few_items"
    assert set(rows[1]["left_items"]) == {300, 301} and rows[2]["left_items"] == [50]
    assert len(rows[4]["left_items"]) == 3 and set(rows[4]["left_items"]) <= {302, 303, 304, 305}
    assert rows[5]["left_items"] == [307]
    for row in rows.values():
        if row["send"]:
            assert not set(row["left_items"]) & set(row["more_items"]) and len(row["more_items"]) == 4
    decided = rows_of(mailing, "basket", "decisions").filter(pl.col("kind") == "item", pl.col("user_id") == 1)
    assert {"300", "301"} <= set(decided["chosen"])
    # without a need for the block the message goes out with the others
    least = blocks.replace("k: 3,", "k: 3, least: 0,")
    assert ran(mailing, "basket", given[0], least, "preview=5", "force=true").returncode == 0
    [third] = rows_of(mailing, "basket").filter(pl.col("user_id") == 3).iter_rows(named=True)
    assert third["send"] and third["left_items"] == [] and third["bundle"]
    nowhere = f"campaign.audience={{file: {file}, items: nothing}}"
    for others, said in (((blocks,), "names no column"), ((nowhere, blocks), "has no column 'nothing'")):
        wrong = ran(mailing, "nobasket", *others)
        assert wrong.returncode == 2 and said in " ".join(wrong.stderr.split())


def test_every_decision_stands_in_the_contracts_table(told: Path) -> None:
    rows, decisions = rows_of(told, "told"), rows_of(told, "told", "decisions")
    assert decisions.columns == list(SCHEMA) and decisions["decision_id"].n_unique() == len(decisions)
    sent, held = rows.filter("send"), rows.filter(~pl.col("send"))
    assert len(held) > 150 and set(held["reason"]) == {"global_holdout", "campaign_holdout"}
    kinds = dict(decisions.group_by("kind").len().iter_rows())
    items = int(sent["picks_items"].list.len().sum() + sent["more_items"].list.len().sum())
    plain = dict.fromkeys(("channel", "subject", "send_hour"), len(sent))
    assert {k: v for k, v in kinds.items() if k != "creative"} == {**plain, "hold": len(rows), "item": items}
    hours = decisions.filter(pl.col("kind") == "send_hour").join(sent, on="user_id")
    assert (hours["at"] == hours["send_at"]).all() and (hours["propensity"] == hours["hour_propensity"]).all()
    assert set(decisions["arm"]) == {"campaign", "global_holdout", "campaign_holdout"}
    first = sent.row(0, named=True)
    mine = decisions.filter((pl.col("user_id") == first["user_id"]) & (pl.col("kind") == "item")).sort("position")
    shown = mine.filter(pl.col("request_id") == first["more_request_id"])
    assert shown["chosen"].to_list() == [str(i) for i in first["more_items"]]
    assert shown["propensity"].to_list() == first["more_propensities"]
    assert msgspec.json.decode(first["tokens"]) == {"number": str(first["user_id"])}
    assert first["hero_item"] == first["picks_items"][0]
    assert msgspec.json.decode(hours["context"][0]) == {"campaign": "told", "channel": "email"}


def test_the_caps_of_the_next_campaign_count_it_without_an_import(told: Path) -> None:
    sent = rows_of(told, "told").filter("send")["user_id"]
    done = ran(told, "after", "campaign.caps=[{most: 1, days: 30}]")
    assert done.returncode == 0, done.stderr
    after = rows_of(told, "after")
    assert set(after.filter(pl.col("reason") == "frequency_cap")["user_id"]) >= set(sent)
    assert after["send"].sum() <= 943 - len(sent)


def test_the_preview_shows_recipients_and_asks_for_nothing_from_elsewhere(told: Path) -> None:
    page = (told / "campaigns" / "told" / "preview.html").read_text()
    assert page.count("<article>") == 8 and page.count("<article class=held>") == 2
    assert "campaign_holdout" in page and "src=" not in page and "href=" not in page and "<script" not in page
    row = rows_of(told, "told").filter("send").row(0, named=True)
    assert html.escape(row["picks_titles"][0]) in page and row["send_local"] in page and "{number}" not in page


def test_the_plan_says_before_what_the_run_did(told: Path) -> None:
    run = command(told, "ahead", *TOLD[:1])
    plan = [*run[:4], "plan", *(part for part in run[5:] if not part.startswith(("shard_users", "workers")))]
    done = subprocess.run(plan, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said: Any = msgspec.json.decode((told / "campaigns" / "ahead" / "plan" / "plan.json").read_bytes())
    tables = said["tables"]
    reasons = {row["reason"]: row["held back"] for row in tables["audience after each reason to hold back"]}
    # the global holdout is of the same people in every campaign, the campaign's own of others
    held = rows_of(told, "told").filter(pl.col("reason") == "global_holdout")
    assert reasons["global_holdout"] == len(held) and abs(reasons["campaign_holdout"] - 0.2 * 890) < 60
    left = tables["audience after each reason to hold back"][-1]["left"]
    assert said["verdict"] == f"{left} of 943 recipients would be sent it"
    power = tables["what the holdout can show"]
    assert power[0]["holdout"] == 0.2 and power[0]["people held out"] == round(0.2 * (943 - len(held)))
    groups = {row["group"].partition(" = ")[0] for row in tables["whom it would reach, by group (for audits)"]}
    assert "gender" in groups and not any(
        row["differs"] for row in tables["whom it would reach, by group (for audits)"]
    )
    opens = next(s for s in said["statements"] if s["name"] == "messages opened")
    assert opens["estimate"] is None and "train-campaign" in opens["refused"]
    spend = next(s for s in said["statements"] if s["name"].startswith("money for offers"))
    assert spend["estimate"] is None and spend["refused"] == "no offers declared"
    assert sorted(p.name for p in (told / "campaigns" / "ahead").iterdir()) == ["plan"], "it decided something"


@pytest.mark.parametrize(
    ("change", "named"), [("campaign.seed=1", "declaration"), ("campaign.audience.filter='user_id < 40'", "audience")]
)
def test_another_declaration_under_a_name_that_decided_is_refused(told: Path, change: str, named: str) -> None:
    before = rows_of(told, "told")
    other = ran(told, "told", *TOLD, change)
    assert other.returncode == 1 and "was begun with another" in other.stderr and named in other.stderr
    assert rows_of(told, "told").equals(before)


def test_rows_that_are_nobody_are_set_aside_and_who_said_no_since_is_left_alone(mailing: Path, tmp_path: Path) -> None:
    """Of the store nobody asked when the tables were made: 5 takes their consent back, 6 unsubscribes, 7 comes back."""
    audience = tmp_path / "audience.csv"
    audience.write_text("user_id,note\n7,\n,nobody\nseven,\n8,\n7,again\n99999,unknown\n9,\n5,\n6,\n10,\n")
    with Store.open(mailing / "state") as store:
        store.set_features({5: {"consent_marketing": False}})
        assert store.declared is not None
        events = [*store.declared.events, EventKind(name="unsubscribe"), EventKind(name="subscribe")]
        store.declare(msgspec.structs.replace(store.declared, events=events))
        moments = {6: [("unsubscribe", 2)], 7: [("unsubscribe", 1), ("subscribe", 3)], 8: [("subscribe", 1)]}
        for user, said in moments.items():
            for event, hour in said:
                moment = round(datetime.fromisoformat(f"1998-04-23T{hour:02}:00:00Z").timestamp() * 1e6)
                store.append([Event(event_id=f"{user}{event}", user_id=user, event=event, at=moment)])
        later = round(datetime.fromisoformat("1998-04-25T00:00:00Z").timestamp() * 1e6)  # than what is decided for
        store.append([Event(event_id="10away", user_id=10, event="unsubscribe", at=later)])
    done = ran(mailing, "aside", f"campaign.audience.file={audience}")
    assert done.returncode == 0, done.stderr
    reasons = dict(rows_of(mailing, "aside").select("user_id", "reason").iter_rows())
    assert reasons == {7: "", 8: "", 9: "", 10: "", 5: "no_consent", 6: "unsubscribed"}
    aside = pl.read_parquet(mailing / "campaigns" / "aside" / "aside.parquet")
    assert aside.rows() == [
        (2, None, "no user_id"),
        (3, "seven", "expected user_id as an integer"),
        (5, "7", "is there before"),
        (6, "99999", "not in the users table"),
    ]
    success: Any = msgspec.json.decode((mailing / "campaigns" / "aside" / "success.json").read_bytes())
    assert (success["recipients"], success["sent"]) == (6, 4) and sum(success["aside"].values()) == 4
    # a run that goes on decides what it would have, and says who has gone since
    rows, folder = rows_of(mailing, "aside"), mailing / "campaigns" / "aside"
    assert dict(pl.read_parquet(folder / "gone_since.parquet").iter_rows()) == {10: "unsubscribed"}
    with Store.open(mailing / "state") as store:
        store.append([Event(event_id="9away", user_id=9, event="unsubscribe", at=later)])
        store.set_features({8: {"consent_email": False}})
    (folder / "success.json").unlink()
    on = ran(mailing, "aside", f"campaign.audience.file={audience}")
    assert on.returncode == 0 and "3 of them have unsubscribed, or taken" in " ".join(on.stderr.split()), on.stderr
    assert rows_of(mailing, "aside").equals(rows)
    gone = pl.read_parquet(folder / "gone_since.parquet")
    assert dict(gone.iter_rows()) == {8: "no_channel", 9: "unsubscribed", 10: "unsubscribed"}
    audience.write_text("user_id\n\nx\n")
    nobody = ran(mailing, "nobody", f"campaign.audience.file={audience}")
    assert nobody.returncode == 1 and "nobody is left of" in nobody.stderr
    assert not (mailing / "campaigns" / "nobody").exists()


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ("bundle=0123456789ab", 1, "no bundle '0123456789ab'"),
        ("campaign.subjects=/nowhere.json", 2, "nowhere.json"),
        ("campaign.audience.filter='gender = 1'", 2, "audience.filter"),
        ("campaign.audience.filter=\"gender = 'F'\"", 2, "column 'gender' is protected"),
        ("campaign.tokens=[{name: number, column: gender, default: x}]", 2, "column 'gender' is protected"),
        ("campaign.blocks=[{name: picks, filter: \"colour = 'red'\"}]", 2, "blocks[0].filter"),
        ("campaign.blocks=[{name: picks, surface: home}]", 2, "blocks[0].surface"),
        ("campaign.blocks=[{name: picks, surface: slat}]", 2, "no surface 'slat'; there are"),
        ("campaign.sensitive=[{filter: \"colour = 'red'\"}]", 2, "sensitive[0].filter"),
        ("send_times=/nowhere", 2, "holds no send_time.npz"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(mailing: Path, change: str, code: int, said: str) -> None:
    done = ran(mailing, "wrong", change, "force=true")
    assert done.returncode == code and said in done.stderr, done.stderr
    assert not list((mailing / "campaigns").glob("wrong/rows/*"))


def test_two_runs_of_one_campaign_cannot_both_write(mailing: Path) -> None:
    with processes.exclusive(mailing / "campaigns" / ".busy.lock") as mine:
        assert mine
        done = ran(mailing, "busy")
    assert done.returncode == 1 and "is being decided" in done.stderr
    assert not (mailing / "campaigns" / "busy").exists()


def test_two_campaigns_at_once_keep_to_one_cap(mailing: Path) -> None:
    asked = ("campaign.caps=[{most: 1, days: 7}]", "at=1998-06-01T12:00Z")  # weeks after all other campaigns
    first = subprocess.Popen(command(mailing, "left", *asked), stderr=subprocess.PIPE, text=True)
    second = ran(mailing, "right", *asked, "campaign.window.weekdays=[2]")
    _, said = first.communicate(timeout=200)
    assert first.returncode == 0 and second.returncode == 0, said + second.stderr
    assert "another campaign is being decided here" in said + second.stderr
    left, right = (rows_of(mailing, name).filter("send")["user_id"].to_list() for name in ("left", "right"))
    assert set(left).isdisjoint(right) and len(left) + len(right) > 900


def test_a_disk_that_is_full_leaves_no_half_file(told: Path) -> None:
    """No file of the worker may be larger than 4 kB, and a shard's decisions are."""
    folder = told / "campaigns" / "told"
    before = rows_of(told, "told")
    (folder / "rows" / "part-00003.parquet").unlink()
    (folder / "decisions" / "part-00003.parquet").unlink()
    plan, tables = read_plan(folder), told / "tables" / "ml-100k"
    assert plan is not None
    campaign = msgspec.convert(plan.declaration, Campaign)
    contact = read_contact(tables, campaign, plan.at)
    put_contact(folder / ".contact", contact, plan, contact.users["user_id"], [3])
    code = f"""
import resource, signal
from pathlib import Path
from playbill.campaign.copy_file import read_copy, sendable
from playbill.campaign.variants import Choice
from playbill.serving.campaigns.folder import read_plan
from playbill.serving.campaigns.shards import RowWriter
folder = Path({str(folder)!r})
subjects = Choice(list(sendable(read_copy(Path({str(told / "subjects.json")!r})))[0]))
writer = RowWriter({str(told)!r}, str(folder), read_plan(folder), subjects, None, None, False, None, None)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))
writer({{"part": 3, "user_ids": list(range(301, 401))}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "File too large" in done.stderr, done.stderr
    assert not (folder / "rows" / "part-00003.parquet").exists()
    assert sorted(p.name for p in (folder / "decisions").iterdir()) == [
        f"part-{n:05}.parquet" for n in range(10) if n != 3
    ]
    (folder / "success.json").unlink()
    again = ran(told, "told", *TOLD)
    assert again.returncode == 0 and "9 of 10 shards" in again.stderr
    assert rows_of(told, "told").drop("state_version").equals(before.drop("state_version"))  # of later events


def test_offers_are_settled_once_for_all_shards_and_reruns(mailing: Path) -> None:
    model, folder = mailing / "offer-model", mailing / "campaigns" / "gifts"
    model.mkdir()
    spec = FactSpec(levels=["none", "gift"], inputs=[], words={}, events=[])
    arrays: dict[str, np.ndarray] = {"effects": np.array([False])}
    for level, chance in enumerate((0.1, 0.3)):
        leaf = {"feature": [[-1]], "threshold": [[0.0]], "left": [[0]], "right": [[0]], "value": [[0.0]]}
        arrays |= {f"{key}{level}": np.array(value) for key, value in leaf.items()}
        arrays |= {f"missing{level}": np.array([[False]]), f"start{level}": np.array([chance])}
    np.savez(model / "offers.npz", **arrays)  # type: ignore[arg-type]  # arrays by name
    about = About(spec=spec, form="trees", value=20.0, surer=1.0, judged={})
    (model / "offers.json").write_bytes(msgspec.json.encode(about))
    told = (
        "campaign.offers.levels=[{name: gift, cost: 1.0}]", "campaign.offers.budget=200",
        "campaign.offers.release_unequal=true", "campaign.offers.cuts={age: [30, 50]}", f"offers={model}",
    )  # fmt: skip
    with Store.open(mailing / "state") as store:
        store.set_features({100: {"consent_personalisation": False}})  # since the tables were made
    # who explores could cost more than is left: refused, and what the refusal asks for is then done under the same name
    poor = ran(mailing, "gifts", *told, "campaign.offers.budget=1", "campaign.offers.explore=0.5")
    assert poor.returncode == 2 and "offers.budget" in poor.stderr, poor.stderr
    done = ran(mailing, "gifts", *told)
    assert done.returncode == 0, done.stderr
    assert "offer <b>gift</b>" in (folder / "preview.html").read_text()
    rows, settled = rows_of(mailing, "gifts"), pl.read_parquet(folder / "offers.parquet")
    # no money is set aside for people who are not written to; 5 and 8 told the store alone
    sent_to = set(rows.filter("send")["user_id"])
    assert set(settled["user_id"]) - sent_to <= {5, 8} and sent_to <= set(settled["user_id"])
    assert 150 < (settled["offer"] == "gift").sum() <= 200
    why = dict(settled.select("user_id", "offer_reason").iter_rows())
    assert [user for user, reason in why.items() if reason == "no_consent"] == [100] and 100 in sent_to
    sent = rows.filter("send").join(settled, on="user_id", suffix="_settled")
    assert (sent["offer"] == sent["offer_settled"]).all()
    offers = rows_of(mailing, "gifts", "decisions").filter(pl.col("kind") == "offer")
    assert len(offers) == len(sent) and offers["propensity"].null_count() == 0
    (folder / "rows" / "part-00003.parquet").unlink()
    (folder / "success.json").unlink()
    again = ran(mailing, "gifts", *told)
    assert again.returncode == 0, again.stderr
    assert rows_of(mailing, "gifts").equals(rows) and pl.read_parquet(folder / "offers.parquet").equals(settled)
