"""Evaluates a version on labelled pictures, and compares its cascade with the whole ensemble."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from models.evaluation.figures import measure_figures
from models.evaluation.robustness import make_disturbances
from models.inference.ensemble import Ensemble, InspectedPicture, judge_pictures
from models.inference.soft_vote import Prediction
from models.pictures.part_finder import PartCheck, check_part
from models.registry.version_report import ClassificationFigures, LocalisationReport, Proportion
from models.training.labelled_pictures import LabelledPictures
from streams.errors import ModelError


@dataclass(frozen=True)
class EvaluationReport:
    """The result of an evaluation. `predictions`, `probability` (of a defect) and `is_defect` are in the order of `pictures`.

    - `sources`: the measures for each folder or list of pictures.
    - `voters`: the measures of each network alone at the threshold 0.5.
    - `robustness`: the measures for each disturbance, such as a blur.
    - `pictures_per_s`: the speed without the time for decoding.
    """

    pictures: LabelledPictures
    probability: npt.NDArray[np.float64]
    is_defect: npt.NDArray[np.bool_]
    predictions: list[Prediction]
    threshold: float
    figures: ClassificationFigures
    sources: dict[str, ClassificationFigures]
    voters: dict[str, ClassificationFigures]
    robustness: dict[str, ClassificationFigures]
    pictures_per_s: float
    localisation: LocalisationReport | None = None

    @property
    def errors(self) -> list[int]:
        """Indices of the misses and false alarms. The picture farthest from the threshold comes first."""
        errors = np.flatnonzero((self.probability >= self.threshold) != self.is_defect)
        return sorted(errors.tolist(), key=lambda index: -abs(self.probability[index] - self.threshold))

    @property
    def doubtful(self) -> list[int]:
        """Indices of the pictures that got the label `review`, except for the misses and false alarms.

        The picture nearest to the threshold comes first.
        """
        errors = set(self.errors)
        doubtful = [index for index, one in enumerate(self.predictions) if one.label == "review" and index not in errors]
        return sorted(doubtful, key=lambda index: abs(self.probability[index] - self.threshold))

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON values. The names of its fields must not change, because other programs read them."""
        localisation = {"localisation": self.localisation.model_dump(mode="json")} if self.localisation else {}
        return {
            "pictures": self.pictures.class_counts,
            "unreadable": [{"path": str(bad.path), "reason": bad.reason} for bad in self.pictures.unreadable],
            "figures": self.figures.model_dump(),
            "sources": {name: figures.model_dump() for name, figures in self.sources.items()},
            "voters_at_half": {name: figures.model_dump() for name, figures in self.voters.items()},
            "strained": {name: figures.model_dump() for name, figures in self.robustness.items()},
            "pictures_per_s": round(self.pictures_per_s, 1),
            "errors": [
                {
                    "path": str(self.pictures.files[index].path),
                    "class": self.pictures.files[index].class_name,
                    "defect_probability": round(float(self.probability[index]), 6),
                    "label": self.predictions[index].label,
                    "reason": self.predictions[index].reason,
                }
                for index in self.errors
            ],
            **localisation,
        }


@dataclass(frozen=True)
class CascadeEvaluation:
    """The cascade compared with the whole ensemble on the same pictures.

    - `alone`: share of the pictures that the first network decided alone.
    - `agreement`: share of the pictures to which both gave the same label.
    - `misses_added`: number of defective parts that only the cascade calls ok.
    - `alarms_added`: number of good parts that only the cascade calls defective.
    - `per_s`, `whole_per_s`: speed of the cascade and of the ensemble, in pictures a second.
    """

    alone: Proportion
    agreement: Proportion
    misses_added: int
    alarms_added: int
    figures: ClassificationFigures
    per_s: float
    whole_per_s: float

    def to_json(self) -> dict[str, Any]:
        """Returns a dictionary that can be written as JSON. Its keys are the names of the fields."""
        proportions = {"alone": self.alone.model_dump(), "agreement": self.agreement.model_dump(), "figures": self.figures.model_dump()}
        return asdict(self) | proportions


