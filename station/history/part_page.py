"""Makes the content of the page about one part from the part's row in the archive: events, records, boxes and an explanation.

The command `castline trace` shows the events of a part, too. It reads them from Kafka.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from models.pictures.part_reference import PART_REFUSALS
from models.registry import Manifest
from station.archive.models import REASONS_WITHOUT_VERDICT, Part
from streams.identity import format_time
from streams.records import ANOMALY, SCORERS, Box, select_network_votes

_SIDE_PX_IF_UNKNOWN = 300
# A scorer is a model that was trained on good parts only. A score above the scorer's cut-off means that the part differs from good parts.
# In verdicts, the scores are scaled so that the cut-off is always 0.5.
_SCALED_CUT_OFF = 0.5
# Verdicts hold rounded thresholds. Thresholds that differ by less than this value count as equal.
_SAME_THRESHOLD = 0.0005


@dataclass(frozen=True)
class TimelineStep:
    """An event of a part, such as its verdict, with the time since the first event and the time since the previous event."""

    at: datetime
    event: str
    details: dict[str, str]
    since_first_ms: float = 0.0
    since_previous_ms: float = 0.0


def make_timeline(part: Part) -> list[TimelineStep]:
    """Returns the events of `part` whose time is known, oldest first."""
    verdict = {
        "label": part.label,
        "defect_probability": part.defect_probability,
        "votes": part.votes,
        "threshold": part.threshold,
        "reason": part.reason,
        "type of defect": part.verdict_kind,
        "model": part.model,
        "overdue": part.overdue or None,
    }
    sorting = {
        "action": part.action,
        "reason": part.sorted_reason,
        "gate_moved": part.gate_moved,
        "seen in the reject chute": part.confirmed,
        "late": part.late or None,
        "code": part.code,
    }
    review = {"label": part.review_label, "kinds": part.review_kinds, "boxes": len(part.review_boxes) or None, "reviewer": part.reviewer}
    finding = {
        "method": part.finding_method,
        "boxes": len(part.finding_boxes),
        "acceptance": part.acceptance.get("result", ""),
    }
    events: list[tuple[datetime | None, str, dict[str, Any]]] = [
        (part.counted_at, "counted at photo-eye 1", {}),
        (part.captured_at, "photographed", {}),
        (part.received_at, "received by an inspector", {}),
        (part.decided_at, "judged", verdict),
        (part.found_at, "defect located", finding),
        (part.told_at, "verdict taken by the board", {}),
        (part.at_gate_at, "seen at photo-eye 2", {}),
        (part.sorted_at, "sorted", sorting),
        (part.reviewed_at, "reviewed by a person", review),
    ]
    steps = [TimelineStep(at, event, _format_details(details)) for at, event, details in events if at]
    steps.sort(key=lambda step: step.at)
    return [
        replace(step, since_first_ms=_between_ms(steps[0], step), since_previous_ms=_between_ms(steps[max(0, index - 1)], step))
        for index, step in enumerate(steps)
    ]


def _format_details(details: dict[str, Any]) -> dict[str, str]:
    return {name.replace("_", " "): _format_value(value) for name, value in details.items() if value not in ("", None, [], {})}


def _format_value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return " ".join(f"{name} {_format_value(inner)}" for name, inner in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _between_ms(earlier: TimelineStep, later: TimelineStep) -> float:
    return (later.at - earlier.at).total_seconds() * 1000


def make_remarks(part: Part, has_gate: bool) -> list[str]:
    """Returns sentences that say what is missing or unusual about `part`. `has_gate` says whether its line has a gate."""
    remarks = [_describe_judgement(part)]
    if part.overdue:
        remarks.append("The verdict was decided after the part's deadline.")
    if part.late or part.sorted_reason == "late-verdict":
        remarks.append("The verdict came after the part had passed the gate.")
    if part.sorted_reason in REASONS_WITHOUT_VERDICT:
        remarks.append(f"The gate acted without a verdict ({part.sorted_reason}), as the line's settings prescribe.")
    if part.confirmed == "no":
        remarks.append("The eye in the reject chute did not see this part. Look for the part among the good ones.")
    if has_gate and not part.sorted_at:
        remarks.append(
            "The archive has no report of the gate on this part. The part is still on the belt or was taken off, or the report is missing."
        )
    if not has_gate:
        remarks.append("The line of this part has no gate.")
    if part.review_label and part.label in ("ok", "defect") and part.review_label != part.label:
        remarks.append(f"The reviewer disagrees with the model: {part.review_label}, not {part.label}.")
    return remarks


def _describe_judgement(part: Part) -> str:
    if not part.label:
        return (
            "The archive has no verdict on this part. The picture did not arrive, is still waiting, or was judged before the archive began."
        )
    if part.reason in PART_REFUSALS:
        return (
            f"The picture was not judged, because it does not show the whole part ({part.reason}). No dead letter was written for this "
            "picture."
        )
    if part.reason == ANOMALY:
        return "The part looks different from good parts: its score is above the cut-off of a scorer, which is 0.5."
    if part.label == "review" and part.defect_probability is None:
        return f"The picture could not be judged ({part.reason}). It was stored as a dead letter, see castline dead-letters."
    return "The picture could be read. There is no dead letter of this part."


def make_records(part: Part) -> dict[str, dict[str, Any]]:
    """Returns the content of the Kafka records about `part`. Each key is the name of a schema, such as `castline.verdict.v1`.

    Leaves out the records that the archive does not have.
    """
    identity = {"line": part.line, "run": part.run, "part": part.part}
    image = {
        "topic": part.image_topic,
        "partition": part.image_partition,
        "offset": part.image_offset,
        "sha256": part.sha256,
        "width_px": part.width_px,
        "height_px": part.height_px,
    }
    verdict = {
        "verdict_id": str(part.verdict_id) if part.verdict_id else None,
        "label": part.label,
        "defect_probability": part.defect_probability,
        "votes": part.votes,
        "threshold": part.threshold,
        "model": part.model,
        "reason": part.reason,
        "kind": part.verdict_kind,
        "overdue": part.overdue,
        "captured_at": _format_optional_time(part.captured_at),
        "received_at": _format_optional_time(part.received_at),
        "decided_at": _format_optional_time(part.decided_at),
        "image": image,
    }
    sorting = {
        "action": part.action,
        "reason": part.sorted_reason,
        "code": part.code,
        "gate_moved": part.gate_moved,
        "confirmed": part.confirmed or None,
        "late": part.late,
        "counted_at": _format_optional_time(part.counted_at),
        "told_at": _format_optional_time(part.told_at),
        "at_gate_at": _format_optional_time(part.at_gate_at),
        "sorted_at": _format_optional_time(part.sorted_at),
    }
    finding = {
        "method": part.finding_method,
        "boxes": part.finding_boxes,
        "heat_map": part.heat_map,
        "acceptance": part.acceptance or None,
        "found_at": _format_optional_time(part.found_at),
    }
    review = {
        "label": part.review_label,
        "kinds": part.review_kinds,
        "boxes": part.review_boxes,
        "reviewer": part.reviewer,
        "reviewed_at": _format_optional_time(part.reviewed_at),
    }
    records = {
        "castline.verdict.v1": (part.label, verdict),
        "castline.sorting.v1": (part.sorted_at, sorting),
        "castline.finding.v1": (part.found_at, finding),
        "castline.review.v1": (part.review_label, review),
    }
    return {name: identity | record for name, (is_known, record) in records.items() if is_known}


def _format_optional_time(at: datetime | None) -> str | None:
    return format_time(at) if at else None


@dataclass(frozen=True)
class OverlayBox:
    """A box that is drawn over the picture, with its caption. `source` is `finding` or `review`.

    `size` is the length and the area of the defect as text, or empty if the line has no scale.
    """

    left_px: int
    top_px: int
    width_px: int
    height_px: int
    caption: str
    source: str
    size: str = ""

    @property
    def caption_px(self) -> tuple[int, int]:
        """The x and y coordinates of the caption in pixels. The caption is above the box, or inside the box if there is no room above."""
        return self.left_px, self.top_px - 3 if self.top_px > 14 else self.top_px + 12


def picture_size_px(part: Part) -> tuple[int, int]:
    """Returns width and height of the part's picture, or a default size if the verdict did not give the size."""
    return part.width_px or _SIDE_PX_IF_UNKNOWN, part.height_px or _SIDE_PX_IF_UNKNOWN


