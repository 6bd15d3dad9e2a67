"""Records the board's reports while a starting sorter waits for Kafka.

    board's report --> record in the journal on disk --> acknowledged to the board

A board stores 64 reports. Without the recorder, a sorter that is restarted during a Kafka outage would lose the later reports.
"""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from agents.gate.lane import FaultChanged, GateEvent, GateLane, PartCounted, PartSorted
from agents.gate.link import GateLink, LinkSettings
from agents.sorter.decisions import LaneFaults, make_sorting
from agents.sorter.journal import CountedPart, JournalError, SortingJournal
from agents.sorter.part_states import PartState
from streams import metrics
from streams.errors import SettingsError
from streams.records import Sorting
from streams.settings import GateSettings, Settings

log = logging.getLogger(__name__)

# If Kafka answers within this time, the recorder does not open the serial port.
_PATIENCE_S = 3.0
# The largest number of journal records that are read at the start.
_MAX_READ = 4096


class OutageRecorder:
    """Records the reports of the board of `lines` in a `with` block. The recorder opens the port after three seconds in the block.

    The recorder sends no settings and no verdicts. A board that was reset stays in its safe state. Any other board treats each part as a
    part without verdict.
    """

    def __init__(self, settings: Settings, lines: list[str]) -> None:
        gates = {line: settings.find_line(line).gate for line in lines}
        self._gates = {line: gate for line, gate in gates.items() if gate is not None}
        self._settings = settings
        self._lock = threading.Lock()
        self._resources = ExitStack()
        self._timer = threading.Timer(_PATIENCE_S, self._begin)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._timer.cancel()
        with self._lock:
            self._resources.close()
        # The timer's thread may be waiting for the lock. Wait until this thread has seen that the timer is cancelled.
        self._timer.join()

    def _begin(self) -> None:
        with self._lock:
            if self._timer.finished.is_set():
                return
            try:
                self._serve_board()
            except SettingsError as error:
                log.warning("The reports of the board are not recorded while Kafka is away: %s", error)
                self._resources.close()

    def _serve_board(self) -> None:
        board = next(iter(self._gates.values()))
        link = GateLink(LinkSettings(board.port, board.baud, self._settings.sorter.window))
        for line, gate in self._gates.items():
            journal = SortingJournal(self._settings.sorter.journal_dir, line)
            self._resources.callback(journal.close)
            recorder = _LaneRecorder(line, gate, journal)
            recorder.lane = link.add_lane(line, recorder.record, lane=gate.lane)
        # The link is stopped before the journals are closed.
        self._resources.callback(link.stop)
        link.start()
        log.warning("Kafka is away. The reports of the board at %s are recorded in the journal until Kafka answers.", board.port)


class _LaneRecorder:
    """Records the events of one lane. `record` is called in the thread of the gate link."""

    lane: GateLane

    def __init__(self, line: str, gate: GateSettings, journal: SortingJournal) -> None:
        self._line = line
        self._grade_names = {grade.lane: grade.name for grade in gate.grades}
        self._board = gate.port.rsplit("/", 1)[-1]
        self._journal = journal
        self._faults = LaneFaults()
        # Run and number of the reports that are in the journal.
        self._recorded = {(entry.sorting.run, entry.sorting.event) for entry in journal.read_after(0, _MAX_READ)}

    def record(self, event: GateEvent) -> None:
        """Writes an event to the journal, and acknowledges it to the board. If the disk refuses, the board keeps the event."""
        try:
            if isinstance(event, PartCounted):
                metrics.parts_counted.labels(self._line).inc()
                self._journal.append((), [CountedPart(event.run, event.part, event.counted_at)])
            elif isinstance(event, PartSorted):
                self._journal.append(self._sortings_of(event))
                self._recorded.add((event.run, event.event))
            elif isinstance(event, FaultChanged):
                log.warning(
                    "%s: fault %d %s. Its detail is %d.", self._line, event.code, "began" if event.raised else "ended", event.detail
                )
                self._faults.change(event.code, event.raised)
        except JournalError as error:
            log.error("%s The board keeps the report.", error)
            return
        if isinstance(event, PartSorted | FaultChanged):
            self.lane.acknowledge_event(event.event, event.run)

    def _sortings_of(self, event: PartSorted) -> list[Sorting]:
        if event.part == 0 or (event.run, event.event) in self._recorded:
            return []
        fault = self._faults.explain_safe_action(self.lane.oldest_fault)
        now, grade = datetime.now(UTC), self._grade_names.get(event.gate)
        return [make_sorting(event, PartState(), self._line, self._board, fault, now, grade)]
