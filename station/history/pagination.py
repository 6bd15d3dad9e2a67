"""Loads the history in pages, newest parts first.

The URL of a page contains the key of a part. The page shows the parts that come after this part in the list, or those before it.

If no single index of the database serves all filters, a search could take long. Such a search reads at most SEARCH_LIMIT rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from django.db.models import BooleanField, Q, QuerySet
from django.db.models.expressions import RawSQL

from station.archive.models import Part
from station.history.filters import PartFilters
from streams.errors import IdentityError
from streams.identity import format_time, parse_time

ROWS_PER_PAGE = 50
SEARCH_LIMIT = 20_000
COUNT_LIMIT = 10_000
# Most parts have one of these two gate actions. The database index part_action_seen contains only the other parts.
_COMMON_ACTIONS = ("none", "passed")
# A partial index contains only the rows that meet a condition. These are the SQL conditions of the partial indexes in
# station.archive.models.Part, by column.
_INDEX_CONDITIONS = {
    "kind": """NOT ("archive_part"."kind" = '')""",
    "reviewer": """NOT ("archive_part"."reviewer" = '')""",
    "action": """NOT ("archive_part"."action" IN ('', 'passed'))""",
}


@dataclass(frozen=True)
class HistoryKey:
    """The place of a part in the history, which is ordered by `seen_at` and then by `id`."""

    seen_at: datetime
    id: int

    def __str__(self) -> str:
        return f"{format_time(self.seen_at)}~{self.id}"

    @classmethod
    def parse(cls, text: str) -> HistoryKey:
        """Reads a key from `text`, which has the form of `str(key)`. Raises ValueError if `text` is not a key."""
        time, separator, number = text.partition("~")
        try:
            if not separator or not number.isascii() or not number.isdigit() or len(number) > 18:
                raise ValueError
            return cls(parse_time(time), int(number))
        except (ValueError, IdentityError):
            raise ValueError(
                f"{text[:40]!r} is not a key of the history. A key consists of a time and a number, such as 2026-01-31T12:00:00Z~345"
            ) from None


@dataclass(frozen=True)
class HistoryPage:
    """A page of parts, newest first.

    `older` and `newer` are the keys of the next and the previous page, or None if there is no such page. If the search stopped at
    SEARCH_LIMIT rows, `searched_to` is the time of the last row that it read.
    """

    rows: Sequence[Part]
    older: HistoryKey | None
    newer: HistoryKey | None
    searched_to: datetime | None = None


def load_page(
    filters: PartFilters,
    before: HistoryKey | None = None,
    after: HistoryKey | None = None,
    rows: int = ROWS_PER_PAGE,
    search_limit: int = SEARCH_LIMIT,
) -> HistoryPage:
    """Returns a page of the history: up to `rows` parts that fulfil `filters`.

    - `before`: key of a part. The page begins with the next older part.
    - `after`: key of a part. The page ends with the next newer part.

    If `before` and `after` are None, the page begins with the newest part.
    """
    if filters.part:
        return HistoryPage(list(order(filter_parts(filters), newest_first=True)[:rows]), None, None)
    if after is not None:
        found, limit = _search(filters, after, False, rows, search_limit)
        shown, has_more = found[:rows][::-1], len(found) > rows
        # The search has reached the newest part, and may have found only a few parts. Load the first page of the history instead, which is
        # full.
        if not has_more and limit is None:
            return load_page(filters, rows=rows, search_limit=search_limit)
        newer = _key_of(shown[0]) if has_more and shown else limit
        return HistoryPage(shown, _key_of(shown[-1]) if shown else after, newer, None if has_more or limit is None else limit.seen_at)
    found, limit = _search(filters, before, True, rows, search_limit)
    shown, has_more = found[:rows], len(found) > rows
    older = _key_of(shown[-1]) if has_more else limit
    newer = (_key_of(shown[0]) if shown else before) if before else None
    return HistoryPage(shown, older, newer, None if has_more or limit is None else limit.seen_at)


def count_parts(filters: PartFilters, limit: int = COUNT_LIMIT, search_limit: int = SEARCH_LIMIT) -> tuple[int, bool]:
    """Counts the parts that fulfil `filters`, up to `limit`. Returns the count, and True if there may be more parts.

    If no single index of the database serves all filters, searches only the newest `search_limit` rows.
    """
    if filters.part:
        return filter_parts(filters).count(), False
    bound = None if filters.is_served_by_one_index else _find_bound(filters, None, True, search_limit)
    counted = _between(filter_parts(filters), None, bound, True).order_by("-seen_at", "-id").values("id")[: limit + 1].count()
    return min(counted, limit), counted > limit or bound is not None


def order(parts: QuerySet[Part], newest_first: bool) -> QuerySet[Part]:
    """Sorts `parts` in the order of the history: by `seen_at`, then by `id`."""
    return parts.order_by("-seen_at", "-id") if newest_first else parts.order_by("seen_at", "id")


def parts_beyond(parts: QuerySet[Part], key: HistoryKey | None, older: bool) -> QuerySet[Part]:
    """Returns the parts that are older than the part with the key `key`. If `older` is False, returns the newer parts.

    If `key` is None, returns all parts.
    """
    if key is None:
        return parts
    # The first condition, on `seen_at` alone, does not change the result. Without it, the database would not use the index of `seen_at`.
    if older:
        return parts.filter(Q(seen_at__lte=key.seen_at) & (Q(seen_at__lt=key.seen_at) | Q(id__lt=key.id)))
    return parts.filter(Q(seen_at__gte=key.seen_at) & (Q(seen_at__gt=key.seen_at) | Q(id__gt=key.id)))


def filter_parts(filters: PartFilters) -> QuerySet[Part]:
    """Returns a query for the parts that fulfil `filters`. The query is written so that the database uses an index."""
    return Part.objects.filter(filters.conditions(), filters.time_conditions(), _indexed_condition(filters))


class _IndexCondition(RawSQL):
    """The condition of a partial index as SQL. It has no query parameters, because with parameters SQLite does not use the index."""

    conditional: ClassVar[bool] = True

    def __init__(self, column: str) -> None:
        super().__init__(_INDEX_CONDITIONS[column], [], output_field=BooleanField())


def index_condition(column: str) -> Q:
    """Returns the condition of the partial index of `column`. The database uses this index only if the query contains the condition.

    Returns an empty condition if `column` has no partial index.
    """
    return Q(_IndexCondition(column)) if column in _INDEX_CONDITIONS else Q()


def _search(
    filters: PartFilters, key: HistoryKey | None, older: bool, rows: int, search_limit: int
) -> tuple[list[Part], HistoryKey | None]:
    """Returns up to `rows` + 1 parts that are older than the part with the key `key`. If `older` is False, returns newer parts.

    If the search stopped because of `search_limit`, also returns the key at which it stopped, otherwise None.
    """
    bound = None if filters.is_served_by_one_index else _find_bound(filters, key, older, search_limit)
    within_bound = _between(filter_parts(filters), key, bound, older)
    return list(order(within_bound, newest_first=older)[: rows + 1]), bound


def _find_bound(filters: PartFilters, key: HistoryKey | None, older: bool, search_limit: int) -> HistoryKey | None:
    """Returns the key of the part at which a search must stop, which is `search_limit` parts after `key`.

    Returns None if fewer parts are left, because such a search needs no limit.
    """
    parts = parts_beyond(Part.objects.filter(_indexed_condition(filters), filters.time_conditions()), key, older)
    last = order(parts, newest_first=older).values_list("seen_at", "id")[search_limit : search_limit + 1]
    return HistoryKey(*last[0]) if last else None


def _indexed_condition(filters: PartFilters) -> Q:
    """Returns the query condition of one filter that has an index.

    If several filters have an index, chooses the filter that probably finds the fewest parts. If none has an index, returns an empty
    condition.
    """
    for column, value in (("reviewer", filters.reviewer), ("kind", filters.kind), ("action", filters.action)):
        if value and value not in _COMMON_ACTIONS:
            return Q(**{column: value}) & index_condition(column)
    if filters.label:
        has_label = Q(label="" if filters.label == "none" else filters.label)
        return has_label & Q(line=filters.line) if filters.line else has_label
    return Q(line=filters.line) if filters.line else Q()


def _between(parts: QuerySet[Part], key: HistoryKey | None, bound: HistoryKey | None, older: bool) -> QuerySet[Part]:
    parts = parts_beyond(parts, key, older)
    if bound is None:
        return parts
    if older:
        return parts.filter(Q(seen_at__gte=bound.seen_at) & (Q(seen_at__gt=bound.seen_at) | Q(id__gte=bound.id)))
    return parts.filter(Q(seen_at__lte=bound.seen_at) & (Q(seen_at__lt=bound.seen_at) | Q(id__lte=bound.id)))


def _key_of(part: Part) -> HistoryKey:
    return HistoryKey(part.seen_at, part.pk)
