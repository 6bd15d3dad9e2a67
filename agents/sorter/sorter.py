"""The sorter of one line: verdicts go from Kafka to the board, and the board's events go to Kafka.

    verdict from Kafka -> sent to the board -> acknowledged to Kafka in the order of arrival
    event of the board -> record written to the journal on disk -> acknowledged to the board
    record in the journal -> sent to Kafka -> deleted from the journal

A crash between two steps repeats work and loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from agents.gate.lane import REPORTED_WITHIN_S, FaultChanged, GateEvent, GateLane, PartCounted, PartSorted, RunBegan
from agents.sorter.decisions import (
    LATE,
    LaneFaults,
    board_verdict,
    make_late_sorting,
    make_obeyed_sorting,
    make_sorting,
    make_untracked_sorting,
    verdict_deadline,
)
from agents.sorter.journal import CountedPart
from agents.sorter.journal_sender import JournalSender
from agents.sorter.lost_reports import LostReports
from agents.sorter.part_reports import PartReports
from agents.sorter.part_states import MAX_RUN, PartKey, PartState, PartStates
from agents.sorter.sorted_parts import count_sorted
from firmware.fault_table import code_of, error_codes
from streams import metrics
from streams.errors import GateError, RecordError
from streams.operating_system import SYSTEM, OperatingSystem
from streams.record_producer import HANDLING_FAILED, ConsumedRecord, RecordProducer, make_dead_letter
from streams.record_reader import read_record
from streams.records import Sorting, SortingReason, Verdict
from streams.settings import GateSettings, Settings
from streams.signatures import SIGNATURE, check_signature
from streams.topics import TopicNames
from streams.worker import ReceivedRecord

log = logging.getLogger(__name__)

ROLE = "sorter"
# The largest number of verdicts that are sent to the board at the same time. Further verdicts stay in Kafka.
MAX_OPEN_VERDICTS = 64
# The largest number of verdicts that the sorter has accepted and not yet acknowledged. The number is large, because a late verdict can wait
# for a long time until the board is connected again. In this time, the sorter must still accept new verdicts.
_MAX_ACCEPTED_VERDICTS = 1024
# The board usually reports a part within this time after the deadline of the verdict. A stopping sorter does not wait longer for the
# report.
_USUAL_REPORT_S = 2.0
# While a late verdict waits, the sorter checks at this interval whether the board can still report the part.
_REPORT_CHECK_S = 0.5
# While no event comes, the sorter checks at this interval whether reports were lost.
_LOST_CHECK_S = 2.0
# A stopping sorter waits at most this long until Kafka has confirmed the records of its journal.
_MAX_SENDING_S = 2.0
# The largest part number of the gate protocol.
_MAX_PART = 99_999_999

_LATE, _DEADLINE, _UNKNOWN_RUN = code_of("late"), code_of("deadline"), code_of("unknown-run")
_UNKNOWN_PART, _CONFLICT, _STOPPING = code_of("unknown-part"), code_of("conflict"), code_of("stopping")
_EVENTS_LOST, _TRIGGER_LOST = code_of("events-lost"), code_of("trigger-lost")


@dataclass(frozen=True)
class _Refusal:
    """A verdict that the board did not accept, with the error that says why.

    `deadline_s` is the latest time for sending the verdict, on the monotonic clock.
    """

    verdict: Verdict
    error: GateError
    deadline_s: float


class Sorter:
    """Handles the verdicts and the board's events of one line, in the event loop.

    `reports` tells the gateway which parts were counted, or is None if the gateway counts the pictures itself.
    """

    def __init__(
        self,
        settings: Settings,
        line: str,
        gate: GateSettings,
        lane: GateLane,
        producer: RecordProducer,
        sender: JournalSender,
        reports: PartReports | None,
        states: PartStates,
        system: OperatingSystem = SYSTEM,
    ) -> None:
        self._settings = settings
        self._line = line
        self._gate = gate
        self._lane = lane
        self._producer = producer
        self._sender = sender
        self._reports = reports
        self._states = states
        self._now = system.now
        self._names = TopicNames(settings.topics.prefix)
        self._grade_names = gate.grade_names
        self._board = gate.board_name
        self._sending = asyncio.Semaphore(MAX_OPEN_VERDICTS)
        self._accepted: asyncio.Queue[tuple[ReceivedRecord, asyncio.Task[bool]] | None] = asyncio.Queue(_MAX_ACCEPTED_VERDICTS)
        self._is_draining = False
        self._events: asyncio.Queue[GateEvent] = asyncio.Queue()
        self._sorting_added = asyncio.Condition()
        # The parts that the board has reported, but whose sorting records are not written yet.
        self._reported: set[PartKey] = set()
        self._faults = LaneFaults()
        self._lost_reports = LostReports(states.is_known, states.has_record)
        lane.choose_run = states.unused_run
        self._verdicts_done = asyncio.Event()
        # For each new run of the board: the parts of other runs that had no sorting record when the new run began. The board no longer
        # reports these parts, so the sorter writes their records without a report.
        self._ended_parts: dict[int, list[PartKey]] = {}

    def use_gate(self, gate: GateSettings) -> None:
        """Makes the sorter use new settings of the gate for all further verdicts."""
        self._gate = gate

    @property
    def lines_by_topic(self) -> dict[str, str]:
        """Maps the topic of the line's verdicts to the name of the line. The sorter reads only this topic."""
        return {self._names.verdicts(self._line): self._line}

    @property
    def background_tasks(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        """The coroutine functions that run as long as the worker runs."""
        return self.acknowledge_verdicts, self.record_events, self._sender.send_records

    # From Kafka to the board

    async def accept(self, received: ReceivedRecord) -> None:
        """Starts to handle a verdict. If MAX_OPEN_VERDICTS verdicts are being sent, waits first. Further verdicts then stay in Kafka."""
        await self._sending.acquire()
        await self._accepted.put((received, asyncio.create_task(self._handle_verdict(received))))

    async def acknowledge_verdicts(self) -> None:
        """Acknowledges handled verdicts to Kafka in the order of their arrival.

        The order is important. Otherwise Faust could commit the offset of a later verdict before an earlier verdict is handled.
        """
        while (pair := await self._accepted.get()) is not None:
            received, handling = pair
            # If the sorter stops too early, this verdict and all later ones stay unacknowledged. Kafka then delivers them again.
            if not await handling:
                break
            await received.acknowledge()
        self._verdicts_done.set()

    async def _handle_verdict(self, received: ReceivedRecord) -> bool:
        """Sends one verdict to the board. If the board refuses it, writes a sorting record that says why.

        Returns False if the sorter stops before the verdict is handled. Kafka must then deliver the verdict again.
        """
        source = received.record
        try:
            try:
                check_signature(self._settings, source.topic, source.key, source.value, source.headers)
                verdict = _read_verdict(received, self._line)
                refusal = await self._send_verdict(verdict, received)
            finally:
                self._sending.release()
            return refusal is None or (refusal.error.code != _STOPPING and await self._record_refusal(refusal))
        except RecordError as error:
            await self._write_dead_letter(source, SIGNATURE if error.reason == SIGNATURE else "verdict", str(error))
        except Exception as error:
            log.exception("The sorter failed to handle a verdict, which becomes a dead letter.")
            await self._write_dead_letter(source, HANDLING_FAILED, f"The sorter failed on the verdict: {error!r}")
        return True

    async def _send_verdict(self, verdict: Verdict, received: ReceivedRecord) -> _Refusal | None:
        """Sends one verdict to the board, unless the line is paused. Returns a _Refusal if the verdict was not accepted, otherwise None."""
        accepted_at, accepted_s = self._now(), time.monotonic()
        state = self._states.get(verdict.run, verdict.part)
        state.set_verdict(verdict)
        state.is_restored = False
        if self._lane.is_paused:
            return None
        deadline_s = verdict_deadline(state, verdict.captured_at, self._gate, self._now(), time.monotonic())
        try:
            self._check_run(verdict)
            sent = board_verdict(verdict, self._gate)
            response = await asyncio.wrap_future(self._lane.send_verdict(verdict.run, verdict.part, sent.word, deadline_s, sent.gate))
        except GateError as error:
            return _Refusal(verdict, error, deadline_s)
        # `set_counted` can have replaced the state of the part while the board's answer was awaited. So the state is looked up again.
        state = self._states.get(verdict.run, verdict.part)
        state.answered_at = state.answered_at or response.answered_at
        metrics.verdict_tell_seconds.labels(self._line).observe(max(0.0, (response.answered_at - verdict.decided_at).total_seconds()))
        send_s = response.sent_s - accepted_s
        self._observe_step("fetch", (accepted_at - received.broker_time).total_seconds())
        self._observe_step("send", send_s)
        self._observe_step("board", (response.answered_at - accepted_at).total_seconds() - send_s)
        return None

    def _observe_step(self, step: str, duration_s: float) -> None:
        metrics.verdict_step_seconds.labels(self._line, step).observe(max(0.0, duration_s))

    async def _write_dead_letter(self, record: ConsumedRecord, reason: str, detail: str) -> None:
        log.warning("A record on %s becomes a dead letter: %s", record.topic, detail)
        metrics.dead_letters.labels(self._line, reason).inc()
        await self._producer.deliver([make_dead_letter(self._names.dead_letters, record, ROLE, reason, detail)])

    def _check_run(self, verdict: Verdict) -> None:
        """Raises GateError with code 21 (`unknown-run`) if the board has begun a later run, or if the run or part number is too large."""
        is_earlier_run = self._lane.run and verdict.run < self._lane.run
        # A gateway without a board uses the seconds since 1970 as run number, for example 1700000000. No board has such a large run number.
        if verdict.run > MAX_RUN or verdict.part > _MAX_PART or is_earlier_run:
            row = error_codes()[_UNKNOWN_RUN]
            raise GateError(f"part {verdict.part_id}: {row.meaning}", row.code, row.retriable)

    async def _record_refusal(self, refusal: _Refusal) -> bool:
        """Writes a sorting record for a verdict that the board refused, unless the part already has a record or will get one.

        `_record_late_verdict` handles a verdict that came too late. Returns False if the sorter stops before the part has a
        record. Kafka then delivers the verdict again.
        """
        verdict, error = refusal.verdict, refusal.error
        part = str(verdict.part_id)
        is_other_run = bool(self._lane.run) and verdict.run != self._lane.run
        if error.code in (_LATE, _DEADLINE) and not is_other_run:
            return await self._record_late_verdict(refusal)
        if error.code == _CONFLICT:
            log.warning(
                "part %s: the board already has another verdict, so verdict %s is ignored", part, verdict.verdict_id, extra={"part": part}
            )
            return True
        reason: SortingReason = "unmatched" if error.code == _UNKNOWN_PART else "board-restarted"
        if error.code not in (_UNKNOWN_PART, _UNKNOWN_RUN, _LATE, _DEADLINE):
            log.error("part %s: the verdict was not sent to the board: %s", part, error, extra={"part": part})
        # If the board has already reported the part, no record is needed here, because `record_events` writes the sorting record.
        key = verdict.run, verdict.part
        if self._states.last_sorting(*key) is None and key not in self._reported:
            await self._record(self._untracked_sorting(*key, reason, error.code))
        return True

    async def _record_late_verdict(self, refusal: _Refusal) -> bool:
        """Writes a sorting record that says that the verdict came too late.

        Before that, waits until the board has reported the part or can no longer report it. If the last sorting record of the part then
        already names a verdict, writes no record. Returns False if the sorter must stop during the wait.
        """
        if not await self._wait_for_report(refusal):
            return False
        verdict = refusal.verdict
        previous = self._states.last_sorting(verdict.run, verdict.part)
        if previous is not None and (previous.verdict_id is not None or previous.late):
            return True
        if previous is not None and previous.reason == "verdict":
            # The sorter sent the verdict and then crashed. During its absence, the outage recorder wrote the first sorting record of the
            # part. The outage recorder does not know verdicts, so the part now gets a second record that names the verdict.
            if self._states.get(verdict.run, verdict.part).verdict_id == verdict.verdict_id:
                await self._record(make_obeyed_sorting(previous, verdict, self._now()))
            return True
        self._states.get(verdict.run, verdict.part).is_late = True
        metrics.verdicts_late.labels(self._line).inc()
        part = str(verdict.part_id)
        log.info("part %s: the verdict came too late for the gate (%s)", part, refusal.error, extra={"part": part})
        if previous is None:
            await self._record(self._untracked_sorting(verdict.run, verdict.part, LATE, refusal.error.code))
        else:
            await self._record(make_late_sorting(previous, verdict, self._now()))
        return True

    async def _wait_for_report(self, refusal: _Refusal) -> bool:
        """Waits until the part has a sorting record, or until the board can no longer report the part.

        Returns False if the sorter must stop before that. Kafka then delivers the verdict to the next process.
        """
        key = refusal.verdict.run, refusal.verdict.part
        reported_until_s = refusal.deadline_s + REPORTED_WITHIN_S
        async with self._sorting_added:
            while self._states.last_sorting(*key) is None:
                now_s = time.monotonic()
                if self._is_recording(key):
                    reported_until_s = now_s + REPORTED_WITHIN_S
                left_s = max(reported_until_s, self._lane.reports_until_s) - now_s
                if left_s <= 0:
                    break
                if self._is_draining and now_s > refusal.deadline_s + _USUAL_REPORT_S:
                    return False
                # `asyncio.wait_for` is not used, because it sometimes ignores the cancellation of this task.
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(left_s, _REPORT_CHECK_S)):
                        await self._sorting_added.wait()
        return True

    def _is_recording(self, key: PartKey) -> bool:
        """Returns whether the report of a part, or of an earlier part in the same run, has arrived and is not recorded yet.

        The board repeats only its oldest unacknowledged reports. So perhaps it repeats the report of this part only after the reports of
        earlier parts are acknowledged. Until then, the report of this part can still come.
        """
        return any(run == key[0] and part <= key[1] for run, part in self._reported)

    # From the board to Kafka

    def handle_event(self, event: GateEvent) -> None:
        """Accepts an event of the gate link. Must be called in the event loop."""
        if isinstance(event, PartCounted):
            metrics.parts_counted.labels(self._line).inc()
            self._states.set_counted(event.run, event.part, event.counted_at, event.counted_s)
            if self._reports is not None:
                self._reports.report(event)
        elif isinstance(event, PartSorted):
            self._reported.add((event.run, event.part))
        elif isinstance(event, RunBegan):
            self._ended_parts[event.run] = self._states.unrecorded_parts(event.run)
        self._events.put_nowait(event)

    async def record_events(self) -> None:
        """Writes the board's events to the journal and then acknowledges them to the board. Never returns.

        All waiting events are written together, because each write waits for the disk.
        """
        await self._name_obeyed_verdicts()
        while True:
            events: list[GateEvent] = []
            # This wait has a time limit, because the sorter must search for lost reports even while no events come.
            with suppress(TimeoutError):
                async with asyncio.timeout(0 if self._lost_reports.has_ended else _LOST_CHECK_S):
                    events.append(await self._events.get())
            while not self._events.empty():
                events.append(self._events.get_nowait())
            sortings: list[Sorting] = []
            for event in events:
                # The sorter remembers the records of this event before it handles the next event. Otherwise a part could get two records.
                sortings += self._remember(self._sortings_of(event))
            sortings += self._lost_sortings(self._lost_reports.take_ended(), "board-restarted", _UNKNOWN_RUN)
            sortings += self._lost_sortings(self._lost_reports.take_lost(time.monotonic()), "fault", _EVENTS_LOST)
            counted = [CountedPart(event.run, event.part, event.counted_at) for event in events if isinstance(event, PartCounted)]
            runs = [event.run for event in events if isinstance(event, RunBegan)]
            # The journal has a list of the parts that the gateway does not know yet. `_store` first adds the parts in `counted` to this
            # list, and then removes the parts in `reported`. A part can be in `counted` and in `reported`.
            reported = self._reports.take_finished() if self._reports is not None else []
            is_on_disk = await self._store(sortings, counted, runs[-1] if runs else None, reported)
            if self._reports is not None and not is_on_disk:
                self._reports.put_back(reported)
            for event in events:
                if isinstance(event, PartSorted):
                    self._reported.discard((event.run, event.part))
                if isinstance(event, PartSorted | FaultChanged):
                    self._lane.acknowledge_event(event.event, event.run)

    async def _name_obeyed_verdicts(self) -> None:
        """Writes a second sorting record for parts whose gate followed a verdict, but whose first record does not name this verdict.

        While Kafka did not answer, the outage recorder wrote the first records, but could not read the verdicts. The second records are
        written at the start of the sorter, because Kafka perhaps does not deliver these verdicts again.
        """
        states = self._states.unnamed_verdicts()
        completed = [make_obeyed_sorting(state.sorting, state, self._now()) for state in states if state.sorting is not None]
        await self._store(self._remember(completed))

    def _remember(self, sortings: list[Sorting]) -> list[Sorting]:
        for sorting in sortings:
            self._states.add_sorting(sorting)
        return sortings

    def _sortings_of(self, event: GateEvent) -> list[Sorting]:
        if isinstance(event, PartCounted):
            return []
        if isinstance(event, RunBegan):
            self._faults = LaneFaults()
            self._states.last_run = event.run
            keys = [key for key in self._ended_parts.pop(event.run, []) if self._states.last_sorting(*key) is None]
            sortings = [self._untracked_sorting(*key, "board-restarted", _UNKNOWN_RUN) for key in keys]
            self._lost_reports.begin_run(event.run, self._states.recorded_parts(event.run), time.monotonic())
            return sortings
        if isinstance(event, FaultChanged):
            self._change_fault(event)
            return []
        return self._sortings_of_part(event)

    def _sortings_of_part(self, event: PartSorted) -> list[Sorting]:
        if event.part and event.counted_at is not None:
            self._states.set_counted(event.run, event.part, event.counted_at, event.counted_s)
        previous = self._states.last_sorting(event.run, event.part)
        if previous is not None and previous.action != "untracked" and previous.event == event.event:
            # The event was recorded before, but not acknowledged, for example because of a crash. It needs no second record.
            return []
        if event.part == 0:
            count_sorted(self._line, event, None)
            return []
        state = self._states.get(event.run, event.part)
        if event.reason == "spacing" and event.action == "pass" and state.label == "defect":
            part = f"{self._line}:{event.run}:{event.part}"
            log.error(
                "part %s is a defect, but the gate let it pass, because a part that photo-eye 1 had not counted was too close in front of "
                "it",
                part,
                extra={"part": part},
            )
        if state.is_restored and event.reason == "no-verdict" and not self._lane.is_paused:
            # The board has sorted the part without a verdict, so the verdict was late. The sorter read this verdict when it started, and
            # Kafka does not deliver the verdict again. So the late verdict is counted here.
            state.is_late, state.is_restored = True, False
            metrics.verdicts_late.labels(self._line).inc()
        fault = self._faults.explain_safe_action(self._lane.oldest_fault)
        sorting = make_sorting(event, state, self._line, self._board, fault, self._now(), self._grade_names.get(event.gate))
        self._lost_reports.add_report(event.part, time.monotonic())
        count_sorted(self._line, event, sorting)
        return [sorting]

    def _change_fault(self, event: FaultChanged) -> None:
        row = error_codes().get(event.code)
        name = row.name if row else "unknown"
        change = "began" if event.raised else "ended"
        log.warning("%s: fault %d (%s) %s. See firmware/PROTOCOL.md for the detail %d.", self._line, event.code, name, change, event.detail)
        self._faults.change(event.code, event.raised)
        if event.raised:
            metrics.gate_faults.labels(self._line, str(event.code)).inc()
        if event.is_ended_by_button:
            metrics.button_acknowledgements.labels(self._line).inc()
            log.warning("%s: a person at the lane ended fault %d (%s) with the push-button.", self._line, event.code, name)
        if event.raised and event.code == _EVENTS_LOST:
            self._lost_reports.note_loss()
            self._lane.send_command("CLEAR", 0, _EVENTS_LOST)
        if event.raised and event.code == _TRIGGER_LOST:
            self._lane.send_command("CLEAR", self._lane.number, _TRIGGER_LOST)

    def _untracked_sorting(self, run: int, part: int, reason: SortingReason, code: int) -> Sorting:
        metrics.parts_sorted.labels(self._line, "untracked", reason).inc()
        # The state of an unknown part is not stored, because many lost parts would displace the states of the parts on the belt.
        state = self._states.get(run, part) if self._states.is_known(run, part) else PartState()
        return make_untracked_sorting(state, self._line, run, part, self._board, reason, code, self._now())

    def _lost_sortings(self, keys: list[PartKey], reason: SortingReason, code: int) -> list[Sorting]:
        """Returns new records for the parts whose reports the board has lost, and remembers them."""
        if keys:
            log.error("%s: the board has lost its reports on %d parts. The first one is part %d.", self._line, len(keys), min(keys)[1])
        sortings = [self._untracked_sorting(*key, reason, code) for key in keys]
        for sorting in sortings:
            self._states.add_lost_sorting(sorting)
        return sortings

    async def _record(self, sorting: Sorting) -> None:
        # The record is remembered before it is written to the disk, because writing is slow. If the board repeats its event in the
        # meantime, the sorter writes no second record.
        self._states.add_sorting(sorting)
        await self._store([sorting])

    async def _store(
        self,
        sortings: list[Sorting],
        counted: Sequence[CountedPart] = (),
        run: int | None = None,
        reported: Sequence[CountedPart] = (),
    ) -> bool:
        """Writes sorting records and other records about parts to the journal, and returns True.

        If the disk refuses them, sends `sortings` directly to Kafka and returns False.
        """
        if not (sortings or counted or run or reported):
            return True
        is_on_disk = await self._sender.store(sortings, counted, run, counted if self._reports is not None else (), reported)
        async with self._sorting_added:
            self._sorting_added.notify_all()
        return is_on_disk

    async def drain(self) -> None:
        """Accepts no more verdicts. Returns when all accepted verdicts were handled and acknowledged to Kafka.

        A late verdict waits for the board's report about its part. If the report has not come 2 s after the deadline of the verdict, this
        verdict and all later verdicts stay unacknowledged. Kafka delivers them to the next process.

        If Kafka does not confirm a sorting record within 2 s, the record stays in the journal.
        """
        self._is_draining = True
        await self._accepted.put(None)
        await self._verdicts_done.wait()
        await self._sender.wait_until_sent(_MAX_SENDING_S)


def _read_verdict(received: ReceivedRecord, line: str) -> Verdict:
    """Returns the verdict that a record holds. Raises RecordError if the record is not a valid verdict of `line`."""
    verdict = read_record(Verdict, received.record.value, received.broker_time)
    if verdict.line != line:
        raise RecordError("other-line", f"The verdict belongs to {verdict.line}, but its topic belongs to {line}.")
    return verdict
