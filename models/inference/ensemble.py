"""The ensemble that judges pictures: a model version, the runtime that computes its networks, and its good-only scorers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.anomaly.version_scorers import VersionDetails, VersionScorer, open_details, open_scorers
from models.inference.cascade import Cascade, open_cascade
from models.inference.golden_set import check_golden_scores, check_golden_set
from models.inference.runtimes.runtime import BATCH_SIZES, Runtime, open_runtime, resolve_runtime
from models.inference.segmentation import Segmentation, open_segmentation
from models.inference.soft_vote import Prediction, SoftVote
from models.pictures.part_finder import FoundPart
from models.pictures.part_reference import PartReference
from models.pictures.regions import Mask
from models.registry import Version
from streams.records import ANOMALY


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Predicts defects in batches of pictures. `segmentation` is None if the version has no such head.

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
        """The part that a picture must show to be judged, or None if the version judges every picture."""
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
    ) -> list[Prediction]:
        """Returns one prediction for each picture, in order. The networks choose the label, and the scorers add anomaly scores.

        If the version has no networks, the scores choose the label.

        - `pixels`: shape (n, side_px, side_px), grey level 0..255, 1 <= n <= max_batch.
        - `parts`: the outlines of the parts, or None.
        - `masks`: the pixels that the scorers inspect, or None for the whole picture. The networks always judge the whole picture.
        """
        if not self.vote.names:
            predictions = [Prediction("ok", None, {}) for _ in pixels]
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

        Raises ModelError if a label differs from the recorded label, or a number differs by more than the tolerance.
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
    - `at_once`: the number of simultaneous calls.
    - `threads`: 0 means every processor.
    - `detail_time_s`: 0 means no search for small defects.

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
