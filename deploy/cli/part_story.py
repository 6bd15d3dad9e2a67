"""One part's whole story, from the topics: every record that bears its id, in the order of time. Pure but for the reading."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from streams.errors import IdentityError
from streams.identity import PartId, format_time, make_header_map, read_identity
from streams.kafka import read_to_end
from streams.records import Sorting, Verdict
from streams.settings import Settings
from streams.topics import TopicNames


@dataclass(frozen=True, order=True)
class Step:
    """One thing that happened to a part; `detail` is what the record says of it."""

    at: datetime
    what: str
    detail: dict[str, object]


def trace(settings: Settings, part: PartId) -> list[Step]:
    """All steps of `part` that its line's topics still hold, oldest first; several records of a kind are several steps."""
    names = TopicNames(settings.topics.prefix)
    settings.find_line(part.line)
    topics = [names.images(part.line), names.verdicts(part.line), names.sorted(part.line), names.dead_letters]
    steps: list[Step] = []
    for record in read_to_end(settings, "trace", topics):
        if _names(record, part):
            steps += _steps(record, names)
    return sorted(steps, key=lambda step: step.at)


def _names(record: Any, part: PartId) -> bool:
    if record.key == part.key:
        return True
    if record.key:
        return False
    try:
        return read_identity(None, make_header_map(record.headers), part.line).part == part
    except IdentityError:
        return False


def _steps(record: Any, names: TopicNames) -> list[Step]:
    appended_at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
    place = f"{record.topic}/{record.partition}@{record.offset}"
    headers = {name: value.decode(errors="replace") for name, value in make_header_map(record.headers).items()}
    if record.topic == names.dead_letters:
        return [
            Step(appended_at, "dead letter", {"place": place, **{name: text for name, text in headers.items() if name.startswith("dead-")}})
        ]
    try:
        if record.topic.startswith(f"{names.prefix}.verdicts."):
            return _verdict_steps(Verdict.decode(record.value), place)
        if record.topic.startswith(f"{names.prefix}.sorted."):
            return _sorting_steps(Sorting.decode(record.value), place)
    except ValidationError as error:
        return [Step(appended_at, "unreadable record", {"place": place, "error": str(error)})]
    detail = {"place": place, "bytes": len(record.value or b""), **headers}
    return [Step(appended_at, "picture on Kafka", detail)]


def _verdict_steps(found: Verdict, place: str) -> list[Step]:
    judged = {"label": found.label, "defect_probability": found.defect_probability, "votes": found.votes, "threshold": found.threshold}
    said = {"reason": found.reason, "model": found.model, "overdue": found.overdue, "verdict_id": str(found.verdict_id), "place": place}
    return [
        Step(found.captured_at, "photographed", {}),
        Step(found.received_at, "received by an inspector", {}),
        Step(found.decided_at, "judged", {**judged, **said}),
    ]


def _sorting_steps(found: Sorting, place: str) -> list[Step]:
    steps = []
    if found.counted_at:
        steps.append(Step(found.counted_at, "counted at photo-eye 1", {"board": found.board}))
    if found.told_at:
        steps.append(Step(found.told_at, "verdict taken by the board", {}))
    if found.at_gate_at:
        steps.append(Step(found.at_gate_at, "seen at photo-eye 2", {}))
    detail = {"action": found.action, "reason": found.reason, "gate_moved": found.gate_moved, "late": found.late, "code": found.code}
    return [*steps, Step(found.sorted_at, "sorted", {**detail, "event": found.event, "place": place})]


def as_lines(steps: list[Step]) -> list[str]:
    """For a terminal: the time since the first step, what happened, and what the record says."""
    begun = steps[0].at
    return [
        f"{format_time(step.at)} {(step.at - begun).total_seconds() * 1000:+10.1f} ms  {step.what:<26}"
        + "  ".join(f"{name}={value}" for name, value in step.detail.items() if value not in ("", None, {}))
        for step in steps
    ]
