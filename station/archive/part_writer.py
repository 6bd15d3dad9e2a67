"""Writes records into the table of parts, one row for each part. The records can arrive in any order.

If a part has several verdicts, the earliest counts. If it has several findings or reviews, the last counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any, Protocol

from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, connection, transaction
from django.db.models import Q

from station.archive.database import lock_parts
from station.archive.models import Part
from station.archive.retention import RetentionPolicy
from streams.errors import ArchiveError
from streams.identity import PartId
from streams.records import ArchivedRecord, Box, Finding, PartRecord, Review, ReviewWithdrawal, Sorting, Verdict

_IDENTITY = ("line", "run", "part")
_FIELDS = [field.name for field in Part._meta.concrete_fields if not field.primary_key]
_MERGED_FIELDS = [name for name in _FIELDS if name not in _IDENTITY]


class ReviewQueue(Protocol):
    """The queue of parts that people should review.

    This class is an interface. The class that implements it is in `station.reviews`, which `station.archive` must not import.
    """

    def select(self, parts: Iterable[Part]) -> list[tuple[Part, Any]]:
        """Returns the parts that a person should review, each with the reasons for a review."""
        ...

    def add(self, selected: Sequence[tuple[Part, Any]]) -> None:
        """Adds the parts in `selected`, which `select` has returned, to the queue. Their rows must be in the database already."""
        ...


class PartWriter:
    """Writes batches of records into the table of parts, each batch in one transaction. A repeated record changes nothing.

    Several processes can write at the same time, because each one locks the table. Each thread needs its own PartWriter.
    """

    def __init__(
        self, policy: RetentionPolicy, review_queue: ReviewQueue, check_rows: Callable[[Sequence[Part]], None] = lambda rows: None
    ) -> None:
        """`check_rows` is called at the end of each transaction, with the rows that were added or changed in the transaction."""
        self._policy = policy
        self._review_queue = review_queue
        self._check_rows = check_rows

    def write(self, records: Sequence[ArchivedRecord]) -> int:
        """Merges `records` into the rows of their parts. Returns the number of rows that were added or changed.

        If one record cannot be written, writes none and raises ArchiveError. If the database has failed, the error is `retriable`. If a
        record does not fit the table, the error is not `retriable`.
        """
        try:
            with transaction.atomic():
                lock_parts()
                return self._merge_all(records)
        except (DataError, IntegrityError, OverflowError, ValueError) as error:
            connection.close()
            raise ArchiveError(f"a record does not fit the table of parts: {_first_line(error)}", retriable=False) from error
        except (DatabaseError, InterfaceError) as error:
            # The database has failed, for example because its file is damaged. The records may be valid, so the error is retriable.
            connection.close()
            raise ArchiveError(f"cannot write {len(records)} records into the database: {_first_line(error)}") from error

    def _merge_all(self, records: Sequence[ArchivedRecord]) -> int:
        rows = _load_rows({record.part_id for record in records})
        before = {part: _values(row) for part, row in rows.items()}
        for record in records:
            row = rows.get(record.part_id)
            if row is None:
                if not isinstance(record, PartRecord):
                    continue
                row = rows[record.part_id] = make_row(record.part_id, time_of(record))
            merge_record(row, record, self._policy)
        changed = [row for part, row in sorted(rows.items()) if before.get(part) != _values(row)]
        selected = self._review_queue.select(changed)
        for row, _ in selected:
            # Mark the picture to be kept, because a person cannot review the part without its picture.
            if row.keep_picture is None and row.image_offset is not None:
                row.keep_picture = True
        for row in changed:
            # Remove the primary key. The database then updates the existing row with the same line, run and part, or inserts a new row.
            row.pk = None
        Part.objects.bulk_create(changed, update_conflicts=True, unique_fields=list(_IDENTITY), update_fields=_MERGED_FIELDS)
        self._review_queue.add(selected)
        self._check_rows(changed)
        return len(changed)


def _load_rows(parts: Iterable[PartId]) -> dict[PartId, Part]:
    runs: dict[tuple[str, int], list[int]] = defaultdict(list)
    for part in parts:
        runs[part.line, part.run].append(part.part)
    if not runs:
        return {}
    condition = reduce(or_, (Q(line=line, run=run, part__in=numbers) for (line, run), numbers in runs.items()))
    return {PartId(row.line, row.run, row.part): row for row in Part.objects.filter(condition)}


def _values(row: Part) -> list[object]:
    # The caller compares the values before and after a merge. A merge replaces each list or dict of the row, and never changes it in place.
    # So this function need not copy lists and dicts.
    return [getattr(row, name) for name in _FIELDS]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [repr(error)])[0]


def make_row(part: PartId, seen_at: datetime) -> Part:
    """Returns a new row for `part` that has only the part id and `seen_at`. The row is not saved."""
    return Part(line=part.line, run=part.run, part=part.part, seen_at=seen_at)


def time_of(record: PartRecord) -> datetime:
    """Returns the time of the event that `record` reports. If a part has only this record, the history shows the part at this time."""
    match record:
        case Verdict():
            return record.captured_at
        case Sorting():
            return record.counted_at or record.at_gate_at or record.sorted_at
        case Finding():
            return record.found_at
        case Review():
            return record.reviewed_at
    raise TypeError(f"time_of() takes a Verdict, Sorting, Finding or Review. It got a {type(record).__name__}.")


def merge_record(row: Part, record: ArchivedRecord, policy: RetentionPolicy) -> None:
    """Merges `record` into `row`. If `policy` keeps the part's picture, marks the picture to be archived."""
    match record:
        case Verdict():
            _merge_verdict(row, record)
        case Sorting():
            _merge_sorting(row, record)
        case Finding():
            _merge_finding(row, record)
        case Review():
            _merge_review(row, record)
        case ReviewWithdrawal():
            _remove_review(row)
    row.kind = _defect_type(row)
    row.seen_at = row.captured_at or row.counted_at or _earliest_time(row)
    if row.keep_picture is None and row.image_offset is not None:
        part = PartId(row.line, row.run, row.part)
        if policy.keeps(part, row.label, is_reviewed=row.review_label != ""):
            row.keep_picture = True


