"""What a record says of a part, folded into the part's row. No clock, no database: the same records in any order give the same row.

Of several verdicts the first decided stands: it is what the gate acted on. Of several reports of the gate the first that
saw the part stands. Of findings and of reviews the last stands.
"""

from __future__ import annotations

from datetime import datetime

from station.archive.keeping import Keeping
from station.archive.models import Part
from streams.identity import PartId
from streams.records import ArchivedRecord, Box, Finding, PartRecord, Review, ReviewWithdrawal, Sorting, Verdict


def blank(part: PartId, seen_at: datetime) -> Part:
    """The row of a part that nothing is known of but that it was seen."""
    return Part(line=part.line, run=part.run, part=part.part, seen_at=seen_at)


def time_of(record: PartRecord) -> datetime:
    """The best time that `record` alone gives to its part's place in history."""
    match record:
        case Verdict():
            return record.captured_at
        case Sorting():
            return record.counted_at or record.at_gate_at or record.sorted_at
        case Finding():
            return record.found_at
        case Review():
            return record.reviewed_at
    raise TypeError(f"expected a record about a part, found {type(record).__name__}")


def fold(row: Part, told: ArchivedRecord, keeping: Keeping) -> None:
    """Writes into `row` what `told` says."""
    match told:
        case Verdict():
            _verdict(row, told)
        case Sorting():
            _sorting(row, told)
        case Finding():
            _finding(row, told)
        case Review():
            _review(row, told)
        case ReviewWithdrawal():
            _withdraw(row)
    row.kind = _kind(row)
    row.seen_at = row.captured_at or row.counted_at or _earliest(row, told)
    if row.keep_picture is None and row.image_offset is not None and _wanted(row, keeping):
        row.keep_picture = True


def _wanted(row: Part, keeping: Keeping) -> bool:
    return keeping.wants(PartId(row.line, row.run, row.part), row.label, row.review_label != "")


def _verdict(row: Part, told: Verdict) -> None:
    if row.decided_at is not None and row.decided_at <= told.decided_at:
        return
    for name in ("verdict_id", "label", "defect_probability", "threshold", "model", "reason", "overdue"):
        setattr(row, name, getattr(told, name))
    row.votes = dict(told.votes)
    row.captured_at, row.received_at, row.decided_at = told.captured_at, told.received_at, told.decided_at
    image = told.image
    row.image_topic, row.image_partition, row.image_offset = image.topic, image.partition, image.offset
    row.sha256, row.width_px, row.height_px = image.sha256, image.width_px, image.height_px


def _sorting(row: Part, told: Sorting) -> None:
    if row.sorted_at is not None:
        # A gate that saw the part knows more than a host that lost sight of it.
        before, now = (row.action == "untracked", row.sorted_at), (told.action == "untracked", told.sorted_at)
        if before <= now:
            return
    for name in ("action", "code", "gate_moved", "late", "counted_at", "told_at", "at_gate_at", "sorted_at"):
        setattr(row, name, getattr(told, name))
    row.sorted_reason, row.grade = told.reason, told.grade or ""


def _finding(row: Part, told: Finding) -> None:
    if row.found_at is not None and row.found_at > told.found_at:
        return
    row.finding_method, row.finding_boxes = told.method, _boxes(told.boxes)
    row.heat_map, row.found_at = told.heat_map, told.found_at


def _review(row: Part, told: Review) -> None:
    if row.reviewed_at is not None and row.reviewed_at > told.reviewed_at:
        return
    row.review_label, row.review_kinds, row.review_boxes = told.label, list(told.kinds), _boxes(told.boxes)
    row.reviewer, row.reviewed_at = told.reviewer, told.reviewed_at


def _withdraw(row: Part) -> None:
    row.review_label, row.review_kinds, row.review_boxes = "", [], []
    row.reviewer, row.reviewed_at = "", None


def _boxes(boxes: tuple[Box, ...]) -> list[dict[str, object]]:
    return [box.model_dump() for box in boxes]


def _kind(row: Part) -> str:
    """The first type of defect that a person named; where no person looked, the first that was found."""
    if row.review_label:
        named = [*row.review_kinds, *(box["kind"] for box in row.review_boxes)]
    else:
        named = [box["kind"] for box in row.finding_boxes]
    return next((kind for kind in named if kind), "")


def _earliest(row: Part, told: ArchivedRecord) -> datetime:
    known = [row.at_gate_at, row.sorted_at, row.found_at, row.reviewed_at]
    return min((at for at in known if at is not None), default=row.seen_at)
