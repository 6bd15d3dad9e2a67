"""What a role's log leaves out and what it never does."""

from __future__ import annotations

import logging

from streams.logs import RepeatFilter


def line(logger: str, words: str, *filled_in: object) -> logging.LogRecord:
    return logging.LogRecord(logger, logging.ERROR, "file.py", 1, words, filled_in, None)


def test_a_client_that_repeats_itself_is_told_once_in_a_while_and_counted() -> None:
    now_s = 100.0
    repeats = RepeatFilter(interval_s=10, clock=lambda: now_s)
    words = "Unable connect to node with id %s: %s"
    assert repeats.filter(line("aiokafka", words, 1, "refused"))
    assert not any(repeats.filter(line("aiokafka", words, node, "refused")) for node in range(40))
    assert repeats.filter(line("aiokafka", "Heartbeat failed for group %s", "castings")), "other words are another matter"
    assert repeats.filter(line("kafka.cluster", words, 1, "refused")), "and so is another place"
    now_s = 110.0
    again = line("aiokafka", words, 7, "refused")
    assert repeats.filter(again)
    assert again.getMessage() == "Unable connect to node with id 7: refused (and 40 times more)"
    now_s = 120.0
    last = line("aiokafka", words, 7, "100 % refused")
    assert repeats.filter(last)
    assert last.getMessage() == "Unable connect to node with id 7: 100 % refused"


def test_our_own_lines_are_never_left_out() -> None:
    repeats = RepeatFilter(interval_s=10, clock=lambda: 0.0)
    assert all(repeats.filter(line("agents.inspector.inspector", "part %s cannot be judged", part)) for part in range(100))
