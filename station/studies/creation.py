"""Makes a study: checks what a person entered, chooses parts from the archive, and copies their pictures."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from station.accounts.access import get_rights
from station.accounts.models import AuditEntry
from station.archive.models import Part
from station.configuration import current_settings
from station.pictures.part_picture_reader import get_picture_reader
from station.studies.models import Study, StudyPart
from streams.errors import CastlineError, IdentityError, PictureError
from streams.identity import PartId
from streams.object_store import ObjectStore

MIN_PARTS, MAX_PARTS = 5, 500
MIN_ROUNDS, MAX_ROUNDS = 2, 5
MAX_PEOPLE = 20
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class StudyRefusedError(CastlineError):
    """Raised if a study cannot be made or closed. The pages of studies show the error message."""


@dataclass(frozen=True)
class StudyPlan:
    """What a person entered for a new study.

    If `parts` is empty, the station chooses `count` parts of `line`. If possible, half of the chosen parts have the verdict `ok`.
    """

    name: str
    line: str
    people: tuple[str, ...]
    rounds: int = 2
    count: int = 30
    parts: tuple[str, ...] = ()


def make_study(plan: StudyPlan, made_by: User | None, at: datetime) -> Study:
    """Makes the study that `plan` describes, and copies the pictures of its parts.

    `made_by` is None if a command makes the study. Raises StudyRefusedError if the study is not possible.
    """
    people = _find_people(plan)
    rows = _find_parts(plan)
    copies = [_copy_picture(row) for row in rows]
    try:
        with transaction.atomic():
            study = Study.objects.create(
                name=plan.name,
                line=plan.line,
                rounds=plan.rounds,
                seed=secrets.randbits(31),
                made_by=made_by.username if made_by else "castline",
                made_at=at,
            )
            study.people.set(people)
            StudyPart.objects.bulk_create(
                StudyPart(
                    study=study,
                    number=number,
                    part=str(row),
                    line=row.line,
                    picture=address,
                    sha256=sha256,
                    model=row.model,
                    model_label=row.label,
                )
                for number, (row, (address, sha256)) in enumerate(zip(rows, copies, strict=True))
            )
            AuditEntry.record(
                made_by, "study made", plan.name, parts=len(rows), rounds=plan.rounds, people=[one.username for one in people]
            )
    except IntegrityError:
        raise StudyRefusedError(f"There is already a study {plan.name}. Choose another name.") from None
    return study


def close_study(study: Study, closed_by: User | None, at: datetime) -> None:
    """Closes `study`, so that it takes no more answers and shows its results. Raises StudyRefusedError if `study` is closed already."""
    with transaction.atomic():
        if not Study.objects.filter(pk=study.pk, closed_at=None).update(closed_at=at):
            raise StudyRefusedError(f"The study {study.name} is closed already.")
        AuditEntry.record(closed_by, "study closed", study.name)


def _find_people(plan: StudyPlan) -> list[User]:
    """Returns the accounts of the people in the plan. Also checks the name of the study and its number of rounds.

    Raises StudyRefusedError if the name, the number of rounds or a person is not allowed.
    """
    if not _NAME.fullmatch(plan.name):
        raise StudyRefusedError(
            f"The name {plan.name[:70]!r} is not possible. Use up to 64 small letters, digits, dots, hyphens and underscores."
        )
    if not MIN_ROUNDS <= plan.rounds <= MAX_ROUNDS:
        raise StudyRefusedError(f"{plan.rounds} rounds are not possible. Choose {MIN_ROUNDS} to {MAX_ROUNDS}.")
    names = sorted(set(plan.people))
    if not 1 <= len(names) <= MAX_PEOPLE:
        raise StudyRefusedError(f"A study needs 1 to {MAX_PEOPLE} people, but {len(names)} were named.")
    # PostgreSQL raises an error if it must search for a null character. No name of an account contains a control character.
    searched = [name for name in names if name.isprintable()]
    people = {user.username: user for user in User.objects.filter(username__in=searched, is_active=True)}
    for name in names:
        if name not in people or "review" not in get_rights(people[name]):
            raise StudyRefusedError(
                f"{name[:150]} has no account that is allowed to review parts. Choose another person, or change the role of the account."
            )
    return [people[name] for name in names]


def _find_parts(plan: StudyPlan) -> list[Part]:
    if plan.line not in {line.name for line in current_settings().lines if line.name != current_settings().station.upload_line}:
        raise StudyRefusedError(f"There is no line {plan.line[:40]!r}. Choose one of the lines of the plant.")
    rows = _find_named_parts(plan) if plan.parts else _choose_parts(plan)
    if not MIN_PARTS <= len(rows) <= MAX_PARTS:
        raise StudyRefusedError(
            f"A study needs {MIN_PARTS} to {MAX_PARTS} parts with a stored picture. {plan.line} has {len(rows)} such parts. "
            "Choose another line, or review some parts first: the archive keeps the pictures of reviewed parts."
        )
    return rows


def _find_named_parts(plan: StudyPlan) -> list[Part]:
    rows: list[Part] = []
    for text in dict.fromkeys(plan.parts):
        try:
            part = PartId.parse(text)
        except IdentityError as error:
            raise StudyRefusedError(str(error)) from None
        row = Part.objects.filter(line=part.line, run=part.run, part=part.part).first() if part.line == plan.line else None
        if row is None:
            raise StudyRefusedError(f"The archive has no part {text[:80]} of {plan.line}. Leave this part out, or correct its id.")
        rows.append(row)
    return rows


def _choose_parts(plan: StudyPlan) -> list[Part]:
    """Chooses `plan.count` parts at random. If possible, half of the chosen parts have the verdict `ok`."""
    kept = Part.objects.filter(line=plan.line).exclude(picture="").exclude(label="").exclude(defect_probability=None)
    newest = list(kept.order_by("-seen_at").values_list("pk", "label")[: 40 * MAX_PARTS])
    generator = secrets.SystemRandom()
    good = [pk for pk, label in newest if label == "ok"]
    other = [pk for pk, label in newest if label != "ok"]
    for group in (good, other):
        generator.shuffle(group)
    half = plan.count // 2
    many_good = min(len(good), max(half, plan.count - len(other)))
    chosen = good[:many_good] + other[: plan.count - many_good]
    rows = list(Part.objects.filter(pk__in=chosen))
    generator.shuffle(rows)
    return rows


def _copy_picture(row: Part) -> tuple[str, str]:
    try:
        content = get_picture_reader().read_original(row)
        if content is None:
            raise StudyRefusedError(f"The picture of {row} is no longer kept. Leave this part out.")
        return ObjectStore(current_settings().store.url).put(content, "studies"), hashlib.sha256(content).hexdigest()
    except OSError as error:
        raise StudyRefusedError(
            f"The picture of {row} cannot be copied into the object store: {error.strerror or error}. Check the store."
        ) from error
    except PictureError as error:
        raise StudyRefusedError(f"The picture of {row} cannot be read: {error} Leave this part out.") from error


def parse_people(text: str) -> tuple[str, ...]:
    """Returns the names in `text`, which are separated by commas, blanks or line ends."""
    return tuple(name for name in re.split(r"[\s,;]+", text) if name)
