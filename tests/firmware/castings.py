"""A casting that passes the photo-eyes of lane 1 of a simulated Mega in real time."""

from __future__ import annotations

from firmware.pins import LANES
from firmware.simulator.avr import RealTimeBoard
from tests.wired_line import wait_until

_PINS = LANES[0]
# The default of the setting trigger_ms.
_TRIGGER_US = 20_000


def pass_casting(board: RealTimeBoard, travel_s: float) -> None:
    """Blocks photo-eye 1 now, and photo-eye 2 after `travel_s` seconds of the board's time.

    The camera pulse tells the board's time, because without events `now_us` is old.
    """
    board.poll_for(0.1)
    before = len(board.changes)

    def pulses() -> list[float]:
        board.poll()
        return [change.at_us for change in board.changes[before:] if change.pin == _PINS.trigger.port and change.level]

    board.set_pin(_PINS.eye1.port, False)
    wait_until(pulses)
    board.set_pin(_PINS.eye1.port, True)
    at_us = pulses()[0] - _TRIGGER_US + travel_s * 1e6
    board.set_pin_at(at_us, _PINS.eye2.port, False)
    board.set_pin_at(at_us + 40_000, _PINS.eye2.port, True)
    board.poll()
