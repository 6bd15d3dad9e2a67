"""The manifest of a model version, the file `manifest.json`. It is checked whenever it is read.

Fields keep the names of release 0.1.0, so that old manifests can still be read. Only `add_drift_reference` changes a manifest.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.pictures.decoder_version import describe_decoder_version
from models.pictures.part_reference import PartReference
from streams.records import DETAIL_TEMPLATE

# The name of a version is also a folder name and the label of a metric, so only short and simple names are valid.
VERSION_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
# The files of a version lie directly in its folder, so their names contain no slash.
FILE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

# A larger file is refused before it is read, so that nobody can keep the station busy with the checksum of a huge file. The largest file of
# the shipped versions has 9 MB.
MAX_FILE_BYTES = 2**31
MAX_VERSION_BYTES = 2**32

# Older manifests do not have the field `only_rendered`. If their field `command` begins with this text, the version was trained on rendered
# pictures only.
_DEMO_COMMAND = "castline models make-demo"

NetworkOption = bool | int | float | str
Probability = Annotated[float, Field(ge=0, le=1)]
# The name of a kind of defect is part of verdicts and metrics, so it must be short.
KindName = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[^\x00-\x1f\x7f]+$")]


class _ManifestModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileEntry(_ManifestModel):
    """Size and checksum of one file of the version."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0, le=MAX_FILE_BYTES)


class Preprocessing(_ManifestModel):
    """Describes the input of the version: grey levels 0..255 of square pictures with the side `side_px`."""

    side_px: int = Field(ge=16, le=1024)
    depth_bits: int | None = Field(
        default=None,
        ge=8,
        le=16,
        description="The option --depth-bits of the training: the number of bits that the camera uses in files with more than 8 bits a "
        "pixel. It is null if the option was not given, and absent in older versions.",
    )


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
    temperature: float = Field(default=1, gt=0, le=100, description="Calibration temperature: the network's logits are divided by it.")


class LearnedPicturesEntry(_ManifestModel):
    """The file with the checksums of the pictures that the weights have learned. A later training does not validate with these pictures."""

    file: str = Field(pattern=FILE_PATTERN)
    pictures: int = Field(ge=0, description="Number of pictures in the file.")
    is_complete: bool = Field(description="False if learned pictures can be missing from the file, for example those of a start version.")
    misses_only_rendered: bool = Field(default=False, description="True if the list can lack rendered pictures, but no other pictures.")


class SegmentationMember(_ManifestModel):
    """The entry for the segmentation head, a small network that shows where a part has defects and names their kinds.

    The segmentation head does not take part in the decision whether the part is good.
    """

    weights_file: str = Field(pattern=FILE_PATTERN)
    side_px: int = Field(ge=16, le=1024, description="Side of the network's input, in pixels. Each picture is resampled to this side.")
    width: int = Field(ge=1, le=64, description="Number of feature maps in the network's first layer.")
    kinds: tuple[KindName, ...] = Field(min_length=1, max_length=32, description="Kinds of defect in the order of the network's outputs.")
    box_level: Probability = Field(default=0.5, description="A pixel belongs to a defect if its defect probability is at least this value.")
    least_certainty: Probability = Field(
        default=0.6, description="The kind of a defect is unknown if no kind has at least this probability."
    )
    pictures: dict[str, int] = Field(description="Number of training pictures: with masks, with boxes, and good ones.")
    figures: dict[str, float] = Field(default_factory=dict, description="Figures of the network, measured after its training.")
    command: str = Field(description="Command that trained the network.")
    learned: LearnedPicturesEntry | None = Field(
        default=None, description="The pictures that the network was trained with. Older versions do not have this field."
    )
    warnings: tuple[str, ...] = Field(default=(), description="Warnings of the training of the network.")


