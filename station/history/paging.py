"""Pages of parts, newest first, at any size of the table: by keys, never by counting from the top, and with a bound on what is read.

A page begins where another ended (`seen_at` and `id` of a row), so the ten-thousandth page costs what the first does, and parts that
come in meanwhile move nothing. A search for what no index serves reads at most LOOK rows and then says how far it came: "look
further" goes on from there. So no address makes the database read the whole table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q, QuerySet

from station.archive.models import Part
from station.history.filters import Filters
from station.history.indexes import indexed
from streams.errors import IdentityError
from streams.identity import format_time, parse_time

ROWS = 50
LOOK = 20_000
MOST_COUNTED = 10_000
# Actions that the index of actions leaves out, since most rows bear them.
_COMMON = ("none", "passed")


@dataclass(frozen=True)
class Key:
    """A place in the order of history."""

    seen_at: datetime
    id: int

    def __str__(self) -> str:
        return f"{format_time(self.seen_at)}~{self.id}"

    @classmethod
    def parse(cls, text: str) -> Key:
        """Raises ValueError: when `text` is none."""
        time, separator, number = text.partition("~")
        try:
            if not separator or not number.isascii() or not number.isdigit() or len(number) > 18:
                raise ValueError
            return cls(parse_time(time), int(number))
        except (ValueError, IdentityError):
            raise ValueError(f"expected a place in the history, found {text[:40]!r}") from None


@dataclass(frozen=True)
class Page:
    """Rows newest first. `older` and `newer` are the places where the neighbouring pages begin; None where there is none.

    `looked_to` is set where the search stopped at its bound before the page was full: it came so far.
    """

    rows: Sequence[Part]
    older: Key | None
    newer: Key | None
    looked_to: datetime | None = None


def page(filters: Filters, before: Key | None = None, after: Key | None = None, rows: int = ROWS, look: int = LOOK) -> Page:
    """The page of parts older than `before`, or of those newer than `after` that are next to it, or the newest."""
    if filters.part:
        return Page(list(ordered(chosen(filters), newest_first=True)[:rows]), None, None)
    if after is not None:
        found, bound = _found(filters, after, False, rows, look)
        shown, more = found[:rows][::-1], len(found) > rows
        # Fewer than a page lie above: then this is the first page, whole.
        if not more and bound is None:
            return page(filters, rows=rows, look=look)
        newer = _key(shown[0]) if more and shown else bound
        return Page(shown, _key(shown[-1]) if shown else after, newer, None if more or bound is None else bound.seen_at)
    found, bound = _found(filters, before, True, rows, look)
    shown, more = found[:rows], len(found) > rows
    older = _key(shown[-1]) if more else bound
    newer = (_key(shown[0]) if shown else before) if before else None
    return Page(shown, older, newer, None if more or bound is None else bound.seen_at)


def count(filters: Filters, most: int = MOST_COUNTED, look: int = LOOK) -> tuple[int, bool]:
    """How many parts there are, and whether there may be more: counted up to `most`, and within the newest `look` parts."""
    if filters.part:
        return chosen(filters).count(), False
    bound = None if filters.simple else _bound(filters, None, True, look)
    counted = _within(chosen(filters), None, bound, True).order_by("-seen_at", "-id").values("id")[: most + 1].count()
    return min(counted, most), counted > most or bound is not None


def ordered(parts: QuerySet[Part], newest_first: bool) -> QuerySet[Part]:
    return parts.order_by("-seen_at", "-id") if newest_first else parts.order_by("seen_at", "id")


def beyond(parts: QuerySet[Part], key: Key | None, older: bool) -> QuerySet[Part]:
    """Those of `parts` that come after `key` in the order. The first condition is the one that an index serves."""
    if key is None:
        return parts
    if older:
        return parts.filter(Q(seen_at__lte=key.seen_at) & (Q(seen_at__lt=key.seen_at) | Q(id__lt=key.id)))
    return parts.filter(Q(seen_at__gte=key.seen_at) & (Q(seen_at__gt=key.seen_at) | Q(id__gt=key.id)))


def chosen(filters: Filters) -> QuerySet[Part]:
    """The parts that `filters` leave, said so that the databases find their index."""
    return Part.objects.filter(filters.conditions(), filters.times(), _served(filters))


def _found(filters: Filters, key: Key | None, older: bool, rows: int, look: int) -> tuple[list[Part], Key | None]:
    bound = None if filters.simple else _bound(filters, key, older, look)
    narrowed = _within(chosen(filters), key, bound, older)
    return list(ordered(narrowed, newest_first=older)[: rows + 1]), bound


def _bound(filters: Filters, key: Key | None, older: bool, look: int) -> Key | None:
    """The row that lies `look` rows further on among those that an index serves; None where there are fewer."""
    parts = beyond(Part.objects.filter(_served(filters), filters.times()), key, older)
    last = ordered(parts, newest_first=older).values_list("seen_at", "id")[look : look + 1]
    return Key(*last[0]) if last else None


def _served(filters: Filters) -> Q:
    """The one condition that the rows are looked up by: the likely rarest that has an index of its own with the time."""
    for column, value in (("reviewer", filters.reviewer), ("kind", filters.kind), ("action", filters.action)):
        if value and value not in _COMMON:
            return Q(**{column: value}) & indexed(column)
    if filters.label:
        labelled = Q(label="" if filters.label == "none" else filters.label)
        return labelled & Q(line=filters.line) if filters.line else labelled
    return Q(line=filters.line) if filters.line else Q()


def _within(parts: QuerySet[Part], key: Key | None, bound: Key | None, older: bool) -> QuerySet[Part]:
    parts = beyond(parts, key, older)
    if bound is None:
        return parts
    if older:
        return parts.filter(Q(seen_at__gte=bound.seen_at) & (Q(seen_at__gt=bound.seen_at) | Q(id__gte=bound.id)))
    return parts.filter(Q(seen_at__lte=bound.seen_at) & (Q(seen_at__lt=bound.seen_at) | Q(id__lte=bound.id)))


def _key(part: Part) -> Key:
    return Key(part.seen_at, part.pk)
