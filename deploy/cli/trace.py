"""The command `castline trace`: shows everything that the topics hold about one part."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from streams.errors import IdentityError, RecordError
from streams.identity import PartId, format_time, make_header_map, read_part_id
from streams.kafka import read_to_end
from streams.printable import make_printable
from streams.record_reader import read_broker_time, read_record
from streams.records import Sorting, Verdict
from streams.settings import Settings, load_settings
from streams.topics import TopicNames


@click.command("trace")
@click.argument("part")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array, oldest event first.")
@click.pass_obj
def command(file: Path | None, part: str, as_json: bool) -> int:
    """Show everything that the topics hold about PART, oldest event first. PART is a part id such as line-1:17:345.

    Reading the topics takes a while after a full day of production. The exit status is 1 if nothing is found.
    """
    try:
        part_id = PartId.parse(part)
    except IdentityError as error:
        raise click.UsageError(str(error)) from None
    steps = read_trace(load_settings(file), part_id)
    if as_json:
        click.echo(json.dumps([{"at": format_time(step.at), "what": step.what, **step.detail} for step in steps], indent=2))
    elif steps:
        click.echo("\n".join(map(make_printable, format_steps(steps))))
    else:
        click.echo(
            f"The topics hold no record of part {part_id}. No camera photographed the part, or Kafka has deleted its records.",
            err=True,
        )
    return 0 if steps else 1


@dataclass(frozen=True, order=True)
class TraceStep:
    """One event in the history of a part, such as "judged". `detail` holds fields of the record that reports the event."""

    at: datetime
    what: str
    detail: dict[str, object]


def read_trace(settings: Settings, part: PartId) -> list[TraceStep]:
    """Reads the steps of `part` from the topics of its line, oldest first.

    If a record was sent twice, its steps appear twice. Raises SettingsError if the settings do not name the part's line.
    """
    names = TopicNames(settings.topics.prefix)
    settings.find_line(part.line)
    topics = [names.images(part.line), names.verdicts(part.line), names.sorted(part.line), names.dead_letters]
    steps: list[TraceStep] = []
    for record in read_to_end(settings, "trace", topics):
        if _belongs_to(record, part):
            steps += _steps(record, names)
    return sorted(steps, key=lambda step: step.at)


def _belongs_to(record: Any, part: PartId) -> bool:
    """Returns whether a record belongs to `part`. If the record has no key, its headers name the part."""
    if record.key == part.key:
        return True
    if record.key:
        return False
    try:
        return read_part_id(None, make_header_map(record.headers), part.line) == part
    except IdentityError:
        return False


def _steps(record: Any, names: TopicNames) -> list[TraceStep]:
    appended_at = read_broker_time(record.timestamp / 1000)
    place = f"{record.topic}/{record.partition}@{record.offset}"
    headers = {name: value.decode(errors="replace") for name, value in make_header_map(record.headers).items()}
    if record.topic == names.dead_letters:
        dead_headers = {name: text for name, text in headers.items() if name.startswith("dead-")}
        return [TraceStep(appended_at, "dead letter", {"place": place, **dead_headers})]
    try:
        if record.topic.startswith(f"{names.prefix}.verdicts."):
            return verdict_steps(read_record(Verdict, record.value, appended_at), place)
        if record.topic.startswith(f"{names.prefix}.sorted."):
            return sorting_steps(read_record(Sorting, record.value, appended_at), place)
    except RecordError as error:
        return [TraceStep(appended_at, "unreadable record", {"place": place, "error": str(error)})]
    return [TraceStep(appended_at, "picture on Kafka", {"place": place, "bytes": len(record.value or b""), **headers})]


def verdict_steps(verdict: Verdict, place: str) -> list[TraceStep]:
    """Returns the three steps that a verdict record reports: photographed, received and judged.

    `place` says where the record is on Kafka, such as castings.verdicts.line-1/0@17.
    """
    detail: dict[str, object] = {
        "label": verdict.label,
        "defect_probability": verdict.defect_probability,
        "votes": verdict.votes,
        "threshold": verdict.threshold,
        "reason": verdict.reason,
        "type of defect": verdict.kind,
        "model": verdict.model,
        "decision": verdict.decision,
        "overdue": verdict.overdue,
        "verdict_id": str(verdict.verdict_id),
        "place": place,
    }
    return [
        TraceStep(verdict.captured_at, "photographed", {}),
        TraceStep(verdict.received_at, "received by an inspector", {}),
        TraceStep(verdict.decided_at, "judged", detail),
    ]


def sorting_steps(sorting: Sorting, place: str) -> list[TraceStep]:
    """Returns the steps that a sorting record reports, at most four, such as "seen at photo-eye 2".

    `place` says where the record is on Kafka, such as castings.sorted.line-1/0@17.
    """
    steps = []
    if sorting.counted_at:
        steps.append(TraceStep(sorting.counted_at, "counted at photo-eye 1", {"board": sorting.board}))
    if sorting.told_at:
        steps.append(TraceStep(sorting.told_at, "verdict taken by the board", {}))
    if sorting.at_gate_at:
        steps.append(TraceStep(sorting.at_gate_at, "seen at photo-eye 2", {}))
    detail: dict[str, object] = {
        "action": sorting.action,
        "reason": sorting.reason,
        "gate_moved": sorting.gate_moved,
        "late": sorting.late,
        "code": sorting.code,
        "event": sorting.event,
        "place": place,
    }
    return [*steps, TraceStep(sorting.sorted_at, "sorted", detail)]


def format_steps(steps: list[TraceStep]) -> list[str]:
    """Returns a line for each step: its time, the milliseconds since the first step, its name and its details."""
    first_at = steps[0].at
    return [
        f"{format_time(step.at)} {(step.at - first_at).total_seconds() * 1000:+10.1f} ms  {step.what:<26}"
        + "  ".join(f"{name}={value}" for name, value in step.detail.items() if value not in ("", None, {}))
        for step in steps
    ]
