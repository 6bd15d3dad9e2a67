"""The records of a worker are limited in bytes, and not only in their number."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import CorruptRecordException
from faust.app.base import FlowControlEvent

from streams.kafka import READER_POLL_RECORDS
from streams.record_memory import BoundedConsumerThread, FetchedRecords, RecordMemory
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.image_topics import read_topic, wait_for
from tests.large_records import BUFFER_BYTES, LARGEST_GROWTH, RECORD_BYTES, RECORDS, PeakMemory, send_large_records
from tests.processes import make_environment

# A worker that keeps each record until no further record comes, and then acknowledges and copies the offsets of all records.
WORKER = """
import asyncio, logging, sys
from collections import deque
from streams.group_members import make_identity
from streams.record_producer import ProducerRecord, RecordProducer
from streams.settings import load_settings
from streams.topics import TopicNames
from streams.worker import ConsumerGroup, make_app, run_worker
from streams.worker_process import worker_process

logging.basicConfig(level="INFO")
settings = load_settings(None)
names = TopicNames(settings.topics.prefix)

class Keeper:
    lines_by_topic = {names.images("line-1"): "line-1"}

    def __init__(self, producer):
        self._producer = producer
        self._kept = deque()
        self.background_tasks = (self.finish,)

    async def accept(self, received):
        self._kept.append(received)

    async def finish(self):
        seen = 0
        while not self._kept or len(self._kept) > seen:
            seen = len(self._kept)
            await asyncio.sleep(2)
        while True:
            while self._kept:
                received = self._kept.popleft()
                await self._producer.deliver([ProducerRecord(names.verdicts("line-1"), None, b"%d" % received.record.offset)])
                await received.acknowledge()
                del received
            await asyncio.sleep(0.01)

    async def drain(self):
        pass

async def run(process):
    identity = make_identity(settings, "inspector", process.instance)
    app = make_app(settings, identity, 256)
    producer = RecordProducer(app, settings, "inspector", process.health.set_problem)
    group = ConsumerGroup(app, identity, Keeper(producer), settings, "inspector", process.health)
    return await run_worker([group], "inspector", 5)

with worker_process(settings, "inspector", 0) as process:
    sys.exit(asyncio.run(run(process)))
"""

# A reader without a group that counts the records of the image topic, as the station and the sorter read their topics.
READER = """
from streams.kafka import read_to_end
from streams.settings import load_settings
from streams.topics import TopicNames

