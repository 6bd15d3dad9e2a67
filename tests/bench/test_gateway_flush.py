"""The bench of the gateway measures rounds with and without the flush in turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.gateway_flush import compare_flush

pytestmark = pytest.mark.real


def test_both_kinds_of_rounds_are_measured_in_turns(tmp_path: Path) -> None:
    reports: list[str] = []
    result = compare_flush(tmp_path, pairs=2, seconds=0.3, connections=4, picture_bytes=10_000, report=reports.append)
    assert result.pairs == len(reports) == 2
    for figures in (result.with_flush, result.without_flush):
        assert figures.pictures_per_s > 0
        assert figures.p99_ms > 0
    assert result.ratio > 0
    assert list(tmp_path.iterdir()) == [], "the spools are deleted"
