"""Holds what a sorter knows about the parts of one line: verdicts, times and sorting records. A restarted sorter reads them from Kafka."""

from __future__ import annotations

import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from kafka import TopicPartition
from kafka.errors import KafkaError

from agents.sorter.journal import SortingJournal
from streams.errors import BrokerError, RecordError
from streams.identity import make_header_map
from streams.kafka import make_reader
from streams.record_reader import read_broker_time, read_record, skip_record
from streams.records import Label, Record, Sorting, Verdict
from streams.settings import Settings
from streams.signatures import check_signature
from streams.topics import TopicNames

log = logging.getLogger(__name__)

# The key of a part: its run number and its part number.
PartKey = tuple[int, int]
# The number of remembered parts. At 10 parts a second, they cover six minutes. A part reaches the gate in less time.
MAX_PARTS = 4096
# A part is counted at most this long before or after its picture is taken. If the difference is larger, the count and the picture
# belong to two parts with the same number.
_MAX_TIME_DIFFERENCE = timedelta(seconds=60)
_MAX_RESTORE_S = 30.0
_MAX_BOOTSTRAP_MS = 5000
# The largest run number of a board. A gateway without a board uses larger numbers.
MAX_RUN = 65535
# A verdict can name a newer run of the board than all sorting records, if the journal could not be written. But a verdict can also be
# forged. So a run number from a verdict is accepted only if it is at most this much larger than the other known run numbers.
_MAX_UNSTORED_RUNS = 8
# A starting sorter reads at most this many verdicts, and at most this many sorting records, of its line from Kafka. The limit for sorting
# records is larger, because a part can have two sorting records, but only one verdict.
_MAX_VERDICTS_READ, _MAX_SORTINGS_READ = MAX_PARTS // 2, 4 * MAX_PARTS
# The largest number of records that a starting sorter reads from its journal.
_MAX_UNSENT_READ = 4 * MAX_PARTS


@dataclass
class PartState:
    """Holds what the sorter knows about a part. `captured_at` is the time of the picture that was judged.

    `counted_s` is the monotonic time at which the board counted the part. `counted_s` is None if this process did not receive the count.
    """

    counted_at: datetime | None = None
    counted_s: float | None = None
    label: Label | None = None
    verdict_id: uuid.UUID | None = None
    captured_at: datetime | None = None
    # The time at which the board acknowledged the verdict.
    answered_at: datetime | None = None
    # True if the verdict came too late for the gate.
    is_late: bool = False
    # True if the sorter read the verdict when it started, and the consumer group has not received the verdict since then.
    is_restored: bool = False
    # The newest sorting record of the part.
    sorting: Sorting | None = None

    def set_verdict(self, verdict: Verdict) -> None:
        """Stores the part's first verdict. Later verdicts are ignored, because the board keeps its first verdict too."""
        if self.verdict_id is None:
            self.label, self.verdict_id, self.captured_at = verdict.label, verdict.verdict_id, verdict.captured_at

    @property
    def is_of_board(self) -> bool:
        """True if a board has counted the part. A part that is known only from a verdict may not exist on any board."""
        return self.counted_at is not None or (self.sorting is not None and self.sorting.counted_at is not None)

    def is_of_other_count(self, counted_at: datetime, counted_s: float | None) -> bool:
        """Returns whether this state belongs to another part than the part that was counted at `counted_at`.

        If the board was exchanged, two parts can have the same run and part number. Their times then differ by more than 60 s. The method
        prefers times of the monotonic clock, because nobody can set this clock.
        """
        if self.counted_s is not None and counted_s is not None:
            return abs(counted_s - self.counted_s) > _MAX_TIME_DIFFERENCE.total_seconds()
        times = (self.counted_at, self.captured_at, self.sorting.counted_at if self.sorting else None)
        return any(other is not None and abs(counted_at - other) > _MAX_TIME_DIFFERENCE for other in times)


