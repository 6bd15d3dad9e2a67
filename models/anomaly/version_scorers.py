"""Opens the scorers of a model version, which have learned from good parts alone, and its detail template, with their cut-offs."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.anomaly.detail_template import DetailTemplate, SkipReason
from models.anomaly.scorer import NO_PART_SCORE, FloatArray, Masks, PartScorer, scale_scores
from models.pictures.decoder import DecodedPicture
from models.pictures.part_finder import FoundPart, find_part
from models.pictures.regions import Regions
from models.registry import Version
from streams.errors import ModelError

# The module and the class of each scorer. A module is imported only if needed, because the autoencoder loads TensorFlow.
SCORER_CLASSES = {
    "golden-template": ("template", "GoldenTemplate"),
    "memory-autoencoder": ("memory_autoencoder", "MemoryAutoencoder"),
}


@dataclass(frozen=True, slots=True)
class VersionScorer:
    """A scorer of a version and its cut-off."""

    scorer: PartScorer
    cut_off: float

    @property
    def name(self) -> str:
        """The name under which the score stands in verdicts."""
        return self.scorer.name

    def score(self, pixels: npt.NDArray[np.uint8], parts: Sequence[FoundPart | None], masks: Masks | None = None) -> FloatArray:
        """Returns a score for each of `pixels`, shape (n, side_px, side_px). Scores have shape (n,), 0..1, with the cut-off at 0.5.

        - `parts`: the outline of each part, or None. A picture without a part has a score of nearly 1.
        - `masks`: the inspected pixels of each picture, or None for the whole picture. Other pixels do not count.
        """
        outlines = [part or find_part(picture) for part, picture in zip(parts, pixels, strict=True)]
        has_part = np.array([outline is not None for outline in outlines], bool)
        scores = np.full(len(pixels), NO_PART_SCORE, np.float32)
        found = [outline for outline in outlines if outline is not None]
        limits = None if masks is None else [mask for mask, outline in zip(masks, outlines, strict=True) if outline is not None]
        scores[has_part] = self.scorer.score_parts(pixels[has_part], found, limits)
        return scale_scores(scores, self.cut_off)


@dataclass(frozen=True, slots=True)
class VersionDetails:
    """The detail template of a version (for small defects) and its cut-off. `time_s` is the longest time for one picture, in seconds."""

    template: DetailTemplate
    cut_off: float
    time_s: float

    def inspect(self, original: npt.NDArray[np.uint8], regions: Regions | None = None) -> DetailInspection:
        """Searches a picture at full size for small defects. `original` has shape (rows, columns).

        Defects in places that `regions` exclude are ignored. A picture that cannot be inspected gets a score of nearly 1, like a picture
        with a defect.
        """
        mask = None if regions is None else regions.make_mask(*original.shape)
        found = self.template.score(original, self.time_s, mask)
        score = float(scale_scores(np.array([found.score]), self.cut_off)[0])
        return DetailInspection(self.template.name, score, found.skipped)

    def map_heat(self, original: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16] | None:
        """Returns how suspicious each pixel of a picture at full size is, 0..1, with the cut-off at 0.5. The shape is that of `original`.

        Returns None if the picture cannot be searched, or takes longer than `time_s`.
        """
        residuals = self.template.map_residuals(original, self.time_s)
        if residuals is None:
            return None
        residuals /= residuals + np.float16(self.cut_off)
        return residuals

    def inspect_decoded(self, picture: DecodedPicture, regions: Regions | None = None) -> DetailInspection:
        """Searches the original pixels of `picture` for small defects, as `inspect` does.

        Raises ValueError if the decoder did not keep these pixels.
        """
        if picture.original is None:
            raise ValueError("The decoder kept only a reduced copy of the picture, so the picture cannot be searched for small defects.")
        return self.inspect(picture.original, regions)


@dataclass(frozen=True, slots=True)
class DetailInspection:
    """The result of the search for small defects in one picture.

    `score` is 0..1, with the cut-off at 0.5. `name` is the name of the score in verdicts. `skipped` says why the picture was skipped.
    """

    name: str
    score: float
    skipped: SkipReason | None


def open_details(version: Version, time_s: float) -> VersionDetails | None:
    """Returns the detail template of `version`, or None if it has none or if `time_s` is 0.

    `time_s` is the longest time for one picture, in seconds. Raises ModelError if the file is damaged or does not fit the manifest.
    """
    entry = version.manifest.details
    if entry is None or time_s <= 0:
        return None
    with version.copy_files(entry.file) as folder:
        template = DetailTemplate.load(folder / entry.file)
    if template.grid.rings != entry.rings:
        raise ModelError(
            f"{version.file(entry.file)} has {template.grid.rings} rings, but the manifest says {entry.rings}. Copy the version again."
        )
    return VersionDetails(template, entry.cut_off, time_s)


def open_scorers(version: Version) -> tuple[VersionScorer, ...]:
    """Returns the scorers of `version` in the order of its manifest.

    Raises ModelError if this release does not know a scorer, or if a file of a scorer is damaged.
    """
    scorers = []
    for entry in version.manifest.scorers:
        if entry.name not in SCORER_CLASSES:
            known = " and ".join(SCORER_CLASSES)
            raise ModelError(
                f"Version {version.name} has the scorer {entry.name!r}, but this release knows only {known}. Install a newer release."
            )
        module, name = SCORER_CLASSES[entry.name]
        with version.copy_files(*entry.files) as folder:
            scorer: PartScorer = getattr(importlib.import_module(f"models.anomaly.{module}"), name).load(folder)
        if scorer.side_px != entry.side_px:
            raise ModelError(
                f"The scorer {entry.name} in {version.folder} takes pictures of {scorer.side_px} px, but its manifest says "
                f"{entry.side_px} px. Copy the version again."
            )
        scorers.append(VersionScorer(scorer, entry.cut_off))
    return tuple(scorers)
