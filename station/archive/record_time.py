"""The database field for a time from a record."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from django.db import models

# A time between these limits can be converted to every time zone, and shown in the date field of every browser.
_EARLIEST = datetime(1971, 1, 1, tzinfo=UTC)
_LATEST = datetime(8999, 12, 31, tzinfo=UTC)

if TYPE_CHECKING:
    # mypy knows only Django's own fields. For mypy, RecordTimeField is therefore the same as DateTimeField.
    RecordTimeField = models.DateTimeField
else:

    class RecordTimeField(models.DateTimeField):
        """A time from a record. A stored time before 1971 or after 8999 is read as the first or last time that every zone can show.

        Release 0.1.0 stored every time, such as the last hour of the year 9999. Python cannot convert that hour to a time zone east of UTC.
        """

        def from_db_value(self, value, _expression, _connection):
            return None if value is None else min(max(value, _EARLIEST), _LATEST)

        def deconstruct(self):
            """Lets migrations name Django's DateTimeField, because a RecordTimeField has the same database column."""
            name, _, arguments, options = super().deconstruct()
            return name, "django.db.models.DateTimeField", arguments, options
