"""Judges the pictures in Jepsen's terms: acknowledged and lost, recovered, unexpected, duplicated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.campaign_judge.findings import Findings, Kind
from tests.campaign_judge.recording import Recording, Upload
from tests.campaign_judge.topic_records import JsonRecord, TopicRecord, Topics
from tests.campaign_judge.verdict_times import Place, estimate_verdict_times

# A picture must be judged this long after the last fault, or this long after its acknowledgement if it came later.
DEADLINE_S = 120.0
_LATE_PICTURE_S = 30.0
# The run numbers of a board end here. A gateway uses larger ones for a picture that it cannot match to a counted part.
MAX_BOARD_RUN = 65535

PictureKey = tuple[str, str]


@dataclass
class _Picture:
    """A picture, and all that the run has about it. Its key is the line and the SHA-256 checksum."""

    uploads: list[Upload] = field(default_factory=list)
    images: list[TopicRecord] = field(default_factory=list)
    verdicts: list[JsonRecord] = field(default_factory=list)

    @property
    def acknowledged_at(self) -> float | None:
        return min((upload.acknowledged_at for upload in self.uploads if upload.acknowledged_at is not None), default=None)

    @property
    def castings(self) -> set[int]:
        return {upload.casting for upload in self.uploads if upload.casting is not None}

    @property
    def name(self) -> str:
        if not self.uploads:
            return f"the picture at {self.images[0].name}"
        upload = self.uploads[0]
        casting = "no casting" if upload.casting is None else f"casting {upload.casting}"
        return f"the picture {upload.sha256[:12]} of {casting} on {upload.line}, first sent at {upload.sent_at:.3f}"


def judge_pictures(recording: Recording, topics: Topics, findings: Findings) -> None:
    """Compares what the cameras sent with the image records, the verdicts and the dead letters."""
    pictures = _join(recording, topics)
    dropped = _Dropped(recording, topics)
    times = estimate_verdict_times(recording, topics)
    for picture in pictures.values():
        _judge_delivery(picture, recording, times, dropped, findings)
        _judge_repeats(picture, findings)
        _judge_castings(picture, recording, findings)
    _judge_parts(topics, findings)
    _judge_references(topics, dropped, findings)
    _judge_dead_letters(recording, topics, pictures, findings)
    for record in topics.unreadable:
        findings.add(Kind.UNREADABLE, f"{record.name}: {(record.value or b'')[:200]!r}")


class _Dropped:
    """What a full disk may drop: image records at the beginning of a partition, if a fault says what the stated order drops."""

    def __init__(self, recording: Recording, topics: Topics) -> None:
        self._faults = [fault for fault in recording.faults if fault.loses]
        self._first: dict[tuple[str, int], int] = {}
        for record in [*topics.images, *topics.injected_images]:
            place = record.topic, record.partition
            self._first[place] = min(self._first.get(place, record.offset), record.offset)
        is_told = any(letter.headers.get("dead-reason") == "expired" for letter in topics.dead_letters)
        # At most as many pictures can be lost without a trace as there are offsets before the first records.
        self._left = sum(self._first.values()) if is_told else 0

    def is_before_begin(self, place: tuple[str, int, int]) -> bool:
        topic, partition, offset = place
        return bool(self._faults) and offset < self._first.get((topic, partition), offset + 1)

    def take(self, picture: _Picture) -> bool:
        """Returns whether the stated order may have dropped a picture that left no trace, and counts the picture.

        A dead letter with the reason `expired` must say that Kafka has deleted unjudged pictures.
        """
        acknowledged_at = picture.acknowledged_at or 0.0
        may_be = self._left > 0 and any("unjudged" in str(fault.loses) and acknowledged_at <= fault.ended_at for fault in self._faults)
        self._left -= may_be
        return may_be


def _join(recording: Recording, topics: Topics) -> dict[PictureKey, _Picture]:
    pictures: dict[PictureKey, _Picture] = defaultdict(_Picture)
    for upload in recording.uploads:
        pictures[upload.line, upload.sha256].uploads.append(upload)
    for record in topics.images:
        pictures[record.topic.rsplit(".", 1)[-1], record.picture_sha256].images.append(record)
    for verdict in topics.verdicts:
        pictures[verdict.fields["line"], str(verdict.image.get("sha256"))].verdicts.append(verdict)
    return pictures


def _judge_delivery(picture: _Picture, recording: Recording, times: Mapping[Place, float], dropped: _Dropped, findings: Findings) -> None:
    acknowledged_at = picture.acknowledged_at
    if not picture.uploads:
        for verdict in picture.verdicts:
            findings.add(Kind.UNEXPECTED, f"the verdict at {verdict.record.name} is about a picture that no camera sent")
        if picture.images and not picture.verdicts:
            findings.add(Kind.UNJUDGED, f"{picture.name}, which no camera sent, has no verdict")
        return
    findings.counts["pictures sent"] += 1
    findings.counts["attempts to send a picture"] += len(picture.uploads)
    findings.counts["pictures acknowledged"] += acknowledged_at is not None
    if picture.verdicts:
        findings.counts["pictures judged"] += 1
        findings.counts["recovered: never acknowledged, yet judged"] += acknowledged_at is None
        _judge_deadline(picture, recording, times, findings)
    elif picture.images:
        findings.add(Kind.UNJUDGED, f"{picture.name} lies at {picture.images[0].name} and has no verdict")
    elif acknowledged_at is None:
        findings.counts["pictures never acknowledged and not judged"] += 1
    elif dropped.take(picture):
        findings.counts["pictures that the stated order dropped on a full disk"] += 1
    else:
        findings.add(Kind.LOST, f"{picture.name} was acknowledged at {acknowledged_at:.3f}, and neither Kafka nor a verdict has it")


def _judge_deadline(picture: _Picture, recording: Recording, times: Mapping[Place, float], findings: Findings) -> None:
    came_at = picture.acknowledged_at if picture.acknowledged_at is not None else picture.uploads[-1].sent_at
    deadline_at = max(recording.last_fault_ended_at + DEADLINE_S, came_at + _LATE_PICTURE_S)
    judged_at = min(times[verdict.record.place] for verdict in picture.verdicts)
    if judged_at > deadline_at:
        findings.add(Kind.UNJUDGED, f"{picture.name} was judged only at {judged_at:.3f}, which is {judged_at - deadline_at:.0f} s too late")


def _judge_repeats(picture: _Picture, findings: Findings) -> None:
    findings.counts["image records sent again"] += max(0, len(picture.images) - 1)
    by_part: dict[tuple[str, int, int], list[JsonRecord]] = defaultdict(list)
    for verdict in picture.verdicts:
        by_part[verdict.part].append(verdict)
    findings.counts["pictures judged under more than one part number"] += len(by_part) > 1
    for part, verdicts in by_part.items():
        findings.counts["verdicts repeated"] += len(verdicts) - 1
        answers = {
            tuple(verdict.fields.get(name) for name in ("verdict_id", "label", "reason", "model", "decision")) for verdict in verdicts
        }
        if len(answers) > 1:
            findings.add(Kind.CONTRADICTING, f"{picture.name}, as part {_name(part)}: {sorted(map(str, answers))}")


def _judge_castings(picture: _Picture, recording: Recording, findings: Findings) -> None:
    """Checks that the verdicts about a picture name the part whose picture it is."""
    if not picture.castings:
        return
    for part in sorted({verdict.part for verdict in picture.verdicts}):
        casting = recording.castings_by_part.get(part)
        if casting is not None and casting.casting not in picture.castings:
            findings.add(Kind.OTHER_CASTING, f"{picture.name} was judged as part {_name(part)}, which is {casting.name}")
        findings.counts["pictures that the gateway could not match to a part"] += part[1] > MAX_BOARD_RUN
    answered = {upload.judged_part for upload in picture.uploads if upload.judged_part}
    judged = {_name(verdict.part) for verdict in picture.verdicts}
    if judged and not answered <= judged:
        findings.add(Kind.OTHER_CASTING, f"{picture.name} was acknowledged as {sorted(answered)} and judged as {sorted(judged)}")


def _judge_parts(topics: Topics, findings: Findings) -> None:
    """Checks that all verdicts about one part are about the same picture."""
    pictures: dict[tuple[str, int, int], set[str]] = defaultdict(set)
    for verdict in topics.verdicts:
        pictures[verdict.part].add(str(verdict.image.get("sha256")))
    for part, checksums in pictures.items():
        if len(checksums) > 1:
            findings.add(Kind.OTHER_CASTING, f"part {_name(part)} was judged by {len(checksums)} different pictures: {sorted(checksums)}")


def _judge_references(topics: Topics, dropped: _Dropped, findings: Findings) -> None:
    stored = {record.place: record.picture_sha256 for record in topics.images}
    for verdict in topics.verdicts:
        place = verdict.image_place
        if stored.get(place) == verdict.image.get("sha256"):
            continue
        if place not in stored and dropped.is_before_begin(place):
            findings.counts["judged pictures that the stated order dropped on a full disk"] += 1
        elif place not in stored or verdict.fields.get("reason") not in ("checksum", "claim-missing", "claim-damaged"):
            findings.add(Kind.VANISHED, f"the verdict at {verdict.record.name} names the image record {place}, which is not there")
    for record in topics.repeated_offsets:
        findings.add(Kind.LOG, f"the dump has the record at {record.name} more than once")


def _judge_dead_letters(recording: Recording, topics: Topics, pictures: dict[PictureKey, _Picture], findings: Findings) -> None:
    injected, images = set(recording.injected_records), {record.place: record for record in topics.images}
    answered = {verdict.image_place for verdict in topics.injected_verdicts}
    for letter in topics.dead_letters:
        place = letter.headers.get("dead-topic", ""), _number(letter, "dead-partition"), _number(letter, "dead-offset")
        answered.add(place)
        reason = letter.headers.get("dead-reason", "")
        if place in injected:
            findings.counts["dead letters about injected records"] += 1
        elif reason == "expired":
            findings.counts["dead letters about pictures that expired"] += 1
        elif _is_of_no_casting(letter, place, images, pictures):
            findings.counts["dead letters about pictures of no casting"] += 1
        else:
            detail = letter.headers.get("dead-detail", "")[:200]
            findings.add(Kind.DEAD_LETTER, f"{place[0]}, partition {place[1]}, offset {place[2]}: {reason} ({detail})")
    for record in topics.injected_images:
        findings.counts["injected image records"] += 1
        if record.place not in answered:
            findings.add(Kind.UNJUDGED, f"the injected record at {record.name} has neither a verdict nor a dead letter")


def _is_of_no_casting(letter: TopicRecord, place: Place, images: Mapping[Place, TopicRecord], pictures: dict[PictureKey, _Picture]) -> bool:
    """Returns whether a dead letter is about an uploaded picture that shows no casting.

    If a full disk has dropped the picture, the dead letter still has its checksum.
    """
    sha256 = images[place].picture_sha256 if place in images else letter.headers.get("sha256", "")
    picture = pictures.get((place[0].rsplit(".", 1)[-1], sha256))
    return picture is not None and not picture.castings and (place in images or bool(picture.uploads))


def _number(letter: TopicRecord, header: str) -> int:
    text = letter.headers.get(header, "")
    return int(text) if text.lstrip("-").isdigit() else -1


def _name(part: tuple[str, int, int]) -> str:
    return ":".join(map(str, part))
