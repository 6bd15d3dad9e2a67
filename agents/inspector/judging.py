"""Turns decoded images into verdicts. Reads no clock and does no I/O.

    decoded images -> judge_images -> LineRules.apply -> make_verdict

- `judge_images` finds the single pictures on which the networks fail.
- `LineRules` labels judged images by the settings of their line, such as a threshold. If a line has no such settings, its pictures keep
  the labels of the model version.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from agents.inspector.decoding import DecodedImage
from models.inference.ensemble import judge_pictures
from models.inference.line_threshold import DecisionRule, make_decision_rule
from models.inference.soft_vote import IN_DOUBT, Prediction
from models.pictures.decoder import DecodedPicture
from models.pictures.part_finder import FoundPart, PartCheck
from models.pictures.regions import Mask, Regions
from models.registry import Version
from streams import metrics
from streams.errors import ModelError, PictureError
from streams.live_line_settings import LiveSettingsByLine
from streams.object_store import CLAIM_DAMAGED, CLAIM_MISSING
from streams.record_producer import HANDLING_FAILED
from streams.records import ANOMALY, ImageReference, Label, Verdict, make_verdict_id

log = logging.getLogger(__name__)

# The reason in a verdict if the networks raised an error for the picture.
INFERENCE_FAILED = "inference-failed"
# The reasons in verdicts that name a failure of the program, the machine or the object store. The picture is perhaps good, so it can still
# be judged later.
_OUTER_FAILURES = (INFERENCE_FAILED, HANDLING_FAILED, CLAIM_MISSING, CLAIM_DAMAGED)


class PicturePredictor(Protocol):
    """Computes the defect probabilities of a batch of pictures. `models.inference.ensemble.Ensemble` implements this protocol."""

    @property
    def version_name(self) -> str: ...

    @property
    def threshold(self) -> float: ...

    def predict(
        self,
        pixels: npt.NDArray[np.uint8],
        parts: Sequence[FoundPart | None],
        masks: Sequence[Mask | None],
        rules: Sequence[DecisionRule | None],
    ) -> list[Prediction]: ...


Predictor = TypeVar("Predictor", bound=PicturePredictor)


@dataclass(frozen=True)
class JudgedImage:
    """A decoded image with the ensemble's prediction, or with the reason why there is none: an error or a failed part check."""

    decoded: DecodedImage
    prediction: Prediction | PictureError | PartCheck

    @property
    def label(self) -> Label:
        """The label of the verdict. An image without a prediction has the label `review`."""
        return self.prediction.label if isinstance(self.prediction, Prediction) else "review"


def judge_images(images: Sequence[DecodedImage], predictor: PicturePredictor, rules: Sequence[LineRule] | None = None) -> list[JudgedImage]:
    """Returns each of `images` with its prediction, in the same order.

    An image that could not be decoded, or that does not show the whole part, gets the reason instead of a prediction.

    `rules` holds, for each image, the rule by which its line chooses the label. A cascade uses the rules to find the pictures for which the
    small network is enough. Otherwise this function does not use them.
    """
    by_image = [rule.rule for rule in rules] if rules else [None] * len(images)
    decoded = [(image, rule) for image, rule in zip(images, by_image, strict=True) if isinstance(image.picture, DecodedPicture)]
    results = iter(_judge_isolated(decoded, predictor))
    return [JudgedImage(image, image.picture if isinstance(image.picture, PictureError) else next(results)) for image in images]


def _judge_isolated(
    images: Sequence[tuple[DecodedImage, DecisionRule | None]], predictor: PicturePredictor
) -> list[Prediction | PictureError | PartCheck]:
    """Judges `images` in one call. If the call fails, judges each half in a call of its own.

    Each failed half is divided again, until the picture that causes the failure is alone.
    """
    if not images:
        return []
    try:
        return list(judge_pictures([replace(image.as_inspected(), rule=rule) for image, rule in images], predictor))
    except Exception as error:  # noqa: BLE001  a picture can cause any error, and only this picture must fail
        if len(images) == 1:
            return [PictureError(INFERENCE_FAILED, f"The networks failed on the picture of part {images[0][0].record.part}: {error!r}")]
        metrics.batches_split.inc()
        log.warning("The networks failed on a batch of %d pictures (%r). The batch is split to find the bad picture.", len(images), error)
        half = len(images) // 2
        return _judge_isolated(images[:half], predictor) + _judge_isolated(images[half:], predictor)


