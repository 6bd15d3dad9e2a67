"""A backlog of large records on Kafka, and the memory of the processes that read it."""

from __future__ import annotations

from pathlib import Path

from kafka import KafkaProducer

from streams.settings import Settings
from tests.foreign_batches import keep_compression

MIB = 2**20
RECORDS, RECORD_BYTES = 25, 20 * MIB
BUFFER_BYTES = 64 * MIB
# Each of the four buffers of a worker can hold one record of RECORD_BYTES, because a record may exceed the share of its buffer. A record
# that is being unpacked exists in up to three copies. A record that becomes a dead letter exists in one more copy.
_RECORDS_IN_MEMORY = 8
# The measured growth was at most 159 MiB. This margin allows for free memory that glibc keeps at the ends of its heaps.
_KEPT_BY_GLIBC = 64 * MIB
LARGEST_GROWTH = _RECORDS_IN_MEMORY * RECORD_BYTES + _KEPT_BY_GLIBC


def send_large_records(settings: Settings, topic: str, line: str) -> None:
    """Sends records that are larger than the setting `topics.max_message_bytes`, as they can lie on a topic of an older release.

    If the broker stores compressed records, it limits only their compressed size.
    """
    keep_compression(settings, topic)
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap, compression_type="gzip", max_request_size=2 * RECORD_BYTES)
    for part in range(1, RECORDS + 1):
        producer.send(topic, key=f"{line}:1:{part}".encode(), value=bytes(RECORD_BYTES)).get(30)
    producer.close()


class PeakMemory:
    """Measures how far the largest memory of a process grows after the creation of this object."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._before = self._read()

    def growth(self) -> int:
        """Returns the growth in bytes so far, and prints it."""
        growth = self._read() - self._before
        print(f"the memory of the process grew by {growth / MIB:.0f} MiB")
        return growth

    def _read(self) -> int:
        return next(int(line.split()[1]) * 1024 for line in self._status.read_text().splitlines() if line.startswith("VmHWM:"))
