"""Computes the shifts and days of the plant, in the plant's time zone. The wall and the reports count parts for these periods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo


@dataclass(frozen=True)
class ShiftPeriod:
    """A shift or a day: the time from `since` (included) to `to` (excluded), both in UTC.

    - `day`: the date on which the period begins, in the plant's time zone.
    - `shift`: the time at which the shift begins, in the plant's time zone. None for a whole day.
    """

    day: date
    shift: time | None
    since: datetime
    to: datetime

    def hours(self) -> Iterator[tuple[datetime, datetime]]:
        """Yields the beginning and the end of each hour of the period. The last hour can be shorter."""
        begin = self.since
        while begin < self.to:
            end = min(begin + timedelta(hours=1), self.to)
            yield begin, end
            begin = end


def day_period(day: date, shifts: Sequence[time], zone: ZoneInfo) -> ShiftPeriod:
    """Returns the period of the whole day `day`. A day begins with its first shift, or at midnight if the plant has no shifts.

    A day has 23 hours when summer time begins and 25 hours when it ends.
    """
    first = shifts[0] if shifts else time(0)
    return ShiftPeriod(day, None, _to_utc(day, first, zone), _to_utc(day + timedelta(days=1), first, zone))


def shift_period(day: date, shift: time, shifts: Sequence[time], zone: ZoneInfo) -> ShiftPeriod:
    """Returns the shift that begins at the time `shift` on `day`. Raises ValueError if no shift begins at this time."""
    if shift not in shifts:
        known = ", ".join(f"{begin:%H:%M}" for begin in shifts) or "none"
        raise ValueError(f"No shift begins at {shift:%H:%M}. The shifts begin at these times: {known}.")
    index = list(shifts).index(shift)
    is_last = index + 1 == len(shifts)
    end = _to_utc(day + timedelta(days=1), shifts[0], zone) if is_last else _to_utc(day, shifts[index + 1], zone)
    return ShiftPeriod(day, shift, _to_utc(day, shift, zone), end)


def period_at(at: datetime, shifts: Sequence[time], zone: ZoneInfo) -> ShiftPeriod:
    """Returns the shift that runs at the time `at`, or the whole day if the plant has no shifts."""
    today = at.astimezone(zone).date()
    for day in (today, today - timedelta(days=1)):
        periods = [shift_period(day, shift, shifts, zone) for shift in shifts] or [day_period(day, shifts, zone)]
        for period in periods:
            if period.since <= at < period.to:
                return period
    raise ValueError(f"No shift runs at {at}, because the setting station.shifts is not in ascending order. Sort the times.")


def adjacent_period(period: ShiftPeriod, step: int, shifts: Sequence[time], zone: ZoneInfo) -> ShiftPeriod:
    """Returns the previous shift or day if `step` is -1, and the next shift or day if `step` is 1."""
    if period.shift is None:
        return day_period(period.day + timedelta(days=step), shifts, zone)
    index = list(shifts).index(period.shift) + step
    return shift_period(period.day + timedelta(days=index // len(shifts)), shifts[index % len(shifts)], shifts, zone)


def _to_utc(day: date, clock: time, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, clock, zone).astimezone(UTC)
