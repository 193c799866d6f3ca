"""What is known of people before an offer is made: declared and observed columns, and how they took offers so far.

The same code tells it in training, of a moment in the past, and in a run, of now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from playbill.campaign.mail_log import opened_requests
from playbill.errors import ConfigError, TableError
from playbill.tables.folder import has_table, read_folder
from playbill.tables.schema import CONSENT_PREFIX, Column, Kind, Provenance

_MOST_WORDS = 50


class FactSpec(msgspec.Struct, kw_only=True):
    """What is read.

    Attributes:
        levels: names, "none" first.
        inputs: columns of users that may speak; `words` of each text column, in the order of their numbers.
        events: whose counts in 90 days and in all may speak.
        kind: of decision that made offers.
        purchase: event that redeems one within window_h; `opening` that shows that a mail was read.
    """

    levels: list[str]
    inputs: list[str]
    words: dict[str, list[str]]
    events: list[str]
    kind: str = "offer"
    purchase: str = "purchase"
    opening: str = "open"
    window_h: float = 72.0


@dataclass(frozen=True, slots=True)
class Facts:
    """Of n people.

    Attributes:
        x: [n, F] float64, NaN where unknown: inputs, then counts.
        made, taken: [n, L + 1] int64: offers by level that were seen, then mails that were not opened, and how many of
            each were followed by a purchase.
    """

    x: np.ndarray
    made: np.ndarray
    taken: np.ndarray


def check_inputs(tables: Path, names: Sequence[str], where: str) -> None:
    """Do nothing where an offer may rest on these columns of the users table.

    Raises:
        ConfigError: one is not there, is protected, sensitive or consent, or was not declared or observed: what a model
            inferred or somebody sold (income, means, class) is no ground for a price.
    """
    known = {column.name: column for column in read_folder(tables).columns.get("users", [])}
    for name in names:
        if name not in known:
            raise ConfigError(f"{where}: users has no column {name!r}; it has {', '.join(known)}")
        if (why := _refused(known[name])) is not None:
            raise ConfigError(f"{where}: column {name!r} {why}: no offer may rest on it")


def _refused(column: Column) -> str | None:
    if column.protected or column.sensitive:
        return "is protected" if column.protected else "is sensitive"
    if column.provenance not in (Provenance.DECLARED, Provenance.OBSERVED):
        return f"is {column.provenance.value}, and only what people declared or what was observed counts"
    if column.name.startswith(CONSENT_PREFIX) or column.kind is Kind.ID:
        return "is consent or an id"
    return None if column.kind in (Kind.NUMBER, Kind.FLAG, Kind.TEXT) else f"holds {column.kind.value}"


def words_of(tables: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of the text columns among these, the commonest 50 of each."""
    frame = pl.read_parquet(tables / "users.parquet", columns=list(names)) if names else pl.DataFrame()
    return {
        name: frame[name].drop_nulls().value_counts(sort=True)[name].head(_MOST_WORDS).sort().to_list()
        for name in frame.columns
        if frame.schema[name] == pl.String
    }


def read_offers(tables: Path, spec: FactSpec, until: int | None = None) -> pl.DataFrame:
    """Return a row an offer, in time: user_id, at, level (int64), propensity, opened, bought, value (money bought for).

    Args:
        until: UTC microseconds; decisions and events from then on are left out.
    Raises:
        TableError: no decisions of the kind.
    """
    if not has_table(tables, "decisions"):
        raise TableError(f"{tables} has no table of decisions: which offers were made stands there")
    levels = pl.DataFrame(
        {"chosen": spec.levels, "level": range(len(spec.levels))}, schema_overrides={"level": pl.Int64}
    )
    rows = (
        pl.scan_parquet(tables / "decisions.parquet")
        .filter(pl.col("kind") == spec.kind)
        .select("decision_id", "request_id", "user_id", "at", "propensity", pl.col("chosen").cast(pl.String))
        .join(levels.lazy(), on="chosen").drop("chosen").collect()
    )  # fmt: skip
    events = pl.scan_parquet(tables / "events.parquet").filter(pl.col("event") == spec.purchase)
    bought = events.select("user_id", "decision_id", pl.col("at").alias("when"), "value").collect() if (
        "decision_id" in events.collect_schema().names()
    ) else events.select("user_id", pl.lit(None, pl.Int64).alias("decision_id"), pl.col("at").alias("when"),
                         "value").collect()  # fmt: skip
    if until is not None:
        rows = rows.filter(pl.col("at").dt.epoch("us") < until)
        bought = bought.filter(pl.col("when").dt.epoch("us") < until)
    ours = bought.join(rows.select("decision_id"), on="decision_id") if len(bought) else bought
    if not len(ours):  # the log does not say which offer a purchase is about: those within the window are
        ours = bought.drop("decision_id").join(rows.select("user_id", "decision_id", "at"), on="user_id")
        late = (pl.col("when") - pl.col("at")).dt.total_microseconds()
        ours = ours.filter((late >= 0) & (late <= round(spec.window_h * 3.6e9)))
    sums = ours.group_by("decision_id").agg(value=pl.col("value").sum())
    rows = rows.join(sums, on="decision_id", how="left").with_columns(
        bought=pl.col("value").is_not_null(), value=pl.col("value").fill_null(0.0)
    )
    mails = opened_requests(tables, open_event=spec.opening, until=until) if has_table(tables, "users") else None
    if mails is None or not len(mails):
        rows = rows.with_columns(opened=pl.lit(True))
    else:
        rows = rows.join(mails, on="request_id", how="left").with_columns(pl.col("opened").fill_null(False))
    return rows.drop("decision_id", "request_id").sort("at", "user_id")