def _merge_verdict(row: Part, verdict: Verdict) -> None:
    if row.decided_at is not None and row.decided_at <= verdict.decided_at:
        return
    for name in ("verdict_id", "label", "defect_probability", "threshold", "model", "reason", "overdue"):
        setattr(row, name, getattr(verdict, name))
    row.verdict_kind = verdict.kind
    row.votes = dict(verdict.votes)
    row.captured_at, row.received_at, row.decided_at = verdict.captured_at, verdict.received_at, verdict.decided_at
    image = verdict.image
    row.image_topic, row.image_partition, row.image_offset = image.topic, image.partition, image.offset
    row.sha256, row.width_px, row.height_px = image.sha256, image.width_px, image.height_px


def _merge_sorting(row: Part, sorting: Sorting) -> None:
    if row.sorted_at is not None:
        # A sorting with the action `untracked` only says that the board lost the part. Any other sorting replaces it, because it says what
        # the gate did.
        present, new = (row.action == "untracked", row.sorted_at), (sorting.action == "untracked", sorting.sorted_at)
        if present <= new:
            return
    for name in ("action", "code", "gate_moved", "late", "counted_at", "told_at", "at_gate_at", "sorted_at"):
        setattr(row, name, getattr(sorting, name))
    row.sorted_reason, row.grade, row.confirmed = sorting.reason, sorting.grade or "", sorting.confirmed or ""


def _merge_finding(row: Part, finding: Finding) -> None:
    if row.found_at is not None and row.found_at > finding.found_at:
        return
    row.finding_method, row.finding_boxes = finding.method, _plain_boxes(finding.boxes)
    row.heat_map, row.found_at = finding.heat_map, finding.found_at
    row.acceptance = finding.acceptance.model_dump(mode="json") if finding.acceptance else {}


def _merge_review(row: Part, review: Review) -> None:
    if row.reviewed_at is not None and row.reviewed_at > review.reviewed_at:
        return
    row.review_label, row.review_kinds, row.review_boxes = review.label, list(review.kinds), _plain_boxes(review.boxes)
    row.reviewer, row.reviewed_at = review.reviewer, review.reviewed_at


def _remove_review(row: Part) -> None:
    row.review_label, row.review_kinds, row.review_boxes = "", [], []
    row.reviewer, row.reviewed_at = "", None


def _plain_boxes(boxes: tuple[Box, ...]) -> list[dict[str, object]]:
    return [box.model_dump() for box in boxes]


def _defect_type(row: Part) -> str:
    """Returns the type of defect that the review names. Without a review, returns the type in the verdict or in the finding, else ""."""
    if row.review_label:
        named = [*row.review_kinds, *(box["kind"] for box in row.review_boxes)]
    else:
        named = [row.verdict_kind, *(box["kind"] for box in row.finding_boxes)]
    return next((kind for kind in named if kind), "")


def _earliest_time(row: Part) -> datetime:
    known = [row.at_gate_at, row.sorted_at, row.found_at, row.reviewed_at]
    return min((at for at in known if at is not None), default=row.seen_at)