@dataclass
class RecordedParts:
    """The numbers of the parts of one run that have a sorting record.

    - `reported`: parts that a board has reported.
    - `unreported`: parts without a report, for which the sorter wrote a record by itself.
    - `complete_from`: a part number. All records of this part and of later parts are known. None if there is no such number.
    """

    reported: set[int] = field(default_factory=set)
    unreported: set[int] = field(default_factory=set)
    complete_from: int | None = None

    def add(self, sorting: Sorting, known_since: datetime | None) -> None:
        """Adds the part of `sorting`.

        The sorter has read all sorting records that were written since `known_since`. If `known_since` is None, the sorter has read all
        sorting records.
        """
        if not sorting.event:
            self.unreported.add(sorting.part)
            return
        self.reported.add(sorting.part)
        # All records of a part are written after the board has counted the part. So if the part was counted after `known_since`, the sorter
        # has read all its records.
        if known_since is None:
            self.complete_from = 0
        elif sorting.counted_at is not None and sorting.counted_at >= known_since:
            self.complete_from = sorting.part if self.complete_from is None else min(self.complete_from, sorting.part)


class PartStates:
    """Keeps the states of the newest parts, at most `max_parts`."""

    def __init__(self, max_parts: int = MAX_PARTS) -> None:
        self._max_parts = max_parts
        self._states: OrderedDict[PartKey, PartState] = OrderedDict()
        # The newest sorting records of lost parts. They are not in `_states`, because `_states` has limited room. Many lost parts would
        # push out the parts on the belt.
        self._lost: OrderedDict[PartKey, Sorting] = OrderedDict()
        # The last run of the line's board, or 0 if it is unknown.
        self.last_run = 0
        # Maps each run to the parts whose sorting records the sorter has read at its start. There can be more of these parts than
        # `_states` can hold.
        self._restored: dict[int, RecordedParts] = {}

    def get(self, run: int, part: int) -> PartState:
        """Returns the state of a part. If the part has no state yet, adds one.

        If the part was recorded as lost, the new state contains this sorting record. Otherwise the new state is empty.
        """
        state = self._states.get((run, part))
        if state is None:
            state = self._states[run, part] = PartState(sorting=self._lost.pop((run, part), None))
            while len(self._states) > self._max_parts:
                self._states.popitem(last=False)
        return state

    def set_counted(self, run: int, part: int, counted_at: datetime, counted_s: float | None = None) -> PartState:
        """Stores the time at which a part was counted, and returns the part's state. `counted_s` is the same time on the monotonic clock.

        If the stored state belongs to a part of another board, it is deleted.
        """
        state = self.get(run, part)
        if state.is_of_other_count(counted_at, counted_s):
            state = self._states[run, part] = PartState()
        if state.counted_s is None:
            state.counted_at, state.counted_s = counted_at, counted_s
        return state

    def last_sorting(self, run: int, part: int) -> Sorting | None:
        """Returns the newest sorting record of a part, or None if the part has no record or is no longer remembered."""
        state = self._states.get((run, part))
        return state.sorting if state else self._lost.get((run, part))

    def is_known(self, run: int, part: int) -> bool:
        """Returns whether the sorter knows anything about a part."""
        return (run, part) in self._states

    def has_record(self, run: int, part: int) -> bool:
        """Returns whether a part has a sorting record."""
        return self.last_sorting(run, part) is not None

    def set_restored(self, sortings: Sequence[Sorting], known_since: datetime | None) -> None:
        """Stores which parts have a sorting record, as read from Kafka and the journal.

        `sortings` contains all records of the line that were written since `known_since`. If `known_since` is None, it contains all records
        of the line.
        """
        self._restored = {}
        for sorting in sortings:
            self._restored.setdefault(sorting.run, RecordedParts()).add(sorting, known_since)

    def recorded_parts(self, run: int) -> RecordedParts:
        """Returns the parts of `run` that have a sorting record."""
        recorded = self._restored.get(run) or RecordedParts(complete_from=0)
        sortings = [state.sorting for (of_run, _), state in self._states.items() if of_run == run and state.sorting is not None]
        return RecordedParts(
            recorded.reported.union(sorting.part for sorting in sortings if sorting.event),
            recorded.unreported.union(sorting.part for sorting in sortings if not sorting.event),
            recorded.complete_from,
        )

    def add_sorting(self, sorting: Sorting) -> None:
        """Stores a sorting record as the newest one of its part."""
        self.get(sorting.run, sorting.part).sorting = sorting

    def add_lost_sorting(self, sorting: Sorting) -> None:
        """Stores the sorting record of a part whose report the board has lost. Adds no state for the part.

        If a verdict on the part comes later, the sorter finds the stored record, and writes no second record.
        """
        key = sorting.run, sorting.part
        if self.is_known(*key):
            self.add_sorting(sorting)
            return
        self._lost[key] = sorting
        while len(self._lost) > self._max_parts:
            self._lost.popitem(last=False)

    def unrecorded_parts(self, run: int) -> list[PartKey]:
        """Returns the parts without a sorting record from all runs except `run`.

        `run` is the present run of the board. The board does not report parts of other runs any more.
        """
        return [
            key
            for key, state in self._states.items()
            if key[0] != run and state.sorting is None and (state.counted_at is not None or state.verdict_id is not None)
        ]

    def unnamed_verdicts(self) -> list[PartState]:
        """Returns the parts whose gate followed a verdict, but whose sorting record names no verdict.

        The outage recorder wrote these records. It could not read the verdicts, because Kafka did not answer.
        """
        return [
            state
            for state in self._states.values()
            if state.verdict_id is not None
            and state.sorting is not None
            and state.sorting.reason == "verdict"
            and state.sorting.verdict_id is None
        ]

    def unused_run(self, run: int, counted: int) -> int:
        """Returns the run number that the line's board must use, so that no new part gets the key of an old part.

        `run` is the present run of the board. In this run, the board has counted `counted` parts on the line.

        - If the sorter knows a newer run than `run`, the result is the newest known run plus 1.
        - If the sorter knows a part of `run` with a number above `counted`, the result is `run` plus 1. For example, `run` is 7, `counted`
          is 3, and the sorter knows part 5 of run 7. The result is 8.
        - Otherwise the result is `run`.

        Any thread can call this method.
        """
        states = list(self._states.items())
        parts = [key for key, state in states if state.is_of_board and key[0] <= MAX_RUN]
        highest = max((self.last_run, *(known_run for known_run, _ in parts)))
        # `highest` is the newest run that does not come from a verdict. If the journal could not be written, only verdicts name the newest
        # run. But a verdict can be forged, so its run is accepted only if it is at most _MAX_UNSTORED_RUNS above `highest`.
        judged = [
            named_run for (named_run, _), state in states if state.verdict_id is not None and named_run <= highest + _MAX_UNSTORED_RUNS
        ]
        highest = max((highest, *judged))
        known = max((part for known_run, part in parts if known_run == run), default=0)
        is_unused = run > highest or (run == highest and counted >= known)
        # After run 65535 a board begins with run 1 again.
        return run if is_unused or highest >= MAX_RUN else highest + 1


