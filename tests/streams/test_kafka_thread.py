"""A thread that reads from Kafka begins again after a failure, and ends when it is stopped."""

from __future__ import annotations

import threading

import pytest
from kafka.errors import KafkaError

from streams import kafka_thread
from streams.kafka_thread import KafkaThread
from tests.log_lines import castline_records


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
    assert [record.getMessage() for record in castline_records(caplog)] == [
        f"The topic x cannot be read. Reading is tried again. Reason: {error!r}"
    ]
    assert all(other.name != "test" for other in threading.enumerate())


def test_a_failure_that_lasts_is_logged_once_and_again_after_a_change_or_a_success(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_thread, "_RETRY_S", 0.001)
    away, full = ConnectionError("no broker"), OSError("no space")
    outcomes: list[Exception | None] = [away, away, away, full, full, None, full]
    is_done = threading.Event()

    def follow() -> None:
        if not outcomes:
            is_done.set()
            return
        outcome = outcomes.pop(0)
        if outcome is None:
            thread.report_success()
        else:
            raise outcome

    thread = KafkaThread("test", follow, "The topic x cannot be read.")
    thread.start()
    assert is_done.wait(30)
    thread.stop()
    reasons = [record.getMessage().partition("Reason: ")[2] for record in castline_records(caplog)]
    assert reasons == [repr(away), repr(full), repr(full)]
