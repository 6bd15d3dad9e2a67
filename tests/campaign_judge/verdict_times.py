"""Estimates when each verdict was really written, although the clock of an inspector may be wrong.

Kafka keeps the time that the inspector gives. But no verdict is older than its picture, and none is newer than a later one of its line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.campaign_judge.recording import Recording
from tests.campaign_judge.topic_records import JsonRecord, Topics

Place = tuple[str, int, int]


def estimate_verdict_times(recording: Recording, topics: Topics) -> Mapping[Place, float]:
    """Returns the time of each verdict in seconds, by the place of its record."""
    sent: dict[tuple[str, str], float] = {}
    for upload in recording.uploads:
        key = upload.line, upload.sha256
        sent[key] = min(sent.get(key, upload.sent_at), upload.sent_at)
    times: dict[Place, float] = {}
    for line in recording.plan.lines:
        latest = recording.stopped_at
        for verdict in reversed(list(verdicts_of(line, topics))):
            sent_at = sent.get((line, str(verdict.image.get("sha256"))), 0.0)
            latest = min(latest, max(verdict.record.at, sent_at))
            times[verdict.record.place] = latest
    return times


def verdicts_of(line: str, topics: Topics) -> Iterator[JsonRecord]:
    """Yields the verdicts of a line in the order of their offsets."""
    return (verdict for verdict in topics.verdicts if verdict.fields["line"] == line)