def restore_states(settings: Settings, line: str, journal: SortingJournal, open_reader: Callable[..., Any] = make_reader) -> PartStates:
    """Reads the newest verdicts and sorting records of `line`, so that a restarted sorter knows the parts on the belt.

    The records come from Kafka and from the journal, which holds what Kafka has not confirmed yet. `open_reader` opens a consumer of Kafka.

    Raises BrokerError if a topic cannot be read within 30 s.
    """
    names = TopicNames(settings.topics.prefix)
    try:
        verdicts, _ = _read_newest(open_reader, settings, names.verdicts(line), Verdict, _MAX_VERDICTS_READ)
        since = min((verdict.captured_at for verdict in verdicts), default=None)
        since = since - _MAX_TIME_DIFFERENCE if since else None
        sortings, is_all = _read_newest(open_reader, settings, names.sorted(line), Sorting, _MAX_SORTINGS_READ, _MAX_VERDICTS_READ, since)
    except KafkaError as error:
        raise BrokerError(
            f"Cannot read the newest records of {line} from Kafka at {settings.bootstrap}: {error!r}. Check the broker."
        ) from error
    # The sorter has read Kafka, and now reads the journal. No record was moved from the journal to Kafka between the two readings, because
    # the sender, which moves the records, starts later.
    unsent = [entry.sorting for entry in journal.read_newest(_MAX_UNSENT_READ)]
    if len(unsent) == _MAX_UNSENT_READ:
        # The journal holds more records than the sorter has read. The older ones are not in Kafka either, so the sorter does not know them.
        # It knows all records that are not older than the first record in `unsent`.
        known_since: datetime | None = unsent[0].sorted_at
        states = join_states(verdicts, sortings + unsent, known_since)
    else:
        known_since = sortings[0].sorted_at if sortings and not is_all else None
        states = join_states(verdicts, sortings + unsent, known_since if len(sortings) >= _MAX_SORTINGS_READ else None)
    states.set_restored(sortings + unsent, known_since)
    states.last_run = journal.last_run() or 0
    for counted in journal.counted_parts():
        if states.last_sorting(counted.run, counted.part) is None:
            states.set_counted(counted.run, counted.part, counted.counted_at)
    return states


