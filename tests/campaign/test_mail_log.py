"""Mails of a log: local hours, openings and machines, by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from playbill.campaign.mail_log import MailLog, read_mail_log
from playbill.errors import TableError

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def tables(folder: Path) -> Path:
    """Two people; 1 in Rome reads, 2 in New York has a machine that opens all her mails, and reads one of them."""
    pl.DataFrame(
        {"user_id": [1, 2], "timezone": ["Europe/Rome", "America/New_York"], "segment": ["a", None]}
    ).write_parquet(folder / "users.parquet")
    days = [MONDAY + timedelta(days=d) for d in range(4)]
    pl.DataFrame(
        {
            "decision_id": range(8),
            "request_id": range(8),
            "kind": ["send_hour"] * 8,
            "chosen": ["9", "9", "20", "0", "9", "9", "9", "9"],
            "user_id": [1] * 4 + [2] * 4,
            "at": days * 2,
        }
    ).write_parquet(folder / "decisions.parquet")

    def later(day: int, hours: float) -> datetime:
        return days[day] + timedelta(hours=hours)

    machine = [(2, "open", later(d, 14.001)) for d in range(4)]  # 9 in New York is 14 in UTC; 4 seconds later
    events = [
        (1, "open", later(0, 8.5)),  # Rome's 9 is 8 in UTC
        (1, "open", later(0, 9.5)),  # the same mail again
        (1, "open", later(2, 21)),  # of the third, which came at 19 UTC
        (1, "view", later(1, 23.5)),  # Wednesday, half past midnight
        (2, "open", later(1, 20)),
        (2, "message_click", later(1, 20.1)),
        *machine,
    ]
    pl.DataFrame(
        {
            "event_id": range(len(events)),
            "user_id": [u for u, _, _ in events],
            "event": [e for _, e, _ in events],
            "at": [a for _, _, a in events],
        }
    ).write_parquet(folder / "events.parquet")
    return folder


def read(folder: Path, **given: int) -> MailLog:
    return read_mail_log(folder, open_event="open", not_there=["message_click"], segment="segment", **given)


def test_mails_arrive_by_their_readers_clock(tmp_path: Path) -> None:
    log = read(tables(tmp_path))
    assert log.user_ids.to_list() == [1, 2] and log.segment == ["a", ""]
    # midnight UTC is 1 in Rome: 9 and 20 come the same day, 0 the next one; the evening before in New York
    assert log.sent[0].nonzero()[0].tolist() == [9, 24 + 9, 2 * 24 + 20, 4 * 24]
    assert log.sent[1].nonzero()[0].tolist() == [9, 24 + 9, 2 * 24 + 9, 3 * 24 + 9]
    assert log.sent.sum() == 8 and len(log.arrived) == 8


def test_an_opening_belongs_to_the_last_mail_and_machines_do_not_count(tmp_path: Path) -> None:
    log = read(tables(tmp_path))
    assert log.opened[0].nonzero()[0].tolist() == [9, 2 * 24 + 20] and log.opened[0].max() == 1
    assert log.machines.tolist() == [False, True] and log.machine_opens == 4
    assert log.opened[1].nonzero()[0].tolist() == [24 + 9]  # which she read herself
    assert log.there[0].nonzero()[0].tolist() == [2 * 24] and log.there[1].sum() == 0
    assert log.open_hours[1].nonzero()[0].tolist() == [24 + 15]


def test_an_opening_belongs_to_the_mail_whose_decision_it_names(tmp_path: Path) -> None:
    folder = tables(tmp_path)
    before = read(folder)
    events = pl.read_parquet(folder / "events.parquet")
    # her third evening's opening was of the second mail, which a rule by time alone would not know
    third = (
        (pl.col("user_id") == 1) & (pl.col("event") == "open") & (pl.col("at") == MONDAY + timedelta(days=2, hours=21))
    )
    events.with_columns(decision_id=pl.when(third).then(1)).write_parquet(folder / "events.parquet")
    after = read(folder)
    assert before.opened[0].nonzero()[0].tolist() == [9, 2 * 24 + 20]
    assert after.opened[0].nonzero()[0].tolist() == [9, 24 + 9]
    assert (after.opened[1] == before.opened[1]).all() and (after.sent == before.sent).all()


def test_a_moment_parts_mails_and_leaves_out_what_could_still_be_opened(tmp_path: Path) -> None:
    folder = tables(tmp_path)
    split = round((MONDAY + timedelta(days=3, hours=12)).timestamp() * 1e6)
    earlier, later = read(folder, until=split), read(folder, since=split)
    assert earlier.sent.sum() == 1 and earlier.opened.sum() == 1  # the others came within three days of it
    assert later.sent.sum() == 2 and later.sent[0].nonzero()[0].tolist() == [4 * 24]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = tables(tmp_path)
    with pytest.raises(TableError, match="no column 'kind'"):
        read_mail_log(folder, open_event="open", not_there=[], segment="kind")
    (folder / "users.parquet").unlink()
    with pytest.raises(TableError, match="no table of users"):
        read(folder)
