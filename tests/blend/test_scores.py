"""Saved scores go there and back; whoever saw the fold, and every row that cannot be right, is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from playbill.blend.lists import from_arrays
from playbill.blend.scores import Learned, Member, Who, check_member, read_lists, read_member, write_member
from playbill.errors import BlendError
from playbill.features.vocabulary import Vocabulary

ITEMS = Vocabulary([10, 20, 30, 40])
WHO = Who([7, 8, None], [None, None, "s1"], np.array([0, 1, 1, 1]), np.array([4]))
SPLIT = {"kind": "leave_last_out"}


def member(**changes: Any) -> Member:
    learned = {"valid": Learned(parts=["train"])}
    return Member(**{"name": "peer", "tables_fingerprint": "f" * 64, "split": SPLIT, "learned": learned} | changes)


def write(folder: Path, **columns: list[Any]) -> Path:
    folder.mkdir(exist_ok=True)
    whole = {
        "user_id": [7, 8, None],
        "session_id": [None, None, "s1"],
        "item_id": [10, 20, 30],
        "score": [1.0, 2.0, 3.0],
    }
    pq.write_table(pa.table(whole | columns), folder / "valid.parquet")
    (folder / "member.json").write_bytes(msgspec.json.encode(member()))
    return folder


def test_there_and_back(tmp_path: Path) -> None:
    lists = from_arrays(
        [np.array([2, 1]), np.array([], int), np.array([3, 4])],
        [np.array([2.0, 1.5]), np.array([]), np.array([0.5, -1])],
    )
    write_member(tmp_path / "m", member(), {"valid": lists}, {"valid": WHO}, ITEMS)
    assert read_member(tmp_path / "m") == member()
    back = read_lists(tmp_path / "m", "valid", WHO, ITEMS, 10)
    assert back.indptr.tolist() == [0, 2, 2, 4] and back.item.tolist() == [2, 1, 3, 4]
    assert back.score.tolist() == [2.0, 1.5, 0.5, -1.0]
    assert read_lists(tmp_path / "m", "valid", WHO, ITEMS, 1).item.tolist() == [2, 3]


def test_rows_in_any_order_of_more_people_than_asked_and_of_what_was_had(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        user_id=[8, 7, 99, None, 7, 7],
        session_id=[None, None, None, "s1", None, None],
        item_id=[20, 30, 20, None, 10, 40],  # user 7 had item 40 before
        score=[1, 2, 5, None, 2, 9],
    )
    lists = read_lists(path, "valid", WHO, ITEMS, 10)
    assert lists.indptr.tolist() == [0, 2, 3, 3]
    assert lists.item.tolist() == [1, 3, 2]  # equal scores: the lower item first


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"score": [1.0, float("nan"), 2.0]}, r"valid\.parquet, row 1: score is nan, expected a finite number"),
        ({"score": [1.0, 2.0, float("inf")]}, r"row 2: score is inf"),
        ({"item_id": [10, 20, 31]}, r"row 2: item_id 31 is not in the items table"),
        ({"item_id": ["a", "b", "c"]}, r"valid\.parquet: .*ids must be as in the tables \(int64\)"),
        (
            {
                "user_id": [7, 8, None, 7],
                "session_id": [None, None, "s1", None],
                "item_id": [10, 20, 30, 10],
                "score": [1.0] * 4,
            },
            r"row 3: item_id 10 stands twice in the list of one person",
        ),
        ({"user_id": [7, 7, None]}, r"valid\.parquet: user 8 is asked about valid and has no row \(1 of 3 people\)"),
        ({"session_id": [None, None, "s2"]}, r"session 's1' is asked about valid and has no row"),
        ({"user_id": ["7", "8", None]}, r"valid\.parquet: user_id: .*ids must be as in the tables"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, columns: dict[str, list[Any]], told: str) -> None:
    path = write(tmp_path, **columns)
    with pytest.raises(BlendError, match=told):
        read_lists(path, "valid", WHO, ITEMS, 10)


def test_a_missing_column_or_file_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [7], "item_id": [10]}), tmp_path / "valid.parquet")
    with pytest.raises(BlendError, match="has no column score; it has: user_id, item_id"):
        read_lists(tmp_path, "valid", WHO, ITEMS, 10)
    with pytest.raises(BlendError, match=r"test\.parquet is missing: the member has no scores for the part test"):
        read_lists(tmp_path, "test", WHO, ITEMS, 10)
    (tmp_path / "test.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(BlendError, match=r"test\.parquet cannot be read"):
        read_lists(tmp_path, "test", WHO, ITEMS, 10)
    with pytest.raises(BlendError, match=r"member\.json is missing"):
        read_member(tmp_path)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ({"learned": {"valid": {"parts": ["train"], "until": 3}}}, "until"),
        ({"name": "../x"}, "name must be of letters"),
        (
            {"learned": {"holdout": {"parts": ["train"]}}},
            "learned.holdout names 'holdout'; parts are train, valid, test",
        ),
        ({"format_version": 9}, "format 9, this Playbill reads 1"),
    ],
)
def test_a_member_file_that_says_nonsense_is_refused(tmp_path: Path, written: dict[str, Any], told: str) -> None:
    plain = msgspec.to_builtins(member()) | written
    (tmp_path / "member.json").write_bytes(msgspec.json.encode(plain))
    with pytest.raises(BlendError, match=told):
        read_member(tmp_path)


@pytest.mark.parametrize(
    ("learned", "began", "told"),
    [
        (
            {"valid": Learned(parts=["train", "valid"])},
            None,
            "member peer .* learned from train, valid: it has seen valid",
        ),
        ({"valid": Learned(parts=["train", "test"])}, None, "it has seen test, and is asked about valid"),
        ({}, None, "does not say what it had learned from when it was asked about valid"),
        ({"valid": Learned()}, None, "does not say what it had learned from"),
        ({"valid": Learned(until_us=101)}, 100, "learned from events until 101 .* and valid begins at 100"),
        ({"valid": Learned(until_us=100)}, None, "this split has no one moment at which valid begins"),
    ],
)
def test_a_member_that_saw_the_fold_is_rejected(
    tmp_path: Path, learned: dict[str, Learned], began: int | None, told: str
) -> None:
    with pytest.raises(BlendError, match=told):
        check_member(member(learned=learned), tmp_path, "valid", "f" * 64, SPLIT, began)


def test_a_member_that_did_not_see_the_fold_of_this_log_is_taken(tmp_path: Path) -> None:
    check_member(member(), tmp_path, "valid", "f" * 64, SPLIT, None)
    check_member(member(learned={"valid": Learned(until_us=100)}), tmp_path, "valid", "f" * 64, SPLIT, 100)
    with pytest.raises(BlendError, match="was scored on tables with fingerprint"):
        check_member(member(), tmp_path, "valid", "e" * 64, SPLIT, None)
    with pytest.raises(BlendError, match="was scored with split"):
        check_member(member(), tmp_path, "valid", "f" * 64, {"kind": "global_time"}, None)
