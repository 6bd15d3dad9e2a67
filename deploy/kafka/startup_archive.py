"""Makes the broker's start-up archive, with which Kafka starts in half the time.

To make the archive, a broker runs for a short time, and the Java runtime records the classes that the broker uses.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

from deploy.kafka.broker import EmbeddedBroker
from deploy.kafka.java import archive_path, is_archive_whole, keep_archive
from deploy.supervisor.ports import free_ports
from streams.errors import BrokerError
from streams.kafka import make_client_arguments, open_client
from streams.settings import BrokerSettings, Settings

# Longest time for stopping the broker. When the Java runtime ends, it first writes the start-up archive, which takes long.
_WRITING_S = 180.0


def make_archive() -> Path:
    """Returns the path of the broker's start-up archive. If there is no archive yet, makes one in some seconds.

    Raises BrokerError if the archive cannot be made.
    """
    final = archive_path()
    if is_archive_whole():
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="making-", dir=final.parent) as folder:
            recorded = Path(folder) / "recorded.aot"
            _record(Path(folder) / "kafka", recorded)
            if not recorded.is_file():
                raise BrokerError(f"The Java runtime did not write the broker's start-up archive to {recorded}.")
            keep_archive(recorded)
    except (OSError, KafkaError) as error:
        raise BrokerError(f"Cannot make the broker's start-up archive {final}: {error}.") from error
    return final


def _record(data_dir: Path, archive: Path) -> None:
    settings = Settings(broker=BrokerSettings(port=free_ports(2), data_dir=data_dir))
    broker = EmbeddedBroker(settings, record=archive)
    broker.start()
    try:
        _use(make_client_arguments(settings, "archive"))
    finally:
        broker.stop(_WRITING_S)


def _use(arguments: dict[str, Any]) -> None:
    """Creates a topic, sends a record and reads it, so that the broker loads the Java classes for these steps."""
    admin = open_client(KafkaAdminClient, **arguments)
    admin.create_topics({"castings.used": {"num_partitions": 1}}, wait_for_metadata=True)
    admin.close()
    producer = open_client(KafkaProducer, **arguments)
    producer.send("castings.used", b"once").get(10)
    producer.close()
    reading = {"group_id": "castings-used", "auto_offset_reset": "earliest", "consumer_timeout_ms": 10_000}
    consumer = open_client(KafkaConsumer, "castings.used", **arguments, **reading)
    next(consumer)
    consumer.close()
