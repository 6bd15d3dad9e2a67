"""Figures of a version on labelled pictures. "Positive" is a defect; the threshold decides, and the band of doubt is counted apart."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import beta  # type: ignore[import-untyped]  # no stubs among the locked packages
from sklearn.metrics import average_precision_score, roc_auc_score

Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

BINS = 10  # of the reliability diagram


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95 % interval (Clopper, Pearson, Biometrika 26, 1934): exact, so rather too wide than too narrow."""

    count: int
    of: int
    value: float
    low: float
    high: float

    @classmethod
    def counted(cls, count: int, of: int) -> Share:
        """`count` of `of`; all is possible where there is nothing to count."""
        if of == 0:
            return cls(0, 0, float("nan"), 0.0, 1.0)
        low = 0.0 if count == 0 else float(beta.ppf(0.025, count, of - count + 1))
        high = 1.0 if count == of else float(beta.ppf(0.975, count + 1, of - count))
        return cls(count, of, count / of, low, high)

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.count} of {self.of}; 95 %: {self.low:.4f} to {self.high:.4f})"


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of one set of pictures."""

    pictures: int
    defects: int
    accuracy: Share
    precision: Share  # of the parts called defective, those that are
    recall: Share  # of the defective parts, those called so
    f1: float
    misses: Share  # of the defective parts
    false_alarms: Share  # of the good parts
    reviews: Share  # of all, in the band of doubt
    misses_outside_review: int
    false_alarms_outside_review: int
    roc_auc: float | None  # None when only one kind of part is there
    average_precision: float | None
    calibration_error: float  # ECE, 10 bins
    confusion: tuple[tuple[int, int], tuple[int, int]]  # rows: truly good, truly defective; columns: called so

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def measure(probability: Numbers, bad: Flags, threshold: float, low: float, high: float) -> Figures:
    """Figures of `probability` (of a defect), shape (n,), for parts that are `bad` or not."""
    called = probability >= threshold
    doubt = (probability >= low) & (probability < high)
    hits, misses = int((bad & called).sum()), int((bad & ~called).sum())
    alarms, passed = int((~bad & called).sum()), int((~bad & ~called).sum())
    both = bool(bad.any() and (~bad).any())
    return Figures(
        pictures=len(bad),
        defects=int(bad.sum()),
        accuracy=Share.counted(hits + passed, len(bad)),
        precision=Share.counted(hits, hits + alarms),
        recall=Share.counted(hits, hits + misses),
        f1=2 * hits / max(1, 2 * hits + alarms + misses),
        misses=Share.counted(misses, hits + misses),
        false_alarms=Share.counted(alarms, alarms + passed),
        reviews=Share.counted(int(doubt.sum()), len(bad)),
        misses_outside_review=int((bad & ~called & ~doubt).sum()),
        false_alarms_outside_review=int((~bad & called & ~doubt).sum()),
        roc_auc=float(roc_auc_score(bad, probability)) if both else None,
        average_precision=float(average_precision_score(bad, probability)) if both else None,
        calibration_error=calibration_error(probability, bad),
        confusion=((passed, alarms), (misses, hits)),
    )


def reliability(probability: Numbers, bad: Flags) -> list[tuple[float, float, int]]:
    """Of each bin that is not empty: mean probability, share of defects, pictures."""
    places = np.clip((probability * BINS).astype(int), 0, BINS - 1)
    return [
        (float(probability[places == place].mean()), float(bad[places == place].mean()), int((places == place).sum()))
        for place in range(BINS)
        if (places == place).any()
    ]


def calibration_error(probability: Numbers, bad: Flags) -> float:
    """Expected calibration error: by how much probability and share of defects differ, weighted by pictures."""
    return sum(count * abs(mean - share) for mean, share, count in reliability(probability, bad)) / len(bad)
