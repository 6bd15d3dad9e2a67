"""The simulated board: a state machine that speaks the gate protocol.

    reset --BOOT every second--> HELLO --> CONFIGURE, COMMIT --> counting, deciding, reporting

The firmware of the Mega does the same in C++. The same conformance tests run against both.
"""

from __future__ import annotations

from firmware.board import faults
from firmware.board.events import EventRing, StoredEvent
from firmware.board.lane import BoardLane, GateMove
from firmware.board.memory import BoardMemory
from firmware.board.tracker import PartDecision, TrackedPart
from firmware.fault_table import code_of, error_codes
from firmware.lane_settings import BY_KEY, PLANT_LANES, LaneSettings, SettingValue
from firmware.protocol import COMMAND_OPTIONAL, COMMANDS, EVENT, EVENTS, VERSION, Deframer, Fields, Frame, read_fields

# The limits of this board, which it sends in its answer to HELLO.
LANES, MAX_PARTS, MAX_EVENTS, COMMAND_WINDOW, GRADES = 4, 64, 128, 4, 1

BOOT_INTERVAL_US = 1_000_000
BEAT_INTERVAL_US = 1_000_000
# The board sends PART again at this interval until the host has acknowledged it with SEEN.
PART_INTERVAL_US = 300_000
# The detail of fault 46 (abnormal-reset) for each cause of the reset.
ABNORMAL_CAUSES = {"brown-out": 1, "watchdog": 2, "unknown": 3}
_U32 = 2**32


