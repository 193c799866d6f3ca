"""One set of decisions for each recipient: whether at all, by which channel, when, with which subject and which items.

Every draw is of a hash of campaign, seed and id, so a run that is repeated on the same bundle and state decides alike,
in whatever batches.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from playbill import __version__
from playbill.campaign.blocks import block_schema, given_to, make_blocks
from playbill.campaign.draws import uniform
from playbill.campaign.restraint import Contact, Restraint, allows, restrain
from playbill.campaign.rhythm import HOURS
from playbill.campaign.send_time import SendTimes, choose_hours
from playbill.campaign.settings import Campaign
from playbill.campaign.variants import Choice, columns_of, schema_of
from playbill.campaign.window import Week, known_zone, local, week_of
from playbill.engine.engine import Engine
from playbill.engine.profile import PURPOSE
from playbill.errors import ConfigError, StateError
from playbill.features.fold import Profile
from playbill.state.store import Store

NO_MODEL = "no_model"  # of hours: none is known to be better, so the first that may be
Id = int | str


@dataclass(frozen=True, slots=True)
class Material:
    """What the recipients of a campaign are decided on with.

    Attributes:
        engine: with its store, that knows the recipients.
        contact: see `restraint.Contact`.
        subjects: that may be sent, one at least; `heroes` None where the message has no head of its own.
        send_times: None where no model was learned.
        offers: of these recipients and maybe of others, see `offer_run.Settled.table`; None where none are made.
    """

    engine: Engine
    contact: Contact
    subjects: Choice
    send_times: SendTimes | None
    offers: pl.DataFrame | None = None
    heroes: Choice | None = None


def decide(campaign: Campaign, material: Material, user_ids: Sequence[Id], at: int) -> pl.DataFrame:
    """Return a row a recipient, in their order.

    Args:
        user_ids: each once.
        at: UTC microseconds, the moment of the run.
    Returns:
        campaign, user_id, send, reason ("" where it is sent), global_holdout, campaign_holdout, channel, send_at (UTC),
        send_local (ISO 8601 with its offset), timezone, hour (of the local week), hour_reason, hour_propensity,
        hours (that it was chosen from), open_probability, what `variants.schema_of` says of the subject and of the
        hero (null where the campaign has none), tokens (json), hero_item, hero_title, hero_propensity, hero_creative,
        hero_creative_propensity (the first of the first block), offer, offer_propensity, offers and offer_reason (null
        where none are decided on), and a block's
        `<name>_request_id, _items, _titles, _scores, _propensities, _eligible_count, _creatives,
        _creative_propensities, _creative_counts, _reasons, _rung`, best first; bundle, policy, state_version,
        code_version, seed, at. What is decided of nobody who is held back is null. `too_few_items` and
        `history_too_long` are found after the holdouts were dealt: for a comparison with these they count as sent.
    Raises:
        ConfigError: no subject that may be sent, or no such column of segments.
        StateError: the engine has no store.
        RequestError: a block's filter or surface does not fit the bundle.
        TableError: see `restrain`.
    """
    if not material.subjects.variants:
        raise ConfigError("subjects: none may be sent; let somebody approve one")
    if material.engine.store is None:
        raise StateError("a campaign needs the store: what people bought stands there; run `playbill ingest`")
    with _no_collections():
        return _decided(campaign, material, material.engine.store, list(user_ids), at)


@contextmanager
def _no_collections() -> Iterator[None]:
    """Let the collector of cycles rest: what is made here has none, and to look for them among all that an engine holds
    takes a tenth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _decided(campaign: Campaign, material: Material, store: Store, ids: list[Id], at: int) -> pl.DataFrame:
    """Return `decide`'s rows."""
    who = recipients(campaign, material.contact, store, ids, at)
    users, profiles, zones, weeks, found = who.users, who.profiles, who.zones, who.weeks, who.found
    sent = np.asarray([row for row, reason in enumerate(found.reason) if not reason], np.int64)
    mine = [ids[row] for row in sent.tolist()]
    theirs = [profiles[row] for row in sent.tolist()]
    blocks = make_blocks(campaign, material.engine, users[sent], mine, theirs, at, given_to(material.contact, mine))
    personal = allows(users[sent], [p.features for p in theirs], PURPOSE)
    told = {
        "channel": [found.channel[row] for row in sent.tolist()],
        **hours_of(
            campaign, material.send_times, users[sent], personal, mine, [zones[r] for r in sent.tolist()], weeks
        ),
        **columns_of(campaign, "subject", material.subjects, users[sent], mine),
        **columns_of(campaign, "hero", material.heroes, users[sent], mine),
        "tokens": _tokens(campaign, users[sent]),
    }
    schema = _schema(campaign, material)
    decided = pl.DataFrame(told, {name: schema[name] for name in told}).hstack(blocks.columns)
    first = campaign.blocks[0].name
    decided = decided.with_columns(pl.col(f"{first}_{of}").list.first().alias(name) for name, of in _HERO.items())
    late = np.asarray(blocks.reason, object) != ""
    reason = list(found.reason)
    for row in np.flatnonzero(late).tolist():
        reason[int(sent[row])] = blocks.reason[row]
    everybody = pl.DataFrame(
        {
            "user_id": users["user_id"],
            "send": [not why for why in reason],
            "reason": reason,
            "global_holdout": found.everywhere,
            "campaign_holdout": found.campaign,
            "timezone": zones,
        },
        {name: schema[name] for name in _OF_ALL},
    ).with_columns(
        campaign=pl.lit(campaign.name),
        code_version=pl.lit(__version__),
        seed=pl.lit(campaign.seed, pl.Int64),
        at=pl.lit(at).cast(schema["at"]),
    )
    decided = decided.filter(~late).with_columns(user_id=users["user_id"].gather(sent[~late]))
    decided = _with_offers(decided, material.offers, schema)
    rows = everybody.join(decided, on="user_id", how="left", maintain_order="left")
    return rows.select(pl.col(name).cast(kind) for name, kind in schema.items())


