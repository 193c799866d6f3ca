"""Who is written to and who is held back, and why: each recipient has one reason, the first that holds.

    not_contactable     users.contactable is there and is not true
    no_consent          to the purpose
    no_channel          consent to none of the campaign's channels
    unsubscribed        and did not subscribe since
    frequency_cap       enough messages already, those of all campaigns together
    fatigue             so many messages, and nothing opened
    quiet_hours         no hour of the window is left
    global_holdout      nobody writes to them
    campaign_holdout    this campaign does not
    too_few_items       a block has not as many as it must
    history_too_long    more items to leave out than a request may name

Whoever is held out would have been written to, as far as can be told before their items are chosen: that makes them
comparable. The last two are found after that, and count as sent in any comparison with the holdouts. Those are dealt by
the hash that deals experiments, so the global holdout is that of the plan of experiments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from playbill.campaign.mail_log import human
from playbill.campaign.settings import Campaign
from playbill.engine.profile import PURPOSE
from playbill.errors import TableError
from playbill.measure.assignment import BUCKETS
from playbill.measure.assignment_rows import buckets, hash_ids
from playbill.state.store import Store
from playbill.tables.consent import allowed_rows, not_denied
from playbill.tables.folder import has_table
from playbill.tables.schema import CONSENT_PREFIX

DAY_US = 86_400_000_000
TOO_FEW, TOO_LONG = "too_few_items", "history_too_long"
REASONS = (
    "not_contactable", "no_consent", "no_channel", "unsubscribed", "frequency_cap", "fatigue", "quiet_hours",
    "global_holdout", "campaign_holdout", TOO_FEW, TOO_LONG,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Contact:
    """What tables say of writing to people.

    Attributes:
        users: the users table.
        words: the last word of each person who said whether to be written to: user_id, at (int64 UTC microseconds),
            away (bool: to unsubscribe).
        sends: a row a message decided on: user_id, at (int64 UTC microseconds), channel (null where none was noted).
        opened: a row a person who opened something themselves: user_id, at (int64, the last time); None: nobody did.
        given: see `audience.People`.
    """

    users: pl.DataFrame
    words: pl.DataFrame
    sends: pl.DataFrame
    opened: pl.DataFrame | None = None
    given: pl.DataFrame | None = None

    @property
    def unsubscribed(self) -> pl.Series:
        """Ids of those whose last word was to unsubscribe."""
        return self.words.filter("away")["user_id"]


@dataclass(frozen=True, slots=True)
class Restraint:
    """Of n recipients.

    Attributes:
        reason: [n], "" for whoever is written to.
        channel: [n], None where there is none.
        everywhere, campaign: [n] bool, whom the holdouts' hashes hold out, whatever else holds.
    """

    reason: list[str]
    channel: list[str | None]
    everywhere: np.ndarray
    campaign: np.ndarray


def read_contact(
    tables: Path, campaign: Campaign, at: int, decided: Sequence[Path] = (), *, with_users: bool = True
) -> Contact:
    """Return what prepared tables say, as of a moment in UTC microseconds.

    A message is a decision of kind `send_hour`; its channel and campaign are fields of its context. Those of the
    campaign itself are left out: a run that is repeated finds what it found.

    Args:
        decided: files of decisions that the tables do not have yet, such as other campaigns'.
        with_users: false leaves `Contact.users` empty, for whoever reads it piece by piece.

    Raises:
        TableError: no users table: consent stands there.
    """
    if not has_table(tables, "users"):
        raise TableError(f"{tables} has no table of users: whom one may write to stands there")
    users = pl.read_parquet(tables / "users.parquet", n_rows=None if with_users else 0)
    told = (
        pl.scan_parquet(tables / "events.parquet")
        .filter(pl.col("event").is_in([campaign.unsubscribe_event, campaign.subscribe_event]))
        .select("user_id", pl.col("at").dt.epoch("us"), away=pl.col("event") == campaign.unsubscribe_event)
        .filter(pl.col("user_id").is_not_null() & (pl.col("at") <= at))
        .collect()
    )
    opened = (
        pl.scan_parquet(tables / "events.parquet")
        .filter((pl.col("event") == campaign.fatigue.open_event) & pl.col("user_id").is_not_null())
        .select("user_id", pl.col("at").dt.epoch("us"))
        .filter(pl.col("at") <= at)
    )
    own = [tables / "decisions.parquet"] if has_table(tables, "decisions") else []
    id_type = users.schema["user_id"]
    shape: dict[str, Any] = {"user_id": id_type, "at": pl.Int64}
    shape |= dict.fromkeys(("channel", "campaign", "decision_id"), pl.String)
    sends = [pl.DataFrame(schema=shape)]
    sends += [_sends(path, campaign).cast({"user_id": id_type}) for path in (*own, *decided)]
    # one message may stand in the tables and in the file that they were made of; those of two campaigns are two
    every = pl.concat(sends).unique().drop("campaign", "decision_id")
    read = _last_read(opened.collect(), every, campaign.fatigue.machine_s) if campaign.fatigue.sends else None
    return Contact(users, last_words(told), every, read)


def last_words(said: pl.DataFrame) -> pl.DataFrame:
    """Return the last row of each person, by user_id, at and away; of two at the same moment, to unsubscribe counts."""
    return said.sort("at", "away").group_by("user_id", maintain_order=True).last()


def _last_read(opens: pl.DataFrame, sends: pl.DataFrame, machine_s: float) -> pl.DataFrame:
    """Return when each person opened something the last time, openings by machines left out: `mail_log.human`."""
    ids = pl.concat([opens["user_id"], sends["user_id"]]).unique().to_frame()
    people = ids.with_row_index("person")
    moment = pl.from_epoch("at", "us")
    named = opens.join(people, on="user_id").select("user_id", "person", at=moment)
    arrived = sends.join(people, on="user_id").select("person", arrived=moment).sort("arrived").with_row_index("send")
    kept, _, _ = human(named, arrived, machine_s, len(people))
    return kept.group_by("user_id").agg(pl.col("at").max().dt.epoch("us"))


def with_events_since(contact: Contact, store: Store, campaign: Campaign, at: int) -> Contact:
    """Return what is known of contact with the store's words beside the tables': somebody who unsubscribed on the site
    a minute ago stands in no table yet, and what newer tables say the store may not have read."""
    names = {campaign.unsubscribe_event, campaign.subscribe_event}
    declared = store.declared
    if declared is None or names.isdisjoint(event.name for event in declared.events):
        return contact
    said = [
        (event.user_id, event.at, event.event == campaign.unsubscribe_event)
        for _, _, event in store.events()
        if event.event in names and event.user_id is not None and event.at is not None and event.at <= at
    ]
    since = pl.DataFrame(said, contact.words.schema, orient="row")
    return replace(contact, words=last_words(pl.concat([contact.words, since])))


def _sends(path: Path, campaign: Campaign) -> pl.DataFrame:
    rows = pl.scan_parquet(path)
    context = pl.col("context") if "context" in rows.collect_schema() else pl.lit(None, pl.String)
    return (
        rows.filter((pl.col("kind") == "send_hour") & pl.col("user_id").is_not_null())
        .select("user_id", pl.col("at").dt.epoch("us"), pl.col("decision_id").cast(pl.String), context=context)
        .with_columns(
            channel=pl.col("context").str.json_path_match("$.channel"),
            campaign=pl.col("context").str.json_path_match("$.campaign"),
        )
        .filter(pl.col("campaign").ne_missing(campaign.name))
        .select("user_id", "at", "channel", "campaign", "decision_id")
        .collect()
    )


def restrain(
    campaign: Campaign,
    contact: Contact,
    user_ids: Sequence[int | str],
    declared: Sequence[Mapping[str, Any]],
    has_hour: np.ndarray,
    at: int,
) -> Restraint:
    """Return who of n recipients is held back.

    Args:
        user_ids: each once.
        declared: what the state knows of each, by column of the users table: a consent that was withdrawn since the
            table was made holds, one that was given since does not.
        has_hour: [n] bool, whether an hour of the window is left to them.
        at: UTC microseconds.
    Raises:
        TableError: a consent column is not boolean, or a recipient is there twice.
    """
    users = _rows(contact.users, user_ids)
    contactable = np.ones(len(users), bool)
    if "contactable" in users.columns:
        contactable = users["contactable"].fill_null(False).to_numpy().astype(bool)
    agreed = allows(users, declared, campaign.purpose)
    channels = np.stack(
        [
            allows(users, declared, channel) & allows(users, declared, f"{campaign.purpose}_{channel}")
            for channel in campaign.channels
        ],
        1,
    )
    subscribed = ~users["user_id"].is_in(contact.unsubscribed.implode()).to_numpy()
    free = channels & ~_capped(campaign, contact.sends, users["user_id"], at)
    hashes = hash_ids(users["user_id"].to_arrow())
    everywhere = held_out(hashes, campaign.holdouts.salt, campaign.holdouts.everywhere)
    mine = held_out(hashes, f"campaign/{campaign.name}", campaign.holdouts.campaign)
    rested = ~_tired(campaign, contact, users["user_id"], at)
    fine = (contactable, agreed, channels.any(1), subscribed, free.any(1), rested, has_hour, ~everywhere, ~mine)
    wrong = ~np.stack(fine, 1)
    reason = ["" if not bad.any() else REASONS[int(bad.argmax())] for bad in wrong]
    first = free.argmax(1)
    channel = [campaign.channels[k] if any_ else None for k, any_ in zip(first, free.any(1), strict=True)]
    return Restraint(reason, channel, everywhere, mine)


def counts(reasons: Sequence[str]) -> dict[str, int]:
    """Return how many recipients are held back by reason, in the order of REASONS; `sent` is the others."""
    found = Counter(reasons)
    return {"sent": found[""], **{reason: found[reason] for reason in REASONS if found[reason]}}


def held_out(hashes: np.ndarray, salt: str, share: float) -> np.ndarray:
    """Return [n] bool: whom a holdout of this share holds out; those in stay in when it grows."""
    found: np.ndarray = buckets(hashes, salt) < round(share * BUCKETS)
    return found


def share_drawn(share: float) -> float:
    """Return how likely `held_out` holds somebody out, of a share that is declared."""
    return round(share * BUCKETS) / BUCKETS


def _rows(users: pl.DataFrame, user_ids: Sequence[int | str]) -> pl.DataFrame:
    """Return the recipients' rows in their order; nulls for whom the table does not know."""
    wanted = pl.DataFrame({"user_id": pl.Series(user_ids, dtype=users.schema["user_id"])})
    if wanted["user_id"].is_duplicated().any():
        twice = wanted.filter(wanted["user_id"].is_duplicated())["user_id"][0]
        raise TableError(f"audience: {twice!r} is there twice; give each recipient once")
    return wanted.join(users, on="user_id", how="left", maintain_order="left")


