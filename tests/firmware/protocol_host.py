"""A host for the conformance tests: it speaks the gate protocol to a board frame by frame, and blocks the photo-eyes like castings do."""

from __future__ import annotations

from firmware.lane_settings import LaneSettings, SettingValue
from firmware.protocol import HELLO_FIELDS, Fields, Frame, read_answer, read_event
from tests.firmware.rigs import Rig

# A belt with a metre a second, so that a millisecond of time is a millimetre of travel.
QUICK: dict[str, SettingValue] = {
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
MAX_ANSWER_MS = 60


class ProtocolHost:
    """Sends commands to the board of a rig. `received` holds all events so far, oldest first."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.received: list[Frame] = []
        self.acknowledges = True
        self._seq = 0

    # Commands

    def send_raw(self, data: bytes, wait_ms: int = 20) -> list[Frame]:
        """Sends bytes as they are, and returns the answers."""
        self.rig.send(data)
        self.rig.wait(wait_ms)
        return self._read_answers()

    def ask(self, name: str, *fields: object) -> Frame:
        """Sends a command and returns the answer."""
        frame = Frame(">", self._seq, name, tuple(str(field) for field in fields))
        self._seq = (self._seq + 1) % 256
        self.rig.send(frame.encode())
        for _ in range(MAX_ANSWER_MS):
            for answer in self._read_answers():
                if answer.seq == frame.seq:
                    return answer
            self.rig.wait(1)
        raise AssertionError(f"no answer to {frame.body} within {MAX_ANSWER_MS} ms")

    def ok(self, name: str, *fields: object) -> Fields:
        """Sends a command that the board must accept, and returns the fields of OK."""
        answer = self.ask(name, *fields)
        assert answer.name == "OK", f"{name} {fields} was answered {answer.body}"
        return read_answer(name, [str(field) for field in fields], answer.fields)

    def error_code(self, name: str, *fields: object) -> int:
        """Sends a command that the board must refuse, and returns the code of ERR."""
        answer = self.ask(name, *fields)
        assert answer.name == "ERR", f"{name} {fields} was answered {answer.body}"
        return int(answer.fields[0])

    def greet(self, **settings: SettingValue) -> LaneSettings:
        """Sends HELLO, CONFIGURE and COMMIT for lane 1. `settings` replace those of QUICK."""
        self.ok("HELLO", *HELLO_FIELDS)
        return self.configure(1, **settings)

    def configure(self, lane: int, **settings: SettingValue) -> LaneSettings:
        """Sends CONFIGURE and COMMIT for a lane. `settings` replace those of QUICK."""
        lane_settings = self.configure_uncommitted(lane, **settings)
        assert self.ok("COMMIT", lane).word("digest") == lane_settings.digest
        return lane_settings

    def configure_uncommitted(self, lane: int, **settings: SettingValue) -> LaneSettings:
        """Sends CONFIGURE for a lane without COMMIT."""
        lane_settings = LaneSettings(QUICK | settings)
        for key, value in lane_settings.values.items():
            self.ok("CONFIGURE", lane, key, value)
        return lane_settings

    def send_verdict(self, part: int, verdict: str, gate: int = 1) -> Frame:
        """Sends VERDICT for a part of lane 1, and returns the answer."""
        return self.ask("VERDICT", 1, self.rig.run, part, verdict, gate if verdict == "divert" else 0)

    def status(self, page: str) -> Fields:
        """Returns a status page of lane 1."""
        return self.ok("STATUS", 1, page)

    # Belt

    def wait(self, ms: int) -> None:
        """Lets board time pass, with a heartbeat."""
        while ms > 0:
            self.ok("PING", self.rig.now_ms())
            self.rig.wait(min(ms, 200))
            ms -= min(ms, 200)
            self._read_answers()

    def block(self, eye: int, ms: int = PART_MS) -> None:
        """Blocks a photo-eye for some milliseconds."""
        self.rig.set_eye(eye, True)
        self.rig.wait(ms)
        self.rig.set_eye(eye, False)
        self.rig.wait(2)
        self._read_answers()

    def carry_to_eye2(self, part_at_ms: int, travel_ms: int = 300) -> None:
        """Waits until the part that was at photo-eye 1 at `part_at_ms` is at photo-eye 2, and lets it pass there."""
        self.wait_until(part_at_ms + travel_ms)
        self.block(2)
        self.rig.wait(30)
        self._read_answers()

    def wait_until(self, ms: int) -> None:
        """Lets board time pass until a time, with a heartbeat."""
        while (left_ms := ms - self.rig.now_ms()) > 0:
            self.rig.send(Frame(">", 0xFF, "PING", ("0",)).encode())
            self.rig.wait(min(left_ms, 200))
            self._read_answers()

    def count_part(self) -> tuple[int, int]:
        """Lets a part pass photo-eye 1. Returns its number and the time of its leading edge."""
        at_ms = self.rig.now_ms()
        self.block(1)
        number = [fields.number("part") for fields in self.events("PART")][-1]
        self.ok("SEEN", 1, self.rig.run, number)
        return number, at_ms

    # Events

    def events(self, name: str) -> list[Fields]:
        """Returns all events of that name so far, with repetitions."""
        self._read_answers()
        return [read_event(name, frame.fields) for frame in self.received if frame.name == name]

    def gate_events(self) -> list[Fields]:
        """Returns and acknowledges the GATE events without repetitions."""
        gates = {fields.number("event"): fields for fields in self.events("GATE")}
        if self.acknowledges:
            for event in gates:
                self.ok("ACK", event)
        return list(gates.values())

    def gate_actions(self) -> list[tuple[int, str, str, int]]:
        """Returns part, action, reason and `moved` of each GATE event."""
        return [(gate.number("part"), gate.word("action"), gate.word("reason"), gate.number("moved")) for gate in self.gate_events()]

    def faults(self) -> list[tuple[int, int, int]]:
        """Returns code, `raised` and detail of each FAULT event, without repetitions."""
        faults = {fields.number("event"): fields for fields in self.events("FAULT")}
        return [(fault.number("code"), fault.number("raised"), fault.number("detail")) for fault in faults.values()]

    def _read_answers(self) -> list[Frame]:
        frames = self.rig.take_frames()
        self.received += [frame for frame in frames if frame.start == "!"]
        return [frame for frame in frames if frame.start == "<"]
