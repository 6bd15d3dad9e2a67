"""The settings of one line: its camera, its gate, and additional gates on its belt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from streams.identity import LineName
from streams.secrets import SecretAddress
from streams.settings.sections import Section

LANES = 4
# A plant interface connects a lane with the plant's controller (PLC). On lane 1, it needs the pins of lane 3. On lane 2, it needs the pins
# of lane 4 (firmware/pins.py).
_PLANT_LANES = {1: 3, 2: 4}
# A verdict must reach the gate this many seconds before its part.
_GATE_LEAD_S = 0.2
_SHORTEST_DEADLINE_S = 0.05


class CameraSettings(Section):
    """[lines.camera]: the source of the line's pictures."""

    kind: Literal["folder", "drop", "http", "video"] = Field(
        description="`folder` replays the pictures of a folder. `drop` watches a folder into which a camera writes. `http` accepts "
        "uploads. `video` reads a V4L2 device or an RTSP stream and needs the extra `video`."
    )
    path: Path | None = Field(None, description="Folder with the pictures. Only for cameras of the kinds `folder` and `drop`.")
    address: SecretAddress = Field(
        SecretAddress(""), description="Device or URL for cameras of the kind `video`, such as /dev/video0 or rtsp://camera/stream."
    )
    trigger: Literal["free", "board"] = Field(
        "free",
        description="With `free` the gateway counts the parts: each picture is the next part. With `board` the board counts the parts, and "
        "the gateway finds the picture of each part.",
    )
    rate_per_s: float = Field(
        2.0,
        gt=0,
        le=1000,
        description="Number of pictures a second from a camera of the kind `folder` or `video`. Used only with the trigger `free`.",
    )
    jitter: float = Field(
        0.0,
        ge=0,
        le=0.9,
        description="How irregularly a camera of the kind `folder` gives its pictures. 0 means equal intervals. Example: with 0.2 and one "
        "picture a second, each picture comes at random up to 0.1 s too early or too late.",
    )
    loop: bool = Field(True, description="If true, a camera of the kind `folder` begins again with its first picture after the last one.")
    shuffle: bool = Field(
        True,
        description="If true, a camera of the kind `folder` gives its pictures in a random order, which `seed` determines. If false, it "
        "gives them in the order of their paths.",
    )
    seed: int = Field(1, ge=0, description="Seed of the random numbers for `shuffle` and `jitter`.")
    settle_s: float = Field(
        0.5,
        ge=0.05,
        le=60,
        description="A camera of the kind `drop` considers a file complete if the file has not changed for this many seconds.",
    )
    time_source: Literal["arrival", "file"] = Field(
        "file",
        description="Where the time of a picture comes from. `arrival` is the time of its arrival at the gateway. `file` is the "
        "modification time of the file, or the header X-Captured-At of an upload. Choose `arrival` if the camera's clock is not reliable.",
    )
    latency_s: float | None = Field(
        None,
        ge=-60,
        le=60,
        description="Latency of the camera in seconds, for the trigger `board`: how much later than the signal of photo-eye 1 the time of "
        "the picture is. If absent, the latency that `castline gateway measure` has stored is used. Cameras of the kinds `folder` and "
        "`video` need none.",
    )
    end_wait_s: float = Field(
        5.0,
        ge=0.05,
        le=600,
        description="How long a camera of the kind `drop` waits for the rest of an incomplete picture file, in seconds since the last "
        "change of the file. After this time, the file is sent as it is.",
    )
    sent_keep_days: float = Field(
        2.0, ge=0, le=3650, description="How long a camera of the kind `drop` keeps sent files in the folder `sent`, in days."
    )
    sent_max_bytes: int = Field(
        2**30,
        ge=0,
        le=2**50,
        description="Largest size, in bytes, of the folder `sent`, into which a camera of the kind `drop` moves sent files. If it is "
        "exceeded, the oldest files are deleted.",
    )
    refused_keep_days: float = Field(
        30.0, ge=0, le=3650, description="How long a camera of the kind `drop` keeps refused files in the folder `refused`, in days."
    )
    refused_max_bytes: int = Field(
        2**28,
        ge=0,
        le=2**50,
        description="Largest size, in bytes, of the folder `refused`, into which a camera of the kind `drop` moves refused files. If it is "
        "exceeded, the oldest files are deleted.",
    )
    stall_s: float = Field(
        5.0,
        ge=0.5,
        le=600,
        description="If a camera of the kind `video` gives no picture for this many seconds, the gateway reports this and opens the "
        "camera again.",
    )
    match_window_s: float = Field(
        1.0,
        gt=0,
        le=60,
        description="For the trigger `board`: longest wait of a picture for the report of its part, in seconds. A picture and a part "
        "belong together only if their times differ by at most this setting. For the comparison, the gateway subtracts the latency of the "
        "camera from the time of the picture.",
    )

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if self.kind in ("folder", "drop") and self.path is None:
            raise ValueError(f"a camera of kind {self.kind} needs a path: set `path` in its section [lines.camera]")
        if self.kind == "video" and not self.address.get_secret_value():
            raise ValueError("a camera of kind video needs an address: set `address` in its section [lines.camera]")
        return self

    @property
    def needs_latency(self) -> bool:
        """True if the gateway must know the camera's latency, because it compares the times of pictures and parts to match them."""
        return self.trigger == "board" and self.kind in ("drop", "http")


