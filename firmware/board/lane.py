"""One lane of a board: two photo-eyes, a tracker, a gate, and the faults that take the lane to its safe state.

    waiting --COMMIT--> running --fault--> safe or stopped --HELLO or CLEAR, by fault--> running
A lane committed with `lane_of` is no belt of its own but a further gate of another lane's belt: that one decides, and faults are its.
Driven by `eye`, `steps` and `tick`; what it has to say goes to `Speaker`. Times are board microseconds. Longer than other
modules: what a fault does to eyes, tracker and gate together is read in one place, as in the firmware's lane.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from firmware.board import faults
from firmware.board.eye import Edge, Eye
from firmware.board.faults import EFFECTS, HELD, Faults
from firmware.board.gate import Gate
from firmware.board.lane_settings import LaneSettings
from firmware.board.tracker import Decided, Decision, Part, Tracker

LAST_PART = 99_999_999


class Speaker(Protocol):
    """What a lane needs of its board: to be heard, and its neighbours."""

    lanes: list[Lane]

    def part(self, lane: int, part: Part) -> None: ...

    def gate(self, lane: int, part: int, decision: Decision, moved: bool, moves: int, at_us: int, travel_us: int | None) -> None: ...

    def fault(self, lane: int, code: int, raised: bool, detail: int, at_us: int) -> None: ...


@dataclass
class Counts:
    """Counters since the reset, for STATUS."""

    diverted: int = 0
    passed: int = 0
    missing: int = 0
    unmatched: int = 0
    no_verdict: int = 0


class Lane:
    """`stored` are the settings of the EEPROM, None when nothing valid was there."""

    def __init__(self, number: int, stored: LaneSettings | None, capacity: int, speaker: Speaker) -> None:
        self.number = number
        self.settings = stored or LaneSettings()
        self.committed = False
        self.faults = Faults()
        self.counts = Counts()
        self.gate = Gate(self.settings)
        self.tracker = Tracker(self.settings, capacity)
        self.eyes = (Eye(), Eye())
        self.estop_open = False
        self.servo_power = True
        self.trigger_pulses: list[int] = []
        self.relay_test_until_us = 0
        self.further = self.settings.number("lane_of") > 0  # a further gate of another lane's belt
        self._stored = stored is not None
        self._speaker = speaker
        self._armed: list[Decided] = []
        self._edge1: Edge | None = None
        self._edge2: Edge | None = None
        self._counted1: Part | None = None
        self._steps = 0
        self._running_us = 0
        self._ticked_us = 0
        self._stepped_us: int | None = None
        self._suspect_us: int | None = None
        self._missing_row = self._unmatched_row = 0
        self._grace_until: int | None = 0
        if self._stored:
            self.gate.hold(self.settings.word("safe"), 0)

    # What others ask

    @property
    def belt(self) -> Lane:
        """The lane whose belt this gate is at: itself, but for a further gate."""
        return self._speaker.lanes[self.settings.number("lane_of") - 1] if self.further else self

    @property
    def gates(self) -> list[Lane]:
        """The lanes whose gates are at this belt, its own first."""
        return [self] + [lane for lane in self._speaker.lanes if lane.committed and lane.further and lane.belt is self]

    @property
    def empty(self) -> bool:
        """No part between photo-eye 1 and the last gate of the belt."""
        return not self.belt.tracker.parts and not any(gate._armed for gate in self.belt.gates)

    @property
    def state(self) -> str:
        if not self.committed:
            return "waiting"
        if self.further:
            return self.belt.state
        if self.faults.has(HELD) or self.faults.has("host silent"):
            return "stopped" if self.faults.has("stopped") and not self.faults.has(HELD) else "safe"
        return "stopped" if self.faults.has("stopped") else "running"

    @property
    def lamp(self) -> str:
        if self.committed and self.further:
            return self.belt.lamp
        if self.faults.has(HELD) or self.faults.has("stopped"):
            return "red"
        if not self.committed or self.faults.has("host silent") or self.faults.has("warning"):
            return "yellow"
        return "green"

    def relay_closed(self, now_us: int) -> bool:
        """False stops the belt; a further gate's is always open."""
        if self.further or now_us < self.relay_test_until_us or self.faults.has("stopped"):
            return False
        if not self.committed:
            return self._stored and self.settings.word("safe") != "stop"
        return not (self.faults.has(HELD) and self.settings.word("safe") == "stop")

    @property
    def tracked(self) -> int:
        return len(self.tracker.parts)

    def place(self) -> int:
        """Belt position in thousandths of a step."""
        return self._steps * 1000 if self.settings.number("encoder") else self._running_us

    # What the plant does

    def advance(self, now_us: int) -> None:
        """Time passes; without encoder the belt's time stands still while the relay is open."""
        if self.relay_closed(self._ticked_us):
            self._running_us += now_us - self._ticked_us
        self._ticked_us = now_us

    def eye(self, which: int, blocked: bool, at_us: int) -> None:
        """The raw level of photo-eye 1 or 2."""
        self.advance(max(at_us, self._ticked_us))
        self.eyes[which - 1].change(blocked, self.place(), at_us, self.settings.number("debounce_us"))
        if self.committed and self.settings.number("encoder") and self._suspect_us is None:
            timeout_us = self.settings.number("encoder_timeout_ms") * 1000
            if self._stepped_us is None or at_us - self._stepped_us > timeout_us:
                self._suspect_us = at_us

    def steps(self, count: int, at_us: int) -> None:
        """Encoder edges; backwards is negative."""
        self._steps += count
        self._stepped_us = at_us
        self._suspect_us = None

    # What the host does

    def commit(self, settings: LaneSettings, now_us: int) -> None:
        """Puts `settings` in force; the first commit after the reset begins the counting."""
        changed = settings != self.settings
        was_further, first = self.further, not self.committed
        self.settings = self.tracker.settings = settings
        self.further = settings.number("lane_of") > 0
        self._stored = True
        if changed or first:
            self.gate.configure(settings)
        self.committed = True
        if self.further:
            for code in list(self.faults.codes):  # it has no belt that they could be of
                self.end(code, now_us)
            self.gate.hold(self.belt.settings.word("safe") if self.belt.faults.has(HELD) else None, now_us)
        elif first or was_further:
            self._begin_counting(now_us)

    def raise_fault(self, code: int, detail: int, now_us: int) -> None:
        if code in self.faults.codes:
            return
        held_before = self.faults.has(HELD)
        self.faults.codes.append(code)
        self.tracker.deaf = self.faults.has("host silent")
        self._speaker.fault(self.number, code, True, detail, now_us)
        if EFFECTS[code] == HELD and not held_before:
            self._flush(now_us)
            self._hold_gates(self.settings.word("safe"), now_us)

    def end(self, code: int, now_us: int) -> bool:
        """The fault is over; True when it had been in force."""
        if code not in self.faults.codes:
            return False
        held_before = self.faults.has(HELD)
        self.faults.codes.remove(code)
        self.tracker.deaf = self.faults.has("host silent")
        self._speaker.fault(self.number, code, False, 0, now_us)
        if held_before and not self.faults.has(HELD) and self.committed and not self.further:
            self._begin_counting(now_us)
        return True

    def cause_persists(self, code: int) -> bool:
        return (
            (code == faults.EYE1_STUCK and self.eyes[0].blocked)
            or (code == faults.EYE2_STUCK and self.eyes[1].blocked)
            or (code == faults.SERVO_POWER and any(gate.supply_fails for gate in self.gates))
            or (code == faults.EMERGENCY_STOP and self.estop_open)
        )

    @property
    def supply_fails(self) -> bool:
        return not self.servo_power and self.settings.number("use_servo_power") > 0

    def _hold_gates(self, action: str | None, now_us: int) -> None:
        # All gates of the belt do the same: a part that has passed one of them meets the next.
        for lane in self.gates:
            lane.gate.hold(action, now_us)

    # What time does

    def tick(self, now_us: int) -> None:
        """Called at least every few milliseconds; never blocks."""
        self.advance(now_us)
        if not self.committed:
            return
        if self.further:
            if self.supply_fails:
                self.belt.raise_fault(faults.SERVO_POWER, 0, now_us)
            self._moments(self.belt.place(), now_us)
            self.gate.tick(self.belt.place(), now_us)
            return
        self._watch(now_us)
        place, debounce_us = self.place(), self.settings.number("debounce_us")
        edges = [(edge, 1) for edge in self.eyes[0].settle(now_us, debounce_us)]
        edges += [(edge, 2) for edge in self.eyes[1].settle(now_us, debounce_us)]
        for edge, which in sorted(edges, key=lambda pair: pair[0].at_us):
            if not self.faults.has(HELD):
                (self._at_eye1 if which == 1 else self._at_eye2)(edge, now_us)
        if not self.faults.has(HELD):
            self._lengths(place, now_us)
        if not self.faults.has(HELD):
            self._moments(place, now_us)
        self.gate.tick(place, now_us)

    def _watch(self, now_us: int) -> None:
        settings = self.settings
        if self.estop_open and settings.number("use_estop"):
            self.raise_fault(faults.EMERGENCY_STOP, 0, now_us)
        if self.supply_fails:
            self.raise_fault(faults.SERVO_POWER, 0, now_us)
        timeout_us = settings.number("encoder_timeout_ms") * 1000
        if self._suspect_us is not None and now_us - self._suspect_us >= timeout_us:
            self.raise_fault(faults.ENCODER_STOPPED, (now_us - self._suspect_us) // 1000, now_us)
            self._suspect_us = None
        for eye, code in zip(self.eyes, (faults.EYE1_STUCK, faults.EYE2_STUCK), strict=True):
            if eye.since is not None and self.place() - eye.since.place > settings.travel("stuck_mm"):
                self.raise_fault(code, 1, now_us)

    def _at_eye1(self, edge: Edge, now_us: int) -> None:
        if edge.blocked:
            self._edge1, self._counted1 = edge, None
            return
        if self._edge1 is not None:
            length = edge.place - self._edge1.place
            if self._counted1 is None and length >= self.settings.travel("part_min_mm"):
                self._count(self._edge1, now_us)
            if self._counted1 is not None and length > self.settings.travel("part_max_mm"):
                self._counted1.touching = True
        self._edge1 = self._counted1 = None

    def _at_eye2(self, edge: Edge, now_us: int) -> None:
        if edge.blocked:
            self._edge2 = edge
            return
        if self._edge2 is not None and edge.place - self._edge2.place >= self.settings.travel("part_min_mm"):
            self._decide(self._edge2, now_us)
        self._edge2 = None

    def _lengths(self, place: int, now_us: int) -> None:
        """Parts that stand before an eye are known as soon as they are long enough."""
        least = self.settings.travel("part_min_mm")
        if self._edge1 is not None:
            if self._counted1 is None and place - self._edge1.place >= least:
                self._count(self._edge1, now_us)
            elif self._counted1 is not None and place - self._edge1.place > self.settings.travel("part_max_mm"):
                self._counted1.touching = True
        if self._edge2 is not None and place - self._edge2.place >= least:
            edge, self._edge2 = self._edge2, None
            self._decide(edge, now_us)
        if self._edge2 is None:
            for decided in self.tracker.close_windows(place, now_us):
                self._arm(decided, now_us)

    def _count(self, edge: Edge, now_us: int) -> None:
        if self.tracker.count >= LAST_PART:
            self.raise_fault(faults.PARTS_EXHAUSTED, 0, now_us)
            return
        part = self.tracker.add(edge)
        if part is None:
            self.raise_fault(faults.TRACKER_FULL, self.tracked, now_us)
            return
        self._counted1 = part
        self.trigger_pulses.append(max(now_us, edge.at_us + self.settings.number("trigger_ms") * 1000))
        self._speaker.part(self.number, part)

    def _decide(self, edge: Edge, now_us: int) -> None:
        for decided in self.tracker.arrive(edge):
            if self.faults.has(HELD):
                # The missing ones before it have just made a fault: this part is flushed with the rest, and not acted on after the repair.
                safe = Decision(self.settings.word("safe"), "safe")
                self._report(Decided(decided.part, safe, Edge(False, self.place(), now_us)), False)
            else:
                self._arm(decided, now_us)

    def _arm(self, decided: Decided, now_us: int) -> None:
        reason = decided.decision.reason
        if reason == "missing":
            self.counts.missing += 1
            self._missing_row += 1
            self._report(decided, False)
            self._suspect_eyes(now_us)
            return
        if decided.part.number == 0:
            self.counts.unmatched += 1
            self._unmatched_row += 1
        else:
            self._missing_row = self._unmatched_row = 0
            self._grace_until = None
            if decided.part.verdict is None:
                self.counts.no_verdict += 1
        if decided.decision.action == "stop":
            self._report(decided, False)
            self.raise_fault(faults.STOPPED, decided.part.number, now_us)
        else:
            gate = decided.decision.gate
            (self._speaker.lanes[gate - 1] if gate else self)._armed.append(decided)
        self._suspect_eyes(now_us)

    def _suspect_eyes(self, now_us: int) -> None:
        if self._grace_until is not None:
            if self.place() < self._grace_until:
                self._missing_row = self._unmatched_row = 0
                return
            self._grace_until = None
        limit = self.settings.number("lost_limit")
        if self._missing_row >= limit:
            self.raise_fault(faults.EYE2_STUCK, 2, now_us)
        elif self._unmatched_row >= limit:
            self.raise_fault(faults.EYE1_STUCK, 2, now_us)

    def _moments(self, place: int, now_us: int) -> None:
        belt = self.belt.settings
        distance, dwell = belt.places(self.settings.number("gate_mm")), belt.places(self.settings.number("dwell_mm"))
        while self._armed and place >= (moment := self._armed[0].edge.place + distance):
            decided = self._armed.pop(0)
            moved = decided.decision.action == "divert" and self.gate.divert(moment + dwell, now_us)
            self._report(decided, moved)

    def _report(self, decided: Decided, moved: bool) -> None:
        # Of a further gate's part too: the report is the belt's, the movements are those of the gate.
        action, belt = decided.decision.action, self.belt
        belt.counts.diverted += action == "divert"
        belt.counts.passed += action == "pass"
        part, at_us = decided.part, decided.edge.at_us
        travel_us = at_us - part.edge.at_us if part.number else None
        self._speaker.gate(belt.number, part.number, decided.decision, moved, self.gate.moves, at_us, travel_us)

    def _flush(self, now_us: int) -> None:
        safe = Decision(self.settings.word("safe"), "safe")
        edge = Edge(False, self.place(), now_us)
        for gate in self.gates:
            armed, gate._armed = gate._armed, []
            for decided in armed:
                gate._report(Decided(decided.part, safe, decided.edge), False)
        for part in self.tracker.flush():
            self._report(Decided(part, safe, edge), False)

    def _begin_counting(self, now_us: int) -> None:
        # What stands before an eye now was not seen to arrive.
        self._edge1 = self._edge2 = self._counted1 = None
        for eye in self.eyes:
            eye.settle(now_us, 0)
        self._missing_row = self._unmatched_row = 0
        self._grace_until = self.place() + self.settings.travel("eye_gap_mm") + self.settings.travel("window_mm")
        self._suspect_us = None
        self._hold_gates(None, now_us)
