"""The JSON records on Castline's topics. Within v1, fields are added but never changed or removed.

Each class is the only declaration of its record: readers check records with it, writers encode them with it, and the published JSON Schema
is generated from it. Readers ignore fields that they do not know, so a newer writer does not disturb an older reader.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from streams.identity import LineName, PartId, format_time

Time = Annotated[datetime, PlainSerializer(format_time, return_type=str, when_used="json")]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]

Label = Literal["ok", "defect", "review"]
# The namespace of all verdict ids never changes, so that a repeated verdict has the same id on every machine.
_VERDICT_NAMESPACE = uuid.UUID("6f1d7a0e-3f0b-5a52-9a0f-0d5f7a3c9b11")


class Record(BaseModel):
    """The base class of all JSON records. Records are frozen, and unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, serialize_by_alias=True)
    name: ClassVar[str]

    def encode(self) -> bytes:
        """Returns the record as compact JSON in UTF-8, the value of the Kafka record."""
        return self.model_dump_json().encode()

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Returns the record that `value` holds as JSON. Raises pydantic.ValidationError if it holds another record or none."""
        return cls.model_validate_json(value)


class PartRecord(Record):
    """The base class of the records about one part."""

    line: LineName = Field(description="Line of the part, the same as in the name of the topic.")
    run: Count = Field(description="Boot count of the board, or start time of the gateway in seconds if the line has no board.")
    part: Count = Field(description="Number of the part, which counts up from 1 within the run.")

    @property
    def part_id(self) -> PartId:
        return PartId(self.line, self.run, self.part)


class ImageReference(BaseModel):
    """The position of the judged picture in Kafka, its checksum and its size."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    topic: str = Field(description="Topic of the image record.")
    partition: int = Field(ge=0, description="Partition of the image record.")
    offset: int = Field(ge=0, description="Offset of the image record.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 checksum of the encoded picture.")
    width_px: int = Field(ge=0, description="Width after EXIF rotation, in pixels; 0 if the picture could not be read.")
    height_px: int = Field(ge=0, description="Height after EXIF rotation, in pixels; 0 if the picture could not be read.")


class Verdict(PartRecord):
    """The ensemble's decision about one part. Topic `castings.verdicts.<line>`, keyed by part id."""

    name: ClassVar[str] = "castline.verdict.v1"
    schema_: Literal["castline.verdict.v1"] = Field("castline.verdict.v1", alias="schema", description="Name of this schema.")
    verdict_id: uuid.UUID = Field(
        description="Id of the verdict, computed from part id, image sha256 and model version. A repeated verdict has the same id."
    )
    label: Label = Field(
        description="`ok`, `defect`, or `review` for a part that a person should check. The gate's action for `review` is a setting."
    )
    defect_probability: Share | None = Field(
        description="Calibrated probability that the part is defective, 0..1; null if the picture could not be judged."
    )
    votes: dict[str, Share] = Field(
        description="Defect probability by network (`alexnet`, `lenet`), 0..1; empty if the picture could not be judged."
    )
    threshold: Share = Field(description="Lowest defect_probability that counts as a defect.")
    model: str = Field(description="Version of the model that judged the picture.")
    reason: str = Field("", description="Reason for `review` in one word; empty for the other labels.")
    overdue: bool = Field(False, description="True if the part's deadline had passed when the verdict was decided.")
    captured_at: Time = Field(
        description="Time at which the picture was taken, or the Kafka timestamp of its record if the camera gave none."
    )
    received_at: Time = Field(description="Time at which the inspector received the picture.")
    decided_at: Time = Field(description="Time at which the verdict was decided.")
    image: ImageReference = Field(description="The picture that was judged.")


def make_verdict_id(part: PartId, sha256: str, model: str) -> uuid.UUID:
    """Returns the id of the verdict of model version `model` on the picture of `part` that has the checksum `sha256`."""
    return uuid.uuid5(_VERDICT_NAMESPACE, f"{part}|{sha256}|{model}")


@dataclass(frozen=True)
class ReviewWithdrawal:
    """States that a person withdrew the review of a part. On `castings.reviews` this is a record that has a key and no value."""

    part_id: PartId


# The archivist stores all records about parts, and withdrawals of reviews.
ArchivedRecord = PartRecord | ReviewWithdrawal

Action = Literal["diverted", "passed", "stopped", "untracked"]
# Reason of a sorting:
#   verdict          The gate did what the verdict asked for.
#   no-verdict       No verdict had arrived when the part was at the gate.
#   late-verdict     The verdict arrived after the part had left.
#   fault            A fault of the board was active; `code` names the fault.
#   board-restarted  The board did not know the part any more, because it had restarted.
#   taken-off        The part never arrived at the gate.
#   unmatched        The board never counted the part.
#   spacing          The part was too close to the next one for the gate to change its position in between.
#   touching         Several touching parts were counted as one.
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


