"""From the spool to Kafka: what is confirmed, retried, parked and said."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kafka import KafkaConsumer
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError, TopicAuthorizationFailedError

from agents.gateway.channel import AwayError, Channel, KafkaChannel, Outcome
from agents.gateway.sender import Sender
from agents.gateway.spool import Budget, Picture, Spool, Stored
from streams.health import ProgressWatchdog
from streams.identity import PartId, make_header_map, read_identity
from streams.object_store import ObjectStore
from streams.topics import TopicNames
from tests.conftest import MakeSettings


def picture(number: int, size: int = 100) -> Picture:
    value = b"\xff\xd8\xff" + f"{number:08d}".encode().ljust(size, b".")
    return Picture(value, datetime.now(UTC), "image/jpeg", hashlib.sha256(value).hexdigest(), "00-1-1-01", "ok")


def until(true: Callable[[], bool], within_s: float = 15) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


class Kafka:
    """Stands for a cluster that can be away, silent, or refuse, as the test says; keeps what it confirmed, in order."""

    def __init__(self) -> None:
        self.away = False
        self.silent = False
        self.refuses: dict[int, Exception] = {}  # by part number
        self.confirmed: list[PartId] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.channels = 0
        self._lock = threading.Lock()

    def connect(self) -> Channel:
        if self.away:
            raise AwayError("nothing listens there")
        self.channels += 1
        return Wire(self)

    def probe(self) -> bool:
        return not self.away

    def answer(self, stored: Stored, outcome: Callable[[Outcome], None]) -> None:
        error = self.refuses.get(stored.part.part)
        with self._lock:
            self.in_flight -= 1
            if error is None:
                self.confirmed.append(stored.part)
        outcome(Outcome(stored, error))


class Wire:
    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._closed = False

    def send(self, stored: Stored, outcome: Callable[[Outcome], None]) -> None:
        kafka = self._kafka
        if kafka.away:
            raise AwayError("the connection broke")
        kafka.in_flight += 1
        kafka.most_in_flight = max(kafka.most_in_flight, kafka.in_flight)
        if not kafka.silent:
            threading.Timer(0.01, kafka.answer, (stored, outcome)).start()

    def close(self) -> None:
        self._kafka.in_flight = 0


@contextmanager
def sending(folder: Path, kafka: Kafka, in_flight: int = 4) -> Iterator[tuple[Spool, Sender]]:
    spool = Spool(folder, "line-1", Budget(2**24))
    sender = Sender(spool, kafka.connect, kafka.probe, in_flight, ProgressWatchdog(30))
    sender.start()
    try:
        yield spool, sender
    finally:
        sender.stop(time.monotonic() + 5)
        sender.join()
        spool.close()


def test_pictures_leave_the_spool_in_order_when_they_are_confirmed(tmp_path: Path) -> None:
    kafka = Kafka()
    with sending(tmp_path, kafka, in_flight=1) as (spool, sender):
        parts = []
        for number in range(1, 31):
            parts.append(spool.accept(picture(number)).part)
            sender.wake()
        until(lambda: spool.waiting == 0)
        assert kafka.confirmed == parts
        assert sender.complaint == ""


def test_no_more_are_in_flight_than_set(tmp_path: Path) -> None:
    kafka = Kafka()
    with sending(tmp_path, kafka, in_flight=4) as (spool, sender):
        for number in range(1, 41):
            spool.accept(picture(number))
        sender.wake()
        until(lambda: spool.waiting == 0)
    assert 1 <= kafka.most_in_flight <= 4


def test_kafka_away_is_said_once_and_nothing_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kafka = Kafka()
    with sending(tmp_path, kafka, in_flight=1) as (spool, sender), caplog.at_level(logging.INFO, "agents.gateway"):
        until(lambda: sender.complaint == "")
        kafka.away = True
        parts = [spool.accept(picture(number)).part for number in range(1, 21)]
        sender.wake()
        until(lambda: "connection broke" in sender.complaint or "nothing listens" in sender.complaint)
        time.sleep(1.5)
        assert spool.waiting == 20
        kafka.away = False
        until(lambda: spool.waiting == 0)
        assert kafka.confirmed == parts
        assert sender.complaint == ""
    assert sum("stay on disk" in message for message in caplog.messages) == 1
    assert any("Kafka takes pictures" in message for message in caplog.messages)


def test_a_silent_kafka_is_said_though_the_connection_stands(tmp_path: Path) -> None:
    kafka = Kafka()
    kafka.silent = True
    with sending(tmp_path, kafka) as (spool, sender):
        spool.accept(picture(1))
        sender.wake()
        until(lambda: "confirmed nothing" in sender.complaint)
        assert spool.waiting == 1


def test_a_picture_that_kafka_refuses_for_good_is_parked_and_harms_no_other(tmp_path: Path) -> None:
    kafka = Kafka()
    kafka.refuses[3] = MessageSizeTooLargeError("larger than the topic allows")
    with sending(tmp_path, kafka, in_flight=1) as (spool, sender):
        for number in range(1, 6):
            spool.accept(picture(number))
        sender.wake()
        until(lambda: spool.waiting == 1)
        assert [part.part for part in kafka.confirmed] == [1, 2, 4, 5]
        assert spool.parked == 1
        assert sender.complaint == ""
    kafka.refuses.clear()
    with sending(tmp_path, kafka) as (spool, _):
        until(lambda: spool.waiting == 0)
    assert kafka.confirmed[-1].part == 3


def test_a_gateway_that_is_not_allowed_keeps_its_pictures_and_says_so(tmp_path: Path) -> None:
    kafka = Kafka()
    kafka.refuses = {number: TopicAuthorizationFailedError("castings.images.line-1") for number in range(1, 4)}
    with sending(tmp_path, kafka) as (spool, sender):
        for number in range(1, 4):
            spool.accept(picture(number))
        sender.wake()
        until(lambda: "TopicAuthorizationFailed" in sender.complaint)
        time.sleep(1)
        assert (spool.waiting, spool.parked) == (3, 0)
        assert kafka.channels < 10, "with back-off, not in a hurry"
        kafka.refuses.clear()
        until(lambda: spool.waiting == 0)


def test_a_passing_error_sends_again_from_the_oldest_that_was_not_confirmed(tmp_path: Path) -> None:
    kafka = Kafka()
    kafka.refuses[2] = KafkaTimeoutError("delivery took too long")
    with sending(tmp_path, kafka, in_flight=1) as (spool, sender):
        for number in range(1, 4):
            spool.accept(picture(number))
        sender.wake()
        until(lambda: bool(sender.complaint) and len(kafka.confirmed) == 1)
        kafka.refuses.clear()
        until(lambda: spool.waiting == 0)
    assert [part.part for part in kafka.confirmed] == [1, 2, 3]


def test_stopping_with_kafka_away_does_not_wait(tmp_path: Path) -> None:
    kafka = Kafka()
    kafka.away = True
    with sending(tmp_path, kafka) as (spool, sender):
        spool.accept(picture(1))
        until(lambda: "nothing listens" in sender.complaint)
        began = time.monotonic()
        sender.stop(began + 60)
        sender.join()
        assert time.monotonic() - began < 2


def test_a_real_record_carries_its_identity_and_a_large_picture_a_claim(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(pictures={"inline_bytes": 2000})
    store = ObjectStore(settings.store.url)
    spool = Spool(tmp_path / "spool", "line-1", Budget(2**24))
    sender = Sender(spool, lambda: KafkaChannel(settings, "line-1", store), lambda: True, 4, ProgressWatchdog(30))
    sender.start()
    small, large = picture(1), picture(2, size=5000)
    parts = [spool.accept(one).part for one in (small, large)]
    sender.wake()
    until(lambda: spool.waiting == 0)
    sender.stop(time.monotonic())
    sender.join()
    spool.close()
    consumer = KafkaConsumer(
        TopicNames(settings.topics.prefix).images("line-1"),
        bootstrap_servers=settings.bootstrap,
        auto_offset_reset="earliest",
        consumer_timeout_ms=3000,
    )
    records = {record.key: record for record in consumer}
    consumer.close()
    found = [read_identity(part.key, make_header_map(records[part.key].headers), "line-1") for part in parts]
    assert [identity.part for identity in found] == parts
    assert [identity.sha256 for identity in found] == [small.sha256, large.sha256]
    assert [identity.captured_at for identity in found] == [small.captured_at, large.captured_at]
    assert found[0].content_type == "image/jpeg"
    assert found[0].claim is None
    assert records[parts[0].key].value == small.value
    assert make_header_map(records[parts[0].key].headers)["truth"] == b"ok"
    assert not records[parts[1].key].value
    assert found[1].claim is not None
    assert store.fetch(found[1].claim) == large.value


def test_a_topic_that_is_not_there_is_named(make_settings: MakeSettings) -> None:
    settings = make_settings()
    with pytest.raises(AwayError, match=r"images\.line-9.*castline topics create"):
        KafkaChannel(settings, "line-9", ObjectStore(settings.store.url))


def test_closing_a_channel_that_waits_for_kafka_leaves_no_thread_behind(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings()
    spool = Spool(tmp_path / "spool", "line-1", Budget(2**24))
    before = set(threading.enumerate())
    channel = KafkaChannel(settings, "line-1", ObjectStore(settings.store.url))
    for number in range(1, 200):
        spool.accept(picture(number, size=20_000))
    for stored in spool.after(0, 200):
        channel.send(stored, lambda _: None)
    channel.close()
    until(lambda: {thread for thread in threading.enumerate() if thread not in before} == set(), 20)
    spool.close()
