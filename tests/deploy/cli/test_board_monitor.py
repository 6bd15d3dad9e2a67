"""The live view of `castline board monitor` fits the terminal."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from deploy.cli.board_monitor import render_monitor
from streams.records import CommandAnswer

ANSWER = CommandAnswer(
    outcome="done",
    message="The gate of line-1 is safe.",
    values={
        "line": {"state": "safe", "code": 45, "lamp": "red", "tracked": 0},
        "eyes": {"eye1": 0, "eye2": 1, "position_steps": 123456},
        "count": {"parts": 100, "diverted": 7, "passed": 93, "missing": 0, "unmatched": 0, "no_verdict": 0},
    },
    recent_parts=tuple(f"12:00:{second:02} part {second}: pass (verdict)" for second in range(59, 39, -1)),
    recent_faults=("12:01:00 fault 45 (emergency-stop) began, detail 0",),
    answered_at=datetime.now(UTC),
)


@pytest.mark.parametrize(("columns", "rows"), [(40, 14), (80, 24), (200, 60)])
def test_every_line_fits_and_the_newest_castings_come_first(columns: int, rows: int) -> None:
    lines = render_monitor(ANSWER, columns, rows)
    assert len(lines) <= rows
    assert max(len(line) for line in lines) <= columns
    text = "\n".join(lines)
    for shown in ("eye 1 free", "eye 2 BLOCKED", "position steps 123456", "fault 45 (emergency-stop)", "part 59: pass", "no verdict 0"):
        assert shown in text
    assert "part 40: pass" in text or rows < 60
