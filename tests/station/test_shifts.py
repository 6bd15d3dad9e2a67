"""Shifts and days by the plant's clock, which changes between summer and winter time."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

import pytest

from station.shifts import adjacent_period, day_period, period_at, shift_period

BERLIN = ZoneInfo("Europe/Berlin")
SHIFTS = (time(6), time(14), time(22))
DAY = date(2026, 11, 22)


def test_a_night_shift_ends_on_the_next_day() -> None:
    night = shift_period(DAY, time(22), SHIFTS, BERLIN)
    assert (night.since, night.to) == (datetime(2026, 11, 22, 21, tzinfo=UTC), datetime(2026, 11, 23, 5, tzinfo=UTC))


def test_a_day_is_all_of_its_shifts() -> None:
    day = day_period(DAY, SHIFTS, BERLIN)
    assert day.since == shift_period(DAY, time(6), SHIFTS, BERLIN).since
    assert day.to == shift_period(DAY, time(22), SHIFTS, BERLIN).to


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 28), 23), (date(2026, 10, 24), 25)])
def test_a_day_is_shorter_or_longer_where_the_clock_jumps(day: date, hours: int) -> None:
    assert len(list(day_period(day, SHIFTS, BERLIN).hours())) == hours


def test_the_current_shift_may_have_begun_yesterday() -> None:
    assert period_at(datetime(2026, 11, 22, 3, tzinfo=UTC), SHIFTS, BERLIN) == shift_period(date(2026, 11, 21), time(22), SHIFTS, BERLIN)
    assert period_at(datetime(2026, 11, 22, 3, tzinfo=UTC), (), BERLIN) == day_period(DAY, (), BERLIN)


def test_neighbours_follow_each_other_without_a_gap() -> None:
    period = shift_period(DAY, time(6), SHIFTS, BERLIN)
    for _ in range(5):
        following = adjacent_period(period, 1, SHIFTS, BERLIN)
        assert following.since == period.to
        assert adjacent_period(following, -1, SHIFTS, BERLIN) == period
        period = following
    day = day_period(DAY, SHIFTS, BERLIN)
    assert adjacent_period(day, 1, SHIFTS, BERLIN).since == day.to


@pytest.mark.parametrize(
    ("at", "shifts", "zone", "since"),
    [
        (datetime(2026, 11, 22, 4, 59, tzinfo=UTC), SHIFTS, BERLIN, datetime(2026, 11, 21, 21, 0, tzinfo=UTC)),
        (datetime(2026, 11, 22, 5, 0, tzinfo=UTC), SHIFTS, BERLIN, datetime(2026, 11, 22, 5, 0, tzinfo=UTC)),
        (datetime(2026, 7, 1, 4, 0, tzinfo=UTC), SHIFTS, BERLIN, datetime(2026, 7, 1, 4, 0, tzinfo=UTC)),
        (datetime(2026, 11, 22, 5, 0, tzinfo=UTC), (), ZoneInfo("UTC"), datetime(2026, 11, 22, tzinfo=UTC)),
    ],
    ids=["winter, night shift", "winter, early shift", "summer, early shift", "without shifts"],
)
def test_shifts_follow_the_plants_clock(at: datetime, shifts: tuple[time, ...], zone: ZoneInfo, since: datetime) -> None:
    assert period_at(at, shifts, zone).since == since
