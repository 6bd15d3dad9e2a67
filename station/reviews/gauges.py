"""What Prometheus hears of the review queue: how many parts wait, and how long the oldest has."""

from __future__ import annotations

from datetime import datetime

from station.reviews.queue import lengths, oldest
from streams import metrics
from streams.settings import Settings


def renew(settings: Settings, now: datetime) -> None:
    """Sets the gauges. Raises django.db.DatabaseError: when the database does not answer."""
    for state, many in lengths(settings, now).items():
        metrics.review_queue_parts.labels(state).set(many)
    since = oldest(settings, now)
    metrics.review_queue_oldest_seconds.set(max(0.0, (now - since).total_seconds()) if since else 0)
    metrics.review_overdue_seconds.set(settings.review.overdue_hours * 3600)