def allows(users: pl.DataFrame, declared: Sequence[Mapping[str, Any]], purpose: str) -> np.ndarray:
    """Return [n] bool: who allows a purpose by the table, and does not deny it by the state."""
    name = CONSENT_PREFIX + purpose
    columns = ["user_id", name] if name in users.columns else ["user_id"]
    by_state = [not_denied(known, purpose) for known in declared]
    agreed: np.ndarray = allowed_rows(users.select(columns).to_arrow(), purpose) & np.asarray(by_state, bool)
    return agreed


def denials(store: Store, purpose: str, user_ids: Sequence[int | str], channels: Sequence[str]) -> list[str | None]:
    """Return [n] the reason, `no_consent` or `no_channel`, for which the state denies each a message by their channel;
    None where it does not."""
    found: list[str | None] = []
    for known, channel in zip(store.features(user_ids), channels, strict=True):
        by_channel = not_denied(known, channel) and not_denied(known, f"{purpose}_{channel}")
        found.append("no_consent" if not not_denied(known, purpose) else None if by_channel else "no_channel")
    return found


def who_denied(store: Store, user_ids: Sequence[int | str]) -> list[int | str]:
    """Return those of whom nothing may be known by what the store was told since the tables were made."""
    known = zip(user_ids, store.features(user_ids), strict=True)
    return [user for user, columns in known if not not_denied(columns, PURPOSE)]


