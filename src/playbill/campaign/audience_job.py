"""`playbill campaign audience`: from what people did to a file of recipients, and to the reasons of the others."""

from __future__ import annotations

import io
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from rich.console import Console

from playbill.campaign.act_features import read_acts_log
from playbill.campaign.acts import Acts, read
from playbill.campaign.audience_settings import AudienceSettings, Trigger
from playbill.campaign.restraint import who_denied
from playbill.campaign.triggers import REASONS, baskets, decide
from playbill.errors import ConfigError, FeatureError, FilterError, TableError
from playbill.filters.check import kinds, parse
from playbill.filters.mask import mask
from playbill.state.settings import parse_moment, state_place
from playbill.state.store import Store
from playbill.tables.consent import allowed_rows
from playbill.tables.files import write_atomic
from playbill.tables.folder import has_table, read_folder, read_table

AUDIENCE, HELD, SUCCESS = "audience.parquet", "held.parquet", "success.json"


def run(settings: AudienceSettings) -> int:
    """Choose and write; return 0.

    Raises:
        FeatureError: no models of acts, or not the one that a trigger needs.
        ConfigError: basket_events that the tables do not declare, or a condition that cannot be understood.
        TableError: no such tables, or no users in them.
    """
    console = Console(stderr=True)
    tables = Path(settings.home) / "tables" / settings.tables
    of_acts = Path(settings.acts or Path(settings.home) / "runs" / f"{settings.tables}-acts")
    about = read_folder(tables)
    acts = read(of_acts)
    if acts is None:
        raise FeatureError(f"{of_acts} holds no models of acts; run `playbill train-acts tables={settings.tables}`")
    if not has_table(tables, "users"):
        raise TableError(f"{tables} has no table of users: whom one may write to stands there")
    log = read_acts_log(tables, acts.spec.words)
    given = parse_moment(settings.at)
    at = log.last + 1 if given is None else given
    users = read_table(tables, "users")
    may = pl.DataFrame({"user_id": pl.from_arrow(users["user_id"]), "may": allowed_rows(users, "personalisation")})
    if settings.trigger is Trigger.basket:
        people = _left_baskets(tables, settings, acts, at, {event.name for event in about.events})
        people = people.join(may.select("user_id"), on="user_id", how="semi", maintain_order="left")
    else:
        people = may.select("user_id")
    allowed = people.join(may, on="user_id", how="left", maintain_order="left")["may"].to_numpy().astype(np.bool_)
    allowed &= ~people["user_id"].is_in(_denied(settings, people["user_id"]).implode()).to_numpy()
    rows = decide(
        acts,
        log,
        at,
        people,
        allowed,
        churn=settings.churn if settings.trigger is Trigger.re_engagement else None,
        churn_at_least=settings.churn_at_least,
        return_at_most=settings.return_at_most,
        least_uplift=settings.least_uplift,
    ).with_columns(trigger=pl.lit(str(settings.trigger)), at=_moment(at))
    folder = Path(settings.home) / "audiences" / (settings.name or str(settings.trigger))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SUCCESS).unlink(missing_ok=True)  # until all is written, this is none
    chosen = rows.filter(pl.col("reason") == "").drop("reason")
    _write(folder / AUDIENCE, chosen)
    _write(folder / HELD, rows.filter(pl.col("reason") != ""))
    counts = {"sent": len(chosen), **_counts(rows)}
    said: dict[str, Any] = {
        "trigger": str(settings.trigger),
        "at": datetime.fromtimestamp(at / 1e6, UTC).isoformat(),
        "tables": about.fingerprint,
        "without_mail": bool(acts.spec.without[0]),
        "counts": counts,
    }
    write_atomic(folder / SUCCESS, msgspec.json.format(msgspec.json.encode(said), indent=1))
    shown = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    console.print(f"[bold]{folder / AUDIENCE}[/]: {shown}")
    return 0


def _denied(settings: AudienceSettings, user_ids: pl.Series) -> pl.Series:
    """Return those who took their consent to personalisation back since the tables were made; nobody where there is no
    store yet."""
    place, found = state_place(settings.home, settings.state), list[int | str]()
    if settings.state is not None or Path(place).exists():
        with Store.open(place, readonly=True, settings=settings.store) as store:
            for some in user_ids.to_frame().iter_slices(10_000):
                found += who_denied(store, some["user_id"].to_list())
    return pl.Series(found, dtype=user_ids.dtype)


def _left_baskets(tables: Path, settings: AudienceSettings, acts: Acts, at: int, declared: set[str]) -> pl.DataFrame:
    """Return rows of `triggers.baskets`, items that meet the sensitive condition left out."""
    if missing := sorted(set(settings.basket_events) - declared):
        there = ", ".join(sorted(declared)) or "none"
        raise ConfigError(f"basket_events: {', '.join(missing)} is no event that {tables} declares; there are: {there}")
    events = pl.scan_parquet(tables / "events.parquet")
    if "item_id" not in events.collect_schema().names():
        raise TableError(f"{tables} has events without a column item_id: nobody can tell what is in a basket")
    named = [*settings.basket_events, *acts.spec.words.purchases]
    rows = events.filter(pl.col("event").is_in(named)).select(
        "user_id", "event", pl.col("at").dt.epoch("us"), "item_id"
    )
    if settings.sensitive is not None:
        bad = _sensitive(tables, settings.sensitive)
        rows = rows.filter(~pl.col("item_id").is_in(bad.implode()) | pl.col("event").is_in(acts.spec.words.purchases))
    return baskets(
        rows.collect(), settings.basket_events, acts.spec.words.purchases, at, settings.hours, settings.within_hours
    )


def _sensitive(tables: Path, condition: str) -> pl.Series:
    items = pl.read_parquet(tables / "items.parquet")
    known = kinds(items.schema)
    try:
        tree = parse(condition, known)
    except FilterError as error:
        raise ConfigError(f"sensitive: {error}") from error
    return items["item_id"].filter(pl.Series(mask(tree, items, known)))


def _counts(rows: pl.DataFrame) -> dict[str, int]:
    found = Counter(rows["reason"].to_list())
    return {reason: found[reason] for reason in REASONS if found[reason]}


def _moment(at: int) -> pl.Expr:
    return pl.lit(datetime.fromtimestamp(at / 1e6, UTC)).cast(pl.Datetime("us", "UTC"))


def _write(path: Path, rows: pl.DataFrame) -> None:
    buffer = io.BytesIO()
    rows.write_parquet(buffer)
    write_atomic(path, buffer.getvalue())