def _pixels(image: DecodedImage) -> npt.NDArray[np.uint8]:
    assert isinstance(image.picture, DecodedPicture)
    return image.picture.pixels


class KindNamer(Protocol):
    """Names the kinds of the largest defects of pictures. `models.inference.segmentation.Segmentation` implements this protocol."""

    def name_kinds(self, pixels: npt.NDArray[np.uint8]) -> list[str]: ...


def name_kinds(images: Sequence[JudgedImage], namer: KindNamer) -> list[JudgedImage]:
    """Returns `images` in the same order. Images with the label `defect` get the kind of their largest defect.

    If `namer` fails, no image gets a kind.
    """
    indices = [index for index, image in enumerate(images) if image.label == "defect"]
    if not indices:
        return list(images)
    try:
        kinds = namer.name_kinds(np.stack([_pixels(images[index].decoded) for index in indices]))
    except Exception as error:  # noqa: BLE001  The verdict must be delivered even if no kind can be named.
        log.warning("No kinds of defect are named for a batch of %d pictures: %r", len(indices), error)
        return list(images)
    named = list(images)
    for index, kind in zip(indices, kinds, strict=True):
        named[index] = _with_kind(named[index], kind)
    return named


def _with_kind(image: JudgedImage, kind: str) -> JudgedImage:
    assert isinstance(image.prediction, Prediction)
    return replace(image, prediction=replace(image.prediction, kind=kind))


def group_by_predictor(predictors: Sequence[Predictor]) -> list[tuple[Predictor, list[int]]]:
    """Returns each predictor once, with its indices in `predictors` in ascending order.

    Example: for the predictors a, b, a, the result is [(a, [0, 2]), (b, [1])].
    """
    indices_by_id: dict[int, list[int]] = {}
    for index, predictor in enumerate(predictors):
        indices_by_id.setdefault(id(predictor), []).append(index)
    return [(predictors[indices[0]], indices) for indices in indices_by_id.values()]


def make_verdict(judged: JudgedImage, model: str, threshold: float, decided_at: datetime, decision: str = "") -> Verdict:
    """Returns the verdict on one judged image. A picture that was not judged gets the label `review` and a reason.

    `threshold` is the threshold that was used for the label. `decision` is the digest of the line's decision settings, or "".
    """
    decoded, record, prediction = judged.decoded, judged.decoded.record, judged.prediction
    return Verdict(
        line=record.part.line,
        run=record.part.run,
        part=record.part.part,
        verdict_id=make_verdict_id(record.part, decoded.sha256, model, _name_decision(prediction, decision)),
        label=judged.label,
        defect_probability=prediction.defect_probability if isinstance(prediction, Prediction) else None,
        votes={**prediction.votes, **prediction.scores} if isinstance(prediction, Prediction) else {},
        threshold=threshold,
        model=model,
        decision=decision,
        reason=prediction.reason,
        kind=prediction.kind if isinstance(prediction, Prediction) else "",
        overdue=record.deadline is not None and decided_at > record.deadline,
        captured_at=record.captured_at,
        received_at=record.received_at,
        decided_at=decided_at,
        image=_make_reference(decoded),
    )


def _name_decision(prediction: Prediction | PictureError | PartCheck, decision: str) -> str:
    """Returns the digest of the decision settings, as it is used in the verdict's id.

    If the picture was not judged because the program, the machine or the object store failed, the result also names this failure. So the
    verdict has another id when the same picture is judged later.
    """
    return f"{decision}|{prediction.reason}" if isinstance(prediction, PictureError) and prediction.reason in _OUTER_FAILURES else decision


def _make_reference(decoded: DecodedImage) -> ImageReference:
    source, picture = decoded.record.source, decoded.picture
    return ImageReference(
        topic=source.topic,
        partition=source.partition,
        offset=source.offset,
        sha256=decoded.sha256,
        width_px=picture.width_px if isinstance(picture, DecodedPicture) else 0,
        height_px=picture.height_px if isinstance(picture, DecodedPicture) else 0,
    )


