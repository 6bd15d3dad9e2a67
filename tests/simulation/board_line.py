"""A belt with castings, a board, and the serial line between the board and the sorter, in virtual time.

The board is the simulated board of `firmware.board`, with room for 64 events like the firmware of a Mega.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agents.gate.port import BoardPort, SerialPorts, Waker
from firmware.board.board import Board
from firmware.board.lane import GateMove
from firmware.board.memory import BoardMemory
from firmware.board.tracker import PartDecision, TrackedPart
from firmware.protocol import Deframer, Frame
from streams.identity import PartId
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.virtual_processes import VirtualEvent

_MAX_EVENTS = 64
# While castings are on the belt, and while the belt is empty, the board reads its inputs at these intervals.
_TICK_S, _IDLE_TICK_S = 0.04, 0.2
_PART_S = 0.12
_LONGEST_TRANSFER_S = 0.006


@dataclass(eq=False)
class Casting:
    """A casting on the belt. `part` is its number in the board's memory, or 0 if the board has not counted the casting."""

    number: int
    is_defect: bool
    at_eye1_s: float
    board: CountingBoard | None = None
    part: int = 0


@dataclass(frozen=True)
class GateReport:
    """What the board has done with a part."""

    event: int
    decision: PartDecision
    moved: bool


class CountingBoard(Board):
    """A board that also remembers which parts it has counted, and what it has done with them, over its whole run.

    `unmatched` is the number of castings that the gate treated although photo-eye 1 had not counted them.
    """

    def __init__(self, number: int, memory: BoardMemory, cause: str, on_counted: Callable[[TrackedPart], None]) -> None:
        self.number = number
        self.counted: list[int] = []
        self.reports: dict[int, list[GateReport]] = {}
        self.unmatched = 0
        self._on_counted = on_counted
        super().__init__(memory, cause, max_events=_MAX_EVENTS)
        # The other lanes are not wired, and would only cost time.
        del self.lanes[1:]

    def report_counted(self, lane: int, part: TrackedPart) -> None:
        self.counted.append(part.number)
        self._on_counted(part)
        super().report_counted(lane, part)

    def report_sorted(self, lane: int, part: int, decision: PartDecision, move: GateMove, at_us: int, travel_us: int | None) -> int:
        event = super().report_sorted(lane, part, decision, move, at_us, travel_us)
        if part:
            self.reports.setdefault(part, []).append(GateReport(event, decision, move.moved))
        else:
            self.unmatched += 1
        return event


class _EventWaker(Waker):
    """Wakes the thread that waits for a simulated port."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.news = VirtualEvent(loop)

    def wake(self) -> None:
        self.news.set()

    def clear(self) -> None:
        self.news.clear()

    def close(self) -> None: ...


class _Port:
    """The host's end of the serial line."""

    def __init__(self, line: BoardLine) -> None:
        self.received = 0
        self._line = line
        self._deframer = Deframer("<!")
        self._frames: list[Frame] = []
        self._waker: _EventWaker | None = None

    def feed(self, data: bytes) -> None:
        """Receives bytes from the board."""
        self.received += len(data)
        self._frames += self._deframer.feed(data)
        if self._frames and self._waker is not None:
            self._waker.wake()

    def fail(self) -> None:
        """Ends the wait of the host, because the cable was pulled."""
        if self._waker is not None:
            self._waker.wake()

    def leave_boot_loader(self) -> None:
        self._check()

    def write(self, frames: list[Frame]) -> None:
        self._check()
        for frame in frames:
            self._line.send_to_board(frame.encode())

    def wait_for_frames(self, waker: Waker, max_wait_s: float) -> list[Frame]:
        assert isinstance(waker, _EventWaker)
        self._waker = waker
        if not self._frames:
            waker.news.wait(max_wait_s)
        waker.clear()
        self._check()
        frames, self._frames = self._frames, []
        return frames

    def _check(self) -> None:
        if self._line.is_unplugged or self._line.port is not self:
            raise OSError("The board was unplugged.")

    def close(self) -> None:
        if self._line.port is self:
            self._line.port = None


class SimulatedPorts(SerialPorts):
    """The serial port of the machine, to which the board of `line` is connected."""

    def __init__(self, line: BoardLine) -> None:
        self._line = line

    def open(self, path: str, baud: int) -> BoardPort:
        if self._line.is_unplugged:
            raise OSError("There is no such port.")
        if self._line.port is not None:
            self._line.faults.append("Two processes have opened the port of the board at the same time.")
        self._line.port = _Port(self._line)
        return self._line.port

    def make_waker(self) -> Waker:
        return _EventWaker(self._line.loop)


