"""Reads the files that `castline evaluate` and `castline train` write next to the folder of a version.

    <version>/                          the version itself
    <version>.report/report.json        VersionReport
    <version>.report/*.png              curves, errors and doubtful pictures
    <version>.report/report.html        the report as one web page
    <version>.report/learning-curve.*   LearningCurve and its picture
    <version>.report/contradicted.png   pictures that probably have a wrong label
    <version>.report/runtimes.json      RuntimeReport
    <version>.training/<network>.png    training curves of a network
    <version>.training/<network>.json   TrainingCurves

Folders of release 0.1.0 lack some of these files.
"""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.registry.manifest import Manifest
from models.registry.registry import Registry
from streams.identity import sniff_content_type

REPORT_FILE = "report.json"
LEARNING_CURVE_FILE = "learning-curve.json"
LEARNING_CURVE_PICTURE = "learning-curve.png"
CONTRADICTED_FILE = "contradicted.png"
RUNTIMES_FILE = "runtimes.json"
MAX_FILE_BYTES = 64 * 2**20
MAX_GROUP_PICTURES = 24

_PICTURE_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\.png")


class _ReportModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Proportion(_ReportModel):
    """A share, 0..1: `value` is `count` divided by `of`. The 95 % confidence interval goes from `low` to `high`.

    If `of` is 0, `value` is NaN. Source of the interval: Clopper, Pearson, Biometrika 26, 1934.
    """

    count: int
    of: int
    value: float
    low: float
    high: float

    @classmethod
    def from_counts(cls, count: int, of: int) -> Self:
        """Returns the share `count` / `of` with its confidence interval. If `of` is 0, the interval is 0 to 1.

        Raises ValueError if `count` is not within 0..`of`.
        """
        from scipy.special import betaincinv  # type: ignore[import-untyped]  # no stubs; imported here because it takes long

        if not 0 <= count <= of:
            raise ValueError(f"expected a count within 0..{of}, found {count}")
        if of == 0:
            return cls(count=0, of=0, value=float("nan"), low=0.0, high=1.0)
        low = 0.0 if count == 0 else float(betaincinv(count, of - count + 1, 0.025))
        high = 1.0 if count == of else float(betaincinv(count + 1, of - count, 0.975))
        return cls(count=count, of=of, value=count / of, low=low, high=high)

    @property
    def percent(self) -> float:
        """The share in per cent: 100 * `count` / `of`."""
        return 100 * self.value

    @property
    def low_percent(self) -> float:
        """The lower end of the confidence interval in per cent."""
        return 100 * self.low

    @property
    def high_percent(self) -> float:
        """The upper end of the confidence interval in per cent."""
        return 100 * self.high

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.count} of {self.of}; 95 %: {self.low:.4f} to {self.high:.4f})"


class ClassificationFigures(_ReportModel):
    """Figures that say how well a version judges a set of labelled pictures. The positive class is the defective parts.

    The figures are computed as if there were no review band: each picture counts as called good or as called defective.
    `roc_auc` and `average_precision` are None if all pictures are good or all are defective.
    """

    pictures: int
    defects: int = 0
    accuracy: Proportion
    precision: Proportion = Field(description="Precision: the share of truly defective parts among the parts that are called defective.")
    recall: Proportion = Field(description="Recall: the share of the defective parts that are called defective.")
    f1: float
    misses: Proportion = Field(description="The share of the defective parts that are called good.")
    false_alarms: Proportion = Field(description="The share of the good parts that are called defective.")
    reviews: Proportion = Field(description="The share of all parts whose defect probability lies in the review band.")
    misses_outside_review: int = 0
    false_alarms_outside_review: int = 0
    roc_auc: float | None = None
    average_precision: float | None = None
    calibration_error: float = Field(0.0, description="Expected calibration error, computed in 10 bins.")
    confusion: tuple[tuple[int, int], tuple[int, int]] = Field(
        description="Confusion matrix. The first row counts good parts, the second row defective parts. The first column counts parts that "
        "the version calls good, the second column parts that it calls defective."
    )


class LocalisationFigures(_ReportModel):
    """Figures that say how well the heat maps of one method, such as Grad-CAM, show where the defects are.

    All values except the counts are 0..1, and 1 is the best. None means that the value is unknown.
    """

    defective: int = Field(description="Number of defective pictures that have a mask.")
    good: int = Field(description="Number of good pictures. Their heat maps should show nothing.")
    defects: int = Field(description="Number of separate defects in the masks.")
    pixel_auroc: float | None = Field(
        description="Area under the ROC curve of all pixels of all pictures. Defect pixels are the positive class."
    )
    aupro: float | None = Field(
        description="AUPRO: the mean share of a defect's pixels that are found, for false positive rates up to 0.3."
    )
    aupimo: float | None = Field(
        description="AUPIMO: the mean share of a picture's defect pixels that are found, for false positive rates from 1e-5 to 1e-4."
    )
    pointing: Proportion = Field(
        description="Share of defective pictures whose hottest point is on or near a defect: at most 8 px away in a picture of 300 px."
    )
    box_iou: float | None = Field(description="Mean overlap (IoU) of the boxes around hot areas and the boxes around the defects.")


