"""The offsets at which a worker starts, on a real broker: expired records, a topic created again, and partitions without a commit."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from streams.consumed_offsets import StartOffset, choose_start
from streams.settings import Settings
from streams.topic_creation import create_topics
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.foreign_batches import keep_compression, send_batch
from tests.image_topics import read_topic, wait_for
from tests.processes import make_environment

LINE = "line-1"

# A worker that copies each record of the image topic to the topic of verdicts. It delivers and acknowledges as the inspector does.
WORKER = """
import asyncio, logging, sys
from streams.group_members import make_identity
from streams.record_producer import ProducerRecord, RecordProducer
from streams.settings import load_settings
from streams.topics import TopicNames
from streams.worker import ConsumerGroup, make_app, run_worker
from streams.worker_process import worker_process

logging.basicConfig(level="INFO")
settings = load_settings(None)
names = TopicNames(settings.topics.prefix)

class Copier:
    lines_by_topic = {names.images("line-1"): "line-1"}
    background_tasks = ()

    def __init__(self, producer):
        self._producer = producer

    async def accept(self, received):
        value = b"%d" % received.record.offset
        await self._producer.deliver([ProducerRecord(names.verdicts("line-1"), None, value)])
        await received.acknowledge()

    async def drain(self):
        pass

async def run(process):
    identity = make_identity(settings, "inspector", process.instance)
    app = make_app(settings, identity, 64)
    producer = RecordProducer(app, settings, "inspector", process.health.set_problem)

    async def report(expired):
        value = b"expired %d+%d" % (expired.first, expired.count)
        await producer.deliver([ProducerRecord(names.dead_letters, None, value)])

    group = ConsumerGroup(app, identity, Copier(producer), settings, "inspector", process.health, report)
    return await run_worker([group], "inspector", 5)

with worker_process(settings, "inspector", 0) as process:
    sys.exit(asyncio.run(run(process)))
"""


@contextmanager
def worker(settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen([sys.executable, "-c", WORKER], env=make_environment(settings), stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class Topic:
    """The image topic of the line, with one partition."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        names = TopicNames(settings.topics.prefix)
        self.name, self._copies, self._dead_letters = names.images(LINE), names.verdicts(LINE), names.dead_letters
        self.group = f"{settings.topics.prefix}-inspector"
        self.admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)

    def send(self, count: int) -> None:
        producer = KafkaProducer(bootstrap_servers=self.settings.bootstrap)
        for _ in range(count):
            producer.send(self.name, b"picture", partition=0).get(10)
        producer.close()

    def send_in_transactions(self, *counts: int) -> None:
        """Sends as many records in one transaction as each number of `counts` says. Each transaction ends with a control record."""

        async def send() -> None:
            producer = AIOKafkaProducer(bootstrap_servers=self.settings.bootstrap, transactional_id=f"{self.name}-producer")
            await producer.start()
            try:
                for count in counts:
                    async with producer.transaction():
                        for _ in range(count):
                            await producer.send_and_wait(self.name, b"picture", partition=0)
            finally:
                await producer.stop()

        asyncio.run(send())

    def commit(self, offset: int) -> None:
        consumer = KafkaConsumer(bootstrap_servers=self.settings.bootstrap, group_id=self.group, enable_auto_commit=False)
        consumer.assign([TopicPartition(self.name, 0)])
        consumer.commit({TopicPartition(self.name, 0): OffsetAndMetadata(offset, "", -1)})
        consumer.close()

    def committed(self) -> int:
        groups = self.admin.list_group_offsets({self.group: [TopicPartition(self.name, 0)]})
        return int(groups[self.group][TopicPartition(self.name, 0)].offset)

    def delete_before(self, offset: int) -> None:
        self.admin.delete_records({TopicPartition(self.name, 0): offset})

    def read_copies(self) -> list[int]:
        return [int(value or b"") for value in read_topic(self.settings, self._copies).values]

    def read_expired(self) -> list[bytes | None]:
        return read_topic(self.settings, self._dead_letters).values


@pytest.fixture
def topic(make_settings: MakeSettings) -> Iterator[Topic]:
    topic = Topic(make_settings(topics={"image_partitions": 1}))
    yield topic
    topic.admin.close()


@pytest.mark.parametrize(
    ("committed", "log_start", "log_end", "start"),
    [
        (None, 0, 20, StartOffset(0, 0, False)),
        (None, 5, 20, StartOffset(5, 0, False)),
        (4, 0, 20, StartOffset(4, 0, False)),
        (20, 20, 20, StartOffset(20, 0, False)),
        (4, 16, 20, StartOffset(16, 12, False)),
        (500, 0, 20, StartOffset(0, 0, True)),
    ],
)
def test_a_consumer_starts_at_the_oldest_record_that_it_has_not_read(
    committed: int | None, log_start: int, log_end: int, start: StartOffset
) -> None:
    assert choose_start(committed, log_start, log_end) == start