def read_facts(
    tables: Path, spec: FactSpec, user_ids: pl.Series, until: int | None, offers: pl.DataFrame | None = None
) -> Facts:
    """Return what is known of people at a moment.

    Args:
        until: UTC microseconds; None: all that there is.
        offers: of `read_offers`, where it was read before; later rows are left out here.
    """
    asked = user_ids.to_frame("user_id")
    users = asked.join(
        pl.read_parquet(tables / "users.parquet", columns=["user_id", *spec.inputs]), on="user_id", how="left",
        maintain_order="left",
    )  # fmt: skip
    columns = [_number(users[name], spec.words.get(name)) for name in spec.inputs]
    cells = len(spec.levels) + 1
    if offers is None and not has_table(tables, "decisions"):  # nobody was ever made an offer
        empty = np.zeros((len(asked), cells), np.int64)
        columns += list(np.zeros((2 * cells, len(asked))))
        columns += _counts(tables, spec.events, asked.with_row_index("row"), until) if spec.events else []
        return Facts(np.stack(columns, 1), empty, empty)
    offers = read_offers(tables, spec, until) if offers is None else offers
    if until is not None:
        # what could still be bought for then is not known yet
        offers = offers.filter(pl.col("at").dt.epoch("us") < until - round(spec.window_h * 3.6e9))
    cell = pl.when(pl.col("opened")).then(pl.col("level")).otherwise(cells - 1)
    place = asked.with_row_index("row")
    at = offers.with_columns(cell=cell).join(place, on="user_id")
    flat = at["row"].to_numpy().astype(np.int64) * cells + at["cell"].to_numpy()
    made = np.bincount(flat, minlength=len(asked) * cells).reshape(-1, cells)
    taken = np.bincount(flat[at["bought"].to_numpy()], minlength=len(asked) * cells).reshape(-1, cells)
    columns += list(made.T.astype(np.float64)) + list(taken.T.astype(np.float64))
    if spec.events:
        columns += _counts(tables, spec.events, place, until)
    return Facts(np.stack(columns, 1), made, taken)


def _number(values: pl.Series, words: list[str] | None) -> np.ndarray:
    if words is not None:
        numbers = {word: float(at) for at, word in enumerate(words)}
        values = values.replace_strict(numbers, default=None, return_dtype=pl.Float64)
    found: np.ndarray = values.cast(pl.Float64).fill_null(np.nan).to_numpy()
    return found


def _counts(tables: Path, names: list[str], place: pl.DataFrame, until: int | None) -> list[np.ndarray]:
    """Return for each event how often each person did it in the 90 days before and ever."""
    rows = (
        pl.scan_parquet(tables / "events.parquet").filter(pl.col("event").is_in(names)).select("user_id", "event", "at")
    )
    events = rows.join(place.lazy(), on="user_id").collect()
    end = until if until is not None else (events["at"].dt.epoch("us").max() or 0)
    moment = events["at"].dt.epoch("us").to_numpy()
    found = []
    for name in names:
        for since in (end - 90 * 86_400_000_000, np.iinfo(np.int64).min):  # type: ignore[operator]  # an int
            rows_of = (events["event"] == name).to_numpy() & (moment < end) & (moment >= since)
            count = np.bincount(events["row"].to_numpy()[rows_of].astype(np.int64), minlength=len(place))
            found.append(count.astype(np.float64))
    return found
