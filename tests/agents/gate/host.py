"""A host in a test's hands: speaks the protocol to a rig frame by frame, and plays the belt."""

from __future__ import annotations

from firmware.board.frames import Frame
from firmware.board.lane_settings import LaneSettings, Value
from firmware.board.words import COMMANDS, PAGES, Fields, read_event, read_fields
from tests.agents.gate.rig import Rig

# A quick belt: a metre a second, so that a millisecond is a millimetre.
QUICK: dict[str, Value] = {
    "step_um": 1000,
    "eye_gap_mm": 300,
    "window_mm": 40,
    "spacing_mm": 60,
    "gate_mm": 20,
    "dwell_mm": 60,
    "servo_ms": 40,
    "trigger_ms": 10,
    "use_servo_power": 1,
}
PART_MS = 20
ANSWER_MS = 60


class Host:
    """Keeps what the board said beside answers in `heard`, oldest first."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.heard: list[Frame] = []
        self.acknowledges = True
        self._seq = 0

    # Words

    def raw(self, data: bytes, wait_ms: int = 20) -> list[Frame]:
        """Sends bytes as they are; the answers that come."""
        self.rig.send(data)
        self.rig.wait(wait_ms)
        return self._sort()

    def ask(self, name: str, *fields: object) -> Frame:
        """The answer to a command."""
        frame = Frame(">", self._seq, name, tuple(str(field) for field in fields))
        self._seq = (self._seq + 1) % 256
        self.rig.send(frame.encode())
        for _ in range(ANSWER_MS):
            for answer in self._sort():
                if answer.seq == frame.seq:
                    return answer
            self.rig.wait(1)
        raise AssertionError(f"no answer to {frame.body} within {ANSWER_MS} ms")

    def ok(self, name: str, *fields: object) -> Fields:
        """The fields of the OK to a command."""
        answer = self.ask(name, *fields)
        assert answer.name == "OK", f"{name} {fields} was answered {answer.body}"
        names = COMMANDS[name][1] if name != "STATUS" else ("page", *PAGES[str(fields[1])])
        return read_fields(names, answer.fields)

    def code(self, name: str, *fields: object) -> int:
        """The code of the ERR to a command."""
        answer = self.ask(name, *fields)
        assert answer.name == "ERR", f"{name} {fields} was answered {answer.body}"
        return int(answer.fields[0])

    def greet(self, **settings: Value) -> LaneSettings:
        """HELLO, CONFIGURE, COMMIT on lane 1; `settings` differ from QUICK."""
        self.ok("HELLO", 1)
        return self.configure(1, **settings)

    def configure(self, lane: int, **settings: Value) -> LaneSettings:
        """CONFIGURE, COMMIT; `settings` differ from QUICK."""
        wanted = self.put_aside(lane, **settings)
        assert self.ok("COMMIT", lane).word("digest") == wanted.digest
        return wanted

    def put_aside(self, lane: int, **settings: Value) -> LaneSettings:
        """CONFIGURE alone."""
        wanted = LaneSettings(QUICK | settings)
        for key, value in wanted.values.items():
            self.ok("CONFIGURE", lane, key, value)
        return wanted

    def tell(self, part: int, verdict: str, gate: int = 1) -> Frame:
        return self.ask("VERDICT", 1, self.rig.run, part, verdict, gate if verdict == "divert" else 0)

    def status(self, page: str) -> Fields:
        return self.ok("STATUS", 1, page)

    # Belt

    def wait(self, ms: int) -> None:
        """Lets board time pass, with a heartbeat, taking what is said."""
        while ms > 0:
            self.ok("PING", self.rig.now_ms())
            self.rig.wait(min(ms, 200))
            ms -= min(ms, 200)
            self._sort()

    def block(self, eye: int, ms: int = PART_MS) -> None:
        """Something stands before the eye for so long."""
        self.rig.eye(eye, True)
        self.rig.wait(ms)
        self.rig.eye(eye, False)
        self.rig.wait(2)
        self._sort()

    def carry(self, part_at_ms: int, travel_ms: int = 300) -> None:
        """Waits until a part whose leading edge was at photo-eye 1 at `part_at_ms` is at photo-eye 2, and lets it pass."""
        self.wait_until(part_at_ms + travel_ms)
        self.block(2)
        self.rig.wait(30)
        self._sort()

    def wait_until(self, ms: int) -> None:
        """The heartbeat is kept up meanwhile."""
        while (left := ms - self.rig.now_ms()) > 0:
            self.rig.send(Frame(">", 0xFF, "PING", ("0",)).encode())
            self.rig.wait(min(left, 200))
            self._sort()

    def part(self) -> tuple[int, int]:
        """A part passes photo-eye 1: its number, and when its leading edge came."""
        at_ms = self.rig.now_ms()
        self.block(1)
        number = [fields.number("part") for fields in self.events("PART")][-1]
        self.ok("SEEN", 1, self.rig.run, number)
        return number, at_ms

    # What was heard

    def events(self, name: str) -> list[Fields]:
        """All events of that name so far, repeats included."""
        self._sort()
        return [read_event(name, frame.fields) for frame in self.heard if frame.name == name]

    def gates(self) -> list[Fields]:
        """GATE events without repeats, acknowledged."""
        found = {fields.number("event"): fields for fields in self.events("GATE")}
        if self.acknowledges:
            for event in found:
                self.ok("ACK", event)
        return list(found.values())

    def did(self) -> list[tuple[int, str, str, int]]:
        """Part, action, reason and movement of each GATE event."""
        return [(gate.number("part"), gate.word("action"), gate.word("reason"), gate.number("moved")) for gate in self.gates()]

    def faults(self) -> list[tuple[int, int, int]]:
        """Code, raised and detail of each FAULT event, without repeats."""
        found = {fields.number("event"): fields for fields in self.events("FAULT")}
        return [(fault.number("code"), fault.number("raised"), fault.number("detail")) for fault in found.values()]

    def _sort(self) -> list[Frame]:
        frames = self.rig.take()
        self.heard += [frame for frame in frames if frame.start == "!"]
        return [frame for frame in frames if frame.start == "<"]
