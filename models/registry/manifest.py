"""The manifest of a model version, the file `manifest.json`. It is checked whenever it is read.

Only `add_drift_reference` changes a manifest. Fields keep the names of release 0.1.0, so that its manifests can still be read.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.pictures.decoder_version import describe_decoder_version
from models.pictures.part_reference import PartReference

# The name of a version must be a valid folder name on every file system, and short enough for the label of a metric.
VERSION_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
# The files of a version lie directly in its folder, so their names contain no slash.
FILE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

# If a manifest is older than the field `only_rendered`, versions that were trained on rendered pictures only have this command.
_DEMO_COMMAND = "castline models make-demo"

NetworkOption = bool | int | float | str
Probability = Annotated[float, Field(ge=0, le=1)]
# The name of a kind of defect stands in verdicts and in the label of a metric, so it must be short.
KindName = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[^\x00-\x1f\x7f]+$")]


class _ManifestModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileEntry(_ManifestModel):
    """Size and checksum of one file of the version."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Preprocessing(_ManifestModel):
    """Describes the input of the version: grey levels 0..255 of square pictures with the side `side_px`."""

    side_px: int = Field(ge=16, le=1024)


class Voter(_ManifestModel):
    """One network of the ensemble: how the network is built, the file of its weights, and the weight of its vote."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$", description="Name of the voter. A verdict contains its vote under this name.")
    network: Literal["alexnet", "lenet"]
    weights_file: str = Field(pattern=FILE_PATTERN)
    side_px: int = Field(
        ge=16, le=1024, description="Side of the network's input. The runtime resamples the version's pictures to this side."
    )
    options: dict[str, NetworkOption] = Field(
        default_factory=dict, description="Keyword arguments of the function that builds the network."
    )
    weight: float = Field(default=1, ge=0, description="Weight of the vote. The weights of all voters are scaled so that they sum to 1.")
    temperature: float = Field(default=1, gt=0, le=100, description="Calibration temperature, by which the network's logits are divided.")


class SegmentationMember(_ManifestModel):
    """The segmentation head of the version: a network that finds where defects are and of which kind. It changes no label."""

    weights_file: str = Field(pattern=FILE_PATTERN)
    side_px: int = Field(ge=16, le=1024, description="Side of the head's input. The version's pictures are resampled to this side.")
    width: int = Field(ge=1, le=64, description="Width of the network, the argument of the function that builds it.")
    kinds: tuple[KindName, ...] = Field(min_length=1, max_length=32, description="Kinds of defect in the order of the head's channels.")
    box_level: Probability = Field(default=0.5, description="A pixel belongs to a defect if its defect probability is at least this value.")
    least_certainty: Probability = Field(
        default=0.6, description="The kind of a defect is unknown if its most probable kind has less than this share of the probability."
    )
    pictures: dict[str, int] = Field(description="Number of pictures that the head was trained on: with masks, with boxes, and good ones.")
    figures: dict[str, float] = Field(default_factory=dict, description="Figures measured when the head was trained.")
    command: str = Field(description="Command that trained the head.")


class ScorerEntry(_ManifestModel):
    """One good-only scorer of the version: its files, the side of its pictures, and its cut-off."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$", description="Name of the scorer. A verdict contains its score under this name.")
    files: tuple[Annotated[str, Field(pattern=FILE_PATTERN)], ...] = Field(min_length=1)
    side_px: int = Field(ge=16, le=1024, description="Side of the pictures that the scorer takes, which are the pictures of the version.")
    cut_off: float = Field(gt=0, description="A part whose score is above this value differs from good parts.")
    alarm_share: float = Field(gt=0, le=0.5, description="The cut-off was chosen so that about this share of good parts is above it.")
    highest_alarm_share: Probability = Field(
        description="With 95 % confidence, at most this share of all good parts has a score above the cut-off."
    )
    good_pictures: int = Field(ge=1, description="Number of good pictures from which the cut-off was chosen.")