class LocalisationReport(_ReportModel):
    """Compares several methods that make heat maps, on the same pictures.

    - `sources`: the figures of each method. A key is the name of a method, for example grad-cam.
    - `left_out`: sentences that name pictures and masks that could not be compared, and say why.
    """

    sources: dict[str, LocalisationFigures]
    left_out: tuple[str, ...] = ()


# The groups of pictures that a report shows. A doubtful picture is judged correctly, but has the label `review`.
GalleryGroup = Literal["misses", "false alarms", "doubtful"]


GROUP_TITLES = {
    "misses": "Misses: defective parts that were called good",
    "false alarms": "False alarms: good parts that were called defective",
    "doubtful": "Doubtful pictures: correctly judged, but left for review",
    "errors": "Errors",
}


class ReportPicture(_ReportModel):
    """A PNG file beside report.json, with the text to show under it.

    `group` says whether the picture is a miss, a false alarm or doubtful. It is None for curves, and in reports of earlier releases.
    """

    file: str
    caption: str
    group: GalleryGroup | None = None


class ReportedError(_ReportModel):
    """One picture that the version labelled wrongly. `path` was the path of its file during the evaluation."""

    path: str
    defect_probability: float
    label: str


class VersionReport(_ReportModel):
    """The content of report.json: how well a version judges labelled pictures, and which of them it judges wrongly."""

    model: str
    figures: ClassificationFigures
    voters_at_half: dict[str, ClassificationFigures] = Field(
        {}, description="Accuracy and other figures of each network alone, at the threshold 0.5."
    )
    strained: dict[str, ClassificationFigures] = Field(
        {}, description="Accuracy and other figures on disturbed copies of the pictures, for each disturbance, such as a blur."
    )
    localisation: LocalisationReport | None = Field(
        None, description="Figures that say how well heat maps show the defects. Missing if the version was not compared with masks."
    )
    errors: tuple[ReportedError, ...] = ()
    curves: tuple[ReportPicture, ...] = ()
    gallery: tuple[ReportPicture, ...] = Field(
        (),
        description="Wrongly labelled pictures, the worst first, and doubtful pictures, the most doubtful first.",
    )

    @property
    def gallery_by_title(self) -> dict[str, list[ReportPicture]]:
        """Returns the pictures of each group. The keys are the titles of the groups, for a page.

        A report of an earlier release has only one group, with the title "Errors".
        """
        groups: dict[str, list[ReportPicture]] = {}
        for picture in self.gallery:
            groups.setdefault(GROUP_TITLES[picture.group or "errors"], []).append(picture)
        return groups


class ErrorShare(_ReportModel):
    """A share of wrongly judged pictures, or the difference of two such shares.

    `value` is the share or the difference. Its 95 % confidence interval goes from `low` to `high`.
    """

    value: float
    low: float
    high: float

    @property
    def percent(self) -> float:
        """`value` in per cent. Example: 2.5 for a `value` of 0.025."""
        return 100 * self.value

    def __str__(self) -> str:
        return f"{100 * self.value:.2f} % (95 %: {100 * self.low:.2f} to {100 * self.high:.2f} %)"


class LearningCurvePoint(_ReportModel):
    """One point of a learning curve: the share of errors on pictures that were not used for training.

    The pictures are divided into folds. One fold is used to test the network, and the other folds to train it. A `share` of 0.5 means that
    only half of the pictures in these other folds were used.
    """

    share: float
    training_pictures: int = Field(description="Mean number of pictures with which the networks of this point were trained.")
    errors: ErrorShare


class ContradictedPicture(_ReportModel):
    """A picture whose label is probably wrong. Networks that have not seen the picture give another label."""

    path: str
    class_name: str
    defect_probability: float


class LearningCurve(_ReportModel):
    """The content of learning-curve.json.

    - `gain`: how much lower the share of errors is with all training pictures than with half of them.
    - `contradicted`: at most 100 pictures that probably have a wrong label, the worst first.
    """

    fingerprint: str
    network: str
    pictures: int
    groups: int
    points: tuple[LearningCurvePoint, ...] = Field(min_length=2)
    gain: ErrorShare
    contradicted_count: int = 0
    contradicted: tuple[ContradictedPicture, ...] = ()

    def describe_gain(self) -> str:
        """Returns sentences that say whether more pictures would probably help."""
        half, whole = (point.errors.percent for point in self.points[-2:])
        found = (
            f"With half of the pictures, {half:.2f} % were judged wrongly, and with all of them {whole:.2f} %. "
            f"The difference is {self.gain}."
        )
        if self.gain.low > 0:
            return f"{found} More pictures will probably help."
        return f"{found} The interval contains 0, so this may be chance. More pictures of the same kind will probably help little."


class ExportCheck(_ReportModel):
    """The speed of one runtime at one batch size, in pictures a second (`per_s`).

    The runtime was also checked with the golden set: a few pictures, and the probabilities that the version gave for them when it was made.
    `distance` is the largest difference between these probabilities and those that the runtime computed.
    """

    runtime: str
    batch: int
    per_s: float
    distance: float


