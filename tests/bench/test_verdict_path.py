"""The steps of a verdict on its way to the board are computed from the metrics pages of a sorter."""

from __future__ import annotations

import pytest

from bench.verdict_path import StepTimes, read_step_times
from streams.errors import CastlineError

PAGE = """
# TYPE castline_verdict_step_seconds histogram
castline_verdict_step_seconds_bucket{{line="line-1",step="send",le="0.001"}} {0}
castline_verdict_step_seconds_bucket{{line="line-1",step="send",le="0.003"}} {1}
castline_verdict_step_seconds_bucket{{line="line-1",step="send",le="+Inf"}} {2}
castline_verdict_step_seconds_bucket{{line="line-2",step="send",le="0.001"}} {0}
castline_verdict_step_seconds_bucket{{line="line-2",step="send",le="0.003"}} {1}
castline_verdict_step_seconds_bucket{{line="line-2",step="send",le="+Inf"}} {2}
castline_verdict_step_seconds_bucket{{line="line-1",step="board",le="+Inf"}} 7
"""


def test_a_step_is_computed_from_the_verdicts_between_two_metrics_pages() -> None:
    """The first page has slow verdicts, which must not count. Afterwards half of the verdicts take up to 1 ms, and half up to 3 ms."""
    assert read_step_times("send", PAGE.format(0, 0, 50), PAGE.format(50, 100, 150)) == StepTimes(p50_ms=1.0, p99_ms=3.0)


def test_a_step_without_verdicts_is_an_error() -> None:
    with pytest.raises(CastlineError, match="no verdict in the step fetch"):
        read_step_times("fetch", PAGE.format(0, 0, 0), PAGE.format(50, 100, 150))
