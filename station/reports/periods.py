"""The time of a report: a shift, or a day of shifts, by the plant's clock. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo


@dataclass(frozen=True)
class Period:
    """From `since` until before `to`, UTC; `shift` is its beginning by the plant's clock, None for a whole day."""

    day: date
    shift: time | None
    since: datetime
    to: datetime

    def hours(self) -> Iterator[tuple[datetime, datetime]]:
        """Its hours, the last one shorter where a shift ends within one."""
        begin = self.since
        while begin < self.to:
            end = min(begin + timedelta(hours=1), self.to)
            yield begin, end
            begin = end


def day_of(day: date, shifts: Sequence[time], zone: ZoneInfo) -> Period:
    """A day begins with its first shift, and ends when the next day's first begins: 23 or 25 hours where the clock jumps."""
    first = shifts[0] if shifts else time(0)
    return Period(day, None, _moment(day, first, zone), _moment(day + timedelta(days=1), first, zone))


def shift_of(day: date, shift: time, shifts: Sequence[time], zone: ZoneInfo) -> Period:
    """The shift that begins at `shift` on `day`. Raises ValueError: when none does."""
    if shift not in shifts:
        raise ValueError(f"expected a shift of {', '.join(f'{one:%H:%M}' for one in shifts) or 'none'}, found {shift:%H:%M}")
    index = list(shifts).index(shift)
    last = index + 1 == len(shifts)
    end = _moment(day + timedelta(days=1), shifts[0], zone) if last else _moment(day, shifts[index + 1], zone)
    return Period(day, shift, _moment(day, shift, zone), end)


def current(at: datetime, shifts: Sequence[time], zone: ZoneInfo) -> Period:
    """The shift that `at` lies in; without shifts the day."""
    today = at.astimezone(zone).date()
    for day in (today, today - timedelta(days=1)):
        found = [shift_of(day, shift, shifts, zone) for shift in shifts] or [day_of(day, shifts, zone)]
        for period in found:
            if period.since <= at < period.to:
                return period
    raise ValueError(f"expected a shift at {at}, found none")


def neighbour(period: Period, step: int, shifts: Sequence[time], zone: ZoneInfo) -> Period:
    """The period before (`step` -1) or after it (1), of the same kind."""
    if period.shift is None:
        return day_of(period.day + timedelta(days=step), shifts, zone)
    index = list(shifts).index(period.shift) + step
    return shift_of(period.day + timedelta(days=index // len(shifts)), shifts[index % len(shifts)], shifts, zone)


def _moment(day: date, clock: time, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, clock, zone).astimezone(UTC)
