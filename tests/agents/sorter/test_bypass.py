"""The bypass key of a board is reported to the sorter, and the record of each part names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from agents.gate.lane import GateLane, PartSorted
from agents.gate.link import GateLink, LinkSettings
from agents.sorter.decisions import LaneFaults, make_sorting
from agents.sorter.part_states import PartState
from firmware.lane_settings import LaneSettings
from station.live.line_card import _describe_gate
from streams.records import Sorting
from tests.wired_line import SETTINGS, EventRecorder, WiredLine, wait_until

BYPASS, EYE2_STUCK = 58, 42
WITH_PLANT = LaneSettings(SETTINGS.values | {"use_plant": 1})


@contextmanager
def connect(port: Path, recorder: EventRecorder) -> Iterator[GateLane]:
    link = GateLink(LinkSettings(str(port)))
    lane = link.add_lane("line-1", recorder, WITH_PLANT)
    link.start()
    try:
        yield lane
    finally:
        link.stop()


def record_of(event: PartSorted, fault: int) -> Sorting:
    return make_sorting(event, PartState(), "line-1", "board", fault, datetime.now(UTC))


def test_parts_that_pass_with_the_key_are_recorded_with_the_bypass_as_their_reason(tmp_path: Path) -> None:
    recorder, faults = EventRecorder(), LaneFaults()
    with WiredLine(tmp_path / "port") as line, connect(line.port, recorder):
        wait_until(lambda: recorder.sorted)
        line.turn_bypass_key(True)
        wait_until(lambda: recorder.faults)
        for fault in recorder.faults:
            faults.change(fault.code, fault.raised)
        began = len(recorder.sorted)
        wait_until(lambda: len(recorder.sorted) >= began + 3)
    passed = recorder.sorted[-1]
    record = record_of(passed, faults.explain_safe_action(0))
    assert (record.action, record.reason, record.code) == ("passed", "fault", BYPASS)
    assert "bypass key" in _describe_gate(record)


def test_a_sorter_that_starts_during_the_bypass_learns_of_it(tmp_path: Path) -> None:
    with WiredLine(tmp_path / "port") as line:
        first = EventRecorder()
        with connect(line.port, first) as lane:
            wait_until(lambda: lane.is_configured)
            line.turn_bypass_key(True)
            wait_until(lambda: first.faults)
            lane.acknowledge_event(first.faults[0].event, first.faults[0].run)
            wait_until(lambda: "FAULT" not in line.line.board.events.pending_names)
        with connect(line.port, EventRecorder()) as lane:
            wait_until(lambda: lane.oldest_fault == BYPASS)
            assert LaneFaults().explain_safe_action(lane.oldest_fault) == BYPASS


def test_the_bypass_explains_a_part_before_other_faults() -> None:
    faults = LaneFaults()
    faults.change(BYPASS, True)
    faults.change(EYE2_STUCK, True)
    assert faults.explain_safe_action(0) == BYPASS
    faults.change(BYPASS, False)
    assert faults.explain_safe_action(0) == EYE2_STUCK
    faults.change(EYE2_STUCK, False)
    assert faults.explain_safe_action(0) == EYE2_STUCK, "the part was decided before the fault ended"


def test_after_a_restart_of_the_sorter_a_fault_that_ended_does_not_hide_the_fault_that_the_board_still_has() -> None:
    faults, eye1_stuck = LaneFaults(), 41
    faults.change(45, True)
    faults.change(45, False)
    assert faults.explain_safe_action(eye1_stuck) == eye1_stuck
    assert faults.explain_safe_action(0) == 45, "the part was decided before the fault ended"
