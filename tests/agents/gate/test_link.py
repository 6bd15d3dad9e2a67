"""The gate link over a real pseudo-terminal: bad wires, pulled cables, reset boards, killed hosts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agents.gate.events import GateEvent, GateState, PartCounted, PartSorted, Told
from agents.gate.lane import GateLane
from agents.gate.link import GateLink, LinkSettings
from firmware.board.lane_settings import LaneSettings
from streams.errors import GateError
from tests.agents.gate.wired import SETTINGS, Ear, WiredLine, until

WORKING = (GateState.RUNNING, GateState.SAFE, GateState.STOPPED)


@contextmanager
def linked(port: Path, ear: Ear, settings: LaneSettings = SETTINGS) -> Iterator[GateLane]:
    link = GateLink(LinkSettings(str(port)))
    lane = link.serve("line-1", ear, settings)
    link.start()
    try:
        yield lane
    finally:
        link.stop()


class Sorting(Ear):
    """Tells every third part to be diverted, at once, and acknowledges what is reported."""

    def __init__(self) -> None:
        super().__init__(self.work)
        self.link: GateLane | None = None
        self.answers: dict[tuple[int, int], Future[Told]] = {}

    def work(self, event: GateEvent) -> None:
        if self.link is None:
            return
        if isinstance(event, PartCounted):
            deadline = event.counted_at + timedelta(seconds=0.57)
            self.answers[event.run, event.part] = self.link.tell(event.run, event.part, wanted(event.part), deadline)
        elif isinstance(event, PartSorted):
            self.link.acknowledge(event.event, event.run)


def wanted(part: int) -> str:
    return "divert" if part % 3 == 0 else "keep"


@pytest.fixture
def port(tmp_path: Path) -> Path:
    return tmp_path / "line-1"


def check(line: WiredLine, ear: Sorting) -> None:
    """Each casting fell as reported, and as told wherever the board had been told; no movement is unaccounted for."""
    reports = {event.part: event for event in ear.sorted}
    assert len(reports) == len(ear.sorted), "a part was reported twice"
    for fallen in line.fallen:
        report = reports[fallen.counted]
        assert {"divert": "diverted", "pass": "passed"}[report.action] == fallen.side
        if report.reason == "verdict":
            assert report.action == ("divert" if wanted(report.part) == "divert" else "pass")
        else:
            assert report.action == "divert"
        assert not fallen.struck
    assert sum(report.moved for report in ear.sorted) == line.swings


@pytest.mark.parametrize("harm", [0.0, 0.003, 0.01])
def test_every_part_is_sorted_once_over_a_bad_wire(port: Path, harm: float) -> None:
    ear, parts = Sorting(), 25
    with WiredLine(port, rate_per_s=9 if harm == 0 else 5, parts=parts) as line, linked(port, ear) as link:
        ear.link = link
        until(lambda: link.state in WORKING)
        line.harm = harm
        until(lambda: len(ear.sorted) == parts, 40)
        until(lambda: not line.line.board.events.pending, 40)
        until(lambda: len(line.fallen) == parts)
    check(line, ear)
    assert len(ear.counted) == parts or harm > 0
    told = [report for report in ear.sorted if report.reason == "verdict"]
    # One byte in a hundred damaged is every third frame: some verdicts come too late, and those parts are diverted.
    assert len(told) == parts if harm == 0 else len(told) >= parts // 3


def test_board_time_becomes_host_time(port: Path) -> None:
    ear = Sorting()
    with WiredLine(port, parts=6) as line, linked(port, ear) as link:
        ear.link = link
        until(lambda: len(ear.sorted) == 6)
        began = datetime.now(UTC) - timedelta(seconds=time.monotonic() - line._began)
    for event in ear.sorted:
        assert event.counted_at is not None
        assert abs((event.at_gate_at - event.counted_at).total_seconds() - 0.6) < 0.02
    counted = {event.part: event.counted_at for event in ear.counted}
    for fallen in line.fallen:
        # From photo-eye 1 to the end of the part at the blade.
        truth = began + timedelta(microseconds=fallen.at_us) - timedelta(seconds=0.682)
        assert abs((counted[fallen.counted] - truth).total_seconds()) < 0.05
    assert all(0 <= event.age_s < 1 for event in ear.counted)


def test_the_clock_may_wrap_while_parts_are_on_the_way(port: Path) -> None:
    ear = Sorting()
    with WiredLine(port, parts=12, clock_ms=2**32 - 2500) as line, linked(port, ear) as link:
        ear.link = link
        until(lambda: len(ear.sorted) == 12)
    assert line.line.board.wire_ms(line.line.now_us) < 60_000, "the clock did not wrap"
    gaps = [(after.at_gate_at - before.at_gate_at).total_seconds() for before, after in zip(ear.sorted, ear.sorted[1:], strict=False)]
    assert all(0 < gap < 1 for gap in gaps)
    assert {event.reason for event in ear.sorted} == {"verdict"}


def test_a_port_that_is_not_there_yet_is_opened_when_it_comes(port: Path) -> None:
    line = WiredLine(port)
    with linked(port, Sorting()) as link:
        time.sleep(0.5)
        assert link.state is GateState.AWAY
        with line:
            until(lambda: link.state in WORKING)
        until(lambda: link.state is GateState.AWAY)


def test_a_pulled_cable_loses_no_report_and_moves_nothing_twice(port: Path) -> None:
    ear, parts = Sorting(), 30
    with WiredLine(port, rate_per_s=9, parts=parts) as line, linked(port, ear) as link:
        ear.link = link
        until(lambda: len(ear.sorted) >= 5)
        line.pull()
        until(lambda: link.state is GateState.AWAY)
        time.sleep(0.7)
        line.plug()
        until(lambda: link.state in WORKING)
        until(lambda: len(ear.sorted) == parts, 40)
        until(lambda: len(line.fallen) == parts)
    check(line, ear)
    assert len(ear.runs) == 1, "the board was not reset"


def test_a_reset_board_begins_a_run_and_refuses_what_was_told_to_the_old_one(port: Path) -> None:
    ear = Sorting()
    with WiredLine(port) as line, linked(port, ear) as link:
        ear.link = link
        until(lambda: len(ear.sorted) >= 3)
        line.reset("watchdog")
        until(lambda: len(ear.runs) == 2)
        late = link.tell(1, 3, "keep", datetime.now(UTC) + timedelta(seconds=5))
        with pytest.raises(GateError, match="unknown-run") as refused:
            late.result(10)
        assert refused.value.code == 21
        until(lambda: any(event.run == 2 for event in ear.sorted))
    assert [(begun.run, begun.cause) for begun in ear.runs] == [(1, "power"), (2, "watchdog")]
    assert {(fault.code, fault.raised) for fault in ear.faults} >= {(46, True), (46, False)}


def test_a_new_host_hears_what_the_killed_one_had_not_acknowledged(port: Path) -> None:
    first, second = Ear(), Sorting()
    with WiredLine(port, parts=8) as line:
        with linked(port, first):
            until(lambda: len(first.sorted) >= 3)
        with linked(port, second) as link:
            second.link = link
            until(lambda: len(second.sorted) == 8)
            until(lambda: not line.line.board.events.pending)
    assert [event.part for event in second.sorted][:3] == [1, 2, 3]
    assert len({event.event for event in second.sorted}) == 8


def test_a_report_is_handed_on_once_however_often_the_board_repeats_it(port: Path) -> None:
    ear = Ear()
    with WiredLine(port, parts=2) as line, linked(port, ear) as link:
        until(lambda: len(ear.sorted) == 2)
        time.sleep(2.2)
        assert len(ear.sorted) == 2
        assert line.line.board.events.pending >= 2
        for event in ear.sorted:
            link.acknowledge(event.event, event.run)
        until(lambda: not any(kept.name == "GATE" and not kept.done for kept in line.line.board.events._kept))


def test_a_verdict_waits_for_a_link_that_is_away_until_its_deadline(port: Path) -> None:
    ear = Sorting()
    with linked(port, ear) as link:
        began = time.monotonic()
        late = link.tell(1, 1, "divert", datetime.now(UTC) + timedelta(seconds=0.5))
        with pytest.raises(GateError, match="not sent") as refused:
            late.result(10)
        assert refused.value.code == 82
        assert 0.4 < time.monotonic() - began < 3


def test_a_verdict_that_is_late_already_is_never_sent(port: Path) -> None:
    ear = Ear()
    with WiredLine(port) as line, linked(port, ear) as link:
        until(lambda: ear.counted)
        part = ear.counted[-1]
        late = link.tell(part.run, part.part, "divert", datetime.now(UTC) - timedelta(seconds=0.01))
        with pytest.raises(GateError) as refused:
            late.result(5)
        assert refused.value.code == 82
        tracked = line.line.board.lanes[0].tracker.find(part.part)
        assert tracked is None or tracked.verdict is None


def test_two_verdicts_for_one_part_do_not_overrule_each_other(port: Path) -> None:
    ear = Ear()
    with WiredLine(port) as line, linked(port, ear) as link:
        until(lambda: ear.counted)
        part, deadline = ear.counted[-1], datetime.now(UTC) + timedelta(seconds=5)
        assert link.tell(part.run, part.part, "keep", deadline).result(5).word == "accepted"
        assert link.tell(part.run, part.part, "keep", deadline).result(5).word == "same"
        with pytest.raises(GateError) as refused:
            link.tell(part.run, part.part, "divert", deadline).result(5)
        assert (refused.value.code, refused.value.retriable) == (23, False)
    assert line.swings == 0 or part.part > 1


def test_a_second_link_cannot_have_the_port(port: Path) -> None:
    with WiredLine(port), linked(port, Ear()) as first:
        until(lambda: first.state in WORKING)
        with linked(port, Ear()) as second:
            time.sleep(1)
            assert second.state is GateState.AWAY
            assert first.state in WORKING


def test_settings_that_the_board_refuses_need_a_person(port: Path) -> None:
    with WiredLine(port), linked(port, Ear(), LaneSettings({"lane_of": 2})) as link:
        until(lambda: link.state is GateState.REFUSED)


def test_a_lane_that_the_board_refuses_harms_no_other(port: Path) -> None:
    ear = Sorting()
    with WiredLine(port, parts=4) as line:
        link = GateLink(LinkSettings(str(port)))
        ear.link = link.serve("line-1", ear, SETTINGS)
        refused = link.serve("line-2", Ear(), LaneSettings({"lane_of": 3}), lane=2)
        link.start()
        until(lambda: len(ear.sorted) == 4)
        assert refused.state is GateState.REFUSED
        assert ear.link.state in WORKING
        with pytest.raises(GateError) as late:
            refused.tell(1, 1, "keep", datetime.now(UTC) + timedelta(seconds=0.3)).result(10)
        assert late.value.code == 82, "what is told to it waits, and is not sent"
        until(lambda: not line.line.board.events.pending)
        link.stop()
    check(line, ear)


def test_what_waits_when_the_link_is_closed_comes_again(port: Path) -> None:
    with linked(port, Ear()) as link:
        waiting = link.tell(1, 1, "keep", datetime.now(UTC) + timedelta(seconds=60))
    with pytest.raises(GateError) as refused:
        waiting.result(1)
    assert (refused.value.code, refused.value.retriable) == (84, True)


def test_a_board_that_lost_its_host_for_a_while_is_greeted_again(port: Path) -> None:
    settings = LaneSettings(SETTINGS.values | {"host_timeout_ms": 500})
    ear = Sorting()
    with WiredLine(port) as line, linked(port, ear, settings) as link:
        ear.link = link
        until(lambda: link.state is GateState.RUNNING)
        line.line.board.lanes[0].raise_fault(40, 500, line.line.now_us)
        until(lambda: any(fault.code == 40 and not fault.raised for fault in ear.faults))
        until(lambda: link.state is GateState.RUNNING)
