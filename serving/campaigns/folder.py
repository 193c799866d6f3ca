"""The files of a campaign: what was asked for, which shards are decided, and when the whole is.

A wave of a campaign has a folder of its own, <name>-wave01.

    <home>/campaigns/<name>/plan.json                what is being decided (CampaignPlan)
                            offers.parquet           everybody's offer, where offers are made; settled before all rows
                            rows/part-00000.parquet  a row a recipient, see `campaign.decide.decide`
                            decisions/part-00000.parquet  the same as decisions, written before its rows
                            aside.parquet            rows of the audience file that are nobody, and why
                            preview.html             some recipients, to look at
                            success.json             written last, with counts: without it the campaign is not decided

Every file is written beside its place and renamed, so one that is there is whole.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa

from playbill.campaign.settings import Campaign
from playbill.campaign.subject_file import Chances
from playbill.campaign.variants import Choice
from playbill.tables.files import sha256_file, write_atomic

ROWS, DECISIONS, ASIDE, PREVIEW = "rows", "decisions", "aside.parquet", "preview.html"


class CampaignPlan(msgspec.Struct, kw_only=True):
    """What a run decides.

    Attributes:
        run: id of this plan; parts of another run are made anew.
        asked: by name, a hash of each thing that the rows follow from.
        declaration: the campaign, as it was composed.
        at: UTC microseconds, the moment of the run.
        state_version: of the store when it began; each row names the one that it was made from.
        chances, hero_chances: of the subjects and of the heroes when it began; None: all alike.
    """

    run: str
    asked: dict[str, str]
    declaration: dict[str, Any]
    bundle: str
    at: int
    state_version: int
    num_users: int
    shard_users: int
    chances: Chances | None = None
    hero_chances: Chances | None = None

    @property
    def num_parts(self) -> int:
        """How many files there will be of each kind."""
        return -(-self.num_users // self.shard_users)


class Success(msgspec.Struct, kw_only=True):
    """`success.json`: a decided campaign in numbers.

    Attributes:
        recipients: rows; `sent` of them are sent, `held` are not, by reason.
        aside: rows of the audience that are nobody, by reason.
    """

    run: str
    recipients: int
    sent: int
    held: dict[str, int]
    aside: dict[str, int]


def make_plan(
    campaign: Campaign,
    *,
    bundle: str,
    at: int,
    state_version: int,
    users: pa.Array,
    shard_users: int,
    subjects: Choice,
    heroes: Choice | None = None,
    send_times: Path | None,
    offers: Path | None = None,
    tables: str,
    given: pl.DataFrame | None = None,
) -> CampaignPlan:
    """Return the plan of a campaign over these users, [N] int64 or string, each once.

    Args:
        subjects, heroes: their chances are no part of what is asked: a run that goes on keeps those it began with.
        given: see `audience.People`.
        tables: fingerprint of the folder that consent was read from.
    """
    declaration = msgspec.to_builtins(campaign)
    files = [] if send_times is None else sorted(p for p in send_times.iterdir() if p.name.startswith("send_time."))
    priced = [] if offers is None else sorted(p for p in offers.iterdir() if p.name in ("offers.npz", "offers.json"))
    asked = {
        "declaration": _hash(msgspec.json.encode(declaration, order="deterministic")),
        "bundle": bundle,
        "audience": _hash(pa.RecordBatch.from_arrays([users], ["user_id"]).serialize()),
        "subjects": _hash(msgspec.json.encode([(v.name, v.text) for v in subjects.variants])),
        "heroes": _hash(msgspec.json.encode([(v.name, v.text, v.image) for v in heroes.variants]))
        if heroes
        else "none",
        "send_times": _hash("".join(sha256_file(p) for p in files).encode()) if files else "none",
        "offers": _hash("".join(sha256_file(p) for p in priced).encode()) if priced else "none",
        "tables": tables,
        "shard_users": str(shard_users),
    }
    if given is not None:
        asked["items"] = _hash(b"".join(batch.serialize() for batch in given.to_arrow().to_batches()))
    run = _hash(msgspec.json.encode([asked, at, state_version], order="deterministic"))
    return CampaignPlan(
        run=run, asked=asked, declaration=declaration, bundle=bundle, at=at, state_version=state_version,
        num_users=len(users), shard_users=shard_users, chances=subjects.chances,
        hero_chances=None if heroes is None else heroes.chances,
    )  # fmt: skip


def begin(folder: Path, plan: CampaignPlan) -> None:
    """Turn a folder to a plan: from now on it is not decided, and parts of other runs do not count."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "success.json").unlink(missing_ok=True)
    write_json(folder / "plan.json", plan)


def waves_of(folder: Path) -> list[Path]:
    """Return the folders of a campaign that was sent in waves, in their order. Args: folder: as if it had none."""
    found = [p for p in folder.parent.glob(f"{folder.name}-wave*") if p.name.rpartition("-wave")[2].isdigit()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-wave")[2]))


def read_plan(folder: Path) -> CampaignPlan | None:
    """Return the plan that a folder was begun with, None for a new folder."""
    return _read(folder / "plan.json", CampaignPlan)


def read_success(folder: Path) -> Success | None:
    """Return the counts of a decided campaign, None while it is not decided."""
    return _read(folder / "success.json", Success)


def write_json(path: Path, value: msgspec.Struct) -> None:
    write_atomic(path, msgspec.json.format(msgspec.json.encode(value)))


def _read(path: Path, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _hash(data: bytes | pa.Buffer) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
