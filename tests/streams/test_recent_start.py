"""Where a sorter starts to read: at the recent records, and never far before the end."""

from __future__ import annotations

import pytest

from streams.recent_start import MAX_RECENT, find_first_offset


@pytest.mark.parametrize(
    ("recent", "log_end", "first"),
    [
        (None, 8000, 8000),
        (7990, 8000, 7990),
        # The clock was set back by an hour, so the verdicts of this hour seem to be recent.
        (100, 8000, 8000 - MAX_RECENT),
        (0, 10, 0),
    ],
)
def test_a_sorter_starts_at_the_recent_records_and_reads_a_limited_number(recent: int | None, log_end: int, first: int) -> None:
    assert find_first_offset(recent, log_end) == first
