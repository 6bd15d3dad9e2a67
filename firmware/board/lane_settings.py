"""The settings of one lane of a board: keys, bounds, defaults, rules. See firmware/PROTOCOL.md, "Settings"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from firmware.board.frames import crc16

CHOICES = ("divert", "pass", "stop")
MOST_STEPS = 500_000  # a board may keep places in 24 bits
Value = int | str


@dataclass(frozen=True)
class Setting:
    """One row of the table. Numbers have `least` and `most`; words are one of CHOICES."""

    key: str
    unit: str
    least: int
    most: int
    default: Value

    def read(self, text: str) -> Value:
        """Raises ValueError: when `text` is malformed or out of bounds."""
        if self.unit == "word":
            if text not in CHOICES:
                raise ValueError(f"expected {self.key} as one of {', '.join(CHOICES)}, found {text!r}")
            return text
        if not (text.isascii() and text.isdecimal()) or len(text) > 10 or (text[0] == "0" and text != "0"):
            raise ValueError(f"expected {self.key} as a whole number, found {text!r}")
        if not self.least <= int(text) <= self.most:
            raise ValueError(f"expected {self.key} from {self.least} to {self.most} {self.unit}, found {text}")
        return int(text)


TABLE: tuple[Setting, ...] = (
    Setting("encoder", "flag", 0, 1, 0),
    Setting("step_um", "um", 1, 10000, 200),
    Setting("eye_gap_mm", "mm", 50, 20000, 800),
    Setting("window_mm", "mm", 5, 500, 40),
    Setting("part_min_mm", "mm", 1, 200, 5),
    Setting("part_max_mm", "mm", 10, 2000, 150),
    Setting("spacing_mm", "mm", 0, 2000, 60),
    Setting("gate_mm", "mm", 1, 2000, 20),
    Setting("dwell_mm", "mm", 10, 2000, 60),
    Setting("debounce_us", "us", 0, 50000, 500),
    Setting("trigger_ms", "ms", 0, 1000, 20),
    Setting("trigger_pulse_ms", "ms", 1, 100, 5),
    Setting("rest_us", "us", 544, 2400, 1000),
    Setting("out_us", "us", 544, 2400, 2000),
    Setting("servo_ms", "ms", 20, 2000, 80),
    Setting("no_verdict", "word", 0, 0, "divert"),
    Setting("safe", "word", 0, 0, "divert"),
    Setting("host_timeout_ms", "ms", 300, 60000, 2000),
    Setting("encoder_timeout_ms", "ms", 50, 10000, 500),
    Setting("stuck_mm", "mm", 50, 20000, 1000),
    Setting("lost_limit", "parts", 1, 50, 5),
    Setting("use_estop", "flag", 0, 1, 1),
    Setting("use_servo_power", "flag", 0, 1, 0),
    Setting("lane_of", "lane", 0, 4, 0),
)
BY_KEY = {setting.key: setting for setting in TABLE}


class LaneSettings:
    """All settings of a lane, checked one by one and together; immutable."""

    def __init__(self, values: Mapping[str, Value] | None = None) -> None:
        """Raises ValueError: when a key is unknown, a value out of bounds, or values contradict each other."""
        given = dict(values or {})
        if unknown := given.keys() - BY_KEY.keys():
            raise ValueError(f"expected keys of the protocol's settings, found {', '.join(sorted(unknown))}")
        self.values: dict[str, Value] = {
            setting.key: setting.read(str(given[setting.key])) if setting.key in given else setting.default for setting in TABLE
        }
        if complaint := self._contradiction():
            raise ValueError(complaint)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LaneSettings) and self.values == other.values

    def __hash__(self) -> int:
        return hash(self.text())

    def number(self, key: str) -> int:
        value = self.values[key]
        assert isinstance(value, int), key
        return value

    def word(self, key: str) -> str:
        return str(self.values[key])

    def travel(self, key: str) -> int:
        """The distance `key` (mm) in thousandths of a step."""
        return self.places(self.number(key))

    def places(self, mm: int) -> int:
        """A distance on this belt in thousandths of a step."""
        return mm * 1_000_000 // self.number("step_um")

    def gate_within_reach(self, step_um: int) -> bool:
        """Whether gate and dwell, on a belt whose steps are so long, lie within what a board can count."""
        return (self.number("gate_mm") + self.number("dwell_mm")) * 1000 // step_um <= MOST_STEPS

    def text(self) -> str:
        """All settings as `key=value`, in the table's order: what the digest covers."""
        return " ".join(f"{key}={value}" for key, value in self.values.items())

    @property
    def digest(self) -> str:
        """Four hexadecimal digits that two sides compare."""
        return f"{crc16(self.text().encode()):04X}"

    def _contradiction(self) -> str:
        number = self.number
        if number("part_min_mm") >= number("part_max_mm"):
            return "expected part_min_mm below part_max_mm"
        if number("gate_mm") < number("part_min_mm"):
            return "expected gate_mm of at least part_min_mm: the part must be known before the gate moves"
        if 2 * number("window_mm") > number("eye_gap_mm"):
            return "expected twice window_mm within eye_gap_mm"
        travels = (number("eye_gap_mm") + number("window_mm"), number("stuck_mm"))
        if max(travels) * 1000 // number("step_um") > MOST_STEPS or not self.gate_within_reach(number("step_um")):
            return f"expected travels of at most {MOST_STEPS} steps: eye_gap_mm + window_mm, stuck_mm, gate_mm + dwell_mm"
        if number("rest_us") == number("out_us"):
            return "expected rest_us to differ from out_us"
        return ""
