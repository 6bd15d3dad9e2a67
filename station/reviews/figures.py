"""How often people and model, and people among themselves, agree: from the decisions of a time, per line, type and person."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations

from django.db.models import Count, Max, Q

from station.reviews.agreement import Agreement, agreement
from station.reviews.models import Decision

# Pairs of people are made in memory, from at most so many decisions, the newest.
MOST_DECISIONS = 50_000


@dataclass(frozen=True)
class Figures:
    """Model against people: what stands for a part against its verdict. Two people: everyone who decided the same part."""

    model: Agreement
    audit: Agreement  # of the random draw alone: what holds for all parts
    lines: list[tuple[str, Agreement]]
    reviewers: list[tuple[str, Agreement]]
    kinds: list[tuple[str, int, int]]  # type, parts that people gave it to, those of them that the model called ok
    people: list[tuple[str, str, Agreement]]
    left_to_people: list[tuple[str, int]]  # what became of the parts that the model left to people


def figures(since: datetime, to: datetime, line: str = "", hidden: str = "") -> Figures:
    """The figures of the decisions made from `since` until before `to`; of one line, or of all but `hidden`."""
    chosen = Q(undone_at=None, at__gte=since, at__lt=to, label__in=("ok", "defect"))
    chosen &= Q(part__line=line) if line else ~Q(part__line=hidden)
    # The last decision on a part is the one that stands.
    last = Decision.objects.filter(chosen).values("part").annotate(last=Max("pk")).values("last").order_by()
    standing = Decision.objects.filter(pk__in=last)
    counted = list(standing.values_list("part__line", "audit", "model_label", "label").annotate(many=Count("pk")).order_by())
    by_person = (
        Decision.objects.filter(chosen).values_list("reviewer__username", "model_label", "label").annotate(many=Count("pk")).order_by()
    )
    return Figures(
        model=agreement((model, label, many) for _, _, model, label, many in counted),
        audit=agreement((model, label, many) for _, audit, model, label, many in counted if audit),
        lines=_grouped((name, model, label, many) for name, _, model, label, many in counted),
        reviewers=_grouped(by_person),
        kinds=_kinds(standing.filter(label="defect").values_list("kinds", "model_label")[:MOST_DECISIONS]),
        people=_people(Decision.objects.filter(chosen).order_by("-at").values_list("part", "reviewer__username", "label")[:MOST_DECISIONS]),
        left_to_people=[
            (label, sum(many for _, _, model, said, many in counted if model == "review" and said == label)) for label in ("ok", "defect")
        ],
    )


def _grouped(rows: Iterable[tuple[str, str, str, int]]) -> list[tuple[str, Agreement]]:
    groups: defaultdict[str, list[tuple[str, str, int]]] = defaultdict(list)
    for name, model, label, many in rows:
        groups[name].append((model, label, many))
    return [(name, agreement(group)) for name, group in sorted(groups.items())]


def _kinds(rows: Iterable[tuple[list[str], str]]) -> list[tuple[str, int, int]]:
    parts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for kinds, model_label in rows:
        for kind in kinds or ["no type named"]:
            parts[kind][0] += 1
            parts[kind][1] += model_label == "ok"
    return sorted(((kind, many, missed) for kind, (many, missed) in parts.items()), key=lambda row: -row[1])


def _people(rows: Iterable[tuple[int, str, str]]) -> list[tuple[str, str, Agreement]]:
    by_part: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
    for part, name, label in rows:
        by_part[part].append((name, label))
    pairs: defaultdict[tuple[str, str], list[tuple[str, str, int]]] = defaultdict(list)
    for people, labels in _pairs(by_part.values()):
        pairs[people].append((*labels, 1))
    return [(*people, agreement(found)) for people, found in sorted(pairs.items())]


def _pairs(parts: Iterable[list[tuple[str, str]]]) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    for said in parts:
        for (one, label), (other, other_label) in combinations(sorted(said), 2):
            yield (one, other), (label, other_label)
