"""From the spool to Kafka: confirmations, retries, parked pictures and what the log and /readyz say."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kafka.errors import InvalidTimestampError, KafkaTimeoutError, MessageSizeTooLargeError, TopicAuthorizationFailedError

from agents.gateway.sender import ChannelUnavailableError, KafkaChannel, PictureChannel, Sender, SendResult, UnsendableError
from agents.gateway.spool import CheckedPicture, Spool, SpoolBudget, SpooledPicture
from streams.health import ProgressWatchdog
from streams.identity import PartId, read_identity
from streams.object_store import ObjectStore
from streams.supervision import list_thread_faults
from streams.topics import TopicNames
from tests.agents.gateway.camera_line import wait_until
from tests.conftest import MakeSettings
from tests.image_topics import read_topic


def make_picture(number: int, size: int = 100) -> CheckedPicture:
    value = b"\xff\xd8\xff" + f"{number:08d}".encode().ljust(size, b".")
    return CheckedPicture(value, datetime.now(UTC), "image/jpeg", hashlib.sha256(value).hexdigest(), "00-1-1-01", "ok")


class FakeKafka:
    """A cluster that is unavailable, silent, or refuses pictures as the test asks. `confirmed` holds the confirmed parts in order."""

    def __init__(self) -> None:
        self.is_unavailable = False
        self.is_silent = False
        # How long a channel takes each picture, as with a slow object store.
        self.taking_s = 0.0
        # The errors for pictures that are refused, by part number.
        self.errors: dict[int, Exception] = {}
        # Part numbers of the pictures of which no record can be made.
        self.unsendable: set[int] = set()
        # The errors that the next connections raise.
        self.connect_errors: list[Exception] = []
        self.confirmed: list[PartId] = []
        self.in_flight = 0
        self.max_in_flight = 0
        self.channel_count = 0
        self._lock = threading.Lock()

    def connect(self) -> PictureChannel:
        if self.is_unavailable:
            raise ChannelUnavailableError("nothing listens there")
        if self.connect_errors:
            raise self.connect_errors.pop()
        self.channel_count += 1
        return FakeChannel(self)

    def is_reachable(self) -> bool:
        return not self.is_unavailable

    def answer(self, picture: SpooledPicture, on_result: Callable[[SendResult], None]) -> None:
        error = self.errors.get(picture.part.part)
        with self._lock:
            self.in_flight -= 1
            if error is None:
                self.confirmed.append(picture.part)
        on_result(SendResult(picture, error))


class FakeChannel:
    """A channel to `FakeKafka` that confirms each picture after 10 ms."""

    def __init__(self, kafka: FakeKafka) -> None:
        self._kafka = kafka
        self._closed = False

    def send(self, picture: SpooledPicture, on_result: Callable[[SendResult], None]) -> None:
        kafka = self._kafka
        if kafka.is_unavailable:
            raise ChannelUnavailableError("the connection broke")
        if picture.part.part in kafka.unsendable:
            raise UnsendableError("the picture cannot become a Kafka record")
        time.sleep(kafka.taking_s)
        kafka.in_flight += 1
        kafka.max_in_flight = max(kafka.max_in_flight, kafka.in_flight)
        if not kafka.is_silent:
            threading.Timer(0.01, kafka.answer, (picture, on_result)).start()

    def close(self) -> None:
        self._kafka.in_flight = 0


@contextmanager
def running_sender(folder: Path, kafka: FakeKafka, in_flight: int = 4) -> Iterator[tuple[Spool, Sender]]:
    spool = Spool(folder, "line-1", SpoolBudget(2**24))
    sender = Sender(spool, kafka.connect, kafka.is_reachable, in_flight, ProgressWatchdog(30), in_flight_bytes=2**20)
    sender.start()
    try:
        yield spool, sender
    finally:
        sender.stop(time.monotonic() + 5)
        sender.join(30)
        spool.close()


def test_pictures_leave_the_spool_in_order_when_they_are_confirmed(tmp_path: Path) -> None:
    kafka = FakeKafka()
    with running_sender(tmp_path, kafka, in_flight=1) as (spool, sender):
        parts = []
        for number in range(1, 31):
            parts.append(spool.accept(make_picture(number)).part)
            sender.wake()
        wait_until(lambda: spool.waiting_count == 0)
        assert kafka.confirmed == parts
        assert sender.problem == ""


def test_no_more_are_in_flight_than_set(tmp_path: Path) -> None:
    kafka = FakeKafka()
    with running_sender(tmp_path, kafka, in_flight=4) as (spool, sender):
        for number in range(1, 41):
            spool.accept(make_picture(number))
        sender.wake()
        wait_until(lambda: spool.waiting_count == 0)
    assert 1 <= kafka.max_in_flight <= 4


def test_an_outage_of_kafka_is_logged_once_and_no_picture_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kafka = FakeKafka()
    with running_sender(tmp_path, kafka, in_flight=1) as (spool, sender), caplog.at_level(logging.INFO, "agents.gateway"):
        wait_until(lambda: sender.problem == "")
        kafka.is_unavailable = True
        parts = [spool.accept(make_picture(number)).part for number in range(1, 21)]
        sender.wake()
        wait_until(lambda: "connection broke" in sender.problem or "nothing listens" in sender.problem)
        time.sleep(1.5)
        assert spool.waiting_count == 20
        kafka.is_unavailable = False
        wait_until(lambda: spool.waiting_count == 0)
        assert kafka.confirmed == parts
        assert sender.problem == ""
    assert sum("stay on disk" in message for message in caplog.messages) == 1
    assert any("Kafka accepts pictures" in message for message in caplog.messages)


def test_a_silent_kafka_is_reported_although_the_connection_is_open(tmp_path: Path) -> None:
    kafka = FakeKafka()
    kafka.is_silent = True
    with running_sender(tmp_path, kafka) as (spool, sender):
        spool.accept(make_picture(1))
        sender.wake()
        wait_until(lambda: "confirmed nothing" in sender.problem)
        assert spool.waiting_count == 1


def test_an_object_store_that_does_not_answer_is_reported_and_holds_up_no_stop(tmp_path: Path) -> None:
    kafka = FakeKafka()
    kafka.taking_s = 8
    with running_sender(tmp_path, kafka) as (spool, sender):
        spool.accept(make_picture(1))
        wait_until(lambda: sender.problem == "")
        sender.wake()
        wait_until(lambda: "has not taken a picture" in sender.problem)
        started_s = time.monotonic()
        sender.stop(started_s)
        sender.join(0.5)
        assert time.monotonic() - started_s < 2


def test_with_a_slow_object_store_confirmed_pictures_leave_the_spool_one_by_one(tmp_path: Path) -> None:
    kafka = FakeKafka()
    kafka.taking_s = 0.8
    with running_sender(tmp_path, kafka, in_flight=8) as (spool, sender):
        for number in range(6):
            spool.accept(make_picture(number))
        sender.wake()
        wait_until(lambda: spool.waiting_count < 6)
        assert kafka.in_flight + len(kafka.confirmed) < 6, "the later pictures are not sent yet"
        wait_until(lambda: spool.waiting_count == 0)
        assert (kafka.channel_count, len(kafka.confirmed)) == (1, 6)


def test_a_picture_that_kafka_refuses_is_parked_and_the_others_are_sent(tmp_path: Path) -> None:
    kafka = FakeKafka()
    kafka.errors[3] = MessageSizeTooLargeError("larger than the topic allows")
    with running_sender(tmp_path, kafka, in_flight=1) as (spool, sender):
        for number in range(1, 6):
            spool.accept(make_picture(number))
        sender.wake()
        wait_until(lambda: spool.waiting_count == 1)
        assert [part.part for part in kafka.confirmed] == [1, 2, 4, 5]
        assert spool.parked_count == 1
        assert sender.problem == ""
    kafka.errors.clear()
    with running_sender(tmp_path, kafka) as (spool, _):
        wait_until(lambda: spool.waiting_count == 0)
    assert kafka.confirmed[-1].part == 3


def test_a_picture_that_is_refused_because_of_the_clock_is_sent_again_and_not_parked(tmp_path: Path) -> None:
    kafka = FakeKafka()
    kafka.errors[1] = InvalidTimestampError("ahead of the broker")
    with running_sender(tmp_path, kafka) as (spool, sender):
        spool.accept(make_picture(1))
        sender.wake()
        wait_until(lambda: "ahead of the broker" in sender.problem)
        assert spool.parked_count == 0
        kafka.errors.clear()
        wait_until(lambda: spool.waiting_count == 0)


def test_a_picture_of_which_no_record_can_be_made_is_parked_and_the_others_are_sent(tmp_path: Path) -> None:
    kafka = FakeKafka()
    kafka.unsendable = {2}
    with running_sender(tmp_path, kafka) as (spool, sender):
        for number in range(1, 5):
            spool.accept(make_picture(number))
        sender.wake()
        wait_until(lambda: spool.waiting_count == 1)
        assert sorted(part.part for part in kafka.confirmed) == [1, 3, 4], "each is sent once"
        assert (spool.parked_count, sender.problem) == (1, "")


def test_a_sender_goes_on_after_an_error_that_nobody_expects(tmp_path: Path) -> None:
    kafka = FakeKafka()
    kafka.connect_errors = [ZeroDivisionError("an error that nobody expects")]
    with running_sender(tmp_path, kafka) as (spool, _):
        spool.accept(make_picture(1))
        wait_until(lambda: spool.waiting_count == 0)
    assert any("sender-line-1" in fault for fault in list_thread_faults())


def test_the_pictures_in_flight_are_limited_in_bytes(tmp_path: Path) -> None:
    kafka = FakeKafka()
    kafka.is_silent = True
    with running_sender(tmp_path, kafka, in_flight=64) as (spool, sender):
        for number in range(1, 9):
            spool.accept(make_picture(number, size=500_000))
        sender.wake()
        wait_until(lambda: kafka.in_flight >= 3)
        wait_until(lambda: "confirmed nothing" in sender.problem)
        assert kafka.in_flight == 3, "three pictures reach the limit of 1 MiB"


def test_a_gateway_without_authorisation_keeps_its_pictures_and_reports_it(tmp_path: Path) -> None:
    kafka = FakeKafka()
    kafka.errors = {number: TopicAuthorizationFailedError("castings.images.line-1") for number in range(1, 4)}
    with running_sender(tmp_path, kafka) as (spool, sender):
        for number in range(1, 4):
            spool.accept(make_picture(number))
        sender.wake()
        wait_until(lambda: "TopicAuthorizationFailed" in sender.problem)
        time.sleep(1)
        assert (spool.waiting_count, spool.parked_count) == (3, 0)
        assert kafka.channel_count < 10, "the waits between the attempts grow"
        kafka.errors.clear()
        wait_until(lambda: spool.waiting_count == 0)


def test_after_a_temporary_error_sending_starts_again_with_the_oldest_unconfirmed_picture(tmp_path: Path) -> None:
    kafka = FakeKafka()
    kafka.errors[2] = KafkaTimeoutError("delivery took too long")
    with running_sender(tmp_path, kafka, in_flight=1) as (spool, sender):
        for number in range(1, 4):
            spool.accept(make_picture(number))
        sender.wake()
        wait_until(lambda: bool(sender.problem) and len(kafka.confirmed) == 1)
        kafka.errors.clear()
        wait_until(lambda: spool.waiting_count == 0)
    assert [part.part for part in kafka.confirmed] == [1, 2, 3]


class DamagedOnceSpool(Spool):
    """A spool whose file proves damaged when it is read for the first time."""

    has_failed = False

    def read_after(self, seq: int, limit: int, max_bytes: int | None = None) -> list[SpooledPicture]:
        if not self.has_failed:
            self.has_failed = True
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        return super().read_after(seq, limit, max_bytes)


def test_a_sender_replaces_a_damaged_spool_and_goes_on(tmp_path: Path) -> None:
    kafka = FakeKafka()
    spool = DamagedOnceSpool(tmp_path, "line-1", SpoolBudget(2**24))
    sender = Sender(spool, kafka.connect, kafka.is_reachable, 4, ProgressWatchdog(30))
    lost = spool.accept(make_picture(1)).part
    sender.start()
    wait_until(lambda: bool(spool.find_complaint()))
    part = spool.accept(make_picture(2)).part
    wait_until(lambda: kafka.confirmed == [part])
    assert part.run > lost.run
    assert list_thread_faults() == []
    sender.stop(time.monotonic() + 5)
    sender.join(30)
    spool.close()


def test_stopping_does_not_wait_for_an_unavailable_kafka(tmp_path: Path) -> None:
    kafka = FakeKafka()
    kafka.is_unavailable = True
    with running_sender(tmp_path, kafka) as (spool, sender):
        spool.accept(make_picture(1))
        wait_until(lambda: "nothing listens" in sender.problem)
        started_s = time.monotonic()
        sender.stop(started_s + 60)
        sender.join(30)
        assert time.monotonic() - started_s < 2


def test_a_real_record_carries_its_identity_and_a_large_picture_a_claim(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(pictures={"inline_bytes": 2000})
    store = ObjectStore(settings.store.url)
    spool = Spool(tmp_path / "spool", "line-1", SpoolBudget(2**24))
    sender = Sender(spool, lambda: KafkaChannel(settings, "line-1", store), lambda: True, 4, ProgressWatchdog(30))
    sender.start()
    small, large = make_picture(1), make_picture(2, size=5000)
    parts = [spool.accept(picture).part for picture in (small, large)]
    sender.wake()
    wait_until(lambda: spool.waiting_count == 0)
    sender.stop(time.monotonic())
    sender.join(30)
    spool.close()
    found = read_topic(settings, TopicNames(settings.topics.prefix).images("line-1"))
    headers, values = dict(zip(found.keys, found.headers, strict=True)), dict(zip(found.keys, found.values, strict=True))
    identities = [read_identity(part.key, headers[part.key], "line-1") for part in parts]
    assert [identity.part for identity in identities] == parts
    assert [identity.sha256 for identity in identities] == [small.sha256, large.sha256]
    assert [identity.captured_at for identity in identities] == [small.captured_at, large.captured_at]
    assert identities[0].content_type == "image/jpeg"
    assert identities[0].claim is None
    assert values[parts[0].key] == small.value
    assert headers[parts[0].key]["truth"] == b"ok"
    assert not values[parts[1].key]
    assert identities[1].claim is not None
    assert store.fetch(identities[1].claim) == large.value


def test_a_missing_topic_is_named(make_settings: MakeSettings) -> None:
    settings = make_settings()
    with pytest.raises(ChannelUnavailableError, match=r"images\.line-9.*castline topics create"):
        KafkaChannel(settings, "line-9", ObjectStore(settings.store.url))


def test_closing_a_channel_that_waits_for_kafka_leaves_no_thread_behind(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings()
    spool = Spool(tmp_path / "spool", "line-1", SpoolBudget(2**24))
    before = set(threading.enumerate())
    channel = KafkaChannel(settings, "line-1", ObjectStore(settings.store.url))
    for number in range(1, 200):
        spool.accept(make_picture(number, size=20_000))
    for spooled in spool.read_after(0, 200):
        channel.send(spooled, lambda _: None)
    channel.close()
    wait_until(lambda: {thread for thread in threading.enumerate() if thread not in before} == set(), 20)
    spool.close()
