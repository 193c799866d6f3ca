"""The files of a batch, without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from playbill.errors import ConfigError, TableError
from playbill.serving import parts
from playbill.serving.audience import read_audience
from playbill.serving.settings import BatchSettings

USERS = pa.array(range(10), pa.int64())


def plan(users: pa.Array = USERS, **changes: Any) -> parts.Plan:
    given = {"name": "all", "bundle": "v1", "k": 5, "surface": "slate", "at": 7, "state_version": 3, "shard_users": 4}
    return parts.make_plan(users=users, **{**given, **changes})


def write(folder: Path, made: parts.Plan, number: int, users: list[int]) -> None:
    rows = pa.table({"user_id": pa.array(users, pa.int64()), "rung": ["full"] * len(users)})
    parts.write_part(folder, number, made.run, rows)


def test_parts_hold_every_user_once() -> None:
    made = plan()
    rows = parts.split(USERS, made, range(made.num_parts))
    assert [r["part"] for r in rows] == [0, 1, 2]
    assert [u for r in rows for u in r["user_ids"]] == list(range(10))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "b"}, {"bundle": "v2"}, {"k": 6}, {"surface": "home"}, {"shard_users": 5},
        {"users": pa.array(range(1, 11), pa.int64())}, {"users": pa.array([str(u) for u in range(10)])},
    ],
)  # fmt: skip
def test_whatever_is_asked_differently_is_another_batch(change: dict[str, Any]) -> None:
    assert plan(**change).asked != plan().asked
    assert plan(at=8).asked == plan(state_version=4).asked == plan().asked
    assert len({plan().run, plan(at=8).run, plan(state_version=4).run, plan(**change).run}) == 4


def test_only_parts_of_this_run_count_and_finish_leaves_no_others(tmp_path: Path) -> None:
    old, new = plan(shard_users=2), plan()
    parts.begin(tmp_path, old)
    for number in range(old.num_parts):
        write(tmp_path, old, number, [2 * number, 2 * number + 1])
    assert parts.missing(tmp_path, old) == []
    assert parts.finish(tmp_path, old).rows == 10
    parts.begin(tmp_path, new)
    assert parts.read_success(tmp_path) is None
    assert parts.missing(tmp_path, new) == [0, 1, 2]
    write(tmp_path, new, 1, [4, 5, 6, 7])
    assert parts.missing(tmp_path, new) == [0, 2]
    write(tmp_path, new, 0, [0, 1, 2, 3])
    write(tmp_path, new, 2, [8, 9])
    success = parts.finish(tmp_path, new)
    assert (success.rows, success.parts, success.rungs) == (10, 3, {"full": 10})
    assert sorted(p.name for p in tmp_path.glob("part-*")) == [f"part-0000{n}.parquet" for n in range(3)]
    assert pq.read_table(tmp_path)["user_id"].to_pylist() == list(range(10))


def test_a_part_cut_short_is_made_again(tmp_path: Path) -> None:
    made = plan()
    parts.begin(tmp_path, made)
    write(tmp_path, made, 0, [0, 1, 2, 3])
    path = parts.part_path(tmp_path, 0)
    path.write_bytes(path.read_bytes()[:-20])
    assert parts.missing(tmp_path, made) == [0, 1, 2]


@pytest.mark.parametrize("last", [[8], [8, 8], [8, 9, 9], [7, 9]])
def test_a_lost_or_repeated_user_is_no_success(tmp_path: Path, last: list[int]) -> None:
    made = plan()
    parts.begin(tmp_path, made)
    for number, users in enumerate([[0, 1, 2, 3], [4, 5, 6, 7], last]):
        write(tmp_path, made, number, users)
    with pytest.raises(TableError, match="expected 10 users in 3 parts"):
        parts.finish(tmp_path, made)
    assert parts.read_success(tmp_path) is None


def test_request_ids_are_of_the_batch_and_the_user() -> None:
    ids = [parts.request_id(*given) for given in (("all", 1), ("all", 2), ("other", 1), ("all", "1"), ("all\0i", 1))]
    assert len(set(ids)) == 5
    # written down: a stored slate can be asked for again in years to come
    assert parts.request_id("all", 196) == "78957cb40b5051d840d6897917f8d1a1"


def test_plans_and_counts_are_read_back(tmp_path: Path) -> None:
    parts.begin(tmp_path, plan())
    assert parts.read_plan(tmp_path) == plan()
    (tmp_path / "_batch.json").write_text("{")
    assert parts.read_plan(tmp_path) is None
    assert msgspec.structs.fields(parts.Success)


def test_an_audience_is_each_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "some.parquet"
    pq.write_table(pa.table({"user_id": pa.array([5, 3, 5, None, 4], pa.int32()), "x": [0] * 5}), file)
    found = read_audience("var", "ml-100k", str(file))
    assert found.type == pa.int64() and found.to_pylist() == [5, 3, 4]


@pytest.mark.parametrize("columns", [{"id": [1]}, {"user_id": [1.5]}, {"user_id": pa.array([], pa.int64())}])
def test_a_bad_audience_is_refused(tmp_path: Path, columns: dict[str, Any]) -> None:
    file = tmp_path / "some.parquet"
    pq.write_table(pa.table(columns), file)
    with pytest.raises(TableError, match="user_id|nobody"):
        read_audience("var", "ml-100k", str(file))
    with pytest.raises(TableError, match="nothere"):
        read_audience("var", "ml-100k", str(tmp_path / "nothere.parquet"))


@pytest.mark.parametrize(
    "given", [{"k": 0}, {"k": 2000}, {"shard_users": 0}, {"name": "a/b"}, {"name": ""}, {"at": "x"}]
)
def test_settings_out_of_range_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        BatchSettings(**given)