class DetailEntry(_ManifestModel):
    """The detail template of the version and its cut-off, for small defects in large pictures.

    The picture is searched in tiles. For a round part, a tile is a strip of rings.
    """

    file: str = Field(pattern=FILE_PATTERN)
    radius_px: float = Field(gt=0, description="Radius of the part in the original good pictures, in pixels.")
    rings: int = Field(ge=2, le=2000, description="Number of rings into which the part is divided.")
    strip_rings: int = Field(ge=1, description="Number of rings in a strip, which is searched at a time.")
    overlap_rings: int = Field(ge=0, description="Number of rings by which a strip is enlarged on each side, so that strips overlap.")
    cut_off: float = Field(gt=0, description="A part whose score is above this value has a place that differs from good parts.")
    alarm_share: float = Field(gt=0, le=0.5, description="The cut-off was chosen so that about this share of good parts is above it.")
    highest_alarm_share: Probability = Field(
        description="With 95 % confidence, at most this share of all good parts has a score above the cut-off."
    )
    good_pictures: int = Field(ge=1, description="Number of good pictures from which the cut-off was chosen.")


class _ProbabilityBand(_ManifestModel):
    low: Probability
    high: Probability

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"expected a band whose low end is at most its high end, found {self.low} > {self.high}")
        return self


class ReviewBand(_ProbabilityBand):
    """The band of doubt: a defect probability from `low` up to, but not including, `high` yields the label `review`.

    If `low` and `high` are equal, no picture gets the label `review`.
    """


class CascadeBand(_ProbabilityBand):
    """The range of defect probabilities in which a cascade (`model.cascade`) asks all voters.

    Outside the range, `voter` decides alone: below `low` the part is good, from `high` on it is defective.
    """

    voter: str


class GoldenSetEntry(_ManifestModel):
    """The file of the golden set: some pictures, with the probabilities that the version gave them when it was made.

    Before a runtime may judge parts, it must give these pictures the same labels and nearly the same probabilities.
    """

    file: str = Field(pattern=FILE_PATTERN)
    tolerance: float = Field(
        default=0.05, gt=0, le=0.5, description="Largest allowed difference between a runtime's defect probability and the recorded one."
    )


class DataFingerprint(_ManifestModel):
    """Identifies the pictures that the version was trained on."""

    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="SHA-256 of a sorted list that contains the class and the checksum of each picture."
    )
    pictures: dict[str, int] = Field(description="Number of pictures of each class.")
    split: str = Field(description="How the validation pictures were chosen.")


class Costs(_ManifestModel):
    """The costs of a miss and of a false alarm, both in the same unit. Only their ratio matters."""

    miss: float = Field(gt=0)
    false_alarm: float = Field(gt=0)


class Histogram(_ManifestModel):
    """The shares of measured values in bins. The shares sum to 1.

    Bin k contains the values from `edges[k - 1]` to below `edges[k]`. The first and the last bin have no outer edge.
    """

    edges: tuple[float, ...]
    shares: tuple[Probability, ...]

    @model_validator(mode="after")
    def _check_bins(self) -> Self:
        if len(self.shares) != len(self.edges) + 1:
            raise ValueError(f"expected {len(self.edges) + 1} shares for {len(self.edges)} edges, found {len(self.shares)}")
        if list(self.edges) != sorted(self.edges):
            raise ValueError("expected rising edges")
        return self


class PercentileHistogram(Histogram):
    """A histogram, and the 1st and the 99th percentile of the measured values."""

    low: float = Field(description="1st percentile of the measured values.")
    high: float = Field(description="99th percentile of the measured values.")


