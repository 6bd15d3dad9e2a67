"""Audits a run of the demo: reads all records from the topics, and checks every part from its picture to its sorting.

The counters of the workers are not used, because a worker does not know that it lost a part.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from streams.errors import CastlineError
from streams.identity import EXPIRED_HEADER, PartId, make_header_map, read_identity
from streams.kafka import read_to_end
from streams.record_producer import is_redrive_mark
from streams.record_reader import read_broker_time, read_record
from streams.records import Sorting, Verdict
from streams.settings import Settings
from streams.topics import TopicNames

_MAX_LOST_PARTS = 20


@dataclass(frozen=True)
class PictureRecord:
    """A record of an image topic. `truth` is the known label of the casting, or None if it is not known."""

    part: PartId
    captured_at: datetime | None
    truth: str | None


@dataclass(frozen=True)
class VerdictRecord:
    """A record of a verdict topic, with the time at which the broker appended it."""

    verdict: Verdict
    appended_at: datetime

    @property
    def age_ms(self) -> float:
        """The time from the capture of the picture until the broker had appended the verdict, in milliseconds."""
        # Kafka rounds its timestamps down to milliseconds, so `appended_at` can be up to a millisecond earlier than `decided_at`.
        published_at = max(self.appended_at, self.verdict.decided_at)
        return (published_at - self.verdict.captured_at).total_seconds() * 1000


@dataclass(frozen=True)
class TopicRecords:
    """All records of a run.

    - `expired`: pictures that Kafka deleted before they were judged.
    - `unreadable`: records that cannot be read.
    """

    pictures: tuple[PictureRecord, ...] = ()
    verdicts: tuple[VerdictRecord, ...] = ()
    sortings: tuple[Sorting, ...] = ()
    dead_letters: int = 0
    unreadable: int = 0
    expired: int = 0


def read_topic_records(settings: Settings) -> TopicRecords:
    """Reads the image, verdict, sorting and dead-letter topics of all lines in `settings`, from the first record to the last.

    Raises CastlineError if the broker does not answer.
    """
    names = TopicNames(settings.topics.prefix)
    pictures: list[PictureRecord] = []
    verdicts: list[VerdictRecord] = []
    sortings: list[Sorting] = []
    image_topics = {names.images(line.name) for line in settings.lines}
    verdict_topics = {names.verdicts(line.name) for line in settings.lines}
    sorting_topics = {names.sorted(line.name) for line in settings.lines}
    dead_letters = unreadable = expired = 0
    for record in read_to_end(settings, "audit", sorted(image_topics | verdict_topics | sorting_topics | {names.dead_letters})):
        try:
            if record.topic in image_topics:
                pictures.append(_parse_picture(record))
            elif record.topic in verdict_topics:
                appended_at = read_broker_time(record.timestamp / 1000)
                verdicts.append(VerdictRecord(read_record(Verdict, record.value, appended_at), appended_at))
            elif record.topic in sorting_topics:
                sortings.append(read_record(Sorting, record.value))
            elif not is_redrive_mark(make_header_map(record.headers)):
                dead_letters += 1
                expired += int(make_header_map(record.headers).get(EXPIRED_HEADER, b"0"))
        except (ValueError, TypeError, CastlineError):
            unreadable += 1
    return TopicRecords(tuple(pictures), tuple(verdicts), tuple(sortings), dead_letters, unreadable, expired)


def _parse_picture(record: Any) -> PictureRecord:
    headers = make_header_map(record.headers)
    identity = read_identity(record.key, headers, record.topic.rpartition(".")[2])
    truth = headers.get("truth")
    return PictureRecord(identity.part, identity.captured_at, truth.decode() if truth else None)


@dataclass(frozen=True)
class AuditResult:
    """The result of an audit. Each count is a number of parts, unless a comment says otherwise. Times are in milliseconds.

    The JSON report uses the same field names.
    """

    # Parts that appear in at least one source: pictures, verdicts, sortings, or the logs of the simulated boards.
    parts: int
    pictures: int
    verdicts: int
    sorted: int
    diverted: int
    # Parts that lack a picture, a verdict or, on a line with a gate, a sorting record.
    lost: int
    # Number of repeated movements. If a gate moves three times for one part, two movements are repeated.
    repeated_moves: int
    late: int
    # Share of correct verdicts. Castings with an unknown true label or the verdict `review` are left out.
    accuracy: float | None
    # Median and 99th percentile of the time from the capture of a picture until the broker has appended its verdict.
    p50_ms: float | None
    p99_ms: float | None
    # How many parts lack a record of each kind. For example, {"picture": 0, "verdict": 2, "sorting": 0} means: two parts have no verdict.
    lost_for: dict[str, int] = field(default_factory=dict)
    # The ids of the first lost parts. A person can look them up in the log.
    lost_parts: tuple[str, ...] = ()
    labels: dict[str, int] = field(default_factory=dict)
    # The confusion matrix: confusion["defect"]["ok"] is the number of defective castings with the verdict `ok`.
    confusion: dict[str, dict[str, int]] = field(default_factory=dict)
    misses: int = 0
    false_alarms: int = 0
    actions: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    # Number of repeated image records. If a part has three image records, two of them are repeated.
    repeated_pictures: int = 0
    # Number of verdicts that were sent again. Every reader ignores a repeated verdict.
    repeated_verdicts: int = 0
    contradicting_verdicts: int = 0
    repeated_sortings: int = 0
    unexplained_moves: int = 0
    dead_letters: int = 0
    unreadable: int = 0
    # Number of pictures that Kafka deleted before they were judged.
    expired: int = 0


def audit_records(records: TopicRecords, gated_lines: frozenset[str], counted_parts: Iterable[PartId] = ()) -> AuditResult:
    """Checks every part of `records` from its picture to its sorting.

    Only parts of lines in `gated_lines` need a sorting. `counted_parts` are the parts that the simulated boards counted.
    """
    with_picture = {picture.part for picture in records.pictures}
    first_verdicts = find_first_verdicts(records.verdicts)
    events = _find_distinct_events(records.sortings)
    events_by_part = _group_by_part(events)
    parts = with_picture | first_verdicts.keys() | events_by_part.keys() | set(counted_parts)
    lost = {
        "picture": {part for part in parts if part not in with_picture},
        "verdict": {part for part in parts if part not in first_verdicts},
        "sorting": {part for part in parts if part.line in gated_lines and part not in events_by_part},
    }
    all_lost = set().union(*lost.values())
    truth = {picture.part: picture.truth for picture in records.pictures if picture.truth}
    confusion = _count_confusion(truth, first_verdicts)
    ages_ms = [record.age_ms for record in first_verdicts.values()]
    judged = sum(confusion[known][label] for known in confusion for label in ("ok", "defect"))
    right = sum(confusion[known][known] for known in confusion)
    return AuditResult(
        parts=len(parts),
        pictures=len(with_picture),
        verdicts=len(first_verdicts),
        sorted=len(events_by_part),
        diverted=sum(any(event.action == "diverted" for event in found) for found in events_by_part.values()),
        lost=len(all_lost),
        repeated_moves=sum(max(0, sum(event.gate_moved for event in found) - 1) for found in events_by_part.values()),
        late=len(_find_sorted_without_verdict(records.sortings) & first_verdicts.keys()),
        accuracy=right / judged if judged else None,
        p50_ms=compute_percentile(ages_ms, 0.50),
        p99_ms=compute_percentile(ages_ms, 0.99),
        lost_for={kind: len(found) for kind, found in lost.items()},
        lost_parts=tuple(str(part) for part in sorted(all_lost)[:_MAX_LOST_PARTS]),
        labels=dict(Counter(record.verdict.label for record in first_verdicts.values())),
        confusion={known: dict(counts) for known, counts in confusion.items()},
        misses=confusion["defect"]["ok"],
        false_alarms=confusion["ok"]["defect"],
        actions=dict(Counter(event.action for event in events)),
        reasons=dict(Counter(event.reason for event in events)),
        repeated_pictures=len(records.pictures) - len(with_picture),
        repeated_verdicts=len(records.verdicts) - len({record.verdict.verdict_id for record in records.verdicts}),
        contradicting_verdicts=_count_contradictions(records.verdicts),
        repeated_sortings=len(records.sortings) - len(events),
        unexplained_moves=_count_unexplained_moves(events),
        dead_letters=records.dead_letters,
        unreadable=records.unreadable,
        expired=records.expired,
    )


def compute_percentile(values: Sequence[float], share: float) -> float | None:
    """Returns a percentile of `values` by the nearest-rank method, or None if `values` is empty.

    Example: `compute_percentile(values, 0.99)` returns the 99th percentile.
    """
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)] if ranked else None


def find_first_verdicts(records: Iterable[VerdictRecord]) -> dict[PartId, VerdictRecord]:
    """Returns the first verdict of each part, by the time at which the broker appended it. Later verdicts of a part are repetitions."""
    first: dict[PartId, VerdictRecord] = {}
    for record in records:
        part = record.verdict.part_id
        if part not in first or record.appended_at < first[part].appended_at:
            first[part] = record
    return first


def _find_distinct_events(sortings: Iterable[Sorting]) -> list[Sorting]:
    # The event number alone does not identify a sorting, because all sortings that the sorter itself has made have the number 0.
    distinct: dict[tuple[object, ...], Sorting] = {}
    for event in sortings:
        distinct.setdefault((event.board, event.run, event.event, event.part_id, event.action, event.gate_moved, event.move_count), event)
    return list(distinct.values())


def _group_by_part(events: Iterable[Sorting]) -> dict[PartId, list[Sorting]]:
    groups: dict[PartId, list[Sorting]] = defaultdict(list)
    for event in events:
        # An `unmatched` part has no id, because photo-eye 1 did not count it. An `untracked` part has the id from its verdict.
        if event.reason != "unmatched" or event.action == "untracked":
            groups[event.part_id].append(event)
    return dict(groups)


def _find_sorted_without_verdict(sortings: Iterable[Sorting]) -> set[PartId]:
    # A part whose verdict came too late has two sorting records. In the second record, `late` is set. `sortings` must contain both.
    return {event.part_id for event in sortings if event.has_missed_verdict}


def _count_confusion(truth: dict[PartId, str], first_verdicts: dict[PartId, VerdictRecord]) -> dict[str, Counter[str]]:
    confusion: dict[str, Counter[str]] = {"ok": Counter(), "defect": Counter()}
    for part, known in truth.items():
        if part in first_verdicts and known in confusion:
            confusion[known][first_verdicts[part].verdict.label] += 1
    return confusion


def _count_contradictions(records: Iterable[VerdictRecord]) -> int:
    labels: dict[PartId, set[str]] = defaultdict(set)
    for record in records:
        labels[record.verdict.part_id].add(record.verdict.label)
    return sum(len(found) > 1 for found in labels.values())


def _count_unexplained_moves(events: Iterable[Sorting]) -> int:
    # `move_count` is the number of movements of the servo since the start of the run.
    counted: dict[tuple[str, int], int] = defaultdict(int)
    explained: Counter[tuple[str, int]] = Counter()
    for event in events:
        run = (event.board, event.run)
        counted[run] = max(counted[run], event.move_count)
        explained[run] += event.gate_moved
    return sum(max(0, counted[run] - explained[run]) for run in counted)
