"""Who is held back, of the people of MovieLens-100K, and that it is for the reason that was given."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from playbill.campaign.restraint import DAY_US, Contact, counts, read_contact, restrain, with_events_since
from playbill.campaign.settings import Block, Campaign, Cap, Fatigue, Holdouts
from playbill.errors import TableError
from playbill.measure.assignment import Plan, bucket_of, hash_id, held_out
from playbill.state.events import Declared, Event
from playbill.state.store import Store
from playbill.tables.schema import EventKind

AT = round(datetime(2026, 11, 23, tzinfo=UTC).timestamp() * 1e6)


def campaign(**fields: Any) -> Campaign:
    return Campaign(**{"name": "autumn", "blocks": [Block(name="picks")], "subjects": "s.json", **fields})


@pytest.fixture(scope="module")
def people(ml100k_tables: Path) -> Contact:
    return read_contact(ml100k_tables, campaign(), AT)


def held(contact: Contact, mine: Campaign, states: dict[int, dict[str, Any]] | None = None, at: int = AT) -> Any:
    ids = contact.users["user_id"].to_list()
    declared = [(states or {}).get(user, {}) for user in ids]
    found = restrain(mine, contact, ids, declared, np.ones(len(ids), bool), at)
    return found, dict(zip(ids, found.reason, strict=True)), dict(zip(ids, found.channel, strict=True))


def changed(contact: Contact, **columns: Any) -> Contact:
    return Contact(contact.users.with_columns(**columns), contact.words, contact.sends)


def test_where_nothing_is_asked_everybody_is_written_to(people: Contact) -> None:
    found, _, channel = held(people, campaign())
    assert counts(found.reason) == {"sent": 943} and set(channel.values()) == {"email"}


def test_only_a_stated_yes_allows(people: Contact) -> None:
    user = pl.col("user_id")
    said = pl.when(user <= 10).then(False).when(user <= 20).then(None).otherwise(True)
    _, reason, _ = held(changed(people, consent_marketing=said), campaign())
    assert {u for u, why in reason.items() if why == "no_consent"} == set(range(1, 21))
    _, reason, _ = held(changed(people, contactable=said), campaign())
    assert {u for u, why in reason.items() if why == "not_contactable"} == set(range(1, 21))
    _, reason, _ = held(changed(people, consent_marketing=said), campaign(purpose="service"))
    assert set(reason.values()) == {""}


def test_who_is_in_no_table_gave_no_consent(people: Contact) -> None:
    asked = changed(people, consent_marketing=pl.lit(True))
    found = restrain(campaign(), asked, [1, 5000], [{}, {}], np.ones(2, bool), AT)
    assert found.reason == ["", "no_consent"]


def test_what_was_withdrawn_since_holds_and_what_was_given_since_does_not(people: Contact) -> None:
    asked = changed(people, consent_marketing=pl.col("user_id") != 7)
    _, reason, _ = held(asked, campaign(), {8: {"consent_marketing": False}, 7: {"consent_marketing": True}})
    assert {u for u, why in reason.items() if why} == {7, 8}


def test_each_is_written_to_on_the_first_channel_that_they_allow(people: Contact) -> None:
    user = pl.col("user_id")
    asked = changed(people, consent_email=user % 2 == 0, consent_marketing_push=user % 3 == 0)
    found, reason, channel = held(asked, campaign(channels=["email", "push"]))
    for u in range(1, 944):
        expected = "email" if u % 2 == 0 else "push" if u % 3 == 0 else None
        assert channel[u] == expected and reason[u] == ("" if expected else "no_channel")
    assert counts(found.reason) == {"sent": 628, "no_channel": 315}


def test_consent_that_is_no_flag_is_an_error(people: Contact) -> None:
    with pytest.raises(TableError, match="consent_marketing is .*, expected bool"):
        held(changed(people, consent_marketing=pl.lit("false")), campaign())
    with pytest.raises(TableError, match="3 is there twice"):
        restrain(campaign(), people, [1, 3, 3], [{}] * 3, np.ones(3, bool), AT)


def test_the_last_word_of_unsubscribing_counts(ml100k_tables: Path, tmp_path: Path) -> None:
    """Their own words, among a hundred thousand ratings."""
    events = pl.read_parquet(ml100k_tables / "events.parquet")
    words = [(1, "unsubscribe", 1), (2, "unsubscribe", 1), (2, "subscribe", 2), (3, "subscribe", 1),
             (3, "unsubscribe", 2), (4, "unsubscribe", 9), (5, "subscribe", 3), (5, "unsubscribe", 3)]  # fmt: skip
    told = pl.DataFrame(
        {"user_id": [u for u, _, _ in words], "event": [e for _, e, _ in words], "at": [t for _, _, t in words]}
    ).with_columns(at=(AT - 5 * DAY_US + pl.col("at") * DAY_US).cast(pl.Datetime("us", "UTC")))
    pl.concat([events, told.cast({"user_id": events.schema["user_id"]})], how="diagonal").write_parquet(
        tmp_path / "events.parquet"
    )
    for name in ("users.parquet", "tables.json"):
        (tmp_path / name).write_bytes((ml100k_tables / name).read_bytes())
    found, reason, _ = held(read_contact(tmp_path, campaign(), AT), campaign())
    assert {u for u, why in reason.items() if why} == {1, 3, 5}  # the 4th says so later than now
    assert counts(found.reason) == {"sent": 940, "unsubscribed": 3}


def test_of_tables_and_store_who_heard_a_person_later_counts(people: Contact, tmp_path: Path) -> None:
    """Tables may be prepared that the store has not read yet: then its last word is not the last one."""
    said = {1: (True, 5, False, 2), 2: (True, 2, False, 5), 3: (False, 5, True, 2), 4: (False, 2, True, 5),
            5: (True, 3, False, 3), 6: (False, 3, True, 3)}  # fmt: skip
    hour = DAY_US // 24
    words = [(user, AT - 9 * hour + hours * hour, away) for user, (away, hours, _, _) in said.items()]
    told = replace(people, words=pl.DataFrame(words, people.words.schema, orient="row"))
    with Store.open(tmp_path / "state") as store:
        kinds = [EventKind(name="unsubscribe"), EventKind(name="subscribe")]
        store.declare(Declared(events=kinds, user_id_type="int64", item_id_type="int64"))
        for user, (_, _, away, hours) in said.items():
            event = "unsubscribe" if away else "subscribe"
            store.append([Event(event_id=str(user), user_id=user, event=event, at=AT - 9 * hour + hours * hour)])
        found = with_events_since(told, store, campaign(), AT)
    assert sorted(found.unsubscribed.to_list()) == [1, 4, 5, 6]


def test_caps_count_all_campaigns_and_not_the_one_that_is_run_again(ml100k_tables: Path, tmp_path: Path) -> None:
    rows = [(1, 1, "spring", "email"), (1, 2, "winter", "push"), (2, 1, "spring", "email"), (2, 9, "spring", "email"),
            (3, 1, "autumn", "email"), (3, 1, "autumn", "email"), (4, -1, "spring", "email"), (4, 1, None, None),
            (5, 1, "spring", "push"), (5, 2, "spring", "push"),
            (6, 1, "spring", "email"), (6, 1, "winter", "email")]  # fmt: skip
    context = [None if c is None else f'{{"campaign": "{c}", "channel": "{way}"}}' for _, _, c, way in rows]
    decided = {
        "decision_id": [str(row) for row in range(len(rows))],
        "request_id": ["r"] * len(rows),
        "kind": ["send_hour"] * len(rows),
        "chosen": ["9"] * len(rows),
        "user_id": [user for user, *_ in rows],
        "at": [AT - days * DAY_US for _, days, _, _ in rows],
        "context": context,
    }
    moment = pl.col("at").cast(pl.Datetime("us", "UTC"))
    pl.DataFrame(decided).with_columns(moment).write_parquet(tmp_path / "decisions.parquet")
    for name in ("users.parquet", "events.parquet", "tables.json"):
        (tmp_path / name).write_bytes((ml100k_tables / name).read_bytes())
    both, caps = ["email", "push"], [Cap(most=2, days=7)]
    # a message counts once, in however many files it stands; of two campaigns that arrive at the same moment each does
    contact = read_contact(tmp_path, campaign(), AT, [tmp_path / "decisions.parquet"])
    _, reason, _ = held(contact, campaign(channels=both, caps=caps))
    assert {u for u, why in reason.items() if why == "frequency_cap"} == {1, 4, 5, 6}
    # one that was decided on but is still to come counts, and so does one of no noted channel, on each
    _, reason, channel = held(contact, campaign(channels=both, caps=[Cap(most=2, days=7, channel="email")]))
    assert channel[4] == channel[6] == "push" and channel[5] == "email" and not any(reason.values())
    _, reason, _ = held(contact, campaign(channels=["push"], caps=[Cap(most=2, days=7, channel="push")]))
    assert {u for u, why in reason.items() if why} == {5}
    found, _, _ = held(contact, campaign(caps=[Cap(most=0, days=7)]))
    assert counts(found.reason) == {"sent": 0, "frequency_cap": 943}


def test_whoever_read_nothing_is_left_alone_and_a_mail_program_reads_nothing(
    ml100k_tables: Path, tmp_path: Path
) -> None:
    """Four mails each. The 1st's are opened by a program within seconds; the 2nd read the last but one, an hour later;
    the 3rd opened nothing; the 4th reads one of them at once and the others never, as people do."""
    days, hour = (8, 6, 4, 2), 3_600_000_000
    opens = [(1, AT - day * DAY_US + 5_000_000) for day in days]
    opens += [(2, AT - 4 * DAY_US + hour), (4, AT - 2 * DAY_US + 30_000_000)]
    sends = [(user, AT - day * DAY_US) for user in (1, 2, 3, 4) for day in days]
    at = pl.col("at").cast(pl.Datetime("us", "UTC"))
    decided = pl.DataFrame(
        {"decision_id": [str(n) for n in range(len(sends))], "kind": "send_hour", "chosen": "9",
         "user_id": [user for user, _ in sends], "at": [moment for _, moment in sends],
         "context": ['{"campaign": "spring", "channel": "email"}'] * len(sends)}
    ).with_columns(at)  # fmt: skip
    decided.write_parquet(tmp_path / "decisions.parquet")
    events = pl.read_parquet(ml100k_tables / "events.parquet")
    told = pl.DataFrame({"user_id": [u for u, _ in opens], "event": "open", "at": [t for _, t in opens]})
    told = told.with_columns(at).cast({"user_id": events.schema["user_id"]})
    pl.concat([events, told], how="diagonal").write_parquet(tmp_path / "events.parquet")
    for name in ("users.parquet", "tables.json"):
        (tmp_path / name).write_bytes((ml100k_tables / name).read_bytes())
    tired = campaign(fatigue=Fatigue(sends=3, days=30))
    _, reason, _ = held(read_contact(tmp_path, tired, AT), tired)
    assert {u for u, why in reason.items() if why == "fatigue"} == {1, 3}
    believing = campaign(fatigue=Fatigue(sends=3, days=30, machine_s=0))
    _, reason, _ = held(read_contact(tmp_path, believing, AT), believing)
    assert {u for u, why in reason.items() if why == "fatigue"} == {3}


def test_without_an_hour_nobody_is_written_to(people: Contact) -> None:
    found = restrain(campaign(), people, [1, 2], [{}, {}], np.asarray([False, True]), AT)
    assert found.reason == ["quiet_hours", ""]


def test_the_global_holdout_is_that_of_experiments_and_the_campaigns_is_another(people: Contact) -> None:
    mine = campaign(holdouts=Holdouts(everywhere=0.1, campaign=0.2, salt="2026"))
    found, reason, _ = held(people, mine)
    plan = Plan(holdout=0.1, holdout_salt="2026")
    for user, why in reason.items():
        everywhere = bucket_of(hash_id(user), plan.holdout_salt) < held_out(plan)
        assert (why == "global_holdout") == everywhere
    shares = found.everywhere.mean(), found.campaign.mean()
    for share, expected in zip(shares, (0.1, 0.2), strict=True):
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / 943)
    both = (found.everywhere & found.campaign).mean()
    assert abs(both - 0.02) < 4 * np.sqrt(0.02 * 0.98 / 943)
    again, _, _ = held(people, campaign(holdouts=Holdouts(everywhere=0.1, campaign=0.2, salt="2026"), seed=9))
    assert again.reason == found.reason
    larger, _, _ = held(people, campaign(holdouts=Holdouts(everywhere=0.1, campaign=0.3, salt="2026")))
    assert (larger.campaign >= found.campaign).all()
    other, _, _ = held(people, campaign(name="winter", holdouts=Holdouts(everywhere=0.1, campaign=0.2, salt="2026")))
    assert (other.everywhere == found.everywhere).all() and (other.campaign != found.campaign).any()


def test_whoever_is_held_out_would_have_been_written_to(people: Contact) -> None:
    asked = changed(people, consent_marketing=pl.col("user_id") % 2 == 0)
    found, reason, _ = held(asked, campaign(holdouts=Holdouts(campaign=0.5)))
    counted = counts(found.reason)
    assert counted["no_consent"] == 472 and sum(counted.values()) == 943
    assert all(user % 2 == 0 for user, why in reason.items() if why == "campaign_holdout")
