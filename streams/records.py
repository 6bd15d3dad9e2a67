"""The JSON records on Castline's topics. Within version v1, fields may be added, but no field is changed or removed.

The published JSON Schema is generated from these classes. Readers ignore unknown fields.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, model_validator

from streams.identity import LineName, PartId, format_time

Time = Annotated[datetime, PlainSerializer(format_time, return_type=str, when_used="json")]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]

Label = Literal["ok", "defect", "review"]
# The UUID namespace of all verdict ids. It must never change, because a repeated verdict must have the same id everywhere.
_VERDICT_NAMESPACE = uuid.UUID("6f1d7a0e-3f0b-5a52-9a0f-0d5f7a3c9b11")
# Longest text and longest list in a record. Without these limits, one record could make a page of the station many megabytes large.
_MAX_TEXT = 4096
_MAX_ITEMS = 1000
# The largest number that Kafka and the databases can store.
_MAX_INTEGER = 2**63 - 1
# The largest number of a partition in Kafka's protocol.
_MAX_PARTITION = 2**31 - 1
# 16 hexadecimal digits are 64 bits, so different settings almost never have the same digest.
_DECISION_DIGITS = 16


class Record(BaseModel):
    """The base class of all JSON records. Records are frozen, and unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, serialize_by_alias=True)
    name: ClassVar[str]

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        # The published schemas do not contain this check, because a schema must not become stricter after its release.
        for name, value in self:
            _check_bound(name, value)
        return self

    def encode(self) -> bytes:
        """Returns the value of the Kafka record: this record as compact JSON in UTF-8."""
        return self.model_dump_json().encode()

    def copy_with(self, **changes: object) -> Self:
        """Returns a copy with other values of some fields. Raises pydantic.ValidationError if no reader would accept the copy.

        Use this method for values that a person entered. The method `model_copy` of pydantic does not check the values.
        """
        return type(self).model_validate({**dict(self), **changes})

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Returns the record that `value` holds as JSON. Raises pydantic.ValidationError if `value` is not such a record."""
        return cls.model_validate_json(value)


def _check_bound(name: str, value: object) -> None:
    if isinstance(value, str):
        if len(value) > _MAX_TEXT:
            raise ValueError(f"{name}: expected at most {_MAX_TEXT} characters, found {len(value)}")
    elif isinstance(value, int):
        if abs(value) > _MAX_INTEGER:
            raise ValueError(f"{name}: expected a number of at most 64 bits")
    elif isinstance(value, (tuple, list, dict)):
        if len(value) > _MAX_ITEMS:
            raise ValueError(f"{name}: expected at most {_MAX_ITEMS} items, found {len(value)}")
        for item in (*value, *value.values()) if isinstance(value, dict) else value:
            _check_bound(name, item)
    elif isinstance(value, BaseModel):
        for inner, item in value:
            _check_bound(f"{name}.{inner}", item)


class PartRecord(Record):
    """The base class of the records about one part."""

    line: LineName = Field(description="Name of the part's line.")
    run: Count = Field(description="Boot count of the board. If the line has no board: start time of the gateway, in seconds since 1970.")
    part: Count = Field(description="Number of the part. The numbers count up from 1 within the run.")

    @property
    def part_id(self) -> PartId:
        return PartId(self.line, self.run, self.part)


# The reason of a verdict with the label `review` if no network calls the part defective, but the anomaly score of the part is above the
# cut-off.
ANOMALY = "anomaly"
# A verdict can contain a score of the detail template, which looks for small defects. In the verdict, the score has this name.
DETAIL_TEMPLATE = "detail-template"
# The names of the scorers, which learn from good parts alone. In the votes of a verdict, a value with one of these names is a score, and
# not the vote of a network.
SCORERS = frozenset({"golden-template", "memory-autoencoder", DETAIL_TEMPLATE})


class ImageReference(BaseModel):
    """The picture that was judged: its position in Kafka, its checksum and its size."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    topic: str = Field(description="Topic of the image record.")
    partition: int = Field(ge=0, description="Partition of the image record.")
    offset: int = Field(ge=0, description="Offset of the image record.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 checksum of the encoded picture.")
    width_px: int = Field(ge=0, description="Width in pixels, after the rotation that EXIF gives; 0 if the picture could not be read.")
    height_px: int = Field(ge=0, description="Height in pixels, after the rotation that EXIF gives; 0 if the picture could not be read.")

    @model_validator(mode="after")
    def _check_partition(self) -> Self:
        if self.partition > _MAX_PARTITION:
            raise ValueError(f"partition: expected at most {_MAX_PARTITION}, found {self.partition}")
        return self


