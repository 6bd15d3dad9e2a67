"""The gate link at a simulated Mega as it is sold: opening its port resets it, and its boot loader runs first after each reset."""

from __future__ import annotations

import logging
import os
import pty
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import serial

from agents.gate.lane import GateLane, GateState
from agents.gate.link import GateLink, LinkSettings
from firmware import toolchain
from firmware.lane_settings import LaneSettings
from firmware.pins import LANES
from firmware.protocol import Frame
from firmware.simulator.avr import RealTimeBoard
from tests.wired_line import EventRecorder, wait_until

pytestmark = pytest.mark.real

PINS = LANES[0]
TRAVEL_S = 7
SETTINGS = LaneSettings({"step_um": 1000, "eye_gap_mm": TRAVEL_S * 1000, "window_mm": 40, "stuck_mm": 20_000})


class StockMega:
    """A Mega in real time at the port `port`. Its photo-eyes are free, and its emergency stop is closed."""

    def __init__(self, board: RealTimeBoard, port: Path) -> None:
        self.board = board
        self.port = port
        for level, pin in ((False, PINS.estop), (True, PINS.servo_power), (True, PINS.eye1), (True, PINS.eye2)):
            board.set_pin(pin.port, level)
        board.poll_for(0.1)

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Waits until `condition()` is true, and reads the events of the simulator in the meantime."""

        def is_met() -> object:
            self.board.poll()
            return condition()

        wait_until(is_met, 40)

    def block_at(self, at_us: float, eye: str) -> None:
        self.board.set_pin_at(at_us, eye, False)
        self.board.set_pin_at(at_us + 20_000, eye, True)

    @property
    def resets(self) -> list[str]:
        self.board.poll_for(0.1)
        return [reset.cause for reset in self.board.resets]


@pytest.fixture
def mega(tmp_path: Path) -> Iterator[StockMega]:
    port = tmp_path / "ttyMEGA"
    with RealTimeBoard(toolchain.build_firmware(), port, tmp_path / "eeprom", has_boot_loader=True) as board:
        yield StockMega(board, port)


@contextmanager
def sorter(port: Path, recorder: EventRecorder) -> Iterator[GateLane]:
    link = GateLink(LinkSettings(str(port)))
    lane = link.add_lane("line-1", recorder, SETTINGS)
    link.start()
    try:
        yield lane
    finally:
        link.stop()


def is_working(lane: GateLane) -> bool:
    return lane.state in (GateState.RUNNING, GateState.SAFE)


def test_the_host_lets_the_boot_loader_start_the_firmware(mega: StockMega) -> None:
    recorder = EventRecorder()
    with sorter(mega.port, recorder) as lane:
        mega.wait_until(lambda: lane.state is GateState.RUNNING)
    assert mega.resets == ["button"], "the first opening resets the board, and nothing else does"
    assert [begun.run for begun in recorder.runs] == [1]
    assert recorder.faults == []


def test_a_restart_of_the_sorter_resets_no_board_and_costs_no_part(mega: StockMega) -> None:
    first, second, third = EventRecorder(), EventRecorder(), EventRecorder()
    with sorter(mega.port, first) as lane:
        mega.wait_until(lambda: lane.state is GateState.RUNNING)
        counted_us = mega.board.now_us + 500_000
        mega.block_at(counted_us, PINS.eye1.port)
        mega.block_at(counted_us + TRAVEL_S * 1e6, PINS.eye2.port)
        mega.wait_until(lambda: first.counted)
        told = lane.send_verdict(first.runs[0].run, first.counted[0].part, "keep")
        mega.wait_until(told.done)
        assert told.result().fields["told"] == "accepted"
    for recorder in (second, third):
        with sorter(mega.port, recorder) as lane:
            mega.wait_until(partial(is_working, lane))
            if recorder is third:
                mega.wait_until(lambda: third.sorted)
    assert [(part.part, part.action, part.reason) for part in third.sorted] == [(first.counted[0].part, "pass", "verdict")]
    assert [begun.run for recorder in (first, second, third) for begun in recorder.runs] == [1, 1, 1]
    assert mega.resets == ["button"]


def test_a_port_that_another_program_has_closed_the_usual_way_is_reset_and_reached(mega: StockMega) -> None:
    with sorter(mega.port, EventRecorder()) as lane:
        mega.wait_until(lambda: lane.state is GateState.RUNNING)
    with serial.Serial(str(mega.port), 115200) as port:
        settings = termios.tcgetattr(port.fileno())
        settings[2] |= termios.HUPCL
        termios.tcsetattr(port.fileno(), termios.TCSANOW, settings)
        mega.board.poll_for(0.1)
    mega.board.poll_for(0.1)
    recorder = EventRecorder()
    with sorter(mega.port, recorder) as lane:
        mega.wait_until(lambda: lane.state is GateState.RUNNING)
    assert mega.resets == ["button", "button"]
    assert [begun.run for begun in recorder.runs] == [2]


def test_a_board_that_is_caught_in_its_boot_loader_is_freed(mega: StockMega) -> None:
    """A program that speaks too early keeps the board in its boot loader, as release 0.1.0 of the sorter did."""
    with serial.Serial(str(mega.port), 115200) as port:
        mega.wait_until(lambda: mega.board.resets)
        port.write(Frame(">", 1, "HELLO", ("1",)).encode())
        mega.board.poll_for(1.2)
        assert port.in_waiting == 0, "the firmware has started"
        settings = termios.tcgetattr(port.fileno())
        settings[2] &= ~termios.HUPCL
        termios.tcsetattr(port.fileno(), termios.TCSANOW, settings)
    recorder = EventRecorder()
    with sorter(mega.port, recorder) as lane:
        mega.wait_until(lambda: lane.state is GateState.RUNNING)
    assert mega.resets == ["button"]
    assert [begun.run for begun in recorder.runs] == [1]


def test_a_board_that_resets_itself_is_freed_from_the_boot_loader_and_reports_why(
    mega: StockMega, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = EventRecorder()
    with sorter(mega.port, recorder) as lane:
        mega.wait_until(lambda: lane.state is GateState.RUNNING)
        mega.board.poll_for(0.4)  # The board needs 0.2 s to store new settings.
        mega.board.hang()
        mega.wait_until(lambda: len(recorder.runs) == 2 and lane.state is GateState.RUNNING)
    assert mega.resets == ["button", "watchdog"]
    assert recorder.runs[1].cause == "watchdog"
    assert [(fault.code, fault.detail) for fault in recorder.faults if fault.raised] == [(46, 2)]
    assert "silent" not in caplog.text, "the host has closed the port instead of starting the firmware"


def test_the_host_sends_nothing_until_the_board_has_spoken(tmp_path: Path) -> None:
    masters: list[int] = []
    with sorter_at_terminal(tmp_path / "board", masters):
        sent = bytearray()

        def read_sent() -> bytes:
            with suppress(BlockingIOError):
                sent.extend(os.read(masters[0], 4096))
            return bytes(sent)

        os.set_blocking(masters[0], False)
        time.sleep(1.2)  # The boot loader of a Mega listens for 0.84 s.
        assert read_sent() == b""
        os.write(masters[0], Frame("!", 0, "BOOT", ("1", "1", "power")).encode())
        wait_until(lambda: b"HELLO" in read_sent())


def test_a_port_without_a_board_is_explained(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One device sends nothing, and the other sends the text of another sketch."""
    masters: list[int] = []
    with sorter_at_terminal(tmp_path / "silent", masters), sorter_at_terminal(tmp_path / "other-sketch", masters):

        def is_explained() -> bool:
            os.write(masters[1], b"Temperature: 21\r\n")
            return sum("no board answered" in record.message for record in caplog.records) == 2

        wait_until(is_explained, 30)
    messages = {
        record.message.split(":")[0].rsplit("/", 1)[1]: record.message for record in caplog.records if "no board answered" in record.message
    }
    assert "the device at this port sends nothing" in messages["silent"]
    assert "sends bytes that are no frames of the gate protocol" in messages["other-sketch"]
    assert all("castline board flash" in message for message in messages.values())
    assert {record.levelno for record in caplog.records if "no board answered" in record.message} == {logging.WARNING}


@contextmanager
def sorter_at_terminal(port: Path, masters: list[int]) -> Iterator[None]:
    """Runs a gate link at a pseudo-terminal, and adds the terminal's other end to `masters`."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    port.symlink_to(os.ttyname(slave))
    masters.append(master)
    try:
        with sorter(port, EventRecorder()):
            yield
    finally:
        os.close(slave)
        os.close(master)
