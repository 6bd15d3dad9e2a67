"""Puts a simulated line behind a pseudo-terminal, in real time. Thin: reads, ticks, writes."""

from __future__ import annotations

import json
import os
import pty
import select
import threading
import time
import tty
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

from firmware.board.plant import Plant

TICK_S = 0.002
DRAIN_S = 5.0  # longest wait for the host's acknowledgements after the belt is empty


class Terminal:
    """A pseudo-terminal with a symlink to it, as a serial port with a name of its own.

    Raises FileExistsError: when something other than such a symlink is at `link`.
    """

    def __init__(self, link: Path) -> None:
        if link.exists() and not link.is_symlink():
            raise FileExistsError(f"expected no file or an old link at {link}, found something else")
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.link = link
        link.parent.mkdir(parents=True, exist_ok=True)
        partial = link.with_name(f".{link.name}.{os.getpid()}")
        partial.symlink_to(os.ttyname(self._slave))
        partial.replace(link)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.link.is_symlink() and str(self.link.readlink()) == os.ttyname(self._slave):
            self.link.unlink()
        os.close(self._slave)
        os.close(self._master)

    def read(self, timeout_s: float) -> bytes:
        """What the host has written, nothing after `timeout_s`."""
        readable, _, _ = select.select([self._master], [], [], timeout_s)
        return os.read(self._master, 4096) if readable else b""

    def write(self, data: bytes) -> None:
        """To whoever listens; as with a wire, what nobody takes is lost."""
        try:
            os.write(self._master, data)
        except BlockingIOError:
            return


class TruthLog:
    """The physical truth as JSON lines, each flushed, for checks that do not trust the board."""

    def __init__(self, file: IO[str] | None) -> None:
        self._file = file

    def __call__(self, what: str, facts: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps({"what": what, "at": time.time(), **facts}) + "\n")
            self._file.flush()


class Line(Protocol):
    """Belts with their board: `SimulatedLine`, or one whose board is the real firmware (firmware.simulator.line)."""

    plants: dict[int, Plant]

    @property
    def supervised(self) -> bool: ...

    @property
    def pending(self) -> int: ...

    def run_until(self, to_us: int) -> None: ...

    def receive(self, data: bytes) -> None: ...

    def transmit(self) -> bytes: ...


def run(line: Line, terminal: Terminal, stopping: threading.Event) -> None:
    """Until `stopping` is set; then nothing is fed any more, and the parts on the belt still leave.

    Feeding begins once the host has configured the board: a line does not run unsupervised.
    """
    began = time.monotonic()
    emptied_at: float | None = None
    while True:
        now = time.monotonic()
        line.run_until(int((now - began) * 1e6))
        for plant in line.plants.values():
            plant.feeding = line.supervised and not stopping.is_set()
        if out := line.transmit():
            terminal.write(out)
        if data := terminal.read(TICK_S):
            line.receive(data)
            # What it answers at once does not wait for the next turn.
            if out := line.transmit():
                terminal.write(out)
        if stopping.is_set() and not any(plant.castings for plant in line.plants.values()):
            emptied_at = emptied_at or now
            # A host that is gone acknowledges nothing: the wait for it is bounded.
            if line.pending == 0 or now - emptied_at > DRAIN_S:
                return
