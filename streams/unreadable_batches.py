"""Lets Kafka's clients skip batches of records that they cannot decode.

A batch cannot be decoded if it is damaged, for example. Without this module, a client would raise an error, and read the same batch again
for ever. With `ReadableBatches`, the client gets one record in place of such a batch. The value of this record is an `UnreadableBatch`, and
each role refuses the record like any other invalid record.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from streams import metrics
from streams.errors import RecordError
from streams.topics import can_have_gaps

log = logging.getLogger(__name__)

# The reason that a dead letter gives if records could not be decoded. Such a dead letter does not contain these records.
UNREADABLE = "unreadable"


class UnreadableBatch(bytes):
    """The value of a placeholder, which a client gets in place of records that could not be decoded. The value has no bytes.

    `first` and `last` are the first and the last offset of these records. `problem` is the error of the decoder.
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
    """The record that a client gets in place of records that could not be decoded. Has all attributes that Kafka's clients read."""

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
    """A batch of a Kafka client that yields its records. In place of records that cannot be decoded, it yields a placeholder.

    - `first`: the first offset that the client has not read yet.
    - `following`: the next batch, if it is known.
    - `is_misplaced`: True if the offset of the batch is wrong. The checksum of the batch does not show this fault, because the checksum
      does not cover the offset.
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
        """Checks the checksum of the batch, but always returns True, so that the client reads on.

        If the checksum is wrong, the client gets a placeholder instead of the records.
        """
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
        # Do not use the number of records in the batch, because this number may be damaged. Go on at the first offset of the next batch. If
        # the next batch is not known, skip one offset. The client then asks the broker again.
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


class _MissingBatch:
    """Stands for records that are missing in the broker's answer, or for a batch whose header cannot be decoded.

    Has the attributes of a batch that Kafka's clients read. Its iteration raises `error`.
    """

    magic = 0
    producer_id = None
    is_transactional = False
    is_control_batch = False
    max_timestamp = 0

    def __init__(self, base_offset: int, next_offset: int, error: Exception) -> None:
        self.base_offset = base_offset
        self.next_offset = next_offset
        self._error = error

    def validate_crc(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        raise self._error


class ReadableBatches:
    """The batches of a broker's answer for one partition. `batches` are the MemoryRecords of aiokafka or of kafka-python.

    `place` is the partition, and `fetch_offset` the offset for which the client has asked. This offset can be inside a batch.

    If the header of a batch cannot be decoded, the client cannot know where the next batch begins. So it gets a placeholder for the first
    offset of the batch, reads no further batch of the answer, and asks the broker for the records after the placeholder.
    """

    def __init__(self, batches: Any, place: Any, fetch_offset: int) -> None:
        self._batches = batches
        self._place = place
        self._fetch_offset = fetch_offset
        self._has_gaps = can_have_gaps(place.topic)
        self._last: _ReadableBatch | None = None
        # The batches that follow `_last`, at most three. A comparison of their offsets shows which of them has a wrong offset.
        self._ahead: deque[Any] = deque()
        # The error that occurred when the header of a batch could not be decoded. After this error, no further batch is read.
        self._error: Exception | None = None
        self._is_over = False

    def has_next(self) -> bool:
        if self._is_over:
            return False
        return bool(self._ahead) or self._error is not None or bool(self._batches.has_next())

    def next_batch(self) -> Any | None:
        while len(self._ahead) < 3 and (read := self._read()) is not None:
            self._ahead.append(read)
        first = self._find_first()
        if self._ahead:
            is_misplaced = self._is_misplaced(first)
            if not self._has_gaps and not is_misplaced and self._ahead[0].base_offset > first:
                # The broker's answer lacks records. The broker leaves out a batch if the damaged offset of the batch is smaller than the
                # offset for which the client has asked.
                batch = _MissingBatch(first, self._ahead[0].base_offset, ValueError("the broker does not send these records"))
            else:
                batch = self._ahead.popleft()
        elif self._error is not None and not self._is_over:
            self._is_over, is_misplaced = True, False
            batch = _MissingBatch(first, first + 1, self._error)
        else:
            return None
        self._last = _ReadableBatch(batch, self._place, first, self._ahead[0] if self._ahead else None, is_misplaced)
        return self._last

    def _find_first(self) -> int:
        """Returns the offset of the next record to read: the larger of `fetch_offset` and the offset after the batch `_last`."""
        return self._fetch_offset if self._last is None else max(self._fetch_offset, self._last.next_offset)

    def _is_misplaced(self, first: int) -> bool:
        """Returns whether the offset of the next batch is wrong, because it does not fit the batches before and after it.

        `first` is the first offset that the client has not read yet.
        """
        batch, following, after = (*self._ahead, None, None)[:3]
        fits_following = following is not None and bool(batch.next_offset == following.base_offset)
        if self._last is not None:
            if batch.base_offset == first:
                return False
            if batch.base_offset < first:
                return True
            if not self._has_gaps:
                return not fits_following
        if following is None:
            return bool(batch.next_offset <= first)
        # A batch after `batch` must begin after `first`. If `following` does not, the offset of `following` is wrong.
        if following.base_offset <= first:
            return False
        if batch.next_offset <= first:
            return True
        if fits_following or (following.base_offset > batch.next_offset and self._has_gaps):
            return False
        # Either the offset of `batch` or the offset of `following` is wrong. If `following` fits the batch after it, the offset of `batch`
        # is wrong.
        if after is not None and (following.next_offset == after.base_offset or not self._has_gaps):
            return bool(following.next_offset == after.base_offset)
        return bool(batch.base_offset != first)

    def _read(self) -> Any | None:
        if self._error is not None:
            return None
        try:
            batch = self._batches.next_batch()
            if batch is not None:
                # A damaged byte can make the batch look like a batch of Kafka's oldest format. In aiokafka, such a batch lacks these two
                # attributes, and this line raises an error.
                _ = batch.base_offset, batch.next_offset
        except Exception as error:  # noqa: BLE001  damaged bytes can cause any error in a decoder
            self._error = error
            return None
        return batch

    def size_in_bytes(self) -> int:
        return int(self._batches.size_in_bytes())