class Verdict(PartRecord):
    """The ensemble's decision about one part. Topic `castings.verdicts.<line>`, keyed by part id."""

    name: ClassVar[str] = "castline.verdict.v1"
    schema_: Literal["castline.verdict.v1"] = Field("castline.verdict.v1", alias="schema", description="Name of this schema.")
    verdict_id: uuid.UUID = Field(
        description="Id of the verdict, computed from part id, image sha256, model version and `decision`. A repeated verdict has the same "
        "id. If the inspector failed or could not read the picture (reasons `inference-failed`, `handling-failed`, `claim-missing` and "
        "`claim-damaged`), the id also depends on the reason. So a later verdict on the picture gets another id."
    )
    label: Label = Field(description="`ok`, `defect` or `review`. A person should check a part with the label `review`.")
    defect_probability: Share | None = Field(
        description="Calibrated probability that the part is defective, 0..1; null if the picture could not be judged, or if the model "
        "version has no networks."
    )
    votes: dict[str, Share] = Field(
        description="Defect probability by network (`alexnet`, `lenet`), 0..1; empty if the picture could not be judged. The scorers "
        "`golden-template`, `memory-autoencoder` and `detail-template`, which have learned from good parts alone, give scores from 0 to 1. "
        "Above 0.5, the part differs from good parts.",
    )
    threshold: Share = Field(
        description="Smallest defect probability at which this verdict calls a part defective. It comes from the line's settings on the "
        "topic `castings.lines`. If these give none, it comes from the model version."
    )
    model: str = Field(description="Model version that judged the picture.")
    decision: str = Field(
        "",
        description="Checksum of those settings of the line on the topic `castings.lines` that can change a label. Empty if the line has "
        "no such settings. Two verdicts with the same `model` and `decision` were decided by the same rule.",
    )
    reason: str = Field(
        "",
        description="One word for the reason of `review`; empty for the other labels. `doubt` means that the networks were not sure. "
        "`anomaly` means that the part differs from good parts. These reasons mean that the picture was not judged: `empty`, "
        "`too-large`, `too-many-pixels`, `not-an-image`, `truncated`, `damaged`, `depth`, `blank`, `partly-blank`, `decoder-limits`, "
        "`checksum`, `claim-missing`, `claim-damaged`, `wrong-header`, `inference-failed`, `handling-failed`. These reasons mean that the "
        "picture does not show a whole part: `no-part`, `partly-in-view`, `unknown-part`. Later releases may add words.",
    )
    kind: str = Field(
        "",
        description="Type of the largest defect of a part with the label `defect`; `unknown` if the model version is not sure. Empty for "
        "other labels, or if the version names no types of defect.",
    )
    overdue: bool = Field(False, description="True if the part's deadline had passed when the verdict was decided.")
    captured_at: Time = Field(
        description="Time at which the picture was taken. If the image record does not give it, this is the Kafka timestamp of the record."
    )
    received_at: Time = Field(description="Time at which the inspector received the picture.")
    decided_at: Time = Field(description="Time at which the verdict was decided.")
    image: ImageReference = Field(description="The picture that was judged.")


