"""Explains a verdict in sentences for the quality engineer: which rule decided, and how each network and scorer voted."""

from __future__ import annotations

from models.registry import Manifest
from station.archive.models import Part
from streams.records import ANOMALY

# A scorer is a model that was trained on good parts only. In a verdict, a score of 0.5 is the cut-off of the scorer.
_SCALED_CUT_OFF = 0.5
_SMALL_DEFECT_SEARCH = "detail-template"
# Verdicts hold rounded thresholds. Thresholds that differ by less than this value count as equal.
_SAME_THRESHOLD = 0.0005


def explain_verdict(part: Part, manifest: Manifest | None) -> list[str]:
    """Returns sentences that say why `part` got its verdict, or [] if it has no verdict.

    `manifest` describes the version that judged the part. If it is None, the weights of the networks are unknown.
    """
    if not part.label:
        return []
    sentences = (_explain_rule(part), _explain_threshold(part, manifest), *_explain_votes(part, manifest), _explain_map(part))
    return [sentence for sentence in sentences if sentence]


def _explain_rule(part: Part) -> str:
    if part.reason == ANOMALY:
        return "A scorer that knows good parts finds this part unusual, so a person decides about it."
    if part.defect_probability is None:
        return ""
    probability, threshold = f"The defect probability is {part.defect_probability:.3f}", f"the threshold {part.threshold:.3f}"
    if part.label == "defect":
        return f"{probability}. It is at least {threshold}, so the part is called defective."
    if part.label == "ok":
        return f"{probability}. It is below {threshold}, so the part is called good."
    return f"{probability}. It is too close to {threshold}, or the part is not certain enough to pass, so a person decides about it."


def _explain_threshold(part: Part, manifest: Manifest | None) -> str:
    """Returns a sentence if the threshold of the verdict is not the version's own threshold. Otherwise returns ""."""
    if manifest is None or part.threshold is None or part.defect_probability is None:
        return ""
    if abs(part.threshold - manifest.threshold) < _SAME_THRESHOLD:
        return ""
    return f"The settings of the line gave this threshold. The version's own threshold is {manifest.threshold:.3f}."


def _explain_votes(part: Part, manifest: Manifest | None) -> list[str]:
    weights = {voter.name: voter.weight for voter in manifest.voters} if manifest else {}
    scorers = {scorer.name for scorer in manifest.scorers} if manifest else set()
    if manifest is not None and manifest.details is not None:
        scorers.add(_SMALL_DEFECT_SEARCH)
    total = sum(weights.values())
    sentences = []
    for name, value in part.votes.items():
        if name in scorers:
            side = "above" if value > _SCALED_CUT_OFF else "not above"
            sentences.append(f"The scorer {name} gives {value:.3f}, which is {side} its cut-off {_SCALED_CUT_OFF}.")
        elif name in weights and total:
            sentences.append(f"The network {name} gives {value:.3f}. Its vote has {100 * weights[name] / total:.0f} % of the weight.")
        else:
            sentences.append(f"The network or scorer {name} gives {value:.3f}.")
    if manifest is not None and manifest.cascade is not None and len(part.votes) == 1 and len(manifest.voters) > 1:
        sentences.append("This network was so certain that the others were not asked.")
    return sentences


def _explain_map(part: Part) -> str:
    if part.heat_map:
        boxes = len(part.finding_boxes)
        marked = f"{boxes} suspicious place{'' if boxes == 1 else 's'}" if boxes else "no place clearly"
        return f"The heat map was made with {part.finding_method}. It marks {marked}."
    return "" if part.label == "ok" else "There is no heat map of this part yet."