settings = load_settings(None)
print("ready", flush=True)
input()
print(sum(1 for _ in read_to_end(settings, "reader", [TopicNames(settings.topics.prefix).images("line-1")])), flush=True)
"""


def make_event(size: int) -> Any:
    return SimpleNamespace(message=SimpleNamespace(key=b"", value=bytes(size)))


@pytest.mark.asyncio
async def test_a_record_waits_until_earlier_ones_are_finished_and_a_huge_one_until_it_is_alone() -> None:
    memory = RecordMemory(100)
    release_first = await memory.reserve(60)
    small = asyncio.create_task(memory.reserve(50))
    await asyncio.sleep(0)
    assert not small.done()
    release_first()
    release_first()
    release_small = await small
    assert memory.used_bytes == 50, "only the first call frees the bytes of a record"
    huge = asyncio.create_task(memory.reserve(1000))
    await asyncio.sleep(0)
    assert not huge.done()
    release_small()
    await huge
    assert memory.used_bytes == 1000


@pytest.mark.asyncio
async def test_fetching_stops_when_large_records_fill_the_queue_and_goes_on_when_they_are_read() -> None:
    calls: list[str] = []
    queue = FetchedRecords(maxsize=256, flow_control=FlowControlEvent(initially_suspended=False), max_bytes=10_000)
    stop, resume = lambda: calls.append("stop"), lambda: calls.append("go on")

    def put(size: int) -> None:
        queue.put_nowait_enhanced(make_event(size), on_pressure_high=stop, on_pressure_drop=resume)

    put(8_500)
    put(6_000)
    assert (queue.full(), queue.used_bytes, calls) == (True, 14_500, ["stop"]), "two records of 256, but more than the limit of bytes"
    waiting = asyncio.create_task(queue.put(make_event(10)))
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.get_nowait()
    await waiting
    queue.get_nowait()
    queue.get_nowait()
    assert (queue.used_bytes, queue.full(), calls) == (0, False, ["stop", "go on"])
    put(20_000)
    queue.clear()
    assert queue.used_bytes == 0


class BrokenFetcher:
    """A fetcher of aiokafka that holds two records and then an error."""

    _closed = False

    def __init__(self) -> None:
        self._subscriptions = SimpleNamespace(fetch_context=nullcontext)
        self._answers: list[Any] = [
            SimpleNamespace(key=b"", value=b"1", offset=1),
            SimpleNamespace(key=b"", value=b"2", offset=2),
            CorruptRecordException(),
        ]

    async def fetched_records(self, _partitions: Any, timeout: float, max_records: int) -> dict[str, list[Any]]:  # noqa: ASYNC109
        answer = self._answers.pop(0) if self._answers else None
        if isinstance(answer, Exception):
            raise answer
        return {"partition": [answer]} if answer else {}


@pytest.mark.asyncio
async def test_records_before_a_broken_one_are_returned_and_the_error_comes_with_the_next_poll() -> None:
    thread = BoundedConsumerThread.__new__(BoundedConsumerThread)
    thread.app, thread.consumer = SimpleNamespace(buffer_bytes=BUFFER_BYTES), SimpleNamespace(flow_active=True)
    thread.last_taken = {}
    consumer = SimpleNamespace(_closed=False, _fetcher=BrokenFetcher())
    taken = await thread._fetch_records(consumer, {"partition"}, 1.0, 64)
    assert [record.value for record in taken["partition"]] == [b"1", b"2"]
    with pytest.raises(CorruptRecordException):
        await thread._fetch_records(consumer, {"partition"}, 1.0, 64)
    assert await thread._fetch_records(consumer, {"partition"}, 1.0, 64) == {}


def test_a_backlog_of_large_records_takes_no_more_memory_than_the_setting_allows(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(topics={"image_partitions": 1}, kafka={"buffer_bytes": BUFFER_BYTES})
    names, log = TopicNames(settings.topics.prefix), tmp_path / "worker.log"
    with log.open("ab") as output:
        worker = subprocess.Popen([sys.executable, "-c", WORKER], env=make_environment(settings), stdout=output, stderr=output)
    try:
        wait_for(lambda: "was assigned 1 partitions" in log.read_text(), 60, "the worker gets its partition")
        memory = PeakMemory(worker.pid)
        send_large_records(settings, names.images("line-1"), "line-1")

        def read_offsets() -> list[int]:
            return [int(value or b"") for value in read_topic(settings, names.verdicts("line-1")).values]

        wait_for(lambda: len(read_offsets()) >= RECORDS, 120, "every record is finished")
        assert read_offsets() == list(range(RECORDS))
        assert memory.growth() < LARGEST_GROWTH
    finally:
        worker.kill()
        worker.wait()


def test_a_reader_without_a_group_holds_few_large_records(make_settings: MakeSettings) -> None:
    settings = make_settings(topics={"image_partitions": 1})
    send_large_records(settings, TopicNames(settings.topics.prefix).images("line-1"), "line-1")
    reader = subprocess.Popen([sys.executable, "-c", READER], env=make_environment(settings), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert reader.stdin is not None
    assert reader.stdout is not None
    try:
        assert reader.stdout.readline() == b"ready\n"
        memory = PeakMemory(reader.pid)
        reader.stdin.write(b"read\n")
        reader.stdin.flush()
        assert int(reader.stdout.readline()) == RECORDS
        # While a poll returns its records, the records of the poll before are still in use.
        assert memory.growth() < (2 * READER_POLL_RECORDS + 5) * RECORD_BYTES
    finally:
        reader.kill()
        reader.wait()
        reader.stdin.close()
        reader.stdout.close()


def test_only_two_modules_open_a_reader_without_a_group() -> None:
    folders = [Path(__file__).parents[2] / folder for folder in ("agents", "station", "streams")]
    opening = re.compile(r"(open_client\(\s*KafkaConsumer\b|KafkaConsumer\()")
    modules = {path.name for folder in folders for path in folder.rglob("*.py") if opening.search(path.read_text())}
    assert modules == {"kafka.py", "image_topic_reader.py"}, "make_reader limits the memory, and image_topic_reader asks for one record"