def make_verdict_id(part: PartId, sha256: str, model: str, decision: str = "") -> uuid.UUID:
    """Returns the id of the verdict that the model version `model` gives for the picture of `part` with the checksum `sha256`.

    `decision` names the line's settings that decided the label, for example by their checksum. It is "" if the line has no such settings.
    If these settings change and the picture is judged again, the new verdict gets another id.
    """
    return uuid.uuid5(_VERDICT_NAMESPACE, f"{part}|{sha256}|{model}{f'|{decision}' if decision else ''}")


def select_network_votes(votes: Mapping[str, float]) -> dict[str, float]:
    """Returns only the votes that neural networks gave. Leaves out the scores of other components, such as the golden template."""
    return {name: vote for name, vote in votes.items() if name not in SCORERS}


def compute_disagreement(votes: Mapping[str, float], threshold: float | None) -> float | None:
    """Returns the difference between the highest and the lowest defect probability of the networks in the `votes` of a verdict.

    Returns None if the networks agree. They agree if all their probabilities are on the same side of `threshold`. Also returns None if
    `threshold` is None, or if fewer than two networks voted.
    """
    probabilities = select_network_votes(votes).values()
    if threshold is None or len(probabilities) < 2:
        return None
    low, high = min(probabilities), max(probabilities)
    return high - low if low < threshold <= high else None


@dataclass(frozen=True)
class ReviewWithdrawal:
    """States that a person withdrew the review of a part. On the topic `castings.reviews`, a withdrawal is a record without a value."""

    part_id: PartId


ArchivedRecord = PartRecord | ReviewWithdrawal

Action = Literal["diverted", "passed", "stopped", "untracked"]
# Why a gate treated a part as it did (field `reason` of a sorting):
#   verdict          the gate did what the verdict says
#   no-verdict       the part had no verdict when it reached the gate
#   late-verdict     the verdict came too late
#   fault            the board had a fault; the field `code` says which one
#   board-restarted  the board was restarted and had forgotten the part
#   taken-off        the part was counted at the camera, but never arrived at the gate
#   unmatched        the part arrived at the gate, but was never counted at the camera
#   spacing          another part was so close that the gate could not move
#   touching         several parts touched each other and were counted as one part
SortingReason = Literal[
    "verdict",
    "no-verdict",
    "late-verdict",
    "fault",
    "board-restarted",
    "taken-off",
    "unmatched",
    "spacing",
    "touching",
]


# Whether the eye in the reject chute saw a diverted part. `not-equipped` means that the gate has no such eye.
Confirmation = Literal["yes", "no", "not-equipped"]


class Sorting(PartRecord):
    """What a gate did with one part. Topic `castings.sorted.<line>`, keyed by part id.

    Two records with the same `board`, `run` and `event` describe the same event.
    """

    name: ClassVar[str] = "castline.sorting.v1"
    schema_: Literal["castline.sorting.v1"] = Field("castline.sorting.v1", alias="schema", description="Name of this schema.")
    board: str = Field(description="Name of the board that reported the part.")
    event: int = Field(
        ge=0,
        description="Number of the board's event within the run; 0 if the sorter wrote the record without a report of the board.",
    )
    action: Action = Field(
        description="What the gate did with the part. `untracked` means that no gate acted on the part; `reason` says why."
    )
    grade: str | None = Field(
        None,
        description="Name of the additional gate on the line's belt that diverted the part. Null if no gate diverted the part, or if the "
        "line's own gate did.",
    )
    reason: SortingReason = Field(description="Reason for the action.")
    code: int = Field(0, ge=0, description="Error code from firmware/error_codes.csv; 0 if there was no error.")
    label: Label | None = Field(
        None, description="Label of the verdict for this part, also if the verdict came too late; null if there was no verdict."
    )
    verdict_id: uuid.UUID | None = Field(None, description="Id of the verdict that gave `label`; null if `label` is null.")
    gate_moved: bool = Field(description="True if the servo moved for this part.")
    move_count: int = Field(ge=0, description="Number of servo movements that the board had counted when it reported this part.")
    confirmed: Confirmation | None = Field(
        None,
        description="`yes` if the eye in the reject chute saw the diverted part. `no` if it did not. `not-equipped` if the gate has no "
        "such eye. Null if no gate diverted the part. Records of older sorters also have null.",
    )
    late: bool = Field(False, description="True if the verdict came too late for the gate.")
    counted_at: Time | None = Field(None, description="Time at which photo-eye 1, at the camera, counted the part.")
    told_at: Time | None = Field(None, description="Time at which the board acknowledged the verdict.")
    at_gate_at: Time | None = Field(None, description="Time at which photo-eye 2, at the gate, saw the part.")
    sorted_at: Time = Field(description="Time at which the sorter wrote the record.")

    @property
    def is_reported_by_board(self) -> bool:
        """True if the board has reported the part. False if the sorter wrote the record without a report of the board."""
        return self.event > 0 or self.action != "untracked"

    @property
    def has_missed_verdict(self) -> bool:
        """True if the verdict came too late for the gate, or not at all."""
        return self.late or self.reason in ("no-verdict", "late-verdict")


