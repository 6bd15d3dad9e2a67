"""The bounds of times when the clock of the writer or of the reader is wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from streams.record_reader import is_in_bounds, read_broker_time

NOW = datetime.now(UTC)


def test_a_reader_whose_clock_is_days_behind_uses_the_time_of_the_record() -> None:
    behind = NOW - timedelta(days=3)
    assert read_broker_time(NOW.timestamp(), behind) == NOW
    assert is_in_bounds(NOW + timedelta(days=5), read_broker_time((NOW + timedelta(days=3)).timestamp()))


def test_a_record_of_a_writer_whose_clock_is_days_behind_may_name_the_present_time() -> None:
    assert is_in_bounds(NOW, NOW - timedelta(days=3))
    assert not is_in_bounds(NOW + timedelta(days=3), NOW - timedelta(days=3))


def test_a_record_with_an_odd_time_is_read_by_the_clock_of_the_reader() -> None:
    for odd in (None, 0.0, -1e18, 1e18, (NOW + timedelta(days=400)).timestamp()):
        assert read_broker_time(odd, NOW) == NOW