_HERO = {
    "hero_item": "items", "hero_title": "titles", "hero_propensity": "propensities", "hero_creative": "creatives",
    "hero_creative_propensity": "creative_propensities",
}  # fmt: skip
_OF_ALL = ("user_id", "send", "reason", "global_holdout", "campaign_holdout", "timezone")


@dataclass(frozen=True, slots=True)
class Recipients:
    """What n recipients are decided by before anything is chosen for them.

    Attributes:
        users: [n], their rows of the users table.
        profiles: [n], what the store knows of them.
        zones: [n] time zones; `weeks` has each.
        found: who is held back.
    """

    users: pl.DataFrame
    profiles: list[Profile]
    zones: list[str]
    weeks: dict[str, Week]
    found: Restraint


def recipients(
    campaign: Campaign, contact: Contact, store: Store | None, user_ids: Sequence[Id], at: int
) -> Recipients:
    """Return who is held back, and what else is known of n recipients.

    Args, Raises: `decide`; store: None asks nobody's profile: whoever took a consent back since the tables were made
        is then not held back for it.
    """
    ids = list(user_ids)
    nobody = Profile()
    profiles = [nobody] * len(ids) if store is None else [profile or nobody for profile in store.profiles(ids)]
    users = pl.DataFrame({"user_id": pl.Series(ids, dtype=contact.users.schema["user_id"])}).join(
        contact.users, on="user_id", how="left", maintain_order="left"
    )
    zones = _zones(campaign, users)
    weeks = {zone: week_of(campaign, zone, at) for zone in set(zones)}
    may = _by_zone(zones, weeks, "may")
    found = restrain(campaign, contact, ids, [p.features for p in profiles], np.asarray(may.any(1)), at)
    return Recipients(users, profiles, zones, weeks, found)


def _by_zone(zones: Sequence[str], weeks: dict[str, Week], name: str) -> np.ndarray:
    """Return a field of each one's week, [n, HOURS]; a few zones are made arrays once."""
    place = {zone: row for row, zone in enumerate(weeks)}
    whole = np.asarray([getattr(week, name) for week in weeks.values()]).reshape(len(weeks), HOURS)
    found: np.ndarray = whole[[place[zone] for zone in zones]]
    return found


def _zones(campaign: Campaign, users: pl.DataFrame) -> list[str]:
    said = users["timezone"].to_list() if "timezone" in users.columns else [None] * len(users)
    return [known_zone(zone, campaign.window.timezone) for zone in said]


