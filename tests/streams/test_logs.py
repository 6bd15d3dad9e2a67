"""The log filter: repeated messages of Kafka clients are left out, all other messages pass."""

from __future__ import annotations

import logging

from streams.logs import RepeatFilter


def make_record(logger: str, message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord(logger, logging.ERROR, "file.py", 1, message, arguments, None)


def test_a_repeated_message_passes_once_in_an_interval_with_the_number_left_out() -> None:
    now_s = 100.0
    repeats = RepeatFilter(interval_s=10, clock=lambda: now_s)
    message = "Unable connect to node with id %s: %s"
    assert repeats.filter(make_record("aiokafka", message, 1, "refused"))
    assert not any(repeats.filter(make_record("aiokafka", message, node, "refused")) for node in range(40))
    assert repeats.filter(make_record("aiokafka", "Heartbeat failed for group %s", "castings")), "another text is another message"
    assert repeats.filter(make_record("kafka.cluster", message, 1, "refused")), "another logger is another message"
    now_s = 110.0
    again = make_record("aiokafka", message, 7, "refused")
    assert repeats.filter(again)
    assert again.getMessage() == "Unable connect to node with id 7: refused (and 40 times more)"
    now_s = 120.0
    last = make_record("aiokafka", message, 7, "100 % refused")
    assert repeats.filter(last)
    assert last.getMessage() == "Unable connect to node with id 7: 100 % refused"


def test_our_own_messages_always_pass() -> None:
    repeats = RepeatFilter(interval_s=10, clock=lambda: 0.0)
    assert all(repeats.filter(make_record("agents.inspector.inspector", "part %s cannot be judged", part)) for part in range(100))


def test_malformed_requests_cannot_fill_the_log_and_hide_no_error_of_another_kind() -> None:
    repeats = RepeatFilter(interval_s=10, clock=lambda: 0.0)

    def make_error(error: Exception) -> logging.LogRecord:
        record = make_record("aiohttp.server", "Error handling request from %s", "127.0.1.1")
        record.exc_info = (type(error), error, None)
        return record

    assert [repeats.filter(make_error(ValueError(f"a header of {number} bytes"))) for number in range(3)] == [True, False, False]
    assert repeats.filter(make_error(KeyError("a fault of Castline")))
