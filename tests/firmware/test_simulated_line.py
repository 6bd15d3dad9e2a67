"""A simulated line at a pseudo-terminal, in real time."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from firmware.board.board import Board
from firmware.board.line import MAX_STEP_US, PseudoTerminal, SimulatedLine, run_in_real_time
from firmware.board.memory import BoardMemory
from firmware.board.plant import Belt, CastingFeed, Plant
from firmware.protocol import Frame

STALL_US = 300_000
PING = Frame(">", 1, "PING", ("1",)).encode()


class StalledLine(SimulatedLine):
    """A line whose program gets no processor time for 0.3 s after the first command. In this time, the host sends a second command.

    `received_us` has the board times at which the commands came. The line stops when it has caught up.
    """

    def __init__(self, port: int, stopping: threading.Event) -> None:
        super().__init__(Board(BoardMemory()), Plant(Belt(500, 1000), CastingFeed(parts=0)))
        self.received_us: list[int] = []
        self._port = port
        self._stopping = stopping

    def run_until(self, to_us: int) -> None:
        super().run_until(to_us)
        if self.received_us and self.now_us >= self.received_us[0] + STALL_US:
            self._stopping.set()

    def receive(self, data: bytes) -> None:
        self.received_us.append(self.now_us)
        if len(self.received_us) == 1:
            os.write(self._port, PING)
            time.sleep(STALL_US / 1e6)
        super().receive(data)


def test_a_late_simulation_reads_the_port_while_it_catches_up(tmp_path: Path) -> None:
    """If it read the port only afterwards, every command of the host would be late by the whole stall."""
    stopping = threading.Event()
    with PseudoTerminal(tmp_path / "board") as terminal:
        port = os.open(tmp_path / "board", os.O_RDWR | os.O_NOCTTY)
        line = StalledLine(port, stopping)
        os.write(port, PING)
        run_in_real_time(line, terminal, stopping)
        os.close(port)
    first_us, second_us = line.received_us
    assert second_us - first_us <= MAX_STEP_US
