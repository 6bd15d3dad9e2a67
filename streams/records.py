"""The JSON records on Castline's topics. Within v1, fields are added, never changed or removed.

Each class is the one declaration of its record: it checks what is read, writes what is sent, and gives the published
JSON Schema. Readers ignore fields they do not know, so a newer writer harms no older reader.
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
# Fixed namespace of verdict ids: a repeat of a verdict has the same id on every machine.
_VERDICTS = uuid.UUID("6f1d7a0e-3f0b-5a52-9a0f-0d5f7a3c9b11")


class Record(BaseModel):
    """Root of the JSON records: frozen, keyed by part id."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, serialize_by_alias=True)
    name: ClassVar[str]

    def encode(self) -> bytes:
        """The record's value: compact JSON, UTF-8."""
        return self.model_dump_json().encode()

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Raises pydantic.ValidationError: when `value` is not this record."""
        return cls.model_validate_json(value)


class PartRecord(Record):
    """Root of the records about one part."""

    line: LineName = Field(description="Line, as in the topic's name.")
    run: Count = Field(description="The board's boot count, or the gateway's start time in seconds.")
    part: Count = Field(description="Counts up from 1 within the run.")

    @property
    def part_id(self) -> PartId:
        return PartId(self.line, self.run, self.part)


class ImageReference(BaseModel):
    """Where the judged picture lies and what it was."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    topic: str = Field(description="Topic of the image record.")
    partition: int = Field(ge=0, description="Partition of the image record.")
    offset: int = Field(ge=0, description="Offset of the image record.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the encoded picture.")
    width_px: int = Field(ge=0, description="Width after EXIF rotation; 0 where the picture could not be read.")
    height_px: int = Field(ge=0, description="Height after EXIF rotation; 0 where the picture could not be read.")


class Verdict(PartRecord):
    """What the ensemble decided about one part; topic `castings.verdicts.<line>`, keyed by part id."""

    name: ClassVar[str] = "castline.verdict.v1"
    schema_: Literal["castline.verdict.v1"] = Field("castline.verdict.v1", alias="schema", description="Name of this schema.")
    verdict_id: uuid.UUID = Field(description="Deterministic in part id, image sha256 and model version: a repeat has the same.")
    label: Label = Field(description="`review` is a part that a person should look at; the gate treats it as the line's settings say.")
    defect_probability: Share | None = Field(description="Calibrated, 0..1; null where the picture could not be judged.")
    votes: dict[str, Share] = Field(description="Defect probability by network (`alexnet`, `lenet`); empty where not judged.")
    threshold: Share = Field(description="Least defect_probability that is called a defect.")
    model: str = Field(description="Version of the model that judged.")
    reason: str = Field("", description="Why `review`, in a word; empty for the other labels.")
    overdue: bool = Field(False, description="The part's deadline had passed when the verdict was decided.")
    captured_at: Time = Field(description="When the picture was taken; the record's Kafka time where the camera gave none.")
    received_at: Time = Field(description="When the inspector received the picture.")
    decided_at: Time = Field(description="When the verdict was decided.")
    image: ImageReference = Field(description="The picture judged.")


def make_verdict_id(part: PartId, sha256: str, model: str) -> uuid.UUID:
    """The id of the verdict on picture `sha256` of `part` by version `model`."""
    return uuid.uuid5(_VERDICTS, f"{part}|{sha256}|{model}")


@dataclass(frozen=True)
class ReviewWithdrawal:
    """Says that a person withdrew the review of a part. On `castings.reviews` this is a record with a key and no value."""

    part_id: PartId


# What the archivist writes to the archive.
ArchivedRecord = PartRecord | ReviewWithdrawal

Action = Literal["diverted", "passed", "stopped", "untracked"]
SortingReason = Literal[
    "verdict",  # as the verdict said
    "no-verdict",  # none had come
    "late-verdict",  # it came after the part had gone
    "fault",  # a fault was in force: `code`
    "board-restarted",  # the board no longer knew the part
    "taken-off",  # never came to the gate
    "unmatched",  # the board never counted it
    "spacing",  # too close to a neighbour for the gate to change
    "touching",  # more than one part under one number
]