class CommandError(Exception):
    """Raised when the board refuses a command. `name` is the name of an error in firmware/error_codes.csv.

    The board then answers ERR with the code of this error.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.code = code_of(name)


class Board:
    """A simulated board that was just reset. Times are microseconds since the reset.

    The time of a call must not be before the time of the previous call. The board's clock begins at `clock_ms` milliseconds.
    """

    def __init__(self, memory: BoardMemory, cause: str = "power", clock_ms: int = 0, max_events: int = MAX_EVENTS) -> None:
        self.memory = memory
        self.run = memory.begin_run()
        self.cause = cause
        self.is_greeted = False
        # True if the host reads the field `confirmed` of GATE. The host says so in HELLO.
        self._sends_confirmed = False
        self.clock_ms = clock_ms
        self.events = EventRing(max_events)
        self.lanes = [
            BoardLane(number, memory.settings.get(number), memory.faults.get(number, []), MAX_PARTS, self) for number in range(1, LANES + 1)
        ]
        self.deframer = Deframer(">")
        # Faults that concern the whole board instead of one lane.
        self.board_faults: list[int] = []
        # Values of CONFIGURE that wait for COMMIT, by lane number and key.
        self._uncommitted: dict[int, dict[str, SettingValue]] = {}
        # For each lane, the token (a number) of the last command TEST. If the next TEST has the same token, no new test begins.
        self._test_tokens: dict[int, int] = {}
        self._out = bytearray()
        self._event_seq = 0
        self._received_us = 0
        self._boot_sent_us: int | None = None
        self._beat_sent_us = 0
        if cause in ABNORMAL_CAUSES:
            self._raise_board_fault(faults.ABNORMAL_RESET, ABNORMAL_CAUSES[cause], 0)
        if memory.is_damaged:
            self._raise_board_fault(faults.SETTINGS_LOST, 0, 0)

    # Bytes and time

    def receive(self, data: bytes, now_us: int) -> None:
        """Receives bytes from the host. The next call of `transmit` returns the answers."""
        for frame in self.deframer.feed(data):
            self._received_us = now_us
            self._out += Frame("<", frame.seq, *self._answer(frame, now_us)).encode()

    def transmit(self) -> bytes:
        """Returns the bytes that the board has sent since the last call."""
        out, self._out = bytes(self._out), bytearray()
        return out

    def tick(self, now_us: int) -> None:
        """Moves the board's time forward to `now_us`. Decides about parts, moves gates and sends events."""
        for lane in self.lanes:
            lane.tick(now_us)
            silence_us = now_us - self._received_us
            if lane.is_committed and not lane.is_further_gate and silence_us > lane.settings.number("host_timeout_ms") * 1000:
                lane.raise_fault(faults.HOST_SILENT, silence_us // 1000, now_us)
        if not self.is_greeted:
            if self._boot_sent_us is None or now_us - self._boot_sent_us >= BOOT_INTERVAL_US:
                self._boot_sent_us = now_us
                self._send_event("BOOT", VERSION, self.run, self.cause)
            return
        if now_us - self._beat_sent_us >= BEAT_INTERVAL_US:
            self._beat_sent_us = now_us
            self._send_event("BEAT", *self._heartbeat(now_us))
        self._announce_parts(now_us)
        while (due := self.events.take_due(now_us)) is not None:
            self._send_event(due.name, due.event, *due.fields, *self._confirmation_fields(due))

    def _confirmation_fields(self, event: StoredEvent) -> tuple[object, ...]:
        """Returns the field `confirmed` of a GATE event: 1 if the eye in the chute has seen the part, and 0 if not.

        The result is empty if the chute has no eye, or if the host does not read `confirmed`.

        In the protocol, `confirmed` comes after the field `gate`. If the event has no `gate`, the result begins with a `gate` of 0.
        """
        # Send no `confirmed` to an older host. It does not know the field, and could drop the whole event.
        if event.confirmed is None or not self._sends_confirmed:
            return ()
        has_gate = len(event.fields) == len(EVENTS["GATE"])
        return (event.confirmed,) if has_gate else (0, event.confirmed)

    # State

    def wire_ms(self, at_us: int) -> int:
        """Converts a time to the form of the protocol: milliseconds since the reset, with 32 bits."""
        return (at_us // 1000 + self.clock_ms) % _U32

    @property
    def state(self) -> str:
        """The worst state of the committed lanes. The order from good to bad is: waiting, running, safe, stopped."""
        states = [lane.state for lane in self.lanes if lane.is_committed]
        return max(states, key=("waiting", "running", "safe", "stopped").index, default="waiting")

    @property
    def lamp(self) -> str:
        """The worst lamp colour of the committed lanes: red is the worst, then yellow, then green.

        A warning that concerns the whole board counts as yellow.
        """
        lamps = [lane.lamp for lane in self.lanes if lane.is_committed] or ["yellow"]
        if any(faults.EFFECTS[code] == "warning" for code in self.board_faults):
            lamps.append("yellow")
        return max(lamps, key=("green", "yellow", "red").index)

    def _heartbeat(self, now_us: int) -> tuple[int, str, str, int, int]:
        """Returns the fields of BEAT: board_ms, state, lamp, tracked, pending."""
        return self.wire_ms(now_us), self.state, self.lamp, sum(lane.tracked for lane in self.lanes), self.events.pending

    # A lane calls the following methods to report an event to the board. They implement the class LaneReporter.

    def report_counted(self, lane: int, part: TrackedPart) -> None:
        """Sends the event PART for a part that a lane has just counted."""
        if self.is_greeted:
            part.announced_us = part.edge.at_us
            self._send_part(lane, part)

    def report_sorted(self, lane: int, part: int, decision: PartDecision, move: GateMove, at_us: int, travel_us: int | None) -> int:
        """Stores a GATE event, which says what the gate did with a part. Returns the number of the event.

        `travel_us` is the time since the part was at photo-eye 1. It is None if photo-eye 1 did not count the part.
        """
        travel_ms = 0 if travel_us is None else min(65535, travel_us // 1000)
        further_gate = (decision.gate,) if decision.gate else ()
        fields = lane, self.run, part, decision.action, decision.reason, int(move.moved), move.moves % 65536
        is_unseen = move.is_watched and not move.awaits_chute
        return self.events.add(
            "GATE",
            *fields,
            self.wire_ms(at_us),
            travel_ms,
            *further_gate,
            confirmed=0 if is_unseen else None,
            is_awaited=move.awaits_chute,
        )

    def confirm_sorted(self, event: int, is_seen: bool) -> int:
        """Stores in a GATE event whether the chute's eye has seen the part. Returns the number of the part."""
        return self.events.confirm(event, is_seen)

    def report_fault(self, lane: int, code: int, raised: bool, detail: int, at_us: int) -> None:
        """Stores the event FAULT. Lane 0 means the whole board."""
        self.events.add("FAULT", lane, code, int(raised), detail % _U32, self.wire_ms(at_us))

    def keep_faults(self, lane: int, codes: list[int]) -> None:
        """Stores the codes of the lane's faults that must stay after a reset."""
        self.memory.store_faults(lane, codes)

    def _raise_board_fault(self, code: int, detail: int, now_us: int) -> None:
        if code not in self.board_faults:
            self.board_faults.append(code)
        self.report_fault(0, code, True, detail, now_us)

    def _announce_parts(self, now_us: int) -> None:
        for lane in self.lanes:
            for part in lane.tracker.parts:
                is_due = part.announced_us is None or now_us - part.announced_us >= PART_INTERVAL_US
                if is_due and not part.is_seen_by_host and part.decision is None:
                    part.announced_us = now_us
                    self._send_part(lane.number, part)

    def _send_part(self, lane: int, part: TrackedPart) -> None:
        self._send_event("PART", lane, self.run, part.number, self.wire_ms(part.edge.at_us))

    def _send_event(self, name: str, *fields: object) -> None:
        self._out += Frame(EVENT, self._event_seq, name, tuple(str(field) for field in fields)).encode()
        self._event_seq = (self._event_seq + 1) % 256

    # Each command has a method. The method returns the fields of the answer OK, or raises CommandError for the answer ERR.

    def _answer(self, frame: Frame, now_us: int) -> tuple[str, tuple[str, ...]]:
        """Returns the name (OK or ERR) and the fields of the answer to a command."""
        try:
            fields = self._check_command(frame)
            values = getattr(self, f"_do_{frame.name.lower()}")(fields, now_us)
        except CommandError as error:
            return "ERR", (str(error.code), error_codes()[error.code].name)
        return "OK", tuple(str(value) for value in values)

    def _check_command(self, frame: Frame) -> Fields:
        if frame.name not in COMMANDS:
            raise CommandError("unknown-command")
        names, _, needs = COMMANDS[frame.name]
        try:
            fields = read_fields((*names, *COMMAND_OPTIONAL.get(frame.name, ())[: len(frame.fields) - len(names)]), frame.fields)
        except ValueError:
            raise CommandError("wrong-fields") from None
        if needs and not self.is_greeted:
            raise CommandError("not-greeted")
        if "lane" in fields:
            lane = fields.number("lane")
            is_for_board = frame.name == "CLEAR" or fields.get("page") == "link"
            if lane > len(self.lanes) or (lane == 0 and not is_for_board):
                raise CommandError("unknown-lane")
            if needs == "commit" and not self.lanes[lane - 1].is_committed:
                raise CommandError("not-committed")
        return fields

    def _lane(self, fields: Fields) -> BoardLane:
        return self.lanes[fields.number("lane") - 1]

    def _do_hello(self, fields: Fields, now_us: int) -> tuple[object, ...]:
        self.is_greeted = True
        self._sends_confirmed = fields.get("confirms") == 1
        self._beat_sent_us = now_us
        self.events.send_all_again()
        for lane in self.lanes:
            lane.end_fault(faults.HOST_SILENT, now_us)
        return VERSION, self.run, self.cause, LANES, MAX_PARTS, self.events.size, COMMAND_WINDOW, GRADES

    def _do_raise(self, fields: Fields, _: int) -> tuple[object, ...]:
        run = fields.number("run")
        if run > self.run:
            self.run = run
            self.memory.raise_run(run)
            self.events.set_run(run)
        return (self.run,)

    def _do_configure(self, fields: Fields, _: int) -> tuple[object, ...]:
        key = fields.word("key")
        if key not in BY_KEY:
            raise CommandError("unknown-setting")
        try:
            value = BY_KEY[key].read(fields.word("value"))
        except ValueError:
            raise CommandError("out-of-bounds") from None
        self._uncommitted.setdefault(fields.number("lane"), {})[key] = value
        return key, value

    def _do_commit(self, fields: Fields, now_us: int) -> tuple[object, ...]:
        lane = self._lane(fields)
        try:
            settings = LaneSettings(lane.settings.values | self._uncommitted.get(lane.number, {}))
        except ValueError:
            raise CommandError("inconsistent") from None
        if not self._are_gates_consistent(lane, settings) or not self._are_plant_pins_free(lane, settings):
            raise CommandError("inconsistent")
        if settings != lane.settings and not lane.is_empty:
            raise CommandError("busy")
        self._uncommitted.pop(lane.number, None)
        self.memory.store(lane.number, settings)
        lane.commit(settings, now_us)
        for code in (faults.ABNORMAL_RESET, faults.SETTINGS_LOST):
            if code in self.board_faults:
                self.board_faults.remove(code)
                self.report_fault(0, code, False, 0, now_us)
        return (settings.digest, *self._warnings(settings))

    def _warnings(self, settings: LaneSettings) -> tuple[str, ...]:
        """Returns the warning for the answer to COMMIT: `gate-far`, `chute-far` or nothing.

        A warning means that more castings can be behind photo-eye 2 than the board can store.
        """
        belt = self.lanes[settings.number("lane_of") - 1].settings if settings.number("lane_of") else settings
        spacing_mm = belt.number("spacing_mm")
        if settings.is_gate_far(spacing_mm):
            return ("gate-far",)
        return ("chute-far",) if settings.is_chute_far(spacing_mm) else ()

    def _are_gates_consistent(self, lane: BoardLane, settings: LaneSettings) -> bool:
        """Returns whether the new settings of `lane` agree with the settings of the other lanes.

        - The setting `lane_of` says at which belt the gate of `lane` stands. The lane of that belt must be committed first.
        - All gates of a belt, and the eyes in their chutes, must be at most 500,000 steps behind photo-eye 2.
        """
        belt_number, step_nm = settings.number("lane_of"), settings.step_nm
        if belt_number:
            belt = self.lanes[belt_number - 1]
            is_possible = belt is not lane and belt.is_committed and not belt.is_further_gate and not lane.gate_lanes[1:]
            return is_possible and settings.is_gate_within_reach(belt.settings.step_nm)
        return all(gate_lane.settings.is_gate_within_reach(step_nm) for gate_lane in lane.gate_lanes[1:])

    def _are_plant_pins_free(self, lane: BoardLane, settings: LaneSettings) -> bool:
        """Returns whether no other lane uses the pins that the lane and its plant interface need.

        The plant interface of lane 1 needs the pins of lane 3. The plant interface of lane 2 needs the pins of lane 4.
        """
        if lane.number in PLANT_LANES:
            return not settings.number("use_plant") or not self.lanes[PLANT_LANES[lane.number] - 1].is_committed
        lender = next(number for number, spare in PLANT_LANES.items() if spare == lane.number)
        return not settings.number("use_plant") and not self.lanes[lender - 1].uses_plant

    def _do_show(self, fields: Fields, _: int) -> tuple[object, ...]:
        key = fields.word("key")
        if key not in BY_KEY:
            raise CommandError("unknown-setting")
        return key, self._lane(fields).settings.values[key]

    def _do_ping(self, _: Fields, now_us: int) -> tuple[object, ...]:
        return self._heartbeat(now_us)

    def _do_sync(self, _: Fields, now_us: int) -> tuple[object, ...]:
        return self.wire_ms(now_us), now_us % 1000

    def _find_undecided_part(self, fields: Fields) -> TrackedPart:
        """Returns the part that a command names by run number and part number.

        Raises CommandError if the part is unknown, or if the board has already decided what to do with it.
        """
        if fields.number("run") != self.run:
            raise CommandError("unknown-run")
        tracker, number = self._lane(fields).tracker, fields.number("part")
        if not 1 <= number <= tracker.count:
            raise CommandError("unknown-part")
        part = tracker.find(number)
        if part is None or part.decision is not None:
            raise CommandError("late")
        return part

    def _do_verdict(self, fields: Fields, _: int) -> tuple[object, ...]:
        verdict, gate = fields.word("verdict"), fields.number("gate")
        if (verdict == "keep") != (gate == 0):
            raise CommandError("wrong-fields")
        lane = self._lane(fields)
        if gate and gate not in [gate_lane.number for gate_lane in lane.gate_lanes]:
            raise CommandError("not-supported")
        further_gate = 0 if gate == lane.number else gate
        part = self._find_undecided_part(fields)
        if part.verdict is None:
            part.verdict, part.gate = verdict, further_gate
            return ("accepted",)
        if (part.verdict, part.gate) != (verdict, further_gate):
            raise CommandError("conflict")
        return ("same",)

    def _do_cancel(self, fields: Fields, _: int) -> tuple[object, ...]:
        part = self._find_undecided_part(fields)
        if part.verdict is None:
            return ("none",)
        part.verdict, part.gate, part.is_cancelled = None, 0, True
        return ("cancelled",)

    def _do_seen(self, fields: Fields, _: int) -> tuple[object, ...]:
        if fields.number("run") != self.run:
            raise CommandError("unknown-run")
        if (part := self._lane(fields).tracker.find(fields.number("part"))) is not None:
            part.is_seen_by_host = True
        return ()

    def _do_ack(self, fields: Fields, now_us: int) -> tuple[object, ...]:
        self.events.acknowledge(fields.number("event"))
        if self.events.unreported and not self.events.is_full:
            lost, self.events.unreported = self.events.unreported, 0
            self._raise_board_fault(faults.EVENTS_LOST, lost, now_us)
        return ()

    def _do_status(self, fields: Fields, now_us: int) -> tuple[object, ...]:
        page = fields.word("page")
        if page == "link":
            return page, self.deframer.good, self.deframer.damaged, 0, self.events.pending, self.events.lost
        lane = self._lane(fields)
        if page == "line":
            oldest_fault = lane.belt.faults.oldest or (self.board_faults[0] if self.board_faults else 0)
            return page, lane.state, oldest_fault, lane.lamp, lane.tracked
        if page == "count":
            counters = lane.counters
            parts = lane.tracker.count
            return page, parts, counters.diverted, counters.passed, counters.missing, counters.unmatched, counters.no_verdict
        if page in ("edge1", "edge2"):
            log = lane.eyes[0 if page == "edge1" else 1].log
            length = log.length_us // 1000, log.length_steps % _U32
            return page, log.count % 65536, self.wire_ms(log.at_us), log.steps % _U32, *length
        if page == "gate":
            gate = lane.gate
            return page, gate.pulse_us, gate.position(now_us), gate.moves, int(lane.has_servo_power), int(lane.is_estop_open)
        if page == "chute":
            counts = lane.chute_counters
            levels = lane.is_gate_at_end, lane.is_chute_blocked, lane.is_chute_full, lane.button.is_pressed
            return page, *(int(level) for level in levels), counts.seen, counts.unexpected, counts.unconfirmed
        if page == "plant":
            inputs = lane.is_reset_pressed, lane.is_bypassed
            return page, *(int(level) for level in (*lane.plant_signals().values(), *inputs)), min(lane.rejects_in_a_row, 255)
        return page, int(lane.eyes[0].blocked), int(lane.eyes[1].blocked), lane.position_steps % _U32, int(lane.is_belt_on)

    def _do_test(self, fields: Fields, now_us: int) -> tuple[object, ...]:
        lane, token, what = self._lane(fields), fields.number("token"), fields.word("what")
        if self._test_tokens.get(lane.number) == token:
            return ("same",)
        if not lane.is_empty or lane.is_testing(now_us) or lane.gate.is_pulse_held:
            raise CommandError("busy")
        if what == "gate" and (lane.is_gate_held or not lane.is_committed):
            raise CommandError("fault-present" if lane.is_committed else "not-committed")
        self._test_tokens[lane.number] = token
        lane.test(what, now_us)
        return ("done",)

    def _do_servo(self, fields: Fields, now_us: int) -> tuple[object, ...]:
        lane, pulse_us = self._lane(fields), fields.number("servo_us")
        if pulse_us:
            if pulse_us < BY_KEY["rest_us"].least:
                raise CommandError("out-of-bounds")
            if not lane.is_empty or lane.is_testing(now_us) or any(eye.blocked for eye in lane.belt.eyes):
                raise CommandError("busy")
            if lane.is_gate_held:
                raise CommandError("fault-present")
        lane.gate.hold_pulse(pulse_us, now_us)
        return ("done",)

    def _do_clear(self, fields: Fields, now_us: int) -> tuple[object, ...]:
        code, lane = fields.number("code"), fields.number("lane")
        in_force = self.board_faults if lane == 0 else self._lane(fields).faults.codes
        if code not in in_force:
            return ("none",)
        if faults.ENDS_BY[code] != "CLEAR":
            raise CommandError("not-clearable")
        if lane == 0:
            in_force.remove(code)
            self.report_fault(0, code, False, 0, now_us)
        elif self._lane(fields).has_fault_cause(code):
            raise CommandError("fault-present")
        else:
            self._lane(fields).end_fault(code, now_us)
        return ("cleared",)
