"""The shards of a campaign: what is known of contact with each shard's recipients, and the worker that decides them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from playbill.campaign.decide import Material, decide
from playbill.campaign.decisions import decisions_of
from playbill.campaign.offer_run import kept
from playbill.campaign.restraint import Contact
from playbill.campaign.send_time import SendTimes, read_send_times
from playbill.campaign.settings import Campaign
from playbill.campaign.variants import Choice
from playbill.serving import load
from playbill.serving.campaigns.folder import DECISIONS, ROWS, CampaignPlan
from playbill.serving.parts import write_part
from playbill.state.settings import StoreSettings, state_place
from playbill.state.store import Store
from playbill.tables.files import write_atomic

_AT_ONCE = 128  # shards whose people are read at a time
_WHOLE = "whole"  # holds the run's id; written last


def put_contact(
    folder: Path,
    contact: Contact,
    plan: CampaignPlan,
    user_ids: pl.Series,
    numbers: Sequence[int],
    users: pl.LazyFrame | None = None,
) -> None:
    """Write for each shard what is known of contact with its recipients, so that no worker reads everybody's.

    Args:
        folder: written and removed by the run.
        user_ids: of all recipients, in the order of their shards.
        numbers: of the shards.
        users: the users table; None: it stands in `contact`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole = contact.users.lazy() if users is None else users
    for low in range(0, len(numbers), _AT_ONCE):
        some = list(numbers[low : low + _AT_ONCE])
        places = [pl.DataFrame({"user_id": _of_part(user_ids, plan, n), "part": n}) for n in some]
        _put_some(folder, contact, pl.concat(places), some, whole)
    if set(numbers) >= set(range(plan.num_parts)):
        write_atomic(folder / _WHOLE, plan.run.encode())


def _of_part(user_ids: pl.Series, plan: CampaignPlan, number: int) -> pl.Series:
    return user_ids.slice(number * plan.shard_users, plan.shard_users)


def _put_some(folder: Path, contact: Contact, place: pl.DataFrame, numbers: list[int], whole: pl.LazyFrame) -> None:
    """Write the files of a few hundred shards: a users table of millions is never there at once.

    Args:
        place: user_id, part: of each recipient of these shards.
    """
    ids = place["user_id"]
    theirs = whole.filter(pl.col("user_id").is_in(ids.implode())).collect()
    users = place.join(theirs, on="user_id", how="left", maintain_order="left")
    opened = contact.opened if contact.opened is not None else contact.sends.select("user_id", "at").clear()
    for name, frame in (
        ("users", users),
        ("words", contact.words.join(place, on="user_id")),
        ("sends", contact.sends.join(place, on="user_id")),
        ("opened", opened.join(place, on="user_id")),
        *([] if contact.given is None else [("given", contact.given.join(place, on="user_id"))]),
    ):
        by_part = frame.partition_by("part", as_dict=True, include_key=False)
        for number in numbers:
            mine = by_part.get((number,), frame.drop("part").clear())
            buffer = io.BytesIO()
            mine.write_parquet(buffer)
            write_atomic(folder / f"{name}-{number:05}.parquet", buffer.getvalue())


def has_contact(folder: Path, plan: CampaignPlan) -> bool:
    """Return whether `put_contact` wrote all of a plan's shards."""
    whole = folder / _WHOLE
    return whole.is_file() and whole.read_text() == plan.run


def read_shard(folder: Path, number: int) -> Contact:
    """Return what `put_contact` wrote of one shard."""
    names = ("users", "words", "sends", "opened")
    users, words, sends, opened = (pl.read_parquet(folder / f"{name}-{number:05}.parquet") for name in names)
    given = folder / f"given-{number:05}.parquet"
    return Contact(users, words, sends, opened, pl.read_parquet(given) if given.is_file() else None)


class RowWriter:
    """Decides the recipients of a shard and writes it. Made once in each worker, where it opens bundle and state."""

    def __init__(
        self,
        home: str,
        folder: str,
        plan: CampaignPlan,
        subjects: Choice,
        heroes: Choice | None,
        send_times: str | None,
        require_gpu: bool,
        state: str | None,
        limits: StoreSettings | None,
    ) -> None:
        """Open everything; `home`, `folder`, `send_times` and `state`, where it is a folder, are absolute."""
        self._folder, self._plan, self._subjects, self._heroes = Path(folder), plan, subjects, heroes
        self._campaign = msgspec.convert(plan.declaration, Campaign)
        self._times: SendTimes | None = None if send_times is None else read_send_times(Path(send_times))
        store = self._store = Store.open(state_place(home, state), readonly=True, settings=limits)
        self._offers = kept(self._folder, plan.run) if self._campaign.offers.levels else None
        _, self._engine = load.open_engine(load.bundle_path(home, plan.bundle), store, require_gpu=require_gpu)

    def close(self) -> None:
        """Close the state, so that this process may open it again."""
        self._store.close()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Write one shard's decisions, then its rows; take and return rows of Ray Data."""
        number, users = int(row["part"]), list(row["user_ids"])
        contact = read_shard(self._folder / ".contact", number)
        material = Material(self._engine, contact, self._subjects, self._times, self._offers, self._heroes)
        rows = decide(self._campaign, material, users, self._plan.at)
        for name, frame in ((DECISIONS, decisions_of(self._campaign, rows)), (ROWS, rows)):
            table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
            write_part(self._folder / name, number, self._plan.run, table)
        return {"part": number, "users": len(users)}
