"""What became of an upload: waiting, judged, explained. From what the station hears now, else from the archive."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import ValidationError

from station.archive.models import Part
from station.live.seen import SeenPart, reason_in_words
from station.live.watching import watch
from station.uploads.models import Upload
from station.uploads.taking import part_of
from streams.identity import PartId
from streams.records import Box

State = Literal["waiting", "judged", "explained"]

SLOW = timedelta(seconds=10)  # an inspector answers within a second; after this long something is wrong
_GIVEN_UP = timedelta(minutes=30)
_UNEXPLAINED = timedelta(seconds=20)  # a finding that has not come by then does not come


@dataclass(frozen=True)
class Judgement:
    """The verdict on an upload, and where it is suspicious once that is known."""

    label: str
    defect_probability: float | None
    votes: dict[str, float]
    threshold: float
    model: str
    reason: str
    captured_at: datetime | None
    received_at: datetime | None
    decided_at: datetime
    method: str = ""
    boxes: tuple[Box, ...] = field(default=())
    heat_map: str = ""

    @property
    def why(self) -> str:
        """Why it is for review, in words."""
        return reason_in_words(self.reason) if self.reason else ""


@dataclass(frozen=True)
class Answer:
    """An upload as its page shows it."""

    upload: Upload
    part: PartId
    judgement: Judgement | None
    now: datetime

    @property
    def state(self) -> State:
        if self.judgement is None:
            return "waiting"
        return "explained" if self.judgement.method else "judged"

    @property
    def open(self) -> bool:
        """Whether there is more to come."""
        if self.judgement is None:
            return self.now - self.upload.sent_at < _GIVEN_UP
        explains = self.judgement.label != "ok" and not self.judgement.method
        return explains and self.now - self.judgement.decided_at < _UNEXPLAINED

    @property
    def waited_s(self) -> int:
        return int((self.now - self.upload.sent_at).total_seconds())

    @property
    def slow(self) -> bool:
        """No inspector has answered for longer than one ever takes."""
        return self.judgement is None and self.now - self.upload.sent_at > SLOW

    @property
    def took_s(self) -> float | None:
        """From the picture's arrival here to its verdict."""
        return max(0.0, (self.judgement.decided_at - self.upload.sent_at).total_seconds()) if self.judgement else None


def answer(upload: Upload) -> Answer:
    """What is known of `upload` now."""
    part = part_of(upload)
    seen = watch().part(part)
    judgement = _heard(seen) if seen else None
    if judgement is None or (judgement.label != "ok" and not judgement.method):
        archived = Part.objects.filter(line=part.line, run=part.run, part=part.part).first()
        kept = _kept(archived) if archived else None
        # Of the two, the one that knows more.
        judgement = kept if kept and (judgement is None or kept.method) else judgement
    return Answer(upload, part, judgement, datetime.now(UTC))


def _heard(seen: SeenPart) -> Judgement | None:
    verdict, finding = seen.verdict, seen.finding
    if verdict is None:
        return None
    return Judgement(
        label=verdict.label,
        defect_probability=verdict.defect_probability,
        votes=verdict.votes,
        threshold=verdict.threshold,
        model=verdict.model,
        reason=verdict.reason,
        captured_at=verdict.captured_at,
        received_at=verdict.received_at,
        decided_at=verdict.decided_at,
        method=finding.method if finding else "",
        boxes=finding.boxes if finding else (),
        heat_map=finding.heat_map if finding else "",
    )


def _kept(part: Part) -> Judgement | None:
    if not part.label or part.decided_at is None:
        return None
    return Judgement(
        label=part.label,
        defect_probability=part.defect_probability,
        votes=part.votes,
        threshold=part.threshold or 0.0,
        model=part.model,
        reason=part.reason,
        captured_at=part.captured_at,
        received_at=part.received_at,
        decided_at=part.decided_at,
        method=part.finding_method,
        boxes=tuple(_boxes(part.finding_boxes)),
        heat_map=part.heat_map,
    )


def _boxes(plain: list[object]) -> list[Box]:
    found = []
    for one in plain:
        try:
            found.append(Box.model_validate(one))
        except ValidationError:
            continue
    return found