class GradeSettings(Section):
    """[[lines.gate.grades]]: an additional gate on the belt of a line. It diverts only parts with certain labels."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,30}$",
        description="Name of the gate. It should say which parts the gate diverts, such as `review` or `rework`.",
    )
    lane: int = Field(
        ge=1,
        le=LANES,
        description="Number of the board's lane, 1 to 4, whose servo output moves this gate. No other gate can use this lane.",
    )
    takes: tuple[Literal["defect", "review"], ...] = Field(
        min_length=1, description="Parts whose verdict has one of these labels go to this gate."
    )
    least_probability: float = Field(
        0,
        ge=0,
        le=1,
        description="Lowest defect probability of the parts that go to this gate. A part goes to the first gate whose `takes` and "
        "`least_probability` fit its verdict.",
    )
    gate_mm: float = Field(
        ge=1,
        le=2000,
        description="This gate begins to move for a part when the front edge of the part is this many millimetres past photo-eye 2.",
    )
    board: dict[str, int | str] = Field(
        {}, description="Further settings of this gate: dwell_mm, servo_ms and out_us. firmware/PROTOCOL.md explains them."
    )


class GateSettings(Section):
    """[lines.gate]: the gate of a line. A line without this section has no gate and no sorter."""

    port: str = Field(
        description="Serial port of the board. Use a path below /dev/serial/by-id/. If several boards have the same name there, use a path "
        "below /dev/serial/by-path/. Several lines may share a board."
    )
    lane: int = Field(
        1, ge=1, le=LANES, description="Number of the lane, 1 to 4, at which this line's photo-eyes and gate are connected to the board."
    )
    baud: int = Field(
        115200,
        ge=9600,
        le=1_000_000,
        description="Speed of the serial port in bits a second. All lines of a board must have the same speed.",
    )
    travel_mm: float = Field(
        1000,
        gt=0,
        le=100_000,
        description="Belt length from photo-eye 1 at the camera to photo-eye 2 at the gate, in whole millimetres. A fraction is refused.",
    )
    belt_mm_per_s: float = Field(
        500, gt=0, le=10_000, description="Speed of the belt, in millimetres a second. A value with more than three decimals is refused."
    )
    safe: Literal["divert", "pass", "stop"] = Field(
        "divert", description="Action for a part whose verdict has not arrived in time, and for all parts while a fault is active."
    )
    board: dict[str, int | str] = Field(
        {},
        description="Further settings of the board, such as spacing_mm, dwell_mm, encoder or servo_ms. firmware/PROTOCOL.md lists their "
        "names. They override travel_mm, belt_mm_per_s and safe.",
    )
    on_review: Literal["divert", "pass"] = Field("divert", description="Action for a part with a `review` verdict.")
    grades: tuple[GradeSettings, ...] = Field(
        (),
        max_length=LANES - 1,
        description="Additional gates on the line's belt, such as one for rework. A part that must leave the belt is diverted by the first "
        "gate that takes such parts. If no additional gate takes it, the line's own gate diverts it.",
    )

    @model_validator(mode="after")
    def _check_grades(self) -> Self:
        for what, values in (("name", [grade.name for grade in self.grades]), ("lane", [str(lane) for lane in self.lanes])):
            if repeated := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"grades: expected each gate of a belt to have its own {what}, found {', '.join(repeated)} more than once")
        if self.on_review == "pass" and (names := [grade.name for grade in self.grades if "review" in grade.takes]):
            raise ValueError(
                f'grades: with on_review = "pass", a part with the label review cannot reach the gate {" or ".join(names)}. '
                'Set on_review = "divert"'
            )
        return self

    @property
    def travel_s(self) -> float:
        """The time that a part takes from photo-eye 1 to photo-eye 2 at belt speed, in seconds."""
        return self.travel_mm / self.belt_mm_per_s

    @property
    def lanes(self) -> list[int]:
        """All lanes of the board that this line uses. The lane of the line's own gate comes first."""
        return [self.lane, *(grade.lane for grade in self.grades)]

    @property
    def grade_names(self) -> dict[int, str]:
        """The names of the additional gates. The key is the lane of the gate."""
        return {grade.lane: grade.name for grade in self.grades}

    @property
    def board_name(self) -> str:
        """The name of the board in sorting records: the last part of the path of its serial port, such as `ttyACM0`."""
        return self.port.rsplit("/", 1)[-1]


