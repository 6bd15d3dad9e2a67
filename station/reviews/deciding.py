"""A person decides, or takes a decision back: sent to `castings.reviews`, confirmed, and only then written down.

Kafka away means refused, in words, with the marks still on the page. Kept here and sent later, a decision would stand on the
station's pages and nowhere else: the next training, and everybody who reads the topic, would know another truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from station.archive.models import Part
from station.reviews.models import Candidate, Decision
from station.reviews.opinions import SKIP, Opinion, standing, state
from station.reviews.queue import of_part
from streams.records import Box, Review
from streams.settings import Settings
from streams.topics import TopicNames

# As station.live.sending.send: topic, key, value to partition and offset; raises KafkaAway.
Send = Callable[[str, str, bytes | None], tuple[int, int]]


class RefusedError(ValueError):
    """A decision is not taken; the text is fit for a page."""


@dataclass(frozen=True)
class Answer:
    """What a person says of a part."""

    label: str
    kinds: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()


def answer_of(label: str, kinds: Sequence[str], boxes: tuple[Box, ...], known: Sequence[str]) -> Answer:
    """Raises RefusedError: for a label or a type of defect that is none. The types of the boxes are types of the part."""
    if label not in ("ok", "defect", SKIP):
        raise RefusedError(f"Expected ok, defect or skip, found {label[:20]!r}.")
    if strange := [kind for kind in kinds if kind not in known]:
        raise RefusedError(f"Expected types of defect of {', '.join(known)}, found {strange[0][:40]!r}.")
    if label != "defect":
        return Answer(label)
    named = {*kinds, *(box.kind for box in boxes if box.kind)}
    return Answer(label, tuple(kind for kind in known if kind in named), boxes)


def decide(part: Part, user: User, answer: Answer, settings: Settings, now: datetime, send: Send) -> Decision:
    """Sends and writes down what `user` says of `part`; an earlier word of theirs on it is taken back.

    Raises KafkaAway: nothing was sent or written. RefusedError: where another person has the part before them.
    """
    candidate = Candidate.objects.filter(part=part).first()
    if candidate and candidate.leased_by not in ("", user.username) and candidate.leased_until and candidate.leased_until > now:
        raise RefusedError(f"{candidate.leased_by} has this part before them. It comes to you again if they leave it.")
    offset = None
    if answer.label != SKIP:
        _, offset = send(TopicNames(settings.topics.prefix).reviews, str(part), review(part, user.username, answer, now).encode())
    try:
        with transaction.atomic():
            Decision.objects.filter(part=part, reviewer=user, undone_at=None).update(undone_at=now)
            decision = Decision.objects.create(
                part=part,
                reviewer=user,
                label=answer.label,
                kinds=list(answer.kinds),
                boxes=[box.model_dump() for box in answer.boxes],
                model_label=part.label,
                audit=bool(candidate and candidate.audit),
                at=now,
                sent_offset=offset,
            )
            _renew(part, settings, now)
    except IntegrityError:
        raise RefusedError("You have decided this part at the same moment elsewhere; that decision stands.") from None
    return decision


def undo(user: User, settings: Settings, now: datetime, send: Send) -> Decision | None:
    """Takes back the last decision of `user`; None where there is none. The topic is compacted by part, so what stood before is sent
    again, or, where nothing did, an empty value: that deletes the part's review for every reader.

    Raises KafkaAway: nothing was sent or taken back.
    """
    last = Decision.objects.filter(reviewer=user, undone_at=None).select_related("part").order_by("-at", "-pk").first()
    if last is None:
        return None
    before = of_part(last.part)
    after = [decision for decision in before if decision.pk != last.pk]
    stood, stands = _standing(before), _standing(after)
    if stood is not None and stood.pk == last.pk:
        send(TopicNames(settings.topics.prefix).reviews, str(last.part), _again(stands).encode() if stands else None)
    with transaction.atomic():
        Decision.objects.filter(pk=last.pk).update(undone_at=now)
        _renew(last.part, settings, now)
    return last


def review(part: Part, reviewer: str, answer: Answer, at: datetime) -> Review:
    """The record of an answer."""
    if answer.label not in ("ok", "defect"):
        raise RefusedError("A skipped part has no review.")
    return Review(
        line=part.line,
        run=part.run,
        part=part.part,
        label="ok" if answer.label == "ok" else "defect",
        kinds=answer.kinds,
        boxes=answer.boxes,
        reviewer=reviewer,
        verdict_id=part.verdict_id,
        reviewed_at=at,
    )


def _again(decision: Decision) -> Review:
    boxes = tuple(Box.model_validate(box) for box in decision.boxes)
    return review(decision.part, decision.reviewer.username, Answer(decision.label, tuple(decision.kinds), boxes), decision.at)


def _standing(decisions: Sequence[Decision]) -> Decision | None:
    index = standing(opinions_of(decisions))
    return None if index is None else decisions[index]


def opinions_of(decisions: Sequence[Decision]) -> list[Opinion]:
    return [Opinion(decision.reviewer.username, decision.label) for decision in decisions]


def _renew(part: Part, settings: Settings, now: datetime) -> None:
    """Who is asked next, now that the decisions are others; the part is free again, and its new waiting begins."""
    decisions = of_part(part)
    following = state(decisions[0].model_label if decisions else part.label, opinions_of(decisions), settings.review.second_opinion)
    since = {"since": now} if following in ("second", "third") else {}
    Candidate.objects.filter(part=part).update(state=following, leased_by="", leased_until=None, **since)
