"""Finds the parts whose reports the board has lost.

A board stores 64 reports. If no sorter acknowledges them for a long time, for example because the sorter's PC is off, the board drops
further reports. The board numbers the parts of a run one after the other, so missing part numbers show which reports were dropped.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from itertools import islice

from agents.gate.lane import REPORTED_WITHIN_S
from agents.sorter.part_states import PartKey, RecordedParts

log = logging.getLogger(__name__)

# After the board has lost reports, the sorter checks this many of the newest parts. It looks for parts that the board has announced (event
# PART) but not reported. The number is larger than the number of parts that a belt can carry.
_MAX_ANNOUNCED = 1024
# If the reports of more parts than this are missing, only the newest of these parts get a record. At one part a second, a board counts this
# many parts in 18 hours.
_MAX_MISSING = 65_536
# The largest number of lost parts that get their records at once. With more parts, the sorter's other work would wait for too long.
_MAX_TAKEN = 256


class LostReports:
    """Follows the part numbers that the board of one line has reported since its last reset. Times are in monotonic seconds.

    - `run`: the present run of the board, or 0 before the first run. A run begins when the board is reset.
    - `is_known`: takes a run and a part number. Returns whether the sorter knows this part, for example because the board has announced it.
    - `has_record`: takes a run and a part number. Returns whether this part has a sorting record.
    """

    def __init__(self, is_known: Callable[[int, int], bool], has_record: Callable[[int, int], bool]) -> None:
        self._is_known = is_known
        self._has_record = has_record
        self.run = 0
        self._lowest = self._highest = 0
        self._is_loss_reported = False
        # Parts of the present run that the board had not reported, but for which an earlier process of the sorter wrote a record.
        self._recorded: set[int] = set()
        # The missing parts, each with the time at which a later part was reported.
        self._missing: dict[int, float] = {}
        # The parts of earlier runs that were missing at the end of their run.
        self._ended: deque[PartKey] = deque()

    def begin_run(self, run: int, recorded: RecordedParts, now_s: float) -> None:
        """Begins with a new run of the board. `recorded` are the parts of this run that already have a sorting record.

        The parts of the previous run that are still missing are now lost, because the board forgets its reports when it is reset.
        `take_ended` returns these parts.
        """
        self._ended.extend((self.run, part) for part in sorted(self._missing))
        self._missing = {}
        if run == self.run and self._highest:
            return
        self.run = run
        self._lowest = self._highest = 0
        self._recorded = recorded.unreported
        # The search begins with the part `first`. Perhaps the sorter has not read all records of older parts, so a missing record of an
        # older part does not prove that the board has lost a report.
        newest = max(recorded.reported, default=0)
        first = newest if recorded.complete_from is None else recorded.complete_from
        for part in sorted(part for part in recorded.reported if part >= first):
            self.add_report(part, now_s)
        # The board tells the sorter only once that it has lost reports. If an earlier process of the sorter has written records in this
        # run, perhaps that process was told. So this process then assumes that reports were lost.
        self._is_loss_reported = bool(recorded.reported)

    def note_loss(self) -> None:
        """Notes that the board has lost reports.

        The board announces a part when it counts the part, and reports the part later. The next call of `add_report` then also counts
        parts as missing that the board has announced but not reported.
        """
        self._is_loss_reported = True

    def add_report(self, part: int, now_s: float) -> None:
        """Notes that the board has reported `part`.

        Parts with smaller numbers then count as missing if they have no report, except for two kinds of parts:

        - Parts before the first reported part of the run. Perhaps the board counted them while it was connected to another host.
        - Parts of which the board has only sent the event PART. Perhaps they are still on their way to an additional gate. They count as
          missing only after a call of `note_loss`.
        """
        if not self._highest:
            self._lowest = self._highest = part
        first = max(self._highest + 1, part - _MAX_MISSING + len(self._missing))
        if first > self._highest + 1:
            log.error(
                "%d part numbers before part %d are missing in the reports of the board. They are too many, so these parts get no records.",
                first - self._highest - 1,
                first,
            )
        missing = [number for number in range(first, part) if not self._is_known(self.run, number)]
        if self._is_loss_reported:
            # `part` is not always the newest part. An additional gate stands further along the belt, so its reports come later and name
            # lower part numbers.
            newest = max(self._highest, part)
            announced = range(max(self._lowest + 1, newest - _MAX_ANNOUNCED), newest)
            missing += [number for number in announced if self._is_known(self.run, number)]
            self._is_loss_reported = False
        for number in missing:
            if not self._is_recorded(self.run, number):
                self._missing.setdefault(number, now_s)
        self._highest = max(self._highest, part)

    def take_lost(self, now_s: float) -> list[PartKey]:
        """Removes and returns at most 256 parts that are missing for so long that the board must have lost their reports."""
        due = list(islice((part for part, since_s in self._missing.items() if now_s - since_s >= REPORTED_WITHIN_S), _MAX_TAKEN))
        for part in due:
            del self._missing[part]
        return [(self.run, part) for part in sorted(due) if not self._is_recorded(self.run, part)]

    @property
    def has_ended(self) -> bool:
        """Whether `take_ended` has parts to return."""
        return bool(self._ended)

    def take_ended(self) -> list[PartKey]:
        """Removes and returns at most 256 parts that were missing when the board was reset. The reset has deleted their reports."""
        taken = [self._ended.popleft() for _ in range(min(_MAX_TAKEN, len(self._ended)))]
        return [key for key in taken if not self._has_record(*key)]

    def _is_recorded(self, run: int, part: int) -> bool:
        return part in self._recorded or self._has_record(run, part)
