"""What a model version says about itself: `manifest.json`, checked when it is read and never changed once written."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

VERSION_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"  # a folder's name on every system, and a bounded metric label
FILE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"  # no folder within a version, no way out of it

Option = bool | int | float | str  # of a network
Probability = Annotated[float, Field(ge=0, le=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileEntry(_Frozen):
    """One file of the version beside the manifest."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Preprocessing(_Frozen):
    """What `models.pictures.decoder.decode` is to make of a picture; the scaling to 0..1 is in the graph."""

    side_px: int = Field(ge=16, le=1024)


class Voter(_Frozen):
    """One network of the ensemble: how our code builds it, where its weights are, what its vote counts."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$", description="Key of its vote in a verdict.")
    network: Literal["alexnet", "lenet"]
    weights_file: str = Field(pattern=FILE_PATTERN)
    side_px: int = Field(ge=16, le=1024, description="What the network takes; the graph resamples from the version's side.")
    options: dict[str, Option] = Field(default_factory=dict, description="Keyword arguments of the network.")
    weight: float = Field(default=1, ge=0, description="Share of its vote; the weights are scaled to sum 1.")
    temperature: float = Field(default=1, gt=0, le=100, description="Its logits are divided by this before the vote.")


class Band(_Frozen):
    """Defect probabilities from `low` up to, but not including, `high` are for a person: label `review`. Empty when equal."""

    low: Probability
    high: Probability

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"expected low <= high, found {self.low} > {self.high}")
        return self


class GoldenSet(_Frozen):
    """Pictures with the answers this version gave when it was made; a runtime must give them again before it serves."""

    file: str = Field(pattern=FILE_PATTERN)
    tolerance: float = Field(default=0.05, gt=0, le=0.5, description="Largest distance of a defect probability.")


class DataFingerprint(_Frozen):
    """Which pictures the version learned from."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of the sorted list of class and picture checksum.")
    pictures: dict[str, int] = Field(description="How many of each class.")
    split: str = Field(description="How the validation pictures were chosen.")


class Costs(_Frozen):
    """What the two mistakes cost, in any one currency; only their ratio matters."""

    miss: float = Field(gt=0)
    false_alarm: float = Field(gt=0)


class Spread(_Frozen):
    """How values are spread over bins between rising `edges`: `shares`, one more than edges, sum 1."""

    edges: tuple[float, ...]
    shares: tuple[Probability, ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.shares) != len(self.edges) + 1:
            raise ValueError(f"expected {len(self.edges) + 1} shares, found {len(self.shares)}")
        if list(self.edges) != sorted(self.edges):
            raise ValueError("expected rising edges")
        return self


class Range(Spread):
    """A spread whose ends are known."""

    low: float = Field(description="A hundredth of the values lies below.")
    high: float = Field(description="A hundredth of the values lies above.")


class Reference(_Frozen):
    """What the version's own pictures looked like, and what it said of them: what a line's are held against."""

    pictures: int = Field(ge=1, description="How many; the version did not learn from them.")
    brightness: Range = Field(description="Mean grey level, 0..255.")
    sharpness: Range = Field(description="Mean square of the second differences of grey levels.")
    good: Spread = Field(description="Defect probability of good parts.")
    bad: Spread = Field(description="Defect probability of defective parts, in the same bins.")


class Certainty(_Frozen):
    """Where one voter may decide alone (`model.cascade`): below `low` good, from `high` on defective, by its own calibrated probability."""

    voter: str
    low: Probability
    high: Probability

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"expected low <= high, found {self.low} > {self.high}")
        return self


class Manifest(_Frozen):
    """Everything about a version but its weights."""

    schema_name: Literal["castline.model.v1"] = Field(default="castline.model.v1", alias="schema")
    version: str = Field(pattern=VERSION_PATTERN)
    created: datetime
    classes: tuple[str, ...] = Field(min_length=2, description="In the order of the networks' outputs.")
    ok_class: int = Field(ge=0, description="Index of the class of good parts; all others are defects.")
    preprocessing: Preprocessing
    voters: tuple[Voter, ...] = Field(min_length=1)
    temperature: float = Field(default=1, gt=0, le=100, description="Of the combined vote.")
    threshold: Probability = Field(description="Defect from this probability on.")
    band: Band
    costs: Costs
    cascade: Certainty | None = Field(default=None, description="Absent in versions made before there was one, or of one voter.")
    golden: GoldenSet
    data: DataFingerprint
    figures: dict[str, float] = Field(description="Measured on validation pictures when the version was made.")
    command: str = Field(description="What made the version.")
    reference: Reference | None = Field(default=None, description="Absent in versions made before there was one.")
    files: dict[str, FileEntry]

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_by_name=True, serialize_by_alias=True)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.ok_class >= len(self.classes):
            raise ValueError(f"expected ok_class below {len(self.classes)}, found {self.ok_class}")
        if len({voter.name for voter in self.voters}) < len(self.voters):
            raise ValueError("expected voters of different names")
        if sum(voter.weight for voter in self.voters) <= 0:
            raise ValueError("expected at least one voter with a weight above 0")
        named = {voter.weights_file for voter in self.voters} | {self.golden.file}
        if named != set(self.files):
            raise ValueError(f"expected checksums of exactly {sorted(named)}, found {sorted(self.files)}")
        return self
