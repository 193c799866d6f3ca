from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbill.dataset.settings import SplitKind, SplitSettings
from playbill.dataset.splits import global_time, leave_last_out, part_number
from playbill.errors import ConfigError


def test_boundaries_are_moments_of_events() -> None:
    at = np.arange(10, 0, -1)
    assert global_time(at, 0.8, 0.1) == (9, 10)
    assert global_time(at, 0.5, 0.5) == (6, 11)
    assert global_time(at, 1.0, 0.0) == (11, 11)
    assert global_time(np.zeros(0, np.int64)) == (0, 0)


@pytest.mark.parametrize(
    ("at", "share", "train"),
    [
        ([1, 2, 2, 2, 3], 0.4, 1),  # 2 wanted, 1 or 4 possible
        ([1, 2, 2, 2, 3], 0.6, 4),  # 3 wanted
        ([1, 1, 1, 1], 0.4, 0),
        ([1, 1, 1, 1], 0.6, 4),
    ],
)
def test_events_of_one_moment_stay_together(at: list[int], share: float, train: int) -> None:
    boundary, _ = global_time(np.asarray(at), share, 0)
    assert sum(t < boundary for t in at) == train


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.floats(0.01, 1), st.floats(0, 1))
def test_no_other_boundary_comes_nearer(at: list[int], train: float, rest: float) -> None:
    ordered = np.sort(np.asarray(at))
    for share, boundary in zip(
        (train, train + rest * (1 - train)), global_time(np.asarray(at), train, rest * (1 - train)), strict=True
    ):
        wanted = share * len(at)
        possible = {int((ordered < b).sum()) for b in [*at, max(at) + 1]}
        assert abs((ordered < boundary).sum() - wanted) <= min(abs(p - wanted) for p in possible) + 1e-9


def test_the_last_event_tests_and_the_one_before_validates() -> None:
    assert leave_last_out(np.asarray([0, 4, 4, 6, 9])).tolist() == [0, 0, 1, 2, 0, 0, 0, 1, 2]


def test_shares_and_parts_are_checked() -> None:
    for wrong in ({"train": 0.0}, {"train": 1.1}, {"valid": -0.1}, {"train": 0.9, "valid": 0.2}):
        with pytest.raises(ConfigError, match="train|valid"):
            SplitSettings(**wrong)
    with pytest.raises(ConfigError, match="order_column=pos has no effect"):
        SplitSettings(order_column="pos")
    SplitSettings(kind=SplitKind.leave_last_out, order_column="pos")
    with pytest.raises(ConfigError, match="no part 'dev'; parts are train, valid, test"):
        part_number("dev")


def test_movielens_1m_agrees_with_the_split_of_its_own_column(shared_data: Path) -> None:
    path = shared_data / "ml-1m" / "interactions.parquet"
    if not path.is_file():
        pytest.skip(f"no {path}")
    rows = pl.read_parquet(path)
    at = rows["timestamp"].to_numpy().astype(np.int64) * 1_000_000
    train_until, valid_until = global_time(at)
    part = np.where(at < train_until, "train", np.where(at < valid_until, "valid", "test"))
    user = rows["user_id"].to_numpy()
    test_users = np.unique(user[part == "test"])
    assert len(test_users) == 1209
    assert len(np.setdiff1d(test_users, user[part != "test"])) == 29
    # that column was made from exact times, these here are blurred within a quarter of an hour
    assert (part != rows["split_global"].to_numpy()).sum() <= 2
