"""Finds the status of an uploaded picture: waiting, judged, or judged with a heat map.

The station keeps the newest records from Kafka in memory. The status of a recent picture comes from these records, and the status of an
older picture comes from the archive.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import ValidationError

from station.archive.models import Part
from station.live.line_state import LivePart, describe_reason
from station.live.live_consumer import get_live_consumer
from station.manifests import describe_training_pictures
from station.uploads.models import Upload
from streams.identity import PartId
from streams.records import Box

UploadState = Literal["waiting", "judged", "explained"]

# If the verdict needs longer than this time, the page says that no inspector has answered. Usually a verdict needs less than a second.
SLOW_AFTER = timedelta(seconds=10)
_STOP_ASKING_AFTER = timedelta(minutes=30)
# After the verdict, the page waits at most this long for the finding (boxes and heat map).
_FINDING_TIMEOUT = timedelta(seconds=20)


@dataclass(frozen=True)
class UploadVerdict:
    """The verdict on an uploaded picture, with the finding (boxes and heat map) if there is one.

    `method` says how the finding was made, such as `grad-cam`.
    """

    label: str
    defect_probability: float | None
    votes: dict[str, float]
    threshold: float
    model: str
    reason: str
    decided_at: datetime
    method: str = ""
    boxes: tuple[Box, ...] = ()
    heat_map: str = ""

    @property
    def reason_text(self) -> str:
        """Words that say why a person should review the picture. Empty if the verdict has no reason."""
        return describe_reason(self.reason) if self.reason else ""


@dataclass(frozen=True)
class UploadStatus:
    """What the station knows about one upload at the time `now`. `verdict` is None until an inspector has judged the picture."""

    upload: Upload
    part: PartId
    verdict: UploadVerdict | None
    now: datetime

    @property
    def state(self) -> UploadState:
        """`waiting`: there is no verdict yet. `judged`: there is a verdict. `explained`: there are also boxes and a heat map."""
        if self.verdict is None:
            return "waiting"
        return "explained" if self.verdict.method else "judged"

    @property
    def is_pending(self) -> bool:
        """Whether the page must ask for the status again, because a verdict or a finding (boxes and heat map) is still expected."""
        if self.verdict is None:
            return self.now - self.upload.sent_at < _STOP_ASKING_AFTER
        needs_finding = self.verdict.label != "ok" and not self.verdict.method
        return needs_finding and self.now - self.verdict.decided_at < _FINDING_TIMEOUT

    @property
    def waited_s(self) -> int:
        """Number of whole seconds since the picture was sent."""
        return int((self.now - self.upload.sent_at).total_seconds())

    @property
    def is_slow(self) -> bool:
        """Whether the picture has waited for its verdict for more than ten seconds. Normally a verdict comes within a second."""
        return self.verdict is None and self.now - self.upload.sent_at > SLOW_AFTER

    @property
    def training_note(self) -> str:
        """A warning if the model version was trained on rendered pictures only, otherwise ""."""
        return describe_training_pictures(self.verdict.model) if self.verdict else ""

    @property
    def latency_s(self) -> float | None:
        """Seconds from the arrival of the picture at the station to its verdict, or None if there is no verdict yet."""
        return max(0.0, (self.verdict.decided_at - self.upload.sent_at).total_seconds()) if self.verdict else None


def read_status(upload: Upload) -> UploadStatus:
    """Returns what the station knows about `upload` at this moment."""
    part = upload.part_id
    recent = get_live_consumer().find_part(part)
    verdict = _from_topics(recent) if recent else None
    if verdict is None or (verdict.label != "ok" and not verdict.method):
        row = Part.objects.filter(line=part.line, run=part.run, part=part.part).first()
        archived = _from_archive(row) if row else None
        verdict = archived if archived and (verdict is None or archived.method) else verdict
    return UploadStatus(upload, part, verdict, datetime.now(UTC))


def _from_topics(recent: LivePart) -> UploadVerdict | None:
    verdict, finding = recent.verdict, recent.finding
    if verdict is None:
        return None
    return UploadVerdict(
        label=verdict.label,
        defect_probability=verdict.defect_probability,
        votes=verdict.votes,
        threshold=verdict.threshold,
        model=verdict.model,
        reason=verdict.reason,
        decided_at=verdict.decided_at,
        method=finding.method if finding else "",
        boxes=finding.boxes if finding else (),
        heat_map=finding.heat_map if finding else "",
    )


def _from_archive(part: Part) -> UploadVerdict | None:
    if not part.label or part.decided_at is None:
        return None
    return UploadVerdict(
        label=part.label,
        defect_probability=part.defect_probability,
        votes=part.votes,
        threshold=part.threshold or 0.0,
        model=part.model,
        reason=part.reason,
        decided_at=part.decided_at,
        method=part.finding_method,
        boxes=_parse_boxes(part.finding_boxes),
        heat_map=part.heat_map,
    )


def _parse_boxes(values: list[object]) -> tuple[Box, ...]:
    boxes = []
    for value in values:
        try:
            boxes.append(Box.model_validate(value))
        except ValidationError:
            continue
    return tuple(boxes)