class ScorerEntry(_ManifestModel):
    """The entry for one scorer. A scorer has learned from pictures of good parts alone, and gives each picture a score."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$", description="Name of the scorer. A verdict contains its score under this name.")
    files: tuple[Annotated[str, Field(pattern=FILE_PATTERN)], ...] = Field(min_length=1)
    side_px: int = Field(
        ge=16, le=1024, description="Side of the pictures that the scorer takes. It equals the side of the version's pictures."
    )
    cut_off: float = Field(gt=0, description="A part whose score is above this value differs from good parts.")
    alarm_share: float = Field(gt=0, le=0.5, description="Target: the share of good parts whose score may be above the cut-off.")
    highest_alarm_share: Probability = Field(
        description="With 95 % confidence, at most this share of the good parts has a score above the cut-off."
    )
    good_pictures: int = Field(ge=1, description="Number of good pictures from which the cut-off was chosen.")


class DetailEntry(_ManifestModel):
    """The entry for the detail template, which describes the surface of good parts. With it, a version finds small defects.

    The part is divided into rings around its centre. A few neighbouring rings form a strip. The search takes one strip after the other.
    """

    file: str = Field(pattern=FILE_PATTERN)
    radius_px: float = Field(gt=0, description="Radius of the part in the original good pictures, in pixels.")
    rings: int = Field(ge=2, le=2000, description="Number of rings into which the part is divided.")
    strip_rings: int = Field(ge=1, description="Number of rings that are searched at a time. They form a strip.")
    overlap_rings: int = Field(ge=0, description="Number of extra rings on each side of a strip, so that neighbouring strips overlap.")
    cut_off: float = Field(gt=0, description="If a part's score is above this value, at least one place on the part is unusual.")
    alarm_share: float = Field(gt=0, le=0.5, description="Target: the share of good parts whose score may be above the cut-off.")
    highest_alarm_share: Probability = Field(
        description="With 95 % confidence, at most this share of the good parts has a score above the cut-off."
    )
    good_pictures: int = Field(ge=1, description="Number of good pictures from which the cut-off was chosen.")


class _ProbabilityBand(_ManifestModel):
    low: Probability
    high: Probability

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"expected low to be at most high, found {self.low} > {self.high}")
        return self


class ReviewBand(_ProbabilityBand):
    """The review band, a range of defect probabilities. A part gets the label `review` if its probability is from `low` to below `high`.

    If `low` and `high` are equal, no part gets the label `review`.
    """


class CascadeBand(_ProbabilityBand):
    """The range of defect probabilities in which one network cannot decide alone about a part.

    In a cascade, the network `voter` judges every part first. Below the probability `low`, the part is good. From `high` on, the part is
    defective. Between `low` and `high`, all networks judge the part.
    """

    voter: str


class GoldenSetEntry(_ManifestModel):
    """The file of the golden set: a few pictures, and the probabilities that the version gave for them when it was made.

    A runtime is a library that computes the networks, such as OpenVINO. Castline uses a runtime only if it gives the same labels for these
    pictures, and nearly the same probabilities.
    """

    file: str = Field(pattern=FILE_PATTERN)
    tolerance: float = Field(
        default=0.05,
        gt=0,
        le=0.5,
        description="Largest allowed difference between the defect probability of a runtime and the recorded probability.",
    )


class TrainingIndexEntry(_ManifestModel):
    """The index of the training pictures: what they look like, and where their files were. The station finds similar pictures with it."""

    file: str = Field(pattern=FILE_PATTERN)
    pictures: int = Field(ge=1, description="Number of training pictures in the index.")


class DataFingerprint(_ManifestModel):
    """Identifies the pictures that the version was trained on."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the sorted list of the classes and checksums of all pictures.")
    pictures: dict[str, int] = Field(description="Number of pictures of each class.")
    split: str = Field(description="The way in which the validation pictures were chosen.")


class Costs(_ManifestModel):
    """The costs of a miss and of a false alarm, in any unit, because only their ratio matters."""

    miss: float = Field(gt=0)
    false_alarm: float = Field(gt=0)


