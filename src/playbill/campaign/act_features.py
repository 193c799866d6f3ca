"""What a person had done by a moment, in numbers: the same code when models of acts are fitted and when they answer.

Only what lies before the moment counts, and of that only the last so many days: a moment early in the log and today are
then looked at through the same window. No column of the users table is read, and of an event its name, time, item and
value alone: nothing protected or sensitive can come in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from playbill.errors import TableError
from playbill.tables.folder import has_table

DAY_US = 86_400_000_000
FEATURES = (
    "recency", "events", "events_7", "events_30", "active_days", "active_days_30", "span", "since_first", "gap",
    "gap_spread", "overdue", "bought_recency", "bought", "bought_30", "bought_days", "bought_span",
    "bought_since_first", "bought_gap", "bought_gap_spread", "bought_overdue", "revenue", "revenue_30", "basket",
    "tenure", "kinds", "items", "weekend", "sends", "sends_30", "opens", "opens_30", "open_recency",
)  # fmt: skip


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """What the names of events mean, kept with the models.

    Attributes:
        purchases: events that are a purchase.
        money: those of them whose value is declared in a unit of money.
        opens: events that mail programs make too, so that they show nobody there.
        mail: events that answer a mail; with `opens` they are no return of somebody's own accord.
        days: of the window.
    """

    purchases: list[str]
    money: list[str]
    opens: list[str]
    mail: list[str]
    days: float


@dataclass(frozen=True, slots=True)
class ActLog:
    """What people did and were sent.

    Attributes:
        events: a row an event of a person: user_id, at (int64 UTC microseconds), kind (uint32 of its name), item
            (uint64, null where there is none), there, own, bought, opened (bool), value (float64, money of a purchase;
            else 0).
        sends: a row a message: user_id, at.
        first, last: UTC microseconds from which to which it is whole.
    """

    events: pl.DataFrame
    sends: pl.DataFrame
    first: int
    last: int

    @property
    def days(self) -> float:
        """Days from the first event to the last."""
        return (self.last - self.first) / DAY_US


def read_acts_log(tables: Path, words: Words, purpose: str | None = None, until: int | None = None) -> ActLog:
    """Return what prepared tables say.

    Args:
        purpose: only people who allow it by consent_<purpose>; None takes all.
        until: UTC microseconds; from then on the log is not whole, and is left out. None: up to the last event.
    Raises:
        TableError: no events, or none of them has a person.
    """
    if not has_table(tables, "events") or "user_id" not in pl.scan_parquet(tables / "events.parquet").collect_schema():
        raise TableError(f"{tables} has no events of people: a table of events with a column user_id")
    there = _agreed(tables, pl.scan_parquet(tables / "events.parquet"), purpose)
    if until is not None:
        there = there.filter(pl.col("at").dt.epoch("us") < until)
    columns = there.collect_schema().names()
    item = pl.col("item_id").hash() if "item_id" in columns else pl.lit(None, pl.UInt64)
    value = pl.col("value") if "value" in columns else pl.lit(None, pl.Float64)
    name, money = pl.col("event"), pl.col("event").is_in(words.money)
    item = pl.when(pl.col("item_id").is_not_null()).then(item) if "item_id" in columns else item
    events = there.select(
        "user_id",
        pl.col("at").dt.epoch("us"),
        kind=name.hash().cast(pl.UInt32, strict=False, wrap_numerical=True),
        item=item,
        there=~name.is_in(words.opens),
        own=~name.is_in([*words.opens, *words.mail]),
        bought=name.is_in(words.purchases),
        opened=name.is_in(words.opens),
        value=pl.when(money & value.is_finite() & (value > 0)).then(value).otherwise(0.0).fill_null(0.0),
    ).collect()
    if not len(events):
        raise TableError(f"{tables} has no events of people{' who allow ' + purpose if purpose else ''}")
    sends = pl.DataFrame(schema={"user_id": events.schema["user_id"], "at": pl.Int64})
    if (
        has_table(tables, "decisions")
        and "user_id" in pl.scan_parquet(tables / "decisions.parquet").collect_schema().names()
    ):
        rows = pl.scan_parquet(tables / "decisions.parquet").filter(pl.col("kind") == "send_hour")
        sends = _agreed(tables, rows, purpose).select("user_id", pl.col("at").dt.epoch("us")).collect()
    first, last = events.select(low=pl.col("at").min(), high=pl.col("at").max()).row(0)
    last = last if until is None else until
    return ActLog(events, sends.cast({"user_id": events.schema["user_id"]}), int(first), int(last))


def _agreed(tables: Path, rows: pl.LazyFrame, purpose: str | None) -> pl.LazyFrame:
    """Keep rows of people; where a purpose is asked for, of those who allow it (the rule of tables/consent.py)."""
    rows = rows.filter(pl.col("user_id").is_not_null())
    flag = f"consent_{purpose}"
    if purpose is None or not has_table(tables, "users"):
        return rows
    users = pl.scan_parquet(tables / "users.parquet")
    if flag not in users.collect_schema().names():
        return rows
    return rows.join(users.filter(pl.col(flag).fill_null(False)).select("user_id"), on="user_id", how="semi")


def features(log: ActLog, words: Words, cutoff: int) -> pl.DataFrame:
    """Return a row for everybody who did something in the window before a moment: user_id, FEATURES; by user_id.

    All are float64 and >= 0: days, counts, money, and `weekend` a share. A gap is the mean of days between two days on
    which somebody was there, `overdue` how many gaps long the silence is. What never happened is as long ago as the
    window is long.

    Args:
        cutoff: UTC microseconds; what happens from then on is not looked at.
    """
    window = words.days
    past = log.events.lazy().filter(pl.col("at") < cutoff)
    ago = (cutoff - pl.col("at")) / DAY_US
    seen = past.with_columns(ago=ago).filter(pl.col("ago") <= window)
    found = seen.group_by("user_id").agg(
        events=pl.col("there").sum(),
        events_7=(pl.col("there") & (pl.col("ago") <= 7)).sum(),
        events_30=(pl.col("there") & (pl.col("ago") <= 30)).sum(),
        active_days_30=_days(pl.col("there") & (pl.col("ago") <= 30)).len(),
        **_rhythm("there", ""),
        **_rhythm("bought", "bought_"),
        bought=pl.col("bought").sum(),
        bought_30=(pl.col("bought") & (pl.col("ago") <= 30)).sum(),
        revenue=pl.col("value").sum(),
        revenue_30=pl.col("value").filter(pl.col("ago") <= 30).sum(),
        kinds=pl.col("kind").n_unique(),
        items=pl.col("item").drop_nulls().n_unique(),
        # day 0 of 1970 was a Thursday
        weekend=((pl.col("at") // DAY_US + 3) % 7 >= 5).mean(),
        opens=pl.col("opened").sum(),
        opens_30=(pl.col("opened") & (pl.col("ago") <= 30)).sum(),
        open_recency=pl.col("ago").filter(pl.col("opened")).min(),
    )
    born = past.group_by("user_id").agg(tenure=ago.max())
    sends = log.sends.lazy().filter(pl.col("at") < cutoff).with_columns(ago=ago).filter(pl.col("ago") <= window)
    sent = sends.group_by("user_id").agg(sends=pl.len(), sends_30=(pl.col("ago") <= 30).sum())
    never = {name: window for name in ("recency", "bought_recency", "open_recency", "since_first", "gap", "bought_gap",
                                       "bought_since_first")}  # fmt: skip
    rows = (
        found.join(born, on="user_id", how="left")
        .join(sent, on="user_id", how="left")
        .with_columns(pl.col(name).fill_null(value) for name, value in never.items())
        .with_columns(
            tenure=pl.min_horizontal("tenure", pl.lit(window)),
            overdue=pl.col("recency") / pl.col("gap").clip(1.0),
            bought_overdue=pl.col("bought_recency") / pl.col("bought_gap").clip(1.0),
            basket=pl.col("revenue") / pl.col("bought").clip(1),
        )
    )
    return rows.select("user_id", *(pl.col(name).cast(pl.Float64).fill_null(0.0) for name in FEATURES)).sort(
        "user_id"
    ).collect()  # fmt: skip


def _days(flag: pl.Expr) -> pl.Expr:
    return (pl.col("at").filter(flag) // DAY_US).unique()


def _rhythm(flag: str, prefix: str) -> dict[str, pl.Expr]:
    days, ago = _days(pl.col(flag)), pl.col("ago").filter(pl.col(flag))
    gaps = days.sort().diff().drop_nulls()
    return {
        f"{prefix}recency": ago.min(),
        f"{'active_days' if not prefix else 'bought_days'}": days.len(),
        f"{prefix}span": (days.max() - days.min()),
        f"{prefix}since_first": ago.max(),
        f"{prefix}gap": gaps.mean(),
        f"{prefix}gap_spread": gaps.cast(pl.Float64).std(),
    }


def matrix(rows: pl.DataFrame) -> np.ndarray:
    """Return [n, len(FEATURES)] float64."""
    return rows.select(FEATURES).to_numpy().astype(np.float64)
