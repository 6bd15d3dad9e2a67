"""The ensemble that judges pictures: a model version, the runtime that computes its networks, and its scorers.

    decoded picture -> inspect_picture -> judge_pictures -> Ensemble.predict

The inspector and all commands use these functions, so a picture gets the same label from each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.anomaly.version_scorers import DetailInspection, VersionDetails, VersionScorer, open_details, open_scorers
from models.inference.cascade import Cascade, open_cascade
from models.inference.golden_set import check_golden_scores, check_golden_set
from models.inference.line_threshold import DecisionRule
from models.inference.runtimes.runtime import BATCH_SIZES, Runtime, open_runtime, resolve_runtime
from models.inference.segmentation import Segmentation, open_segmentation
from models.inference.soft_vote import Prediction, SoftVote
from models.pictures.decoder import DecodedPicture
from models.pictures.part_finder import FoundPart, PartCheck, check_part
from models.pictures.part_reference import PartReference
from models.pictures.regions import Mask
from models.registry import Version
from streams.records import ANOMALY


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Predicts defects in batches of pictures. `segmentation` is None if the version has no segmentation head.

    Several threads may call `predict` at the same time. The event loop's thread must not call it, because a call takes long.
    """

    version: Version
    runtime: Runtime
    vote: SoftVote
    segmentation: Segmentation | None = None
    scorers: tuple[VersionScorer, ...] = ()
    details: VersionDetails | None = None

    @property
    def version_name(self) -> str:
        """The name of the model version, as it is written in verdicts."""
        return self.version.name

    @property
    def threshold(self) -> float:
        """A part with at least this defect probability is labelled `defect`, or `review` if it lies inside the review band."""
        return self.version.manifest.threshold

    @property
    def part_reference(self) -> PartReference | None:
        """Describes the part that a picture must show. Other pictures are not judged. None means that every picture is judged."""
        return self.version.manifest.part

    @property
    def side_px(self) -> int:
        """The side of the square pictures that `predict` takes, in pixels."""
        return self.version.manifest.preprocessing.side_px

    @property
    def max_batch(self) -> int:
        """The largest number of pictures in one call of `predict`."""
        return self.runtime.max_batch

    def predict(
        self,
        pixels: npt.NDArray[np.uint8],
        parts: Sequence[FoundPart | None] | None = None,
        masks: Sequence[Mask | None] | None = None,
        rules: Sequence[DecisionRule | None] | None = None,
    ) -> list[Prediction]:
        """Returns one prediction for each picture, in order. The networks choose the label, and the scorers add anomaly scores.

        If the version has no networks, the scores choose the label.

        - `pixels`: shape (n, side_px, side_px), grey level 0..255, 1 <= n <= max_batch.
        - `parts`: the outlines of the parts, or None.
        - `masks`: the pixels that the scorers inspect, or None for the whole picture. The networks always judge the whole picture.
        - `rules`: for each picture the rule of its line, or None. A cascade needs these rules to find the pictures that all networks must
          judge. The labels in the result follow the rule of the version in any case.
        """
        if not self.vote.names:
            predictions = [Prediction("ok", None, {}) for _ in pixels]
        elif isinstance(self.runtime, Cascade):
            predictions = self.vote.predict(self.runtime.predict(pixels, rules))
        else:
            predictions = self.vote.predict(self.runtime.predict(pixels))
        if not self.scorers:
            return predictions
        outlines = parts or [None] * len(pixels)
        scores = {scorer.name: scorer.score(pixels, outlines, masks) for scorer in self.scorers}
        scored = [
            replace(prediction, scores={name: float(values[index]) for name, values in scores.items()})
            for index, prediction in enumerate(predictions)
        ]
        if self.vote.names:
            return scored
        return [replace(one, label="review", reason=ANOMALY) if one.is_anomaly else one for one in scored]

    def warm_up(self) -> None:
        """Computes a batch of every size once, then checks the golden set.

        Raises ModelError if a label differs from the recorded label, or a probability or score differs by more than the tolerance.
        """
        check_golden_scores(self.version, self.scorers)
        if not self.vote.names:
            return
        self.runtime.warm_up()
        check_golden_set(self.version, self.runtime.all_voters if isinstance(self.runtime, Cascade) else self.runtime)


