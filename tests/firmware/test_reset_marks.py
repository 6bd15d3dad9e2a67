"""The firmware behind the stock boot loader of a Mega: what the boot loader does with early bytes, and how a reset is reported."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agents.gate.port import LEAVE_PROGRAMMING_MODE
from firmware import toolchain
from firmware.pins import LANES
from firmware.protocol import Deframer, Frame
from firmware.simulator.avr import SimulatedBoard, start_mega

pytestmark = pytest.mark.real

HELLO = Frame(">", 1, "HELLO", ("1",)).encode()
PING = Frame(">", 2, "PING", ("1",)).encode()
# The boot loader waits 838 ms.
BOOT_LOADER_MS = 900


@pytest.fixture
def mega() -> Iterator[SimulatedBoard]:
    """A Mega whose power was just switched on, before its boot loader has started the firmware."""
    with start_mega(toolchain.build_firmware(), has_boot_loader=True) as board:
        for lane in LANES:
            board.set_pin(lane.estop.port, False)
        yield board


def wait(board: SimulatedBoard, ms: int) -> list[Frame]:
    """Lets board time pass, and returns the frames of the board."""
    board.run_until(board.now_us + ms * 1000)
    deframer = Deframer("<!")
    return [frame for sent in board.take_sent() for frame in deframer.feed(sent.data)]


def talk(board: SimulatedBoard, ms: int) -> list[Frame]:
    """Sends a PING every 400 ms, as a host does, and returns the frames of the board."""
    frames = []
    for _ in range(0, ms, 400):
        board.send(PING)
        frames += wait(board, 400)
    return frames


def boots(frames: list[Frame]) -> list[tuple[str, str]]:
    """Returns run and cause of each BOOT."""
    return [(frame.fields[1], frame.fields[2]) for frame in frames if frame.name == "BOOT"]


def abnormal_resets(board: SimulatedBoard) -> list[str]:
    """Greets the board, and returns the detail of each fault 46."""
    board.send(HELLO)
    return [frame.fields[4] for frame in wait(board, 200) if frame.name == "FAULT" and frame.fields[2] == "46"]


def test_the_boot_loader_waits_for_each_byte(mega: SimulatedBoard) -> None:
    assert talk(mega, 8000) == [], "the firmware has started"
    mega.send(LEAVE_PROGRAMMING_MODE)
    assert boots(wait(mega, 500)) == [("1", "power")]


def test_the_boot_loader_starts_the_firmware_if_nobody_speaks(mega: SimulatedBoard) -> None:
    assert boots(wait(mega, BOOT_LOADER_MS)) == [("1", "power")]


def test_a_running_firmware_ignores_the_message_for_the_boot_loader(mega: SimulatedBoard) -> None:
    wait(mega, BOOT_LOADER_MS)
    mega.send(LEAVE_PROGRAMMING_MODE * 3 + HELLO)
    assert [frame.name for frame in wait(mega, 100) if frame.start == "<"] == ["OK"]
    mega.send(Frame(">", 3, "STATUS", ("0", "link")).encode())
    (answer,) = [frame for frame in wait(mega, 100) if frame.start == "<"]
    assert answer.fields[2] == "0", "frames count as damaged"


def test_the_opening_of_the_port_is_no_abnormal_reset(mega: SimulatedBoard) -> None:
    wait(mega, BOOT_LOADER_MS)
    mega.set_dtr(True)
    assert boots(wait(mega, BOOT_LOADER_MS)) == [("2", "button")], "no host had greeted the board before"
    assert abnormal_resets(mega) == []
    talk(mega, 800)
    wait(mega, 1500)  # The host has ended.
    mega.set_dtr(False)
    assert boots(wait(mega, 100)) == []
    mega.set_dtr(True)
    assert boots(wait(mega, BOOT_LOADER_MS)) == [("3", "button")]
    assert abnormal_resets(mega) == []


def test_a_reset_while_a_host_is_talking_is_reported(mega: SimulatedBoard) -> None:
    wait(mega, BOOT_LOADER_MS)
    abnormal_resets(mega)
    talk(mega, 2000)
    mega.reset("button")
    assert boots(wait(mega, BOOT_LOADER_MS)) == [("2", "unknown")]
    assert abnormal_resets(mega) == ["3"]


def test_the_watchdog_is_reported_also_if_no_host_is_there(mega: SimulatedBoard) -> None:
    wait(mega, BOOT_LOADER_MS)
    mega.hang()
    assert boots(wait(mega, 300 + BOOT_LOADER_MS)) == [("2", "watchdog")]
    assert [reset.cause for reset in mega.resets] == ["watchdog"]
    assert abnormal_resets(mega) == ["2"]
    mega.reset("power")
    assert boots(wait(mega, BOOT_LOADER_MS)) == [("3", "power")], "a power cut ends all marks"
    assert abnormal_resets(mega) == []