def join_states(verdicts: list[Verdict], sortings: list[Sorting], known_since: datetime | None = None) -> PartStates:
    """Returns the states of the parts in `verdicts`, and of the newest parts in `sortings` that have no verdict.

    `sortings` begins with the oldest record. If `known_since` is given, records from before this time may be missing. So a part with an
    older picture and no record was perhaps sorted already. The verdict on such a part is ignored.
    """
    judged = {(verdict.run, verdict.part) for verdict in verdicts}
    unjudged = [sorting for sorting in sortings if (sorting.run, sorting.part) not in judged]
    states = PartStates()
    for sorting in unjudged[-(MAX_PARTS // 2) :]:
        states.add_sorting(sorting)
    recorded = {(sorting.run, sorting.part): sorting for sorting in sortings}
    for verdict in verdicts:
        sorting_of_part = recorded.get((verdict.run, verdict.part))
        if sorting_of_part is None and known_since is not None and verdict.captured_at < known_since:
            continue
        state = states.get(verdict.run, verdict.part)
        state.set_verdict(verdict)
        state.is_restored = True
        state.sorting = sorting_of_part
    return states


R = TypeVar("R", bound=Record)


def _read_newest(
    open_reader: Callable[..., Any],
    settings: Settings,
    topic: str,
    kind: type[R],
    most: int,
    least: int = 0,
    since: datetime | None = None,
) -> tuple[list[R], bool]:
    """Reads the newest records of a topic. Also returns whether these are all records that were ever written to the topic.

    - `most`: the largest number of records to read.
    - `since`: if given, only records that were sent after this time are read, but at least the newest `least` records.
    """
    consumer = open_reader(settings, "recall", bootstrap_timeout_ms=_MAX_BOOTSTRAP_MS, auto_offset_reset="earliest")
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        end, beginning = consumer.end_offsets([partition])[partition], consumer.beginning_offsets([partition])[partition]
        first = end - most
        if since is not None:
            found = consumer.offsets_for_times({partition: int(since.timestamp() * 1000)})[partition]
            first = max(first, min(found.offset if found else end, end - least))
        first = max(beginning, first)
        consumer.seek(partition, first)
        newest: list[R] = []
        give_up_s = time.monotonic() + _MAX_RESTORE_S
        while (position := consumer.position(partition)) < end:
            if time.monotonic() > give_up_s:
                raise BrokerError(
                    f"Reading {topic} took longer than {_MAX_RESTORE_S:.0f} s and reached only offset {position} of {end}. "
                    "Check the broker's load and the network."
                )
            for records in consumer.poll(timeout_ms=500).values():
                newest += [decoded for record in records if (decoded := _read(settings, kind, record)) is not None]
        return newest, first == 0
    finally:
        consumer.close()


def _read(settings: Settings, kind: type[R], record: Any) -> R | None:
    """Returns the content of a Kafka record, or None if the record is not valid.

    An invalid record is only counted and logged here. Its dead letter is made by the worker that reads the topic in normal operation.
    """
    try:
        check_signature(settings, record.topic, record.key, record.value, make_header_map(record.headers))
        return read_record(kind, record.value, read_broker_time(record.timestamp / 1000))
    except RecordError as error:
        skip_record("sorter", record, error)
        return None
