"""Lets Kafka's clients step past batches of records that they cannot decode.

A batch cannot be decoded if it is damaged, if no library for its compression is installed, or if the name of a header is not UTF-8. The
clients would raise an error, and read the same batch again for ever. With `ReadableBatches`, the clients get one record in place of such a
batch. The value of this record is an `UnreadableBatch`, and each role refuses it like any other invalid record.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from streams import metrics
from streams.errors import RecordError

log = logging.getLogger(__name__)

# The reason of a dead letter that contains no record, but says that records could not be decoded.
UNREADABLE = "unreadable"


class UnreadableBatch(bytes):
    """The value of a placeholder for records that could not be decoded. The value has no bytes.

    `first` and `last` are the offsets of these records. `problem` is the error of the decoder.
    """

    first: int
    last: int
    problem: str

    def __new__(cls, first: int, last: int, problem: str) -> UnreadableBatch:
        batch = super().__new__(cls)
        batch.first, batch.last, batch.problem = first, last, problem
        return batch

    def __str__(self) -> str:
        return f"The records from offset {self.first} to {self.last} cannot be decoded: {self.problem}"


def check_readable(value: bytes | None) -> None:
    """Raises RecordError if `value` is an `UnreadableBatch`, which stands for records that could not be decoded."""
    if isinstance(value, UnreadableBatch):
        raise RecordError(UNREADABLE, str(value))


@dataclass(frozen=True)
class _Placeholder:
    """A record in place of records that could not be decoded. It has all attributes that aiokafka and kafka-python read."""

    offset: int
    timestamp: int
    value: UnreadableBatch
    timestamp_type: int = 0
    key: None = None
    checksum: None = None
    size_in_bytes: int = 0
    headers: list[tuple[str, bytes]] = field(default_factory=list)

    def validate_crc(self) -> bool:
        return True


class _ReadableBatch:
    """A batch of aiokafka or of kafka-python. Its iteration never raises an error, but yields a placeholder for undecodable records.

    - `first`: the first offset that the client has not read yet.
    - `following`: the next batch, if it is known.
    - `is_misplaced`: True if the offset of the batch does not fit between the offsets of its neighbours. The checksum of the batch does not
      show this fault, because the offset is not part of the checksum.
    """

    def __init__(self, batch: Any, place: Any, first: int, following: Any | None, is_misplaced: bool) -> None:
        self._batch = batch
        self._place = place
        self._first = first if is_misplaced else max(batch.base_offset, first)
        self._following = following
        self._problem = "the offset of the batch is wrong" if is_misplaced else ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def validate_crc(self) -> bool:
        """Always returns True, so that the client iterates over the batch. If the checksum is wrong, the iteration yields a placeholder."""
        try:
            is_intact = bool(self._batch.validate_crc())
        except Exception:  # noqa: BLE001  damaged bytes can cause any error in a decoder
            is_intact = False
        if not is_intact:
            self._problem = "the checksum of the batch is wrong"
        return True

    @property
    def is_control_batch(self) -> bool:
        return not self._problem and bool(self._batch.is_control_batch)

    @property
    def next_offset(self) -> int:
        if not self._problem:
            return int(self._batch.next_offset)
        # The number of records in the batch may be damaged, too, so do not use it. Go on at the first offset of the next batch. If the next
        # batch is not known, skip one offset. The client then asks the broker again.
        following = self._first + 1 if self._following is None else int(self._following.base_offset)
        return int(max(self._first + 1, following))

    def __iter__(self) -> Iterator[Any]:
        try:
            if self._problem:
                raise ValueError(self._problem)
            for record in self._batch:
                yield record
                self._first = max(self._first, record.offset + 1)
        except Exception as error:  # noqa: BLE001  damaged bytes can cause any error in a decoder
            yield self._make_placeholder(error)

    def _make_placeholder(self, error: Exception) -> _Placeholder:
        last = max(self._first, self.next_offset - 1)
        value = UnreadableBatch(self._first, last, f"{type(error).__name__}: {error}"[:200])
        topic, partition = self._place
        log.error("A batch of %s/%d is skipped. %s", topic, partition, value)
        metrics.batches_unreadable.labels(topic.partition(".")[2].partition(".")[0]).inc()
        return _Placeholder(last, 0 if self._problem else self._batch.max_timestamp, value)


class _HeaderlessBatch:
    """Stands for a batch whose header cannot be decoded. Has the attributes that aiokafka and kafka-python read.

    The number of its records is not known, so it occupies a single offset. Its iteration raises `error`.
    """

    magic = 0
    producer_id = None
    is_transactional = False
    is_control_batch = False
    max_timestamp = 0

    def __init__(self, offset: int, error: Exception) -> None:
        self.base_offset = offset
        self.next_offset = offset + 1
        self._error = error

    def validate_crc(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        raise self._error


class ReadableBatches:
    """The batches of a broker's answer for one partition. `batches` are the MemoryRecords of aiokafka or of kafka-python.

    `place` is the partition, and `fetch_offset` the offset for which the client has asked.

    If the header of a batch cannot be decoded, the batch yields a placeholder for a single offset. Nothing is read after this batch,
    because its header does not say where the next batch begins. The client then asks the broker again.
    """

    def __init__(self, batches: Any, place: Any, fetch_offset: int) -> None:
        self._batches = batches
        self._place = place
        self._fetch_offset = fetch_offset
        self._last: _ReadableBatch | None = None
        # The batch that follows `_last`.
        self._following: Any | None = None
        # The error of a header that cannot be decoded. No batch is read after this error.
        self._error: Exception | None = None
        self._is_over = False

    def has_next(self) -> bool:
        if self._is_over:
            return False
        return self._following is not None or self._error is not None or bool(self._batches.has_next())

    def next_batch(self) -> Any | None:
        batch = self._read() if self._following is None else self._following
        if batch is None:
            if self._error is None or self._is_over:
                return None
            self._is_over = True
            batch = _HeaderlessBatch(self._find_first(), self._error)
        self._following = self._read()
        first = self._find_first()
        self._last = _ReadableBatch(batch, self._place, first, self._following, self._is_misplaced(batch, first))
        return self._last

    def _find_first(self) -> int:
        """Returns the offset after the batch `_last`, but at least `fetch_offset`."""
        return self._fetch_offset if self._last is None else max(self._fetch_offset, self._last.next_offset)

    def _is_misplaced(self, batch: Any, first: int) -> bool:
        """Returns whether the offsets of `batch` overlap with the batch before it or with the next batch."""
        if self._last is not None and batch.base_offset < first:
            return True
        return self._following is not None and bool(first < self._following.base_offset < batch.next_offset)

    def _read(self) -> Any | None:
        if self._error is not None:
            return None
        try:
            batch = self._batches.next_batch()
            if batch is not None:
                # A damaged byte can make a batch look like a batch of the oldest format. In aiokafka, such a batch lacks these attributes,
                # so this line raises an error.
                _ = batch.base_offset, batch.next_offset
        except Exception as error:  # noqa: BLE001  damaged bytes can cause any error in a decoder
            self._error = error
            return None
        return batch

    def size_in_bytes(self) -> int:
        return int(self._batches.size_in_bytes())
