"""A version together with the runtime that computes it: what the inspector asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.inference.cascade import Cascade, open_cascade
from models.inference.ensemble import Opinion, Vote
from models.inference.golden_set import check_golden
from models.inference.runtimes import AUTO, BATCH_SIZES, Runtime, open_runtime
from models.inference.runtimes.choice import chosen
from models.registry.versions import Version


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Judges pictures, off the event loop; calls side by side are safe."""

    version: Version
    runtime: Runtime
    vote: Vote

    @property
    def version_name(self) -> str:
        """What verdicts call it."""
        return self.version.name

    @property
    def threshold(self) -> float:
        """Defect from this probability on."""
        return self.version.manifest.threshold

    @property
    def side_px(self) -> int:
        """Side of the square pictures it takes."""
        return self.version.manifest.preprocessing.side_px

    @property
    def max_batch(self) -> int:
        """Most pictures of one call."""
        return self.runtime.max_batch

    def opinions(self, pixels: npt.NDArray[np.uint8]) -> list[Opinion]:
        """One opinion for each of `pixels`, shape (n, side_px, side_px), in order; 1 <= n <= max_batch."""
        return self.vote.opinions(self.runtime.predict(pixels))

    def warm_up(self) -> None:
        """Makes ready to serve: every batch shape computed once, the golden set judged as when the version was made.

        Raises ModelError when the golden set is judged differently.
        """
        self.runtime.warm_up()
        check_golden(self.version, self.runtime.whole if isinstance(self.runtime, Cascade) else self.runtime)


def open_ensemble(
    version: Version,
    runtime: str = "tensorflow",
    batch_sizes: Sequence[int] = BATCH_SIZES,
    threads: int = 0,
    cascade: bool = False,
    band: tuple[float, float] | None = None,
    at_once: int = 1,
) -> Ensemble:
    """`version` on the runtime of that name, warm and checked; with `cascade` the small network decides alone outside `band`.
    `at_once` calls are made side by side.

    Takes seconds. Raises ModelError.
    """
    if runtime == AUTO:
        runtime = chosen(version)
    opened = (
        open_cascade(version, lambda part: open_runtime(part, runtime, batch_sizes, threads, at_once), band)
        if cascade
        else open_runtime(version, runtime, batch_sizes, threads, at_once)
    )
    ensemble = Ensemble(version, opened, Vote.of(version.manifest))
    ensemble.warm_up()
    return ensemble