def evaluate_version(
    ensemble: Ensemble, pictures: LabelledPictures, with_robustness: bool = False, advance: Callable[[int], object] = lambda _: None
) -> EvaluationReport:
    """Judges all `pictures` and returns a report. If `with_robustness` is True, also judges disturbed copies of the pictures.

    - `advance` is called after each batch with the number of its pictures.
    - If the version has no networks, the largest score of its scorers is used instead of the defect probability.
    - If `ensemble` searches for small defects, read the `pictures` with `details=ensemble.details`, so that they keep their original
      pixels. The search for small defects is left out for disturbed copies.
    - A picture that does not show the whole part has the label `review`. Its probability still counts in the figures.

    Raises ModelError if the classes of the pictures differ from those of the version.
    """
    manifest = ensemble.version.manifest
    if manifest.voters and pictures.classes != manifest.classes:
        expected, found = ", ".join(manifest.classes), ", ".join(pictures.classes)
        raise ModelError(f"The pictures have the classes {found}, but version {manifest.version} has {expected}. Rename the class folders.")
    is_defect = pictures.labels != (manifest.ok_class if manifest.voters else pictures.ok_class)
    inspected = _inspect_all(ensemble, pictures)
    start_s = time.perf_counter()
    predictions = _judge_all(ensemble, inspected, advance)
    duration_s = time.perf_counter() - start_s
    probability = np.array([prediction.rank for prediction in predictions])
    band = manifest.band
    is_refused = np.array([picture.check is not None and bool(picture.check.reason) for picture in inspected])

    def measure(values: npt.NDArray[np.float64], chosen: npt.NDArray[np.bool_] | slice = slice(None)) -> ClassificationFigures:
        return measure_figures(values[chosen], is_defect[chosen], manifest.threshold, band.low, band.high, is_refused[chosen])

    source_of = np.array([entry.source for entry in pictures.files])
    votes = {
        voter.name: np.array([prediction.votes.get(voter.name, prediction.rank) for prediction in predictions]) for voter in manifest.voters
    }
    robustness = {}
    for name, disturb in (make_disturbances() if with_robustness else {}).items():
        disturbed = _judge_all(ensemble, [InspectedPicture(disturb(picture)) for picture in pictures.pixels], advance)
        robustness[name] = measure(np.array([prediction.rank for prediction in disturbed]))
    return EvaluationReport(
        pictures=pictures,
        probability=probability,
        is_defect=is_defect,
        predictions=predictions,
        threshold=manifest.threshold,
        figures=measure(probability),
        sources={name: measure(probability, source_of == name) for name in sorted({entry.source for entry in pictures.files})},
        voters={name: measure_figures(vote, is_defect, 0.5, 0.5, 0.5) for name, vote in votes.items()},
        robustness=robustness,
        pictures_per_s=len(predictions) / duration_s,
    )


def evaluate_cascade(whole: EvaluationReport, cascade: Ensemble, pictures: LabelledPictures) -> CascadeEvaluation:
    """Judges `pictures` with `cascade`, and compares the result with `whole`, the report of the ensemble on the same pictures."""
    report = evaluate_version(cascade, pictures)
    pairs = list(zip(report.predictions, whole.predictions, report.is_defect, strict=True))
    voters = len(cascade.version.manifest.voters)
    return CascadeEvaluation(
        alone=Proportion.from_counts(sum(len(one.votes) < voters for one in report.predictions), len(pictures)),
        agreement=Proportion.from_counts(sum(a.label == b.label for a, b, _ in pairs), len(pictures)),
        misses_added=sum(bool(bad) and a.label == "ok" and b.label != "ok" for a, b, bad in pairs),
        alarms_added=sum(not bad and a.label == "defect" and b.label != "defect" for a, b, bad in pairs),
        figures=report.figures,
        per_s=report.pictures_per_s,
        whole_per_s=whole.pictures_per_s,
    )


def list_differences(first: EvaluationReport, second: EvaluationReport) -> list[dict[str, str]]:
    """Returns the pictures to which two versions give different labels, each as a dictionary.

    The keys are `path`, `class` (the true class), `first` and `second` (the labels).
    """
    return [
        {"path": str(entry.path), "class": entry.class_name, "first": one.label, "second": other.label}
        for entry, one, other in zip(first.pictures.files, first.predictions, second.predictions, strict=True)
        if one.label != other.label
    ]


def _inspect_all(ensemble: Ensemble, pictures: LabelledPictures) -> list[InspectedPicture]:
    if ensemble.details is not None and not pictures.inspections:
        raise ValueError(
            "The version searches for small defects, but the pictures were read without its detail template. Pass it to read_pictures."
        )
    inspections = pictures.inspections if ensemble.details is not None else [None] * len(pictures)
    reference = ensemble.part_reference
    seen = zip(pictures.pixels, pictures.areas, strict=True)
    checks = [check_part(pixels, reference, area) if reference else None for pixels, area in seen]
    return [InspectedPicture(*found) for found in zip(pictures.pixels, checks, inspections, strict=True)]


def _judge_all(ensemble: Ensemble, pictures: Sequence[InspectedPicture], advance: Callable[[int], object]) -> list[Prediction]:
    predictions: list[Prediction] = []
    for start in range(0, len(pictures), ensemble.max_batch):
        batch = pictures[start : start + ensemble.max_batch]
        judged = judge_pictures(batch, ensemble)
        refused = [(picture, one) for picture, one in zip(batch, judged, strict=True) if isinstance(one, PartCheck)]
        ranked = iter(_rank_refused(ensemble, refused))
        predictions += [next(ranked) if isinstance(one, PartCheck) else one for one in judged]
        advance(len(batch))
    return predictions


def _rank_refused(ensemble: Ensemble, refused: Sequence[tuple[InspectedPicture, PartCheck]]) -> list[Prediction]:
    """Returns predictions with the label `review` for pictures that do not show the whole part.

    The inspector sends such pictures to review, and its networks do not judge them. In an evaluation the networks judge them too, because
    the figures need a probability for each picture.
    """
    if not refused:
        return []
    predictions = ensemble.predict(np.stack([picture.pixels for picture, _ in refused]), [check.part for _, check in refused])
    return [replace(prediction, label="review", reason=check.reason) for prediction, (_, check) in zip(predictions, refused, strict=True)]