class Histogram(_ManifestModel):
    """The shares of measured values in bins. The shares sum to 1.

    Example: the edges (1, 2) make three bins. The bins hold the values below 1, from 1 to below 2, and from 2 on.
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
    """Says for each pass threshold how many defective castings pass without a review. They were counted on the validation pictures.

    A casting passes if its defect probability is below the pass threshold. A group of near-duplicates counts as one casting.

    Example: with `probabilities` (0.1, 0.3) and `misses` (1, 2), one casting passes at the threshold 0.2, and two castings pass at 0.4.
    """

    castings: int = Field(
        ge=1, description="Number of defective castings among the validation pictures. Near-duplicates count as one casting."
    )
    probabilities: tuple[Probability, ...] = Field(
        min_length=1, description="Defect probabilities of the defective validation pictures, in ascending order."
    )
    misses: tuple[float, ...] = Field(
        description="Number of castings that pass, for each value of `probabilities`. The numbers are in ascending order."
    )

    @model_validator(mode="after")
    def _check_curve(self) -> Self:
        if len(self.probabilities) != len(self.misses):
            raise ValueError(f"expected {len(self.probabilities)} values of misses, one for each probability, found {len(self.misses)}")
        if list(self.probabilities) != sorted(self.probabilities) or list(self.misses) != sorted(self.misses):
            raise ValueError("expected the values of probabilities and of misses in ascending order")
        return self


class DriftReference(_ManifestModel):
    """Statistics of known pictures, for example of the validation pictures. Pictures of a line are compared with them to detect drift."""

    pictures: int = Field(ge=1, description="Number of pictures measured.")
    brightness: PercentileHistogram = Field(description="Histogram of the mean grey level of a picture, 0..255.")
    sharpness: PercentileHistogram = Field(
        description="Histogram of the sharpness of a picture: how strongly its grey levels change (mean squared second difference)."
    )
    good: Histogram | None = Field(
        default=None, description="Histogram of the defect probability of good parts. It is absent in versions without networks."
    )
    bad: Histogram | None = Field(
        default=None,
        description="Histogram of the defect probability of defective parts, with the bins of `good`. It is absent in versions without "
        "networks.",
    )
    good_detail: Histogram | None = Field(
        default=None,
        description="Histogram of the defect probability of good parts, in narrow bins. It shows how the threshold of a line changes the "
        "number of false alarms. It is absent in older versions.",
    )
    bad_detail: Histogram | None = Field(
        default=None,
        description="Histogram of the defect probability of defective parts, with the bins of `good_detail`. Absent in older versions.",
    )
    miss_curve: MissCurve | None = Field(
        default=None,
        description="For each pass threshold, the number of defective castings that pass. Older versions have no such curve.",
    )


class Manifest(_ManifestModel):
    """Describes a model version: everything except the weights and the pictures of the golden set."""

    schema_name: Literal["castline.model.v1"] = Field(default="castline.model.v1", alias="schema")
    version: str = Field(pattern=VERSION_PATTERN)
    created: datetime
    classes: tuple[str, ...] = Field(min_length=2, description="Names of the classes in the order of the networks' outputs.")
    ok_class: int = Field(ge=0, description="Index of the class of good parts. All other classes are defects.")
    preprocessing: Preprocessing
    voters: tuple[Voter, ...] = Field(description="The networks. The list may be empty if the version has a scorer.")
    scorers: tuple[ScorerEntry, ...] = Field(
        default=(),
        description="Components that have learned from good parts alone and give each picture a score (scorers). If a version contains no "
        "networks, a part with a score above the cut-off gets the label `review`, and other parts get `ok`.",
    )
    details: DetailEntry | None = Field(
        default=None,
        description="The detail template, with which the version searches large pictures for small defects. Older versions have none and "
        "judge only the reduced picture.",
    )
    temperature: float = Field(
        default=1,
        gt=0,
        le=100,
        description="Calibration temperature. The logits of the combined vote are divided by this temperature.",
    )
    threshold: Probability = Field(description="A part is called defective if its defect probability is at least this value.")
    band: ReviewBand
    costs: Costs
    cascade: CascadeBand | None = Field(
        default=None,
        description="In a cascade, one network judges each part first. If its defect probability lies in this range, all networks judge "
        "the part. Older versions have no such range.",
    )
    golden: GoldenSetEntry
    data: DataFingerprint
    training_index: TrainingIndexEntry | None = Field(
        default=None, description="The index of the training pictures, with small copies of them. Older versions do not have this field."
    )
    learned: LearnedPicturesEntry | None = Field(
        default=None,
        description="The pictures with which the networks were trained. If the training began with the weights of another version, the "
        "pictures of that version are included. Older versions and versions without networks do not have this field.",
    )
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
        description="True if the version has learned from rendered pictures only. It is absent in older versions.",
    )
    reference: DriftReference | None = Field(default=None, description="Statistics with which drift is detected. Older versions have none.")
    part: PartReference | None = Field(
        default=None,
        description="The part reference, which describes the whole part. A picture that does not show the whole part gets the label "
        "`review`. Older versions have no part reference and judge every picture.",
    )
    segmentation: SegmentationMember | None = Field(
        default=None, description="The segmentation head. Older versions and versions that know no kinds of defect do not have it."
    )
    decoder_version: int | None = Field(
        default=None,
        ge=1,
        description="Number of the picture decoder (DECODER_VERSION) with which the version was made. If missing, the number is 1.",
    )
    handed: bool = Field(
        default=False, description="True if a mirrored part is a different part. Training pictures were then not mirrored."
    )
    warnings: tuple[str, ...] = Field(
        default=(),
        description="Warnings of the training run, for example that there were few pictures. Read them before choosing the version.",
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
            raise ValueError("expected all voters and scorers to have different names")
        if self.voters and sum(voter.weight for voter in self.voters) <= 0:
            raise ValueError("expected at least one voter with a weight above 0")
        if any(scorer.side_px != self.preprocessing.side_px for scorer in self.scorers):
            raise ValueError(f"expected side_px of every scorer to be that of the version, {self.preprocessing.side_px} px")
        named = {voter.weights_file for voter in self.voters} | {self.golden.file}
        learned = [self.learned]
        if self.segmentation is not None:
            named.add(self.segmentation.weights_file)
            learned.append(self.segmentation.learned)
        named |= {file for scorer in self.scorers for file in scorer.files}
        named |= {entry.file for entry in (self.details, self.training_index, *learned) if entry}
        if (total := sum(entry.bytes for entry in self.files.values())) > MAX_VERSION_BYTES:
            raise ValueError(f"expected at most {MAX_VERSION_BYTES} bytes in all files of the version, found {total}")
        if named != set(self.files):
            raise ValueError(f"expected checksums of exactly {sorted(named)}, found {sorted(self.files)}")
        return self

    @property
    def picture_classes(self) -> tuple[str, ...] | None:
        """The classes that labelled pictures for this version must have.

        None means that pictures can have any classes, because the version has no networks.
        """
        return self.classes if self.voters else None

    def has_same_classes(self, other: Manifest) -> bool:
        """Returns True if both versions have the same classes, in any order, and the same class of good parts.

        Also returns True if at least one of the two versions has no networks, because its pictures can have any classes.
        """
        if not self.voters or not other.voters:
            return True
        mine, others = (set(one.classes) for one in (self, other))
        return mine == others and self.classes[self.ok_class] == other.classes[other.ok_class]

    @property
    def entries_by_scorer(self) -> dict[str, ScorerEntry | DetailEntry]:
        """The entries of all scorers, by name. The detail template counts as a scorer."""
        by_name: dict[str, ScorerEntry | DetailEntry] = {scorer.name: scorer for scorer in self.scorers}
        return by_name | ({DETAIL_TEMPLATE: self.details} if self.details else {})

    @property
    def has_seen_only_rendered(self) -> bool:
        """True if the version has learned from rendered pictures only."""
        return self.command.startswith(_DEMO_COMMAND) if self.only_rendered is None else self.only_rendered

    @property
    def all_warnings(self) -> tuple[str, ...]:
        """The warnings from the training of the version and from the training of its segmentation head."""
        return (*self.warnings, *(self.segmentation.warnings if self.segmentation else ()))

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
        """Returns a text for people with the names of all classes. The text also says which class contains the good parts."""
        if not self.voters:
            return "none: the version gives ok or review"
        return f"{', '.join(sorted(self.classes))} with {self.classes[self.ok_class]} as the good one"
