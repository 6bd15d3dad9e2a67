"""A lane's clock: offset, drift and wrap of the board's time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.gate.lane import BoardClock

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
