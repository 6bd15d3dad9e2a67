"""The serial port of a board; the only user of pyserial. Frames out, frames in, and a bell that another thread rings."""

from __future__ import annotations

import os
import select
from typing import Any

import serial

from firmware.board.frames import Deframer, Frame

# What the port may raise at any time: it was pulled, or its driver is at fault.
PORT_ERRORS = (serial.SerialException, OSError)


class Bell:
    """Wakes the thread that waits at the port."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        os.set_blocking(self._read, False)

    def fileno(self) -> int:
        return self._read

    def ring(self) -> None:
        """From any thread."""
        try:
            os.write(self._write, b"x")
        except BlockingIOError:
            return  # it rings already

    def still(self) -> None:
        os.read(self._read, 4096)

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class GatePort:
    """An open port. All methods may raise one of PORT_ERRORS."""

    def __init__(self, path: str, baud: int) -> None:
        # Exclusive: two sorters on one board would answer each other's questions.
        self._port = serial.Serial(path, baud, timeout=0, write_timeout=1, exclusive=True)
        self._port.reset_input_buffer()
        self._deframer = Deframer("<!")

    def say(self, frames: list[Frame]) -> None:
        """Several frames are one write: a thread that is woken between two of them would cost the second a turn of the scheduler."""
        if frames:
            self._port.write(b"".join(frame.encode() for frame in frames))

    def wait(self, bell: Bell, longest_s: float) -> list[Frame]:
        """The frames that have come; none when the bell rang first, or nothing came for so long."""
        watched: list[Any] = [self._port, bell]
        readable, _, _ = select.select(watched, [], [], longest_s)
        if bell in readable:
            bell.still()
        if self._port not in readable:
            return []
        data = self._port.read(4096)
        if not data:
            raise serial.SerialException("the port reads as ended")
        return self._deframer.feed(data)

    def close(self) -> None:
        self._port.close()
