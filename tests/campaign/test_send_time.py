"""Choosing an hour: propensities against chance itself, moments against calendars, files against what was written."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from playbill.campaign.rhythm import HOURS, Week
from playbill.campaign.send_time import (
    FILE,
    SendTimes,
    arrival_us,
    choose_hours,
    mapped,
    read_send_times,
    write_send_times,
)
from playbill.errors import FeatureError


def at(*when: int) -> int:
    return round(datetime(*when, tzinfo=UTC).timestamp() * 1e6)


def test_propensities_are_the_frequencies_of_chance() -> None:
    dice, rounds = np.random.default_rng(1), 40_000
    chances, may = dice.random((1, HOURS)), np.zeros((1, HOURS), bool)
    may[0, [9, 12, 33, 150]] = True
    hour, propensity = choose_hours(np.tile(chances, (rounds, 1)), np.tile(may, (rounds, 1)), 0.2, dice.random(rounds))
    best = int(np.where(may, chances, -1).argmax())
    for place in (9, 12, 33, 150):
        expected = 0.2 / 4 + (0.8 if place == best else 0.0)
        assert abs((hour == place).mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / rounds)
        assert set(propensity[hour == place].round(12)) == {round(expected, 12)}
    assert set(hour) == {9, 12, 33, 150}


def test_nobody_is_written_to_where_no_hour_may_be() -> None:
    with pytest.raises(FeatureError, match="1 recipients have no hour"):
        choose_hours(np.ones((2, HOURS)), np.asarray([[True] * HOURS, [False] * HOURS]), 0.0, np.zeros(2))


@pytest.mark.parametrize(
    ("after", "zone", "hour", "expected"),
    [
        (at(2026, 11, 23, 0, 0), "UTC", 9, at(2026, 11, 23, 9)),  # a Monday
        (at(2026, 11, 23, 9, 0), "UTC", 9, at(2026, 11, 23, 9)),
        (at(2026, 11, 23, 9, 1), "UTC", 9, at(2026, 11, 30, 9)),
        (at(2026, 11, 23, 0, 0), "Europe/Rome", 9, at(2026, 11, 23, 8)),
        (at(2026, 7, 6, 0, 0), "Europe/Rome", 9, at(2026, 7, 6, 7)),  # daylight saving
        (at(2026, 11, 22, 23, 0), "America/Bogota", 167, at(2026, 11, 23, 4)),  # still Sunday there
        (at(2026, 11, 23, 0, 0), "Asia/Kolkata", 10, at(2026, 11, 23, 4, 30)),
        (at(2026, 3, 27, 0, 0), "Europe/Rome", 146, at(2026, 3, 29, 1)),  # 02:00 on that Sunday is leapt over
        (at(2026, 10, 23, 0, 0), "Europe/Rome", 146, at(2026, 10, 25, 0)),  # 02:00 comes twice: the first
        (at(2026, 11, 23, 0, 0), "Nowhere/Land", 9, at(2026, 11, 23, 9)),
    ],
)
def test_the_moment_of_a_local_hour(after: int, zone: str, hour: int, expected: int) -> None:
    assert arrival_us(after, zone, hour) == expected


def small(least: int = 5) -> SendTimes:
    dice = np.random.default_rng(2)
    week = Week(dice.normal(0, 0.3, HOURS), 0.7, dice.normal(0, 0.4, (3, 10)), np.full(10, 0.5))
    value = dice.normal(0, 0.5, (4, 10)).astype(np.float32)
    unsure, shown = np.full(4, 0.1, np.float32), np.asarray([50, 4, 5, 0], np.int32)
    knots, to = np.linspace(-4, 4, 9), np.linspace(-4, 4, 9) * 0.9 - 0.1
    return SendTimes(week, ["", "a", "b"], knots, to, least, np.asarray([3, 5, 8, 11]), value, unsure, shown)


def test_whose_hours_an_answer_rests_on() -> None:
    found = small()
    chances, codes = found.chances([3, 5, 8, 11, 99, 1], ["a", "a", "", "b", "b", "nobody's"])
    assert codes == ["person", "segment", "person", "segment", "segment", "everybody"]
    assert chances.shape == (6, HOURS) and ((chances > 0) & (chances < 1)).all()
    alone, _ = found.chances([11], ["b"])
    assert (alone[0] == chances[3]).all() and (chances[3] == chances[4]).all() and (chances[0] != chances[1]).any()


def test_a_model_with_nobody_in_it_answers_by_segments(tmp_path: Path) -> None:
    known = small()
    empty = dataclasses.replace(known, user_ids=known.user_ids[:0], value=known.value[:0], unsure=known.unsure[:0],
                                shown=known.shown[:0])  # fmt: skip
    write_send_times(tmp_path, empty)
    chances, codes = read_send_times(tmp_path).chances([3, 11], ["a", ""])
    assert codes == ["segment", "everybody"]
    assert (chances == known.chances([99, 98], ["a", ""])[0]).all()


def test_files_hold_what_was_written_and_broken_ones_say_so(tmp_path: Path) -> None:
    found = small()
    write_send_times(tmp_path, found)
    again = read_send_times(tmp_path)
    for one, other in zip(found.chances([3, 11], ["a", ""]), again.chances([3, 11], ["a", ""]), strict=True):
        np.testing.assert_array_equal(one, other)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:200])
    with pytest.raises(FeatureError, match="playbill train-campaign"):
        read_send_times(tmp_path)


def test_a_map_goes_on_beyond_its_ends() -> None:
    knots, to = np.asarray([0.0, 1.0, 2.0]), np.asarray([0.0, 2.0, 3.0])
    assert mapped(np.asarray([-1.0, 0.5, 1.5, 4.0]), knots, to).tolist() == [-2.0, 1.0, 2.5, 5.0]
