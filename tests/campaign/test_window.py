"""The hours of a window: by the clock of each zone, over midnight, and where clocks leap."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from playbill.campaign.rhythm import HOURS
from playbill.campaign.settings import Block, Campaign, QuietHours, Window
from playbill.campaign.window import known_zone, week_of


def us(*when: int) -> int:
    return round(datetime(*when, tzinfo=UTC).timestamp() * 1e6)


def campaign(quiet: tuple[int, int], **window: object) -> Campaign:
    hours = QuietHours(from_hour=quiet[0], to_hour=quiet[1])
    return Campaign(name="a", blocks=[Block(name="b")], subjects="s", quiet=hours, window=Window(**window))  # type: ignore[arg-type]


@pytest.mark.parametrize("quiet", [(21, 8), (1, 5), (0, 0), (23, 0)])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Rome", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe"])
@pytest.mark.parametrize("at", [us(2026, 11, 23, 6, 30), us(2026, 3, 27), us(2026, 10, 23), us(2026, 4, 4, 3, 7)])
def test_nothing_arrives_in_a_quiet_hour_or_outside_of_the_window(quiet: tuple[int, int], zone: str, at: int) -> None:
    found = week_of(campaign(quiet, days=3), zone, at)
    low, high = quiet
    silent = set(range(low, high)) if low <= high else {*range(low, 24), *range(high)}
    for hour in np.flatnonzero(found.may):
        clock = datetime.fromtimestamp(found.arrival[hour] / 1e6, ZoneInfo(zone))
        assert clock.hour not in silent and clock.weekday() * 24 + clock.hour == hour and clock.minute == 0
        assert at <= found.arrival[hour] < at + 3 * 86_400_000_000
    # three days hold 72 hours, one less where the clock leaps, and one less where the last is not whole
    assert (24 - len(silent)) * 3 - 3 <= found.may.sum() <= (24 - len(silent)) * 3 + 1


def test_an_hour_that_the_clock_leaps_over_is_none() -> None:
    found = week_of(campaign((0, 0)), "Europe/Rome", us(2026, 3, 23))
    assert not found.may[146] and found.may[147]  # 02:00 on that Sunday
    assert found.may.sum() == HOURS - 1


def test_what_is_over_has_no_hour_and_what_is_to_come_begins_then() -> None:
    at = us(2026, 11, 23)
    assert not week_of(campaign((0, 0), start="2026-11-01"), "UTC", at).may.any()
    later = week_of(campaign((0, 0), start="2026-12-01T10:00+01:00", days=1), "UTC", at)
    assert later.arrival[later.may].min() == us(2026, 12, 1, 9) and later.may.sum() == 24
    begun = week_of(campaign((0, 0), start="2026-11-22T12:00", days=1), "UTC", at)
    assert begun.may.sum() == 12 and begun.arrival[begun.may].min() == at


def test_a_zone_that_is_not_known_is_that_of_the_campaign() -> None:
    assert [known_zone(zone, "Asia/Tokyo") for zone in ("Europe/Rome", "Nowhere/Land", "", None, "../etc/passwd")] == [
        "Europe/Rome", *["Asia/Tokyo"] * 4]  # fmt: skip
