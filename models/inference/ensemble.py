"""The ensemble that judges pictures: a model version together with the runtime that computes its networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.inference.cascade import Cascade, open_cascade
from models.inference.golden_set import check_golden_set
from models.inference.runtimes.runtime import BATCH_SIZES, Runtime, open_runtime, resolve_runtime
from models.inference.soft_vote import Prediction, SoftVote
from models.pictures.part_reference import PartReference
from models.registry import Version

if TYPE_CHECKING:
    from models.inference.segmentation import Segmentation


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Predicts defects in batches of pictures. `segmentation` names the kinds of defects; it is None if the version has no segmentation
    head.

    Several threads may call `predict` at the same time. The event loop's thread must not call it, because a call takes a long time."""

    version: Version
    runtime: Runtime
    vote: SoftVote
    segmentation: Segmentation | None = None

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

    def predict(self, pixels: npt.NDArray[np.uint8]) -> list[Prediction]:
        """Returns one prediction for each picture, in order.

        Input shape: (n, side_px, side_px), grey level 0..255, 1 <= n <= max_batch.
        """
        return self.vote.predict(self.runtime.predict(pixels))

    def warm_up(self) -> None:
        """Computes a batch of every size once, then checks the golden set.

        Raises ModelError if the labels of the golden set differ from those that were recorded when the version was made, or if a
        probability differs by more than the tolerance.
        """
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
) -> Ensemble:
    """Opens `version` with the named runtime, warms it up and checks the golden set. Takes seconds.

    With `cascade`, the small network decides alone outside the cascade band. `band` gives the low and the high end of the cascade
    band. If `band` is None, the manifest's band is used.

    `at_once` is the number of calls that run at the same time. Together they use `threads` threads, or every processor if `threads` is 0.

    Raises ModelError if the runtime or the networks cannot be opened, or if the check of the golden set fails.
    """
    name = resolve_runtime(version, runtime)
    opened: Runtime
    if cascade:
        opened = open_cascade(version, lambda reduced: open_runtime(reduced, name, batch_sizes, threads, at_once), band)
    else:
        opened = open_runtime(version, name, batch_sizes, threads, at_once)
    segmentation = None
    if version.manifest.segmentation is not None:
        # The segmentation head is always computed by TensorFlow. TensorFlow is imported only here, because a worker with another runtime
        # never needs it for a version without such a head.
        from models.inference.segmentation import open_segmentation

        segmentation = open_segmentation(version)
    ensemble = Ensemble(version, opened, SoftVote.from_manifest(version.manifest), segmentation)
    ensemble.warm_up()
    return ensemble
