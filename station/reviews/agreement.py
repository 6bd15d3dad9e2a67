"""Measures how often people give a part the same label as the model, and how often two people agree about a part."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations

from django.db.models import Count, Max, Q

from station.reviews.models import Decision

LABELS = ("ok", "defect")
MAX_DECISIONS = 50_000


@dataclass(frozen=True)
class LabelAgreement:
    """Counts the labels that two sides, such as the model and a person, gave to the same parts (a confusion matrix).

    `counts["ok", "defect"]` is the number of parts that the first side labelled `ok` and the second side `defect`.
    """

    counts: Counter[tuple[str, str]]

    @property
    def parts(self) -> int:
        """The number of compared parts. Each of these parts has two labels, for example from the model and from a person."""
        return sum(self.counts.values())

    @property
    def same(self) -> int:
        """The number of parts to which both sides, for example the model and a person, gave the same label."""
        return sum(self.counts[label, label] for label in LABELS)

    @property
    def accuracy(self) -> float | None:
        """The share (0..1) of parts to which both sides, for example the model and a person, gave the same label."""
        return self.same / self.parts if self.parts else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa: 1 is full agreement, and 0 is the agreement that chance would give.

        None if there are no parts, or if all labels are the same, for example all `ok`.

        Source: Cohen, Educational and Psychological Measurement 20(1), 1960.
        """
        if not self.parts:
            return None
        first_totals, second_totals = Counter[str](), Counter[str]()
        for (first, second), count in self.counts.items():
            first_totals[first] += count
            second_totals[second] += count
        chance = sum(first_totals[label] * second_totals[label] for label in LABELS) / self.parts**2
        return None if chance == 1 else (self.same / self.parts - chance) / (1 - chance)

    def rows(self) -> list[tuple[str, list[int]]]:
        """Returns the confusion matrix as rows, such as [("ok", [90, 2]), ("defect", [3, 5])].

        A row is a label of the first side, such as the model. Its two numbers count the parts that the second side labelled `ok`
        and `defect`.
        """
        return [(first, [self.counts[first, second] for second in LABELS]) for first in LABELS]


def count_agreement(pairs: Iterable[tuple[str, str, int]]) -> LabelAgreement:
    """Returns how well two sides, such as the model and a person, agree about the same parts.

    Each of `pairs` is (label of the first side, label of the second side, number of parts). Ignores labels except `ok` and `defect`.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for first, second, count in pairs:
        if first in LABELS and second in LABELS:
            counts[first, second] += count
    return LabelAgreement(counts)


@dataclass(frozen=True)
class AgreementReport:
    """The agreement of the model with people, and of people with each other, within a period.

    The model is compared with the last decision about each part.
    """

    model: LabelAgreement
    # The agreement of the model with people about the parts that were picked at random for a review.
    audit: LabelAgreement
    lines: list[tuple[str, LabelAgreement]]
    reviewers: list[tuple[str, LabelAgreement]]
    # Each row: a type of defect, the number of parts in which people saw this defect, and how many of them the model labelled `ok`.
    kinds: list[tuple[str, int, int]]
    people: list[tuple[str, str, LabelAgreement]]
    # How many parts with the verdict `review` were labelled `ok` by people, and how many were labelled `defect`.
    left_to_people: list[tuple[str, int]]


def compute_agreement(since: datetime, to: datetime, line: str = "", excluded_line: str = "") -> AgreementReport:
    """Computes the agreement from the decisions that people made between `since` (included) and `to` (excluded).

    Uses the parts of `line`. If `line` is empty, uses the parts of all lines except `excluded_line`.
    """
    in_period = Q(undone_at=None, at__gte=since, at__lt=to, label__in=LABELS)
    in_period &= Q(part__line=line) if line else ~Q(part__line=excluded_line)
    decisions = Decision.objects.filter(in_period)
    last = decisions.values("part").annotate(last=Max("pk")).values("last").order_by()
    effective = Decision.objects.filter(pk__in=last)
    groups = list(effective.values_list("part__line", "audit", "model_label", "label").annotate(count=Count("pk")).order_by())
    by_person = decisions.values_list("reviewer__username", "model_label", "label").annotate(count=Count("pk")).order_by()
    return AgreementReport(
        model=count_agreement((model, label, count) for _, _, model, label, count in groups),
        audit=count_agreement((model, label, count) for _, audit, model, label, count in groups if audit),
        lines=_group_by_name((name, model, label, count) for name, _, model, label, count in groups),
        reviewers=_group_by_name(by_person),
        kinds=_count_kinds(effective.filter(label="defect").values_list("kinds", "model_label")[:MAX_DECISIONS]),
        people=_compare_people(decisions.order_by("-at").values_list("part", "reviewer__username", "label")[:MAX_DECISIONS]),
        left_to_people=[
            (label, sum(count for _, _, model, given, count in groups if model == "review" and given == label)) for label in LABELS
        ],
    )


def _group_by_name(rows: Iterable[tuple[str, str, str, int]]) -> list[tuple[str, LabelAgreement]]:
    groups: defaultdict[str, list[tuple[str, str, int]]] = defaultdict(list)
    for name, model, label, count in rows:
        groups[name].append((model, label, count))
    return [(name, count_agreement(group)) for name, group in sorted(groups.items())]


def _count_kinds(rows: Iterable[tuple[list[str], str]]) -> list[tuple[str, int, int]]:
    counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for kinds, model_label in rows:
        for kind in kinds or ["no type named"]:
            counts[kind][0] += 1
            counts[kind][1] += model_label == "ok"
    return sorted(((kind, parts, missed) for kind, (parts, missed) in counts.items()), key=lambda row: -row[1])


def _compare_people(rows: Iterable[tuple[int, str, str]]) -> list[tuple[str, str, LabelAgreement]]:
    labels_by_part: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
    for part, name, label in rows:
        labels_by_part[part].append((name, label))
    pairs: defaultdict[tuple[str, str], list[tuple[str, str, int]]] = defaultdict(list)
    for labels in labels_by_part.values():
        for (first, first_label), (second, second_label) in combinations(sorted(labels), 2):
            pairs[first, second].append((first_label, second_label, 1))
    return [(*people, count_agreement(found)) for people, found in sorted(pairs.items())]
