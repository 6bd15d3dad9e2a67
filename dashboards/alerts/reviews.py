"""Alerts about what waits for people."""

from __future__ import annotations

from dashboards.alerts.alert import Alert, Runbook

ALERTS: tuple[Alert, ...] = (
    Alert(
        "ReviewQueueOverdue",
        "max by (plant) (castline_review_queue_oldest_seconds) > on (plant) max by (plant) (castline_review_overdue_seconds)",
        "10m",
        "warning",
        "a part has waited {{ $value | humanizeDuration }} for a person's review",
        "castline-quality",
        "Does anybody review?",
        Runbook(
            "A part that the model left to people, or doubted, has waited longer than `review.overdue_hours`.",
            "Castings lie aside without an answer, and the next training lacks the parts that it would learn most from.",
            "The Review page of the station: how many wait, and why? Do they wait for a second opinion that nobody else can give?",
            "Review them, the most informative come first. Too many: raise `review.least_doubt` or lower `review.audit_share`. "
            "Only one reviewer: set `review.second_opinion = false`.",
        ),
    ),
)
