"""How the board answers each command. See firmware/PROTOCOL.md, "Commands"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firmware.board import faults
from firmware.board.frames import Frame
from firmware.board.lane import Lane
from firmware.board.lane_settings import BY_KEY, LaneSettings, Value
from firmware.board.tracker import Part
from firmware.board.words import COMMANDS, VERSION, Fields, read_fields
from firmware.fault_table import code_of, error_codes

if TYPE_CHECKING:
    from firmware.board.board import Board

# What this build of the board holds, as HELLO tells it.
LANES, PARTS, EVENTS, WINDOW, GRADES = 4, 64, 128, 4, 1


class Refused(Exception):
    """The command is answered with ERR and this code's number."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.code = code_of(name)


class Commands:
    """Answers for one board; remembers only the values put aside by CONFIGURE and the last test's token."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._aside: dict[int, dict[str, Value]] = {}
        self._tokens: dict[int, int] = {}

    def answer(self, frame: Frame, now_us: int) -> tuple[str, tuple[str, ...]]:
        """Name and fields of the answer."""
        try:
            fields = self._admit(frame)
            values = getattr(self, f"_{frame.name.lower()}")(fields, now_us)
        except Refused as refused:
            return "ERR", (str(refused.code), error_codes()[refused.code].name)
        return "OK", tuple(str(value) for value in values)

    def _admit(self, frame: Frame) -> Fields:
        if frame.name not in COMMANDS:
            raise Refused("unknown-command")
        names, _, needs = COMMANDS[frame.name]
        try:
            fields = read_fields(names, frame.fields)
        except ValueError:
            raise Refused("wrong-fields") from None
        if needs and not self._board.greeted:
            raise Refused("not-greeted")
        if "lane" in fields:
            lane = fields.number("lane")
            whole_board = frame.name == "CLEAR" or fields.get("page") == "link"
            if lane > len(self._board.lanes) or (lane == 0 and not whole_board):
                raise Refused("unknown-lane")
            if needs == "commit" and not self._board.lanes[lane - 1].committed:
                raise Refused("not-committed")
        return fields

    def _lane(self, fields: Fields) -> Lane:
        return self._board.lanes[fields.number("lane") - 1]

    def _hello(self, _: Fields, now_us: int) -> tuple[object, ...]:
        self._board.greet(now_us)
        return VERSION, self._board.run, self._board.cause, LANES, PARTS, EVENTS, WINDOW, GRADES

    def _configure(self, fields: Fields, _: int) -> tuple[object, ...]:
        key = fields.word("key")
        if key not in BY_KEY:
            raise Refused("unknown-setting")
        try:
            value = BY_KEY[key].read(fields.word("value"))
        except ValueError:
            raise Refused("out-of-bounds") from None
        self._aside.setdefault(fields.number("lane"), {})[key] = value
        return key, value

    def _commit(self, fields: Fields, now_us: int) -> tuple[object, ...]:
        lane = self._lane(fields)
        values = lane.settings.values | self._aside.get(lane.number, {})
        try:
            settings = LaneSettings(values)
        except ValueError:
            raise Refused("inconsistent") from None
        if not self._consistent(lane, settings):
            raise Refused("inconsistent")
        if settings != lane.settings and not lane.empty:
            raise Refused("busy")
        self._aside.pop(lane.number, None)
        self._board.memory.store(lane.number, settings)
        lane.commit(settings, now_us)
        for code in (faults.ABNORMAL_RESET, faults.SETTINGS_LOST):
            if code in self._board.board_faults:
                self._board.board_faults.remove(code)
                self._board.fault(0, code, False, 0, now_us)
        return (settings.digest,)

    def _consistent(self, lane: Lane, wanted: LaneSettings) -> bool:
        """A further gate is at a belt of its own board that is in force, and at one only; all gates lie within the belt's reach."""
        number, step_um = wanted.number("lane_of"), wanted.number("step_um")
        if number:
            belt = self._board.lanes[number - 1]
            fits = belt is not lane and belt.committed and not belt.further and not lane.gates[1:]
            return fits and wanted.gate_within_reach(belt.settings.number("step_um"))
        return all(gate.settings.gate_within_reach(step_um) for gate in lane.gates[1:])

    def _show(self, fields: Fields, _: int) -> tuple[object, ...]:
        key = fields.word("key")
        if key not in BY_KEY:
            raise Refused("unknown-setting")
        return key, self._lane(fields).settings.values[key]

    def _ping(self, _: Fields, now_us: int) -> tuple[object, ...]:
        return self._board.beat(now_us)

    def _sync(self, _: Fields, now_us: int) -> tuple[object, ...]:
        return self._board.wire_ms(now_us), now_us % 1000

    def _part(self, fields: Fields) -> Part:
        """The tracked, undecided part that the command speaks of."""
        if fields.number("run") != self._board.run:
            raise Refused("unknown-run")
        tracker, part = self._lane(fields).tracker, fields.number("part")
        if not 1 <= part <= tracker.count:
            raise Refused("unknown-part")
        found = tracker.find(part)
        if found is None or found.decision is not None:
            raise Refused("late")
        return found

    def _verdict(self, fields: Fields, _: int) -> tuple[object, ...]:
        verdict, gate = fields.word("verdict"), fields.number("gate")
        if (verdict == "keep") != (gate == 0):
            raise Refused("wrong-fields")
        lane = self._lane(fields)
        if gate and gate not in [each.number for each in lane.gates]:
            raise Refused("not-supported")
        further = 0 if gate == lane.number else gate
        part = self._part(fields)
        if part.verdict is None:
            part.verdict, part.gate = verdict, further
            return ("accepted",)
        if (part.verdict, part.gate) != (verdict, further):
            raise Refused("conflict")
        return ("same",)

    def _cancel(self, fields: Fields, _: int) -> tuple[object, ...]:
        part = self._part(fields)
        if part.verdict is None:
            return ("none",)
        part.verdict, part.gate, part.cancelled = None, 0, True
        return ("cancelled",)

    def _seen(self, fields: Fields, _: int) -> tuple[object, ...]:
        if fields.number("run") != self._board.run:
            raise Refused("unknown-run")
        if (part := self._lane(fields).tracker.find(fields.number("part"))) is not None:
            part.seen = True
        return ()

    def _ack(self, fields: Fields, now_us: int) -> tuple[object, ...]:
        self._board.acknowledge(fields.number("event"), now_us)
        return ()

    def _status(self, fields: Fields, now_us: int) -> tuple[object, ...]:
        page, board = fields.word("page"), self._board
        if page == "link":
            framer = board.deframer
            return page, framer.good, framer.damaged, 0, board.events.pending, board.events.lost
        lane = self._lane(fields)
        if page == "line":
            oldest = lane.belt.faults.oldest or (board.board_faults[0] if board.board_faults else 0)
            return page, lane.state, oldest, lane.lamp, lane.tracked
        if page == "count":
            counts = lane.counts
            return page, lane.tracker.count, counts.diverted, counts.passed, counts.missing, counts.unmatched, counts.no_verdict
        if page == "gate":
            gate = lane.gate
            return page, gate.pulse_us, gate.position(now_us), gate.moves, int(lane.servo_power), int(lane.estop_open)
        return page, int(lane.eyes[0].blocked), int(lane.eyes[1].blocked), lane.place() // 1000 % 2**32

    def _test(self, fields: Fields, now_us: int) -> tuple[object, ...]:
        lane, token, what = self._lane(fields), fields.number("token"), fields.word("what")
        if self._tokens.get(lane.number) == token:
            return ("same",)
        if not lane.empty or lane.gate.testing:
            raise Refused("busy")
        if what == "gate" and (lane.belt.faults.has(faults.HELD) or not lane.committed):
            raise Refused("fault-present" if lane.committed else "not-committed")
        self._tokens[lane.number] = token
        if what == "gate":
            lane.gate.test(now_us)
        elif what == "trigger":
            lane.trigger_pulses.append(now_us)
        elif what == "relay":
            lane.relay_test_until_us = now_us + 1_000_000
        return ("done",)

    def _clear(self, fields: Fields, now_us: int) -> tuple[object, ...]:
        code, lane = fields.number("code"), fields.number("lane")
        in_force = self._board.board_faults if lane == 0 else self._lane(fields).faults.codes
        if code not in in_force:
            return ("none",)
        if faults.ENDS_BY[code] != "CLEAR":
            raise Refused("not-clearable")
        if lane == 0:
            in_force.remove(code)
            self._board.fault(0, code, False, 0, now_us)
        elif self._lane(fields).cause_persists(code):
            raise Refused("fault-present")
        else:
            self._lane(fields).end(code, now_us)
        return ("cleared",)
