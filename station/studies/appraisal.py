"""The work of one person in a study: which part comes next, and how an answer is stored or taken back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from station.studies.models import Study, StudyAnswer, StudyPart

LABELS = ("ok", "defect")


class AnswerRefusedError(ValueError):
    """Raised if an answer in a study cannot be accepted. The pages of studies show the error message."""


@dataclass(frozen=True)
class Task:
    """The part that a person has to label next, and its round. The person has given `done` of `total` answers."""

    part: StudyPart
    round: int
    done: int
    total: int


def order_numbers(seed: int, person: int, rounds: int, parts: int) -> list[tuple[int, int]]:
    """Returns the order in which one person labels the parts. Each element names a round (from 1) and a part (a number from 0).

    The order is random in each round. The last part of a round is not the first part of the next round, because the person would
    recognise the part.
    """
    order: list[tuple[int, int]] = []
    for number in range(1, rounds + 1):
        parts_in_order = list(np.random.default_rng([seed, person, number]).permutation(parts))
        if order and parts > 1 and parts_in_order[0] == order[-1][1]:
            parts_in_order = [*parts_in_order[1:], parts_in_order[0]]
        order += [(number, int(part)) for part in parts_in_order]
    return order


def find_task(study: Study, person: User) -> Task | None:
    """Returns the part that `person` has to label next, or None if the person has labelled all parts in all rounds."""
    parts = {part.number: part for part in study.parts.all()}
    answered = set(StudyAnswer.objects.filter(part__study=study, person=person).values_list("round", "part__number"))
    order = order_numbers(study.seed, person.pk, study.rounds, len(parts))
    waiting = next((key for key in order if key not in answered), None)
    return None if waiting is None else Task(parts[waiting[1]], waiting[0], len(answered), len(order))


def store_answer(study: Study, person: User, number: int, in_round: int, label: str, at: datetime) -> None:
    """Stores the label that `person` gave to the part with this `number` in the round `in_round`.

    Raises AnswerRefusedError if the study is closed, if the label does not exist, or if the person must label another part next.
    """
    if label not in LABELS:
        raise AnswerRefusedError(f"There is no label {label[:20]!r}. Choose ok or defect.")
    try:
        with transaction.atomic():
            # The row of the study is locked, so that nobody can close the study before this answer is stored.
            if Study.objects.select_for_update().get(pk=study.pk).closed_at:
                raise AnswerRefusedError("This study is closed and takes no more answers.")
            task = find_task(study, person)
            if task is None or (task.part.number, task.round) != (number, in_round):
                raise AnswerRefusedError("You have already labelled this part, perhaps in another window. Continue with the part below.")
            StudyAnswer.objects.create(part=task.part, person=person, round=in_round, label=label, at=at)
    except IntegrityError:
        raise AnswerRefusedError("You have already labelled this part, perhaps in another window. Continue with the part below.") from None


def take_back_answer(study: Study, person: User) -> None:
    """Deletes the last answer of `person`, so that the person labels this part again.

    Raises AnswerRefusedError if the person has given no answer or the study is closed.
    """
    with transaction.atomic():
        if Study.objects.select_for_update().get(pk=study.pk).closed_at:
            raise AnswerRefusedError("This study is closed. Its answers cannot be changed.")
        last = StudyAnswer.objects.filter(part__study=study, person=person).order_by("-at", "-pk").first()
        if last is None:
            raise AnswerRefusedError("You have not answered anything in this study yet.")
        last.delete()


def count_answers(study: Study) -> dict[str, int]:
    """Returns the number of answers of each person in the study. The keys are the names of the accounts."""
    counts = dict.fromkeys((person.username for person in study.people.order_by("username")), 0)
    for name in StudyAnswer.objects.filter(part__study=study).values_list("person__username", flat=True):
        counts[name] = counts.get(name, 0) + 1
    return counts
