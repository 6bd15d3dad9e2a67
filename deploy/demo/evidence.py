"""What lies in the topics at the end of a run, read by a plain client that shares nothing with the workers but the contracts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from streams.errors import CastlineError
from streams.identity import PartId, make_header_map, read_identity
from streams.kafka import read_to_end
from streams.records import Sorting, Verdict
from streams.settings import Settings
from streams.topics import TopicNames


@dataclass(frozen=True)
class Picture:
    """One record of an image topic. `truth` is the known label, None where there is none."""

    part: PartId
    captured_at: datetime | None
    truth: str | None


@dataclass(frozen=True)
class Judged:
    """One record of a verdict topic, and when the broker appended it."""

    verdict: Verdict
    appended_at: datetime


@dataclass(frozen=True)
class Evidence:
    """All records of one run, in the order of their topics. `unreadable` counts records that are not what their topic promises."""

    pictures: tuple[Picture, ...] = ()
    judged: tuple[Judged, ...] = ()
    sortings: tuple[Sorting, ...] = ()
    dead_letters: int = 0
    unreadable: int = 0


def read_evidence(settings: Settings) -> Evidence:
    """Reads images, verdicts, sortings and dead letters of the settings' lines, from their first to their end offsets.

    Raises CastlineError: when the topics stay silent before their end is reached.
    """
    names = TopicNames(settings.topics.prefix)
    pictures: list[Picture] = []
    judged: list[Judged] = []
    sortings: list[Sorting] = []
    images = {names.images(line.name) for line in settings.lines}
    verdicts = {names.verdicts(line.name) for line in settings.lines}
    sorted_ = {names.sorted(line.name) for line in settings.lines}
    dead_letters = unreadable = 0
    for record in read_to_end(settings, "audit", sorted(images | verdicts | sorted_ | {names.dead_letters})):
        appended_at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
        try:
            if record.topic in images:
                pictures.append(_picture(record))
            elif record.topic in verdicts:
                judged.append(Judged(Verdict.decode(record.value), appended_at))
            elif record.topic in sorted_:
                sortings.append(Sorting.decode(record.value))
            else:
                dead_letters += 1
        except (ValueError, TypeError, CastlineError):
            unreadable += 1
    return Evidence(tuple(pictures), tuple(judged), tuple(sortings), dead_letters, unreadable)


def _picture(record: Any) -> Picture:
    headers = make_header_map(record.headers)
    identity = read_identity(record.key, headers, record.topic.rpartition(".")[2])
    truth = headers.get("truth")
    return Picture(identity.part, identity.captured_at, truth.decode() if truth else None)
