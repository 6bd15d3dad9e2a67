"""What the archive has counted already, so that a station started in mid-shift shows the whole shift."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.db import Error, connection
from django.db.models import Count, Max
from django.db.models.functions import TruncMinute

from station.archive.models import Part

log = logging.getLogger(__name__)

# Records younger than this are read from Kafka: the archive may not have them yet.
_YOUNG = timedelta(minutes=5)
_TREND = timedelta(hours=1)
_ARCHIVE_LATE = timedelta(minutes=1)


@dataclass(frozen=True)
class Tally:
    """Counts of a line up to `until`; what was photographed from then on is read from Kafka."""

    until: datetime
    counts: Counter[str] = field(default_factory=Counter)
    minutes: dict[datetime, Counter[str]] = field(default_factory=dict)


def tally(line: str, shift_since: datetime, now: datetime) -> Tally:
    """The archive's counts of `line` in the shift and, by the minute, in the last hour.

    Where the archive is behind or cannot be asked, Kafka is read from where the archive ends, at most from the shift's beginning.
    """
    try:
        newest = Part.objects.filter(line=line, decided_at__isnull=False, seen_at__lte=now).aggregate(at=Max("seen_at"))["at"]
        if newest is None:
            return Tally(shift_since)
        until = max(shift_since, min(newest - _ARCHIVE_LATE, now - _YOUNG))
        parts = Part.objects.filter(line=line, seen_at__lt=until).exclude(label="")
        counts = parts.filter(seen_at__gte=shift_since).values_list("label").annotate(Count("id")).order_by()
        by_minute = parts.filter(seen_at__gte=now - _TREND).annotate(minute=TruncMinute("seen_at", tzinfo=UTC))
        minutes: dict[datetime, Counter[str]] = {}
        for minute, label, count in by_minute.values_list("minute", "label").annotate(Count("id")).order_by():
            minutes.setdefault(minute, Counter())[label] += count
        return Tally(until, Counter(dict(counts)), minutes)
    except Error as error:
        log.warning("the archive cannot be asked for the counts of %s: %s", line, error)
        return Tally(max(shift_since, now - _TREND))
    finally:
        connection.close()
