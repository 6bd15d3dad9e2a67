"""One lane of a simulated board: two photo-eyes, a tracker of parts, a gate, and the faults.

    waiting --COMMIT--> running --fault--> safe or stopped --HELLO or CLEAR, depending on the fault--> running

With the setting `lane_of`, the gate stands at the belt of another lane (an additional gate).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from firmware.board import faults
from firmware.board.camera import CameraTrigger
from firmware.board.chute import END_MARGIN_US, LEAVE_MARGIN_US, MAX_CHUTE_PARTS, Chute, EndSwitch
from firmware.board.faults import BYPASSED, EFFECTS, GATE_HELD, STOPPED_LINE, Faults
from firmware.board.gate import Gate
from firmware.board.inputs import Button, Contact, Drive
from firmware.board.plant_interface import WAITING_RESULTS, PlantInterface
from firmware.board.tracker import DecidedPart, Edge, Eye, PartDecision, TrackedPart, Tracker
from firmware.lane_settings import LaneSettings

MAX_PART = 99_999_999
# While the belt moves, an encoder with a broken wire gives one step forwards and one step backwards in turn. So the belt counts as moved
# only after at least this many steps in one direction.
LEAST_STEPS = 2
# An input of the plant interface changes after the new level has lasted for KEY_US. The contacts of a key switch bounce for less time.
KEY_US = 30_000
# Duration of a test that the command TEST begins. The lamp test shows each of the three colours for this time.
TEST_US = 1_000_000
# While the bypass key of a lane is on, the lamp of the lane blinks: it is lit for about half a second, and then dark for as long.
BLINK_US = 512_000


class LaneReporter(Protocol):
    """Gives a lane access to its board: the list of all lanes, and the methods that report events to the host."""

    lanes: list[BoardLane]

    def report_counted(self, lane: int, part: TrackedPart) -> None: ...

    def report_sorted(self, lane: int, part: int, decision: PartDecision, move: GateMove, at_us: int, travel_us: int | None) -> int: ...

    def confirm_sorted(self, event: int, is_seen: bool) -> int: ...

    def report_fault(self, lane: int, code: int, raised: bool, detail: int, at_us: int) -> None: ...

    def keep_faults(self, lane: int, codes: list[int]) -> None: ...


@dataclass
class LaneCounters:
    """The numbers of parts that the lane has diverted, passed and so on since the reset.

    The command STATUS returns these counters on its page `count`.
    """

    diverted: int = 0
    passed: int = 0
    missing: int = 0
    unmatched: int = 0
    no_verdict: int = 0


@dataclass
class ChuteCounters:
    """The numbers of castings at the eye in the reject chute since the reset.

    - `seen`: castings that the eye has seen.
    - `unexpected`: castings that the eye has seen although no gate had diverted them.
    - `unconfirmed`: diverted parts that the eye did not see.
    """

    seen: int = 0
    unexpected: int = 0
    unconfirmed: int = 0


@dataclass(frozen=True)
class GateMove:
    """The movement of a gate for one part.

    - `moved`: whether the gate left its rest position for this part.
    - `moves`: how often the gate has left its rest position since the reset.
    - `is_watched`: whether an eye in the chute must see the part.
    - `awaits_chute`: whether the part is still on its way to this eye.
    """

    moved: bool
    moves: int
    is_watched: bool
    awaits_chute: bool


class BoardLane:
    """A lane of a simulated board. Times are microseconds of the board's clock.

    - `stored`: the lane's settings from the EEPROM, or None if the EEPROM has no valid settings.
    - `stored_faults`: the codes of the faults that the EEPROM kept over the reset, because no person has ended them.
    """

    def __init__(self, number: int, stored: LaneSettings | None, stored_faults: list[int], capacity: int, reporter: LaneReporter) -> None:
        self.number = number
        self.settings = stored or LaneSettings()
        self.is_committed = False
        self.faults = Faults()
        self.counters = LaneCounters()
        self.gate = Gate(self.settings)
        self.tracker = Tracker(self.settings, capacity)
        self.eyes = (Eye(), Eye())
        self._estop_open = Contact()
        self._servo_power_missing = Contact()
        self._belt_off = Contact()
        self._gate_at_end = Contact(restarts=True)
        self._chute_full = Contact(restarts=True)
        self.button = Button()
        self._chute_eye = Contact(restarts=True)
        self.chute_counters = ChuteCounters()
        self._chute = Chute()
        self._end_switch = EndSwitch()
        # The value of the setting `eye_light_on` when the chute's eye was last read.
        self._is_chute_light_on = False
        # True if a casting blocked the chute's eye at the last check.
        self.is_chute_blocked = False
        # The position of the belt when the light of the photo-eye in the chute was last interrupted or restored.
        self._chute_place = 0
        # The position of the belt when the last casting left the chute's eye. None if no casting has left the eye yet.
        self._chute_end: int | None = None
        self._chute_had_room_us = 0
        self._reset_pressed = Contact()
        self._reset_pressed.assume_on(KEY_US)
        self._bypass_on = Contact()
        self._plant = PlantInterface()
        # The number of consecutive parts that were diverted or had no verdict. A passed part with a verdict sets the number to 0.
        self.rejects_in_a_row = 0
        self._drive = Drive()
        self.camera = CameraTrigger()
        # The name and the end time of the last test (command TEST). Camera tests are not stored, because a camera test is only one pulse.
        self._test, self._test_until_us = "", 0
        # True if this lane has no belt of its own, because its gate stands at another lane's belt (an additional gate).
        self.is_further_gate = self.settings.number("lane_of") > 0
        self._has_stored_settings = stored is not None
        self._reporter = reporter
        # The parts between photo-eye 2 and this lane's gate. The board has already decided what to do with them.
        self._armed: list[DecidedPart] = []
        # The leading edges of the objects that block photo-eyes 1 and 2 at present. While a photo-eye is free, its edge is None. When the
        # board decides what to do with a part at photo-eye 2, it sets _edge2 to None, although the part still blocks this photo-eye.
        self._edge1: Edge | None = None
        self._edge2: Edge | None = None
        # The part that blocks photo-eye 1, if it has been counted.
        self._part_at_eye1: TrackedPart | None = None
        # The last part that left photo-eye 1: its trailing edge, its leading edge and the part itself. An object that comes less than
        # part_min_mm behind the trailing edge belongs to this part.
        self._end1: tuple[Edge, Edge, TrackedPart] | None = None
        # The trailing edge of the last part that left photo-eye 2.
        self._end2: Edge | None = None
        self._steps = self._turned_steps = 0
        # The travel of a belt without an encoder since the reset, given as the time in microseconds that this travel takes at full speed.
        # For example, 4 s at half speed add 2,000,000.
        self._running_us = 0.0
        # The number of times that a photo-eye has become blocked since the belt stopped.
        self._edges_at_rest = 0
        self._ticked_us = 0
        self._stepped_us: int | None = None
        # The time at which a photo-eye changed although the encoder gave no steps. If no step follows in time, the lane raises fault 43.
        self._no_step_since_us: int | None = None
        self._missing_in_a_row = self._unmatched_in_a_row = 0
        # After a fault or a reset, missing and unmatched parts are normal. They raise no fault until the belt has moved to this position.
        self._ignore_missing_until: int | None = 0
        for code in (code for code in stored_faults if code in faults.KEPT):
            self.faults.codes.append(code)
            reporter.report_fault(number, code, True, 0, 0)
        if self._is_light_on:
            # After a reset, the lane assumes that the inputs of both photo-eyes are high. With `eye_light_on`, high means blocked, so the
            # stored levels are inverted.
            self._invert_eyes(0)
        if self._has_stored_settings:
            self.gate.hold(self.settings.word("safe"), 0)

    # State

    @property
    def belt(self) -> BoardLane:
        """The lane of the belt at which this gate stands.

        With the setting `lane_of`, the gate stands at the belt of another lane. Otherwise, the gate stands at the belt of its own lane.
        """
        return self._reporter.lanes[self.settings.number("lane_of") - 1] if self.is_further_gate else self

    @property
    def gate_lanes(self) -> list[BoardLane]:
        """All lanes whose gates stand at this belt. The lane of the belt comes first, then the lanes of the additional gates."""
        return [self] + [lane for lane in self._reporter.lanes if lane.is_committed and lane.is_further_gate and lane.belt is self]

    @property
    def is_empty(self) -> bool:
        """True if the belt is empty: no known part is on its way to a gate, and no diverted part is on its way to the eye in a chute."""
        return not self.belt.tracker.parts and not any(lane._armed or not lane._chute.is_empty for lane in self.belt.gate_lanes)

    @property
    def state(self) -> str:
        """The state of the lane as a word of the protocol: waiting, running, safe or stopped."""
        if not self.is_committed:
            return "waiting"
        if self.is_further_gate:
            return self.belt.state
        if self.faults.has(GATE_HELD) or self.is_bypassed:
            return "safe"
        if self.faults.has(STOPPED_LINE):
            return "stopped"
        return "safe" if self.faults.has("host silent") else "running"

    @property
    def lamp(self) -> str:
        """The colour of the lane's lamp: green, yellow or red."""
        if self.is_committed and self.is_further_gate:
            return self.belt.lamp
        if self._has_red_fault:
            return "red"
        if not self.is_committed or self.is_bypassed or self.faults.has("host silent") or self.faults.has("warning"):
            return "yellow"
        return "green"

    def is_lamp_dark(self, now_us: int) -> bool:
        """Returns whether the lamp is dark now. The lamp blinks while the lane is bypassed. A lane without its own belt has no lamp."""
        return self.is_further_gate or (self.is_bypassed and now_us // BLINK_US % 2 == 1)

    @property
    def _has_red_fault(self) -> bool:
        return self.faults.has(GATE_HELD) or self.faults.has(STOPPED_LINE)

    @property
    def is_bypassed(self) -> bool:
        """True if parts pass without Castline, because a person has turned the bypass key."""
        return self.faults.has(BYPASSED)

    @property
    def is_gate_held(self) -> bool:
        """True if a fault or the bypass key holds the lane's gate, so that the gate ignores verdicts."""
        return self.belt.faults.has(GATE_HELD) or self.belt.is_bypassed

    @property
    def uses_plant(self) -> bool:
        """True if the lane's plant interface uses the pins of another lane."""
        return self.settings.number("use_plant") > 0

    @property
    def is_reset_pressed(self) -> bool:
        """True if a person presses the reset button of the plant interface."""
        return self.uses_plant and self._reset_pressed.is_on

    def plant_signals(self) -> dict[str, bool]:
        """Returns the output levels of the plant interface, in the order of the STATUS page `plant`.

        If the setting `use_plant` is 0, all levels are low.
        """
        has_host = self.is_committed and not self.faults.has("host silent")
        signals = {
            "ready": self.state == "running",
            "busy": not self.is_empty,
            **self._plant.signals(has_host, self._has_red_fault),
        }
        return {name: level and self.uses_plant for name, level in signals.items()}

    def is_relay_closed(self, now_us: int) -> bool:
        """Returns whether the lane's relay lets its belt run.

        If the lane's gate stands at another lane's belt, the lane has no belt of its own, and its relay is open.
        """
        is_tested = self._test == "relay" and self.is_testing(now_us)
        if self.is_bypassed:
            return not is_tested and faults.EMERGENCY_STOP not in self.faults.codes
        if self.is_further_gate or is_tested or self.faults.has(STOPPED_LINE):
            return False
        if not self.is_committed:
            return self._has_stored_settings and self.settings.word("safe") != "stop"
        return not (self.faults.has(GATE_HELD) and self.settings.word("safe") == "stop")

    @property
    def tracked(self) -> int:
        """The number of parts between the photo-eyes."""
        return len(self.tracker.parts)

    def place(self) -> int:
        """Returns the position of the belt in thousandths of a step."""
        return self._steps * 1000 if self.settings.number("encoder") else int(self._running_us)

    @property
    def position_steps(self) -> int:
        """The belt's position in steps. Before the first COMMIT, the result is the number of encoder edges."""
        return self.place() // 1000 if self.is_committed else self._steps

    @property
    def is_estop_open(self) -> bool:
        """True if the contact of the emergency stop is open: the stop was pressed, or a wire is broken."""
        return self._estop_open.is_on

    @property
    def has_servo_power(self) -> bool:
        """True if the servo has power, according to the input for its supply."""
        return not self._servo_power_missing.is_on

    @property
    def is_belt_on(self) -> bool:
        """True if the input "belt runs" is on. The setting `use_belt` does not change the result."""
        return not self._belt_off.is_on

    @property
    def is_gate_at_end(self) -> bool:
        """True if the end switch says that the gate stands at one of its two ends."""
        return self._gate_at_end.is_on

    @property
    def is_chute_full(self) -> bool:
        """True if the input "chute full" is on now."""
        return self._chute_full.is_on

    # Inputs of the board

    def change_estop(self, is_open: bool, at_us: int) -> None:
        """Handles a change at the input of the emergency stop."""
        self.advance(max(at_us, self._ticked_us))
        self._estop_open.change(is_open, at_us, self._hold_us)

    def change_servo_power(self, present: bool, at_us: int) -> None:
        """Handles a change at the board's input that shows whether the servo has power."""
        self.advance(max(at_us, self._ticked_us))
        self._servo_power_missing.change(not present, at_us, self._hold_us)

    def change_belt(self, runs: bool, at_us: int) -> None:
        """Handles a change at the input "belt runs"."""
        self.advance(max(at_us, self._ticked_us))
        self._belt_off.change(not runs, at_us, self._hold_us)

    def change_gate_at_end(self, at_end: bool, at_us: int) -> None:
        """Handles a change at the end switch of the lane's gate."""
        self.advance(max(at_us, self._ticked_us))
        self._gate_at_end.change(at_end, at_us, self._hold_us)

    def change_chute_full(self, is_full: bool, at_us: int) -> None:
        """Handles a change at the input "chute full"."""
        self.advance(max(at_us, self._ticked_us))
        self._chute_full.change(is_full, at_us, self._hold_us)

    def change_chute_eye(self, is_low: bool, at_us: int) -> None:
        """Handles a change at the eye in the reject chute. The change is not debounced yet.

        The setting `eye_light_on` of the belt says which level means "blocked".
        """
        self.advance(max(at_us, self._ticked_us))
        self._watch_chute(at_us)
        level = is_low != self._is_chute_light_on
        if level != self._chute_eye.level:
            self._chute_place = self.belt.place()
        self._chute_eye.change(level, at_us, self._hold_us)

    @property
    def is_chute_eye_low(self) -> bool:
        """True if the input of the eye in the reject chute is low."""
        return self._chute_eye.level != self._is_chute_light_on

    def change_button(self, pressed: bool, at_us: int) -> None:
        """Handles a change at the lane's push-button."""
        self.advance(max(at_us, self._ticked_us))
        self.button.change(pressed, at_us)

    def change_reset(self, is_pressed: bool, at_us: int) -> None:
        """Handles a change at the reset button of the lane's plant interface."""
        self.advance(max(at_us, self._ticked_us))
        self._reset_pressed.change(is_pressed, at_us, KEY_US)

    def change_bypass(self, is_on: bool, at_us: int) -> None:
        """Handles a change at the bypass key of the lane's plant interface."""
        self.advance(max(at_us, self._ticked_us))
        self._bypass_on.change(is_on, at_us, KEY_US)

    @property
    def _hold_us(self) -> int:
        return self.settings.number("contact_ms") * 1000

    @property
    def _runs(self) -> bool:
        return self.is_relay_closed(self._ticked_us) and not (self.settings.number("use_belt") and self._belt_off.is_on)

    def advance(self, now_us: int) -> None:
        """Moves the lane's time forward to `now_us`. If a running belt has no encoder, its position is computed from the time."""
        self._drive_belt(now_us - self._ticked_us)
        self._ticked_us, hold_us = now_us, self._hold_us
        for contact in (self._estop_open, self._servo_power_missing, self._gate_at_end, self._chute_full):
            contact.advance(now_us, hold_us)
        if self.button.advance(now_us) and self.settings.number("use_button"):
            self._acknowledge(now_us)
        if self._belt_off.advance(now_us, hold_us) and self.settings.number("use_belt") and self.is_relay_closed(now_us):
            # The belt was switched on or off `hold_us` ago. The lane notices this only now, because it ignores shorter pulses. During
            # `hold_us`, the lane has computed the belt's travel with the old speed. Replace this travel by the correct one.
            self._running_us -= self._drive.speed * hold_us
            self._drive_belt(hold_us)

    @property
    def _is_at_rest(self) -> bool:
        """True if a belt without an encoder stands still. Always False if the setting `use_belt` is 0."""
        return self.settings.number("use_belt") > 0 and not self.settings.number("encoder") and self._drive.speed == 0

    def _drive_belt(self, passed_us: int) -> None:
        # While a belt speeds up or slows down evenly, its average speed is half of the full speed. So the time for `run_up_mm` or
        # `run_down_mm` is twice the time that this distance takes at full speed.
        runs = self._runs
        ramp_us = 2 * self.settings.travel("run_up_mm" if runs else "run_down_mm")
        self._running_us += self._drive.advance(runs, passed_us, ramp_us)
        if self._drive.speed > 0:
            self._edges_at_rest = 0

    def change_eye(self, which: int, is_low: bool, at_us: int) -> None:
        """Handles a change at the input of photo-eye 1 or 2. The change is not debounced yet.

        The setting `eye_light_on` says which level means "blocked".
        """
        self.advance(max(at_us, self._ticked_us))
        self.eyes[which - 1].change(is_low != self._is_light_on, self.place(), at_us, self.settings.number("debounce_us"), self._steps)
        if self.is_committed and self.settings.number("encoder") and self._no_step_since_us is None:
            timeout_us = self.settings.number("encoder_timeout_ms") * 1000
            if self._stepped_us is None or at_us - self._stepped_us > timeout_us:
                self._no_step_since_us = at_us

    @property
    def _is_light_on(self) -> bool:
        return self.settings.number("eye_light_on") > 0

    def is_eye_low(self, which: int) -> bool:
        """Returns whether the input of photo-eye 1 or 2 is low."""
        return self.eyes[which - 1].blocked != self._is_light_on

    def _invert_eyes(self, now_us: int) -> None:
        for eye in self.eyes:
            eye.invert(self.place(), now_us, self.settings.number("debounce_us"), self._steps)

    def add_steps(self, count: int, at_us: int) -> None:
        """Adds encoder edges to the belt's position. A negative count means that the belt ran backwards."""
        self._steps += count
        if abs(self._steps - self._turned_steps) < LEAST_STEPS:
            return
        self._turned_steps = self._steps
        self._stepped_us = at_us
        self._no_step_since_us = None

    # Commands and faults

    def commit(self, settings: LaneSettings, now_us: int) -> None:
        """Uses new settings from now on. If this is the first commit after a reset, the lane begins to count parts."""
        is_changed = settings != self.settings
        was_further_gate, is_first = self.is_further_gate, not self.is_committed
        # A camera pulse waits for a time or, with `trigger_mm`, for a belt position. If the new settings switch between the two, the
        # waiting pulses are deleted.
        if bool(settings.number("trigger_mm")) != bool(self.settings.number("trigger_mm")):
            self.camera.clear()
        inverts = settings.number("eye_light_on") != self.settings.number("eye_light_on")
        self._forget_presses(settings)
        self.settings = self.tracker.settings = settings
        if inverts:
            self._invert_eyes(now_us)
        self.is_further_gate = settings.number("lane_of") > 0
        self._has_stored_settings = True
        if is_changed or is_first:
            self.gate.configure(settings)
        self._restart_gate_checks(now_us)
        self.is_committed = True
        if self.is_further_gate:
            # This lane is now an additional gate, and an additional gate has no faults of its own. So the old faults of this lane end.
            for code in list(self.faults.codes):
                self.end_fault(code, now_us)
            self.gate.hold(self._held_action, now_us)
            return
        if is_first and not settings.number("autostart"):
            self.raise_fault(faults.AWAITING_START, 0, now_us)
        if self.faults.has(GATE_HELD):
            self._hold_gates(now_us)
        elif is_first or was_further_gate or inverts:
            self._begin_counting(now_us)

    def _restart_gate_checks(self, now_us: int) -> None:
        self._end_switch.restart(self.gate.is_out, now_us)
        self._chute_had_room_us = now_us
        for lane in self._reporter.lanes:
            if lane.belt is self.belt:
                # New settings can change the unit of the belt's positions, so the stored position is forgotten.
                lane._chute_end = None

    def _forget_presses(self, settings: LaneSettings) -> None:
        """Ignores a button that is pressed now if the new `settings` change what this button does."""
        if settings.number("use_plant") != self.settings.number("use_plant"):
            self._reset_pressed.assume_on(KEY_US)
        if settings.number("use_button") != self.settings.number("use_button"):
            self.button.forget_press()

    def raise_fault(self, code: int, detail: int, now_us: int) -> None:
        """Begins a fault and reports it. Does nothing if the fault has begun already."""
        if code in self.faults.codes:
            return
        was_held = self.faults.has(GATE_HELD)
        self.faults.codes.append(code)
        self._fault_list_changed()
        self._reporter.report_fault(self.number, code, True, detail, now_us)
        if EFFECTS[code] in (GATE_HELD, STOPPED_LINE):
            self._plant.is_silenced = False
        if EFFECTS[code] == GATE_HELD and not was_held:
            self._remove_parts(now_us)
            self._hold_gates(now_us)

    def end_fault(self, code: int, now_us: int, ended_by: int = faults.ENDED_BY_HOST) -> bool:
        """Ends a fault and reports its end. Returns False if there was no such fault."""
        if code not in self.faults.codes:
            return False
        was_held = self.faults.has(GATE_HELD)
        self.faults.codes.remove(code)
        self._fault_list_changed()
        if code == faults.REJECTS_IN_A_ROW:
            self.rejects_in_a_row = 0
        self._reporter.report_fault(self.number, code, False, ended_by, now_us)
        if was_held and not self.faults.has(GATE_HELD) and self.is_committed and not self.is_further_gate:
            self._begin_counting(now_us)
        return True

    def _fault_list_changed(self) -> None:
        self.tracker.is_host_silent = self.faults.has("host silent")
        self._reporter.keep_faults(self.number, sorted(code for code in self.faults.codes if code in faults.KEPT))

    def has_fault_cause(self, code: int) -> bool:
        """Returns whether the cause of a fault is still there. While the cause is there, the board refuses to end the fault with CLEAR."""
        return (
            (code == faults.EYE1_STUCK and self.eyes[0].blocked)
            or (code == faults.EYE2_STUCK and self.eyes[1].blocked)
            or (code == faults.EMERGENCY_STOP and self.is_estop_open)
            or any(lane._has_gate_fault_cause(code) for lane in self.gate_lanes)
        )

    def _has_gate_fault_cause(self, code: int) -> bool:
        """Returns whether this lane's own gate still causes the fault `code` of the belt."""
        if code == faults.SERVO_POWER:
            return self._lacks_servo_power
        if code == faults.GATE_STUCK:
            return self.settings.number("use_end_switch") > 0 and not self.is_gate_at_end
        return code == faults.CHUTE_FULL and self.settings.number("chute_full_ms") > 0 and self.is_chute_full

    def _acknowledge(self, now_us: int) -> None:
        """Ends each fault of the belt that CLEAR can end and whose cause is gone.

        Called when a person has pressed the push-button or the reset button.
        """
        belt = self.belt
        for code in sorted(belt.faults.codes):
            if faults.ENDS_BY[code] == "CLEAR" and not belt.has_fault_cause(code):
                belt.end_fault(code, now_us, faults.ENDED_BY_BUTTON)

    @property
    def _lacks_servo_power(self) -> bool:
        return not self.has_servo_power and self.settings.number("use_servo_power") > 0

    @property
    def _held_action(self) -> str | None:
        """The action that the lane's gate must keep now, or None in normal operation.

        During the bypass, the action is `pass`. During a fault or before COMMIT, the setting `safe` gives the action.
        """
        if self.belt.is_bypassed:
            return "pass"
        if not self.is_committed:
            return self.settings.word("safe")
        return self.belt.settings.word("safe") if self.belt.faults.has(GATE_HELD) else None

    def _hold_gates(self, now_us: int) -> None:
        """Holds or releases all gates of the belt. All of them are held, because a part that passes one gate reaches the next gate."""
        for lane in self._reporter.lanes:
            if lane._has_stored_settings and lane.belt is self:
                lane.gate.hold(lane._held_action, now_us)

    def _switch_bypass(self, now_us: int) -> None:
        """Begins or ends the bypass after a person has turned the bypass key. During the bypass, the gates let all parts pass."""
        if self.is_bypassed:
            self.end_fault(faults.BYPASS, now_us)
        else:
            self.raise_fault(faults.BYPASS, 0, now_us)
            for lane in self.gate_lanes:
                lane._armed = [DecidedPart(each.part, PartDecision("pass", "safe"), each.edge) for each in lane._armed]
        self._hold_gates(now_us)

    def _tick_plant(self, now_us: int) -> None:
        was_pressed = self.is_reset_pressed
        self._bypass_on.advance(now_us, KEY_US)
        self._reset_pressed.advance(now_us, KEY_US)
        if (self.uses_plant and self._bypass_on.is_on) != self.is_bypassed:
            self._switch_bypass(now_us)
        if self.uses_plant and self.is_reset_pressed and not was_pressed:
            self._plant.is_silenced = True
            self._acknowledge(now_us)
        self._plant.tick(now_us, self.settings.number("result_ms") * 1000)

    # Time

    def tick(self, now_us: int) -> None:
        """Reads the inputs, decides about parts and moves the gate. Must be called at least every few milliseconds."""
        self.advance(now_us)
        self._tick_camera(now_us)
        debounce_us = self.settings.number("debounce_us")
        edges = [(edge, 1) for edge in self.eyes[0].take_edges(now_us, debounce_us)]
        edges += [(edge, 2) for edge in self.eyes[1].take_edges(now_us, debounce_us)]
        if edges:
            self._end_held_pulses(now_us)
        self._watch_chute(now_us)
        self._tick_plant(now_us)
        if not self.is_committed:
            self.gate.tick(0, now_us)
            return
        self._check_gate(now_us)
        if self.is_further_gate:
            if self._lacks_servo_power:
                self.belt.raise_fault(faults.SERVO_POWER, 0, now_us)
            self._act_on_moments(self.belt.place(), now_us)
            self.gate.tick(self.belt.place(), now_us)
            return
        self._check_inputs(now_us)
        place = self.place()
        for edge, which in sorted(edges, key=lambda pair: pair[0].at_us):
            if not self.faults.has(GATE_HELD):
                self._edges_at_rest += edge.blocked and self._is_at_rest
                (self._handle_edge1 if which == 1 else self._handle_edge2)(edge, now_us)
        if not self.faults.has(GATE_HELD):
            self._check_lengths(place, now_us)
        if not self.faults.has(GATE_HELD):
            self._act_on_moments(place, now_us)
        self.gate.tick(place, now_us)

    def _end_held_pulses(self, now_us: int) -> None:
        """Ends the command SERVO at all gates of the belt. Called when a photo-eye has changed, because a part may need the gates."""
        for lane in self._reporter.lanes:
            if lane.belt is self:
                lane.gate.hold_pulse(0, now_us)

    def is_testing(self, now_us: int) -> bool:
        """Returns whether a test of the gate, the relay or the lamp is in progress."""
        return now_us < self._test_until_us

    def test(self, what: str, now_us: int) -> None:
        """Begins the test that the command TEST names: "gate", "trigger", "lamp" or "relay"."""
        if what == "trigger":
            self.trigger_camera()
            return
        self._test, self._test_until_us = what, now_us + TEST_US * (3 if what == "lamp" else 1)
        if what == "gate":
            self.gate.test(now_us)

    def trigger_camera(self, delay_us: int = 0) -> None:
        """Adds a camera pulse that is due in `delay_us` microseconds. If `trigger_mm` is set, the
        pulse is due at once, whatever `delay_us` is.
        """
        self.camera.add(self.place() if self.settings.number("trigger_mm") else self._ticked_us + delay_us)

    def _tick_camera(self, now_us: int) -> None:
        position = self.place() if self.settings.number("trigger_mm") else now_us
        self.camera.tick(position, now_us, self.settings.number("trigger_pulse_ms") * 1000)
        if self.camera.lost and faults.TRIGGER_LOST not in self.faults.codes:
            lost, self.camera.lost = self.camera.lost, 0
            self.raise_fault(faults.TRIGGER_LOST, lost, now_us)

    def _check_inputs(self, now_us: int) -> None:
        settings = self.settings
        if self.is_estop_open and settings.number("use_estop"):
            self.raise_fault(faults.EMERGENCY_STOP, 0, now_us)
        if self._lacks_servo_power:
            self.raise_fault(faults.SERVO_POWER, 0, now_us)
        timeout_us = settings.number("encoder_timeout_ms") * 1000
        if self._no_step_since_us is not None and now_us - self._no_step_since_us >= timeout_us:
            self.raise_fault(faults.ENCODER_STOPPED, (now_us - self._no_step_since_us) // 1000, now_us)
            self._no_step_since_us = None
        if self._edges_at_rest >= settings.number("lost_limit"):
            self._edges_at_rest = 0
            self.raise_fault(faults.ENCODER_STOPPED, 0, now_us)
        for eye, code in zip(self.eyes, (faults.EYE1_STUCK, faults.EYE2_STUCK), strict=True):
            if eye.blocking_edge is not None and self.place() - eye.blocking_edge.place > settings.travel("stuck_mm"):
                self.raise_fault(code, 1, now_us)

    def _handle_edge1(self, edge: Edge, now_us: int) -> None:
        if edge.blocked:
            if self._end1 is not None and edge.place - self._end1[0].place < self.settings.travel("part_min_mm"):
                _, self._edge1, self._part_at_eye1 = self._end1
            else:
                self._edge1, self._part_at_eye1 = edge, None
            return
        if self._edge1 is not None:
            length = edge.place - self._edge1.place
            if self._part_at_eye1 is None and length >= self.settings.travel("part_min_mm"):
                self._count_part(self._edge1, now_us)
            if self._part_at_eye1 is not None and length > self.settings.travel("part_max_mm"):
                self._part_at_eye1.is_touching = True
            self._end1 = None if self._part_at_eye1 is None else (edge, self._edge1, self._part_at_eye1)
        self._edge1 = self._part_at_eye1 = None

    def _handle_edge2(self, edge: Edge, now_us: int) -> None:
        min_length = self.settings.travel("part_min_mm")
        if edge.blocked:
            if self._end2 is None or edge.place - self._end2.place >= min_length:
                self._edge2 = edge
            return
        is_part = self._edge2 is None or edge.place - self._edge2.place >= min_length
        if self._edge2 is not None and is_part:
            self._decide_parts(self._edge2, now_us)
        self._edge2, self._end2 = None, edge if is_part else None

    def _check_lengths(self, place: int, now_us: int) -> None:
        """Counts an object at photo-eye 1 as a part when its length reaches `part_min_mm`.

        When the length of an object at photo-eye 2 reaches `part_min_mm`, decides what happens to this part.
        """
        min_length = self.settings.travel("part_min_mm")
        if self._edge1 is not None:
            if self._part_at_eye1 is None and place - self._edge1.place >= min_length:
                self._count_part(self._edge1, now_us)
            elif self._part_at_eye1 is not None and place - self._edge1.place > self.settings.travel("part_max_mm"):
                self._part_at_eye1.is_touching = True
        if self._edge2 is not None and place - self._edge2.place >= min_length:
            edge, self._edge2 = self._edge2, None
            self._decide_parts(edge, now_us)
        if self._edge2 is None:
            for missing in self.tracker.take_missing(place, now_us):
                self._arm(missing, now_us)

    def _count_part(self, edge: Edge, now_us: int) -> None:
        if self.tracker.count >= MAX_PART:
            self.raise_fault(faults.PARTS_EXHAUSTED, 0, now_us)
            return
        part = self.tracker.add(edge)
        if part is None:
            self.raise_fault(faults.TRACKER_FULL, self.tracked, now_us)
            return
        self._part_at_eye1 = part
        if trigger := self.settings.travel("trigger_mm"):
            self.camera.add(edge.place + trigger)
        else:
            self.camera.add(edge.at_us + self.settings.number("trigger_ms") * 1000)
        self._reporter.report_counted(self.number, part)

    def _decide_parts(self, edge: Edge, now_us: int) -> None:
        for decided in self.tracker.decide_at_eye2(edge):
            if self.faults.has(GATE_HELD):
                # A fault holds the gate. For example, a part before this one was missing, and the lane has raised a fault. The gate does
                # not move for this part, so the part is reported at once.
                safe = PartDecision(self._held_action or self.settings.word("safe"), "safe")
                self._report(DecidedPart(decided.part, safe, Edge(False, self.place(), now_us)), False)
            else:
                self._arm(decided, now_us)

    def _arm(self, decided: DecidedPart, now_us: int) -> None:
        """Stores a part until it reaches its gate. A missing part, or a part with the action `stop`, is reported at once instead."""
        if decided.decision.reason == "missing":
            self.counters.missing += 1
            self._missing_in_a_row += 1
            self._report(decided, False)
            self._check_eyes(now_us)
            return
        is_unjudged = decided.part.number == 0 or decided.part.verdict is None
        if self.is_bypassed:
            decided = DecidedPart(decided.part, PartDecision("pass", "safe"), decided.edge)
            self.tracker.forget_last_part()
        if decided.part.number == 0:
            self.counters.unmatched += 1
            self._unmatched_in_a_row += 1
        else:
            self._missing_in_a_row = self._unmatched_in_a_row = 0
            self._ignore_missing_until = None
            if decided.part.verdict is None:
                self.counters.no_verdict += 1
        if decided.decision.action == "stop":
            self._report(decided, False)
            self.raise_fault(faults.STOPPED, decided.part.number, now_us)
        else:
            gate = decided.decision.gate
            (self._reporter.lanes[gate - 1] if gate else self)._armed.append(decided)
        self._count_reject(is_unjudged or decided.decision.action == "divert", now_us)
        self._check_eyes(now_us)

    def _count_reject(self, is_reject: bool, now_us: int) -> None:
        """Raises fault 57 if `reject_limit` parts in a row were diverted or had no verdict. During the bypass, the count stays 0."""
        self.rejects_in_a_row = self.rejects_in_a_row + 1 if is_reject and not self.is_bypassed else 0
        if 0 < self.settings.number("reject_limit") <= self.rejects_in_a_row:
            self.raise_fault(faults.REJECTS_IN_A_ROW, self.rejects_in_a_row, now_us)

    def _check_eyes(self, now_us: int) -> None:
        """Raises a fault if a photo-eye seems defective.

        - Photo-eye 2 has not seen `lost_limit` parts in a row: these parts are missing.
        - Photo-eye 1 has not counted `lost_limit` parts in a row: these parts are unmatched.
        """
        if self._ignore_missing_until is not None:
            if self.place() < self._ignore_missing_until:
                self._missing_in_a_row = self._unmatched_in_a_row = 0
                return
            self._ignore_missing_until = None
        limit = self.settings.number("lost_limit")
        if self._missing_in_a_row >= limit:
            self.raise_fault(faults.EYE2_STUCK, 2, now_us)
        elif self._unmatched_in_a_row >= limit:
            self.raise_fault(faults.EYE1_STUCK, 2, now_us)

    def _act_on_moments(self, place: int, now_us: int) -> None:
        """Moves the gate for the parts that have reached it, and reports these parts."""
        belt = self.belt.settings
        distance, dwell = belt.places(self.settings.number("gate_mm")), belt.places(self.settings.number("dwell_mm"))
        while self._armed and place >= (moment := self._armed[0].edge.place + distance):
            decided = self._armed.pop(0)
            moved = decided.decision.action == "divert" and self.gate.divert(moment + dwell, now_us)
            is_awaited = decided.decision.action == "divert" and self._has_chute_eye
            event = self._report(decided, moved, is_awaited)
            if is_awaited:
                self._follow_into_chute(event, moment, now_us)
            lane = self.belt
            if lane.uses_plant and not lane.is_bypassed and not lane._plant.add_result(decided.decision.action == "divert"):
                lane.raise_fault(faults.TRACKER_FULL, WAITING_RESULTS, now_us)

    @property
    def _has_chute_eye(self) -> bool:
        return self.settings.number("chute_mm") > 0

    def _follow_into_chute(self, event: int, moment: int, now_us: int) -> None:
        """Adds a diverted part to the parts that the eye in the chute must see. At the belt position `moment`, the part was at the gate."""
        if self._chute.add(event, moment + self.belt.settings.places(self.settings.number("chute_mm"))):
            return
        self._reporter.confirm_sorted(event, False)
        self.chute_counters.unconfirmed += 1
        self.belt.raise_fault(faults.TRACKER_FULL, MAX_CHUTE_PARTS + 1, now_us)

    def _watch_chute(self, now_us: int) -> None:
        belt = self.belt
        if belt._is_light_on != self._is_chute_light_on:
            # The setting `eye_light_on` has changed, so each level of the input now has the opposite meaning. The stored level is inverted
            # too, because the board would otherwise count a casting that does not exist.
            self._is_chute_light_on = belt._is_light_on
            self._chute_eye.invert(self._hold_us)
            self.is_chute_blocked = not self.is_chute_blocked
        self._chute_eye.advance(now_us, self._hold_us)
        if self._chute_eye.is_on == self.is_chute_blocked:
            return
        self.is_chute_blocked = self._chute_eye.is_on
        if not self.is_chute_blocked:
            self._chute_end = self._chute_place
        elif self._chute_end is None or self._chute_place - self._chute_end >= belt.settings.travel("part_min_mm"):
            self._see_in_chute(self._chute_place)

    def _see_in_chute(self, place: int) -> None:
        if not self.is_committed or not self._has_chute_eye:
            return
        self.chute_counters.seen += 1
        belt = self.belt
        event = self._chute.take_nearest(place, belt.settings.places(self.settings.number("chute_window_mm")))
        if event is not None:
            self._reporter.confirm_sorted(event, True)
        elif not belt.faults.has(GATE_HELD) and belt.place() >= (belt._ignore_missing_until or 0):
            # No gate has diverted this casting, so it is unexpected in the chute. Such castings are not counted during a fault and shortly
            # after it: a fault can hold the gate out, and then all castings fall into the chute.
            self.chute_counters.unexpected += 1

    def _check_gate(self, now_us: int) -> None:
        """Raises the faults of this lane's own gate: gate stuck, diverted part not seen in the chute, chute full."""
        belt, settings = self.belt, self.settings
        if settings.number("use_end_switch"):
            servo_us = settings.number("servo_ms") * 1000
            limit_us, leave_us = 2 * servo_us + END_MARGIN_US, servo_us // 2 + self._hold_us + LEAVE_MARGIN_US
            if self.gate.is_pulse_held:
                # During the command SERVO, the gate may stand between its ends. The time limit for reaching an end begins after SERVO.
                self._end_switch.restart(self.gate.is_out, now_us)
            if trouble := self._end_switch.check(self.is_gate_at_end, self.gate.is_out, now_us, limit_us, leave_us):
                belt.raise_fault(faults.GATE_STUCK, trouble, now_us)
        if not self.is_chute_full:
            self._chute_had_room_us = now_us
        full_us = settings.number("chute_full_ms") * 1000
        if full_us and now_us - self._chute_had_room_us >= full_us:
            belt.raise_fault(faults.CHUTE_FULL, 0, now_us)
        for event in self._chute.take_overdue(belt.place(), belt.settings.places(settings.number("chute_window_mm"))):
            self.chute_counters.unconfirmed += 1
            belt.raise_fault(faults.CHUTE_MISSED, self._reporter.confirm_sorted(event, False), now_us)

    def _report(self, decided: DecidedPart, moved: bool, awaits_chute: bool = False) -> int:
        """Reports what this lane's gate did with a part, and returns the number of the event.

        The event names the lane of the belt. Its field `moves` counts the movements of this lane's gate.

        If `awaits_chute` is True, the event is sent when the chute's eye has seen the part, or when the part is overdue.
        """
        action, belt = decided.decision.action, self.belt
        belt.counters.diverted += action == "divert"
        belt.counters.passed += action == "pass"
        part, at_us = decided.part, decided.edge.at_us
        travel_us = at_us - part.edge.at_us if part.number else None
        move = GateMove(moved, self.gate.moves, action == "divert" and self._has_chute_eye, awaits_chute)
        return self._reporter.report_sorted(belt.number, part.number, decided.decision, move, at_us, travel_us)

    def _remove_parts(self, now_us: int) -> None:
        """Removes all parts from the belt when a fault begins. Reports each part with the action of the held gate, such as `divert`."""
        safe = PartDecision(self._held_action or self.settings.word("safe"), "safe")
        edge = Edge(False, self.place(), now_us)
        for lane in self.gate_lanes:
            armed, lane._armed = lane._armed, []
            for decided in armed:
                lane._report(DecidedPart(decided.part, safe, decided.edge), False)
            for event in lane._chute.take_all():
                self._reporter.confirm_sorted(event, False)
        for part in self.tracker.remove_all():
            self._report(DecidedPart(part, safe, edge), False)

    def _begin_counting(self, now_us: int) -> None:
        # A part that blocks a photo-eye now is not counted, because the position of its leading edge is not known.
        self._edge1 = self._edge2 = self._part_at_eye1 = self._end1 = self._end2 = None
        self._edges_at_rest = 0
        for eye in self.eyes:
            eye.take_edges(now_us, 0)
            eye.restart(self.place(), now_us)
        self._missing_in_a_row = self._unmatched_in_a_row = 0
        self._ignore_missing_until = self.place() + self.settings.travel("eye_gap_mm") + self.settings.travel("window_mm")
        self._no_step_since_us = None
        self._hold_gates(now_us)
