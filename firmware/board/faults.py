"""Which faults there are, what each does to a lane, and how it ends. See firmware/PROTOCOL.md, "Faults"."""

from __future__ import annotations

from dataclasses import dataclass, field

HOST_SILENT, EYE1_STUCK, EYE2_STUCK, ENCODER_STOPPED, SERVO_POWER, EMERGENCY_STOP = 40, 41, 42, 43, 44, 45
ABNORMAL_RESET, TRACKER_FULL, EVENTS_LOST, STOPPED, PARTS_EXHAUSTED, SETTINGS_LOST = 46, 47, 48, 49, 50, 51

HELD = "gate held"
EFFECTS = {
    HOST_SILENT: "host silent",
    EYE1_STUCK: HELD,
    EYE2_STUCK: HELD,
    ENCODER_STOPPED: HELD,
    SERVO_POWER: HELD,
    EMERGENCY_STOP: HELD,
    ABNORMAL_RESET: "report only",
    TRACKER_FULL: HELD,
    EVENTS_LOST: "warning",
    STOPPED: "stopped",
    PARTS_EXHAUSTED: HELD,
    SETTINGS_LOST: "report only",
}
ENDS_BY = dict.fromkeys(EFFECTS, "CLEAR") | {
    HOST_SILENT: "HELLO",
    ABNORMAL_RESET: "COMMIT",
    PARTS_EXHAUSTED: "reset",
    SETTINGS_LOST: "COMMIT",
}


@dataclass
class Faults:
    """The faults in force, oldest first."""

    codes: list[int] = field(default_factory=list)

    def has(self, effect: str) -> bool:
        return any(EFFECTS[code] == effect for code in self.codes)

    @property
    def oldest(self) -> int:
        return self.codes[0] if self.codes else 0
