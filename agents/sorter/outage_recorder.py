"""Records the board's reports while a starting sorter waits for Kafka.

    board's report --> record in the journal on disk --> acknowledged to the board

A board stores at most 64 unacknowledged reports, and drops further reports. A sorter that waits for Kafka acknowledges no reports. So this
recorder writes the reports to the disk and acknowledges them, until Kafka answers.

The gateway needs to know which parts were counted, because it gives each picture the number of its part. The sorter tells the gateway only
after Kafka has answered. A picture that has waited longer than `match_window_s` by then is not assigned to a counted part.
"""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from agents.gate.lane import FaultChanged, GateEvent, GateLane, PartCounted, PartSorted
from agents.gate.link import GateLink, LinkSettings
from agents.gate.port import SERIAL_PORTS, SerialPorts
from agents.sorter.decisions import LaneFaults, make_sorting
from agents.sorter.journal import CountedPart, JournalError, SortingJournal
from agents.sorter.part_states import PartState
from agents.sorter.sorted_parts import count_sorted
from streams import metrics
from streams.errors import SettingsError
from streams.operating_system import SYSTEM, OperatingSystem
from streams.records import Sorting
from streams.settings import GateSettings, Settings
from streams.supervision import SupervisedThread

log = logging.getLogger(__name__)

# The recorder opens the serial port only if Kafka has not answered for this time. If Kafka answers sooner, no recorder is needed.
_PATIENCE_S = 3.0
# The number of newest reports that the recorder remembers, to recognise repetitions. A board repeats at most 64 reports.
_MAX_RECOGNISED = 4096


class OutageRecorder:
    """Records the reports of the board of `lines` in a `with` block. The recorder opens the port three seconds after the block begins.

    The recorder sends no settings and no verdicts. So a board that was reset stays in its safe state. A board that was not reset continues
    to move its gates, and treats each part as a part without verdict.
    """

    def __init__(self, settings: Settings, lines: list[str], system: OperatingSystem = SYSTEM, ports: SerialPorts = SERIAL_PORTS) -> None:
        gates = {line: settings.find_line(line).gate for line in lines}
        self._gates = {line: gate for line, gate in gates.items() if gate is not None}
        self._settings = settings
        self._lock = threading.Lock()
        self._resources = ExitStack()
        self._system = system
        self._ports = ports
        self._is_over = system.make_event()
        self._timer = SupervisedThread("outage recorder", self._wait_and_begin, self._is_over, system=system)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_over.set()
        with self._lock:
            self._resources.close()
        # The timer's thread may be waiting for the lock. So this method releases the lock first, and then waits for the end of the thread.
        self._timer.join()

    def _wait_and_begin(self) -> None:
        if not self._is_over.wait(_PATIENCE_S):
            self._begin()

    def _begin(self) -> None:
        with self._lock:
            if self._is_over.is_set():
                return
            try:
                self._serve_board()
            except SettingsError as error:
                log.warning("The reports of the board are not recorded while Kafka does not answer: %s", error)
                self._resources.close()
            except Exception:
                # After an error, the supervised thread calls this function again, which opens the journals again. So the open journals
                # are closed first.
                self._resources.close()
                raise

    def _serve_board(self) -> None:
        recorders: dict[str, _LaneRecorder] = {}
        for line, gate in self._gates.items():
            journal = SortingJournal(self._settings.sorter.journal_dir, line)
            self._resources.callback(journal.close)
            reports_parts = self._settings.find_line(line).is_triggered_by_board
            recorders[line] = _LaneRecorder(line, gate, journal, reports_parts, self._system)
        # The journals are opened before the link is made. If a journal could not be opened after that, the file descriptors of the link
        # would stay open.
        board = next(iter(self._gates.values()))
        link = GateLink(LinkSettings(board.port, board.baud, self._settings.sorter.window), system=self._system, ports=self._ports)
        for line, recorder in recorders.items():
            recorder.lane = link.add_lane(line, recorder.record, lane=self._gates[line].lane)
        # An ExitStack calls the last callback first. So the link is stopped before the journals, into which it writes, are closed.
        self._resources.callback(link.stop)
        link.start()
        log.warning("Kafka does not answer. Until it does, the reports of the board at %s are recorded in the journal.", board.port)


class _LaneRecorder:
    """Records the events of one lane. `record` is called in the thread of the gate link.

    `reports_parts`: whether the sorter must tell the gateway which parts were counted.
    """

    lane: GateLane

    def __init__(
        self, line: str, gate: GateSettings, journal: SortingJournal, reports_parts: bool, system: OperatingSystem = SYSTEM
    ) -> None:
        self._line = line
        self._reports_parts = reports_parts
        self._grade_names = gate.grade_names
        self._board = gate.board_name
        self._journal = journal
        self._system = system
        self._faults = LaneFaults()
        # The run and the event number of each of the newest reports in the journal, in the order of writing. The dictionary is used as an
        # ordered set, so its values are always None.
        self._recorded = {(entry.sorting.run, entry.sorting.event): None for entry in journal.read_newest(_MAX_RECOGNISED)}

    def record(self, event: GateEvent) -> None:
        """Writes an event to the journal, and acknowledges it to the board. If the disk refuses the write, the board keeps the event."""
        try:
            if isinstance(event, PartCounted):
                metrics.parts_counted.labels(self._line).inc()
                counted = [CountedPart(event.run, event.part, event.counted_at)]
                self._journal.append((), counted, unreported=counted if self._reports_parts else ())
            elif isinstance(event, PartSorted):
                self._record_part(event)
            elif isinstance(event, FaultChanged):
                change = "began" if event.raised else "ended"
                log.warning("%s: fault %d %s. See firmware/PROTOCOL.md for the detail %d.", self._line, event.code, change, event.detail)
                self._faults.change(event.code, event.raised)
        except JournalError as error:
            log.error("%s The board keeps its report about the part.", error)
            if isinstance(event, PartSorted):
                # The board repeats a report that is not acknowledged. The lane object ignores events that it remembers, so it must forget
                # this event. Otherwise the repeated report would be ignored.
                self.lane.forget_event(event.event, event.run)
            return
        if isinstance(event, PartSorted | FaultChanged):
            self.lane.acknowledge_event(event.event, event.run)

    def _record_part(self, event: PartSorted) -> None:
        """Writes what the gate did with a part to the journal, and counts it. Raises JournalError if the disk refuses the write."""
        if (event.run, event.event) in self._recorded:
            return
        sorting = self._sorting_of(event) if event.part else None
        if sorting is not None:
            self._journal.append([sorting])
        count_sorted(self._line, event, sorting)
        self._recorded[event.run, event.event] = None
        while len(self._recorded) > _MAX_RECOGNISED:
            del self._recorded[next(iter(self._recorded))]

    def _sorting_of(self, event: PartSorted) -> Sorting:
        fault = self._faults.explain_safe_action(self.lane.oldest_fault)
        now, grade = self._system.now(), self._grade_names.get(event.gate)
        return make_sorting(event, PartState(), self._line, self._board, fault, now, grade)
