"""One part's story from its row: what happened when, and what each record says. Pure; the same facts as `castline trace`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from station.archive.models import Part
from station.reviews.candidates import REASONS_WITHOUT_VERDICT
from streams.identity import format_time


@dataclass(frozen=True)
class Step:
    """One thing that happened; `after_ms` since the first step, `took_ms` since the one before."""

    at: datetime
    what: str
    detail: dict[str, Any]
    after_ms: float = 0.0
    took_ms: float = 0.0


@dataclass(frozen=True)
class Story:
    """Steps in the order of time, sentences about what is missing or odd, and the records as far as the archive has them."""

    steps: tuple[Step, ...]
    remarks: tuple[str, ...]
    records: dict[str, dict[str, Any]] = field(default_factory=dict)


def story(part: Part, gated: bool) -> Story:
    """The story of `part`; `gated` where its line has a gate."""
    return Story(_timed(sorted(_steps(part), key=lambda step: step.at)), tuple(_remarks(part, gated)), _records(part))


def _steps(part: Part) -> list[Step]:
    judged = {
        "label": part.label,
        "defect_probability": part.defect_probability,
        "votes": part.votes,
        "threshold": part.threshold,
        "reason": part.reason,
        "model": part.model,
        "overdue": part.overdue or None,
    }
    sorting = {
        "action": part.action,
        "reason": part.sorted_reason,
        "gate_moved": part.gate_moved,
        "late": part.late or None,
        "code": part.code,
    }
    reviewed = {"label": part.review_label, "kinds": part.review_kinds, "boxes": len(part.review_boxes) or None, "reviewer": part.reviewer}
    found = {"method": part.finding_method, "boxes": len(part.finding_boxes)}
    known: list[tuple[datetime | None, str, dict[str, Any]]] = [
        (part.counted_at, "counted at photo-eye 1", {}),
        (part.captured_at, "photographed", {}),
        (part.received_at, "received by an inspector", {}),
        (part.decided_at, "judged", judged),
        (part.found_at, "looked at for the place of the defect", found),
        (part.told_at, "verdict taken by the board", {}),
        (part.at_gate_at, "seen at photo-eye 2", {}),
        (part.sorted_at, "sorted", sorting),
        (part.reviewed_at, "reviewed by a person", reviewed),
    ]
    return [
        Step(at, what, {name: _said(value) for name, value in detail.items() if value not in ("", None, [], {})})
        for at, what, detail in known
        if at
    ]


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return " ".join(f"{name} {_said(one)}" for name, one in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _timed(steps: list[Step]) -> tuple[Step, ...]:
    timed = []
    for number, step in enumerate(steps):
        before = steps[max(0, number - 1)].at
        timed.append(Step(step.at, step.what, step.detail, _ms(step.at, steps[0].at), _ms(step.at, before)))
    return tuple(timed)


def _ms(later: datetime, earlier: datetime) -> float:
    return (later - earlier).total_seconds() * 1000


def _remarks(part: Part, gated: bool) -> list[str]:
    found = []
    if not part.label:
        found.append(
            "No verdict is known of this part: its picture never came, waits to be judged, or was judged before the archive began."
        )
    elif part.label == "review" and part.defect_probability is None:
        found.append(f"The picture could not be judged ({part.reason}): its bytes are a dead letter, see castline dead-letters.")
    else:
        found.append("The picture could be read: no dead letter.")
    if part.overdue:
        found.append("The verdict was decided after the part's deadline.")
    if part.late or part.sorted_reason == "late-verdict":
        found.append("The verdict came after the part had passed the gate.")
    if part.sorted_reason in REASONS_WITHOUT_VERDICT:
        found.append(f"The gate acted without a verdict ({part.sorted_reason}), as is set for the line.")
    if gated and not part.sorted_at:
        found.append("No gate report is known of this part: it is still on the belt, was taken off, or the report is not archived.")
    if not gated:
        found.append("Its line has no gate.")
    if part.review_label and part.label in ("ok", "defect") and part.review_label != part.label:
        found.append(f"A person says otherwise than the model: {part.review_label}, not {part.label}.")
    return found


def _records(part: Part) -> dict[str, dict[str, Any]]:
    """What each topic's record said, by the names on the wire; a topic that told nothing is left out."""
    who = {"line": part.line, "run": part.run, "part": part.part}
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
        "overdue": part.overdue,
        "captured_at": _text(part.captured_at),
        "received_at": _text(part.received_at),
        "decided_at": _text(part.decided_at),
        "image": image,
    }
    sorting = {
        "action": part.action,
        "reason": part.sorted_reason,
        "code": part.code,
        "gate_moved": part.gate_moved,
        "late": part.late,
        "counted_at": _text(part.counted_at),
        "told_at": _text(part.told_at),
        "at_gate_at": _text(part.at_gate_at),
        "sorted_at": _text(part.sorted_at),
    }
    finding = {"method": part.finding_method, "boxes": part.finding_boxes, "heat_map": part.heat_map, "found_at": _text(part.found_at)}
    review = {
        "label": part.review_label,
        "kinds": part.review_kinds,
        "boxes": part.review_boxes,
        "reviewer": part.reviewer,
        "reviewed_at": _text(part.reviewed_at),
    }
    told = {
        "castline.verdict.v1": (part.label, verdict),
        "castline.sorting.v1": (part.sorted_at, sorting),
        "castline.finding.v1": (part.found_at, finding),
        "castline.review.v1": (part.review_label, review),
    }
    return {name: who | record for name, (known, record) in told.items() if known}


def _text(at: datetime | None) -> str | None:
    return format_time(at) if at else None
