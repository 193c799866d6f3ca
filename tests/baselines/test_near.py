"""What is trending by place: counted by hand, never of a few people, and files that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from playbill.baselines.near import LEAST_PEOPLE, Near, fit_near, read_near, write_near
from playbill.errors import FeatureError

DAY_US = 86_400_000_000


def near_of_three_places() -> Near:
    """60 people in each of two places and 40 in a third, and one nowhere; what they choose is theirs alone."""
    places = ["north"] * 60 + ["south"] * 60 + ["few"] * 40 + [None]
    person = np.arange(161)
    first = np.where(person < 60, 1, np.where(person < 120, 2, 3))
    # everybody chooses the item of their place today, and item 4 ten half-lives ago
    item = np.concatenate([first, np.full(161, 4)])
    at = np.concatenate([np.full(161, 100 * DAY_US), np.full(161, 30 * DAY_US)])
    return fit_near("region", places, np.tile(person, 2), item, at, 5, 101 * DAY_US, half_life_days=7)


def test_each_place_has_what_its_own_people_choose() -> None:
    near = near_of_three_places()
    assert near.column == "region" and list(near.row) == ["north", "south"]
    for place, best in (("north", 1), ("south", 2)):
        items, share = near.of(place)
        assert items.tolist() == [best, 4] and share.tolist() == pytest.approx([1, 0.5**10])


@pytest.mark.parametrize("place", ["few", "nowhere", None, 7, float("nan"), ["north"]])
def test_of_other_places_nothing_is_known(place: object) -> None:
    assert LEAST_PEOPLE > 40
    items, share = near_of_three_places().of(place)
    assert len(items) == len(share) == 0


def test_a_file_comes_back_and_others_are_refused(tmp_path: Path) -> None:
    near = near_of_three_places()
    write_near(tmp_path / "near.npz", near)
    read = read_near(tmp_path / "near.npz", 5)
    assert read.row == near.row and read.column == "region"
    assert read.of("south")[0].tolist() == near.of("south")[0].tolist()
    with pytest.raises(FeatureError, match=r"not in the catalogue of 1\.\.3"):
        read_near(tmp_path / "near.npz", 3)
    (tmp_path / "near.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(FeatureError, match="holds no lists by place"):
        read_near(tmp_path / "near.npz", 5)
    write_near(tmp_path / "near.npz", Near("region", {"north": 0}, near.indptr, near.item, near.share))
    with pytest.raises(FeatureError, match="do not fit each other"):
        read_near(tmp_path / "near.npz", 5)


def test_nobody_anywhere(tmp_path: Path) -> None:
    nothing = np.zeros(0, np.int64)
    write_near(tmp_path / "near.npz", fit_near("region", [], nothing, nothing, nothing, 5, 1, 7.0))
    assert read_near(tmp_path / "near.npz", 5).row == {}
