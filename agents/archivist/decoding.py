"""What the archivist files: which records it reads, and what a record is by its topic."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from streams.errors import CastlineError, IdentityError
from streams.identity import PartId
from streams.records import ArchivedRecord, Finding, PartRecord, Review, ReviewWithdrawal, Sorting, Verdict
from streams.settings import Settings
from streams.topics import TopicNames

# What reviews are counted under: their topic belongs to no line.
NO_LINE = "reviews"


class UnfitRecord(CastlineError):
    """A record is not what its topic promises. `reason` is one of a fixed, small set of words (it becomes a metric label)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Shelf:
    """One topic that is filed: what lies on it, and of which line."""

    record: type[PartRecord]
    line: str


def shelves(settings: Settings) -> dict[str, Shelf]:
    """All topics that are filed, by name."""
    names = TopicNames(settings.topics.prefix)
    found = {names.reviews: Shelf(Review, NO_LINE)}
    for line in settings.lines:
        found[names.verdicts(line.name)] = Shelf(Verdict, line.name)
        found[names.sorted(line.name)] = Shelf(Sorting, line.name)
        found[names.findings(line.name)] = Shelf(Finding, line.name)
    return found


def read(shelf: Shelf, key: bytes | None, value: bytes | None) -> ArchivedRecord:
    """What a record says. Raises UnfitRecord."""
    if value is None:
        if shelf.record is not Review:
            raise UnfitRecord("empty", f"expected a {shelf.record.name}, found a record without a value")
        try:
            return ReviewWithdrawal(PartId.parse((key or b"").decode("utf-8", "replace")))
        except IdentityError as error:
            raise UnfitRecord("identity", str(error)) from None
    try:
        record = shelf.record.decode(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "the record"
        raise UnfitRecord("not-a-record", f"expected a {shelf.record.name}: {place}: {first['msg']}") from None
    if shelf.line not in (NO_LINE, record.line):
        # Otherwise whoever may write to one line's topic could write another line's history.
        raise UnfitRecord("other-line", f"expected a record of {shelf.line}, found one of {record.line}")
    return record
