"""Kept pictures judged again by another version, and what it says otherwise than the verdicts on Kafka. Acts on nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import ValidationError

from agents.inspector.decoding import Decoded, decode_arrival, receive
from agents.inspector.judging import Judged, judge
from agents.inspector.shadow import label_of
from models.inference.version_ensemble import Ensemble
from streams.errors import IdentityError, PictureError
from streams.identity import make_header_map
from streams.kafka import read_to_end
from streams.object_store import ObjectStore
from streams.record_producer import ConsumedRecord
from streams.records import Verdict
from streams.settings import LineSettings, Settings
from streams.topics import TopicNames

ROLE = "replay"
Place = tuple[str, int, int]  # topic, partition, offset of the image record


@dataclass(frozen=True)
class Said:
    """A version's word on one picture; `probability` is None where the picture cannot be judged."""

    label: str
    probability: float | None
    model: str


@dataclass(frozen=True)
class Change:
    """A part whose picture is labelled otherwise now."""

    part: str
    was: Said
    now: Said


@dataclass
class Difference:
    """What the replay found. `changes` counts "ok -> defect" and the like; `nameless` records name no part and have no verdict."""

    model: str
    pictures: int = 0
    same: int = 0
    without_verdict: int = 0
    nameless: int = 0
    changes: dict[str, int] = field(default_factory=dict)
    parts: list[Change] = field(default_factory=list)


def replay(
    settings: Settings, lines: Iterable[str], since: datetime, until: datetime, ensemble: Ensemble, seen: Callable[[], None]
) -> Difference:
    """Judges with `ensemble` what Kafka got from `since` until before `until`; `seen` is called for each picture."""
    difference = Difference(ensemble.version_name)
    store = ObjectStore(settings.store.url, settings.pictures.max_bytes)
    size = min(settings.batch.size, ensemble.max_batch)
    for name in lines:
        line = settings.find_line(name)
        verdicts = _verdicts(settings, name, since)
        batch: list[Decoded] = []
        for came in _pictures(settings, line, since, until):
            try:
                arrival = receive(came.came, line, came.at, came.at)
            except IdentityError:
                difference.nameless += 1
                continue
            batch.append(decode_arrival(arrival, ensemble.side_px, settings.pictures, store))
            seen()
            if len(batch) == size:
                _compare(judge(batch, ensemble), verdicts, difference)
                batch = []
        _compare(judge(batch, ensemble), verdicts, difference)
    return difference


@dataclass(frozen=True)
class _Kept:
    came: ConsumedRecord
    at: datetime  # when Kafka got it


def _pictures(settings: Settings, line: LineSettings, since: datetime, until: datetime) -> Iterator[_Kept]:
    topic = TopicNames(settings.topics.prefix).images(line.name)
    for record in read_to_end(settings, ROLE, [topic], since):
        at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
        # A partition's times may go back a little: producers' clocks differ.
        if since <= at < until:
            yield _Kept(
                ConsumedRecord(topic, record.partition, record.offset, record.key, record.value, make_header_map(record.headers)), at
            )


def _verdicts(settings: Settings, line: str, since: datetime) -> dict[Place, Said]:
    """By the picture judged; the first of several, which the gate got."""
    found: dict[Place, Said] = {}
    for record in read_to_end(settings, ROLE, [TopicNames(settings.topics.prefix).verdicts(line)], since):
        try:
            verdict = Verdict.decode(record.value or b"")
        except ValidationError:
            continue  # the audit's to report
        place = (verdict.image.topic, verdict.image.partition, verdict.image.offset)
        found.setdefault(place, Said(verdict.label, verdict.defect_probability, verdict.model))
    return found


def _compare(batch: list[Judged], verdicts: dict[Place, Said], difference: Difference) -> None:
    for judged in batch:
        came = judged.decoded.arrival.came
        was = verdicts.get((came.topic, came.partition, came.offset))
        difference.pictures += 1
        now = Said(
            label_of(judged), None if isinstance(judged.opinion, PictureError) else judged.opinion.defect_probability, difference.model
        )
        if was is None:
            difference.without_verdict += 1
        elif was.label == now.label:
            difference.same += 1
        else:
            what = f"{was.label} -> {now.label}"
            difference.changes[what] = difference.changes.get(what, 0) + 1
            difference.parts.append(Change(str(judged.decoded.arrival.part), was, now))
