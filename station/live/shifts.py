"""When shifts begin: by the plant's own clock, which jumps twice a year."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo


def shift_start(at: datetime, begins: Sequence[time], zone: ZoneInfo) -> datetime:
    """When the shift that `at` lies in began, UTC. Without any beginning a shift is the day."""
    local = at.astimezone(zone)
    days = (local.date() - timedelta(days=1), local.date())
    starts = [datetime.combine(day, begin, zone).astimezone(UTC) for day in days for begin in (begins or (time(0),))]
    return max(start for start in starts if start <= at)
