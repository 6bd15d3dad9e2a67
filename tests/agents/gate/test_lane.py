"""A lane's clock (offset, drift and wrap of the board's time), and the events that the lane passes on."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.gate.lane import BoardClock, GateLane
from agents.gate.port import Waker
from agents.gate.requests import RequestWindow
from firmware.protocol import Frame
from tests.wired_line import EventRecorder

WRAP_S = 2**32 / 1000


def board_time(host_s: float, offset_s: float, rate: float) -> tuple[int, int]:
    board_us = round((host_s - offset_s) * rate * 1e6)
    return board_us // 1000 % 2**32, board_us % 1000


def test_board_time_cannot_be_converted_before_the_first_answer_to_sync() -> None:
    clock = BoardClock()
    with pytest.raises(ValueError, match="SYNC"):
        clock.host_s(1000, 5.0)


@given(
    offset_s=st.floats(-1e5, 1e3),
    delays=st.lists(st.tuples(st.floats(0.0002, 0.2), st.floats(0.0002, 0.2)), min_size=1, max_size=12),
)
def test_the_error_is_within_half_the_shortest_round_trip(offset_s: float, delays: list[tuple[float, float]]) -> None:
    clock, now_s = BoardClock(), 1e4
    for out_s, back_s in delays:
        clock.add_sample(now_s, now_s + out_s + back_s, *board_time(now_s + out_s, offset_s, 1.0))
        now_s += 0.5
    at_ms, _ = board_time(now_s, offset_s, 1.0)
    assert abs(clock.host_s(at_ms, now_s) - now_s) <= clock.error_s + 0.0011


def test_the_drift_of_a_resonator_is_corrected() -> None:
    clock, rate = BoardClock(), 1.005
    for sample in range(16):
        sent_s = 100.0 + 10 * sample
        clock.add_sample(sent_s, sent_s + 0.004, *board_time(sent_s + 0.002, 3.0, rate))
    at_s = 100.0 + 160
    # Without the drift it would be off by up to 0.8 s.
    assert abs(clock.host_s(board_time(at_s, 3.0, rate)[0], at_s) - at_s) < 0.005


@given(st.floats(-20, 20))
def test_an_event_of_days_ago_gets_the_right_time_over_a_wrap(days: float) -> None:
    clock, now_s = BoardClock(), 2e6
    offset_s = now_s - WRAP_S * 3 - 10  # the board's clock has wrapped three times
    clock.add_sample(now_s, now_s + 0.002, *board_time(now_s + 0.001, offset_s, 1.0))
    at_s = now_s + days * 86400
    assert abs(clock.host_s(board_time(at_s, offset_s, 1.0)[0], now_s) - at_s) < 0.003


def test_a_reset_board_has_a_new_clock() -> None:
    clock = BoardClock()
    clock.add_sample(100.0, 100.002, 50_000, 0)
    clock.reset()
    clock.add_sample(200.0, 200.002, 10, 0)
    assert clock.host_s(20, 200.1) == pytest.approx(200.011, abs=1e-6)


@pytest.mark.parametrize(
    ("board_ms", "now_s", "is_restart"),
    [
        (50_010, 100.01, False),
        (3_649_000, 3700.0, False),
        (20, 100.1, True),
        (2000, 110.0, True),
        (50_100, 3700.0, True),
        (2**32 + 50_000 - 100, 100.1, True),
    ],
)
def test_a_board_whose_clock_is_far_behind_was_reset(board_ms: int, now_s: float, is_restart: bool) -> None:
    clock = BoardClock()
    assert not clock.shows_restart(board_ms % 2**32, now_s), "nothing is known of the board"
    clock.add_sample(100.0, 100.002, 50_000, 0)
    assert clock.shows_restart(board_ms % 2**32, now_s) is is_restart


def test_a_wrap_of_the_boards_clock_is_no_reset() -> None:
    clock = BoardClock()
    clock.add_sample(100.0, 100.002, 2**32 - 500, 0)
    assert not clock.shows_restart(9500, 110.0)


@pytest.fixture
def recorder() -> EventRecorder:
    return EventRecorder()


@pytest.fixture
def lane(recorder: EventRecorder) -> GateLane:
    """A lane whose board is in run 5 and has answered SYNC."""
    clock = BoardClock()
    clock.add_sample(100.0, 100.002, 50_000, 0)
    lane = GateLane("line-1", 1, None, {}, clock, RequestWindow(waker=Waker()), recorder)
    lane.begin_greeting()
    lane.begin_run(5, "power")
    lane.read_early_events(100.0, datetime.now(UTC))
    return lane


def receive(lane: GateLane, name: str, *fields: object) -> list[str]:
    """Gives the lane an event, and returns the names of the commands with which the host answers."""
    frame = Frame("!", 0, name, tuple(str(field) for field in fields))
    return [request.name for request in lane.read_event(frame, 101.0, datetime.now(UTC))]


def test_a_part_that_the_board_announces_again_is_counted_once_and_answered_each_time(lane: GateLane, recorder: EventRecorder) -> None:
    for _ in range(2):
        assert receive(lane, "PART", 1, 5, 7, 50_500) == ["SEEN"]
    assert [(event.run, event.part) for event in recorder.counted] == [(5, 7)]


def test_events_of_an_earlier_run_are_not_passed_on(lane: GateLane, recorder: EventRecorder) -> None:
    for run in (4, 5):
        receive(lane, "PART", 1, run, run + 10, 50_500)
        receive(lane, "GATE", run + 20, 1, run, run + 10, "pass", "verdict", 0, 0, 50_900, 600)
    assert [(event.run, event.part) for event in recorder.counted] == [(5, 15)]
    assert [(event.run, event.part) for event in recorder.sorted] == [(5, 15)]
