"""The sorter of one line: verdicts to the board, the board's reports to Kafka.

    verdict -> tell the board (windowed, in order) -> acknowledged to Kafka, in order
    board's report -> record delivered -> acknowledged to the board
Whatever dies in between is done again: the board takes a verdict twice as once, and repeats what was not acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from agents.gate.events import FaultChanged, GateEvent, PartCounted, PartSorted, RunBegan, Told
from agents.gate.lane import GateLane
from agents.sorter.part_reports import PartReports
from agents.sorter.part_states import Notes
from agents.sorter.sorting import ACTIONS, LATE, deadline_of, late_sorting, sorting_of, untracked_sorting, wanted_for
from firmware.fault_table import code_of, error_codes
from streams import metrics
from streams.errors import GateError
from streams.record_producer import ProducerRecord, RecordProducer, make_dead_letter, make_json_record
from streams.records import Sorting, SortingReason, Verdict
from streams.settings import GateSettings, Settings
from streams.topics import TopicNames
from streams.worker import ReceivedRecord

log = logging.getLogger(__name__)

ROLE = "sorter"
# Verdicts in hand at a time; what is more stays in Kafka.
IN_HAND = 64
# The board's report of a part comes so long after its deadline, at most; a late verdict waits for it.
_REPORT = timedelta(seconds=2)

_LATE, _DEADLINE, _UNKNOWN_RUN = code_of("late"), code_of("deadline"), code_of("unknown-run")
_UNKNOWN_PART, _CONFLICT, _STOPPING = code_of("unknown-part"), code_of("conflict"), code_of("stopping")
_EVENTS_LOST = code_of("events-lost")


class Sorter:
    """One line's way from verdicts to the gate and back. Runs in the event loop; the link has a thread of its own."""

    def __init__(
        self,
        settings: Settings,
        line: str,
        gate: GateSettings,
        lane: GateLane,
        courier: RecordProducer,
        reports: PartReports | None,
        notes: Notes,
    ) -> None:
        self._line = line
        self._gate = gate
        self._lane = lane
        self._courier = courier
        self._reports = reports  # None: the line's camera counts for itself
        self._notes = notes
        self._names = TopicNames(settings.topics.prefix)
        self._grades = {each.lane: each.name for each in gate.grades}
        self._board = gate.port.rsplit("/", 1)[-1]
        self._in_hand: asyncio.Queue[tuple[ReceivedRecord, asyncio.Task[bool]] | None] = asyncio.Queue(IN_HAND)
        self._events: asyncio.Queue[PartSorted | FaultChanged | RunBegan] = asyncio.Queue()
        self._recorded = asyncio.Condition()
        self._faults: list[int] = []
        self._done = asyncio.Event()

    @property
    def lane(self) -> GateLane:
        return self._lane

    @property
    def lines_by_topic(self) -> dict[str, str]:
        """The verdict topic of the line."""
        return {self._names.verdicts(self._line): self._line}

    @property
    def background_tasks(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """The coroutine functions that run for as long as the worker lives."""
        return self.acknowledge_verdicts, self.record_events

    # From Kafka to the board

    async def accept(self, received: ReceivedRecord) -> None:
        """Takes a verdict; waits while as many as may be are in hand, so that Kafka is held back."""
        await self._in_hand.put((received, asyncio.create_task(self._judged(received))))

    async def acknowledge_verdicts(self) -> None:
        """Acknowledges in order what is done with: Faust would commit over an older one still in hand."""
        while (pair := await self._in_hand.get()) is not None:
            received, task = pair
            # False: the link is being closed; this verdict and those after it come again.
            if not await task:
                break
            await received.acknowledge()
        self._done.set()

    async def _judged(self, received: ReceivedRecord) -> bool:
        """Does with one verdict record all that is to be done; False when it must come again."""
        record = received.record
        try:
            verdict = Verdict.decode(record.value or b"")
            if verdict.line != self._line:
                raise ValueError(f"expected a verdict of {self._line}, found one of {verdict.line}")
        except (ValidationError, ValueError) as error:
            log.warning("a record on %s is no verdict: %s", record.topic, error)
            metrics.dead_letters.labels(self._line, "verdict").inc()
            await self._courier.deliver([make_dead_letter(self._names.dead_letters, record, ROLE, "verdict", str(error))])
            return True
        return await self._tell(verdict)

    async def _tell(self, verdict: Verdict) -> bool:
        run, part = verdict.run, verdict.part
        note = self._notes.of(run, part)
        note.verdict(verdict)
        deadline = deadline_of(note.counted_at or verdict.captured_at, self._gate)
        try:
            self._refuse_what_cannot_be_told(verdict)
            wanted = wanted_for(verdict, self._gate)
            told = await asyncio.wrap_future(self._lane.tell(run, part, wanted.word, deadline, wanted.gate))
        except GateError as error:
            if error.code == _STOPPING:
                return False
            await self._not_taken(verdict, error, deadline)
            return True
        self._note_told(verdict, told)
        return True

    def _refuse_what_cannot_be_told(self, verdict: Verdict) -> None:
        # Runs of a gateway without board are seconds since 1970: no board has such a number.
        known_over = self._lane.run and verdict.run < self._lane.run
        if verdict.run > 65535 or verdict.part > 99_999_999 or known_over:
            code = error_codes()[_UNKNOWN_RUN]
            raise GateError(f"part {verdict.part_id}: {code.meaning}", code.code, code.retriable)

    def _note_told(self, verdict: Verdict, told: Told) -> None:
        note = self._notes.of(verdict.run, verdict.part)
        note.told_at = note.told_at or told.told_at
        metrics.verdict_tell_seconds.labels(self._line).observe(max(0.0, (told.told_at - verdict.decided_at).total_seconds()))

    async def _not_taken(self, verdict: Verdict, error: GateError, deadline: datetime) -> None:
        part = str(verdict.part_id)
        over = bool(self._lane.run) and verdict.run != self._lane.run
        if error.code in (_LATE, _DEADLINE) and not over:
            await self._too_late(verdict, error, deadline)
            return
        if error.code == _CONFLICT:
            log.warning("part %s: another verdict is in force, %s is not told", part, verdict.verdict_id, extra={"part": part})
            return
        reason: SortingReason = "unmatched" if error.code == _UNKNOWN_PART else "board-restarted"
        if error.code not in (_UNKNOWN_PART, _UNKNOWN_RUN, _LATE, _DEADLINE):
            log.error("part %s: %s", part, error, extra={"part": part})
        if self._notes.recorded(verdict.run, verdict.part) is None:
            await self._record([self._untracked(verdict.run, verdict.part, reason, error.code)])

    async def _too_late(self, verdict: Verdict, error: GateError, deadline: datetime) -> None:
        """The part has gone. A verdict that comes again after it was carried out is no late one."""
        recorded = await self._report_of(verdict, deadline)
        if recorded is not None and (recorded.verdict_id is not None or recorded.late):
            return
        note = self._notes.of(verdict.run, verdict.part)
        note.late = True
        metrics.verdicts_late.labels(self._line).inc()
        part = str(verdict.part_id)
        log.info("part %s: its verdict came too late (%s)", part, error, extra={"part": part})
        if recorded is None:
            await self._record([self._untracked(verdict.run, verdict.part, LATE, error.code)])
        else:
            await self._record([late_sorting(recorded, verdict, now())])

    async def _report_of(self, verdict: Verdict, deadline: datetime) -> Sorting | None:
        """The part's record, waited for while its report may still come."""
        left_s = (deadline + _REPORT - now()).total_seconds()

        def there() -> bool:
            return self._notes.recorded(verdict.run, verdict.part) is not None

        if not there() and left_s > 0:
            async with self._recorded:
                try:
                    await asyncio.wait_for(self._recorded.wait_for(there), left_s)
                except TimeoutError:
                    return None
        return self._notes.recorded(verdict.run, verdict.part)

    # From the board to Kafka

    def heard(self, event: GateEvent) -> None:
        """The link's report; called in the event loop."""
        if isinstance(event, PartCounted):
            metrics.parts_counted.labels(self._line).inc()
            self._notes.counted(event.run, event.part, event.counted_at)
            if self._reports is not None:
                self._reports.report(event)
        else:
            self._events.put_nowait(event)

    async def record_events(self) -> None:
        """Records what the board reports, all that is there at once, and acknowledges it to the board after that."""
        while True:
            events = [await self._events.get()]
            while not self._events.empty():
                events.append(self._events.get_nowait())
            sortings: list[Sorting] = []
            for event in events:
                sortings += self._sortings(event)
            await self._record(sortings)
            for event in events:
                if not isinstance(event, RunBegan):
                    self._lane.acknowledge(event.event, event.run)

    def _sortings(self, event: PartSorted | FaultChanged | RunBegan) -> list[Sorting]:
        if isinstance(event, RunBegan):
            self._faults.clear()
            return [self._untracked(*key, "board-restarted", _UNKNOWN_RUN) for key in self._notes.unfinished(event.run)]
        if isinstance(event, FaultChanged):
            self._fault(event)
            return []
        if event.part and event.counted_at is not None:
            self._notes.counted(event.run, event.part, event.counted_at)
        before = self._notes.recorded(event.run, event.part)
        if before is not None and before.action != "untracked" and before.event == event.event:
            return []  # recorded before a crash, acknowledged now
        note = self._notes.of(event.run, event.part)
        metrics.gate_moves.labels(self._line).inc(event.moved)
        if event.part == 0:
            metrics.parts_sorted.labels(self._line, ACTIONS[event.action], "unmatched").inc()
            log.warning("%s: a part that was not counted came to the gate: %s", self._line, event.action)
            return []
        if event.reason == "spacing" and event.action == "pass" and note.label == "defect":
            part = f"{self._line}:{event.run}:{event.part}"
            log.error("part %s is bad and has passed: an uncounted part came too close before it", part, extra={"part": part})
        code = self._faults[-1] if self._faults else 0
        grade = self._grades.get(event.gate)
        sorting = sorting_of(event, note, self._line, self._board, code, now(), grade)
        metrics.parts_sorted.labels(self._line, sorting.action, sorting.reason).inc()
        return [sorting]

    def _fault(self, event: FaultChanged) -> None:
        known = error_codes().get(event.code)
        name = known.name if known else "unknown"
        log.warning("%s: fault %d %s %s, detail %d", self._line, event.code, name, "began" if event.raised else "ended", event.detail)
        if event.raised:
            metrics.gate_faults.labels(self._line, str(event.code)).inc()
            self._faults.append(event.code)
        elif event.code in self._faults:
            self._faults.remove(event.code)
        if event.raised and event.code == _EVENTS_LOST:
            self._lane.command("CLEAR", 0, _EVENTS_LOST)

    def _untracked(self, run: int, part: int, reason: SortingReason, code: int) -> Sorting:
        metrics.parts_sorted.labels(self._line, "untracked", reason).inc()
        return untracked_sorting(self._notes.of(run, part), self._line, run, part, self._board, reason, code, now())

    async def _record(self, sortings: list[Sorting]) -> None:
        if not sortings:
            return
        topic = self._names.sorted(self._line)
        records: list[ProducerRecord] = [make_json_record(topic, each.part_id.key, each, ROLE) for each in sortings]
        # Noted first: what comes meanwhile must not be recorded a second time. Delivery does not end before it is done.
        for each in sortings:
            self._notes.record(each)
        await self._courier.deliver(records)
        async with self._recorded:
            self._recorded.notify_all()

    async def drain(self) -> None:
        """Takes nothing more; returns when all verdicts in hand are told and acknowledged."""
        await self._in_hand.put(None)
        await self._done.wait()


def now() -> datetime:
    """The time in UTC; the one clock of the sorter's records."""
    return datetime.now(UTC)
