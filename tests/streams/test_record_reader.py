"""The bounds of times when the clock of the writer or of the reader is wrong."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from streams.errors import RecordError
from streams.record_reader import is_in_bounds, read_broker_time, read_record, skip_record
from streams.records import Command, make_command
from tests.log_lines import castline_records

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


@pytest.mark.parametrize("time", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_a_command_at_the_end_of_the_calendar_is_no_valid_record(time: datetime) -> None:
    """A sum with such a time overflows."""
    command = make_command("line-1", "status", "anna", 10).model_copy(update={"asked_at": time, "valid_until": time})
    with pytest.raises(RecordError, match="asked_at"):
        read_record(Command, command.encode())


def test_a_command_of_which_only_one_time_has_a_zone_is_no_valid_record() -> None:
    command = json.loads(make_command("line-1", "status", "anna", 10).encode())
    with pytest.raises(RecordError, match="need a time zone"):
        read_record(Command, json.dumps({**command, "asked_at": "2026-11-27T12:00:00"}).encode())


@pytest.mark.parametrize(("error", "count"), [(RecordError("not-a-record", "odd"), 0), (KeyError("odd"), 1)])
def test_a_fault_of_castline_is_logged_with_its_traceback_and_an_invalid_record_is_not(
    caplog: pytest.LogCaptureFixture, error: Exception, count: int
) -> None:
    skip_record("station", SimpleNamespace(topic="castings.verdicts.line-1", partition=0, offset=7), error)
    assert sum(entry.exc_info is not None for entry in castline_records(caplog)) == count
    assert "castings.verdicts.line-1/0@7" in caplog.text