def test_records_that_expired_before_the_start_are_reported_once_and_the_rest_is_read(topic: Topic, tmp_path: Path) -> None:
    topic.send(20)
    topic.commit(2)
    topic.delete_before(18)
    with worker(topic.settings, tmp_path / "log"):
        wait_for(lambda: len(topic.read_copies()) == 2, 60, "expected the records that are left")
        assert topic.read_expired() == [b"expired 2+16"]
        wait_for(lambda: topic.committed() == 20, 20, "expected the offset of the last record")
    topic.send(3)
    topic.delete_before(23)
    for start in range(2):
        with worker(topic.settings, tmp_path / "log"):
            wait_for(lambda: topic.committed() == 23, 60, "expected a commit although no record is left")
            wait_for(lambda: len(topic.read_expired()) == 2, 20, f"expected no further report at start {start}")
    # The reports have no key, so they can lie in different partitions of the topic. Kafka keeps the order only within a partition.
    assert sorted(value or b"" for value in topic.read_expired()) == [b"expired 2+16", b"expired 20+3"]
    assert topic.read_copies() == [18, 19]


def test_control_records_at_the_end_of_a_topic_do_not_wait_for_ever(topic: Topic, tmp_path: Path) -> None:
    """Offsets 0 to 2 are records and 3 is a control record, 4 a record and 5 a control record."""
    topic.send_in_transactions(3, 1)
    with worker(topic.settings, tmp_path / "log"):
        wait_for(lambda: topic.read_copies() == [0, 1, 2, 4], 60, "expected all records")
        wait_for(lambda: topic.committed() == 6, 20, "expected the offset behind the last control record")
        topic.send(2)
        topic.send_in_transactions(1)
        wait_for(lambda: topic.read_copies() == [0, 1, 2, 4, 6, 7, 8], 60, "expected the later records")
        wait_for(lambda: topic.committed() == 10, 20, "expected the offset behind the last control record")
    with worker(topic.settings, tmp_path / "log"):
        topic.send(1)
        wait_for(lambda: topic.committed() == 11, 60, "expected a commit after a restart")
    assert topic.read_copies() == [0, 1, 2, 4, 6, 7, 8, 10], "no record is read twice"


@pytest.mark.parametrize("readable", [0, 1])
def test_an_unreadable_batch_of_three_records_stops_no_commit(topic: Topic, tmp_path: Path, readable: int) -> None:
    keep_compression(topic.settings, topic.name)
    topic.send(readable)
    send_batch(topic.settings, topic.name, [(b"key", b"value")] * 3, "zstd")
    with worker(topic.settings, tmp_path / "log"):
        # One placeholder stands for the batch. Its offset is the offset of the last record.
        wait_for(lambda: topic.read_copies() == [*range(readable), readable + 2], 60, "expected a placeholder of the unreadable batch")
        wait_for(lambda: topic.committed() == readable + 3, 20, "expected the offset behind the unreadable batch")
        topic.send(1)
        wait_for(lambda: topic.committed() == readable + 4, 20, "expected the offset of the last record")


def test_a_topic_of_control_records_alone_has_nothing_that_waits(topic: Topic, tmp_path: Path) -> None:
    topic.send_in_transactions(1, 1)
    topic.delete_before(3)
    with worker(topic.settings, tmp_path / "log"):
        wait_for(lambda: topic.committed() == 4, 60, "expected the offset behind the control record")
        topic.send(3)
        wait_for(lambda: topic.read_copies() == [4, 5, 6], 60, "expected the records")
        wait_for(lambda: topic.committed() == 7, 20, "expected the offset of the last record")


def test_a_committed_offset_of_an_earlier_topic_hides_no_record(topic: Topic, tmp_path: Path) -> None:
    topic.commit(500)
    topic.send(5)
    with worker(topic.settings, tmp_path / "log"):
        wait_for(lambda: topic.read_copies() == [0, 1, 2, 3, 4], 60, "expected all records of the new topic")
        wait_for(lambda: topic.committed() == 5, 20, "expected the offset in the new topic")


def test_a_worker_whose_topic_is_created_again_ends_and_reads_the_new_topic_after_its_start(topic: Topic, tmp_path: Path) -> None:
    topic.send(30)
    with worker(topic.settings, tmp_path / "log") as process:
        wait_for(lambda: len(topic.read_copies()) == 30, 60, "expected all records of the old topic")
        health = json.loads(next((tmp_path / "run" / "targets").glob("*.json")).read_text())[0]["targets"][0]
        measured = f'castline_consumer_lag_records{{line="{LINE}"}} 0.0'
        wait_for(_page_says(health, "metrics", measured), 30, "expected the lag monitor to know the topic")
        topic.admin.delete_topics([topic.name])
        wait_for(_page_says(health, "readyz", "do not exist"), 30, "expected /readyz to name the missing topic")
        create_topics(topic.admin, topic.settings)
        assert process.wait(30) == 1
        assert "was deleted and created again" in (tmp_path / "log").read_text()
    topic.send(5)
    with worker(topic.settings, tmp_path / "log"):
        wait_for(lambda: topic.read_copies()[30:] == [0, 1, 2, 3, 4], 60, "expected all records of the new topic")


def _page_says(address: str, page: str, text: str) -> Callable[[], bool]:
    def says() -> bool:
        try:
            with urllib.request.urlopen(f"http://{address}/{page}", timeout=5) as answer:
                return text in answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return text in error.read().decode()

    return says
