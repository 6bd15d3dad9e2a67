"""A version judges a collection of labelled pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.evaluation.figures import Figures, measure
from models.evaluation.robustness import strains
from models.inference.ensemble import Opinion
from models.inference.runtimes.runtime import pieces
from models.inference.version_ensemble import Ensemble
from models.training.labelled_pictures import LabelledPictures
from streams.errors import ModelError


@dataclass(frozen=True)
class Examination:
    """What came out. `probability`, `bad`: shape (n,); `opinions` in the pictures' order."""

    pictures: LabelledPictures
    probability: npt.NDArray[np.float64]
    bad: npt.NDArray[np.bool_]
    opinions: list[Opinion]
    figures: Figures
    sources: dict[str, Figures]
    voters: dict[str, Figures]  # each alone, at 0.5
    strained: dict[str, Figures]
    per_s: float  # pictures a second, decoding left aside

    @property
    def wrong(self) -> list[int]:
        """Indices of the errors at the threshold, the surest error first."""
        threshold = self._threshold
        wrong = np.flatnonzero((self.probability >= threshold) != self.bad)
        return sorted(wrong.tolist(), key=lambda index: -abs(self.probability[index] - threshold))

    _threshold: float = 0.5

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "pictures": self.pictures.counts,
            "unreadable": [{"path": str(bad.path), "reason": bad.reason} for bad in self.pictures.unreadable],
            "figures": self.figures.plain(),
            "sources": {name: figures.plain() for name, figures in self.sources.items()},
            "voters_at_half": {name: figures.plain() for name, figures in self.voters.items()},
            "strained": {name: figures.plain() for name, figures in self.strained.items()},
            "pictures_per_s": round(self.per_s, 1),
            "errors": [
                {
                    "path": str(self.pictures.files[index].path),
                    "class": self.pictures.files[index].class_name,
                    "defect_probability": round(float(self.probability[index]), 6),
                    "label": self.opinions[index].label,
                }
                for index in self.wrong
            ],
        }


def examine(
    ensemble: Ensemble, pictures: LabelledPictures, strain: bool = False, advance: Callable[[int], object] = lambda _: None
) -> Examination:
    """Judges all `pictures`; with `strain` also as a plant may spoil them. `advance` is told how many were judged.

    Raises ModelError when the pictures' classes are not the version's.
    """
    manifest = ensemble.version.manifest
    if pictures.classes != manifest.classes:
        raise ModelError(f"expected the classes {', '.join(manifest.classes)}, found {', '.join(pictures.classes)}")
    bad = pictures.labels != manifest.ok_class
    start = time.perf_counter()
    opinions = _judged(ensemble, pictures.pixels, advance)
    took_s = time.perf_counter() - start
    probability = np.array([opinion.defect_probability for opinion in opinions])
    threshold, band = manifest.threshold, manifest.band

    def figures(some: npt.NDArray[np.float64], chosen: npt.NDArray[np.bool_] | slice = slice(None)) -> Figures:
        return measure(some[chosen], bad[chosen], threshold, band.low, band.high)

    sources = {entry.source for entry in pictures.files}
    of = np.array([entry.source for entry in pictures.files])
    votes = {
        voter.name: np.array([opinion.votes.get(voter.name, opinion.defect_probability) for opinion in opinions])
        for voter in manifest.voters
    }
    strained = {}
    for name, change in (strains() if strain else {}).items():
        changed = np.stack([change(picture) for picture in pictures.pixels])
        found = _judged(ensemble, changed, advance)
        strained[name] = figures(np.array([opinion.defect_probability for opinion in found]))
    return Examination(
        pictures=pictures,
        probability=probability,
        bad=bad,
        opinions=opinions,
        figures=figures(probability),
        sources={name: figures(probability, of == name) for name in sorted(sources)},
        voters={name: measure(vote, bad, 0.5, 0.5, 0.5) for name, vote in votes.items()},
        strained=strained,
        per_s=len(opinions) / took_s,
        _threshold=threshold,
    )


def _judged(ensemble: Ensemble, pixels: npt.NDArray[np.uint8], advance: Callable[[int], object]) -> list[Opinion]:
    opinions: list[Opinion] = []
    for piece in pieces(pixels, ensemble.max_batch):
        opinions += ensemble.opinions(piece)
        advance(len(piece))
    return opinions


def differences(first: Examination, second: Examination) -> list[dict[str, str]]:
    """The pictures that two versions label differently: `path`, `class`, and what `first` and `second` say."""
    return [
        {"path": str(entry.path), "class": entry.class_name, "first": one.label, "second": other.label}
        for entry, one, other in zip(first.pictures.files, first.opinions, second.opinions, strict=True)
        if one.label != other.label
    ]
