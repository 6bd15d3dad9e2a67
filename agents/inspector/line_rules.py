"""Labels judged images by the settings of their line: a threshold, the line's share of defects, and the miss risk.

If a line has no settings, its pictures keep the labels of the model version.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from agents.inspector.judging import JudgedImage
from models.inference.line_threshold import DecisionRule, make_decision_rule
from models.inference.soft_vote import IN_DOUBT, Label, Prediction
from models.pictures.regions import Regions
from models.registry import Version
from streams.errors import ModelError
from streams.live_line_settings import LiveSettingsByLine
from streams.records import ANOMALY

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LineRule:
    """The rule by which a line turns the probabilities of one model version into labels.

    - `threshold`, `decision`: written into the verdicts.
    - `rule`: None keeps the labels of the model version.
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
        # The settings of all lines, and the rules made from them. They are one tuple and are replaced together, so that no thread combines
        # new settings with old rules.
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

    def apply(self, judged: JudgedImage, version: Version) -> JudgedImage:
        """Returns `judged` with the label that follows from the settings of its line. `version` is the version that judged the image."""
        return self.find(judged.decoded.record.part.line, version).apply(judged)


def _make_rule(line: str, version: Version, settings: LiveSettingsByLine) -> LineRule:
    manifest, live = version.manifest, settings.find(line)
    if live is None:
        return LineRule(manifest.threshold)
    reviews_anomalies, regions = bool(live.review_anomalies), Regions.from_settings(live)
    # A version without networks gives no probability, so a threshold cannot be used.
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
