"""The database counts a report's parts: one grouped query an hour, served by the index of times."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Q

from station.archive.models import Part
from station.reports.periods import Period
from station.reports.tally import Group, Tally, tally

_ALIKE = ("line", "label", "action", "sorted_reason", "late", "kind", "review_label")


@dataclass(frozen=True)
class Report:
    """One report: all lines together, each alone, and each hour."""

    period: Period
    all: Tally
    lines: list[tuple[str, Tally]]
    hours: list[tuple[datetime, Tally]]


def count(period: Period, line: str, hidden: str) -> Report:
    """Counts the parts of `period`: of `line`, or where it is empty of all lines but `hidden`."""
    chosen = Q(line=line) if line else ~Q(line=hidden)
    hours: list[tuple[datetime, Tally]] = []
    every: list[Group] = []
    for begin, end in period.hours():
        counted = (
            Part.objects.filter(chosen, seen_at__gte=begin, seen_at__lt=end).values_list(*_ALIKE).annotate(many=Count("pk")).order_by()
        )
        groups = [Group(name, label, action, reason, bool(late), *rest) for name, label, action, reason, late, *rest in counted]
        hours.append((begin, tally(groups)))
        every += groups
    by_line: defaultdict[str, list[Group]] = defaultdict(list)
    for group in every:
        by_line[group.line].append(group)
    return Report(period, tally(every), [(name, tally(groups)) for name, groups in sorted(by_line.items())], hours)
