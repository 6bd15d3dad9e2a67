"""Computes the figures of a report about a shift or a day.

The database counts the parts in each group, such as all parts of line-1 with the label ok. This module adds up the numbers of the groups.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import Count, Q

from station.archive.models import Part
from station.reviews.agreement import LabelAgreement, count_agreement
from station.shifts import ShiftPeriod

NO_TYPE = "no type named"
_MIN_PARTS_PER_HOUR = 20
_GROUPED_BY = ("line", "label", "action", "sorted_reason", "late", "kind", "review_label")


@dataclass(frozen=True)
class PartGroup:
    """A group of parts for which all these values are the same, such as the line and the label. `count` is the number of parts."""

    line: str
    label: str
    action: str
    sorted_reason: str
    late: bool
    kind: str
    review_label: str
    count: int


@dataclass
class PartCounters:
    """The number of parts in total, for each label, for each gate action, for each defect type, and for each result of a review.

    Each key of `reviews` is a pair: the label that the model gave, and the label that the reviewer gave.
    """

    parts: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    defect_types: Counter[str] = field(default_factory=Counter)
    reviews: Counter[tuple[str, str]] = field(default_factory=Counter)
    without_verdict: int = 0
    sorted_without_verdict: int = 0
    late: int = 0

    def add(self, group: PartGroup) -> None:
        """Adds the parts of `group` to all counters."""
        count = group.count
        self.parts += count
        self.labels[group.label or "none"] += count
        if group.action:
            self.actions[group.action] += count
        if not group.label:
            self.without_verdict += count
        if group.sorted_reason in ("no-verdict", "late-verdict"):
            self.sorted_without_verdict += count
        if group.late or group.sorted_reason == "late-verdict":
            self.late += count
        if (group.review_label or group.label) == "defect":
            self.defect_types[group.kind or NO_TYPE] += count
        if group.review_label:
            self.reviews[group.label or "none", group.review_label] += count

    @property
    def judged(self) -> int:
        """Number of parts with a verdict."""
        return self.parts - self.without_verdict

    @property
    def good(self) -> int:
        """Number of good parts among the judged parts. The reviewer's label decides, or the model's label if nobody reviewed the part.

        A part without a verdict is not counted, even if a reviewer calls it good.
        """
        turned_good = sum(count for (label, review), count in self.reviews.items() if label in ("defect", "review") and review == "ok")
        turned_bad = sum(count for (label, review), count in self.reviews.items() if label == "ok" and review == "defect")
        return self.labels["ok"] + turned_good - turned_bad

    @property
    def good_percent(self) -> float | None:
        """The good parts as a percentage of the judged parts, or None if no part was judged."""
        return 100 * self.good / self.judged if self.judged else None

    @property
    def defect_share(self) -> float | None:
        """Share (0..1) of the judged parts to which the model gave the label `defect`, or None if no part was judged."""
        return self.labels["defect"] / self.judged if self.judged else None

    @property
    def diverted(self) -> int:
        return self.actions["diverted"]

    @property
    def reviewed(self) -> int:
        return self.reviews.total()

    @property
    def review_rows(self) -> list[tuple[str, str, int]]:
        """Rows of a table: the model's label, the reviewer's label, and the number of parts with these two labels."""
        return [(label, review, count) for (label, review), count in sorted(self.reviews.items())]

    @property
    def agreement(self) -> LabelAgreement:
        """How often the reviewers gave a part the same label as the model."""
        return count_agreement(self.review_rows)

    @property
    def pareto(self) -> list[tuple[str, int, float]]:
        """A row for each defect type, the most frequent type first: type, number of parts, and cumulative share of all defects (0..1).

        For example, [("blow hole", 6, 0.6), ("crack", 4, 1.0)].
        """
        rows, total, cumulative = [], self.defect_types.total(), 0
        for defect_type, count in sorted(self.defect_types.items(), key=lambda pair: (-pair[1], pair[0])):
            cumulative += count
            rows.append((defect_type, count, cumulative / total))
        return rows


@dataclass(frozen=True)
class PartReport:
    """The numbers of parts in a period: in total, by line and by hour. Each time in `hours` is the beginning of an hour."""

    period: ShiftPeriod
    all: PartCounters
    lines: list[tuple[str, PartCounters]]
    hours: list[tuple[datetime, PartCounters]]


def count_period(period: ShiftPeriod, line: str, excluded_line: str) -> PartReport:
    """Counts the parts of `line` in `period`. If `line` is empty, counts the parts of all lines except `excluded_line`.

    Sends a separate query for each hour. Such queries are fast, because the database can find one hour with its index of times.
    """
    condition = Q(line=line) if line else ~Q(line=excluded_line)
    hours: list[tuple[datetime, PartCounters]] = []
    all_groups: list[PartGroup] = []
    for begin, end in period.hours():
        parts = Part.objects.filter(condition, seen_at__gte=begin, seen_at__lt=end)
        rows = parts.values_list(*_GROUPED_BY).annotate(count=Count("pk")).order_by()
        groups = [PartGroup(name, label, action, reason, bool(late), *rest) for name, label, action, reason, late, *rest in rows]
        hours.append((begin, add_up(groups)))
        all_groups += groups
    by_line: defaultdict[str, list[PartGroup]] = defaultdict(list)
    for group in all_groups:
        by_line[group.line].append(group)
    return PartReport(period, add_up(all_groups), [(name, add_up(groups)) for name, groups in sorted(by_line.items())], hours)


def add_up(groups: Iterable[PartGroup]) -> PartCounters:
    """Returns the sum of the counters of all `groups`."""
    counters = PartCounters()
    for group in groups:
        counters.add(group)
    return counters


def worst_hours(hours: Iterable[tuple[datetime, PartCounters]], limit: int = 3) -> list[tuple[datetime, PartCounters]]:
    """Returns the hours with the largest share of defects, the worst first. Hours with fewer than 20 judged parts are left out."""
    candidates = [(hour, counters) for hour, counters in hours if counters.judged >= _MIN_PARTS_PER_HOUR and counters.labels["defect"]]
    return sorted(candidates, key=lambda pair: -(pair[1].defect_share or 0))[:limit]
