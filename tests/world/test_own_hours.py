"""Mails are opened in the hours in which their people are there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from playbill.world.build import World, build
from playbill.world.messages import Mails, in_own_hours_us, respond_to_mails
from playbill.world.parameters import Messages, Parameters, Population, Switches
from playbill.world.settings import Size, start_us

HOUR_US = 3_600_000_000
MAILS = 20_000


def world_with(hours: list[float], **switches: bool) -> World:
    parameters = Parameters(
        switches=Switches(**switches),
        population=Population(hours=hours, weekdays=[1.0] * 7, rhythm_concentration=0.0, timezones={"UTC": 1.0}),
        messages=Messages(open_base=50.0, openness_sd=0.0),
    )
    return build(parameters, Size(people=10, items=10), seed=1)


def mails_at(world: World, hour: int) -> Mails:
    rows = np.zeros(MAILS, np.int64)
    return Mails(
        person=rows,
        subject=rows,
        hero=rows,
        offer=rows,
        hour_of_week=rows + hour,
        day=0,
        at_us=rows + start_us(world.size) + hour * HOUR_US,
        key=np.arange(1, MAILS + 1, dtype=np.uint64),
    )


def test_a_wait_is_counted_in_the_persons_own_hours() -> None:
    """There from 8 to 16 alone, three times the mean in each hour: a mean wait of 5 h lasts 5/3 h of those."""
    world = world_with([1e-6] * 8 + [1.0] * 8 + [1e-6] * 8)
    mails = mails_at(world, 8)
    waited = np.full(MAILS, int(2.4 * HOUR_US))
    found = in_own_hours_us(world, mails, np.ones(MAILS, bool), waited) / HOUR_US
    # 0.8 h at three times the pace
    np.testing.assert_allclose(found, 0.8, atol=1e-4)
    # 27 h of waiting are 9 h there: the 8 of the first day and one of the next
    found = in_own_hours_us(world, mails, np.ones(MAILS, bool), waited // 24 * 270) / HOUR_US
    np.testing.assert_allclose(found, 24 + 1, atol=1e-3)
    found = in_own_hours_us(world, mails_at(world, 20), np.ones(MAILS, bool), waited) / HOUR_US
    np.testing.assert_allclose(found, 12 + 0.8, atol=1e-3)
    late = in_own_hours_us(world, mails, np.zeros(MAILS, bool), waited)
    assert (late == waited).all()


@pytest.mark.parametrize("hour", [3, 9, 22])
def test_openings_fall_into_the_persons_hours_whenever_the_mail_goes_out(hour: int) -> None:
    world = world_with([0.01] * 8 + [1.0] * 8 + [0.01] * 8)
    answers = respond_to_mails(world, mails_at(world, hour))
    assert answers.opened.all()
    local = (hour + answers.open_delay_us // HOUR_US) % 24
    assert ((local >= 8) & (local < 16)).mean() > 0.9
    assert answers.open_delay_us.max() <= 72 * HOUR_US


def test_without_rhythms_or_delays_nothing_is_shifted() -> None:
    world = world_with([0.05] * 8 + [1.0] * 16, rhythm=False)
    mails = mails_at(world, 0)
    waited = np.arange(MAILS) * 1_000_000
    assert (in_own_hours_us(world, mails, np.ones(MAILS, bool), waited) == waited).all()
    world = world_with([0.05] * 8 + [1.0] * 16, delays=False)
    assert (respond_to_mails(world, mails_at(world, 0)).open_delay_us == 0).all()


def test_a_row_depends_on_itself_alone() -> None:
    world = build(Parameters(), Size(people=50, items=10), seed=3)
    mails = replace(
        mails_at(world, 30), person=np.arange(MAILS) % 50, hour_of_week=np.arange(MAILS) % 168, at_us=np.arange(MAILS)
    )
    whole = respond_to_mails(world, mails).open_delay_us
    part = slice(700, 900)
    fewer = Mails(
        **{
            name: value if np.isscalar(value := getattr(mails, name)) else value[part]
            for name in ("person", "subject", "hero", "offer", "hour_of_week", "day", "at_us", "key")
        }
    )
    np.testing.assert_array_equal(respond_to_mails(world, fewer).open_delay_us, whole[part])


def test_nobody_buys_before_opening_or_clicking() -> None:
    """Half open, of these half click, and half of all buy; what is not opened may be bought from at once."""
    parameters = Parameters(messages=Messages(open_base=0.0, openness_sd=0.0, click_base=0.0, purchase_base=0.0))
    world = build(parameters, Size(people=10, items=10), seed=1)
    found = respond_to_mails(world, mails_at(world, 9))
    opened, clicked = found.opened & found.bought, found.clicked & found.bought
    assert clicked.sum() > 1000 and (opened & ~clicked).sum() > 1000
    assert (found.purchase_delay_us >= found.open_delay_us)[opened].all()
    assert (found.purchase_delay_us >= found.click_delay_us)[clicked].all()
    # the wait is 14 h on average, cut off 72 h after arrival, and nobody is heaped up at that end
    unopened = found.purchase_delay_us[found.bought & ~found.opened] / HOUR_US
    assert np.mean(unopened) == pytest.approx(14 - 72 / np.expm1(72 / 14), rel=0.06) and unopened.min() < 0.1
    assert found.purchase_delay_us.max() < 72 * HOUR_US
    assert (found.purchase_delay_us > 71.99 * HOUR_US).sum() <= 2
    waited = (found.purchase_delay_us - found.open_delay_us)[opened & ~clicked] / HOUR_US
    assert np.mean(waited) == pytest.approx(13, abs=0.8)