class MissCurve(_ManifestModel):
    """How many defective validation castings each pass threshold would let through.

    A pass threshold above `probabilities[k]`, and at most `probabilities[k + 1]`, passes `misses[k]` castings. A group of near-duplicates
    counts as one casting.
    """

    castings: int = Field(ge=1, description="Number of groups of near-duplicates among the defective validation pictures.")
    probabilities: tuple[Probability, ...] = Field(min_length=1, description="Defect probabilities of these pictures, rising.")
    misses: tuple[float, ...] = Field(description="Number of castings that pass, for each of the probabilities, rising.")

    @model_validator(mode="after")
    def _check_curve(self) -> Self:
        if len(self.probabilities) != len(self.misses):
            raise ValueError(f"expected as many misses as probabilities ({len(self.probabilities)}), found {len(self.misses)}")
        if list(self.probabilities) != sorted(self.probabilities) or list(self.misses) != sorted(self.misses):
            raise ValueError("expected rising probabilities and rising misses")
        return self


class DriftReference(_ManifestModel):
    """Statistics of pictures on which the version was not trained. Drift is measured by comparing a line's pictures with them."""

    pictures: int = Field(ge=1, description="Number of pictures measured.")
    brightness: PercentileHistogram = Field(description="Histogram of the mean grey level of a picture, 0..255.")
    sharpness: PercentileHistogram = Field(
        description="Histogram of a picture's sharpness: the mean square of the second differences of its grey levels."
    )
    good: Histogram | None = Field(
        default=None, description="Histogram of the defect probability of good parts. It is absent in versions without networks."
    )
    bad: Histogram | None = Field(
        default=None,
        description="Histogram of the defect probability of defective parts, in the same bins. It is absent in versions without networks.",
    )
    good_detail: Histogram | None = Field(
        default=None,
        description="Histogram of the defect probability of good parts, in narrow bins that are equally wide in log odds. The effect of a "
        "line's threshold is estimated from it. It is absent in older versions.",
    )
    bad_detail: Histogram | None = Field(
        default=None,
        description="Histogram of the defect probability of defective parts, in the bins of `good_detail`. It is absent in older versions.",
    )
    miss_curve: MissCurve | None = Field(
        default=None,
        description="The miss curve, from which the pass threshold for a stated risk is computed. It is absent in older versions.",
    )