class Box(BaseModel):
    """A rectangle in a picture, in pixels. The origin is the top left corner of the picture, after it was turned as its EXIF data says."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    left_px: int = Field(ge=0, description="Position of the left edge, in pixels.")
    top_px: int = Field(ge=0, description="Position of the upper edge, in pixels.")
    width_px: int = Field(ge=1, description="Width, in pixels.")
    height_px: int = Field(ge=1, description="Height, in pixels.")
    score: Share = Field(description="How suspicious this area is, 0..1.")
    kind: str = Field(
        "",
        description="Type of defect; empty if no person and no program named one. `unknown` if the program was not sure.",
    )
    area_mm2: float | None = Field(
        None, ge=0, description="Area of the defect in square millimetres; null if the scale of the line's pictures is not set."
    )
    length_mm: float | None = Field(
        None, ge=0, description="Largest distance across the defect in millimetres; null if the scale of the line's pictures is not set."
    )


class Acceptance(BaseModel):
    """The result of an acceptance table: whether the defects of a part stay within the limits that the foundry has set."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    table: str = Field(description="Name of the acceptance table, which holds the foundry's limits for defects.")
    result: Literal["accepted", "rejected", "not-graded"] = Field(
        description="Result of the acceptance table for the part. `not-graded` means that the table could not decide. Either `boxes` does "
        "not contain all suspicious areas of the picture, or the table has limits in millimetres, but the scale of the line's pictures is "
        "not set."
    )
    rules: tuple[str, ...] = Field(
        (), description="Sentences that name the rules by which the table rejected the part, or that say why the part was not graded."
    )


class Finding(PartRecord):
    """The suspicious areas of a picture, with a heat map. Topic `castings.findings.<line>`, keyed by part id."""

    name: ClassVar[str] = "castline.finding.v1"
    schema_: Literal["castline.finding.v1"] = Field("castline.finding.v1", alias="schema", description="Name of this schema.")
    verdict_id: uuid.UUID = Field(description="Id of the verdict that the finding explains.")
    method: str = Field(
        description="Method that made the heat map: `grad-cam`, `residual`, `segmentation`, or `detail-template` for small defects. If two "
        "methods made the heat map, their names are joined with `+`."
    )
    model: str = Field(description="Version of the model that made the finding.")
    boxes: tuple[Box, ...] = Field(description="Suspicious areas, the most suspicious one first.")
    heat_map: str = Field(
        description="Address of the heat map in the object store. The heat map is a grey PNG that covers the whole picture. Areas "
        "with the grey level 255 are the most suspicious. Stretch the PNG to the size of the picture."
    )
    found_at: Time = Field(description="Time at which the finding was made.")
    acceptance: Acceptance | None = Field(None, description="Result of the line's acceptance table; null if the line has none.")


