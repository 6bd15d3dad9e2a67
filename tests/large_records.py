"""A backlog of large records on Kafka, and the memory of the processes that read it."""

from __future__ import annotations

from pathlib import Path

from kafka import KafkaProducer

from streams.settings import Settings
from tests.foreign_batches import keep_compression

MIB = 2**20
RECORDS, RECORD_BYTES = 25, 20 * MIB
BUFFER_BYTES = 64 * MIB
# The four buffers of a worker share BUFFER_BYTES. A record of RECORD_BYTES is larger than the share of a buffer, but an empty buffer
# accepts it. So the four buffers hold four records. A record that is being unpacked exists in up to three more copies, and a record that
# becomes a dead letter in one more. Together, these are eight records.
_RECORDS_IN_MEMORY = 8
# glibc can keep up to 32 MiB of free memory at the end of each heap. This margin allows for two such heaps.
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
