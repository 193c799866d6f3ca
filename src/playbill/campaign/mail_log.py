"""What tables say of mails: when each arrived by its reader's own clock, was it opened, and when people are there.

A send is a decision of kind `send_hour`: `chosen` is the local hour 0..23, and the mail arrives when the clock next
shows it. An opening belongs to the mail whose decision it names, and where it names none to the last mail that arrived
before it, within `within_h`. Mail programs open what arrives before anybody reads it: whoever's mails are nearly all
opened within `machine_s` is read by a machine, and openings as early as that count nothing for them; a later one of the
same mail does.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from playbill.campaign.rhythm import HOURS
from playbill.errors import TableError
from playbill.tables.folder import has_table

_MACHINE_SHARE, _MACHINE_MAILS = 0.5, 3


@dataclass(slots=True)
class MailLog:
    """Counts of P people by local hour of the week, int32 [P, 168] each.

    Attributes:
        user_ids: [P], every row of the users table.
        timezone, segment: [P] text, "" where there is none.
        there: what they did, openings left out.
        sent, opened: mails by the hour of their arrival, and how many of them were opened.
        open_hours: openings by their own hour.
        machines: [P] bool, people whose mails a machine opens; `machine_opens` is how many openings were left out.
        arrived: [mails] int64 UTC microseconds, ascending.
    """

    user_ids: pl.Series
    timezone: list[str]
    segment: list[str]
    there: np.ndarray
    sent: np.ndarray
    opened: np.ndarray
    open_hours: np.ndarray
    machines: np.ndarray
    machine_opens: int
    arrived: np.ndarray


def read_mail_log(
    tables: Path,
    *,
    open_event: str,
    not_there: Collection[str],
    segment: str | None = None,
    within_h: float = 72.0,
    machine_s: float = 120.0,
    since: int | None = None,
    until: int | None = None,
) -> MailLog:
    """Return the counts of everybody in the users table.

    Args:
        tables: folder of prepared tables.
        open_event: name of the event that is an opening.
        not_there: other events that say nothing of when a person is there, such as clicks in mails.
        segment: column of the users table; None: everybody is of one.
        since: UTC microseconds; mails that arrived before are left out. None takes all.
        until: UTC microseconds; events from then on are left out, and mails that could still be opened then.
    Raises:
        TableError: no users table, or the column is not in it.
    """
    if not has_table(tables, "users"):
        raise TableError(f"{tables} has no table of users: hours are of people, and their time zone stands there")
    users = pl.read_parquet(tables / "users.parquet")
    if segment is not None and segment not in users.columns:
        raise TableError(f"{tables}: users has no column {segment!r}; it has {', '.join(users.columns)}")
    zones = users["timezone"] if "timezone" in users.columns else pl.Series([None] * len(users), dtype=pl.String)
    people = pl.DataFrame({"user_id": users["user_id"], "zone": zones.fill_null("UTC")}).with_row_index("person")
    last = None if until is None else until - round(within_h * 3.6e9)
    sends = arrivals(tables, people, since, last)
    events = _events(tables)
    if until is not None:
        events = events.filter(pl.col("at").dt.epoch("us") < until)
    opens = events.filter(pl.col("event") == open_event).join(people.lazy(), on="user_id").collect()
    others = events.filter(~pl.col("event").is_in([open_event, *not_there])).join(people.lazy(), on="user_id").collect()
    opens, machines, left_out = human(opens, sends, machine_s, len(people))
    opened = sends.filter(pl.col("send").is_in(_opened(tables, opens, sends, within_h).implode()))
    return MailLog(
        user_ids=people["user_id"],
        timezone=people["zone"].to_list(),
        segment=[""] * len(people) if segment is None else users[segment].cast(pl.String).fill_null("").to_list(),
        there=_counts(others["person"], _local_hours(others), len(people)),
        sent=_counts(sends["person"], sends["hour"].to_numpy(), len(people)),
        opened=_counts(opened["person"], opened["hour"].to_numpy(), len(people)),
        open_hours=_counts(opens["person"], _local_hours(opens), len(people)),
        machines=machines,
        machine_opens=left_out,
        arrived=np.sort(sends["arrived"].dt.epoch("us").to_numpy()),
    )


def opened_requests(
    tables: Path, *, open_event: str, within_h: float = 72.0, machine_s: float = 120.0, until: int | None = None
) -> pl.DataFrame:
    """Return the mails by request_id and whether their person opened them (`opened`), machines' openings left out.

    Args:
        until: UTC microseconds; mails and events from then on are left out.
    """
    people = pl.read_parquet(tables / "users.parquet")
    zones = people["timezone"] if "timezone" in people.columns else pl.Series([None] * len(people), dtype=pl.String)
    people = pl.DataFrame({"user_id": people["user_id"], "zone": zones.fill_null("UTC")}).with_row_index("person")
    sends = arrivals(tables, people, None, until)
    if not len(sends):
        return sends.select("request_id", opened=pl.lit(True))
    events = _events(tables).filter(pl.col("event") == open_event)
    opens = events.join(people.lazy(), on="user_id").collect()
    if until is not None:
        opens = opens.filter(pl.col("at").dt.epoch("us") < until)
    opens, _, _ = human(opens, sends, machine_s, len(people))
    opened = pl.col("send").is_in(_opened(tables, opens, sends, within_h).implode())
    return sends.select("request_id", opened=opened)


def _events(tables: Path) -> pl.LazyFrame:
    rows = pl.scan_parquet(tables / "events.parquet")
    which = pl.col("decision_id") if "decision_id" in rows.collect_schema() else pl.lit(None).alias("decision_id")
    return rows.select("user_id", "event", "at", which)


def _opened(tables: Path, opens: pl.DataFrame, sends: pl.DataFrame, within_h: float) -> pl.Series:
    """Return the numbers of the mails that were opened: the one whose decision an opening names, or else the last one
    that arrived before it. Args: `human`."""
    said = opens.filter(pl.col("decision_id").is_not_null())
    named = pl.Series("send", [], sends.schema["send"])
    if len(said):
        which = pl.scan_parquet(tables / "decisions.parquet").select("decision_id", "request_id")
        found = said.lazy().join(which, on="decision_id").select("request_id").unique().collect()
        named = sends.join(found, on="request_id", how="semi")["send"]
    matched = opens.filter(pl.col("decision_id").is_null()).sort("at").join_asof(
        sends.sort("arrived"), left_on="at", right_on="arrived", by="person", strategy="backward",
        tolerance=f"{int(within_h * 60)}m", check_sortedness=False,
    )  # fmt: skip
    return pl.concat([named, matched["send"].drop_nulls()]).unique()


def arrivals(tables: Path, people: pl.DataFrame, since: int | None, until: int | None) -> pl.DataFrame:
    """Return a row a mail: send (its number), person, arrived (UTC), hour (local, of the week), request_id."""
    shape: dict[str, Any] = {
        "send": pl.UInt32,
        "person": pl.UInt32,
        "arrived": pl.Datetime("us", "UTC"),
        "hour": pl.Int64,
        "request_id": pl.Int64,
    }
    if not has_table(tables, "decisions"):
        return pl.DataFrame(schema=shape)
    chosen = (
        pl.scan_parquet(tables / "decisions.parquet")
        .filter(pl.col("kind") == "send_hour")
        .select("user_id", "at", "request_id", hour=pl.col("chosen").cast(pl.String).cast(pl.Int64, strict=False))
        .filter(pl.col("hour").is_between(0, 23))
        .join(people.lazy(), on="user_id")
        .collect()
    )
    parts = []
    for (zone,), rows in chosen.group_by("zone"):
        local = rows["at"].dt.convert_time_zone(_known(str(zone))).dt.replace_time_zone(None)
        ahead = (rows["hour"] - local.dt.hour().cast(pl.Int64)) % 24
        # on the hour itself it goes out at once; past it, tomorrow
        past = (ahead == 0) & (local.dt.truncate("1h") != local)
        at = local.dt.truncate("1h") + (ahead + 24 * past.cast(pl.Int64)).cast(pl.Int64) * timedelta(hours=1)
        arrived = at.dt.replace_time_zone(_known(str(zone)), ambiguous="earliest", non_existent="null")
        week = (at.dt.weekday().cast(pl.Int64) - 1) * 24 + at.dt.hour().cast(pl.Int64)
        parts.append(
            pl.DataFrame(
                {
                    "person": rows["person"],
                    "arrived": arrived.dt.convert_time_zone("UTC"),
                    "hour": week,
                    "request_id": rows["request_id"],
                }
            )
        )
    if not parts:
        return pl.DataFrame(schema=shape)
    found = pl.concat(parts).drop_nulls("arrived").sort("person", "arrived")
    if since is not None:
        found = found.filter(pl.col("arrived").dt.epoch("us") >= since)
    if until is not None:
        found = found.filter(pl.col("arrived").dt.epoch("us") < until)
    return found.with_row_index("send")


def human(opens: pl.DataFrame, sends: pl.DataFrame, machine_s: float, num: int) -> tuple[pl.DataFrame, np.ndarray, int]:
    """Return the openings by people, who is read by a machine [P] bool, and how many openings were machines'.

    Args:
        opens: person (uint32, 0 .. P - 1), at (datetime), and any columns.
        sends: person, arrived (datetime), send (each one's number).
        machine_s: see `read_mail_log`.
        num: P.
    """
    quick = (
        opens.with_row_index("opening").sort("at").join_asof(
            sends.sort("arrived"), left_on="at", right_on="arrived", by="person", strategy="backward",
            tolerance=f"{int(machine_s)}s", check_sortedness=False,
        ).filter(pl.col("send").is_not_null())
    )  # fmt: skip
    mails = np.bincount(sends["person"].to_numpy(), minlength=num)
    at_once = np.bincount(quick.unique("send")["person"].to_numpy(), minlength=num)
    machines = (mails >= _MACHINE_MAILS) & (at_once > _MACHINE_SHARE * mails)
    theirs = quick.filter(pl.col("person").is_in(np.flatnonzero(machines).astype(np.uint32).tolist()))
    kept = opens.with_row_index("opening").join(theirs.select("opening"), on="opening", how="anti").drop("opening")
    return kept, machines, len(theirs)


def _local_hours(rows: pl.DataFrame) -> np.ndarray:
    """Return [n] int64 local hours of the week of rows with `at` and `zone`."""
    hours = np.zeros(len(rows), np.int64)
    numbered = rows.select("at", "zone").with_row_index("row")
    for (zone,), mine in numbered.group_by("zone"):
        local = mine["at"].dt.convert_time_zone(_known(str(zone)))
        week = (local.dt.weekday().cast(pl.Int64) - 1) * 24 + local.dt.hour().cast(pl.Int64)
        hours[mine["row"].to_numpy()] = week.to_numpy()
    return hours


def _counts(person: pl.Series, hour: np.ndarray, num: int) -> np.ndarray:
    flat = np.bincount(person.to_numpy().astype(np.int64) * HOURS + hour, minlength=num * HOURS)
    counts: np.ndarray = flat.reshape(num, HOURS).astype(np.int32)
    return counts


@lru_cache(maxsize=1024)
def _known(zone: str) -> str:
    """Return the zone, or UTC where there is no such one."""
    try:
        ZoneInfo(zone)
    except (ValueError, OSError, KeyError):
        return "UTC"
    return zone
