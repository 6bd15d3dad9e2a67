"""Sample records about parts, as inspector, sorter, localiser and reviewers would send them. The labels repeat every eight parts."""

from __future__ import annotations

import hashlib
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from kafka import KafkaProducer

from streams.identity import PartId
from streams.records import Box, Finding, ImageReference, PartRecord, Review, Sorting, Verdict, make_verdict_id
from streams.settings import Settings
from streams.topics import TopicNames
from tests.image_topics import PICTURES

FIRST_CAPTURED_AT = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
LABELS = ("ok", "ok", "defect", "ok", "review", "ok", "ok", "ok")


def choose_label(part: int) -> str:
    """Returns the label of a part: of eight parts one is `defect`, one is `review`, and the others are `ok`."""
    return LABELS[part % len(LABELS)]


def choose_picture(part: int) -> bytes:
    return PICTURES[part % len(PICTURES)]


def make_verdict(part: PartId, topic: str, partition: int, offset: int, **given: Any) -> Verdict:
    """Returns a verdict on `part`, whose picture lies at this position in Kafka. `given` replaces fields of the verdict."""
    at = FIRST_CAPTURED_AT + timedelta(seconds=part.part)
    label = choose_label(part.part)
    sha256 = hashlib.sha256(choose_picture(part.part)).hexdigest()
    values = {
        "line": part.line,
        "run": part.run,
        "part": part.part,
        "verdict_id": make_verdict_id(part, sha256, "tiny"),
        "label": label,
        "defect_probability": {"ok": 0.02, "defect": 0.97, "review": 0.51}[label],
        "votes": {"alexnet": 0.5, "lenet": 0.5},
        "threshold": 0.5,
        "model": "tiny",
        "reason": "doubt" if label == "review" else "",
        "captured_at": at,
        "received_at": at + timedelta(milliseconds=10),
        "decided_at": at + timedelta(milliseconds=60),
        "image": ImageReference(topic=topic, partition=partition, offset=offset, sha256=sha256, width_px=120, height_px=120),
    }
    return Verdict.model_validate(values | given)


def make_sorting(part: PartId) -> Sorting:
    """Returns a sorting that follows the part's label: `ok` passed, all others were diverted."""
    at = FIRST_CAPTURED_AT + timedelta(seconds=part.part)
    diverted = choose_label(part.part) != "ok"
    return Sorting(
        line=part.line,
        run=part.run,
        part=part.part,
        board="board-1",
        event=part.part,
        action="diverted" if diverted else "passed",
        reason="verdict",
        gate_moved=diverted,
        move_count=part.part,
        counted_at=at - timedelta(milliseconds=30),
        told_at=at + timedelta(milliseconds=90),
        at_gate_at=at + timedelta(seconds=2),
        sorted_at=at + timedelta(seconds=2, milliseconds=20),
    )


def make_finding(verdict: Verdict) -> Finding:
    box = Box(left_px=10, top_px=20, width_px=30, height_px=40, score=0.9, kind="crack")
    return Finding(
        line=verdict.line,
        run=verdict.run,
        part=verdict.part,
        verdict_id=verdict.verdict_id,
        method="grad-cam",
        model="tiny",
        boxes=(box,),
        heat_map="",
        found_at=verdict.decided_at + timedelta(milliseconds=50),
    )


def make_review(part: PartId, label: str, **given: Any) -> Review:
    values = {"line": part.line, "run": part.run, "part": part.part, "label": label, "reviewer": "anna", "reviewed_at": FIRST_CAPTURED_AT}
    return Review.model_validate(values | given)


class SamplePlant:
    """A thread that sends pictures, verdicts, sortings, findings and reviews of about `rate_per_s` parts a second until `finish`.

    The parts belong to all lines in turn. If `findings` is False, no findings are sent.
    """

    def __init__(self, settings: Settings, rate_per_s: float, findings: bool = True) -> None:
        self._sends_findings = findings
        self._names = TopicNames(settings.topics.prefix)
        self._lines = [line.name for line in settings.lines]
        self._pause_s = 1 / rate_per_s
        self._producer = KafkaProducer(bootstrap_servers=settings.bootstrap, linger_ms=5)
        self._finishing = threading.Event()
        self.parts: list[PartId] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        started_s, number = time.monotonic(), 0
        while not self._finishing.wait(max(0.0, started_s + number * self._pause_s - time.monotonic())):
            part = PartId(self._lines[number % len(self._lines)], 3, number // len(self._lines) + 1)
            self._send_records(part)
            self.parts.append(part)
            number += 1

    def _send_records(self, part: PartId) -> None:
        images = self._names.images(part.line)
        sent = self._producer.send(images, key=part.key, value=choose_picture(part.part)).get(10)
        verdict = make_verdict(part, images, sent.partition, sent.offset)
        # Records of several topics reach the archivist in any order.
        records: list[tuple[str, PartRecord]] = [
            (self._names.verdicts(part.line), verdict),
            (self._names.sorted(part.line), make_sorting(part)),
        ]
        if part.part % 2:
            records.reverse()
        if verdict.label != "ok" and self._sends_findings:
            records.insert(part.part % 3, (self._names.findings(part.line), make_finding(verdict)))
        if verdict.label == "review":
            records.append((self._names.reviews, make_review(part, "defect", kinds=("pores",))))
        for topic, record in records:
            self._producer.send(topic, key=part.key, value=record.encode())

    def finish(self) -> list[PartId]:
        """Stops sending and returns all parts. The broker has confirmed all their records."""
        self._finishing.set()
        self._thread.join()
        self._producer.flush(30)
        self._producer.close()
        return self.parts
