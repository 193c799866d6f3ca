"""Who comes when: the same in any grouping, as often and at the hours that people's habits say."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from scipy import stats

from playbill.world.build import World, build
from playbill.world.draws import Stream, uniform
from playbill.world.identifiers import VISITS_A_DAY
from playbill.world.parameters import Parameters, Population
from playbill.world.settings import Size
from playbill.world.visits import DAY_US, Visits, _poisson, day_start_us, local_hour_of_week, visits


@pytest.fixture(scope="module")
def world() -> World:
    return build(Parameters(), Size(people=4000, items=10, days=21, activity=6.0, slate_length=2), seed=5)


def test_groups_of_people_change_nothing(world: World) -> None:
    whole = visits(world, 3)
    for width in (1, 97, 4000):
        parts = [visits(world, 3, low, min(low + width, 4000)) for low in range(0, 200 if width == 1 else 4000, width)]
        until = (np.searchsorted(whole.person, 200) if width == 1 else len(whole)) or 0
        for field in fields(Visits):
            if field.name != "day":
                joined = np.concatenate([getattr(part, field.name) for part in parts])
                np.testing.assert_array_equal(joined, getattr(whole, field.name)[:until])


def test_people_come_as_often_as_they_do(world: World) -> None:
    weeks = [visits(world, day) for day in range(21)]
    count = np.bincount(np.concatenate([v.person for v in weeks]), minlength=4000)
    # over whole weeks the days' weights cancel; the cut at seven visits a day is felt by the busiest alone
    mean = world.people.visits_per_day.astype(np.float64) * 21
    usual = mean < 21
    assert abs(count[usual].sum() - mean[usual].sum()) <= 4 * np.sqrt(mean[usual].sum())
    # counts of a person are Poisson: their squared distances to the mean average to the mean
    excess = ((count - mean) ** 2 - mean)[usual]
    assert abs(excess.mean()) <= 4 * excess.std() / np.sqrt(usual.sum())
    sessions = np.concatenate([v.session for v in weeks])
    assert len(np.unique(sessions)) == len(sessions)
    assert max(int(v.number.max()) for v in weeks) < VISITS_A_DAY


def test_hours_follow_the_rhythm_in_local_time() -> None:
    population = Population(rhythms=1, timezones={"Asia/Kolkata": 1.0}, activity_mean=1.0, activity_sd=0.0)
    world = build(Parameters(population=population), Size(people=5000, items=10, days=7, slate_length=2), seed=2)
    came = [visits(world, day) for day in range(7)]
    at_us = np.concatenate([v.at_us for v in came])
    hour = local_hour_of_week(world.size, at_us, np.array(330))
    observed = np.bincount(hour, minlength=168)
    # UTC+5:30: the draw is by whole UTC hours, so a local hour mixes its own share with the hour before it
    share = (world.rhythms[0] + np.roll(world.rhythms[0], 1)) / 2
    expected = share / share.sum() * observed.sum()
    assert stats.chisquare(observed, expected).pvalue > 1e-4
    np.testing.assert_array_equal(np.concatenate([v.hour for v in came]), hour % 24)


def test_days_are_utc_days_and_devices_are_habits(world: World) -> None:
    for day in (0, 20):
        came = visits(world, day)
        start = day_start_us(world.size, day)
        assert came.at_us.min() >= start and came.at_us.max() < start + DAY_US
    came = [visits(world, day) for day in range(21)]
    person = np.concatenate([v.person for v in came])
    device = np.concatenate([v.device for v in came])
    habit = world.people.device_share[person].astype(np.float64)
    for k in range(habit.shape[1]):
        spread = np.sqrt((habit[:, k] * (1 - habit[:, k])).sum())
        assert abs((device == k).sum() - habit[:, k].sum()) <= 4 * spread


def test_the_first_weekday_is_the_calendars() -> None:
    size = Size(start="2025-01-08")  # a Wednesday
    wednesday_noon = day_start_us(size, 0) + DAY_US // 2
    assert local_hour_of_week(size, np.array([wednesday_noon]), np.array([0])).tolist() == [2 * 24 + 12]
    assert local_hour_of_week(size, np.array([wednesday_noon]), np.array([-13 * 60])).tolist() == [24 + 23]


def test_counts_are_poisson() -> None:
    n = 100_000
    drawn = uniform(1, Stream.VISIT_COUNT, np.arange(n))
    for mean in (0.02, 1.5):
        count = np.bincount(_poisson(np.full(n, mean), drawn), minlength=VISITS_A_DAY + 1)
        chance = stats.poisson.pmf(np.arange(VISITS_A_DAY + 1), mean)
        chance[-1] = stats.poisson.sf(VISITS_A_DAY - 1, mean)
        often = chance * n >= 5
        assert (
            stats.chisquare(
                np.append(count[often], count[~often].sum() + 1e-9),
                np.append(chance[often], chance[~often].sum() + 1e-14) * n,
            ).pvalue
            > 1e-4
        )
    assert _poisson(np.array([0.0]), np.array([0.999999])).tolist() == [0]
