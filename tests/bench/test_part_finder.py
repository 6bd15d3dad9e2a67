"""The bench of the part finder measures each step."""

from __future__ import annotations

from bench.part_finder import measure_part_finder


def test_finding_and_checking_are_measured() -> None:
    result = measure_part_finder(None, 12)
    assert (result.pictures, result.found, result.accepted) == (12, 12, 12)
    assert result.find_us > 0
    assert result.check_us > 0
    assert result.decode_us > 0
    assert result.empty_us > 0