class Sorting(PartRecord):
    """What a gate did with one part; topic `castings.sorted.<line>`, keyed by part id.

    A record that repeats `board`, `run` and `event` is a redelivery of the same event, not a second movement.
    """

    name: ClassVar[str] = "castline.sorting.v1"
    schema_: Literal["castline.sorting.v1"] = Field("castline.sorting.v1", alias="schema", description="Name of this schema.")
    board: str = Field(description="Name of the board that reported.")
    event: int = Field(ge=0, description="The board's number of the event within the run; 0 where the host wrote the record alone.")
    action: Action = Field(description="`untracked`: the board no longer knew the part.")
    grade: str | None = Field(
        None, description="With `diverted`: the further gate that took the part, by its name; null for the line's own gate."
    )
    reason: SortingReason = Field(description="What decided the action.")
    code: int = Field(0, ge=0, description="The board's error code, see firmware/error_codes.csv; 0 for none.")
    label: Label | None = Field(None, description="The verdict's label, where one was told.")
    verdict_id: uuid.UUID | None = Field(None, description="The verdict told, where one was.")
    gate_moved: bool = Field(description="The servo was moved for this part.")
    move_count: int = Field(ge=0, description="The board's count of servo movements when it reported.")
    late: bool = Field(False, description="A verdict came, but after the part had gone.")
    counted_at: Time | None = Field(None, description="When photo-eye 1 counted the part.")
    told_at: Time | None = Field(None, description="When the board acknowledged the verdict.")
    at_gate_at: Time | None = Field(None, description="When photo-eye 2 saw the part.")
    sorted_at: Time = Field(description="When the sorter wrote the record.")


class Box(BaseModel):
    """A rectangle in pixels of the picture after EXIF rotation, origin top left."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    left_px: int = Field(ge=0, description="Left edge.")
    top_px: int = Field(ge=0, description="Upper edge.")
    width_px: int = Field(ge=1, description="Width.")
    height_px: int = Field(ge=1, description="Height.")
    score: Share = Field(description="How suspicious, 0..1.")
    kind: str = Field("", description="Type of defect, where known.")


class Finding(PartRecord):
    """Where a suspicious picture is suspicious; topic `castings.findings.<line>`, keyed by part id."""

    name: ClassVar[str] = "castline.finding.v1"
    schema_: Literal["castline.finding.v1"] = Field("castline.finding.v1", alias="schema", description="Name of this schema.")
    verdict_id: uuid.UUID = Field(description="The verdict explained.")
    method: str = Field(description="`grad-cam` or `residual`.")
    model: str = Field(description="Version of the model that found it.")
    boxes: tuple[Box, ...] = Field(description="Most suspicious first.")
    heat_map: str = Field(
        description="Address of the heat map in the object store: a grey PNG of the whole picture, 255 hottest, to be stretched over it."
    )
    found_at: Time = Field(description="When it was found.")


class Review(PartRecord):
    """A person's label for one part; topic `castings.reviews`, keyed by part id, compacted."""

    name: ClassVar[str] = "castline.review.v1"
    schema_: Literal["castline.review.v1"] = Field("castline.review.v1", alias="schema", description="Name of this schema.")
    label: Literal["ok", "defect"] = Field(description="What the person decided.")
    kinds: tuple[str, ...] = Field((), description="Types of defect seen.")
    boxes: tuple[Box, ...] = Field((), description="Where they were seen.")
    reviewer: str = Field(description="Account of the person.")
    verdict_id: uuid.UUID | None = Field(None, description="The verdict reviewed.")
    reviewed_at: Time = Field(description="When.")


class ModelChoice(Record):
    """Which version judges a line; topic `castings.models`, keyed by the line or `*`, compacted."""

    name: ClassVar[str] = "castline.model-choice.v1"
    schema_: Literal["castline.model-choice.v1"] = Field("castline.model-choice.v1", alias="schema", description="Name of this schema.")
    line: str = Field(pattern=r"^(\*|[a-z0-9][a-z0-9-]{0,39})$", description="Line, or `*` for all without a choice of their own.")
    version: str = Field(description="Version in force.")
    shadow: str | None = Field(None, description="Version that judges silently beside it.")
    chosen_by: str = Field(description="Account or host that chose.")
    chosen_at: Time = Field(description="When.")
    previous: tuple[str, ...] = Field((), description="Versions in force before, newest first; a roll-back takes the first of them.")
    forced: bool = Field(False, description="Classes other than those of the version before were accepted.")


RECORDS: tuple[type[Record], ...] = (Verdict, Sorting, Finding, Review, ModelChoice)
