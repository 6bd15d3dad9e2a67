"""Which reviewed parts go into a data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from station.archive.models import Part
from station.history.filters import read_filters
from station.history.indexes import indexed
from streams.identity import format_time

_AT_ONCE = 500


@dataclass(frozen=True)
class Selection:
    """Parts that a person labelled, of one line or all, seen from `since` until before `to`; all where empty."""

    line: str = ""
    since: datetime | None = None
    to: datetime | None = None

    def described(self) -> dict[str, str]:
        """As it is written down beside the data set."""
        found = {"line": self.line, "since": format_time(self.since) if self.since else "", "to": format_time(self.to) if self.to else ""}
        return {name: text for name, text in found.items() if text}

    def parts(self, hidden: str) -> Iterator[Part]:
        """The parts, oldest first by their number in the archive; those of the line `hidden` are left out."""
        found = Part.objects.filter(indexed("reviewer"), review_label__in=("ok", "defect")).exclude(reviewer="")
        if self.line:
            found = found.filter(line=self.line)
        if self.since:
            found = found.filter(seen_at__gte=self.since)
        if self.to:
            found = found.filter(seen_at__lt=self.to)
        found = found.exclude(line=hidden).order_by("id")
        last = 0
        while rows := list(found.filter(id__gt=last)[:_AT_ONCE]):
            yield from rows
            last = rows[-1].pk


def read_selection(given: Mapping[str, Any]) -> Selection:
    """From a form. Raises ValueError: in words, for what cannot be read."""
    filters = read_filters({name: str(given.get(name, "")) for name in ("line", "since", "to")})
    if filters.wrong:
        raise ValueError("; ".join(f"{name}: {words}" for name, words in filters.wrong.items()))
    return Selection(filters.line, filters.since, filters.to)