@dataclass(frozen=True, slots=True)
class LineRule:
    """The rule by which a line turns the probabilities of one model version into labels.

    - `threshold`, `decision`: written into the verdicts.
    - `rule`: chooses the label by the defect probability. With None, the picture keeps the label of the model version.
    - `reviews_anomalies`: a high anomaly score changes `ok` to `review`.
    - `regions`: the regions of the line, or None for the whole picture. Pixels outside the regions raise no anomaly score.
    """

    threshold: float
    decision: str = ""
    rule: DecisionRule | None = None
    reviews_anomalies: bool = False
    regions: Regions | None = None

    def apply(self, judged: JudgedImage) -> JudgedImage:
        """Returns a judged image with the label that this rule gives to it. An image without a prediction keeps the label `review`."""
        prediction = judged.prediction
        if not isinstance(prediction, Prediction):
            return judged
        label, reason = self._choose_label(prediction)
        return judged if label == prediction.label else replace(judged, prediction=replace(prediction, label=label, reason=reason))

    def _choose_label(self, prediction: Prediction) -> tuple[Label, str]:
        label, reason = prediction.label, prediction.reason
        if self.rule is not None and prediction.defect_probability is not None:
            label = self.rule.choose_label(prediction.defect_probability)
            reason = IN_DOUBT if label == "review" else ""
        if self.reviews_anomalies and label == "ok" and prediction.is_anomaly:
            return "review", ANOMALY
        return label, reason


class LineRules:
    """Holds the rules of all lines. Threads that judge pictures can read the rules while another thread replaces them."""

    def __init__(self) -> None:
        # The settings of all lines, and the rules made from them. Both are replaced together as one tuple, so that no thread combines new
        # settings with old rules.
        self._current: tuple[LiveSettingsByLine, dict[tuple[str, str], LineRule]] = (LiveSettingsByLine(), {})
        self.are_known = False

    def follow(self, settings: LiveSettingsByLine) -> None:
        """Replaces the settings of all lines. May be called from any thread. Batches that are already judged keep their labels."""
        self._current = (settings, {})
        self.are_known = True

    def find(self, line: str, version: Version) -> LineRule:
        """Returns the rule that turns the defect probabilities of `version` into labels on `line`."""
        settings, rules = self._current
        key = (line, version.name)
        if key not in rules:
            rules[key] = _make_rule(line, version, settings)
        return rules[key]

    def find_regions(self, line: str) -> Regions | None:
        """Returns the regions of `line`, or None if people drew no regions."""
        return Regions.from_settings(self._current[0].find(line))


def _make_rule(line: str, version: Version, settings: LiveSettingsByLine) -> LineRule:
    manifest, live = version.manifest, settings.find(line)
    if live is None:
        return LineRule(manifest.threshold)
    reviews_anomalies, regions = bool(live.review_anomalies), Regions.from_settings(live)
    # A threshold is compared with a defect probability. A version without networks gives no such probability, so a threshold in the
    # settings has no effect on this version.
    if not manifest.voters or (live.threshold, live.defect_share, live.miss_risk) == (None, None, None):
        return LineRule(manifest.threshold, live.decision, None, reviews_anomalies, regions)
    try:
        rule = make_decision_rule(manifest, live.threshold, live.defect_share, live.miss_risk)
    except ModelError as error:
        log.warning(
            "The settings of line %s cannot be used, so the threshold of version %s stays active. Reason: %s",
            line,
            version.name,
            error,
            extra={"line": line},
        )
        return LineRule(manifest.threshold, live.decision, None, reviews_anomalies, regions)
    log.info(
        "Line %s: version %s now uses the threshold %.4f. Parts below %.4f pass without a review. The settings are from %s.",
        line,
        version.name,
        rule.threshold,
        rule.low,
        live.set_by,
        extra={"line": line},
    )
    return LineRule(rule.threshold, live.decision, rule, reviews_anomalies, regions)