class RuntimeReport(_ReportModel):
    """The content of runtimes.json: the speed of each runtime, and which runtimes are refused.

    - `pictures`: the number of pictures on which the labels of each runtime were compared with those of TensorFlow. The pictures of the
      golden set are not counted.
    - `refused`: for each refused runtime, the reason.
    """

    version: str
    processor: str
    pictures: int
    chosen: str
    measured: tuple[ExportCheck, ...]
    refused: dict[str, str]


def list_validation_figures(manifest: Manifest) -> list[tuple[str, Proportion | None]]:
    """Returns the names and values of the figures on the validation pictures, or [] if the training run recorded none.

    A value is None if the figures in the manifest contradict each other.
    """
    figures = {name: int(manifest.figures.get(name, 0)) for name in ("pictures", "misses", "false_alarms", "reviews")}
    pictures = figures["pictures"]
    if not pictures:
        return []
    alone = [(voter.name, manifest.figures.get(f"{voter.name}_accuracy_at_half")) for voter in manifest.voters]
    counts = [
        ("accuracy", pictures - figures["misses"] - figures["false_alarms"]),
        ("misses among all pictures", figures["misses"]),
        ("false alarms among all pictures", figures["false_alarms"]),
        ("left for review", figures["reviews"]),
        *((f"accuracy of {name} alone, at the threshold 0.5", round(share * pictures)) for name, share in alone if share),
    ]
    return [(name, Proportion.from_counts(count, pictures) if 0 <= count <= pictures else None) for name, count in counts]


class TrainingEpoch(_ReportModel):
    """The result of one epoch: loss in nats and accuracy 0..1, on the training pictures and on the validation pictures."""

    number: int
    loss: float
    validation_loss: float
    accuracy: float
    validation_accuracy: float


class TrainingCurves(_ReportModel):
    """The content of `<network>.json`: the numbers of the training curves that `<network>.png` shows."""

    network: str
    epochs: tuple[TrainingEpoch, ...]


def read_report(registry: Registry, name: str) -> VersionReport | None:
    """Returns the report on the version `name`, or None if it is missing, damaged or about another version."""
    content = registry.read_companion(f"{name}.report", REPORT_FILE, MAX_FILE_BYTES)
    if content is None:
        return None
    try:
        report = VersionReport.model_validate_json(content)
    except ValidationError:
        return None
    return report if report.model == name else None


def read_learning_curve(registry: Registry, name: str) -> LearningCurve | None:
    """Returns the learning curve beside the version `name`, or None if it is missing or damaged."""
    content = registry.read_companion(f"{name}.report", LEARNING_CURVE_FILE, MAX_FILE_BYTES)
    try:
        return LearningCurve.model_validate_json(content) if content else None
    except ValidationError:
        return None


def read_runtime_report(registry: Registry, name: str) -> RuntimeReport | None:
    """Returns the report on the runtimes of the version `name`, or None if it is missing, damaged or about another version."""
    content = registry.read_companion(f"{name}.report", RUNTIMES_FILE, MAX_FILE_BYTES)
    try:
        report = RuntimeReport.model_validate_json(content) if content else None
    except ValidationError:
        return None
    return report if report and report.version == name else None


def read_report_picture(registry: Registry, name: str, file: str) -> bytes | None:
    """Returns the PNG `file` of the report on the version `name`, or None if the report has no such PNG."""
    report = read_report(registry, name)
    named = {picture.file for picture in (*report.curves, *report.gallery)} if report else set()
    if file not in {*named, LEARNING_CURVE_PICTURE, CONTRADICTED_FILE}:
        return None
    return _read_png(registry, f"{name}.report", file)


def list_training_curves(registry: Registry, name: str) -> list[ReportPicture]:
    """Lists the pictures of the training curves of the version `name`: one for each network, sorted by file name."""
    folder = f"{name}.training"
    pictures = []
    for file in registry.list_companions(folder):
        if _PICTURE_FILE.fullmatch(file):
            network = file.removesuffix(".png")
            curves = _read_training_curves(registry, folder, f"{network}.json")
            epochs = f"{len(curves.epochs)} epochs" if curves else "the epochs"
            pictures.append(ReportPicture(file=file, caption=f"{network}: loss and accuracy over {epochs} of its training"))
    return pictures


def read_training_curve(registry: Registry, name: str, file: str) -> bytes | None:
    """Returns the PNG `file` with training curves of the version `name`, or None if there is no such PNG."""
    folder = f"{name}.training"
    return _read_png(registry, folder, file) if file in registry.list_companions(folder) else None


def _read_training_curves(registry: Registry, folder: str, file: str) -> TrainingCurves | None:
    content = registry.read_companion(folder, file, MAX_FILE_BYTES)
    try:
        return TrainingCurves.model_validate_json(content) if content else None
    except ValidationError:
        return None


def _read_png(registry: Registry, folder: str, file: str) -> bytes | None:
    if not _PICTURE_FILE.fullmatch(file):
        return None
    content = registry.read_companion(folder, file, MAX_FILE_BYTES)
    return content if content is not None and sniff_content_type(content) == "image/png" else None
