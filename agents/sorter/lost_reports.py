"""Finds the parts whose reports the board has lost, from the gaps in the part numbers that the board reports.

A board stores 64 reports. If no sorter acknowledges them for longer, for example because its PC is off, the board drops further reports. It
has also dropped the counts of most of these parts (PART), because it repeats a count only until the part is at the gate. So no message
names these parts, but the board numbers all parts of a run one after the other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from itertools import islice

log = logging.getLogger(__name__)

# The board repeats its oldest reports every second. A report that has not come this long after the report of a later part is lost.
REPEATED_WITHIN_S = 10.0
# After a loss, only so many of the newest parts are checked whose counts have arrived. Fewer parts are on a belt at a time.
_MAX_ANNOUNCED = 1024
# A line without a PC for 18 hours counts so many parts at one part a second. A gap that is larger still gets records for its newest parts.
_MAX_MISSING = 65_536
# Number of records that are made at once. More of them would keep the sorter from its other work for too long.
_MAX_TAKEN = 256


class LostReports:
    """Follows the part numbers that the board of one line has reported in its present run. Times are in monotonic seconds.

    - `run`: the present run, or 0 before the first one.
    - `is_known`: whether the sorter knows a part of a run, for example because the board has announced the part.
    - `has_record`: whether a part of a run has a sorting record.
    """

    def __init__(self, is_known: Callable[[int, int], bool], has_record: Callable[[int, int], bool]) -> None:
        self._is_known = is_known
        self._has_record = has_record
        self.run = 0
        self._lowest = self._highest = 0
        self._is_loss_reported = False
        # Maps the parts that were left out to the time at which a later part was reported.
        self._missing: dict[int, float] = {}

    def begin_run(self, run: int, recorded_parts: Iterable[int], now_s: float) -> None:
        """Begins with the parts of `run` that already have a record. Call `take_all` for the earlier run before."""
        parts = sorted(recorded_parts)
        self.run = run
        self._lowest = self._highest = 0
        self._missing = {}
        for part in parts:
            self.add_report(part, now_s)
        # The recorder of an outage can have acknowledged the fault that reports a loss.
        self._is_loss_reported = bool(parts)

    def note_loss(self) -> None:
        """Notes that the board has lost events. Announced parts before the next reported part can be among them."""
        self._is_loss_reported = True

    def add_report(self, part: int, now_s: float) -> None:
        """Notes that the board has reported `part`. All parts before it that nobody knows are missing from now on.

        The parts before the first reported one are left out, because the board can have counted them for another host.

        Otherwise, a part that was announced is not missing, because it can still be on its way to an additional gate.
        """
        if not self._highest:
            self._lowest = self._highest = part
        first = max(self._highest + 1, part - _MAX_MISSING + len(self._missing))
        if first > self._highest + 1:
            log.error("The board has left out %d part numbers before part %d. They get no record.", first - self._highest - 1, first)
        missing = [number for number in range(first, part) if not self._is_known(self.run, number)]
        if self._is_loss_reported:
            announced = range(max(self._lowest + 1, part - _MAX_ANNOUNCED), part)
            missing += [number for number in announced if self._is_known(self.run, number)]
            self._is_loss_reported = False
        for number in missing:
            if not self._has_record(self.run, number):
                self._missing.setdefault(number, now_s)
        self._highest = max(self._highest, part)

    def take_lost(self, now_s: float) -> list[int]:
        """Returns parts that were missing for REPEATED_WITHIN_S, once. Returns at most 256 parts, and the others with the next calls."""
        return self._take(lambda since_s: now_s - since_s >= REPEATED_WITHIN_S, _MAX_TAKEN)

    def take_all(self) -> list[int]:
        """Returns all missing parts, because a reset of the board has deleted its reports."""
        return self._take(lambda since_s: True, _MAX_MISSING)

    def _take(self, is_lost: Callable[[float], bool], most: int) -> list[int]:
        due = list(islice((part for part, since_s in self._missing.items() if is_lost(since_s)), most))
        for part in due:
            del self._missing[part]
        return sorted(part for part in due if not self._has_record(self.run, part))
