from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from playbill.baselines.popularity import DAY_US, popularity, read_scores, repeat_scores, trending, write_scores
from playbill.errors import FeatureError

NOTHING = np.zeros(0, np.int64)


def test_popularity_counts_events_and_never_proposes_the_unknown() -> None:
    scores = popularity(np.asarray([2, 1, 2, 0, 0, 0]), 3)
    assert scores.dtype == np.float32
    assert scores.tolist() == [-np.inf, 1, 2, 0]
    assert popularity(NOTHING, 2).tolist() == [-np.inf, 0, 0]
    with pytest.raises(ValueError, match="item_index 4 is beyond the 3 known items"):
        popularity(np.asarray([4]), 3)


def test_trending_halves_with_each_half_life() -> None:
    now = 100 * DAY_US
    # ages in days: item 1: 0 and 7 before the newest; item 2: 14; item 3: today's and tomorrow's are not yet known
    item = np.asarray([1, 1, 2, 3, 3])
    at = np.asarray([98, 91, 84, 100, 101]) * DAY_US
    assert trending(item, at, 3, now, half_life_days=7).tolist() == [-np.inf, 1.5, 0.25, 0]
    assert trending(item, at, 3, now, half_life_days=14).tolist() == pytest.approx([-np.inf, 1 + 2**-0.5, 0.5, 0])
    # 98 is 2 days ago, 91 is 9, 84 is 16
    assert trending(item, at, 3, now, half_life_days=7, window_days=9).tolist() == [-np.inf, 1.5, 0, 0]
    assert trending(item, at, 3, now, half_life_days=7, window_days=1).tolist() == [-np.inf, 0, 0, 0]
    assert trending(NOTHING, NOTHING, 1, now).tolist() == [-np.inf, 0]


def test_a_log_that_ended_long_ago_still_ranks() -> None:
    item, at = np.asarray([1, 2, 2]), np.asarray([0, 0, 0])
    scores = trending(item, at, 2, now_us=20_000 * DAY_US, half_life_days=1)
    assert scores.tolist() == [-np.inf, 1, 2]


@pytest.mark.parametrize("wrong", [{"half_life_days": 0.0}, {"half_life_days": -1.0}, {"window_days": 0.0}])
def test_spans_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        trending(NOTHING, NOTHING, 1, 0, **wrong)


def test_everybody_gets_the_same_scores() -> None:
    scores = popularity(np.asarray([1]), 2)
    repeated = repeat_scores(scores, 3)
    assert repeated.shape == (3, 3) and (repeated[1:] == scores).all()
    assert repeat_scores(scores, 0).shape == (0, 3)


def test_scores_written_are_scores_read(tmp_path: Path) -> None:
    scores = popularity(np.asarray([2, 2, 1]), 3)
    write_scores(tmp_path / "popularity.npy", scores)
    np.testing.assert_array_equal(read_scores(tmp_path / "popularity.npy"), scores)


def test_what_is_no_scores_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    with pytest.raises(FeatureError, match="holds no scores"):
        read_scores(path)
    path.write_bytes(b"\x93NUMPY")
    with pytest.raises(FeatureError, match="holds no scores"):
        read_scores(path)
    # nothing that can run code is ever read
    np.save(path, np.asarray([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(FeatureError, match="holds no scores"):
        read_scores(path)
    np.save(path, np.zeros((2, 2), np.float32))
    with pytest.raises(FeatureError, match="one row of float32"):
        read_scores(path)
