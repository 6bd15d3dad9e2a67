"""What an inspector counts: the age of what it holds, and the verdicts that the brokers have confirmed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from agents.inspector.decoding import now
from agents.inspector.judging import Judged, networks_disagree
from models.inference.soft_vote import Prediction
from streams import metrics
from streams.records import Verdict


def report_ages(in_hand: Iterable[tuple[str, datetime]]) -> None:
    """Of lines and times of capture the oldest of each line: while inspection is slower than the cameras, it grows for all to see."""
    at = now()
    oldest: dict[str, datetime] = {}
    for line, captured_at in in_hand:
        oldest[line] = min(captured_at, oldest.get(line, at))
    for line, captured_at in oldest.items():
        metrics.consumer_lag_seconds.labels(line).set((at - captured_at).total_seconds())


def count(batch: list[Judged], verdicts: list[Verdict]) -> None:
    """Counts a batch whose verdicts are confirmed now."""
    confirmed_at = now()
    for judged, found in zip(batch, verdicts, strict=True):
        line = found.line
        metrics.verdicts.labels(line, found.label, found.model).inc()
        metrics.verdict_age_seconds.labels(line).observe(max(0.0, (confirmed_at - found.captured_at).total_seconds()))
        if found.overdue:
            metrics.verdicts_overdue.labels(line).inc()
        if found.label == "review":
            metrics.reviews_by_reason.labels(line, found.reason).inc()
        if isinstance(judged.opinion, Prediction):
            metrics.defect_probability.labels(line).observe(judged.opinion.defect_probability)
            if networks_disagree(judged.opinion):
                metrics.disagreements.labels(line).inc()