class Review(PartRecord):
    """A person's label for one part. Topic `castings.reviews` (compacted), keyed by part id."""

    name: ClassVar[str] = "castline.review.v1"
    schema_: Literal["castline.review.v1"] = Field("castline.review.v1", alias="schema", description="Name of this schema.")
    label: Literal["ok", "defect"] = Field(description="Label that the person decided on.")
    kinds: tuple[str, ...] = Field((), description="Types of defect that the person saw.")
    boxes: tuple[Box, ...] = Field((), description="Areas in which the person saw defects.")
    reviewer: str = Field(description="Account of the person.")
    verdict_id: uuid.UUID | None = Field(None, description="Id of the verdict that was reviewed.")
    reviewed_at: Time = Field(description="Time of the review.")


class ModelChoice(Record):
    """Which model version judges a line. Topic `castings.models` (compacted), keyed by the line, or by `*` for all lines."""

    name: ClassVar[str] = "castline.model-choice.v1"
    schema_: Literal["castline.model-choice.v1"] = Field("castline.model-choice.v1", alias="schema", description="Name of this schema.")
    line: str = Field(
        pattern=r"^(\*|[a-z0-9][a-z0-9-]{0,39})$",
        description="Name of the line that the choice is for, or `*` for all lines that have no choice of their own.",
    )
    version: str = Field(description="Model version that judges the pictures of the line.")
    shadow: str | None = Field(
        None, description="Shadow version, which judges the same pictures for comparison and moves no gate; null if there is none."
    )
    chosen_by: str = Field(
        description="Person who made the choice: the account of the station, or for a command the user and the computer, as user@host."
    )
    chosen_at: Time = Field(description="Time of the choice.")
    previous: tuple[str, ...] = Field(
        (), description="Versions that judged the line before, the newest first. A roll-back returns to the first one in this list."
    )
    forced: bool = Field(
        False, description="True if the version may judge the line even if its classes differ from the classes of the previous version."
    )


class RegionPoint(BaseModel):
    """A point in a picture. The origin is the top left corner of the picture, after it was turned as its EXIF data says."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    x: Share = Field(description="Position from the left edge, as a share of the picture's width, 0..1.")
    y: Share = Field(description="Position from the upper edge, as a share of the picture's height, 0..1.")


# A line can have at most this many regions to inspect, and at most this many regions to ignore.
MAX_REGIONS = 32
# The smallest area of a region, as a fraction of the picture's area. A smaller region would contain almost no pixels.
MIN_REGION_AREA = 0.0001


class Region(BaseModel):
    """A region of the picture, to inspect or to ignore. Its outline is a polygon, such as a rectangle."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    corners: tuple[RegionPoint, ...] = Field(
        min_length=3,
        max_length=64,
        description="Corners in their order along the outline. The last corner is connected with the first one.",
    )

    @property
    def area(self) -> float:
        """The area of the polygon as a share of the picture's area, 0..1. The area is 0 if all corners lie on a straight line."""
        following = (*self.corners[1:], self.corners[0])
        return abs(sum(one.x * other.y - other.x * one.y for one, other in zip(self.corners, following, strict=True))) / 2


