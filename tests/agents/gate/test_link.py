"""The gate link over a real pseudo-terminal: bad wires, pulled cables, reset boards and killed hosts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY

from agents.gate.lane import GateEvent, GateLane, GateState, PartCounted, PartSorted
from agents.gate.link import BoardSession, GateLink, LinkSettings
from agents.gate.port import PORT_ERRORS, SerialPort, describe_port_error
from agents.gate.requests import BoardResponse
from agents.sorter.part_states import PartStates
from firmware.fault_table import code_of
from firmware.lane_settings import LaneSettings
from streams import supervision
from streams.errors import GateError
from tests.wired_line import SETTINGS, EventRecorder, WiredLine, wait_until

pytestmark = pytest.mark.real

WORKING = (GateState.RUNNING, GateState.SAFE, GateState.STOPPED)


@contextmanager
def connect(port: Path, recorder: EventRecorder, settings: LaneSettings = SETTINGS) -> Iterator[GateLane]:
    link = GateLink(LinkSettings(str(port)))
    lane = link.add_lane("line-1", recorder, settings)
    link.start()
    try:
        yield lane
    finally:
        link.stop()


class SmallSorter(EventRecorder):
    """A small sorter: it diverts every third part, sends each verdict when the part is counted, and acknowledges every report."""

    def __init__(self) -> None:
        super().__init__(self.handle)
        self.lane: GateLane | None = None
        self.responses: dict[tuple[int, int], Future[BoardResponse]] = {}

    def handle(self, event: GateEvent) -> None:
        if self.lane is None:
            return
        if isinstance(event, PartCounted):
            assert event.counted_s is not None
            deadline_s = event.counted_s + 0.57
            self.responses[event.run, event.part] = self.lane.send_verdict(event.run, event.part, verdict_of(event.part), deadline_s)
        elif isinstance(event, PartSorted):
            self.lane.acknowledge_event(event.event, event.run)


def verdict_of(part: int) -> str:
    return "divert" if part % 3 == 0 else "keep"


def in_seconds(seconds: float) -> float:
    return time.monotonic() + seconds


@pytest.fixture
def port(tmp_path: Path) -> Path:
    return tmp_path / "line-1"


def check_sorting(line: WiredLine, sorter: SmallSorter) -> None:
    """Checks that each casting fell as reported, by its verdict if there was one, and that every movement is reported."""
    reports = {event.part: event for event in sorter.sorted}
    assert len(reports) == len(sorter.sorted), "a part was reported twice"
    for casting in line.exits:
        report = reports[casting.counted]
        assert {"divert": "diverted", "pass": "passed"}[report.action] == casting.side
        if report.reason == "verdict":
            assert report.action == ("divert" if verdict_of(report.part) == "divert" else "pass")
        else:
            assert report.action == "divert"
        assert not casting.struck
    assert sum(report.moved for report in sorter.sorted) == line.swings


@pytest.mark.parametrize("error_rate", [0.0, 0.003, 0.01])
def test_every_part_is_sorted_once_over_a_bad_wire(port: Path, error_rate: float) -> None:
    sorter, parts = SmallSorter(), 25
    with WiredLine(port, rate_per_s=9 if error_rate == 0 else 5, parts=parts) as line, connect(port, sorter) as lane:
        sorter.lane = lane
        wait_until(lambda: lane.state in WORKING)
        line.error_rate = error_rate
        wait_until(lambda: len(sorter.sorted) == parts, 40)
        wait_until(lambda: not line.line.board.events.pending, 40)
        wait_until(lambda: len(line.exits) == parts)
    check_sorting(line, sorter)
    assert len(sorter.counted) == parts or error_rate > 0
    by_verdict = [report for report in sorter.sorted if report.reason == "verdict"]
    # With one damaged byte in a hundred, every third frame is damaged: some verdicts are too late, and those parts are diverted.
    assert len(by_verdict) == parts if error_rate == 0 else len(by_verdict) >= parts // 3


def test_board_time_becomes_host_time(port: Path) -> None:
    sorter = SmallSorter()
    with WiredLine(port, parts=6) as line, connect(port, sorter) as lane:
        sorter.lane = lane
        wait_until(lambda: len(sorter.sorted) == 6)
        reset_at = datetime.now(UTC) - timedelta(seconds=time.monotonic() - line.reset_s)
    for event in sorter.sorted:
        assert event.counted_at is not None
        assert abs((event.at_gate_at - event.counted_at).total_seconds() - 0.6) < 0.02
    counted = {event.part: event.counted_at for event in sorter.counted}
    for casting in line.exits:
        # A part needs 0.682 s from photo-eye 1 until its end has passed the blade.
        expected = reset_at + timedelta(microseconds=casting.at_us) - timedelta(seconds=0.682)
        assert abs((counted[casting.counted] - expected).total_seconds()) < 0.05
    # The error can be half a round trip, so an age can be a little below 0.
    assert all(abs(event.age_s) < 0.5 for event in sorter.counted), [(event.run, event.age_s) for event in sorter.counted]


def test_the_clock_may_wrap_while_parts_are_on_the_belt(port: Path) -> None:
    sorter = SmallSorter()
    with WiredLine(port, parts=12, clock_ms=2**32 - 2500) as line, connect(port, sorter) as lane:
        sorter.lane = lane
        wait_until(lambda: len(sorter.sorted) == 12)
    assert line.line.board.wire_ms(line.line.now_us) < 60_000, "the clock did not wrap"
    gaps = [(after.at_gate_at - before.at_gate_at).total_seconds() for before, after in zip(sorter.sorted, sorter.sorted[1:], strict=False)]
    assert all(0 < gap < 1 for gap in gaps)
    assert {event.reason for event in sorter.sorted} == {"verdict"}


def test_a_port_that_appears_later_is_opened(port: Path) -> None:
    line = WiredLine(port)
    with connect(port, SmallSorter()) as lane:
        time.sleep(0.5)
        assert lane.state is GateState.AWAY
        with line:
            wait_until(lambda: lane.state in WORKING)
        wait_until(lambda: lane.state is GateState.AWAY)


def test_a_pulled_cable_loses_no_report_and_moves_no_gate_twice(port: Path) -> None:
    sorter, parts = SmallSorter(), 30
    with WiredLine(port, rate_per_s=9, parts=parts) as line, connect(port, sorter) as lane:
        sorter.lane = lane
        wait_until(lambda: len(sorter.sorted) >= 5)
        line.pull()
        wait_until(lambda: lane.state is GateState.AWAY)
        time.sleep(0.7)
        line.plug()
        wait_until(lambda: lane.state in WORKING)
        wait_until(lambda: len(sorter.sorted) == parts, 40)
        wait_until(lambda: len(line.exits) == parts)
    check_sorting(line, sorter)
    assert len(sorter.runs) == 1, "the board was not reset"


def test_a_reset_board_begins_a_run_and_verdicts_of_the_old_run_are_refused(port: Path) -> None:
    sorter = SmallSorter()
    with WiredLine(port) as line, connect(port, sorter) as lane:
        sorter.lane = lane
        wait_until(lambda: len(sorter.sorted) >= 3)
        line.reset("watchdog")
        wait_until(lambda: len(sorter.runs) == 2)
        with pytest.raises(GateError, match="unknown-run") as refused:
            lane.send_verdict(1, 3, "keep", in_seconds(5)).result(10)
        assert refused.value.code == 21
        wait_until(lambda: any(event.run == 2 for event in sorter.sorted))
    assert [(begun.run, begun.cause) for begun in sorter.runs] == [(1, "power"), (2, "watchdog")]
    assert {(fault.code, fault.raised) for fault in sorter.faults} >= {(46, True), (46, False)}


def test_the_times_of_a_reset_board_come_from_its_new_clock(port: Path) -> None:
    sorter = SmallSorter()
    with WiredLine(port) as line, connect(port, sorter):
        wait_until(lambda: len(sorter.counted) >= 3)
        # The answers after the reset take longer than those before it. A mixture of both would prefer the old clock.
        line.pause_s = 0.03
        line.reset()
        wait_until(lambda: any(event.run == 2 for event in sorter.counted))
    # The error can be half a round trip, so an age can be a little below 0.
    assert all(abs(event.age_s) < 0.5 for event in sorter.counted), [(event.run, event.age_s) for event in sorter.counted]


def test_a_board_that_is_reset_while_it_is_greeted_gives_no_event_a_time_of_its_new_clock(port: Path) -> None:
    recorder = EventRecorder()
    with WiredLine(port, clock_ms=60_000) as line, connect(port, recorder) as lane:
        wait_until(lambda: recorder.sorted)

        def reset_once(run: int, counted: int) -> int:
            if line.lost_word is None:
                line.lost_word = b"BOOT"
                line.reset()
            return run

        line.pull()
        time.sleep(2)  # The board counts and sorts more castings.
        lane.choose_run = reset_once
        line.plug()
        wait_until(lambda: any(event.run == 2 for event in recorder.counted))
    # Before the reset, the board had counted these parts and had sorted some of them.
    counted_s = [event.counted_s for event in recorder.counted if event.run == 1]
    counted_s += [event.counted_s for event in recorder.sorted if event.run == 1]
    assert all(at_s is not None and at_s < line.reset_s for at_s in counted_s), (counted_s, line.reset_s)


def test_a_new_board_with_the_run_number_of_the_old_one_has_its_own_clock_and_events(port: Path) -> None:
    """Two boards that are fresh from the factory both begin with run 1. If no part was counted, the host keeps this number."""
    sorter = SmallSorter()
    with WiredLine(port, parts=0) as line, connect(port, sorter) as lane:
        wait_until(lambda: lane.state in WORKING)
        time.sleep(1.5)
        line.pause_s = 0.03
        line.exchange(parts=3)
        wait_until(lambda: len(sorter.sorted) == 3)
    assert [begun.run for begun in sorter.runs] == [1, 1]
    assert [event.part for event in sorter.counted] == [1, 2, 3]
    assert all(abs(event.age_s) < 0.5 for event in sorter.counted), [(event.part, event.age_s) for event in sorter.counted]


@pytest.mark.real
def test_a_new_board_is_recognised_although_it_does_not_tell_its_time_for_two_greetings(port: Path) -> None:
    sorter = SmallSorter()
    with WiredLine(port, parts=0, clock_ms=60_000) as line, connect(port, sorter) as lane:
        wait_until(lambda: lane.state in WORKING)
        line.lost_word = b"SYNC"
        line.exchange(parts=3)
        time.sleep(11)  # Eight SYNC commands of a second each remain without an answer, and the board is greeted again.
        line.lost_word = None
        wait_until(lambda: len(sorter.sorted) == 3, 30)
    assert [begun.run for begun in sorter.runs] == [1, 1]
    assert [event.part for event in sorter.counted] == [1, 2, 3]


def test_an_exchanged_board_gets_a_run_above_every_run_of_its_line(port: Path) -> None:
    sorter, parts = SmallSorter(), 3
    states = PartStates()
    states.set_counted(12, 4, datetime.now(UTC))
    with WiredLine(port, parts=parts) as line, connect(port, sorter) as lane:
        lane.choose_run = states.unused_run
        sorter.lane = lane
        wait_until(lambda: len(sorter.sorted) == parts)
        assert line.line.board.memory.run == 13
    assert [begun.run for begun in sorter.runs] == [13]
    assert {event.run for event in sorter.counted} == {event.run for event in sorter.sorted} == {13}
    assert {event.reason for event in sorter.sorted} == {"verdict"}


def test_a_new_host_receives_the_events_that_the_killed_host_had_not_acknowledged(port: Path) -> None:
    first, second = EventRecorder(), SmallSorter()
    with WiredLine(port, parts=8) as line:
        with connect(port, first):
            wait_until(lambda: len(first.sorted) >= 3)
        with connect(port, second) as lane:
            second.lane = lane
            wait_until(lambda: len(second.sorted) == 8)
            wait_until(lambda: not line.line.board.events.pending)
    assert [event.part for event in second.sorted][:3] == [1, 2, 3]
    assert len({event.event for event in second.sorted}) == 8


def test_an_event_is_passed_on_once_however_often_the_board_repeats_it(port: Path) -> None:
    recorder = EventRecorder()
    with WiredLine(port, parts=2) as line, connect(port, recorder) as lane:
        wait_until(lambda: len(recorder.sorted) == 2)
        time.sleep(2.2)
        assert len(recorder.sorted) == 2
        assert line.line.board.events.pending >= 2
        for event in recorder.sorted:
            lane.acknowledge_event(event.event, event.run)
        wait_until(lambda: "GATE" not in line.line.board.events.pending_names)


def test_a_verdict_waits_for_an_absent_link_until_its_deadline(port: Path) -> None:
    with connect(port, SmallSorter()) as lane:
        began_s = time.monotonic()
        with pytest.raises(GateError, match="not sent") as refused:
            lane.send_verdict(1, 1, "divert", in_seconds(0.5)).result(10)
        assert refused.value.code == 82
        assert 0.4 < time.monotonic() - began_s < 3


def test_a_verdict_that_is_already_late_is_never_sent(port: Path) -> None:
    recorder = EventRecorder()
    with WiredLine(port) as line, connect(port, recorder) as lane:
        wait_until(lambda: recorder.counted)
        part = recorder.counted[-1]
        with pytest.raises(GateError) as refused:
            lane.send_verdict(part.run, part.part, "divert", in_seconds(-0.01)).result(5)
        assert refused.value.code == 82
        tracked = line.line.board.lanes[0].tracker.find(part.part)
        assert tracked is None or tracked.verdict is None


def test_the_first_of_two_contradicting_verdicts_stays_in_force(port: Path) -> None:
    recorder = EventRecorder()
    with WiredLine(port) as line, connect(port, recorder) as lane:
        wait_until(lambda: recorder.counted)
        part, deadline = recorder.counted[-1], in_seconds(5)
        answers = [lane.send_verdict(part.run, part.part, "keep", deadline).result(5).fields["told"] for _ in range(2)]
        assert answers == ["accepted", "same"]
        with pytest.raises(GateError) as refused:
            lane.send_verdict(part.run, part.part, "divert", deadline).result(5)
        assert (refused.value.code, refused.value.retriable) == (23, False)
    assert line.swings == 0 or part.part > 1


def test_a_second_link_cannot_open_the_port(port: Path) -> None:
    with WiredLine(port), connect(port, EventRecorder()) as first:
        wait_until(lambda: first.state in WORKING)
        with connect(port, EventRecorder()) as second:
            time.sleep(1)
            assert second.state is GateState.AWAY
            assert first.state in WORKING


def test_settings_that_the_board_refuses_need_a_person(port: Path) -> None:
    with WiredLine(port), connect(port, EventRecorder(), LaneSettings({"lane_of": 2})) as lane:
        wait_until(lambda: lane.state is GateState.REFUSED)


def test_a_lane_that_the_board_refuses_does_not_disturb_another_lane(port: Path) -> None:
    sorter = SmallSorter()
    with WiredLine(port, parts=4) as line:
        link = GateLink(LinkSettings(str(port)))
        sorter.lane = link.add_lane("line-1", sorter, SETTINGS)
        refused_lane = link.add_lane("line-2", EventRecorder(), LaneSettings({"lane_of": 3}), lane=2)
        link.start()
        wait_until(lambda: len(sorter.sorted) == 4)
        wait_until(lambda: refused_lane.state is GateState.REFUSED)
        assert sorter.lane.state in WORKING
        with pytest.raises(GateError) as late:
            refused_lane.send_verdict(1, 1, "keep", in_seconds(0.3)).result(10)
        assert late.value.code == 82, "a verdict for a refused lane waits and is not sent"
        wait_until(lambda: not line.line.board.events.pending)
        link.stop()
    check_sorting(line, sorter)


def test_a_lane_that_keeps_its_settings_after_a_refusal_gets_verdicts_while_castings_are_on_the_belt(port: Path) -> None:
    with WiredLine(port), connect(port, EventRecorder()) as lane:
        wait_until(lambda: lane.is_configured)
        lane.change_settings({1: LaneSettings({"lane_of": 2})})
        wait_until(lambda: lane.state is GateState.REFUSED)
        # Castings come without end, so the board answers other settings with `busy`.
        lane.change_settings({1: LaneSettings(SETTINGS.values | {"lost_limit": 9})})
        wait_until(lambda: lane.next_configuring_s)
        assert not lane.is_configured
        with pytest.raises(GateError) as answer:
            lane.send_verdict(lane.run, 99_999, "keep", in_seconds(3)).result(10)
        assert answer.value.code == code_of("unknown-part"), "the verdict was not sent to the board"


def test_a_lane_names_the_reason_of_a_refusal_as_soon_as_it_is_refused() -> None:
    link = GateLink(LinkSettings("/dev/null"))
    lane = link.add_lane("line-1", EventRecorder(), SETTINGS)
    seen: list[str] = []
    lane.set_state = lambda state: seen.append(lane.problem)  # type: ignore[method-assign]

    class RefusingSession(BoardSession):
        def _commit_lane(self, lane: GateLane) -> None:
            raise GateError("lane_of is 2", code_of("wrong-fields"), retriable=False)

    session = RefusingSession(cast(Any, None), link._waker, link.lanes, link._requests, link._clock, link._stopping, True)
    session._configure(lane)
    assert seen == ["The board refuses the settings: lane_of is 2."]


def test_each_refused_lane_keeps_its_own_reason(port: Path) -> None:
    with WiredLine(port, parts=0):
        link = GateLink(LinkSettings(str(port)))
        lanes = [link.add_lane(f"line-{number}", EventRecorder(), LaneSettings({"lane_of": 3}), lane=number) for number in (1, 2)]
        link.start()
        wait_until(lambda: all(lane.state is GateState.REFUSED for lane in lanes))
        time.sleep(0.3)
        assert [lane.problem.rpartition(": the settings")[0] for lane in lanes] == [
            f"The board refuses the settings: COMMIT {number}" for number in (1, 2)
        ]
        link.stop()


def test_a_link_that_does_not_acknowledge_other_lanes_leaves_their_reports_on_the_board(port: Path) -> None:
    def watch(acknowledges_unserved: bool) -> int:
        link = GateLink(LinkSettings(str(port)), acknowledges_unserved)
        lane = link.add_lane("board", EventRecorder(), lane=2)
        link.start()
        wait_until(lambda: lane.state in WORKING or lane.is_configured)
        time.sleep(1.5)
        link.stop()
        return int(line.line.board.events.pending)

    sorter = EventRecorder()
    with WiredLine(port, parts=3) as line:
        with connect(port, sorter):
            wait_until(lambda: len(sorter.sorted) == 3)
        assert watch(acknowledges_unserved=False) >= 3, "the sorter of the line has not recorded these reports"
        assert watch(acknowledges_unserved=True) == 0


def test_after_an_unexpected_error_the_lane_is_away_and_its_verdicts_end(port: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "_FIRST_RETRY_S", 30.0)
    with WiredLine(port, parts=0):
        link = GateLink(LinkSettings(str(port)))
        lane = link.add_lane("line-1", EventRecorder(), SETTINGS)
        link.start()
        wait_until(lambda: lane.state is GateState.RUNNING)

        def fail(self: BoardSession) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(BoardSession, "run_cycle", fail)
        wait_until(lambda: lane.state is GateState.AWAY)
        with pytest.raises(GateError) as late:
            lane.send_verdict(1, 1, "keep", in_seconds(0.2)).result(10)
        assert late.value.code == code_of("deadline"), "deadlines pass during the pause, too"
        waiting = lane.send_verdict(1, 2, "keep", in_seconds(60))
        link.stop()
        with pytest.raises(GateError) as stopped:
            waiting.result(1)
        assert stopped.value.code == code_of("stopping")


def test_a_verdict_that_waits_when_the_link_closes_may_be_sent_again(port: Path) -> None:
    with connect(port, EventRecorder()) as lane:
        waiting = lane.send_verdict(1, 1, "keep", in_seconds(60))
    with pytest.raises(GateError) as refused:
        waiting.result(1)
    assert (refused.value.code, refused.value.retriable) == (84, True)


def test_a_board_that_missed_its_host_for_a_while_is_greeted_again(port: Path) -> None:
    settings = LaneSettings(SETTINGS.values | {"host_timeout_ms": 500})
    sorter = SmallSorter()
    with WiredLine(port) as line, connect(port, sorter, settings) as lane:
        sorter.lane = lane
        wait_until(lambda: lane.state is GateState.RUNNING)
        line.line.board.lanes[0].raise_fault(40, 500, line.line.now_us)
        wait_until(lambda: any(fault.code == 40 and not fault.raised for fault in sorter.faults))
        wait_until(lambda: lane.state is GateState.RUNNING)


def test_a_board_that_does_not_tell_its_time_is_greeted_again_although_it_has_reported_parts(port: Path) -> None:
    settings = LaneSettings(SETTINGS.values | {"host_timeout_ms": 20_000})
    sorter = SmallSorter()
    with WiredLine(port) as line, connect(port, sorter, settings) as lane:
        sorter.lane = lane
        wait_until(lambda: len(sorter.counted) > 3)
        line.lost_word = b"SYNC"
        line.pull()
        line.plug()
        failures = count_failures()
        time.sleep(12)  # Eight SYNC commands of a second each remain without an answer.
        assert lane.state is not GateState.RUNNING
        line.lost_word = None
        wait_until(lambda: lane.state is GateState.RUNNING, 20)
        assert count_failures() == failures, "a silent board is no fault of the thread"


def count_failures() -> float:
    return sum(
        sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == "castline_thread_failures_total" and sample.labels["thread"].startswith("gate")
    )


def test_a_port_that_another_program_uses_or_that_is_absent_is_named_in_a_sentence(tmp_path: Path) -> None:
    with WiredLine(tmp_path / "port", parts=0) as line:
        first = SerialPort(str(line.port), 115200)
        with pytest.raises(PORT_ERRORS) as used:
            SerialPort(str(line.port), 115200)
        assert "Another program uses the serial port" in describe_port_error(str(line.port), used.value)
        first.close()
    with pytest.raises(PORT_ERRORS) as absent:
        SerialPort(str(line.port), 115200)
    assert "Connect the board" in describe_port_error(str(line.port), absent.value)
