"""The database field for a time from a record."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from django.db import models

# Every time zone can show these times, and so can the form fields of browsers.
_EARLIEST = datetime(1971, 1, 1, tzinfo=UTC)
_LATEST = datetime(8999, 12, 31, tzinfo=UTC)

if TYPE_CHECKING:
    # The type checker knows the values of Django's own fields only.
    RecordTimeField = models.DateTimeField
else:

    class RecordTimeField(models.DateTimeField):
        """A time from a record. A stored time before 1971 or after 8999 is read as the first or last time that every zone can show.

        Release 0.1.0 stored every time that a record had, such as one in the year 9999. East of UTC, that time has no local time.
        """

        def from_db_value(self, value, _expression, _connection):
            return None if value is None else min(max(value, _EARLIEST), _LATEST)

        def deconstruct(self):
            """Describes the column for migrations as an ordinary time, because the database stores it like one."""
            name, _, arguments, options = super().deconstruct()
            return name, "django.db.models.DateTimeField", arguments, options