def make_overlay(part: Part) -> list[OverlayBox]:
    """Returns all valid boxes of `part`: first the boxes in the finding, then the boxes that the reviewer drew."""
    return [*_make_boxes(part.finding_boxes, "finding"), *_make_boxes(part.review_boxes, "review")]


def _make_boxes(plain_boxes: Iterable[Any], source: str) -> list[OverlayBox]:
    boxes = []
    for plain_box in plain_boxes:
        try:
            box = Box.model_validate(plain_box)
        except ValidationError:
            continue
        caption = box.kind or (f"{box.score:.0%}" if source == "finding" else "defect")
        size = "" if box.length_mm is None or box.area_mm2 is None else f"{box.length_mm:.3g} mm, {box.area_mm2:.3g} mm²"
        boxes.append(OverlayBox(box.left_px, box.top_px, box.width_px, box.height_px, caption, source, size))
    return boxes


def explain_verdict(part: Part, manifest: Manifest | None) -> list[str]:
    """Returns sentences that say why `part` got its verdict, or [] if it has no verdict.

    `manifest` describes the version that judged the part. If it is None, the sentences do not say how much each network's vote counts.
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
    """Returns a sentence if the threshold comes from the settings of the line and not from the version. Otherwise returns ""."""
    if manifest is None or part.threshold is None or part.defect_probability is None:
        return ""
    if abs(part.threshold - manifest.threshold) < _SAME_THRESHOLD:
        return ""
    return f"The settings of the line gave this threshold. The version's own threshold is {manifest.threshold:.3f}."


def _explain_votes(part: Part, manifest: Manifest | None) -> list[str]:
    weights = {voter.name: voter.weight for voter in manifest.voters} if manifest else {}
    total = sum(weights.values())
    sentences = []
    for name, value in part.votes.items():
        if name in SCORERS:
            side = "above" if value > _SCALED_CUT_OFF else "not above"
            sentences.append(f"The scorer {name} gives {value:.3f}, which is {side} its cut-off {_SCALED_CUT_OFF}.")
        elif name in weights and total:
            sentences.append(f"The network {name} gives {value:.3f}. Its vote has {100 * weights[name] / total:.0f} % of the weight.")
        else:
            sentences.append(f"The network {name} gives {value:.3f}.")
    is_alone = len(select_network_votes(part.votes)) == 1
    if manifest is not None and manifest.cascade is not None and is_alone and len(manifest.voters) > 1:
        sentences.append("This network was so certain that the others were not asked.")
    return sentences


def _explain_map(part: Part) -> str:
    if part.heat_map:
        boxes = len(part.finding_boxes)
        marked = f"{boxes} suspicious place{'' if boxes == 1 else 's'}" if boxes else "no place clearly"
        return f"The heat map was made with {part.finding_method}. It marks {marked}."
    return "" if part.label == "ok" else "There is no heat map of this part yet."