class Manifest(_ManifestModel):
    """Describes a model version: everything except the weights and the golden pictures."""

    schema_name: Literal["castline.model.v1"] = Field(default="castline.model.v1", alias="schema")
    version: str = Field(pattern=VERSION_PATTERN)
    created: datetime
    classes: tuple[str, ...] = Field(min_length=2, description="Names of the classes in the order of the networks' outputs.")
    ok_class: int = Field(ge=0, description="Index of the class of good parts. All other classes are defects.")
    preprocessing: Preprocessing
    voters: tuple[Voter, ...] = Field(description="The networks. The list may be empty if the version has a scorer.")
    scorers: tuple[ScorerEntry, ...] = Field(
        default=(),
        description="Scorers that have learned from good parts alone. Older versions have none. A version without networks gives `review` "
        "to a part that is above the cut-off of a scorer, and `ok` to all others.",
    )
    details: DetailEntry | None = Field(
        default=None,
        description="How the version searches large pictures for small defects. If it is absent, as in older versions, only the reduced "
        "picture is judged.",
    )
    temperature: float = Field(
        default=1, gt=0, le=100, description="Calibration temperature, by which the logits of the ensemble's combined vote are divided."
    )
    threshold: Probability = Field(description="A part is called defective if its defect probability is at least this value.")
    band: ReviewBand
    costs: Costs
    cascade: CascadeBand | None = Field(
        default=None, description="The cascade band. It is absent in versions with only one voter and in older versions."
    )
    golden: GoldenSetEntry
    data: DataFingerprint
    figures: dict[str, float] = Field(description="Figures measured on the validation pictures when the version was made.")
    command: str = Field(description="Command that made the version.")
    made_by: str | None = Field(
        default=None, max_length=200, description="User and computer that made the version, as user@host. It is absent in older versions."
    )
    made_with: str | None = Field(
        default=None, max_length=40, description="Release of Castline that made the version. It is absent in older versions."
    )
    only_rendered: bool | None = Field(
        default=None,
        description="True if the version has learned from rendered pictures only, and never from a photograph. It is absent in older "
        "versions.",
    )
    reference: DriftReference | None = Field(default=None, description="The drift reference. It is absent in older versions.")
    part: PartReference | None = Field(
        default=None,
        description="The part reference: what pictures of good parts have in common. A picture that shows no whole part gets the label "
        "review. If the part reference is absent, as in older versions, no picture is checked for the part.",
    )
    segmentation: SegmentationMember | None = Field(
        default=None, description="The segmentation head. It is absent in versions that know no kinds of defect, and in older versions."
    )
    decoder_version: int | None = Field(
        default=None,
        ge=1,
        description="DECODER_VERSION of the program that made the version. A missing field (release 0.1.0) means 1.",
    )
    handed: bool = Field(
        default=False, description="Whether the parts are handed. The training pictures of handed parts were not mirrored."
    )
    warnings: tuple[str, ...] = Field(
        default=(),
        description="Sentences of the training run that a person should read before the version is chosen, for example that there were few "
        "pictures.",
    )
    files: dict[str, FileEntry]

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_by_name=True, serialize_by_alias=True)

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.ok_class >= len(self.classes):
            raise ValueError(f"expected ok_class to be less than the number of classes ({len(self.classes)}), found {self.ok_class}")
        if not self.voters and not self.scorers:
            raise ValueError("expected at least one entry in voters or in scorers")
        names = [voter.name for voter in self.voters] + [scorer.name for scorer in self.scorers]
        if len(set(names)) < len(names):
            raise ValueError("expected every voter and every scorer to have a name of its own")
        if self.voters and sum(voter.weight for voter in self.voters) <= 0:
            raise ValueError("expected at least one voter with a weight above 0")
        if any(scorer.side_px != self.preprocessing.side_px for scorer in self.scorers):
            raise ValueError(f"expected every scorer to take pictures of {self.preprocessing.side_px} px, like the version")
        named = {voter.weights_file for voter in self.voters} | {self.golden.file}
        if self.segmentation is not None:
            named.add(self.segmentation.weights_file)
        named |= {file for scorer in self.scorers for file in scorer.files}
        if self.details:
            named.add(self.details.file)
        if named != set(self.files):
            raise ValueError(f"expected checksums of exactly {sorted(named)}, found {sorted(self.files)}")
        return self

    @property
    def picture_classes(self) -> tuple[str, ...] | None:
        """The classes that labelled pictures for this version must have, or None if the version has no networks and takes any classes."""
        return self.classes if self.voters else None

    def has_same_classes(self, other: Manifest) -> bool:
        """Tells whether both versions have the same classes, in any order, and the same class of good parts.

        A version without networks has no classes of defects, and agrees with every version.
        """
        if not self.voters or not other.voters:
            return True
        mine, others = (set(one.classes) for one in (self, other))
        return mine == others and self.classes[self.ok_class] == other.classes[other.ok_class]

    @property
    def has_seen_only_rendered(self) -> bool:
        """Whether the version has learned from rendered pictures only. For an older version, the command that made it tells this."""
        return self.command.startswith(_DEMO_COMMAND) if self.only_rendered is None else self.only_rendered

    def describe_training_pictures(self) -> str:
        """Returns a warning if the version has learned from rendered pictures only, else ""."""
        if not self.has_seen_only_rendered:
            return ""
        return (
            f"Version {self.version} has learned from rendered pictures only. It has never seen a photograph of a casting, so its verdicts "
            "on real castings cannot be trusted. Train a version with photographs of your parts."
        )

    def describe_decoder(self) -> str:
        """Returns a warning if the version was made with another picture decoder than that of this program, else ""."""
        return describe_decoder_version(self.decoder_version)

    def describe_classes(self) -> str:
        """Returns the names of all classes and the name of the class of good parts, as words for messages and pages."""
        if not self.voters:
            return "none: the version gives ok or review"
        return f"{', '.join(sorted(self.classes))} with {self.classes[self.ok_class]} as the good one"