def open_ensemble(
    version: Version,
    runtime: str = "tensorflow",
    batch_sizes: Sequence[int] = BATCH_SIZES,
    threads: int = 0,
    cascade: bool = False,
    band: tuple[float, float] | None = None,
    at_once: int = 1,
    detail_time_s: float = 0,
) -> Ensemble:
    """Opens `version` with the named runtime, warms it up and checks the golden set. Takes seconds.

    - `band`: the cascade band. None means the manifest's band.
    - `at_once`: how many threads will call `predict` at the same time.
    - `threads`: 0 means every processor.
    - `detail_time_s`: the longest search for small defects in one picture, in seconds. 0 means no search.

    Raises ModelError if anything fails.
    """
    name = resolve_runtime(version, runtime)
    opened: Runtime
    if cascade and version.manifest.voters:
        opened = open_cascade(version, lambda reduced: open_runtime(reduced, name, batch_sizes, threads, at_once), band)
    else:
        opened = open_runtime(version, name, batch_sizes, threads, at_once)
    ensemble = Ensemble(
        version,
        opened,
        SoftVote.from_manifest(version.manifest),
        open_segmentation(version, name, threads),
        open_scorers(version),
        open_details(version, detail_time_s),
    )
    ensemble.warm_up()
    return ensemble


class PixelPredictor(Protocol):
    """Predicts defects in a batch of reduced pictures. `Ensemble` implements this protocol."""

    def predict(
        self,
        pixels: npt.NDArray[np.uint8],
        parts: Sequence[FoundPart | None],
        masks: Sequence[Mask | None],
        rules: Sequence[DecisionRule | None],
    ) -> list[Prediction]: ...


@dataclass(frozen=True, slots=True)
class InspectedPicture:
    """A reduced picture, shape (side_px, side_px), and what was found in it before the networks judge it.

    - `check`: whether the picture shows the whole part, or None if the version does not check this.
    - `inspection`: the result of the search for small defects, or None if the picture was not searched.
    - `mask`: the pixels that the anomaly scores may use, or None for the whole picture. The networks always judge the whole picture.
    - `rule`: the rule by which the line of the picture chooses the label, or None for the rule of the version.
    """

    pixels: npt.NDArray[np.uint8]
    check: PartCheck | None = None
    inspection: DetailInspection | None = None
    mask: Mask | None = None
    rule: DecisionRule | None = None


def inspect_picture(picture: DecodedPicture, ensemble: Ensemble) -> InspectedPicture:
    """Checks whether `picture` shows the whole part, and searches for small defects.

    If the version of `ensemble` cannot do one of these steps, the step is skipped.
    Raises ValueError if the version searches for small defects, but `picture` does not hold its original pixels.
    """
    check = None if ensemble.part_reference is None else check_part(picture.pixels, ensemble.part_reference, picture.area)
    inspection = None if ensemble.details is None else ensemble.details.inspect_decoded(picture)
    return InspectedPicture(picture.pixels, check, inspection)


def judge_pictures(pictures: Sequence[InspectedPicture], predictor: PixelPredictor) -> list[Prediction | PartCheck]:
    """Returns the prediction for each of `pictures`, in order. All pictures are judged in one call of `predictor`.

    A picture that does not show the whole part is not judged. For such a picture, the list holds a PartCheck, which has the reason,
    instead of a prediction.
    """
    judged = [picture for picture in pictures if picture.check is None or not picture.check.reason]
    predictions: Iterator[Prediction] = iter(())
    if judged:
        parts = [picture.check.part if picture.check else None for picture in judged]
        masks = [picture.mask for picture in judged]
        rules = [picture.rule for picture in judged]
        predictions = iter(predictor.predict(np.stack([picture.pixels for picture in judged]), parts, masks, rules))
    return [
        picture.check if picture.check is not None and picture.check.reason else _add_inspection(next(predictions), picture.inspection)
        for picture in pictures
    ]


def _add_inspection(prediction: Prediction, inspection: DetailInspection | None) -> Prediction:
    return prediction if inspection is None else prediction.add_score(inspection.name, inspection.score)