def _tired(campaign: Campaign, contact: Contact, user_ids: pl.Series, at: int) -> np.ndarray:
    """Return [n] bool: who was written to so often since they last opened something."""
    fatigue = campaign.fatigue
    if not fatigue.sends:
        return np.zeros(len(user_ids), bool)
    lately = contact.sends.filter((pl.col("at") > at - round(fatigue.days * DAY_US)) & (pl.col("at") <= at))
    if contact.opened is not None:
        last = contact.opened.rename({"at": "opened"})
        lately = lately.join(last, on="user_id", how="left").filter(pl.col("at") > pl.col("opened").fill_null(-(2**62)))
    times = lately.group_by("user_id").len("times")
    known = user_ids.to_frame("user_id").join(times, on="user_id", how="left", maintain_order="left")
    tired: np.ndarray = known["times"].fill_null(0).to_numpy() >= fatigue.sends
    return tired


def _capped(campaign: Campaign, sends: pl.DataFrame, user_ids: pl.Series, at: int) -> np.ndarray:
    """Return [n, channels] bool: who was written to as often as a cap allows; a send of no noted channel is of each."""
    capped = np.zeros((len(user_ids), len(campaign.channels)), bool)
    for cap in campaign.caps:
        lately = sends.filter(pl.col("at") > at - round(cap.days * DAY_US))
        if cap.channel is not None:
            lately = lately.filter(pl.col("channel").is_null() | (pl.col("channel") == cap.channel))
        times = lately.group_by("user_id").len("times")
        known = user_ids.to_frame("user_id").join(times, on="user_id", how="left", maintain_order="left")
        full = known["times"].fill_null(0).to_numpy() >= cap.most
        for column, channel in enumerate(campaign.channels):
            if cap.channel in (None, channel):
                capped[:, column] |= full
    return capped
