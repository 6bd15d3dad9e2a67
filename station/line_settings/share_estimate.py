"""Estimates the share of defective parts on a line from the defect probabilities and the reviews of its parts in the archive."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.inference.line_threshold import find_training_share
from models.registry import Manifest
from station.archive.models import Part
from streams.errors import ModelError

if TYPE_CHECKING:
    from models.inference.defect_share import DefectShareEstimate

NEWEST_PARTS = 100_000
# A share of defects that people set for a line must be between MIN_SHARE and 1 - MIN_SHARE.
MIN_SHARE = 0.00001


@dataclass(frozen=True)
class JudgedParts:
    """The newest parts of a line that one model version has judged.

    - `unreviewed`, shape (n,): defect probabilities of the parts without a review
    - `reviewed`, shape (m,): defect probabilities of the reviewed parts
    - `is_defect`, shape (m,): for each reviewed part, True if the reviewer found a defect
    - `since`: time of the oldest of these parts, or None if there are no parts
    """

    unreviewed: npt.NDArray[np.float64]
    reviewed: npt.NDArray[np.float64]
    is_defect: npt.NDArray[np.bool_]
    since: datetime | None


def read_judged_parts(line: str, version: str, most: int) -> JudgedParts:
    """Returns the newest parts of `line` to which `version` gave a defect probability, at most `most` parts."""
    rows = list(
        Part.objects.filter(line=line, model=version, defect_probability__isnull=False)
        .order_by("-seen_at", "-id")
        .values_list("defect_probability", "review_label", "seen_at")[:most]
    )
    probability = np.array([row[0] for row in rows], np.float64)
    labels = np.array([row[1] for row in rows], np.str_)
    is_reviewed = np.isin(labels, ("ok", "defect"))
    return JudgedParts(probability[~is_reviewed], probability[is_reviewed], labels[is_reviewed] == "defect", rows[-1][2] if rows else None)


@dataclass(frozen=True)
class LineShareEstimate:
    """The estimated share of defective parts on a line.

    - `parts`: the number of parts from which the share was estimated.
    - `reviewed`: how many of these parts have a review.
    - `since`: the time of the oldest of these parts.
    - `uncorrected`: the estimate from the defect probabilities.
    - `corrected`: the estimate after a correction with the reviews. None if too few parts are reviewed.
    """

    parts: int
    reviewed: int
    since: datetime
    uncorrected: DefectShareEstimate
    corrected: DefectShareEstimate | None

    @property
    def best(self) -> DefectShareEstimate:
        """The estimate that was corrected with the reviews. If too few parts are reviewed, the uncorrected estimate."""
        return self.corrected or self.uncorrected

    @property
    def share(self) -> float:
        """The best estimate of the share, rounded. It is limited to the range that people can set for a line."""
        return min(max(round(self.best.value, 6), MIN_SHARE), 1 - MIN_SHARE)

    @property
    def warning(self) -> str:
        """A warning if too few of the parts are reviewed, otherwise "". The page of line settings shows the warning."""
        from models.inference.defect_share import MIN_REVIEWED

        if self.corrected is not None:
            return ""
        return (
            f"Fewer than {MIN_REVIEWED} of these parts are reviewed, so nobody knows whether the probabilities are right. Review more "
            "parts before you use this share."
        )


def estimate_share(line: str, manifest: Manifest, most: int = NEWEST_PARTS) -> LineShareEstimate:
    """Estimates the share of defects on `line` from the newest parts that the model version has judged, at most `most` parts.

    Raises ModelError if the version has judged no part of the line, or if the version has no networks.
    """
    from models.inference.defect_share import MIN_REVIEWED, correct_by_reviews, estimate_from_probabilities

    if not manifest.voters:
        raise ModelError(
            f"Version {manifest.version} has no networks and gives no defect probabilities, so the share of defects cannot be estimated. "
            "Choose a version with networks for this line."
        )
    parts = read_judged_parts(line, manifest.version, most)
    everything = np.concatenate([parts.unreviewed, parts.reviewed])
    if parts.since is None:
        raise ModelError(
            f"Version {manifest.version} has judged no part of this line in the station's database. Let the line run with this version, "
            "and check that the archivist runs."
        )
    training_share = find_training_share(manifest)
    corrected = None
    if len(parts.reviewed) >= MIN_REVIEWED:
        corrected = correct_by_reviews(parts.unreviewed, training_share, parts.reviewed, parts.is_defect)
    uncorrected = estimate_from_probabilities(everything, training_share)
    return LineShareEstimate(len(everything), len(parts.reviewed), parts.since, uncorrected, corrected)
