"""Reads the defect probabilities and the reviews of a line's parts, from which the line's share of defects is estimated."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from station.archive.models import Part


@dataclass(frozen=True)
class JudgedParts:
    """The newest parts of a line that one model version has judged.

    - `unreviewed`, shape (n,): defect probabilities of the parts without a review
    - `reviewed`, shape (m,): defect probabilities of the reviewed parts
    - `is_defect`, shape (m,): for each reviewed part, True if the reviewer found a defect
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
