"""What a sorter remembers of the parts of one line: what was told, and what is recorded. Bounded; the oldest is forgotten."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta

from streams.records import Label, Sorting, Verdict

Key = tuple[int, int]  # run, part
# At 10 parts a second this is some three minutes: longer than any part is between camera and gate.
REMEMBERED = 2048
# Two times of one part, by board and by camera, differ by less.
SAME_PART = timedelta(seconds=60)


@dataclass
class Note:
    """What is known of a part beside the board's report."""

    counted_at: datetime | None = None
    label: Label | None = None
    verdict_id: uuid.UUID | None = None
    captured_at: datetime | None = None  # of the verdict's picture
    told_at: datetime | None = None
    late: bool = False

    def verdict(self, verdict: Verdict) -> None:
        """The first verdict stands, as at the board."""
        if self.verdict_id is None:
            self.label, self.verdict_id, self.captured_at = verdict.label, verdict.verdict_id, verdict.captured_at


class Notes:
    """Notes by part, and the last record of each."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._notes: OrderedDict[Key, Note] = OrderedDict()
        self._recorded: OrderedDict[Key, Sorting] = OrderedDict()

    def of(self, run: int, part: int) -> Note:
        """The part's note, made where there is none."""
        note = self._notes.get((run, part))
        if note is None:
            note = self._notes[run, part] = Note()
            while len(self._notes) > self._remembered:
                self._notes.popitem(last=False)
        return note

    def counted(self, run: int, part: int, at: datetime) -> Note:
        """The note of a part counted at that time. What is remembered under its numbers from another time is of another part:
        a board that was exchanged begins with run 1 again."""
        note, before = self.of(run, part), self._recorded.get((run, part))
        known = [time for time in (note.counted_at, note.captured_at, before.counted_at if before else None) if time is not None]
        if any(abs(at - time) > SAME_PART for time in known):
            self._recorded.pop((run, part), None)
            note = self._notes[run, part] = Note()
        note.counted_at = at
        return note

    def recorded(self, run: int, part: int) -> Sorting | None:
        """The part's last record, None where it has none or it is forgotten."""
        return self._recorded.get((run, part))

    def record(self, sorting: Sorting) -> None:
        self._recorded[sorting.run, sorting.part] = sorting
        self._recorded.move_to_end((sorting.run, sorting.part))
        while len(self._recorded) > self._remembered:
            self._recorded.popitem(last=False)

    def unfinished(self, run: int) -> list[Key]:
        """Parts counted in other runs than `run` that have no record: their board is gone, nobody will report them."""
        return [key for key, note in self._notes.items() if key[0] != run and note.counted_at is not None and key not in self._recorded]