class LiveLineSettings(Record):
    """The settings of a line that people change while the line runs. Topic `castings.lines` (compacted), keyed by the line."""

    name: ClassVar[str] = "castline.line.v1"
    schema_: Literal["castline.line.v1"] = Field("castline.line.v1", alias="schema", description="Name of this schema.")
    line: LineName = Field(description="Name of the line.")
    inspect_regions: tuple[Region, ...] = Field(
        (),
        max_length=MAX_REGIONS,
        description="Regions of the picture to inspect. If there are none, the whole picture is inspected. Anomaly scores and findings use "
        "only these regions. The networks always judge the whole picture.",
    )
    ignore_regions: tuple[Region, ...] = Field(
        (),
        max_length=MAX_REGIONS,
        description="Regions of the picture to ignore. They are ignored even where they overlap a region to inspect.",
    )
    mm_per_px: float | None = Field(
        None, gt=0, le=1000, description="Scale of the line's pictures, in millimetres on the part for each pixel; null if it is not known."
    )
    threshold: Share | None = Field(
        None,
        description="Lowest defect probability that counts as a defect on this line; null if nobody has set it. If it is set, "
        "`defect_share` has no effect.",
    )
    defect_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of defective parts that is expected on this line, 0..1. The inspector computes the line's threshold from this "
        "share and from the costs of the model version. If it is null, the threshold of the model version is used.",
    )
    miss_risk: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of the defective parts that may pass without a review, 0..1. From this share, the inspector computes a pass "
        "threshold. A part below the pass threshold passes. A part between the pass threshold and the line's threshold for defects gets "
        "`review`. If null, there is no pass threshold.",
    )
    review_anomalies: bool | None = Field(
        None,
        description="If true, a part that differs from good parts gets the label `review` instead of `ok`. An anomaly scorer, "
        "which has learned only from good parts, finds such parts. If null or false, no scorer changes a label.",
    )
    planned_stop_until: Time | None = Field(
        None, description="End of a planned stop of the line; null if none is planned. A time in the past has no effect."
    )
    set_by: str = Field(
        description="Person who set these settings: the account of the station, or for a command the user and the computer, as user@host."
    )
    set_at: Time = Field(description="Time at which these settings were set.")

    @property
    def decision(self) -> str:
        """A checksum of the settings that can change a label, with 16 hexadecimal digits. Empty if none of these settings is set."""
        deciding = self.model_dump(
            mode="json",
            include={"inspect_regions", "ignore_regions", "threshold", "defect_share", "miss_risk", "review_anomalies"},
            exclude_defaults=True,
        )
        if not deciding:
            return ""
        return hashlib.sha256(json.dumps(deciding, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:_DECISION_DIGITS]


CommandAction = Literal["acknowledge", "clear", "test", "pause", "resume", "status", "settings", "monitor", "teach"]
TeachAction = Literal["begin", "eyes", "castings", "servo", "swing", "apply", "end"]
CommandOutcome = Literal["done", "refused", "failed", "expired"]
# The longest time for which a command is valid. An older command must not move a gate.
MAX_COMMAND_VALIDITY = timedelta(seconds=60)


class CommandAnswer(BaseModel):
    """The sorter's answer to a command: what happened, and the values that the command asked for."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    outcome: CommandOutcome = Field(
        description="`done`; `refused` if the board or the sorter did not accept the command; `failed` if the board did not answer in "
        "time, so the command may have been executed; `expired` if the sorter did not execute the command, because the command was too old."
    )
    message: str = Field(description="Result of the command in a sentence, for the person who sent the command.")
    code: int = Field(0, ge=0, description="Error code from firmware/error_codes.csv; 0 if there was no error.")
    values: dict[str, dict[str, int | str]] = Field(
        {},
        description="Values that the board has sent. They are grouped by the board's status page, or by lane for the command `settings`.",
    )
    recent_parts: tuple[str, ...] = Field((), description="For `monitor`: a text for each of the last parts at the gate, the newest first.")
    recent_faults: tuple[str, ...] = Field(
        (), description="For `monitor`: a text for each of the last changes of faults, the newest first."
    )
    answered_at: Time = Field(description="Time of the answer.")


class Command(Record):
    """A command of a person to the sorter of a line, or the sorter's answer. Topic `castings.commands`, keyed by the line.

    The answer is the same record with the field `answer`.
    """

    name: ClassVar[str] = "castline.command.v1"
    schema_: Literal["castline.command.v1"] = Field("castline.command.v1", alias="schema", description="Name of this schema.")
    command_id: uuid.UUID = Field(description="Id of the command. A sorter executes each id at most once.")
    line: LineName = Field(description="Name of the line.")
    action: CommandAction = Field(
        description="`acknowledge` ends all faults of the lane whose causes are gone. `clear` ends the fault in the field `code`. `test` "
        "tests the device in the field `what`. After `pause`, the sorter sends no verdicts until `resume`, so the board treats every part "
        "as a part without verdict. `status`, `settings` and `monitor` change nothing. For `teach`, the field `teach` holds the step."
    )
    lane: int | None = Field(None, ge=1, le=4, description="Lane of an additional gate at the line's belt; null for the line's own lane.")
    code: int | None = Field(None, ge=40, le=69, description="For `clear`: code of the fault, from firmware/error_codes.csv.")
    what: Literal["gate", "trigger", "lamp", "relay"] | None = Field(None, description="For `test`: what to test.")
    teach: TeachAction | None = Field(
        None,
        description="Step of the command `teach`. `begin` begins a session. The session ends with `end`, or after 15 s without a command. "
        "`eyes` and `castings` read what the photo-eyes saw. `servo` gives the servo the pulse in `servo_us`. `swing` also gives this "
        "pulse, and measures the time until the end switch says that the gate has arrived. `apply` sends the values in `settings` to the "
        "board.",
    )
    session: uuid.UUID | None = Field(
        None, description="For `teach`: id of the command that began the session. In a command with the step `begin`, the field is null."
    )
    servo_us: int | None = Field(
        None,
        ge=0,
        le=2400,
        description="For the steps `servo` and `swing`: servo pulse in microseconds. With 0, the servo gets its former pulse again.",
    )
    settings: dict[str, int | float] | None = Field(
        None, description="For `teach` with `apply`: settings of the line's gate, such as `travel_mm` or `board.window_mm`."
    )
    asked_by: str = Field(
        max_length=200,
        description="Person who sent the command: the account of the station, or for a command in a terminal the user and the computer, "
        "as user@host.",
    )
    asked_at: Time = Field(description="Time at which the command was sent.")
    valid_until: Time = Field(description="After this time, the command is not executed. At most 60 s after `asked_at`.")
    answer: CommandAnswer | None = Field(None, description="The sorter's answer; null in the command itself.")

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        if self.action == "clear" and self.code is None:
            raise ValueError("The command `clear` needs the code of a fault in the field `code`.")
        if self.action == "test" and self.what is None:
            raise ValueError("The command `test` needs the field `what`.")
        if self.action == "teach" and self.teach is None:
            raise ValueError("The command `teach` needs a step, such as `begin`, in its field `teach`.")
        try:
            validity = self.valid_until - self.asked_at
        except TypeError:
            raise ValueError("The times `asked_at` and `valid_until` need a time zone, such as Z.") from None
        if validity > MAX_COMMAND_VALIDITY:
            raise ValueError("The time `valid_until` is more than 60 s after `asked_at`.")
        return self


def make_command(line: str, action: CommandAction, asked_by: str, valid_s: float, **fields: object) -> Command:
    """Returns a new command that is valid from now for `valid_s` seconds. `fields` are its other fields, such as `code`.

    Raises pydantic.ValidationError if a field is missing or out of bounds.
    """
    now = datetime.now(UTC)
    values = {"asked_by": asked_by, "asked_at": now, "valid_until": now + timedelta(seconds=valid_s)}
    return Command.model_validate({"command_id": uuid.uuid4(), "line": line, "action": action} | values | fields)


def make_answer(outcome: CommandOutcome, message: str, code: int = 0, **fields: Any) -> CommandAnswer:
    """Returns the answer to a command, with the present time. `fields` are the other fields of the answer, such as `values`."""
    return CommandAnswer(outcome=outcome, message=message, code=code, answered_at=datetime.now(UTC), **fields)


RECORDS: tuple[type[Record], ...] = (Verdict, Sorting, Finding, Review, ModelChoice, LiveLineSettings, Command)
