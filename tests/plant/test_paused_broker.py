"""No delivery ends while the broker is paused, because silence is no confirmation."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from streams.group_members import make_identity
from streams.record_producer import ProducerRecord, RecordProducer
from streams.settings import Settings
from streams.topics import TopicNames
from streams.worker import make_app
from tests.conftest import MakeSettings
from tests.image_topics import read_topic


@contextmanager
def paused_broker(settings: Settings) -> Iterator[None]:
    """Stops the process of the broker with SIGSTOP for the time of a `with` block."""
    port = int(settings.bootstrap.rpartition(":")[2])
    pid = next(found.pid for found in psutil.net_connections("tcp") if found.status == "LISTEN" and list(found.laddr)[1:] == [port])
    broker = psutil.Process(pid)
    broker.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        broker.send_signal(signal.SIGCONT)


@pytest.mark.asyncio
async def test_a_delivery_ends_only_when_the_broker_answers(make_settings: MakeSettings) -> None:
    settings = make_settings()
    topic = TopicNames(settings.topics.prefix).verdicts("line-1")
    app = make_app(settings, make_identity(settings, "inspector", "inspector-1"), 64)
    producer = RecordProducer(app, settings, "inspector", lambda _: None)
    # The first delivery opens the connections.
    await producer.deliver([ProducerRecord(topic, b"part", b"1")])
    with paused_broker(settings):
        delivery = asyncio.create_task(producer.deliver([ProducerRecord(topic, b"part", b"2")]))
        done, _ = await asyncio.wait([delivery], timeout=1)
        assert not done, "the record is written to the connection, but the broker has not taken it"
    assert await asyncio.wait_for(delivery, 30) == []
    await app.producer.stop()
    assert read_topic(settings, topic).values == [b"1", b"2"]
