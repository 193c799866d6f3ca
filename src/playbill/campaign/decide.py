"""One set of decisions for each recipient: whether at all, by which channel, when, with which subject and which items.

Blocks are slates of the engine that answers online, one after the other: what stands in one is excluded from the next,
with whatever the person did something with in the block's novelty window, and what they bought lately. Every draw is of
a hash of campaign, seed and id, so a run that is repeated on the same bundle and state decides alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from playbill.campaign.blocks import COLUMNS, put_blocks
from playbill.campaign.copy_file import Variant
from playbill.campaign.draws import uniform
from playbill.campaign.restraint import Contact, Restraint, allows, restrain
from playbill.campaign.rhythm import HOURS
from playbill.campaign.send_time import SendTimes, choose_hours
from playbill.campaign.settings import Campaign
from playbill.campaign.window import Week, known_zone, local, week_of
from playbill.engine.engine import Engine
from playbill.engine.profile import PURPOSE
from playbill.errors import ConfigError, StateError
from playbill.features.fold import Profile
from playbill.state.decisions import Decision

NO_MODEL = "no_model"  # of hours: none is known to be better, so the first that may be
Id = int | str


@dataclass(frozen=True, slots=True)
class Material:
    """What the recipients of a campaign are decided on with.

    Attributes:
        engine: with its store, that knows the recipients.
        contact: see `restraint.Contact`.
        subjects: that may be sent, see `copy_file.sendable`; one at least.
        send_times: None where no model was learned.
    """

    engine: Engine
    contact: Contact
    subjects: Sequence[Variant]
    send_times: SendTimes | None


def decide(
    campaign: Campaign, material: Material, user_ids: Sequence[Id], at: int
) -> tuple[pl.DataFrame, list[Decision]]:
    """Return a row a recipient, in their order, and the choices of creatives in their blocks.

    Args:
        user_ids: each once.
        at: UTC microseconds, the moment of the run.
    Returns:
        campaign, user_id, send, reason ("" where it is sent), global_holdout, campaign_holdout, channel, send_at (UTC),
        send_local (ISO 8601 with its offset), timezone, hour (of the local week), hour_reason, hour_propensity,
        open_probability, subject, subject_text, subject_propensity, and a block's `<name>_request_id, _items, _titles,
        _scores, _propensities, _creatives, _creative_propensities, _reasons, _rung`, best first; bundle, policy,
        state_version, seed, at. What is decided of nobody who is held back is null. `too_few_items` and
        `history_too_long` are found after the holdouts were dealt: for a comparison with these they count as sent.
    Raises:
        ConfigError: no subject that may be sent, or no such column of segments.
        StateError: the engine has no store.
        RequestError: a block's filter or surface does not fit the bundle.
        TableError: see `restrain`.
    """
    if not material.subjects:
        raise ConfigError("subjects: none may be sent; let somebody approve one")
    if material.engine.store is None:
        raise StateError("a campaign needs the store: what people bought stands there; run `playbill ingest`")
    ids = list(user_ids)
    profiles = [profile or Profile() for profile in material.engine.store.profiles(ids)]
    users = pl.DataFrame({"user_id": pl.Series(ids, dtype=material.contact.users.schema["user_id"])}).join(
        material.contact.users, on="user_id", how="left", maintain_order="left"
    )
    zones = _zones(campaign, users)
    weeks = {zone: week_of(campaign, zone, at) for zone in set(zones)}
    may = np.asarray([weeks[zone].may for zone in zones], bool).reshape(len(ids), HOURS)
    has_hour = np.asarray(may.any(1))
    found = restrain(campaign, material.contact, ids, [p.features for p in profiles], has_hour, at)
    sent = [row for row, reason in enumerate(found.reason) if not reason]
    rows = [_start(campaign, ids[row], found, row, zones[row], at) for row in range(len(ids))]
    if sent:
        personal = allows(users, [p.features for p in profiles], PURPOSE)
        mine = [rows[row] for row in sent]
        _put_hours(campaign, material.send_times, users[sent], personal[sent], mine, may[sent], weeks)
        _put_subjects(campaign, material.subjects, mine)
    decisions = put_blocks(campaign, material.engine, [rows[row] for row in sent], [profiles[row] for row in sent], at)
    for row in rows:
        row["send"] = not row["reason"]
        if row["reason"]:
            row.update(dict.fromkeys(_DECIDED))
            for block in campaign.blocks:
                row.update({f"{block.name}_{name}": None for name in COLUMNS})
    return pl.DataFrame(rows, _schema(campaign, material), orient="row"), decisions


_DECIDED = (
    "channel", "send_at", "send_local", "hour", "hour_reason", "hour_propensity", "open_probability", "subject",
    "subject_text", "subject_propensity", "bundle", "policy", "state_version",
)  # fmt: skip


def _zones(campaign: Campaign, users: pl.DataFrame) -> list[str]:
    said = users["timezone"].to_list() if "timezone" in users.columns else [None] * len(users)
    return [known_zone(zone, campaign.window.timezone) for zone in said]


def _start(campaign: Campaign, user_id: Id, found: Restraint, row: int, zone: str, at: int) -> dict[str, Any]:
    return {
        "campaign": campaign.name,
        "user_id": user_id,
        "reason": found.reason[row],
        "global_holdout": bool(found.everywhere[row]),
        "campaign_holdout": bool(found.campaign[row]),
        "channel": found.channel[row],
        "timezone": zone,
        "seed": campaign.seed,
        "at": at,
    }


def _put_hours(
    campaign: Campaign,
    model: SendTimes | None,
    users: pl.DataFrame,
    personal: np.ndarray,
    rows: list[dict[str, Any]],
    may: np.ndarray,
    weeks: dict[str, Week],
) -> None:
    ids = [row["user_id"] for row in rows]
    if model is None:
        # the first in time, not the first of the week
        soonest = -np.stack([weeks[row["timezone"]].arrival for row in rows]).astype(np.float64)
        chances, codes = (soonest - soonest.min(1, keepdims=True)) / 1e18, [NO_MODEL] * len(rows)
    else:
        column = campaign.window.segment
        if column is not None and column not in users.columns:
            raise ConfigError(f"window.segment: users has no column {column!r}; it has {', '.join(users.columns)}")
        named = [""] * len(rows) if column is None else users[column].cast(pl.String).fill_null("").to_list()
        chances, codes = model.chances(ids, named)
        if not personal.all():  # of whom nothing may be known, everybody's hours
            others = replace(model, least=np.iinfo(np.int64).max).chances(ids, [""] * len(ids))
            chances = np.where(personal[:, None], chances, others[0])
            codes = [mine if may_ else other for mine, other, may_ in zip(codes, others[1], personal, strict=True)]
    draws = np.asarray([uniform(campaign, "hour", user) for user in ids])
    hours, propensity = choose_hours(chances, may, campaign.window.explore, draws)
    for at, row in enumerate(rows):
        hour, zone = int(hours[at]), row["timezone"]
        moment = int(weeks[zone].arrival[hour])
        row["hour"], row["hour_reason"], row["hour_propensity"] = hour, codes[at], float(propensity[at])
        row["open_probability"] = None if model is None else float(chances[at, hour])
        row["send_at"], row["send_local"] = moment, local(moment, zone).isoformat(timespec="minutes")


def _put_subjects(campaign: Campaign, subjects: Sequence[Variant], rows: list[dict[str, Any]]) -> None:
    for row in rows:
        chosen = subjects[int(uniform(campaign, "subject", row["user_id"]) * len(subjects))]
        row["subject"], row["subject_text"], row["subject_propensity"] = chosen.name, chosen.text, 1 / len(subjects)


def _schema(campaign: Campaign, material: Material) -> dict[str, Any]:
    bundle = material.engine.bundle
    item = pl.String if bundle.spec.item_id_type == "string" else pl.Int64
    creatives = {} if bundle.creatives is None else bundle.creatives.columns
    creative = pl.String if any(isinstance(c, str) for c in creatives.get("creative_id", ())) else pl.Int64
    moment = pl.Datetime("us", "UTC")
    block = (pl.String, pl.List(item), pl.List(pl.String), pl.List(pl.Float64), pl.List(pl.Float64), pl.List(creative),
             pl.List(pl.Float64), pl.List(pl.String), pl.String)  # fmt: skip
    return {
        "campaign": pl.String, "user_id": material.contact.users.schema["user_id"], "send": pl.Boolean,
        "reason": pl.String, "global_holdout": pl.Boolean, "campaign_holdout": pl.Boolean, "channel": pl.String,
        "send_at": moment, "send_local": pl.String, "timezone": pl.String, "hour": pl.Int64, "hour_reason": pl.String,
        "hour_propensity": pl.Float64, "open_probability": pl.Float64, "subject": pl.String,
        "subject_text": pl.String, "subject_propensity": pl.Float64,
        **{f"{b.name}_{name}": kind for b in campaign.blocks for name, kind in zip(COLUMNS, block, strict=True)},
        "bundle": pl.String, "policy": pl.String, "state_version": pl.Int64, "seed": pl.Int64, "at": moment,
    }  # fmt: skip
