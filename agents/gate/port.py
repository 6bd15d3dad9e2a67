"""The serial port of a board. No other module imports pyserial."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import serial

from firmware.protocol import Deframer, Frame

# Any method of SerialPort can raise these errors, because a cable can be pulled at any time.
PORT_ERRORS = (serial.SerialException, OSError, termios.error)
# The command "leave programming mode" of the protocol STK500v2 (Atmel application note AVR068). With this command, the boot loader of a
# Mega starts the firmware. The bytes are: start, sequence number, length (two bytes), token, command, and the XOR of all bytes before.
LEAVE_PROGRAMMING_MODE = bytes((0x1B, 0x01, 0x00, 0x01, 0x0E, 0x11, 0x04))


class Waker:
    """Wakes the thread that waits in `SerialPort.wait_for_frames`.

    Uses a pipe, because `select` can wait for a pipe and a port at the same time.
    """

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        os.set_blocking(self._read_end, False)

    def fileno(self) -> int:
        """Returns the file descriptor that `select` waits for."""
        return self._read_end

    def wake(self) -> None:
        """Wakes the waiting thread. May be called from any thread."""
        try:
            os.write(self._write_end, b"x")
        except BlockingIOError:
            # The pipe is full. Its unread bytes already wake the thread, so another byte is not needed.
            return

    def clear(self) -> None:
        """Empties the pipe. The waiting thread calls this method when it has woken up.

        A byte that stays in the pipe would end the next wait at once.
        """
        os.read(self._read_end, 4096)

    def close(self) -> None:
        """Closes both ends of the pipe."""
        os.close(self._read_end)
        os.close(self._write_end)


class BoardPort(Protocol):
    """A connection to a board. Every method can raise one of PORT_ERRORS."""

    received: int

    def leave_boot_loader(self) -> None: ...

    def write(self, frames: list[Frame]) -> None: ...

    def wait_for_frames(self, waker: Waker, max_wait_s: float) -> list[Frame]: ...

    def close(self) -> None: ...


class SerialPort:
    """An open serial port that sends and receives frames of the gate protocol. Every method can raise one of PORT_ERRORS."""

    def __init__(self, path: str, baud: int) -> None:
        # The port is opened exclusively, because two sorters on one board would read each other's answers.
        self._port = serial.Serial(path, baud, timeout=0, write_timeout=1, exclusive=True)
        self._keep_dtr()
        self._port.reset_input_buffer()
        # The number of bytes that have arrived. Bytes that belong to no valid frame count, too.
        self.received = 0
        self._deframer = Deframer("<!")

    def _keep_dtr(self) -> None:
        """Switches HUPCL off, so that DTR stays high when the port is closed. If DTR rose at the next opening, a Mega would be reset."""
        settings = termios.tcgetattr(self._port.fileno())
        settings[2] &= ~termios.HUPCL
        termios.tcsetattr(self._port.fileno(), termios.TCSANOW, settings)

    def leave_boot_loader(self) -> None:
        """Sends LEAVE_PROGRAMMING_MODE, so that the boot loader of a Mega starts the firmware. A running firmware ignores these bytes."""
        self._port.write(LEAVE_PROGRAMMING_MODE)

    def write(self, frames: list[Frame]) -> None:
        """Sends all frames in one write. With a write for each frame, the operating system could delay the later frames."""
        if frames:
            self._port.write(b"".join(frame.encode() for frame in frames))

    def wait_for_frames(self, waker: Waker, max_wait_s: float) -> list[Frame]:
        """Waits for input and returns the frames that are complete.

        Returns an empty list if `waker` ended the wait, or if no complete frame arrived within `max_wait_s` seconds.
        """
        watched: list[Any] = [self._port, waker]
        readable, _, _ = select.select(watched, [], [], max_wait_s)
        if waker in readable:
            waker.clear()
        if self._port not in readable:
            return []
        data = self._port.read(4096)
        if not data:
            raise serial.SerialException("The serial port was disconnected. Check the cable of the board.")
        self.received += len(data)
        return self._deframer.feed(data)

    def close(self) -> None:
        """Closes the port."""
        self._port.close()


class SerialPorts:
    """The serial ports of this machine."""

    def open(self, path: str, baud: int) -> BoardPort:
        """Opens the port `path`. Raises one of PORT_ERRORS."""
        return SerialPort(path, baud)

    def make_waker(self) -> Waker:
        """Returns a Waker, which can wake a thread that waits for data on one of these ports."""
        return Waker()


SERIAL_PORTS = SerialPorts()


@contextmanager
def locked_port(path: str) -> Iterator[bool]:
    """Locks the serial port during the `with` block, so that no sorter can open it.

    Yields False if another program, for example a sorter, has locked the port. Otherwise yields True, even if the port does not exist.

    Closes the port at the end of the block. The next program that opens the port resets a Mega.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        yield error.errno != errno.EBUSY
        return
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Locks an open serial port, so that no other program uses it. Returns False if another program has locked the port.

    Also makes the system switch off the signal DTR when the port is closed.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        settings = termios.tcgetattr(descriptor)
        settings[2] |= termios.HUPCL
        termios.tcsetattr(descriptor, termios.TCSANOW, settings)
    except BlockingIOError:
        return False
    except termios.error:
        # The path leads to a file that is not a serial port. A program that later opens the file as a serial port reports the error.
        return True
    return True


def describe_port_error(path: str, error: Exception) -> str:
    """Returns a sentence that says why a serial port cannot be used, and what a person should do."""
    if not Path(path).exists():
        return f"There is no serial port {path}. Connect the board, or correct the port in the settings."
    if getattr(error, "errno", None) in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EBUSY) or "exclusively lock" in str(error):
        return f"Another program uses the serial port {path}, for example a second sorter. Stop that program."
    return f"The serial port {path} failed: {error}. Check the cable of the board."