class LineSettings(Section):
    """[[lines]]: one line of the foundry."""

    name: LineName = Field(
        description="Name of the line in topics, records and metrics. It consists of lower-case letters, digits and hyphens."
    )
    camera: CameraSettings | None = Field(
        None, description="The line's camera. If absent, a program other than the gateway must send the pictures to Kafka."
    )
    gate: GateSettings | None = Field(None, description="The line's gate. If absent, the parts get verdicts but are not sorted.")
    deadline_s: float | None = Field(
        None,
        gt=0,
        le=3600,
        description="Longest time from a picture to its verdict, in seconds. If absent, it is the time that a part takes to the gate, "
        "minus 0.2 s.",
    )
    depth_bits: int | None = Field(
        None,
        ge=8,
        le=16,
        description="Number of bits per pixel that the camera really uses, for files with more than 8 bits per pixel. For example, some "
        "cameras write values of 12 bits into files with 16 bits per pixel. If absent, the number that the file states is used. If the "
        "file states no number, all bits are used.",
    )
    acceptance_table: Path | None = Field(
        None,
        description="TOML file with the acceptance table of the line's parts. The table limits the length, area and number of each type "
        "of defect. Findings then say whether the part is accepted. The table changes no verdict.",
    )
    review_share_low: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Smallest normal share of the parts with the verdict `review`, 0..1. An alert fires if the share of the last hour is "
        "smaller. With 0 the alert never fires.",
    )
    review_share_high: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Largest normal share of the parts with the verdict `review`, 0..1. An alert fires if the share of the last hour is "
        "larger. With 1 the alert never fires.",
    )
    token: SecretStr = Field(SecretStr(""), description="Token for uploads to this line. Without a token all uploads are refused.")

    @model_validator(mode="after")
    def _check_review_shares(self) -> Self:
        if self.review_share_low > self.review_share_high:
            raise ValueError(
                f"review_share_low: expected at most review_share_high, which is {self.review_share_high}; found {self.review_share_low}"
            )
        return self

    @property
    def is_triggered_by_board(self) -> bool:
        """True if the board triggers the camera, or if the line has no camera. The sorter then reports each part to the gateway.

        The pictures of a line without a camera come from another program. This program may need the reports of parts.
        """
        return self.camera is None or self.camera.trigger == "board"

    @property
    def verdict_deadline_s(self) -> float | None:
        """Longest time from a picture to its verdict, in seconds, or None if the line has neither a deadline nor a gate.

        A later verdict is too late for the gate.
        """
        if self.deadline_s is not None:
            return self.deadline_s
        return max(_SHORTEST_DEADLINE_S, self.gate.travel_s - _GATE_LEAD_S) if self.gate else None


def check_board_conflicts(gates: Mapping[str, GateSettings]) -> None:
    """Checks that lines which share a board do not conflict. `gates` holds the gate of each line.

    Raises ValueError if two lines use the same lane, or the same serial port at different speeds. Also raises ValueError if a line has no
    free pins on the board for its signals to the plant's controller (PLC).
    """
    line_by_lane: dict[str, dict[int, str]] = defaultdict(dict)
    speed_by_port: dict[str, tuple[int, str]] = {}
    for line, gate in gates.items():
        baud, first_line = speed_by_port.setdefault(gate.port, (gate.baud, line))
        if gate.baud != baud:
            raise ValueError(
                f"lines.gate.baud: the lines {first_line} and {line} share the serial port {gate.port}, but their speeds are {baud} and "
                f"{gate.baud} baud. Give them the same speed."
            )
        for lane in gate.lanes:
            if lane in line_by_lane[gate.port]:
                first_line = line_by_lane[gate.port][lane]
                raise ValueError(
                    f"lines.gate.lane: the lines {first_line} and {line} both use lane {lane} of the board at {gate.port}. "
                    "Give each line a lane of its own."
                )
            line_by_lane[gate.port][lane] = line
    _check_plant_pins(gates, line_by_lane)


def _check_plant_pins(gates: Mapping[str, GateSettings], line_by_lane: Mapping[str, Mapping[int, str]]) -> None:
    """Raises ValueError if a line has the setting `use_plant`, but no free pins for its signals to the plant's controller (PLC).

    The signals need the pins of another lane, so no line may use this lane. `line_by_lane[address][lane]` is the name of the line that
    uses a lane of the board at `address`.
    """
    for line, gate in gates.items():
        spare = _PLANT_LANES.get(gate.lane)
        if gate.board.get("use_plant") not in (1, "1"):
            continue
        if spare is None:
            raise ValueError(
                f"lines.gate.board.use_plant: the line {line} uses lane {gate.lane} of the board at {gate.port}, but only the lanes 1 "
                "and 2 can have a plant interface. Connect the line to lane 1 or 2, or set use_plant to 0."
            )
        if spare in line_by_lane[gate.port]:
            raise ValueError(
                f"lines.gate.board.use_plant: the plant interface of the line {line} needs the pins of lane {spare} of the board at "
                f"{gate.port}. The line {line_by_lane[gate.port][spare]} already uses lane {spare}. Move the line "
                f"{line_by_lane[gate.port][spare]} to another lane or board, or set use_plant of the line {line} to 0."
            )