class Sorting(PartRecord):
    """What a gate did with one part. Topic `castings.sorted.<line>`, keyed by part id.

    A record with the same `board`, `run` and `event` as an earlier one is a redelivery of that event, not a second movement.
    """

    name: ClassVar[str] = "castline.sorting.v1"
    schema_: Literal["castline.sorting.v1"] = Field("castline.sorting.v1", alias="schema", description="Name of this schema.")
    board: str = Field(description="Name of the board that reported the part.")
    event: int = Field(
        ge=0, description="Number of the board's event within the run; 0 if the sorter wrote the record without an event of the board."
    )
    action: Action = Field(description="What happened to the part. `untracked` means that the board did not know the part any more.")
    grade: str | None = Field(
        None,
        description="Name of the further gate that diverted the part; null if it was the line's own gate or the part was not diverted.",
    )
    reason: SortingReason = Field(description="Reason for the action.")
    code: int = Field(0, ge=0, description="Error code of the board, see firmware/error_codes.csv; 0 if there was no error.")
    label: Label | None = Field(None, description="Label of the verdict that was sent to the board; null if none was sent.")
    verdict_id: uuid.UUID | None = Field(None, description="Id of the verdict that was sent to the board; null if none was sent.")
    gate_moved: bool = Field(description="True if the servo was moved for this part.")
    move_count: int = Field(ge=0, description="Number of servo movements that the board had counted when it reported the part.")
    late: bool = Field(False, description="True if a verdict arrived, but only after the part had left.")
    counted_at: Time | None = Field(None, description="Time at which photo-eye 1 counted the part.")
    told_at: Time | None = Field(None, description="Time at which the board acknowledged the verdict.")
    at_gate_at: Time | None = Field(None, description="Time at which photo-eye 2 saw the part.")
    sorted_at: Time = Field(description="Time at which the sorter wrote the record.")


class Box(BaseModel):
    """A rectangle in a picture, in pixels. The picture is rotated as its EXIF data say, and the origin is its top left corner."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    left_px: int = Field(ge=0, description="Position of the left edge, in pixels.")
    top_px: int = Field(ge=0, description="Position of the upper edge, in pixels.")
    width_px: int = Field(ge=1, description="Width, in pixels.")
    height_px: int = Field(ge=1, description="Height, in pixels.")
    score: Share = Field(description="How suspicious this area is, 0..1.")
    kind: str = Field("", description="Type of defect; empty if it is not known.")


class Finding(PartRecord):
    """The areas of a picture that look defective. Topic `castings.findings.<line>`, keyed by part id."""

    name: ClassVar[str] = "castline.finding.v1"
    schema_: Literal["castline.finding.v1"] = Field("castline.finding.v1", alias="schema", description="Name of this schema.")
    verdict_id: uuid.UUID = Field(description="Id of the verdict that the finding explains.")
    method: str = Field(description="Method that made the heat map: `grad-cam` or `residual`.")
    model: str = Field(description="Version of the model that made the finding.")
    boxes: tuple[Box, ...] = Field(description="Suspicious areas, the most suspicious one first.")
    heat_map: str = Field(
        description="Address of the heat map in the object store. It is a grey PNG of the whole picture, 255 is the hottest. "
        "Stretch it to the size of the picture."
    )
    found_at: Time = Field(description="Time at which the finding was made.")


class Review(PartRecord):
    """A person's label for one part. Topic `castings.reviews`, keyed by part id and compacted."""

    name: ClassVar[str] = "castline.review.v1"
    schema_: Literal["castline.review.v1"] = Field("castline.review.v1", alias="schema", description="Name of this schema.")
    label: Literal["ok", "defect"] = Field(description="Label that the person decided on.")
    kinds: tuple[str, ...] = Field((), description="Types of defect that the person saw.")
    boxes: tuple[Box, ...] = Field((), description="Areas in which the person saw defects.")
    reviewer: str = Field(description="Account of the person.")
    verdict_id: uuid.UUID | None = Field(None, description="Id of the verdict that was reviewed.")
    reviewed_at: Time = Field(description="Time of the review.")


class ModelChoice(Record):
    """Which model version judges a line. Topic `castings.models`, keyed by the line or `*`, compacted."""

    name: ClassVar[str] = "castline.model-choice.v1"
    schema_: Literal["castline.model-choice.v1"] = Field("castline.model-choice.v1", alias="schema", description="Name of this schema.")
    line: str = Field(pattern=r"^(\*|[a-z0-9][a-z0-9-]{0,39})$", description="Line, or `*` for all lines that have no choice of their own.")
    version: str = Field(description="Version that judges the line.")
    shadow: str | None = Field(
        None, description="Shadow version: it judges the same pictures, but its verdicts are only counted. Null if there is none."
    )
    chosen_by: str = Field(description="Account or host that made the choice.")
    chosen_at: Time = Field(description="Time of the choice.")
    previous: tuple[str, ...] = Field(
        (), description="Versions that judged the line before, the newest first. A roll-back uses the first one."
    )
    forced: bool = Field(
        False, description="True if the version was accepted although its classes differ from those of the version before it."
    )


RECORDS: tuple[type[Record], ...] = (Verdict, Sorting, Finding, Review, ModelChoice)
