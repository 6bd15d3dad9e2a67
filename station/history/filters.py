"""What a person looks for among the parts: read from the page's address, checked, and turned into conditions."""

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
_MOST_CHARACTERS = 150
YEARS = range(1971, 9000)  # what every database and clock here can count with


@dataclass(frozen=True)
class Filters:
    """Conditions that all hold; empty ones hold for every part. Times bear a zone; `to` is not included."""

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
    hidden: str = ""  # line that is not searched: uploaded pictures are their owners'
    wrong: dict[str, str] = field(default_factory=dict)  # what could not be read, by name, in words; nothing is searched by it

    @property
    def query(self) -> str:
        """These filters as they stand in an address, without what is empty."""
        return urlencode([(one.name, text) for one in fields(self) if one.name in _READERS and (text := self.text(one.name))])

    def text(self, name: str) -> str:
        """One filter as a form shows it."""
        value = getattr(self, name)
        if isinstance(value, datetime):
            return timezone.localtime(value).strftime("%Y-%m-%dT%H:%M:%S").removesuffix(":00")
        return "" if value is None else str(value)

    @property
    def simple(self) -> bool:
        """At most one of those conditions holds that an index serves, and no other."""
        scattered = [self.least is not None or self.most is not None, self.model]
        indexed = [self.line, self.label, self.kind, self.reviewer, self.action]
        common = self.action in ("none", "passed")
        return not common and not any(scattered) and sum(map(bool, indexed)) <= 1

    def conditions(self) -> Q:
        """For the table of parts, all but the times."""
        found = Q()
        if self.part:
            found &= Q(line=self.part.line, run=self.part.run, part=self.part.part)
        for column, value in (("line", self.line), ("kind", self.kind), ("model", self.model), ("reviewer", self.reviewer)):
            if value:
                found &= Q(**{column: value})
        for column, value in (("label", self.label), ("action", self.action)):
            if value:
                found &= Q(**{column: "" if value == "none" else value})
        if self.hidden:
            found &= ~Q(line=self.hidden)
        if self.least is not None:
            found &= Q(defect_probability__gte=self.least)
        if self.most is not None:
            found &= Q(defect_probability__lte=self.most)
        return found

    def times(self) -> Q:
        """The times' conditions."""
        found = Q()
        if self.since:
            found &= Q(seen_at__gte=self.since)
        if self.to:
            found &= Q(seen_at__lt=self.to)
        return found


def read_filters(given: Mapping[str, str]) -> Filters:
    """The filters in an address. What cannot be read stands in `wrong`, in words, and is not searched by."""
    found: dict[str, object] = {}
    wrong: dict[str, str] = {}
    for name, reader in _READERS.items():
        text = given.get(name, "").strip()
        if not text:
            continue
        try:
            if len(text) > _MOST_CHARACTERS or "\0" in text:
                raise ValueError(f"expected at most {_MOST_CHARACTERS} printable characters, found {len(text)}")
            found[name] = reader(text)
        except ValueError as error:
            wrong[name] = str(error)
    return Filters(**found, wrong=wrong)  # type: ignore[arg-type]


def _line(text: str) -> str:
    if not re.match(LINE_PATTERN, text):
        raise ValueError(f"expected a line name like line-1, found {text[:40]!r}")
    return text


def _one_of(words: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"expected one of {', '.join(words)}, found {text[:40]!r}")
        return text

    return read


def _share(text: str) -> float:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ValueError(f"expected a probability from 0 to 1, found {text[:40]!r}")
    return value


def _time(text: str) -> datetime:
    try:
        value = datetime.fromisoformat(text)
        if value.tzinfo is None:
            value = value.replace(tzinfo=timezone.get_current_timezone())
        if value.year not in YEARS:
            raise ValueError
        return value.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"expected a time as 2026-01-31T12:00, found {text[:40]!r}") from None


def _part(text: str) -> PartId:
    try:
        return PartId.parse(text)
    except IdentityError as error:
        raise ValueError(str(error)) from None


_READERS: dict[str, Callable[[str], object]] = {
    "line": _line,
    "since": _time,
    "to": _time,
    "label": _one_of(LABELS),
    "kind": str,
    "least": _share,
    "most": _share,
    "model": str,
    "reviewer": str,
    "action": _one_of(ACTIONS),
    "part": _part,
}
