"""The settings of one lane of a board: keys, bounds, defaults and rules. See firmware/PROTOCOL.md, "Settings"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from firmware.protocol import crc16, is_protocol_number

CHOICES = ("divert", "pass", "stop")
# No distance on the belt is allowed to be longer than this many steps, because a board can store positions in 24 bits.
MAX_STEPS = 500_000
# Every board can store at least 3 parts between photo-eye 2 and the belt's own gate, and at least 16 parts between photo-eye 2 and each
# additional gate.
GATE_PARTS, FURTHER_GATE_PARTS = 3, 16
# Every board can store at least 8 diverted parts on their way from a gate to the eye in its chute.
CHUTE_PARTS = 8
# The plant interface of lane 1 uses the pins of lane 3. The plant interface of lane 2 uses the pins of lane 4.
PLANT_LANES = {1: 3, 2: 4}
SettingValue = int | str


@dataclass(frozen=True)
class LaneSetting:
    """One setting of a lane with its bounds. A number must be from `least` to `most`.

    A setting with the unit `word` must be one of CHOICES.
    """

    key: str
    unit: str
    least: int
    most: int
    default: SettingValue

    def read(self, text: str) -> SettingValue:
        """Converts `text` to a value of this setting. Raises ValueError if `text` is malformed or out of bounds."""
        if self.unit == "word":
            if text not in CHOICES:
                raise ValueError(f"expected {self.key} as one of {', '.join(CHOICES)}, found {text!r}")
            return text
        if not is_protocol_number(text):
            raise ValueError(f"expected {self.key} as a whole number, found {text!r}")
        if not self.least <= int(text) <= self.most:
            raise ValueError(f"expected {self.key} from {self.least} to {self.most} {self.unit}, found {text}")
        return int(text)


TABLE: tuple[LaneSetting, ...] = (
    LaneSetting("encoder", "flag", 0, 1, 0),
    LaneSetting("step_um", "um", 1, 10000, 200),
    LaneSetting("eye_gap_mm", "mm", 50, 20000, 800),
    LaneSetting("window_mm", "mm", 5, 500, 40),
    LaneSetting("part_min_mm", "mm", 1, 200, 5),
    LaneSetting("part_max_mm", "mm", 10, 2000, 150),
    LaneSetting("spacing_mm", "mm", 0, 2000, 60),
    LaneSetting("gate_mm", "mm", 1, 2000, 20),
    LaneSetting("dwell_mm", "mm", 10, 2000, 60),
    LaneSetting("debounce_us", "us", 0, 50000, 500),
    LaneSetting("trigger_ms", "ms", 0, 1000, 20),
    LaneSetting("trigger_pulse_ms", "ms", 1, 100, 5),
    LaneSetting("rest_us", "us", 544, 2400, 1000),
    LaneSetting("out_us", "us", 544, 2400, 2000),
    LaneSetting("servo_ms", "ms", 20, 2000, 80),
    LaneSetting("no_verdict", "word", 0, 0, "divert"),
    LaneSetting("safe", "word", 0, 0, "divert"),
    LaneSetting("host_timeout_ms", "ms", 300, 60000, 2000),
    LaneSetting("encoder_timeout_ms", "ms", 50, 10000, 500),
    LaneSetting("stuck_mm", "mm", 50, 20000, 1000),
    LaneSetting("lost_limit", "parts", 1, 50, 5),
    LaneSetting("use_estop", "flag", 0, 1, 1),
    LaneSetting("use_servo_power", "flag", 0, 1, 0),
    LaneSetting("lane_of", "lane", 0, 4, 0),
    LaneSetting("autostart", "flag", 0, 1, 1),
    LaneSetting("contact_ms", "ms", 5, 20, 10),
    LaneSetting("trigger_mm", "mm", 0, 20000, 0),
    LaneSetting("step_nm", "nm", 0, 999, 0),
    LaneSetting("use_belt", "flag", 0, 1, 0),
    LaneSetting("run_up_mm", "mm", 0, 2000, 0),
    LaneSetting("run_down_mm", "mm", 0, 2000, 0),
    LaneSetting("eye_light_on", "flag", 0, 1, 0),
    LaneSetting("use_end_switch", "flag", 0, 1, 0),
    LaneSetting("chute_mm", "mm", 0, 20000, 0),
    LaneSetting("chute_window_mm", "mm", 5, 2000, 100),
    LaneSetting("chute_full_ms", "ms", 0, 10000, 0),
    LaneSetting("use_button", "flag", 0, 1, 0),
    LaneSetting("reject_limit", "parts", 0, 250, 0),
    LaneSetting("use_plant", "flag", 0, 1, 0),
    LaneSetting("result_ms", "ms", 5, 1000, 50),
    LaneSetting("use_solenoid", "flag", 0, 1, 0),
)
BY_KEY = {setting.key: setting for setting in TABLE}


class LaneSettings:
    """All settings of a lane. Each value is within its bounds, and together they obey the rules of COMMIT. The object never changes.

    - `step_nm`: the length of a step in nm. On a belt without an encoder, a step is the travel in a millisecond at full speed.
    """

    def __init__(self, values: Mapping[str, SettingValue] | None = None) -> None:
        """Takes the settings from `values`. A setting that is absent from `values` gets its default.

        Raises ValueError for an unknown key, a value out of bounds, or a contradiction.
        """
        given = dict(values or {})
        if unknown := given.keys() - BY_KEY.keys():
            raise ValueError(f"a lane has no setting called {', '.join(sorted(unknown))}; its settings are {', '.join(BY_KEY)}")
        self.values: dict[str, SettingValue] = {
            setting.key: setting.read(str(given[setting.key])) if setting.key in given else setting.default for setting in TABLE
        }
        # The values are converted here once, because the simulated board reads them hundreds of times in each simulated millisecond.
        self._numbers = {key: value for key, value in self.values.items() if isinstance(value, int)}
        self.step_nm = self._numbers["step_um"] * 1000 + self._numbers["step_nm"]
        if contradiction := self._find_contradiction():
            raise ValueError(contradiction)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LaneSettings) and self.values == other.values

    def __hash__(self) -> int:
        return hash(self.text())

    def number(self, key: str) -> int:
        """Returns the setting called `key`, which must be a number."""
        return self._numbers[key]

    def word(self, key: str) -> str:
        """Returns the setting called `key` as text."""
        return str(self.values[key])

    def travel(self, key: str) -> int:
        """Returns the setting `key`, a distance in mm, converted to thousandths of a step."""
        return self.places(self.number(key))

    def places(self, mm: int) -> int:
        """Converts a distance on this lane's belt from mm to thousandths of a step."""
        return mm * 1_000_000_000 // self.step_nm

    def is_gate_far(self, spacing_mm: int) -> bool:
        """Returns whether the gate is so far away that a board cannot store all castings on their way to the gate.

        `spacing_mm` is the distance between castings, from the settings of the belt's lane. If the setting is 0, the result is False.
        """
        room = FURTHER_GATE_PARTS if self.number("lane_of") else GATE_PARTS
        return spacing_mm > 0 and self.number("gate_mm") > room * spacing_mm

    def is_chute_far(self, spacing_mm: int) -> bool:
        """Returns whether the eye in the chute is so far away that a board cannot store all castings on their way from the gate to the eye.

        `spacing_mm` is the distance between castings, from the settings of the belt's lane. If the setting is 0, the result is False.
        """
        return spacing_mm > 0 and self._chute_end_mm > CHUTE_PARTS * spacing_mm

    @property
    def _chute_end_mm(self) -> int:
        """How far the belt may move after a part is diverted, until the eye in the chute must have seen the part. 0 if there is no eye."""
        return self.number("chute_mm") + self.number("chute_window_mm") if self.number("chute_mm") else 0

    def is_gate_within_reach(self, step_nm: int) -> bool:
        """Returns whether the board can count the steps of the belt until a part has passed the gate and the chute.

        The board can count MAX_STEPS steps after photo-eye 2. A step is `step_nm` nanometres of belt travel.
        """
        behind_mm = max(self.number("dwell_mm"), self._chute_end_mm)
        return (self.number("gate_mm") + behind_mm) * 1_000_000 // step_nm <= MAX_STEPS

    def text(self) -> str:
        """Returns all settings as text `key=value key=value ...` in the order of TABLE. The digest is the checksum of this text."""
        return " ".join(f"{key}={value}" for key, value in self.values.items())

    @property
    def digest(self) -> str:
        """The CRC-16 of the settings as four hexadecimal digits. The host compares it with the digest that the board returns."""
        return f"{crc16(self.text().encode()):04X}"

    def _find_contradiction(self) -> str:
        """Returns a sentence about the first rule that the settings break, or an empty text if they break none."""
        number = self.number
        if number("part_min_mm") >= number("part_max_mm"):
            return "part_min_mm must be smaller than part_max_mm"
        if number("gate_mm") < number("part_min_mm"):
            return "gate_mm must be at least part_min_mm, because a part must be recognised before the gate moves"
        if 2 * number("window_mm") > number("eye_gap_mm"):
            return "twice window_mm must not be larger than eye_gap_mm"
        travels = (number("eye_gap_mm") + number("window_mm"), number("stuck_mm"))
        if max(travels) * 1_000_000 // self.step_nm > MAX_STEPS or not self.is_gate_within_reach(self.step_nm):
            return (
                "eye_gap_mm + window_mm, stuck_mm, gate_mm + dwell_mm, and gate_mm + chute_mm + chute_window_mm must each be at most "
                f"{MAX_STEPS} steps of step_um"
            )
        if number("trigger_mm") and not number("encoder"):
            return "trigger_mm needs an encoder; on a belt without one, set trigger_ms instead"
        if number("trigger_mm") > number("eye_gap_mm"):
            return "trigger_mm must not be larger than eye_gap_mm, because the camera stands before photo-eye 2"
        if number("rest_us") == number("out_us"):
            return "rest_us must differ from out_us"
        if number("use_plant") and number("lane_of"):
            return "use_plant must be 0 on a lane with an additional gate; set use_plant on the lane of the belt"
        return ""
