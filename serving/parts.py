"""The files of a batch: which part holds whom, which parts are done, and when the whole is.

    <home>/batch/<name>/_batch.json           what is being made (Plan); readers of parquet folders pass over _ names
                        part-00000.parquet    one row a user; carries the plan's `run`, which tells it from an old one
                        _SUCCESS              written last, with counts: without it the folder is not finished

Every part is written beside its place and renamed, so a part that is there is whole. Plain files: no Ray.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from playbill.errors import TableError
from playbill.tables.files import write_atomic

RUN = b"playbill.run"


class Plan(msgspec.Struct, kw_only=True):
    """What a batch makes.

    Attributes:
        run: id of this plan; parts of another run are made anew.
        asked: hash of all that was asked for: bundle, audience, settings.
        at: UTC microseconds that the slates are made for.
        state_version: of the store when the batch began; each row names the one that it was made from.
    """

    run: str
    asked: str
    name: str
    bundle: str
    k: int
    surface: str
    at: int
    state_version: int
    num_users: int
    shard_users: int

    @property
    def num_parts(self) -> int:
        """How many files there will be."""
        return -(-self.num_users // self.shard_users)


class Success(msgspec.Struct, kw_only=True):
    """`_SUCCESS`: the counts of a finished batch."""

    run: str
    parts: int
    rows: int
    rungs: dict[str, int]


def make_plan(
    *, name: str, bundle: str, k: int, surface: str, at: int, state_version: int, users: pa.Array, shard_users: int
) -> Plan:
    """Return the plan of a batch over these users, [N] int64 or string, each once."""
    audience = hashlib.sha256(pa.RecordBatch.from_arrays([users], ["user_id"]).serialize())
    asked = hashlib.sha256(repr((name, bundle, k, surface, shard_users, audience.hexdigest())).encode()).hexdigest()
    run = hashlib.sha256(f"{asked} {at} {state_version}".encode()).hexdigest()[:16]
    return Plan(
        run=run, asked=asked, name=name, bundle=bundle, k=k, surface=surface, at=at, state_version=state_version,
        num_users=len(users), shard_users=shard_users,
    )  # fmt: skip


def read_plan(folder: Path) -> Plan | None:
    """Return the plan that a folder was begun with, None for a new folder."""
    return _read(folder / "_batch.json", Plan)


def read_success(folder: Path) -> Success | None:
    """Return the counts of a finished batch, None while it is not finished."""
    return _read(folder / "_SUCCESS", Success)


def begin(folder: Path, plan: Plan) -> None:
    """Turn a folder to a plan: from now on it is not finished, and parts of other runs do not count."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "_SUCCESS").unlink(missing_ok=True)
    write_atomic(folder / "_batch.json", msgspec.json.format(msgspec.json.encode(plan)))


def part_path(folder: Path, number: int) -> Path:
    """Return the path of a part."""
    return folder / f"part-{number:05}.parquet"


class Planned(Protocol):
    """What any job in parts says of itself."""

    run: str
    num_users: int
    shard_users: int

    @property
    def num_parts(self) -> int: ...


def missing(folder: Path, plan: Planned) -> list[int]:
    """Return the numbers of the parts that this run has not made yet."""
    return [n for n in range(plan.num_parts) if _run_of(part_path(folder, n)) != plan.run]


def write_part(folder: Path, number: int, run: str, rows: pa.Table) -> None:
    """Put a part in its place."""
    buffer = io.BytesIO()
    pq.write_table(rows.replace_schema_metadata({RUN: run.encode()}), buffer, compression="zstd")
    write_atomic(part_path(folder, number), buffer.getvalue())


def whole(folder: Path, plan: Planned, column: str) -> tuple[int, dict[str, int]]:
    """Return how many parts there are, and how often each value stands in a column, when every user stands in the parts
    once; parts of other runs are removed.

    Raises:
        TableError: a part is missing, or users are missing or there twice.
    """
    for stale in sorted(folder.glob("part-*.parquet")):
        if _run_of(stale) != plan.run:
            stale.unlink()  # of an older plan with more parts
    there = sorted(folder.glob("part-*.parquet"))
    rows = pa.concat_tables([pq.read_table(p, columns=["user_id", column]) for p in there]) if there else None
    num_ids = 0 if rows is None else len(rows)
    once = 0 if rows is None else pc.count_distinct(rows["user_id"]).as_py()
    if len(there) != plan.num_parts or num_ids != plan.num_users or once != plan.num_users:
        raise TableError(
            f"{folder} holds {num_ids} rows of {once} users in {len(there)} parts, expected {plan.num_users} "
            f"users in {plan.num_parts} parts; run it again with force=true"
        )
    counted = {} if rows is None else {r["values"]: r["counts"] for r in rows[column].value_counts().to_pylist()}
    return len(there), counted


def finish(folder: Path, plan: Plan) -> Success:
    """Write `_SUCCESS` after checking that every user stands in the parts, once.

    Raises:
        TableError: see `whole`.
    """
    num_parts, counted = whole(folder, plan, "rung")
    success = Success(run=plan.run, parts=num_parts, rows=plan.num_users, rungs=counted)
    write_atomic(folder / "_SUCCESS", msgspec.json.format(msgspec.json.encode(success)))
    return success


def request_id(name: str, user_id: int | str) -> str:
    """Return the request id of one user's slate in a batch: the same in every run; online it gives the same slate."""
    kind = "s" if isinstance(user_id, str) else "i"
    return hashlib.blake2b(f"{name}\0{kind}\0{user_id}".encode(), digest_size=16).hexdigest()


def split(users: pa.Array, plan: Planned, numbers: Sequence[int]) -> list[dict[str, object]]:
    """Return a row a part: its number and its users."""
    return [{"part": n, "user_ids": users.slice(n * plan.shard_users, plan.shard_users).to_pylist()} for n in numbers]


def _run_of(path: Path) -> str | None:
    try:
        return (pq.read_schema(path).metadata or {}).get(RUN, b"").decode()
    except (FileNotFoundError, pa.ArrowInvalid):
        return None


def _read(path: Path, kind: type[Plan] | type[Success]) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
