"""Batches that Kafka's Python clients cannot decode, on a real broker: each reader counts them, steps past them, and reads on."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest
from aiokafka.record import memory_records as aiokafka_records
from kafka import KafkaProducer, TopicPartition
from kafka.record import memory_records as kafka_records
from kafka.record.util import calc_crc32c
from prometheus_client import REGISTRY

from streams import record_memory
from streams.compacted_topics import read_compacted_topic
from streams.errors import RecordError
from streams.identity import PartId
from streams.image_topic_reader import ImageTopicReader
from streams.kafka import _ReaderPartitionRecords, read_to_end
from streams.live_line_settings import LiveSettingsByLine
from streams.settings import Settings
from streams.topics import TopicNames
from streams.unreadable_batches import UnreadableBatch, check_readable
from tests.conftest import MakeSettings
from tests.foreign_batches import CODECS, keep_compression, make_batch, send_batch, send_damaged
from tests.image_topics import make_jpeg, read_topic, wait_for, wait_for_verdicts
from tests.processes import CastlineProcess
from tests.sample_records import make_verdict

LINE = "line-1"
TWO = ((b"first", b"value of the first"), (b"second", b"value of the second"))
LATIN_1 = (("Gerät".encode("latin-1"), b"3"),)

Send = Callable[[Settings, str], None]
# Each function sends two records that cannot be decoded.
UNREADABLE: dict[str, Send] = {
    **{codec: partial(send_batch, records=TWO, codec=codec) for codec in CODECS},
    "header": partial(send_batch, records=TWO, headers=LATIN_1),
    "damaged": partial(send_damaged, records=TWO),
}


def send(settings: Settings, topic: str, key: bytes, value: bytes) -> None:
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    producer.send(topic, key=key, value=value, partition=0).get(10)
    producer.close()


def count_unreadable(kind: str) -> float:
    return REGISTRY.get_sample_value("castline_batches_unreadable_total", {"kind": kind}) or 0


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_reader_steps_past_a_batch_that_it_cannot_decode(make_settings: MakeSettings, kind: str) -> None:
    settings = make_settings(topics={"image_partitions": 1})
    topic = TopicNames(settings.topics.prefix).images(LINE)
    keep_compression(settings, topic)
    before = count_unreadable("images")
    send(settings, topic, b"before", b"1")
    UNREADABLE[kind](settings, topic)
    send(settings, topic, b"after", b"2")
    records = list(read_to_end(settings, "test", [topic]))
    assert [record.key for record in records if not isinstance(record.value, UnreadableBatch)] == [b"before", b"after"]
    batches = [record.value for record in records if isinstance(record.value, UnreadableBatch)]
    skipped = [offset for batch in batches for offset in range(batch.first, batch.last + 1)]
    assert skipped == [1, 2]
    assert count_unreadable("images") > before
    with pytest.raises(RecordError, match="cannot be decoded"):
        check_readable(batches[0])
    reader = ImageTopicReader(settings, "test")
    last = reader.read(topic, 0, 3)
    assert last is not None
    assert last.key == b"after"
    reader.close()


@pytest.mark.parametrize("codec", CODECS)
def test_the_broker_unpacks_the_batches_that_other_programs_compress(make_settings: MakeSettings, codec: str) -> None:
    settings = make_settings(topics={"image_partitions": 1})
    topic = TopicNames(settings.topics.prefix).images(LINE)
    send_batch(settings, topic, TWO, codec)
    assert tuple((record.key, record.value) for record in read_to_end(settings, "test", [topic])) == TWO


def test_an_inspector_judges_the_pictures_around_unreadable_batches_also_after_a_restart(
    make_settings: MakeSettings, models_root: Path, tmp_path: Path
) -> None:
    settings = make_settings(model={"root": models_root, "version": "tiny", "runtime": "litert"}, topics={"image_partitions": 1})
    names = TopicNames(settings.topics.prefix)
    topic = names.images(LINE)
    keep_compression(settings, topic, names.lines, names.models)
    # An inspector reads the topic of the live settings before it gets ready.
    for shared in (names.lines, names.models):
        for make_unreadable in UNREADABLE.values():
            make_unreadable(settings, shared)
    send(settings, topic, f"{LINE}:1:1".encode(), make_jpeg(1))
    for number, make_unreadable in enumerate(UNREADABLE.values()):
        make_unreadable(settings, topic)
        send(settings, topic, f"{LINE}:1:{number + 2}".encode(), make_jpeg(number))
    # No record follows this batch, so nothing but the batch itself can move the committed offset.
    send_batch(settings, topic, TWO, "zstd")
    with CastlineProcess(settings, tmp_path / "log", "inspector") as inspector:
        inspector.wait_ready()
        wait_for_verdicts(settings, len(UNREADABLE) + 1, 60)
        wait_for(lambda: inspector.metric("castline_consumer_lag_records") == 0, 30, "expected all records to be committed")
        assert inspector.metric("castline_batches_unreadable_total", kind="images") >= len(UNREADABLE) + 1
        assert inspector.stop() == 0
        inspector.start()
        inspector.wait_ready()
        send(settings, topic, f"{LINE}:1:100".encode(), make_jpeg(1))
        wait_for_verdicts(settings, len(UNREADABLE) + 2, 60)
        assert inspector.stop() == 0
    letters = read_topic(settings, names.dead_letters)
    assert {headers["dead-reason"] for headers in letters.headers} == {b"unreadable"}
    assert set(letters.values) == {b""}
    skipped = [
        offset
        for headers in letters.headers
        for offset in range(int(headers["dead-first-offset"]), int(headers["dead-offset"]) + 1)
        if (headers["dead-topic"], headers["dead-partition"]) == (topic.encode(), b"0")
    ]
    assert sorted(skipped) == [1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16, 17], "each offset is in one dead letter"


def test_an_archivist_writes_one_dead_letter_of_each_unreadable_batch_and_goes_on(make_settings: MakeSettings, tmp_path: Path) -> None:
    database = str(tmp_path / "station.sqlite3")
    settings = make_settings(station={"database": database, "secret_key_file": tmp_path / "key"})
    names = TopicNames(settings.topics.prefix)
    topics = (names.verdicts(LINE), names.reviews, names.lines)
    keep_compression(settings, *topics)
    for topic in topics:
        send_batch(settings, topic, TWO, "lz4")
        send_batch(settings, topic, TWO, headers=LATIN_1)
    part = PartId(LINE, 9, 1)
    send(settings, names.verdicts(LINE), part.key, make_verdict(part, names.images(LINE), 0, 0).encode())
    with CastlineProcess(settings, tmp_path / "log", "archivist") as archivist:
        archivist.wait_ready()
        wait_for(lambda: archivist.metric("castline_records_archived_total", kind="verdict") == 1, 60, "expected the row of the verdict")
        wait_for(lambda: archivist.metric("castline_consumer_lag_records") == 0, 30, "expected all records to be committed")
        assert archivist.stop() == 0
    letters = read_topic(settings, names.dead_letters)
    assert [headers["dead-reason"] for headers in letters.headers] == [b"unreadable"] * 2 * len(topics)


def _make_batches(*sizes: int) -> bytearray:
    """Returns batches with as many records as `sizes` says, as a broker sends them."""
    content, offset = bytearray(), 0
    for size in sizes:
        batch = make_batch([(b"key", b"value")] * size)
        content += struct.pack(">q", offset) + batch[8:]
        offset += size
    return content


IMAGES, COMPACTED = TopicNames("castline").images(LINE), TopicNames("castline").lines


def _read_with_aiokafka(content: bytes, offset: int, topic: str = IMAGES) -> tuple[list[Any], int]:
    batches = aiokafka_records.MemoryRecords(content)
    records = record_memory._WorkerPartitionRecords(TopicPartition(topic, 0), batches, [], offset, None, None, True, 0)
    return list(records), records.next_fetch_offset


def _read_with_kafka_python(content: bytes, offset: int, topic: str = IMAGES) -> tuple[list[Any], int]:
    place, batches = TopicPartition(topic, 0), kafka_records.MemoryRecords(content)
    records = _ReaderPartitionRecords(offset, place, batches, check_crcs=True)
    return records.take(), records.next_fetch_offset


class Read(Protocol):
    def __call__(self, content: bytes, offset: int, topic: str = IMAGES, /) -> tuple[list[Any], int]: ...


READERS = [_read_with_aiokafka, _read_with_kafka_python]
# The header of a batch has 61 bytes: an offset of 8 bytes, a length of 4 bytes, the number of the leader in 4 bytes, the format (magic) in
# one byte, the checksum in 4 bytes, and fields that the checksum covers.
OFFSET, LENGTH, FORMAT, CHECKED = range(8), range(8, 12), 16, range(17, 61)


def _damage(place: int, bit: int) -> bytes:
    """Returns three batches of two, three and one records. One bit in the header of the second batch is wrong."""
    content = _make_batches(2, 3, 1)
    content[len(_make_batches(2)) + place] ^= 1 << bit
    return bytes(content)


@pytest.mark.parametrize("topic", [IMAGES, COMPACTED])
@pytest.mark.parametrize("read", READERS)
def test_a_reader_skips_exactly_the_batch_whose_header_contradicts_its_checksum_or_its_neighbours(read: Read, topic: str) -> None:
    for place in (*OFFSET, *CHECKED):
        for bit in range(8):
            records, following = read(_damage(place, bit), 0, topic)
            case = f"byte {place}, bit {bit}"
            assert [record.offset for record in records] == [0, 1, 4, 5], case
            assert (records[2].value.first, records[2].value.last) == (2, 4), case
            assert following == 6, case


def _describe(records: list[Any]) -> list[int | tuple[int, int]]:
    """Returns the offset of each record, and the first and last offset of each placeholder."""
    return [(value.first, value.last) if isinstance(value := record.value, UnreadableBatch) else record.offset for record in records]


def _flip(content: bytes | bytearray, batch_at: int, bit: int) -> bytes:
    """Returns `content` with one wrong bit in the offset of the batch that begins at the byte `batch_at`. Bit 0 has the value 1."""
    changed = bytearray(content)
    changed[batch_at + 7 - bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("topic", [IMAGES, COMPACTED])
@pytest.mark.parametrize("read", READERS)
def test_a_damaged_offset_costs_no_record_of_the_batch_before(read: Read, topic: str) -> None:
    for bit in range(64):
        content = _flip(_make_batches(5, 3, 1), len(_make_batches(5)), bit)
        for first in range(5):
            # On a compacted topic, compaction can have left the gap behind the damaged batch. So if the reader does not ask for the first
            # offset of the batch before, nothing says which of the two batches is the right one.
            if topic == IMAGES or first == 0:
                records, following = read(content, first, topic)
                assert (_describe(records), following) == ([*range(first, 5), (5, 7), 8], 9), f"bit {bit}, first {first}"


@pytest.mark.parametrize("read", READERS)
def test_a_damaged_offset_costs_exactly_its_batch_if_the_answer_has_two_neighbours(read: Read) -> None:
    sizes, starts = (4, 3, 2, 1), (0, 4, 7, 9, 10)
    for damaged in (0, 1, 2):
        for bit in range(64):
            content = _flip(_make_batches(*sizes), len(_make_batches(*sizes[:damaged])), bit)
            for first in range(4):
                begin, end = max(first, starts[damaged]), starts[damaged + 1]
                expected = [*range(first, begin), (begin, end - 1), *range(end, 10)]
                records, following = read(content, first)
                assert (_describe(records), following) == (expected, 10), f"batch {damaged}, bit {bit}, first {first}"


@pytest.mark.parametrize("read", READERS)
def test_a_damaged_offset_of_the_first_batch_costs_exactly_this_batch_if_the_next_one_contradicts_it(read: Read) -> None:
    content = _make_batches(4, 3, 1)[len(_make_batches(4)) :]
    for bit in range(64):
        for first in (4, 5, 6):
            # If the wrong offset is exactly the one for which the reader asks, the next batch seems to be the wrong one.
            if 4 ^ 1 << bit != first:
                records, following = read(_flip(content, 0, bit), first)
                assert (_describe(records), following) == ([(first, 6), 7], 8), f"bit {bit}, first {first}"


@pytest.mark.parametrize("read", READERS)
def test_the_marks_of_transactions_leave_no_gap(read: Read) -> None:
    mark = _make_batches(1)
    mark[22] |= 0x30  # The batch belongs to a transaction and holds no records but the mark of its end.
    mark[17:21] = struct.pack(">I", calc_crc32c(memoryview(mark[21:])))
    content = bytes(_make_batches(2) + struct.pack(">q", 2) + mark[8:] + struct.pack(">q", 3) + _make_batches(2)[8:])
    for first in range(3):
        assert _describe(read(content, first)[0]) == [offset for offset in (0, 1, 3, 4) if offset >= first]


@pytest.mark.parametrize("read", READERS)
def test_records_that_an_answer_leaves_out_get_a_placeholder_unless_the_topic_is_compacted(read: Read) -> None:
    """A broker leaves out a batch whose damaged offset is too small. Compaction removes records, too."""
    content = bytes(_make_batches(4, 3, 2, 1)[len(_make_batches(4, 3)) :])
    for first in (4, 5, 6):
        assert _describe(read(content, first)[0]) == [(first, 6), 7, 8, 9]
        assert _describe(read(content, first, COMPACTED)[0]) == [7, 8, 9]


@pytest.mark.parametrize("topic", [IMAGES, COMPACTED])
@pytest.mark.parametrize("read", READERS)
def test_a_damaged_offset_sends_no_reader_back(read: Read, topic: str) -> None:
    """The only batch of the answer seems to end before the offset for which the reader asks."""
    records, following = read(bytes(_make_batches(3)), 4, topic)
    assert (_describe(records), following) == ([(4, 4)], 5)


@pytest.mark.parametrize("read", READERS)
def test_missing_records_between_batches_cost_none_of_the_batches_that_fit_together(read: Read) -> None:
    content = _make_batches(4, 3)
    content += _make_batches(4, 3, 5, 2, 1)[len(_make_batches(4, 3, 5)) :]
    for first in range(4):
        assert _describe(read(bytes(content), first)[0]) == [*range(first, 7), (7, 11), 12, 13, 14]


@pytest.mark.parametrize("topic", [IMAGES, COMPACTED])
@pytest.mark.parametrize("read", READERS)
def test_a_reader_may_ask_for_each_offset_of_a_batch(read: Read, topic: str) -> None:
    for sizes in ((4, 3, 2, 1), (4, 3), (4,)):
        for first in range(4):
            assert _describe(read(bytes(_make_batches(*sizes)), first, topic)[0]) == [*range(first, sum(sizes))]


@pytest.mark.parametrize("read", READERS)
def test_all_records_of_a_compacted_topic_with_gaps_are_read(read: Read) -> None:
    content = bytearray()
    for base, size in ((3, 3), (9, 2), (20, 1), (21, 4), (40, 2)):
        content += struct.pack(">q", base) + _make_batches(size)[8:]
    kept = [3, 4, 5, 9, 10, 20, 21, 22, 23, 24, 40, 41]
    for first in (0, 3, 4, 5):
        assert _describe(read(bytes(content), first, COMPACTED)[0]) == [offset for offset in kept if offset >= first]


@pytest.mark.parametrize("read", READERS)
def test_a_reader_accepts_or_skips_a_batch_with_a_damaged_format(read: Read) -> None:
    """The checksum does not cover the format, and aiokafka's compiled decoder reads the records of an unknown format nevertheless."""
    for bit in range(8):
        records, following = read(_damage(FORMAT, bit), 0)
        assert [record.offset for record in records[:2]] == [0, 1], f"bit {bit}"
        assert following > 2, f"bit {bit}"
        skipped = [record.value for record in records if isinstance(record.value, UnreadableBatch)]
        assert len(records) == 6 or skipped[0].first == 2, f"bit {bit}"


