"""Stands for camera, gateway and inspector in tests of the sorter: every part that the sorter reports gets a verdict on Kafka."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from streams.identity import PartId, parse_time
from streams.records import ImageReference, Label, Sorting, Verdict, make_verdict_id
from streams.settings import Settings
from streams.signatures import sign_headers
from streams.topics import TopicNames

TOKEN = "part-report"


def every_third_is_defect(part: int) -> Label:
    return "defect" if part % 3 == 0 else "ok"


def make_verdict(line: str, run: int, part: int, label: Label, captured_at: datetime, model: str = "test") -> Verdict:
    sha256 = f"{part:064x}"
    return Verdict(
        line=line,
        run=run,
        part=part,
        verdict_id=make_verdict_id(PartId(line, run, part), sha256, model),
        label=label,
        defect_probability=0.9 if label == "defect" else 0.1,
        votes={},
        threshold=0.5,
        model=model,
        captured_at=captured_at,
        received_at=captured_at,
        decided_at=datetime.now(UTC),
        image=ImageReference(topic="t", partition=0, offset=part, sha256=sha256, width_px=300, height_px=300),
    )


@dataclass
class FakeInspector:
    """Serves POST /lines/<line>/parts and answers each part with a verdict on Kafka.

    `label_of` returns the label of a part, or None for a part without verdict. `delay_s` returns the seconds until the verdict is sent.
    """

    settings: Settings
    label_of: Callable[[int], Label | None] = every_third_is_defect
    delay_s: Callable[[int], float] = lambda part: 0.0
    reported: list[tuple[str, int, int]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._producer = KafkaProducer(bootstrap_servers=self.settings.bootstrap, linger_ms=0)
        self._names = TopicNames(self.settings.topics.prefix)
        inspector = self

        class PartsHandler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = inspector._accept_part(self.path, self.headers.get("Authorization", ""), body)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Writes nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.settings.gateway.port), PartsHandler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._producer.close()

    def _accept_part(self, path: str, authorization: str, body: dict[str, object]) -> int:
        if authorization != f"Bearer {TOKEN}":
            self.refused.append(authorization)
            return 401
        line, run, part = path.split("/")[2], int(str(body["run"])), int(str(body["part"]))
        self.reported.append((line, run, part))
        captured_at = parse_time(str(body["captured_at"]))
        label = self.label_of(part)
        if label is not None:
            verdict = make_verdict(line, run, part, label, captured_at)
            if (delay_s := self.delay_s(part)) > 0:
                threading.Timer(delay_s, self.send, [verdict]).start()
            else:
                self.send(verdict)
        return 202

    def send(self, verdict: Verdict) -> None:
        """Writes a verdict to Kafka."""
        topic, value, key = self._names.verdicts(verdict.line), verdict.encode(), verdict.part_id.key
        self._producer.send(topic, value, key, sign_headers(self.settings.for_role("inspector"), topic, key, value))
        self._producer.flush()


class SortedReader:
    """Reads `castings.sorted.<line>` with a plain client. `records` holds all records so far, oldest first."""

    def __init__(self, settings: Settings, line: str) -> None:
        self.records: list[Sorting] = []
        self._partition = TopicPartition(TopicNames(settings.topics.prefix).sorted(line), 0)
        self._consumer = KafkaConsumer(bootstrap_servers=settings.bootstrap, enable_auto_commit=False)
        self._consumer.assign([self._partition])
        self._consumer.seek_to_beginning(self._partition)

    def read(self) -> list[Sorting]:
        for records in self._consumer.poll(timeout_ms=200).values():
            self.records += [Sorting.decode(record.value) for record in records]
        return self.records

    def wait_for(self, is_enough: Callable[[list[Sorting]], bool], within_s: float = 30) -> list[Sorting]:
        give_up_s = time.monotonic() + within_s
        while not is_enough(self.read()):
            assert time.monotonic() < give_up_s, f"not within {within_s} s; {len(self.records)} records, the last: {self.records[-3:]}"
        return self.records

    def close(self) -> None:
        self._consumer.close()