def hours_of(
    campaign: Campaign,
    model: SendTimes | None,
    users: pl.DataFrame,
    personal: np.ndarray,
    ids: Sequence[Id],
    zones: Sequence[str],
    weeks: dict[str, Week],
) -> dict[str, Any]:
    """Return the columns about when n people are written to.

    Args:
        personal: [n] bool, of whom something may be known.
        zones: [n] time zones; `weeks` has each.
    """
    may, arrival = _by_zone(zones, weeks, "may"), _by_zone(zones, weeks, "arrival")
    if model is None:
        # the first in time, not the first of the week
        soonest = -arrival.astype(np.float64)
        chances, codes = (soonest - soonest.min(1, keepdims=True)) / 1e18, [NO_MODEL] * len(ids)
    else:
        column = campaign.window.segment
        if column is not None and column not in users.columns:
            raise ConfigError(f"window.segment: users has no column {column!r}; it has {', '.join(users.columns)}")
        named = [""] * len(ids) if column is None else users[column].cast(pl.String).fill_null("").to_list()
        chances, codes = model.chances(list(ids), named)
        if not personal.all():  # of whom nothing may be known, everybody's hours
            others, [code] = replace(model, least=np.iinfo(np.int64).max).chances(list(ids[:1]), [""])
            chances = np.where(personal[:, None], chances, others)
            codes = [mine if may_ else code for mine, may_ in zip(codes, personal, strict=True)]
    draws = np.asarray([uniform(campaign, "hour", user) for user in ids])
    hour, propensity = choose_hours(chances, may, campaign.window.explore, draws)
    every = np.arange(len(ids))
    moments = arrival[every, hour]
    shown: dict[tuple[str, int], str] = {}  # a few hours of a few zones, over and over
    for zone, moment in zip(zones, moments.tolist(), strict=True):
        if (zone, moment) not in shown:
            shown[zone, moment] = local(moment, zone).isoformat(timespec="minutes")
    return {
        "send_at": moments,
        "send_local": [shown[key] for key in zip(zones, moments.tolist(), strict=True)],
        "hour": hour,
        "hour_reason": codes,
        "hour_propensity": propensity,
        "hours": may.sum(1),
        "open_probability": [None] * len(ids) if model is None else chances[every, hour],
    }


def _with_offers(decided: pl.DataFrame, offers: pl.DataFrame | None, schema: dict[str, Any]) -> pl.DataFrame:
    """Return the rows with each recipient's offer, as it was settled for the whole audience."""
    names = ("offer", "offer_propensity", "offers", "offer_reason")
    if offers is None:
        return decided.with_columns(pl.lit(None, schema[name]).alias(name) for name in names)
    found = decided.join(offers.select("user_id", *names), on="user_id", how="left", maintain_order="left")
    if found["offer"].null_count():
        somebody = found.filter(pl.col("offer").is_null())["user_id"][0]
        raise StateError(f"offers: none was settled for {somebody!r}; decide the campaign anew with force=true")
    return found


def _tokens(campaign: Campaign, users: pl.DataFrame) -> list[str]:
    """Return what each recipient's tokens stand for, as json."""
    for at, token in enumerate(campaign.tokens):
        if token.column not in users.columns:
            raise ConfigError(
                f"tokens[{at}].column: users has no column {token.column!r}; it has {', '.join(users.columns)}"
            )
    columns = [
        users[token.column].cast(pl.String).str.strip_chars().replace("", None).fill_null(token.default).to_list()
        for token in campaign.tokens
    ]
    names = [token.name for token in campaign.tokens]
    if not names:
        return ["{}"] * len(users)
    return [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in zip(*columns, strict=True)]


def _schema(campaign: Campaign, material: Material) -> dict[str, Any]:
    blocks = block_schema(campaign, material.engine)
    moment, first = pl.Datetime("us", "UTC"), campaign.blocks[0].name
    return {
        "campaign": pl.String, "user_id": material.contact.users.schema["user_id"], "send": pl.Boolean,
        "reason": pl.String, "global_holdout": pl.Boolean, "campaign_holdout": pl.Boolean, "channel": pl.String,
        "send_at": moment, "send_local": pl.String, "timezone": pl.String, "hour": pl.Int64, "hour_reason": pl.String,
        "hour_propensity": pl.Float64, "hours": pl.Int64, "open_probability": pl.Float64,
        **schema_of("subject"), **schema_of("hero"), "tokens": pl.String,
        "hero_item": blocks[f"{first}_items"].inner, "hero_title": pl.String,
        "hero_propensity": pl.Float64, "hero_creative": blocks[f"{first}_creatives"].inner,
        "hero_creative_propensity": pl.Float64, "offer": pl.String, "offer_propensity": pl.Float64,
        "offers": pl.Int64, "offer_reason": pl.String, **blocks, "code_version": pl.String,
        "seed": pl.Int64, "at": moment,
    }  # fmt: skip