@pytest.mark.parametrize("read", READERS)
def test_a_reader_keeps_the_records_before_a_batch_with_a_damaged_length(read: Read) -> None:
    for place in LENGTH:
        for bit in range(8):
            records, _ = read(_damage(place, bit), 0)
            assert [record.offset for record in records[:2]] == [0, 1], f"byte {place}, bit {bit}"
            assert all(isinstance(record.value, UnreadableBatch) for record in records[2:]), f"byte {place}, bit {bit}"


@pytest.mark.parametrize("read", READERS)
def test_a_reader_steps_past_one_offset_after_the_other_while_the_header_of_a_batch_cannot_be_decoded(read: Read) -> None:
    content = _damage(LENGTH[0], 7)[len(_make_batches(2)) :]
    for offset in (2, 3, 4):
        records, following = read(content, offset)
        assert [(record.offset, record.value.first, record.value.last) for record in records] == [(offset, offset, offset)]
        assert following == offset + 1


def test_a_compacted_topic_with_unreadable_batches_can_be_read_to_its_end(make_settings: MakeSettings) -> None:
    settings = make_settings()
    topic = TopicNames(settings.topics.prefix).lines
    keep_compression(settings, topic)
    for make_unreadable in UNREADABLE.values():
        make_unreadable(settings, topic)
    assert read_compacted_topic(settings, "test", topic, LiveSettingsByLine()) == LiveSettingsByLine()
