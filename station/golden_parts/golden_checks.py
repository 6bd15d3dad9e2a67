"""Compares the verdicts on golden parts with the right labels, and finds golden parts that nobody put on the belt in a shift."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import or_

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Q

from station.accounts.models import AuditEntry
from station.archive.models import Part
from station.golden_parts.models import GoldenCheck, GoldenPart
from station.shifts import ShiftPeriod, adjacent_period, period_at
from streams import metrics
from streams.errors import CastlineError, IdentityError
from streams.identity import PartId
from streams.settings import Settings

LABELS = ("ok", "defect")
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class GoldenPartRefusedError(CastlineError):
    """Raised if a golden part cannot be added or recorded. The error message can be shown on a page."""


@dataclass(frozen=True)
class GoldenState:
    """What is known about a golden part at one moment.

    - `last`: the newest pass of the golden part over the belt that has a verdict.
    - `shown`: True if the golden part was judged in the present shift.
    - `is_missing`: True if the golden part was not judged in the previous shift, although the line had parts in that shift.
    """

    golden: GoldenPart
    last: GoldenCheck | None
    shown: bool
    is_missing: bool

    @property
    def is_wrong(self) -> bool:
        """Whether the newest verdict on the golden part was wrong."""
        return self.last is not None and not self.last.is_right


def check_golden_parts(rows: Sequence[Part]) -> None:
    """Finds golden parts in `rows` and stores their verdicts. A repeated call changes nothing."""
    judged = [row for row in rows if row.label]
    if not judged:
        return
    by_picture = {(golden.line, golden.sha256): golden for golden in GoldenPart.objects.filter(retired_at=None).exclude(sha256="")}
    for row in judged:
        golden = by_picture.get((row.line, row.sha256))
        if golden is not None:
            values = {"line": row.line, "label": row.label, "model": row.model, "at": row.decided_at or row.seen_at}
            GoldenCheck.objects.update_or_create(golden=golden, run=row.run, part=row.part, defaults=values)
    if not GoldenCheck.objects.filter(label="").exists():
        return
    named = reduce(or_, (Q(line=row.line, run=row.run, part=row.part) for row in judged))
    by_id = {PartId(row.line, row.run, row.part): row for row in judged}
    for check in GoldenCheck.objects.filter(named, label=""):
        _fill(check, by_id[PartId(check.line, check.run, check.part)])


def _fill(check: GoldenCheck, row: Part) -> None:
    check.label, check.model, check.at = row.label, row.model, row.decided_at or row.seen_at
    check.save(update_fields=["label", "model", "at"])


def add_golden_part(line: str, name: str, label: str, picture: str, made_by: User, at: datetime) -> GoldenPart:
    """Adds a golden part to `line`.

    `picture` is what a person entered: the SHA-256 of the golden part's picture, the id of a part with the same picture, or "".

    Raises GoldenPartRefusedError if a value is wrong.
    """
    if not _NAME.fullmatch(name):
        raise GoldenPartRefusedError("Name: enter 1 to 64 characters, such as the number that is engraved on the part.")
    if label not in LABELS:
        raise GoldenPartRefusedError("Right verdict: choose ok or defect.")
    sha256 = _find_checksum(line, picture) if picture else ""
    try:
        with transaction.atomic():
            golden = GoldenPart.objects.create(line=line, name=name, label=label, sha256=sha256, made_by=made_by.get_username(), made_at=at)
            AuditEntry.record(made_by, "golden part added", str(golden), label=label, sha256=sha256)
    except IntegrityError:
        raise GoldenPartRefusedError(f"Name: {line} already has the golden part {name}. Choose another name.") from None
    return golden


def _find_checksum(line: str, picture: str) -> str:
    if _SHA256.fullmatch(picture):
        return picture
    row = _find_row(_parse_part(picture, line))
    if row is None or not row.sha256:
        raise GoldenPartRefusedError(f"Picture: the archive has no picture of {picture[:80]}. Enter the id of another part, or a SHA-256.")
    return row.sha256


def retire_golden_part(golden: GoldenPart, retired_by: User, at: datetime) -> None:
    """Ends the use of a golden part, and removes it from the page. The database keeps its earlier checks."""
    with transaction.atomic():
        if GoldenPart.objects.filter(pk=golden.pk, retired_at=None).update(retired_at=at):
            AuditEntry.record(retired_by, "golden part retired", str(golden))


def record_showing(golden: GoldenPart, part_text: str, shown_by: User, at: datetime) -> GoldenCheck:
    """Records that the golden part `golden` passed the camera under the part id `part_text`.

    If the archive has no verdict on this part yet, `check_golden_parts` adds the verdict to the returned check later.

    Raises GoldenPartRefusedError if the id is wrong, or if it is already recorded for this golden part.
    """
    part = _parse_part(part_text, golden.line)
    row = _find_row(part)
    try:
        with transaction.atomic():
            check = GoldenCheck.objects.create(
                golden=golden, line=part.line, run=part.run, part=part.part, shown_by=shown_by.get_username(), at=at
            )
            AuditEntry.record(shown_by, "golden part shown", str(golden), part=str(part))
    except IntegrityError:
        raise GoldenPartRefusedError(f"Part: {part} is already recorded for the golden part {golden.name}. Enter another part.") from None
    if row is not None and row.label:
        _fill(check, row)
    return check


def _parse_part(text: str, line: str) -> PartId:
    try:
        part = PartId.parse(text.strip())
    except IdentityError:
        raise GoldenPartRefusedError(f"Part: {text[:80]!r} is not the id of a part. Enter an id such as {line}:7:1024.") from None
    if part.line != line:
        raise GoldenPartRefusedError(f"Part: {part} does not belong to {line}. Enter a part of {line}.")
    return part


def _find_row(part: PartId) -> Part | None:
    return Part.objects.filter(line=part.line, run=part.run, part=part.part).first()


def list_states(settings: Settings, line: str, now: datetime) -> list[GoldenState]:
    """Returns the state of each golden part of `line`, sorted by name."""
    station = settings.station
    present = period_at(now, station.shifts, station.zone)
    previous = adjacent_period(present, -1, station.shifts, station.zone)
    had_parts = Part.objects.filter(line=line, seen_at__gte=previous.since, seen_at__lt=previous.to).exists()
    states = []
    for golden in GoldenPart.objects.filter(line=line, retired_at=None):
        judged = golden.checks.exclude(label="")
        is_missing = had_parts and golden.made_at <= previous.since and not _was_shown(golden, previous)
        states.append(GoldenState(golden, judged.first(), _was_shown(golden, present), is_missing))
    return states


def _was_shown(golden: GoldenPart, period: ShiftPeriod) -> bool:
    return golden.checks.exclude(label="").filter(at__gte=period.since, at__lt=period.to).exists()


def update_golden_metrics(settings: Settings, now: datetime) -> None:
    """Sets the Prometheus metrics of golden parts for each line.

    Raises django.db.DatabaseError if the database does not answer.
    """
    for line in settings.lines:
        states = list_states(settings, line.name, now)
        metrics.golden_parts_wrong.labels(line.name).set(sum(state.is_wrong for state in states))
        metrics.golden_parts_missing.labels(line.name).set(sum(state.is_missing for state in states))
