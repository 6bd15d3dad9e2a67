"""A thread that reads from Kafka begins again after a failure, and ends when it is stopped."""

from __future__ import annotations

import threading

import pytest
from kafka.errors import KafkaError

from streams.kafka_thread import KafkaThread


@pytest.mark.parametrize("error", [KafkaError("no broker"), ConnectionError("no broker")], ids=["kafka", "network"])
def test_each_failure_is_logged_and_reading_begins_again(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    calls, reads_again = 0, threading.Event()

    def follow() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise error
        reads_again.set()
        while not thread.is_stopping:
            threading.Event().wait(0.01)

    thread = KafkaThread("test", follow, "The topic x cannot be read.")
    thread.start()
    assert reads_again.wait(30)
    thread.stop()
    assert calls == 2
    assert [record.getMessage() for record in caplog.records] == [f"The topic x cannot be read. Reading is tried again. Reason: {error!r}"]
    assert all(other.name != "test" for other in threading.enumerate())
