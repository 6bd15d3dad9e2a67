"""The log filter: repeated messages of Kafka clients are left out, all other messages pass."""

from __future__ import annotations

import logging

from streams.logs import RepeatFilter, SecretFilter


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


def test_strangers_cannot_fill_the_log_of_the_station_and_hide_no_other_refusal() -> None:
    repeats = RepeatFilter(interval_s=10, clock=lambda: 0.0)

    def make_refusal(number: int, status: int) -> logging.LogRecord:
        record = make_record("django.request", "%s: %s", "Not Found", f"/unknown/{number}")
        record.status_code = status
        return record

    assert [repeats.filter(make_refusal(number, 404)) for number in range(3)] == [True, False, False]
    assert repeats.filter(make_refusal(0, 403))
    hosts = [make_record("django.security.DisallowedHost", f"Invalid HTTP_HOST header: 'host-{number}'") for number in range(3)]
    assert [repeats.filter(record) for record in hosts] == [True, False, False]
    assert repeats.filter(make_record("django.security.SuspiciousOperation", "Invalid session"))
    malformed = [make_record("uvicorn.error", "Invalid HTTP request received.") for _ in range(3)]
    assert [repeats.filter(record) for record in malformed] == [True, False, False]


def test_a_long_message_of_a_library_and_a_long_line_of_a_traceback_are_cut_off() -> None:
    try:
        raise ValueError("x" * 15_000)
    except ValueError as error:
        record = make_record("django.request", "%s: %s", "Not Found", "/" + "x" * 15_000)
        record.exc_info = (ValueError, error, error.__traceback__)
    assert SecretFilter().filter(record)
    assert record.getMessage().endswith("characters more)")
    assert len(record.getMessage()) < 1100
    assert record.exc_text is not None
    assert len(record.exc_text) < 2000
    assert "ValueError: xxx" in record.exc_text


def test_malformed_requests_cannot_fill_the_log_and_hide_no_error_of_another_kind() -> None:
    repeats = RepeatFilter(interval_s=10, clock=lambda: 0.0)

    def make_error(error: Exception) -> logging.LogRecord:
        record = make_record("aiohttp.server", "Error handling request from %s", "127.0.1.1")
        record.exc_info = (type(error), error, None)
        return record

    assert [repeats.filter(make_error(ValueError(f"a header of {number} bytes"))) for number in range(3)] == [True, False, False]
    assert repeats.filter(make_error(KeyError("a fault of Castline")))
