"""The faults of a board: what they do and how they end. See firmware/PROTOCOL.md, "Faults"."""

from __future__ import annotations

from dataclasses import dataclass, field

HOST_SILENT, EYE1_STUCK, EYE2_STUCK, ENCODER_STOPPED, SERVO_POWER, EMERGENCY_STOP = 40, 41, 42, 43, 44, 45
ABNORMAL_RESET, TRACKER_FULL, EVENTS_LOST, STOPPED, PARTS_EXHAUSTED, SETTINGS_LOST, AWAITING_START = 46, 47, 48, 49, 50, 51, 52
TRIGGER_LOST, GATE_STUCK, CHUTE_MISSED, CHUTE_FULL = 53, 54, 55, 56
REJECTS_IN_A_ROW, BYPASS = 57, 58

# Says who ended a fault: the host, or a person with a button. When a fault ends, the FAULT event contains this value as its detail.
ENDED_BY_HOST, ENDED_BY_BUTTON = 0, 1

GATE_HELD, STOPPED_LINE, BYPASSED = "gate held", "stopped", "bypassed"
EFFECTS = {
    HOST_SILENT: "host silent",
    EYE1_STUCK: GATE_HELD,
    EYE2_STUCK: GATE_HELD,
    ENCODER_STOPPED: GATE_HELD,
    SERVO_POWER: GATE_HELD,
    EMERGENCY_STOP: GATE_HELD,
    ABNORMAL_RESET: "report only",
    TRACKER_FULL: GATE_HELD,
    EVENTS_LOST: "warning",
    STOPPED: STOPPED_LINE,
    PARTS_EXHAUSTED: GATE_HELD,
    SETTINGS_LOST: "report only",
    AWAITING_START: GATE_HELD,
    TRIGGER_LOST: "warning",
    GATE_STUCK: STOPPED_LINE,
    CHUTE_MISSED: STOPPED_LINE,
    CHUTE_FULL: STOPPED_LINE,
    REJECTS_IN_A_ROW: STOPPED_LINE,
    BYPASS: BYPASSED,
}
ENDS_BY = dict.fromkeys(EFFECTS, "CLEAR") | {
    HOST_SILENT: "HELLO",
    ABNORMAL_RESET: "COMMIT",
    PARTS_EXHAUSTED: "reset",
    SETTINGS_LOST: "COMMIT",
    BYPASS: "key",
}
# The faults that stay after a reset, until a person ends them with CLEAR.
KEPT = tuple(code for code, effect in EFFECTS.items() if effect in (GATE_HELD, STOPPED_LINE) and ENDS_BY[code] == "CLEAR")


@dataclass
class Faults:
    """The faults of a lane that have begun and not ended. `codes` has their codes, oldest first."""

    codes: list[int] = field(default_factory=list)

    def has(self, effect: str) -> bool:
        """Returns whether one of the faults has the effect `effect`, for example GATE_HELD."""
        return bool(self.codes) and any(EFFECTS[code] == effect for code in self.codes)

    @property
    def oldest(self) -> int:
        """The code of the oldest fault, or 0 if there is no fault."""
        return self.codes[0] if self.codes else 0
