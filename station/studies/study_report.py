"""The result of a study: how well people agree with their own earlier answers, with each other and with the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from station.studies.appraisal import LABELS, count_answers
from station.studies.kappa import MISSING, Kappa, Labels, compute_cohen, compute_fleiss
from station.studies.models import Study, StudyAnswer

MODEL = "model"


@dataclass(frozen=True)
class StudyReport:
    """The agreement in a study.

    - `within`: each person with his or her own answers in other rounds
    - `between`: each pair of people, in the same round
    - `with_model`: each person with the model
    - `all_people`: all people together (Fleiss' kappa)
    - `all_with_model`: all people and the model together (Fleiss' kappa)
    - `left_to_people`: the number of parts that the model labelled `review`
    """

    within: list[tuple[str, Kappa]]
    between: list[tuple[str, str, Kappa]]
    with_model: list[tuple[str, Kappa]]
    all_people: Kappa
    all_with_model: Kappa
    parts: int
    left_to_people: int
    models: dict[str, int]


def is_complete(study: Study) -> bool:
    """Returns whether every person of the study has labelled every part in every round."""
    expected = study.rounds * study.parts.count()
    return all(count >= expected for count in count_answers(study).values())


def is_open_for_results(study: Study) -> bool:
    """Returns whether people are allowed to see the results. Before the end of the study, the results would influence the answers."""
    return study.closed_at is not None or is_complete(study)


def compute_report(study: Study) -> StudyReport:
    """Computes the agreement in `study` from the answers so far."""
    parts = list(study.parts.all())
    labels = _read_labels(study, len(parts))
    names = sorted(labels)
    model = np.array([[LABELS.index(part.model_label) if part.model_label in LABELS else MISSING] for part in parts], np.int8).reshape(
        -1, 1
    )
    everything = np.concatenate([labels[name] for name in names], axis=1) if names else np.full((len(parts), 0), MISSING, np.int8)
    return StudyReport(
        within=[(name, _compare_rounds(labels[name])) for name in names],
        between=[(first, second, compute_cohen(labels[first], labels[second])) for first, second in combinations(names, 2)],
        with_model=[(name, compute_cohen(labels[name], np.repeat(model, study.rounds, axis=1))) for name in names],
        all_people=compute_fleiss(everything),
        all_with_model=compute_fleiss(np.concatenate([everything, model], axis=1)),
        parts=len(parts),
        left_to_people=sum(part.model_label not in LABELS for part in parts),
        models=dict(Counter(part.model or "none" for part in parts)),
    )


def _compare_rounds(labels: Labels) -> Kappa:
    """Compares the labels that one person gave in different rounds. `labels` has shape (parts, rounds)."""
    pairs = list(combinations(range(labels.shape[1]), 2))
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    return compute_cohen(labels[:, first], labels[:, second])


def _read_labels(study: Study, parts: int) -> Mapping[str, Labels]:
    """Returns the labels of each person. The keys are the names of the accounts.

    Each value is an array with a row for each part and a column for each round of the study.
    """
    labels = {person.username: np.full((parts, study.rounds), MISSING, np.int8) for person in study.people.all()}
    rows = StudyAnswer.objects.filter(part__study=study).values_list("person__username", "part__number", "round", "label")
    for name, number, in_round, label in rows:
        labels[name][number, in_round - 1] = LABELS.index(label)
    return labels


def describe_report(report: StudyReport) -> dict[str, Any]:
    """Returns the report as a dict that can be written as JSON."""

    def describe(kappa: Kappa) -> dict[str, Any]:
        interval = None if kappa.low is None else [kappa.low, kappa.high]
        return {"parts": kappa.parts, "agreement": kappa.agreement, "kappa": kappa.value, "interval": interval}

    return {
        "within": {name: describe(kappa) for name, kappa in report.within},
        "between": [{"people": [first, second], **describe(kappa)} for first, second, kappa in report.between],
        "with_model": {name: describe(kappa) for name, kappa in report.with_model},
        "all_people": describe(report.all_people),
        "all_people_and_model": describe(report.all_with_model),
        "parts": report.parts,
        "left_to_people": report.left_to_people,
        "models": report.models,
    }
