"""Indexes over the few rows where a column says something: for the database to use one, a query repeats the index's condition.

It must stand in the query's text: a bound value proves nothing to SQLite when it chooses its indexes.
"""

from __future__ import annotations

from typing import ClassVar

from django.db.models import BooleanField, Q
from django.db.models.expressions import RawSQL

# As the indexes `part_<column>_seen` of station.archive.models.Part are declared.
_CONDITIONS = {
    "kind": """NOT ("archive_part"."kind" = '')""",
    "reviewer": """NOT ("archive_part"."reviewer" = '')""",
    "action": """NOT ("archive_part"."action" IN ('', 'passed'))""",
}


class _Said(RawSQL):
    """One of the conditions above; takes nothing from outside."""

    conditional: ClassVar[bool] = True

    def __init__(self, column: str) -> None:
        super().__init__(_CONDITIONS[column], [], output_field=BooleanField())


def indexed(column: str) -> Q:
    """What a query for a value of `column` says besides; nothing where the column's index holds every row."""
    return Q(_Said(column)) if column in _CONDITIONS else Q()
