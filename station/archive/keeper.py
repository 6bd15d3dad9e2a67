"""Writes what the topics tell into the table of parts: the archivist's hand on the database.

Each call is one transaction: read the rows of the parts told of, fold the records in, write what has changed. Writers take
turns, so that of two archivists none overwrites what the other has just folded in. A repeat changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import or_

from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction
from django.db.models import Q

from station.archive.folding import blank, fold, time_of
from station.archive.keeping import Keeping
from station.archive.models import Part
from station.configuration import castline
from station.reviews.candidates import add_to_queue, select_candidates
from streams.errors import ArchiveError
from streams.identity import PartId
from streams.records import ArchivedRecord, PartRecord

_IDENTITY = ("line", "run", "part")
_FIELDS = [field.name for field in Part._meta.concrete_fields if not field.primary_key]
_FOLDED = [name for name in _FIELDS if name not in _IDENTITY]
# Any number that no other program locks by.
_TURN = 0x6361_7374


class Keeper:
    """Keeps parts in the database. For one thread; its connection lives as long as the database lets it."""

    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping

    def write(self, told: Sequence[ArchivedRecord]) -> int:
        """Folds `told` into the table, in order; returns how many rows were made or changed, all of them safe on disk.

        Raises ArchiveError: `retriable` when the database does not answer, else when it does not take one of `told`.
        """
        try:
            with transaction.atomic():
                take_turn()
                return self._fold(told)
        except (OperationalError, InterfaceError) as error:
            connection.close()
            raise ArchiveError(f"expected the database to take {len(told)} records, it did not: {_first_line(error)}") from error
        except (DatabaseError, OverflowError, ValueError) as error:
            connection.close()
            raise ArchiveError(f"a record does not fit the table of parts: {_first_line(error)}", retriable=False) from error

    def _fold(self, told: Sequence[ArchivedRecord]) -> int:
        rows = _rows({one.part_id for one in told})
        before = {part: _values(row) for part, row in rows.items()}
        for one in told:
            row = rows.get(one.part_id)
            if row is None:
                if not isinstance(one, PartRecord):
                    continue  # a review taken back of a part that nobody knows
                row = rows[one.part_id] = blank(one.part_id, time_of(one))
            fold(row, one, self._keeping)
        changed = [row for part, row in sorted(rows.items()) if before.get(part) != _values(row)]
        candidates = select_candidates(changed, castline())
        for row, _ in candidates:
            if row.keep_picture is None and row.image_offset is not None:
                row.keep_picture = True  # nobody can judge a part without its picture
        for row in changed:
            row.pk = None  # by its identity, a row is made or changed in one statement
        Part.objects.bulk_create(changed, update_conflicts=True, unique_fields=list(_IDENTITY), update_fields=_FOLDED)
        add_to_queue(candidates)
        return len(changed)


def take_turn() -> None:
    """Waits until no other process changes the table of parts; the turn ends with the transaction."""
    # SQLite's transactions, being immediate, wait for each other by themselves.
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_TURN])


def _rows(parts: Iterable[PartId]) -> dict[PartId, Part]:
    runs: dict[tuple[str, int], list[int]] = defaultdict(list)
    for part in parts:
        runs[part.line, part.run].append(part.part)
    if not runs:
        return {}
    wanted = reduce(or_, (Q(line=line, run=run, part__in=numbers) for (line, run), numbers in runs.items()))
    return {PartId(row.line, row.run, row.part): row for row in Part.objects.filter(wanted)}


def _values(row: Part) -> list[object]:
    # Lists and dicts are replaced, never changed in place, so that what was stays what it was.
    return [getattr(row, name) for name in _FIELDS]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [repr(error)])[0]
