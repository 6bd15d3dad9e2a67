"""Checks, sends and stores the decisions of people about parts.

A decision is stored in the database only after Kafka has confirmed it. Otherwise the database could contain a decision that no other
program ever sees.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from pydantic import ValidationError

from station.archive.models import Part
from station.reviews.models import Candidate, Decision
from streams.records import Box, Review
from streams.settings import Settings
from streams.topics import TopicNames

# `open`: a first person has to decide about the part. `second`: a second person has to decide. `third`: a third person has to decide.
# `settled`: nobody has to decide.
CandidateState = Literal["open", "second", "third", "settled"]
SKIP = "skip"
MAX_BOXES = 50
_MAX_BOXES_CHARACTERS = 20_000

# A function that sends a record to Kafka. It takes the topic, the key and the value, and returns the partition and the offset.
SendRecord = Callable[[str, str, bytes | None], tuple[int, int]]


class InvalidBoxesError(ValueError):
    """Raised if the boxes that a person drew are not valid, or if there are too many. The review page shows the error message."""


class DecisionRefusedError(ValueError):
    """Raised if a person's decision about a part cannot be accepted. The review page shows the error message."""


@dataclass(frozen=True)
class Annotation:
    """What a person enters about a part: a label (`ok`, `defect` or `skip`), types of defect, and boxes around the defects."""

    label: str
    kinds: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()


def make_annotation(label: str, kinds: Sequence[str], boxes: tuple[Box, ...], known_kinds: Sequence[str]) -> Annotation:
    """Checks what a person entered and returns it as an annotation.

    Drops types and boxes if the label is not `defect`. Raises DecisionRefusedError if the label or a type of defect does not exist.
    """
    if label not in ("ok", "defect", SKIP):
        raise DecisionRefusedError(f"There is no label {label[:20]!r}. Choose ok, defect or skip.")
    unknown = [kind for kind in kinds if kind not in known_kinds]
    if unknown:
        raise DecisionRefusedError(f"There is no type of defect {unknown[0][:40]!r}. Choose from {', '.join(known_kinds)}.")
    if label != "defect":
        return Annotation(label)
    all_kinds = {*kinds, *(box.kind for box in boxes if box.kind)}
    return Annotation(label, tuple(kind for kind in known_kinds if kind in all_kinds), boxes)


def parse_boxes(text: str, width_px: int | None, height_px: int | None, known_kinds: Sequence[str]) -> tuple[Box, ...]:
    """Parses the JSON list of boxes that the review page sends.

    Raises InvalidBoxesError if the JSON is wrong, a box reaches beyond the picture, a type of defect is unknown, or there are too many
    boxes.
    """
    boxes = []
    for number, values in enumerate(_parse_list(text), 1):
        try:
            box = Box.model_validate(values | {"score": 1.0})
        except ValidationError:
            raise InvalidBoxesError(f"Box {number} is not valid. Remove it and draw it again.") from None
        if width_px and height_px and (box.left_px + box.width_px > width_px or box.top_px + box.height_px > height_px):
            raise InvalidBoxesError(f"Box {number} reaches beyond the picture of {width_px} x {height_px} px. Draw it again.")
        if box.kind and box.kind not in known_kinds:
            reason = f"Box {number}: there is no type of defect {box.kind[:40]!r}. Choose from {', '.join(known_kinds)}."
            raise InvalidBoxesError(reason)
        boxes.append(box)
    return tuple(boxes)


def _parse_list(text: str) -> list[dict[str, Any]]:
    if len(text) > _MAX_BOXES_CHARACTERS:
        raise InvalidBoxesError(
            f"There are too many boxes: their data has more than {_MAX_BOXES_CHARACTERS:,} characters. Remove some of the boxes."
        )
    try:
        values = json.loads(text or "[]")
    except (ValueError, RecursionError):  # Python refuses a number of more than 4,300 digits with a plain ValueError.
        values = None
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise InvalidBoxesError("The boxes could not be read. Reload the page and draw them again.")
    if len(values) > MAX_BOXES:
        raise InvalidBoxesError(f"A part can have at most {MAX_BOXES} boxes, but {len(values)} were sent. Remove some of them.")
    return values


def next_state(model_label: str, labels: Sequence[str], ask_second_person: bool = True) -> CandidateState:
    """Returns the next state of a part in the review queue. `labels` are the labels of the decisions so far, oldest first.

    If the first person contradicts the model, a second person is asked. If the first two people disagree, a third person is asked.
    """
    given = [label for label in labels if label != SKIP]
    if not given:
        return "open"
    if not ask_second_person or len(given) > 2:
        return "settled"
    if len(given) == 1:
        return "settled" if model_label in ("", "review", given[0]) else "second"
    return "settled" if given[0] == given[1] else "third"


def find_effective(labels: Sequence[str]) -> int | None:
    """Returns the index of the valid decision about the part: the last decision whose label is not `skip`.

    `labels` are the labels of all decisions. Returns None if all labels are `skip`.
    """
    indexes = [index for index, label in enumerate(labels) if label != SKIP]
    return indexes[-1] if indexes else None


def list_decisions(part: Part) -> list[Decision]:
    """Returns the decisions about `part`, oldest first. Leaves out decisions that were undone."""
    return list(Decision.objects.filter(part=part, undone_at=None).select_related("reviewer").order_by("at", "pk"))


