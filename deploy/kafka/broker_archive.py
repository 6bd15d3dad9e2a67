"""Makes the broker's start-up archive, by a short run of the broker."""

from __future__ import annotations

import tempfile
from pathlib import Path

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

from deploy.kafka.broker import EmbeddedBroker
from deploy.kafka.java import archive_path, is_whole, keep_archive
from deploy.supervisor.ports import free_ports
from streams.errors import BrokerError
from streams.settings import BrokerSettings, Settings

_WRITING_S = 180.0  # the runtime writes the archive while it ends


def make_archive() -> Path:
    """Where this machine's archive is; made unless it is there, which takes some seconds.

    Raises BrokerError: when it cannot be made. A broker then starts without.
    """
    final = archive_path()
    if is_whole(final):
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="making-", dir=final.parent) as folder:
            recorded = Path(folder) / "recorded.aot"
            _record(Path(folder) / "kafka", recorded)
            if not recorded.is_file():
                raise BrokerError(f"expected the Java runtime to write the broker's start-up archive {recorded}, it did not")
            keep_archive(recorded)
    except (OSError, KafkaError) as error:
        raise BrokerError(f"the broker's start-up archive {final} cannot be made: {error}") from error
    return final


def _record(data_dir: Path, archive: Path) -> None:
    settings = Settings(broker=BrokerSettings(port=free_ports(2), data_dir=data_dir))
    broker = EmbeddedBroker(settings, record=archive)
    broker.start()
    try:
        _use(broker.address)
    finally:
        broker.stop(_WRITING_S)


def _use(address: str) -> None:
    """What every plant does at its start: whatever ran is in the archive."""
    admin = KafkaAdminClient(bootstrap_servers=address)
    admin.create_topics({"used": {"num_partitions": 1}}, wait_for_metadata=True)
    admin.close()
    producer = KafkaProducer(bootstrap_servers=address)
    producer.send("used", b"once").get(10)
    producer.close()
    consumer = KafkaConsumer("used", bootstrap_servers=address, group_id="used", auto_offset_reset="earliest", consumer_timeout_ms=10_000)
    next(consumer)
    consumer.close()