@dataclass
class BoardLine:
    """A belt that takes `travel_s` from photo-eye 1 to photo-eye 2, with its board.

    - `on_picture`: called when the board triggers the camera.
    - `damage`: the chance that a frame is damaged on the serial line.
    - `stored`: the parts whose count a sorter has written to its journal, each with the number of the board that ran then.
    """

    loop: VirtualLoop
    travel_s: float
    on_picture: Callable[[Casting], None]
    choice: random.Random
    castings: list[Casting] = field(default_factory=list)
    boards: list[CountingBoard] = field(default_factory=list)
    port: _Port | None = None
    is_unplugged: bool = False
    damage: float = 0.0
    faults: list[str] = field(default_factory=list)
    stored: set[tuple[int, PartId]] = field(default_factory=set)
    _memory: BoardMemory = field(default_factory=BoardMemory)
    _began_s: float = 0.0
    _due_s: dict[str, float] = field(default_factory=dict)
    _blocked: dict[int, bool] = field(default_factory=lambda: {1: False, 2: False})

    def start(self) -> None:
        self.reset("power")
        self._tick()

    @property
    def board(self) -> CountingBoard:
        """The board that runs now."""
        return self.boards[-1]

    @property
    def _now_us(self) -> int:
        return int((self.loop.time() - self._began_s) * 1e6)

    def reset(self, cause: str) -> None:
        """Resets the board. It forgets its parts and its events."""
        self._began_s = self.loop.time()
        self.boards.append(CountingBoard(len(self.boards), self._memory, cause, self._count))
        for lane in self.board.lanes:
            lane.change_gate_at_end(True, 0)
            lane.change_estop(False, 0)
        for eye, is_blocked in self._blocked.items():
            self.board.lanes[0].change_eye(eye, is_blocked, 0)

    def exchange(self) -> None:
        """Exchanges the board for a new one, whose run numbers begin again."""
        self._memory = BoardMemory()
        self.reset("power")

    def unplug(self, seconds: float) -> None:
        self.is_unplugged = True
        if self.port is not None:
            self.port.fail()
        self.loop.call_later(seconds, self._plug_in)

    def _plug_in(self) -> None:
        self.is_unplugged = False

    def add_casting(self, is_defect: bool) -> Casting:
        """Puts a casting in front of photo-eye 1."""
        casting = Casting(len(self.castings) + 1, is_defect, self.loop.time())
        self.castings.append(casting)
        self._change_eye(1, True)
        for delay_s, eye, is_blocked in ((_PART_S, 1, False), (self.travel_s, 2, True), (self.travel_s + _PART_S, 2, False)):
            self.loop.call_later(delay_s, self._change_eye, eye, is_blocked)
        return casting

    def _change_eye(self, eye: int, is_blocked: bool) -> None:
        self._blocked[eye] = is_blocked
        self.board.lanes[0].change_eye(eye, is_blocked, self._now_us)
        self._advance()

    def _count(self, part: TrackedPart) -> None:
        casting = self.castings[-1]
        if casting.part:
            self.faults.append(f"The board has counted casting {casting.number} twice.")
        casting.board, casting.part = self.board, part.number

    def _tick(self) -> None:
        self._advance()
        is_busy = bool(self.castings) and self.loop.time() < self.castings[-1].at_eye1_s + self.travel_s + 1.0
        self.loop.call_later(_TICK_S if is_busy else _IDLE_TICK_S, self._tick)

    def _advance(self) -> None:
        """Moves the board's time forward, and sends what the board has to say."""
        self.board.tick(self._now_us)
        camera = self.board.lanes[0].camera
        while camera.began_us:
            camera.began_us.pop()
            self.on_picture(self.castings[-1])
        self._send_to_host()

    # The serial line

    def send_to_board(self, data: bytes) -> None:
        self._transfer("board", data, self._receive, self.board)

    def _receive(self, data: bytes, board: CountingBoard) -> None:
        if board is self.board and not self.is_unplugged:
            board.receive(data, self._now_us)
            self._send_to_host()

    def _send_to_host(self) -> None:
        if (data := self.board.transmit()) and self.port is not None and not self.is_unplugged:
            self._transfer("host", data, _feed, self.port)

    def _transfer(self, target: str, data: bytes, receive: Callable[[bytes, Any], None], receiver: Any) -> None:
        if self.choice.random() < self.damage:
            place = self.choice.randrange(len(data))
            data = data[:place] + bytes((data[place] ^ 0x04,)) + data[place + 1 :]
        # The small distance keeps the order of the bytes.
        due_s = self.loop.time() + self.choice.uniform(0.0005, _LONGEST_TRANSFER_S)
        self._due_s[target] = due_s = max(due_s, self._due_s.get(target, 0.0) + 1e-6)
        self.loop.call_at(due_s, receive, data, receiver, context=self.loop.world)


def _feed(data: bytes, port: _Port) -> None:
    port.feed(data)