def decide(part: Part, user: User, annotation: Annotation, settings: Settings, now: datetime, send: SendRecord) -> Decision:
    """Sends and stores the user's decision about `part`. Replaces an earlier decision of the same user.

    Raises KafkaUnavailableError if Kafka does not confirm the decision, or DecisionRefusedError if another person is reviewing the
    part. In both cases, nothing is stored.
    """
    candidate = Candidate.objects.filter(part=part).first()
    if candidate and candidate.leased_by not in ("", user.username) and candidate.leased_until and candidate.leased_until > now:
        text = f"{candidate.leased_by} is reviewing this part. You can decide about it if {candidate.leased_by} leaves it."
        raise DecisionRefusedError(text)
    offset = None
    if annotation.label == SKIP:
        before = list_decisions(part)
        _send_change(part, before, [decision for decision in before if decision.reviewer_id != user.pk], settings, now, send)
    else:
        review = make_review(part, user.username, annotation, now)
        _, offset = send(TopicNames(settings.topics.prefix).reviews, str(part), review.encode())
    try:
        with transaction.atomic():
            Decision.objects.filter(part=part, reviewer=user, undone_at=None).update(undone_at=now)
            decision = Decision.objects.create(
                part=part,
                reviewer=user,
                label=annotation.label,
                kinds=list(annotation.kinds),
                boxes=[box.model_dump() for box in annotation.boxes],
                model_label=part.label,
                audit=bool(candidate and candidate.audit),
                at=now,
                sent_offset=offset,
            )
            _update_candidate(part, settings, now)
    except IntegrityError:
        if offset is not None:
            # The user has decided twice at the same moment. The database has only the other decision, but the newest record in Kafka can
            # be this one. So send the valid decision of the database to Kafka again.
            _send_counting(part, _find_effective_decision(list_decisions(part)), settings, now, send)
        raise DecisionRefusedError("You have just decided about this part in another window. The other decision counts.") from None
    return decision


def undo_last_decision(user: User, settings: Settings, now: datetime, send: SendRecord) -> Decision | None:
    """Undoes the last decision of `user` and returns it, or None if the user has no decision to undo.

    If another decision is now valid for the part, sends that decision to Kafka. If no decision is left, sends an empty record. If Kafka
    does not confirm the record, undoes nothing and raises KafkaUnavailableError.
    """
    last = Decision.objects.filter(reviewer=user, undone_at=None).select_related("part").order_by("-at", "-pk").first()
    if last is None:
        return None
    before = list_decisions(last.part)
    _send_change(last.part, before, [decision for decision in before if decision.pk != last.pk], settings, now, send)
    with transaction.atomic():
        Decision.objects.filter(pk=last.pk).update(undone_at=now)
        _update_candidate(last.part, settings, now)
    return last


def _send_change(
    part: Part, before: Sequence[Decision], after: Sequence[Decision], settings: Settings, now: datetime, send: SendRecord
) -> None:
    """Sends the valid decision about `part` to Kafka, if it is no longer the same decision as before.

    `before` and `after` are all decisions before and after the change. The valid decision is the last decision that is not a skip.
    """
    counting = _find_effective_decision(after)
    if counting != _find_effective_decision(before):
        _send_counting(part, counting, settings, now, send)


def _send_counting(part: Part, counting: Decision | None, settings: Settings, now: datetime, send: SendRecord) -> None:
    """Sends the valid decision about `part` to Kafka. If no decision is valid (`counting` is None), sends an empty record."""
    value = None
    if counting:
        annotation = Annotation(counting.label, tuple(counting.kinds), tuple(Box.model_validate(box) for box in counting.boxes))
        # The archive keeps the review with the latest time. So an older decision that is valid again is sent with the present time.
        value = make_review(part, counting.reviewer.username, annotation, now).encode()
    send(TopicNames(settings.topics.prefix).reviews, str(part), value)


def make_review(part: Part, reviewer: str, annotation: Annotation, at: datetime) -> Review:
    """Returns the record of a decision for the topic `castings.reviews`.

    Raises DecisionRefusedError for a skip, because skips are not sent to Kafka.
    """
    if annotation.label not in ("ok", "defect"):
        raise DecisionRefusedError("A skip says nothing about the part, so a skip cannot be sent to Kafka. Choose ok or defect.")
    return Review(
        line=part.line,
        run=part.run,
        part=part.part,
        label="ok" if annotation.label == "ok" else "defect",
        kinds=annotation.kinds,
        boxes=annotation.boxes,
        reviewer=reviewer,
        verdict_id=part.verdict_id,
        reviewed_at=at,
    )


def _find_effective_decision(decisions: Sequence[Decision]) -> Decision | None:
    index = find_effective([decision.label for decision in decisions])
    return None if index is None else decisions[index]


def _update_candidate(part: Part, settings: Settings, now: datetime) -> None:
    decisions = list_decisions(part)
    model_label = decisions[0].model_label if decisions else part.label
    # No second person is asked about an upload, because only the sender and administrators are allowed to see an upload.
    asks_second_person = settings.review.second_opinion and part.line != settings.station.upload_line
    state = next_state(model_label, [decision.label for decision in decisions], asks_second_person)
    since = {"since": now} if state in ("second", "third") else {}
    Candidate.objects.filter(part=part).update(state=state, leased_by="", leased_until=None, **since)
