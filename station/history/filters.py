"""Reads the filters of the history from the query of a URL and turns them into database conditions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from urllib.parse import urlencode

from django.db.models import Q
from django.utils import timezone

from streams.errors import IdentityError
from streams.identity import LINE_PATTERN, PartId

LABELS = ("ok", "defect", "review", "none")
ACTIONS = ("diverted", "passed", "stopped", "untracked", "none")
_MAX_CHARACTERS = 150
# The station accepts only dates in these years, because Python, SQLite and PostgreSQL all support them.
SUPPORTED_YEARS = range(1971, 9000)


@dataclass(frozen=True)
class PartFilters:
    """The conditions that a part must fulfil to be shown. An empty condition is not applied.

    Parts are shown from the time `since` until just before the time `to`. `errors` has a phrase for each query parameter that cannot be
    read.
    """

    line: str = ""
    since: datetime | None = None
    to: datetime | None = None
    label: str = ""
    kind: str = ""
    least: float | None = None
    most: float | None = None
    model: str = ""
    reviewer: str = ""
    action: str = ""
    part: PartId | None = None
    excluded_line: str = ""
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def query(self) -> str:
        """The query string of a URL that sets these filters, such as "line=line-1&label=defect". Empty filters are left out."""
        names = [one.name for one in fields(self) if one.name in _READERS]
        return urlencode([(name, text) for name in names if (text := self.format_value(name))])

    def format_value(self, name: str) -> str:
        """Returns the filter `name` as text for a form field. Times are shown in the plant's time zone."""
        value = getattr(self, name)
        if isinstance(value, datetime):
            return timezone.localtime(value).strftime("%Y-%m-%dT%H:%M:%S").removesuffix(":00")
        return "" if value is None else str(value)

    def describe_errors(self, labels: Mapping[str, str] | None = None) -> list[str]:
        """Returns a sentence for each filter that could not be read.

        `labels` gives the label of the form field for each filter name. The default is FIELD_LABELS.
        """
        labels = labels or FIELD_LABELS
        return [f"{labels[name]} {problem}." for name, problem in self.errors.items()]

    @property
    def is_served_by_one_index(self) -> bool:
        """True if at most one filter besides `since` and `to` is set, and the database has an index for this filter."""
        has_unindexed = self.least is not None or self.most is not None or bool(self.model)
        indexed = [self.line, self.label, self.kind, self.reviewer, self.action]
        has_common_action = self.action in ("none", "passed")
        return not has_common_action and not has_unindexed and sum(map(bool, indexed)) <= 1

    def conditions(self) -> Q:
        """Returns a query condition for the table of parts. It contains all filters except `since` and `to`."""
        found = Q()
        if self.part:
            found &= Q(line=self.part.line, run=self.part.run, part=self.part.part)
        for column, value in (("line", self.line), ("kind", self.kind), ("model", self.model), ("reviewer", self.reviewer)):
            if value:
                found &= Q(**{column: value})
        for column, value in (("label", self.label), ("action", self.action)):
            if value:
                found &= Q(**{column: "" if value == "none" else value})
        if self.excluded_line:
            found &= ~Q(line=self.excluded_line)
        if self.least is not None:
            found &= Q(defect_probability__gte=self.least)
        if self.most is not None:
            found &= Q(defect_probability__lte=self.most)
        return found

    def time_conditions(self) -> Q:
        """Returns the filters `since` and `to` as a condition for a query of the table of parts."""
        found = Q()
        if self.since:
            found &= Q(seen_at__gte=self.since)
        if self.to:
            found &= Q(seen_at__lt=self.to)
        return found


def read_filters(query: Mapping[str, str]) -> PartFilters:
    """Returns the filters in the query of a URL. Ignores unknown parameters. `errors` lists the values that cannot be read."""
    values: dict[str, object] = {}
    errors: dict[str, str] = {}
    for name, read in _READERS.items():
        text = query.get(name, "").strip()
        if not text:
            continue
        try:
            if len(text) > _MAX_CHARACTERS or "\0" in text:
                raise ValueError(f"must be a text of at most {_MAX_CHARACTERS} printable characters")
            values[name] = read(text)
        except ValueError as requirement:
            errors[name] = f"{requirement}, not {text[:40]!r}"
    return PartFilters(**values, errors=errors)  # type: ignore[arg-type]


def _read_line(text: str) -> str:
    if not re.match(LINE_PATTERN, text):
        raise ValueError("must be a line name like line-1")
    return text


def _one_of(words: tuple[str, ...]) -> Callable[[str], str]:
    def read_word(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text

    return read_word


def _read_probability(text: str) -> float:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ValueError("must be a number from 0 to 1")
    return value


def _read_time(text: str) -> datetime:
    try:
        value = datetime.fromisoformat(text)
        if value.tzinfo is None:
            value = value.replace(tzinfo=timezone.get_current_timezone())
        if value.year not in SUPPORTED_YEARS:
            raise ValueError
        return value.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("must be a time like 2026-01-31T12:00") from None


def _read_part(text: str) -> PartId:
    try:
        return PartId.parse(text)
    except IdentityError:
        raise ValueError("must be a part id like line-1:17:345") from None


_READERS: dict[str, Callable[[str], object]] = {
    "line": _read_line,
    "since": _read_time,
    "to": _read_time,
    "label": _one_of(LABELS),
    "kind": str,
    "least": _read_probability,
    "most": _read_probability,
    "model": str,
    "reviewer": str,
    "action": _one_of(ACTIONS),
    "part": _read_part,
}
FIELD_LABELS = {
    "line": "Line",
    "since": "From",
    "to": "To",
    "label": "Verdict",
    "kind": "Type of defect",
    "least": "Probability",
    "most": "Probability",
    "model": "Model",
    "reviewer": "Reviewer",
    "action": "Gate",
    "part": "Part",
}
